"""Frames in one buffer, for a body of HTTP or a file.

Responsible for: `pack` and `unpack` (a value), `join`, `split` and `split_all` (frames).

    bytes 0-3     "SPW1"
    bytes 4-7     CRC32C of everything that follows, up to the last byte
    bytes 8-15    how many bytes the whole has
    bytes 16-19   how many frames; 20-23 are zero
    then          the length of each, 8 bytes
    then          the frames; each begins, and the whole ends, at a multiple of 64

All numbers are little-endian. Wholes may follow each other.

Rules:
- lengths are added up and compared with what is there before anything is made of them;
- what `split` returns are views, nothing is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from splitpipe.errors import WireError
from splitpipe.storage.native.kernel import crc32c
from splitpipe.wire.limits import DEFAULT, Buffer, Limits
from splitpipe.wire.values import decode, encode

__all__ = ["ALIGNMENT", "aligned", "join", "pack", "split", "split_all", "unpack"]

ALIGNMENT = 64
_HEAD = struct.Struct("<4sIQII")
_MAGIC = b"SPW1"


def pack(value: Any, *, limits: Limits = DEFAULT) -> bytes:
    """Return `value` as one buffer.

    Raises:
        WireError: as `splitpipe.wire.values.encode`.

    Example:
        >>> unpack(pack({"id": [1, 2]}))
        {'id': [1, 2]}
    """
    return join(encode(value, limits=limits))


def unpack(buffer: Buffer, *, limits: Limits = DEFAULT) -> Any:
    """Return the value of a buffer that `pack` made. Large arrays are views of it.

    Raises:
        WireError: it is cut, changed, not of this format, or beyond `limits`.
    """
    return decode(split(buffer, limits=limits), limits=limits)


def aligned(nbytes: int) -> int:
    """Return the next multiple of 64."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def join(frames: Sequence[Buffer]) -> bytes:
    """Return `frames` as one buffer, which says where each is."""
    views = [memoryview(frame).cast("B") for frame in frames]
    lengths = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    start = _HEAD.size + len(lengths)
    parts: list[Buffer] = [lengths, bytes(aligned(start) - start)]
    for view in views:
        parts += [view, bytes(aligned(view.nbytes) - view.nbytes)]
    rest = struct.pack("<QII", _HEAD.size + sum(map(len, parts)), len(views), 0)
    crc = 0
    for part in (rest, *parts):
        crc = crc32c(part, crc)
    return b"".join([_MAGIC, crc.to_bytes(4, "little"), rest, *parts])


def split(buffer: Buffer, *, limits: Limits = DEFAULT) -> list[memoryview]:
    """Return the frames of a buffer that `join` made, as views of it.

    Raises:
        WireError: it is cut, changed, not of this format, or beyond `limits`.
    """
    whole = memoryview(buffer).cast("B").toreadonly()
    frames, rest = _first(whole, limits)
    if rest.nbytes:
        raise WireError(f"{rest.nbytes} bytes behind the end of the frames")
    return frames


def split_all(buffer: Buffer, *, limits: Limits = DEFAULT) -> list[list[memoryview]]:
    """Return the frames of each of the buffers that follow each other in `buffer`: maybe none.

    Raises:
        WireError: as `split`. `limits` holds for all of them together.
    """
    rest = memoryview(buffer).cast("B").toreadonly()
    found: list[list[memoryview]] = []
    count = 0
    while rest.nbytes:
        frames, rest = _first(rest, limits)
        found.append(frames)
        count += len(frames) + 1
        if count > limits.frames:
            raise WireError(f"more than {limits.frames} frames, which is the limit")
    return found


def _first(whole: memoryview, limits: Limits) -> tuple[list[memoryview], memoryview]:
    """Return the frames that `whole` begins with, and what follows them."""
    if whole.nbytes > limits.nbytes:
        raise WireError(f"{whole.nbytes} bytes: {limits.nbytes} is the limit")
    if whole.nbytes < _HEAD.size or whole[:4] != _MAGIC:
        raise WireError("these bytes are no packed frames")
    _, crc, total, count, _ = _HEAD.unpack_from(whole)
    if not _HEAD.size <= total <= whole.nbytes:
        raise WireError(f"packed frames of {total} bytes, of which {whole.nbytes} are there")
    if count > limits.frames or _HEAD.size + 8 * count > total:
        raise WireError(f"packed frames that say they are {count}")
    if crc32c(whole[8:total]) != crc:
        raise WireError("packed frames were changed on their way: their checksum does not fit")
    lengths = struct.unpack_from(f"<{count}Q", whole, _HEAD.size)
    place = aligned(_HEAD.size + 8 * count)
    frames = []
    for length in lengths:
        if place + length > total:
            raise WireError("a packed frame that reaches beyond the end")
        frames.append(whole[place : place + length])
        place += aligned(length)
    if place != total:
        raise WireError(f"packed frames of {place} bytes that say they are {total}")
    return frames, whole[total:]
