"""Changing what was written: updated records, and the index that leads to them.

Responsible for: `Updates` (new values of rows that are there, put into a bin of their own) and
`rewrite` (index and sums of a column written anew, with the entries of updated rows replaced).

Rules:
- no committed byte changes: an updated record is appended, an index is written under the number
  of the commit that needs it;
- a run, one of whose records lies in another bin than its own, has no checksum: 0 stands in its
  place, and such rows are read one by one;
- when a row is updated twice, the later one counts, within a commit and across them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.storage import files
from splitpipe.storage.appender import MISSING, ColumnAppender, payloads, record_headers
from splitpipe.storage.committed import Column, Manifest
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    LONG_LENGTH,
    LONG_RECORD_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    file_header,
    file_name,
    index_seed,
    place,
    places,
    record_seed,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Updates", "entries_of", "missing_among", "record_nbytes", "rewrite"]

Rows = npt.NDArray[np.int64]
Entries = npt.NDArray[Any]

_BLOCK_ROWS = 1 << 18


class Updates:
    """New values for rows of one column that are there already.

    Args:
        dataset: the 16 bytes that name the dataset.
        column: the column's number.
    """

    def __init__(self, dataset: bytes, column: int) -> None:
        self._dataset = dataset
        self._column = column
        self._rows: list[Rows] = []
        self._entries: list[Entries] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def append(
        self, appender: ColumnAppender, rows: Sequence[int], values: Sequence[bytes | None]
    ) -> None:
        """Write new values into the bin for updated records.

        An error leaves everything as it was: the same values can be appended again.
        """
        number = appender.bin_aside()
        start = appender.sizes[number] or FILE_HEADER_NBYTES
        records, signed = payloads(values)
        lengths = np.fromiter(map(len, records), np.int64, len(records))
        ends = start + np.cumsum(lengths + _headers_nbytes(lengths))
        entries = np.empty(len(records), dtype=ENTRY_DTYPE)
        entries["offset"] = ends - lengths
        entries["length"] = lengths
        entries["bin"] = number
        where = np.asarray(rows, dtype=np.int64)
        seed = np.uint64(record_seed(self._dataset, self._column, number))
        starts = (seed ^ places(entries["offset"], where)).tolist()
        crcs = list(map(google_crc32c.extend, starts, signed))
        entries["crc"] = crcs
        headers = record_headers(crcs, lengths, where.view(np.uint64))
        pieces = [piece for pair in zip(headers, records, strict=True) for piece in pair]
        appender.write_pieces(number, [b"".join(pieces)], start)
        appender.sizes[number] = int(ends[-1])
        self._rows.append(where)
        self._entries.append(entries)

    def final(self) -> tuple[Rows, Entries, int]:
        """The updated rows, ascending; their entries; bytes of records that count no more."""
        rows = np.concatenate(self._rows)
        entries = np.concatenate(self._entries)
        # The last of every row, as the first of the reversed.
        unique, last = np.unique(rows[::-1], return_index=True)
        kept = entries[::-1][last]
        return unique, kept, record_nbytes(entries) - record_nbytes(kept)


def _headers_nbytes(lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.where(lengths >= LONG_LENGTH, LONG_RECORD_HEADER_NBYTES, RECORD_HEADER_NBYTES)


def record_nbytes(entries: Entries) -> int:
    """Bytes of records in their bins, headers included."""
    lengths = entries["length"].astype(np.int64)
    return int((lengths + _headers_nbytes(lengths)).sum())


def entries_of(path: str, rows: Rows) -> Entries:
    """Index entries of rows, ascending, read from an index file as it is."""
    found = np.empty(len(rows), dtype=ENTRY_DTYPE)
    descriptor = files.open_file(path, os.O_RDONLY)
    try:
        at = 0
        while at < len(rows):
            first = int(rows[at])
            stop = int(np.searchsorted(rows, first + _BLOCK_ROWS))
            last = int(rows[stop - 1])
            block = _read(descriptor, path, first, last + 1)
            found[at:stop] = block[rows[at:stop] - first]
            at = stop
    finally:
        files.close(descriptor)
    return found


def _read(descriptor: int, path: str, start: int, stop: int) -> Entries:
    offset = FILE_HEADER_NBYTES + ENTRY_NBYTES * start
    raw = files.read_at(descriptor, ENTRY_NBYTES * (stop - start), offset, path)
    return np.frombuffer(raw, dtype=ENTRY_DTYPE)


def rewrite(
    directory: str, manifest: Manifest, column: Column, updates: Updates, number: int
) -> Column:
    """Write index and sums of a column anew, with updated entries in place of the old.

    Args:
        directory: of the dataset.
        manifest: says whose files these are.
        column: the column as its files are now, appended rows included.
        updates: the new entries.
        number: of the commit that this is for.

    Returns:
        The column as the new files make it. They are durable.
    """
    rows, entries, superseded = updates.final()
    renewed = replace(column, version=number)
    source = os.path.join(directory, file_name(manifest.file_id("index", column)))
    target = os.path.join(directory, file_name(manifest.file_id("index", renewed)))
    old = entries_of(source, rows)
    with _created(target) as written:
        files.write_at(written, file_header(manifest.file_id("index", renewed)), 0, target)
        _copy_entries(source, target, written, column.layout.rows, (rows, entries))
        files.sync(written, target)
        layout = _rewrite_sums(directory, manifest, (column, renewed), rows, target)
    lost, found = (missing_among(manifest, column, these, rows) for these in (entries, old))
    return replace(
        renewed,
        layout=layout,
        missing=column.missing + len(lost) - len(found),
        dead_nbytes=column.dead_nbytes + superseded + record_nbytes(old),
    )


@contextmanager
def _created(path: str) -> Iterator[int]:
    """An open file that is new, or empty again."""
    descriptor = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield descriptor
    finally:
        files.close(descriptor)


def _copy_entries(
    source: str, target: str, written: int, count: int, changed: tuple[Rows, Entries]
) -> None:
    rows, entries = changed
    descriptor = files.open_file(source, os.O_RDONLY)
    try:
        for start in range(0, count, _BLOCK_ROWS):
            stop = min(count, start + _BLOCK_ROWS)
            block = _read(descriptor, source, start, stop).copy()
            first, last = np.searchsorted(rows, (start, stop)).tolist()
            block[rows[first:last] - start] = entries[first:last]
            offset = FILE_HEADER_NBYTES + ENTRY_NBYTES * start
            files.write_at(written, block.tobytes(), offset, target)
    finally:
        files.close(descriptor)


def missing_among(manifest: Manifest, column: Column, entries: Entries, rows: Rows) -> list[int]:
    """Which of these entries, of these rows, are of missing values, by their place."""
    found = []
    for at in np.flatnonzero(entries["length"] == 0).tolist():
        offset, _, number, crc = entries[at].tolist()
        seed = record_seed(manifest.dataset, column.number, number)
        if google_crc32c.extend(place(seed, offset, int(rows[at])), MISSING) == crc:
            found.append(at)
    return found


def _rewrite_sums(
    directory: str,
    manifest: Manifest,
    columns: tuple[Column, Column],
    rows: Rows,
    index: str,
) -> BinLayout:
    """The sums file of the new version; the layout with its new tails."""
    column, renewed = columns
    source = os.path.join(directory, file_name(manifest.file_id("sums", column)))
    target = os.path.join(directory, file_name(manifest.file_id("sums", renewed)))
    seed = index_seed(manifest.dataset, column.number)
    segments: list[Segment] = []
    at = FILE_HEADER_NBYTES
    entries = files.open_file(index, os.O_RDONLY)
    try:
        with _created(target) as written:
            files.write_at(written, file_header(manifest.file_id("sums", renewed)), 0, target)
            for segment in column.layout.segments:
                nbytes = segment.stripes * segment.sums_nbytes
                raw = _whole(source, at, nbytes)
                table = np.frombuffer(raw, dtype="<u4").reshape(-1, 1 + segment.bins).copy()
                tail = np.frombuffer(segment.tail, dtype="<u4").copy()
                for stripe in _touched(segment, rows):
                    sums = table[stripe] if stripe < segment.stripes else tail
                    first = segment.first_row + stripe * segment.stripe_rows
                    last = min(first + segment.stripe_rows, segment.first_row + segment.rows)
                    _resum(sums, segment, _read(entries, index, first, last), place(seed, 0, first))
                files.write_at(written, table.tobytes(), at, target)
                segments.append(replace(segment, tail=tail.tobytes()))
                at += nbytes
            files.sync(written, target)
    finally:
        files.close(entries)
    return BinLayout(segments)


def _whole(path: str, offset: int, nbytes: int) -> bytes:
    descriptor = files.open_file(path, os.O_RDONLY)
    try:
        return files.read_at(descriptor, nbytes, offset, path)
    finally:
        files.close(descriptor)


def _touched(segment: Segment, rows: Rows) -> list[int]:
    """Stripes of a segment that have one of these rows."""
    first, last = np.searchsorted(rows, (segment.first_row, segment.first_row + segment.rows))
    stripes = (rows[first:last] - segment.first_row) // segment.stripe_rows
    touched: list[int] = distinct(stripes).tolist()
    return touched


def _resum(sums: npt.NDArray[Any], segment: Segment, entries: Entries, start: int) -> None:
    """Checksum of a page; no checksum for its runs that are not together any more."""
    sums[0] = google_crc32c.extend(start, entries.tobytes())
    turns = np.arange(len(entries)) % segment.bins
    own = np.array([segment.bin_at(turn) for turn in range(segment.bins)], dtype=np.uint32)
    sums[1 + distinct(turns[entries["bin"] != own[turns]])] = 0
