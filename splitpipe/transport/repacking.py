"""Bodies that go on to somebody with other memory.

Responsible for: `repack`, which puts the bytes of a body elsewhere.
"""

from __future__ import annotations

from splitpipe.transport.arena import ArenaView
from splitpipe.transport.base import Buffer
from splitpipe.transport.envelope import BULK, Packer, Table, parse
from splitpipe.transport.native.kernel import PLACE

__all__ = ["repack"]


def repack(body: Buffer, arena: ArenaView | None, packer: Packer) -> list[Buffer]:
    """Return the parts of a body of the same values, with their bytes where `packer` puts them.

    No value is restored. Slots of `arena` that the body names are given back.

    Example:
        >>> from splitpipe.transport.envelope import unpack
        >>> packer = Packer(None)
        >>> packer.add("one")
        >>> body = b"".join(packer.pack())
        >>> unpack(b"".join(repack(body, None, packer)), None)
        ['one']
    """
    table = parse(body)
    buffers, text = _bytes_of(table, arena)
    position = used = 0
    for nbytes, count in table.sizes:
        stream = bytes(text[position : position + nbytes])
        packer.add_packed(stream, buffers[used : used + count])
        position += nbytes
        used += count
    return packer.pack(bulk=bool(table.flags & BULK))


def _bytes_of(table: Table, arena: ArenaView | None) -> tuple[list[memoryview], memoryview]:
    """Return the buffers of a body and its streams, where they lie."""
    if table.segments and arena is None:
        raise ValueError("a body names shared memory, and there is none")
    held = [arena.lease(slot, beside=1 << 30).data for slot in table.segments] if arena else []
    buffers: list[memoryview] = []
    inline = 0
    for segment, offset, nbytes in PLACE.iter_unpack(table.places):
        where = held[segment - 1] if segment else table.rest
        buffers.append(where[offset : offset + nbytes])
        inline += 0 if segment else nbytes
    segment, offset, nbytes = table.home
    text = held[segment - 1][offset : offset + nbytes] if segment else table.rest[inline:]
    return buffers, text
