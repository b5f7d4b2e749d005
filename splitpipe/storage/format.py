"""The bytes of a dataset on disk: layouts, checksums, names.

Responsible for: every constant and every formula of ``docs/format.md`` that concerns the
binary files (bins, index, sums), so that the writer, the reader and the checker cannot
disagree about one.

Rules:
- all integers are little-endian and all sizes, offsets and row numbers are 64-bit
  (a record's header keeps 48 bits of its row number);
- a checksum is a CRC32C whose start value depends on what the bytes *are* (dataset, column,
  bin, offset, row), so that good bytes in the wrong place are as wrong as a flipped bit;
- a file is named by integers only.

It opens nothing and keeps no state. The manifest, which is JSON, is in ``manifest.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError

__all__ = [
    "ENTRY",
    "ENTRY_DTYPE",
    "ENTRY_NBYTES",
    "FILE_HEADER_NBYTES",
    "FORMAT_NAME",
    "FORMAT_VERSION",
    "LOCK_NAME",
    "LONG_LENGTH",
    "LONG_RECORD_HEADER_NBYTES",
    "MANIFEST_NAME",
    "MAX_BINS",
    "MAX_ROWS",
    "OFFSET_FACTOR",
    "RECORD_HEADER",
    "RECORD_HEADER_DTYPE",
    "RECORD_HEADER_NBYTES",
    "ROW_FACTOR",
    "RUN_RECORDS",
    "FileId",
    "check_file_header",
    "file_header",
    "file_name",
    "index_seed",
    "pack_record_header",
    "place",
    "places",
    "record_seed",
    "run_seed",
]

FORMAT_NAME: Final = "splitpipe dataset"
FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "splitpipe.json"
LOCK_NAME: Final = "writer.lock"

# One index entry: payload offset in its bin, payload length, bin number, CRC32C.
ENTRY: Final = struct.Struct("<QQII")
ENTRY_NBYTES: Final = ENTRY.size
ENTRY_DTYPE: Final = np.dtype(
    [("offset", "<u8"), ("length", "<u8"), ("bin", "<u4"), ("crc", "<u4")]
)

# What precedes a payload in its bin, so that an index can be rebuilt from the bins alone:
# CRC32C, length, row number (low 32 bits, high 16 bits). A length that does not fit in 32
# bits is written as LONG_LENGTH, and the true length follows as a u64.
RECORD_HEADER: Final = struct.Struct("<IIIH")
RECORD_HEADER_NBYTES: Final = RECORD_HEADER.size
RECORD_HEADER_DTYPE: Final = np.dtype(
    [("crc", "<u4"), ("length", "<u4"), ("row_low", "<u4"), ("row_high", "<u2")]
)
LONG_LENGTH: Final = 0xFFFFFFFF
LONG_RECORD_HEADER_NBYTES: Final = RECORD_HEADER_NBYTES + 8

# A run is this many consecutive records of one bin, and has one checksum over its bytes,
# headers included. Reading a run needs one checksum instead of 64: about 10 ns a record
# instead of 100. With 64 bins of 200 B records, a run from every bin (a stripe) is 0.9 MB and
# stays in the cache while it is split; larger runs fall out of it, smaller ones gain less.
RUN_RECORDS: Final = 64

MAX_BINS: Final = 1 << 16
MAX_ROWS: Final = 1 << 48

# What an offset and a row are multiplied by before they are mixed into a start value (the odd
# factors of SplitMix64). Neither has eight equal bits in a row, so that one bit of an offset or
# of a row, whichever it is, always changes the highest byte of the start value: the one that no
# record of less than four bytes can change back. A checksum's start value has 32 bits and the
# checksum library drops the rest without a word; the upper half of the product holds them all.
OFFSET_FACTOR: Final = 0x9E37_79B9_7F4A_7C15
ROW_FACTOR: Final = 0xBF58_476D_1CE4_E5B9

_MAGIC: Final = b"SPLITPIP"
_FILE_HEADER: Final = struct.Struct("<8sII16sIII16s")
_CRC: Final = struct.Struct("<I")
FILE_HEADER_NBYTES: Final = _FILE_HEADER.size + _CRC.size

_KINDS: Final = {"bin": 1, "index": 2, "sums": 3, "deleted": 4, "dictionary": 5}


@dataclass(frozen=True, slots=True)
class FileId:
    """What a binary file of a dataset is: enough to name it and to write its header.

    Attributes:
        kind: ``"bin"``, ``"index"``, ``"sums"``, ``"deleted"`` or ``"dictionary"``.
        dataset: the 16 bytes that name the dataset.
        volume: counts the times the dataset was overwritten, from 1.
        column: the column's number.
        number: the bin's number; for an index, sums and deleted rows the generation that
            wrote them anew, 0 for the ones that only grow.
    """

    kind: str
    dataset: bytes
    volume: int
    column: int
    number: int = 0


def file_name(identity: FileId) -> str:
    """Name of a file inside the dataset's directory, made of integers and fixed words.

    Example:
        >>> file_name(FileId("bin", bytes(16), 1, 0, 7))
        'v0001-c000-b00007.bin'
        >>> file_name(FileId("index", bytes(16), 1, 0))
        'v0001-c000.index'
    """
    stem = f"v{identity.volume:04d}-c{identity.column:03d}"
    if identity.kind == "bin":
        return f"{stem}-b{identity.number:05d}.bin"
    if identity.kind == "deleted":
        return f"v{identity.volume:04d}-deleted-{identity.number:05d}.rows"
    if identity.number:
        return f"{stem}-g{identity.number:05d}.{identity.kind}"
    return f"{stem}.{identity.kind}"


def file_header(identity: FileId) -> bytes:
    """The 64 bytes with which every binary file starts.

    Example:
        >>> len(file_header(FileId("bin", bytes(16), 1, 0, 7)))
        64
    """
    head = _FILE_HEADER.pack(
        _MAGIC,
        FORMAT_VERSION,
        _KINDS[identity.kind],
        identity.dataset,
        identity.volume,
        identity.column,
        identity.number,
        bytes(16),
    )
    return head + _CRC.pack(google_crc32c.value(head))


def check_file_header(raw: bytes, identity: FileId, path: str) -> None:
    """Raise ``FormatError`` unless ``raw`` is the header of exactly this file.

    Args:
        raw: the first bytes of the file.
        identity: what the manifest says the file is.
        path: where it lies, for the message.
    """
    if raw == file_header(identity):
        return
    if len(raw) < FILE_HEADER_NBYTES or raw[:8] != _MAGIC:
        what = "does not start like a file of a splitpipe dataset"
    elif _CRC.pack(google_crc32c.value(raw[: _FILE_HEADER.size])) != raw[_FILE_HEADER.size :]:
        what = "has a damaged header"
    else:
        what = "belongs to another dataset, or to another place in this one"
    raise FormatError(
        f"{path} {what}; restore the file from a copy of this very dataset "
        f"(dataset {identity.dataset.hex()}, {identity.kind} {identity.number})"
    )


def _seed(domain: bytes, dataset: bytes, column: int, number: int) -> int:
    return int(google_crc32c.value(domain + dataset + struct.pack("<II", column, number)))


def record_seed(dataset: bytes, column: int, number: int) -> int:
    """Start value of the record checksums of one bin, before the place is mixed in."""
    return _seed(b"record", dataset, column, number)


def run_seed(dataset: bytes, column: int, number: int) -> int:
    """Start value of the run checksums of one bin, before the place is mixed in."""
    return _seed(b"run", dataset, column, number)


def index_seed(dataset: bytes, column: int) -> int:
    """Start value of the index page checksums of one column, before the place is mixed in."""
    return _seed(b"index", dataset, column, 0)


def place(seed: int, offset: int, row: int) -> int:
    """The start value for the bytes at ``offset`` that belong to ``row``.

    Example:
        >>> hex(place(0, 100, 5)), hex(place(0, 101, 5))
        ('0x8a64f197', '0x289c6b50')
    """
    return seed ^ (offset * OFFSET_FACTOR + row * ROW_FACTOR) >> 32 & 0xFFFFFFFF


def places(offsets: npt.NDArray[np.uint64], rows: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """What `place` combines with the seed, for many at once.

    Args:
        offsets: uint64 array of any shape.
        rows: int64 or uint64 array of the same shape.

    Example:
        >>> made = places(np.array([100], dtype=np.uint64), np.array([5]))
        >>> int(made[0]) ^ 7 == place(7, 100, 5)
        True
    """
    mixed = offsets * np.uint64(OFFSET_FACTOR)
    mixed += rows.view(np.uint64) * np.uint64(ROW_FACTOR)
    mixed >>= np.uint64(32)
    return mixed


def pack_record_header(crc: int, length: int, row: int) -> bytes:
    """The bytes before a payload: 14, or 22 when the length needs 64 bits.

    Example:
        >>> len(pack_record_header(1, 5, 0)), len(pack_record_header(1, 2**32, 0))
        (14, 22)
    """
    low, high = row & 0xFFFFFFFF, row >> 32
    if length < LONG_LENGTH:
        return RECORD_HEADER.pack(crc, length, low, high)
    return RECORD_HEADER.pack(crc, LONG_LENGTH, low, high) + struct.pack("<Q", length)
