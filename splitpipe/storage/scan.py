"""Finding records in a bin without an index.

Responsible for: `scan`: every record of a bin that proves itself, by its header and its checksum,
also behind damaged places.

Rules:
- a record counts only if its checksum fits at this very place: what looks like one inside another
  record's bytes, or lies where it was not written, does not;
- behind a damaged record the next good header is looked for byte by byte.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.storage.appender import MISSING
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    LONG_LENGTH,
    LONG_RECORD_HEADER_NBYTES,
    RECORD_HEADER,
    RECORD_HEADER_NBYTES,
    place,
)

__all__ = ["Found", "scan"]

_WINDOW_NBYTES = 1 << 20
_LONG = struct.Struct("<Q")

# Whether rows, an array of them, may lie in the bin.
MayHold = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


class Found(NamedTuple):
    """A record that proved itself.

    Attributes:
        row: whose it is.
        offset: of its payload.
        length: of its payload.
        crc: its checksum.
        missing: whether it says that the row has no value.
    """

    row: int
    offset: int
    length: int
    crc: int
    missing: bool


def scan(data: mmap.mmap | bytes, seed: int, may_hold: MayHold) -> Iterator[Found]:
    """Records of a bin, in the order in which they lie.

    Args:
        data: the bin's committed bytes, or what is left of them.
        seed: the bin's ``record_seed``.
        may_hold: says which rows may lie in it.
    """
    at, end = FILE_HEADER_NBYTES, len(data)
    while at + RECORD_HEADER_NBYTES <= end:
        found = _record_at(data, at, seed)
        if found is None or not may_hold(np.array([found.row], dtype=np.int64))[0]:
            following = _next_record(data, at + 1, seed, may_hold)
            if following is None:
                return
            at, found = following
        yield found
        at = found.offset + found.length


def _record_at(data: mmap.mmap | bytes, at: int, seed: int) -> Found | None:
    """The record whose header begins here, if it proves itself."""
    crc, length, low, high = RECORD_HEADER.unpack_from(data, at)
    offset = at + RECORD_HEADER_NBYTES
    if length == LONG_LENGTH:
        if at + LONG_RECORD_HEADER_NBYTES > len(data):
            return None
        (length,) = _LONG.unpack_from(data, offset)
        offset = at + LONG_RECORD_HEADER_NBYTES
    if offset + length > len(data):
        return None
    row = low | high << 32
    start = place(seed, offset, row)
    if google_crc32c.extend(start, data[offset : offset + length]) == crc:
        return Found(row, offset, length, crc, False)
    if not length and google_crc32c.extend(start, MISSING) == crc:
        return Found(row, offset, 0, crc, True)
    return None


def _next_record(
    data: mmap.mmap | bytes, start: int, seed: int, may_hold: MayHold
) -> tuple[int, Found] | None:
    """The first record at or after a byte, and where its header begins."""
    end = len(data)
    for window in range(start, end - RECORD_HEADER_NBYTES + 1, _WINDOW_NBYTES):
        stop = min(end, window + _WINDOW_NBYTES + RECORD_HEADER_NBYTES - 1)
        for at in _candidates(data[window:stop], end - window, may_hold):
            found = _record_at(data, window + at, seed)
            if found is not None:
                return window + at, found
    return None


def _candidates(raw: bytes, room: int, may_hold: MayHold) -> list[int]:
    """Places where a header could begin, by its length and its row."""
    count = len(raw) - RECORD_HEADER_NBYTES + 1

    def at_every_byte(dtype: str, offset: int) -> npt.NDArray[Any]:
        return np.ndarray((count,), dtype, raw, offset, (1,)).astype(np.int64)

    lengths = at_every_byte("<u4", 4)
    rows = at_every_byte("<u4", 8) | at_every_byte("<u2", 12) << 32
    left = room - np.arange(count) - RECORD_HEADER_NBYTES
    fits = (lengths <= left) | (lengths == LONG_LENGTH)
    places = np.flatnonzero(fits)
    found: list[int] = places[may_hold(rows[places])].tolist()
    return found
