"""Checksums of index pages and of runs: the sums file, and its tail in the manifest.

Responsible for: `IndexPages`: which page an index entry lies on, whether the page is intact, and
the run checksums of the page's stripe. A *page* is the index entries of one stripe: one run of
64 records in every bin of a segment.

Rules:
- a page is verified where the index alone is trusted: before lengths are told, before a run is
  split; the first time, then remembered. Single records carry their own proof and need none;
- the last, incomplete stripe of a segment has its sums in the manifest, which a commit replaces
  whole; the sums file only ever grows by complete stripes.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.storage.bins import map_file
from splitpipe.storage.format import (
    ENTRY,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    LONG_LENGTH,
    LONG_RECORD_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    file_name,
    index_seed,
    place,
)
from splitpipe.storage.layout import Segment
from splitpipe.storage.manifest import Column, Manifest

__all__ = ["IndexPages", "Page"]


class Page:
    """One page of the index.

    Attributes:
        segment: which segment it belongs to.
        first_row: its first row.
        rows: how many.
        number: its number among all pages of the column.
    """

    __slots__ = ("first_row", "number", "rows", "segment", "sums")

    def __init__(
        self, segment: Segment, first_row: int, rows: int, number: int, sums: int | None
    ) -> None:
        self.segment = segment
        self.first_row = first_row
        self.rows = rows
        self.number = number
        self.sums = sums


class IndexPages:
    """The pages of one column's index.

    Args:
        directory: of the dataset.
        manifest: the snapshot.
        column: one of its columns.
        entries: all index entries, of all rows of the manifest.
    """

    __slots__ = (
        "_bases",
        "_directory",
        "_entries",
        "_file",
        "_first_rows",
        "_identity",
        "_index_name",
        "_intact",
        "_seed",
        "_segments",
        "_size",
        "_starts",
    )

    def __init__(
        self, directory: str, manifest: Manifest, column: Column, entries: memoryview
    ) -> None:
        self._directory = directory
        self._identity = manifest.file_id("sums", column)
        self._index_name = file_name(manifest.file_id("index", column))
        self._size = manifest.sums_size(column)
        self._seed = index_seed(manifest.dataset, column.number)
        self._entries = entries
        self._file: mmap.mmap | None = None
        self._segments = [segment for segment in column.layout.segments if segment.rows]
        self._first_rows = np.array([s.first_row for s in self._segments], dtype=np.int64)
        # Number of the first page, and place of the first sums entry, of every segment.
        self._bases: list[int] = []
        self._starts: list[int] = []
        pages, start = 0, FILE_HEADER_NBYTES
        for segment in self._segments:
            self._bases.append(pages)
            self._starts.append(start)
            pages += segment.stripes + bool(segment.tail_rows)
            start += segment.stripes * segment.sums_nbytes
        self._intact = bytearray(pages)

    @property
    def path(self) -> str:
        """Where the sums lie."""
        return os.path.join(self._directory, file_name(self._identity))

    def sums_file(self) -> mmap.mmap:
        """The mapped sums file.

        Raises:
            FormatError: it is cut, or another file.
            StorageError: it is missing or cannot be read.
        """
        mapped = self._file
        if mapped is None:
            mapped = map_file(self.path, self._size, self._identity)
            self._file = mapped
        return mapped

    def page_of(self, row: int) -> Page:
        """The page that holds the index entry of a row."""
        at = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        segment = self._segments[at]
        stripe = (row - segment.first_row) // segment.stripe_rows
        complete = stripe < segment.stripes
        return Page(
            segment,
            segment.first_row + stripe * segment.stripe_rows,
            segment.stripe_rows if complete else segment.tail_rows,
            self._bases[at] + stripe,
            self._starts[at] + stripe * segment.sums_nbytes if complete else None,
        )

    def sums(self, page: Page) -> npt.NDArray[np.uint32]:
        """A page's sums entry: its own checksum, then one for every run of the stripe.

        Raises:
            FormatError: the sums file is missing, cut, or another one.
        """
        if page.sums is None:
            return np.frombuffer(page.segment.tail, dtype="<u4")
        raw = self.sums_file()[page.sums : page.sums + page.segment.sums_nbytes]
        return np.frombuffer(raw, dtype="<u4")

    def run_sums(self, segment: Segment, turn: int) -> list[int]:
        """Checksums of all runs of the bin at place ``turn`` of a segment's round, in order."""
        at = self._segments.index(segment)
        runs: list[int] = []
        if segment.stripes:
            table = np.frombuffer(
                self.sums_file(),
                dtype="<u4",
                count=segment.stripes * (1 + segment.bins),
                offset=self._starts[at],
            ).reshape(segment.stripes, 1 + segment.bins)
            runs = table[:, 1 + turn].tolist()
        if turn < segment.tail_rows:
            runs += np.frombuffer(segment.tail, dtype="<u4")[1 + turn : 2 + turn].tolist()
        return runs

    def read(self, page: Page) -> tuple[bytes, npt.NDArray[np.uint32]]:
        """A page's entries and run checksums, after verifying the page.

        Raises:
            FormatError: the page does not fit its checksum.
        """
        start = page.first_row * ENTRY_NBYTES
        raw = bytes(self._entries[start : start + page.rows * ENTRY_NBYTES])
        sums = self.sums(page)
        found = google_crc32c.extend(place(self._seed, 0, page.first_row), raw)
        if found != sums[0]:
            raise FormatError(
                f"the page of rows {page.first_row} to {page.first_row + page.rows - 1} of "
                f"{os.path.join(self._directory, self._index_name)} does not fit its checksum in "
                f"{self.path if page.sums is not None else 'the manifest'}"
            )
        self._intact[page.number] = 1
        return raw, sums[1:]

    def extent(self, first: int, last: int) -> tuple[int, int]:
        """First byte (of the header) of one row's record and end of another's, in their bin."""
        offset, length, _, _ = ENTRY.unpack_from(self._entries, first * ENTRY_NBYTES)
        start = offset - (
            RECORD_HEADER_NBYTES if length < LONG_LENGTH else LONG_RECORD_HEADER_NBYTES
        )
        offset, length, _, _ = ENTRY.unpack_from(self._entries, last * ENTRY_NBYTES)
        return start, offset + length

    def verify(self, start: int, stop: int, *, again: bool = False) -> None:
        """Verify the pages of rows ``start`` to ``stop - 1`` that were not verified before."""
        if not again and 0 not in self._intact:
            return
        row = start
        while row < stop:
            page = self.page_of(row)
            if again or not self._intact[page.number]:
                self.read(page)
            row = page.first_row + page.rows

    def verify_rows(self, rows: npt.NDArray[Any]) -> None:
        """Verify the pages of any rows."""
        if not len(rows):
            return
        at = np.searchsorted(self._first_rows, rows, side="right") - 1
        stripes = np.array([s.stripe_rows for s in self._segments], dtype=np.int64)
        numbers = (rows - self._first_rows[at]) // stripes[at] + np.array(self._bases)[at]
        unseen = np.frombuffer(self._intact, dtype=np.uint8)[numbers] == 0
        if unseen.any():
            # One row of each page is enough.
            row_of = dict(zip(numbers[unseen].tolist(), rows[unseen].tolist(), strict=True))
            for _, row in sorted(row_of.items()):
                self.verify(row, row + 1)

    def close(self) -> None:
        """Let go of the files."""
        self._file = None
        self._entries = memoryview(b"")
