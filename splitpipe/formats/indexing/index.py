"""The index of a foreign source: where each record lies, in one small file of our own.

Responsible for: the layout of an index file, `encode_index`, and `Index`, which maps one and gives
its entries after verifying them.

The file, little-endian:

    64 bytes        header: `SPLITIDX`, u32 version, u32 words, u64 rows, u64 size of the head, u64
                    size of the blobs, u32 CRC32C of the head, 16 bytes identity (SHA-256 of the
                    head, its beginning), u32 CRC32C of the 60 bytes before
    head            JSON: format, options, and for each file its name, size, time, sample, first
                    row, and what its format noted; padded with spaces to a multiple of 8
    rows x words    u64: the entries. What the words mean is the format's own; the first two are
                    offset and length of the record in its file
    sums            u32: CRC32C of each page of 512 entries, seeded with identity and page number;
                    padded with zeros to a multiple of 8
    blobs           what a format needs beside the entries, one a file, each with its CRC32C in the
                    head

Rules:
- an index is only a memory of the source: what is damaged is built again where that can be seen
  on opening, and is refused where it is seen later; no entry is used before its page was verified;
- sizes in the header are compared with the file before anything is allocated;
- the same source and options give the same bytes, whoever builds and with however many workers.
"""

from __future__ import annotations

import bisect
import errno
import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.formats.files.sources import Fingerprint
from splitpipe.storage import files

__all__ = ["Contents", "Entries", "Index", "IndexedFile", "encode_index", "load_index"]

Entries = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

MAGIC = b"SPLITIDX"
VERSION = 1
HEADER_NBYTES = 64
PAGE_ROWS = 512
MOST_WORDS = 1 << 16
# An index up to this size is verified whole when it is opened: a damaged one is then built again.
_VERIFIED_AT_ONCE_NBYTES = 16 << 20
_HEADER = struct.Struct("<8sIIQQQI16s")
_PLACE = struct.Struct("<QQ")
_PIECE_ROWS = PAGE_ROWS << 6


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One file of an indexed source.

    Attributes:
        name: its path as seen from the source's root.
        known_by: what it was when it was indexed.
        first_row: its first row.
        rows: how many records it has.
        skipped: how many broken records were left out.
        notes: what its format has to remember of it: JSON.
        blob_nbytes: size of what its format has to remember as bytes.
        blob_crc: CRC32C of that.
    """

    name: str
    known_by: Fingerprint
    first_row: int
    rows: int
    skipped: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    blob_nbytes: int = 0
    blob_crc: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """What an index is about.

    Attributes:
        format: the format's name.
        options: those of its options that change the entries.
        names: of the files, as seen from the source's root.
    """

    format: str
    options: dict[str, Any]
    names: tuple[str, ...]


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 8)


def _pages_of(rows: int) -> int:
    return (rows + PAGE_ROWS - 1) // PAGE_ROWS


def _seed(identity: bytes, page: int) -> int:
    return int(google_crc32c.value(identity + page.to_bytes(8, "little")))


def _head(contents: Contents, listed: Sequence[IndexedFile]) -> bytes:
    return _padded(
        json.dumps(
            {
                "format": contents.format,
                "options": contents.options,
                "files": [
                    [
                        one.name,
                        *one.known_by,
                        one.rows,
                        one.skipped,
                        one.notes,
                        one.blob_nbytes,
                        one.blob_crc,
                    ]
                    for one in listed
                ],
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode("ascii"),
        b" ",
    )


def encode_index(
    contents: Contents,
    listed: Sequence[IndexedFile],
    words: int,
    entries: Iterable[Entries],
    blobs: Iterable[bytes],
) -> Iterator[bytes]:
    """The bytes of an index file, piece by piece.

    Args:
        contents: what it is about.
        listed: the files, in order.
        words: how many words an entry has.
        entries: of all files in order, in arrays of shape (any, words).
        blobs: of all files in order.
    """
    head = _head(contents, listed)
    identity = hashlib.sha256(head).digest()[:16]
    rows = sum(one.rows for one in listed)
    start = _HEADER.pack(
        MAGIC,
        VERSION,
        words,
        rows,
        len(head),
        sum(one.blob_nbytes for one in listed),
        google_crc32c.value(head),
        identity,
    )
    yield start + google_crc32c.value(start).to_bytes(4, "little")
    yield head
    sums: list[int] = []
    for piece in _pages(entries, words):
        sums += [
            google_crc32c.extend(_seed(identity, len(sums) + number), page)
            for number, page in enumerate(_split(piece))
        ]
        yield piece.tobytes()
    yield _padded(np.array(sums, dtype="<u4").tobytes(), b"\0")
    yield from blobs


def _pages(entries: Iterable[Entries], words: int) -> Iterator[Entries]:
    """The same entries in arrays of whole pages; the last one has what is left."""
    held: list[Entries] = []
    count = 0
    for array in entries:
        held.append(array)
        count += len(array)
        if count >= _PIECE_ROWS:
            whole = np.concatenate(held)
            stop = count - count % PAGE_ROWS
            yield whole[:stop]
            held, count = [whole[stop:]], count - stop
    yield np.concatenate([*held, np.empty((0, words), dtype="<u8")])


def _split(piece: Entries) -> Iterator[bytes]:
    for start in range(0, len(piece), PAGE_ROWS):
        yield piece[start : start + PAGE_ROWS].tobytes()


class Index:
    """A loaded index.

    Args:
        path: where it lies, or a few words for one that is in memory only.
        data: its bytes: a map of the file, or bytes.

    Attributes:
        path: where it lies.
        identity: changes with the source, the options and the version.
        contents: what it is about.
        files: the files of the source, in order.
        rows: number of records.
        words: how many words an entry has.

    Raises:
        FormatError: it is damaged, or of another version.
    """

    __slots__ = (
        "_blobs_at",
        "_data",
        "_entries",
        "_entries_at",
        "_first_rows",
        "_intact",
        "_starts",
        "_sums",
        "contents",
        "files",
        "identity",
        "path",
        "rows",
        "words",
    )

    def __init__(self, path: str, data: bytes | mmap.mmap) -> None:
        self.path = path
        head_at, sums_at, blobs_at = self._read_header(data)
        try:
            self.contents, self.files = _decode_head(data[HEADER_NBYTES:head_at])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(f"the index {path} is damaged: its head is not one") from error
        blobs_nbytes = sum(one.blob_nbytes for one in self.files)
        if sum(one.rows for one in self.files) != self.rows or blobs_at + blobs_nbytes != len(data):
            raise FormatError(f"the index {path} is damaged: its files do not add up")
        self._blobs_at = blobs_at
        self._data: bytes | mmap.mmap | None = data
        self._entries_at = head_at
        self._starts = [one.first_row for one in self.files]
        self._entries = np.frombuffer(
            data, dtype="<u8", count=self.rows * self.words, offset=head_at
        ).reshape(self.rows, self.words)
        pages = _pages_of(self.rows)
        self._sums = np.frombuffer(data, dtype="<u4", count=pages, offset=sums_at)
        if any(data[sums_at + 4 * pages : blobs_at]):
            raise FormatError(f"the index {path} is damaged: bytes that are zero are not")
        self._intact = np.zeros(pages, dtype=np.bool_)
        self._first_rows = np.array(self._starts, dtype=np.int64)
        if len(data) <= _VERIFIED_AT_ONCE_NBYTES:
            self._verify(np.arange(pages))

    def _read_header(self, data: bytes | mmap.mmap) -> tuple[int, int, int]:
        """Check header and size; where entries, sums and blobs begin."""
        raw = data[:HEADER_NBYTES]
        if len(raw) < HEADER_NBYTES or raw[:8] != MAGIC:
            raise FormatError(f"{self.path} is no index of splitpipe")
        if google_crc32c.value(raw[:60]) != int.from_bytes(raw[60:], "little"):
            raise FormatError(f"the index {self.path} is damaged: its header fails its checksum")
        _, version, self.words, self.rows, head, blobs, head_sum, self.identity = _HEADER.unpack(
            raw[:60]
        )
        if version != VERSION:
            raise FormatError(f"the index {self.path} is of another version ({version})")
        head_at = HEADER_NBYTES + head
        sums_at = head_at + self.rows * self.words * 8
        blobs_at = sums_at + (4 * _pages_of(self.rows) + 7) // 8 * 8
        if not 0 < self.words <= MOST_WORDS or blobs_at + blobs != len(data):
            raise FormatError(
                f"the index {self.path} has {len(data)} bytes, {blobs_at + blobs} were written"
            )
        if google_crc32c.value(data[HEADER_NBYTES:head_at]) != head_sum:
            raise FormatError(f"the index {self.path} is damaged: its head fails its checksum")
        return head_at, sums_at, blobs_at

    def _verify(self, pages: npt.NDArray[np.int64]) -> None:
        for page in pages[~self._intact[pages]].tolist():
            raw = self._entries[page * PAGE_ROWS : (page + 1) * PAGE_ROWS].tobytes()
            if google_crc32c.extend(_seed(self.identity, page), raw) != self._sums[page]:
                raise CorruptRecord(
                    f"the index {self.path} is damaged at rows {page * PAGE_ROWS} to "
                    f"{(page + 1) * PAGE_ROWS - 1}: remove it, it is built again"
                )
            self._intact[page] = True

    def entries(self, rows: Rows) -> Entries:
        """The entries of some rows: a uint64 array of shape (n, words).

        Raises:
            CorruptRecord: the index is damaged there.
        """
        if self._data is None:
            raise StorageError(errno.EBADF, "the dataset is closed", self.path)
        if not self._intact.all():
            self._verify(distinct(rows // PAGE_ROWS))
        return self._entries[rows]

    def numbers(self, rows: Rows) -> npt.NDArray[np.int64]:
        """In which file each row lies: its number in `files`."""
        # Files without records begin where the next one does, and come before it.
        return np.searchsorted(self._first_rows, rows, side="right") - 1

    def extent(self, row: int) -> tuple[int, int, int]:
        """File number, offset and length of one record: `extents` without arrays.

        Raises:
            CorruptRecord: the index is damaged there.
        """
        if self._data is None or not self._intact[row // PAGE_ROWS]:
            self.entries(np.array([row], dtype=np.int64))
        assert self._data is not None
        offset, length = _PLACE.unpack_from(self._data, self._entries_at + row * self.words * 8)
        return bisect.bisect_right(self._starts, row) - 1, offset, length

    def extents(self, rows: Rows) -> tuple[npt.NDArray[np.int64], Rows, Rows]:
        """File numbers, offsets and lengths of the records of some rows.

        Raises:
            CorruptRecord: the index is damaged there.
        """
        places = self.entries(rows)[:, :2].astype(np.int64)
        if len(places) and int(places.min()) < 0:
            raise CorruptRecord(f"the index {self.path} names places beyond 2^63: remove it")
        return self.numbers(rows), places[:, 0], places[:, 1]

    def blob(self, number: int) -> bytes:
        """What the format had to remember of a file, as bytes.

        Raises:
            FormatError: the index is damaged there.
        """
        start = self._blobs_at + sum(one.blob_nbytes for one in self.files[:number])
        one = self.files[number]
        if self._data is None:
            raise StorageError(errno.EBADF, "the dataset is closed", self.path)
        found = bytes(self._data[start : start + one.blob_nbytes])
        if google_crc32c.value(found) != one.blob_crc:
            raise FormatError(
                f"the index {self.path} is damaged (blob of {one.name}): remove it, it is built "
                "again"
            )
        return found

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._data = None
        self._entries = np.empty((0, self.words), dtype="<u8")
        self._sums = np.empty(0, dtype="<u4")

    @property
    def skipped(self) -> int:
        """How many broken records were left out."""
        return sum(one.skipped for one in self.files)

    def __repr__(self) -> str:
        return f"Index({self.path!r}, {self.rows} rows of {len(self.files)} files)"


def _decode_head(head: bytes) -> tuple[Contents, tuple[IndexedFile, ...]]:
    document = json.loads(head)
    listed: list[IndexedFile] = []
    row = 0
    for name, size, mtime_ns, sample, rows, skipped, notes, nbytes, crc in document["files"]:
        if not all(type(n) is int and n >= 0 for n in (size, sample, rows, skipped, nbytes, crc)):
            raise ValueError("a number is none")
        known_by = Fingerprint(size, mtime_ns, sample)
        listed.append(IndexedFile(name, known_by, row, rows, skipped, notes, nbytes, crc))
        row += rows
    names = tuple(one.name for one in listed)
    return Contents(document["format"], document["options"], names), tuple(listed)


def load_index(path: str) -> Index:
    """Map an index file.

    Raises:
        FormatError: it is damaged, or no index.
        StorageError: it is not there or cannot be read.
    """
    descriptor = files.open_file(path, os.O_RDONLY)
    try:
        with files.translated("map the index", path):
            if not os.fstat(descriptor).st_size:
                raise FormatError(f"the index {path} is empty")
            data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        files.close(descriptor)
    return Index(path, data)
