"""Bodies that go on to somebody with other memory.

Responsible for: `repack`, which puts the bytes of a body elsewhere.
"""

from __future__ import annotations

from splitpipe.transport.arena import ArenaView
from splitpipe.transport.base import Buffer
from splitpipe.transport.envelope import BULK, Packer, parse
from splitpipe.transport.slot import Segment

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
    flags, segments, table, streams, rest = parse(body)
    buffers, text = _bytes_of(segments, table, streams, rest, arena)
    position = used = 0
    for i in range(0, len(streams) - 3, 2):
        nbytes, count = streams[i : i + 2]
        stream = bytes(text[position : position + nbytes])
        packer.add_packed(stream, buffers[used : used + count])
        position += nbytes
        used += count
    return packer.pack(bulk=bool(flags & BULK))


def _bytes_of(
    segments: list[Segment],
    table: list[int],
    streams: list[int],
    rest: memoryview,
    arena: ArenaView | None,
) -> tuple[list[memoryview], memoryview]:
    """Return the buffers of a body and its streams, where they lie."""
    if segments and arena is None:
        raise ValueError("a body names shared memory, and there is none")
    held = [arena.lease(slot, beside=1 << 30).data for slot in segments] if arena else []
    buffers: list[memoryview] = []
    inline = 0
    for i in range(0, len(table), 3):
        segment, offset, nbytes = table[i : i + 3]
        where = held[segment - 1] if segment else rest
        buffers.append(where[offset : offset + nbytes])
        inline += 0 if segment else nbytes
    segment, offset, nbytes = streams[-3:]
    return buffers, held[segment - 1][offset : offset + nbytes] if segment else rest[inline:]
