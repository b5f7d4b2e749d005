"""Reading one column: locate, copy, verify.

Responsible for: `ColumnReader`: single records, batches in any order, runs of consecutive rows,
lengths; and for saying which file is at fault when a checksum does not fit.

Rules:
- what is returned was verified: a record by its own checksum, or as part of a verified index
  page and a verified run;
- the fast paths only ever decide "all is well": anything else, an unopened bin, a damaged
  entry, a wrong type, ends in `read`, which looks step by step and knows what to say;
- a length is compared with the file before anything of that length is allocated;
- no state that two threads could see half-changed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError, StorageError
from splitpipe.storage import cold, files
from splitpipe.storage.bins import BinFiles, map_file
from splitpipe.storage.format import (
    ENTRY,
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    file_name,
    place,
    record_seed,
    run_seed,
)
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import Column, Manifest
from splitpipe.storage.native import kernel
from splitpipe.storage.pages import IndexPages
from splitpipe.storage.runs import (
    BINS_NBYTES,
    SMALL_NBYTES,
    STRIPE_NBYTES,
    LoadedBins,
    RunReader,
)

__all__ = ["ColumnReader", "Entry", "Rows"]

Rows = npt.NDArray[np.int64]

_extend = google_crc32c.extend


class Entry(NamedTuple):
    """One index entry: where a record lies and its checksum."""

    offset: int
    length: int
    number: int
    crc: int


class ColumnReader:
    """Reads the records of one column of one snapshot.

    Args:
        directory: of the dataset.
        manifest: the snapshot.
        column: one of its columns.
        index: open descriptor of the column's index file; it is closed here.
        rows: how many rows are seen; fewer than the manifest's for an older snapshot.
        verify: whether record checksums are compared.
        max_open_bins: how many bins stay mapped at once.

    Attributes:
        rows: number of records.
        by_runs: whether neighbours are better read with `read_run` and `load_bins`.
        get: ``get(row)`` is the record, or ``None``: look closer with `read`. Negative rows count
            from the end; whatever is no row gives ``None``.
        decoded: ``decoded(make, limit)`` is a function of a row as `get`, but of values: see the
            kernel's.
        take: ``take(indices)`` is the list of records of a list, tuple or int64 array of
            integers, negative ones from the end, or ``None``: look closer with `read_many`.
        entries: the index entries in the file, for ``format.ENTRY.unpack_from``.
        maps: see `BinFiles.maps`.
        seeds: start values of the record checksums, one a bin.
    """

    __slots__ = (
        "_column",
        "_directory",
        "_kernel",
        "_manifest",
        "_pages",
        "_runs",
        "_table",
        "_verify",
        "bins",
        "by_runs",
        "decoded",
        "entries",
        "get",
        "layout",
        "maps",
        "rows",
        "seeds",
        "take",
    )

    def __init__(
        self,
        directory: str,
        manifest: Manifest,
        column: Column,
        index: int,
        *,
        rows: int,
        verify: bool,
        max_open_bins: int,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._column = column
        self._verify = verify
        self.rows = rows
        self.layout: BinLayout = (
            column.layout if rows == column.layout.rows else column.layout.limited(rows)
        )
        self.bins = BinFiles(directory, manifest, column, max_open=max_open_bins)
        self.maps: list[Any] = self.bins.maps
        # What is not verified record by record gains nothing from checksums of runs.
        self.by_runs = kernel.BY_RUNS and verify
        try:
            mapped = map_file(
                self.index_path,
                manifest.index_size(column),
                manifest.file_id("index", column),
                index,
            )
        finally:
            files.close(index)
        whole = memoryview(mapped)[FILE_HEADER_NBYTES:]
        self.entries = whole[: rows * ENTRY_NBYTES]
        self._table: npt.NDArray[Any] = np.frombuffer(whole, dtype=ENTRY_DTYPE)
        self.seeds = [
            record_seed(manifest.dataset, column.number, number)
            for number in range(len(column.bin_sizes))
        ]
        self._kernel = kernel.Column(self.entries, column.bin_sizes, self.seeds, verify=verify)
        self.bins.kernel = self._kernel
        self.get: Callable[[int], bytes | None] = self._kernel.get
        self.take: Callable[[Any], list[bytes] | None] = self._kernel.take
        self.decoded = self._kernel.decoded
        self._pages = IndexPages(directory, manifest, column, whole)
        self._runs = RunReader(
            self.bins,
            self._pages,
            [run_seed(manifest.dataset, column.number, n) for n in range(len(self.seeds))],
        )

    @property
    def index_path(self) -> str:
        """Where the index lies."""
        identity = self._manifest.file_id("index", self._column)
        return os.path.join(self._directory, file_name(identity))

    # -- one record ------------------------------------------------------------------------

    def read(self, row: int) -> bytes:
        """Read one record, step by step: the slow twin of every fast path.

        Args:
            row: from 0 to ``rows - 1``.

        Raises:
            CorruptRecord: record or index entry do not fit their checksum or the files.
            StorageError: a file is missing or cannot be read.
            FormatError: a bin is not the file it should be.
        """
        offset, length, number, crc = ENTRY.unpack_from(self.entries, ENTRY_NBYTES * row)
        if number >= len(self.maps):
            raise self._corrupt(row, f"its index entry names bin {number}, there is none")
        size = self.bins.size(number)
        if offset < FILE_HEADER_NBYTES + RECORD_HEADER_NBYTES or offset + length > size:
            raise self._corrupt(
                row,
                f"its index entry names bytes {offset} to {offset + length} of "
                f"{self.bins.path(number)}, which has {size}",
            )
        try:
            data: bytes = self.bins.map(number)[offset : offset + length]
        except FormatError as error:
            raise CorruptRecord(f"record {row} cannot be read: {error}") from error
        if not self._verify or _extend(place(self.seeds[number], offset, row), data) == crc:
            return data
        raise self._corrupt(
            row,
            f"{length} bytes at offset {offset} of bin {number} ({self.bins.path(number)}) do "
            "not fit their checksum",
        )

    def _corrupt(self, row: int, what: str) -> CorruptRecord:
        """Name the file at fault: the index if its page is damaged, else the bin."""
        try:
            self._pages.verify(row, row + 1, again=True)
        except FormatError as error:
            return CorruptRecord(f"record {row}: {what}; the index is at fault: {error}")
        return CorruptRecord(
            f"record {row}: {what}; restore the file from a copy, or see what else is damaged "
            f"with `splitpipe check {self._directory}`"
        )

    # -- batches ---------------------------------------------------------------------------

    def read_many(self, rows: Rows) -> list[bytes]:
        """Read records in the given order.

        Args:
            rows: int64 array of shape (n,), every value from 0 to ``rows - 1``.
        """
        rows = np.ascontiguousarray(rows)
        records = self._kernel.gather(rows)
        return records if isinstance(records, list) else self._look_closer(rows, records)

    def iterate(self, blocks: Iterable[Rows], nbytes: int) -> Iterator[bytes]:
        """Records of blocks of rows, in order: the fastest way to many small ones.

        An error comes in the place of the record that has it, after those before it.

        Args:
            blocks: arrays as for `read_many`.
            nbytes: most bytes of records that are held at once, or one record.
        """
        return self._kernel.iterate(blocks, partial(self.read_ahead, nbytes=nbytes))

    def read_ahead(self, rows: Rows, nbytes: int) -> list[bytes]:
        """Read the first of these rows, as many as have at most ``nbytes`` together, or one.

        Fewer, if there is an error, which is raised when it is the first one's.
        """
        records = self._kernel.gather(rows, nbytes)
        if isinstance(records, list):
            return records
        totals = np.cumsum(self.raw_lengths(rows))
        some = rows[: max(1, int(np.searchsorted(totals, nbytes, side="right")))]
        try:
            return self._look_closer(some, records)
        except SplitpipeError:
            return self._before_an_error(some)

    def _before_an_error(self, rows: Rows) -> list[bytes]:
        """Records before the first one that cannot be read; its error if there is none."""
        records: list[bytes] = []
        for row in rows.tolist():
            record = self.get(row)
            try:
                records.append(self.read(row) if record is None else record)
            except SplitpipeError:
                if not records:
                    raise
                break
        return records

    def read_into(self, rows: Rows, out: npt.NDArray[Any]) -> bool:
        """Read records of one length straight into the rows of an array.

        Args:
            rows: as for `read_many`.
            out: C-contiguous, ``len(rows)`` rows of as many bytes as every record has.

        Returns:
            Whether all is well; if not, ``out`` may hold anything: look closer.
        """
        if not out.flags.c_contiguous or not out.flags.writeable:
            return False
        rows = np.ascontiguousarray(rows)
        if out.dtype.kind not in "biufc":
            # Bytes are all the same; not every type of numpy's can be handed on as it is.
            out = out.view(np.uint8)
        if self._kernel.gather_into(rows, out):
            return True
        return self._map_missing(rows) and self._kernel.gather_into(rows, out)

    def read_each(self, rows: Rows) -> Iterator[bytes]:
        """Read records in the given order, each when it is asked for.

        For large records this is faster than `read_many`: the memory of a record that the
        caller dropped is used for the next one, and is still in the cache.
        """
        get = self.get
        for row in rows.tolist():
            record = get(row)
            yield self.read(row) if record is None else record
            # Not kept here while the next one is read, so that its memory can be used again.
            del record

    def _look_closer(self, rows: Rows, place: int) -> list[bytes]:
        """Map what is missing, ask the disk, or read one by one: whatever it takes."""
        if place != kernel.COLD and self._map_missing(rows):
            records = self._kernel.gather(rows)
            if isinstance(records, list):
                return records
            place = records
        return self._read_cold(rows) if place == kernel.COLD else self._one_by_one(rows)

    def _one_by_one(self, rows: Rows) -> list[bytes]:
        get, read = self.get, self.read
        return [read(row) if (data := get(row)) is None else data for row in rows.tolist()]

    def _map_missing(self, rows: Rows) -> bool:
        """Map the bins of these rows if one was not; False if none was, or not all can be."""
        maps = self.maps
        needed = [n for n in distinct(self._table["bin"].take(rows)).tolist() if n < len(maps)]
        if not self.bins.fits(len(needed)) or all(maps[n] is not None for n in needed):
            return False
        self.bins.map_all(needed)
        return True

    def _read_cold(self, rows: Rows) -> list[bytes]:
        """Announce every range of the batch before waiting for the first."""
        self._kernel.probes = 3
        records = self._kernel.fetch(rows, cold.HELPERS)
        if isinstance(records, list):
            return records
        entries = self._table.take(rows)
        read = cold.read_announced(self.bins, entries)
        if read is None or not self._fit(rows, entries, read):
            return self._one_by_one(rows)
        return read

    def _fit(self, rows: Rows, entries: npt.NDArray[Any], records: list[bytes]) -> bool:
        """Whether records that were not read by the kernel fit their checksums."""
        if not self._verify:
            return bool(list(map(len, records)) == entries["length"].tolist())
        return all(
            _extend(place(self.seeds[number], offset, row), record) == crc
            for row, (offset, _, number, crc), record in zip(
                rows.tolist(), entries.tolist(), records, strict=True
            )
        )

    def read_run(self, row: int, stop: int) -> list[bytes] | None:
        """The records of a whole stripe from ``row`` on, or ``None`` where that does not pay.

        It pays, and is possible, at the first row of a stripe of small records that ends at
        ``stop`` or before.
        """
        page = self._pages.page_of(row)
        if page.first_row != row or row + page.rows > stop or not self._verify:
            return None
        nbytes = page.rows * self.mean_nbytes(np.arange(row, row + page.rows))
        if nbytes > min(STRIPE_NBYTES, page.rows * SMALL_NBYTES) or page.segment.bins > page.rows:
            return None
        # An error has its place among the records; here it would come before those of the stripe.
        with suppress(SplitpipeError):
            return self._runs.read_stripe(page)
        return None

    def load_bins(self, members: Sequence[tuple[int, range]]) -> LoadedBins | None:
        """Whole bins in memory, or ``None`` where that does not pay.

        It pays for small records, while the bins together are not too large to hold.
        """
        numbers = [number for number, _ in members]
        nbytes = sum(self.bins.size(number) for number in numbers)
        count = sum(len(rows) for _, rows in members)
        if not self._verify or nbytes > min(BINS_NBYTES, count * SMALL_NBYTES):
            return None
        with suppress(SplitpipeError):
            return self._runs.load_bins(members, self._table)
        return None

    def next_run(self, row: int) -> int:
        """The first row of the stripe after that of ``row``."""
        page = self._pages.page_of(row)
        return page.first_row + page.rows

    def raw_lengths(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Lengths as the index says, unverified: good for deciding how much to read."""
        if len(rows) and not len(self._table):
            raise StorageError(errno.EBADF, "the dataset was closed meanwhile", self._directory)
        return self._table["length"][rows].astype(np.float64)

    def raw_entries(self, rows: Rows) -> npt.NDArray[Any]:
        """Entries as the index has them, unverified: good for deciding what to fetch."""
        return self._table.take(rows)

    def mean_nbytes(self, rows: Rows) -> float:
        """About how long records are, from a few of them."""
        return float(self.raw_lengths(rows[:: max(1, len(rows) // 16)]).mean())

    def announce(self, rows: Rows) -> bool:
        """If these records are not in memory, ask the system to fetch them; say whether."""
        entries = self._table.take(rows)
        if not cold.is_cold(self.bins, entries):
            return False
        cold.announce(self.bins, entries)
        return True

    # -- what the index alone says ---------------------------------------------------------

    def lengths(self, rows: Rows) -> Rows:
        """Lengths of records in bytes, without reading them.

        Raises:
            FormatError: the index page of one of them is damaged.
        """
        self._pages.verify_rows(rows)
        return self._table["length"][rows].astype(np.int64)

    def nbytes(self) -> int:
        """Bytes of all records together; reads the whole index the first time."""
        if not self.rows:
            return 0
        self._pages.verify(0, self.rows)
        return int(self._table["length"][: self.rows].sum())

    # -- for checking ----------------------------------------------------------------------

    def entry(self, row: int) -> Entry:
        """The index entry of a row, as it is."""
        return Entry(*ENTRY.unpack_from(self.entries, ENTRY_NBYTES * row))

    def check_stripe(self, row: int) -> str | None:
        """Compare the page and the runs of the stripe of ``row`` with their checksums.

        Returns:
            What is wrong, or ``None``.

        Raises:
            FormatError: the index page or the sums file is damaged.
        """
        page = self._pages.page_of(row)
        raw, runs = self._pages.read(page)
        bad = self._runs.first_bad_run(page, raw, runs)
        if bad is None:
            return None
        return (
            f"a run of 64 records of {self.bins.path(bad)} does not fit its checksum in the sums "
            f"(stripe of rows {page.first_row} to {page.first_row + page.rows - 1})"
        )

    def check_sums_file(self) -> None:
        """Raise ``FormatError`` unless the sums file is there and long enough."""
        self._pages.sums_file()

    # -- ending ----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the files. Records already returned stay valid."""
        self._kernel.close()
        self.bins.close()
        self._table = np.empty(0, dtype=ENTRY_DTYPE)
        self._pages.close()
        self.entries = memoryview(b"")
