"""Looking at a whole dataset: what it is, and whether every byte of it is right.

Responsible for: `describe` (for people and tools) and `check_dataset`, which reads everything
that a commit names: headers, bins, index, sums, and compares each with each. Reading a dataset
finds whatever would give a wrong record; checking also finds what would only matter later: a
damaged record header, a damaged sums entry, a file header.

Rules:
- checking reads and never writes; it may run beside readers and a writer, on the last commit;
- one broken record does not end it: findings are collected, up to a bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from splitpipe.errors import CorruptRecord, SplitpipeError
from splitpipe.storage import files
from splitpipe.storage.catalog_file import catalog_name, checksum_of
from splitpipe.storage.committed import Column, Manifest
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    LOCK_NAME,
    MANIFEST_NAME,
    pack_record_header,
)
from splitpipe.storage.reader import ColumnReader
from splitpipe.storage.snapshot import open_all, other_names, read_manifest
from splitpipe.storage.table import OpenOptions, TableRecords, open_table
from splitpipe.storage.values import ColumnValues, is_missing

__all__ = ["CheckReport", "ColumnFacts", "Description", "Finding", "check_dataset", "describe"]

_MOST_FINDINGS = 100
_BLOCK_ROWS = 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What a column is.

    Attributes:
        name: as users know it.
        type: of its values, as its `Field` says it.
        nbytes: bytes of its values as they are stored.
        missing: rows without a value.
        dead_nbytes: bytes that `compact` would give back.
        bins: number of bins that hold records.
    """

    name: str
    type: str
    nbytes: int
    missing: int
    dead_nbytes: int
    bins: int


@dataclass(frozen=True, slots=True)
class Description:
    """What a dataset is.

    Attributes:
        path: its directory.
        dataset: its name in hexadecimal, new whenever it is overwritten.
        generation: number of the last commit.
        rows: number of records.
        deleted: rows that were deleted.
        columns: ``(name, type)`` of every column.
        details: more about every column.
        bins: number of bins that hold records of the first column.
        segments: ``(first row, rows, first bin, bins)`` of every segment of the first column.
        record_nbytes: bytes of all values as they are stored.
        dead_nbytes: bytes that `compact` would give back.
        disk_nbytes: bytes of all files of this commit.
        metadata: declared metadata, ``None`` without a catalog.
    """

    path: str
    dataset: str
    generation: int
    rows: int
    deleted: int
    columns: tuple[tuple[str, str], ...]
    details: tuple[ColumnFacts, ...]
    bins: int
    segments: tuple[tuple[int, int, int, int], ...]
    record_nbytes: int
    dead_nbytes: int
    disk_nbytes: int
    metadata: dict[str, str] | None

    @property
    def overhead_nbytes(self) -> float:
        """Bytes on disk beyond a record's own, on average."""
        return (self.disk_nbytes - self.record_nbytes) / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        row: the record it concerns, or ``None`` when it is a file as a whole.
        message: what, where, and what to try.
    """

    row: int | None
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of `check_dataset`.

    Attributes:
        path: the dataset's directory.
        rows: records that the dataset should have.
        checked: records that were read.
        findings: what is wrong, at most 100 entries.
        found: how many things are wrong.
    """

    path: str
    rows: int
    checked: int
    findings: tuple[Finding, ...] = field(default=())
    found: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything is right."""
        return not self.found


def describe(path: str | os.PathLike[str]) -> Description:
    """Say what a dataset is, from its manifest and index.

    Raises:
        FormatError: it is not a dataset, or its index is damaged.
        StorageError: it cannot be read.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"abc"] * 10, splits=2)
        >>> facts = describe(path)
        >>> facts.rows, facts.bins, facts.record_nbytes, facts.segments
        (10, 2, 30, ((0, 10, 0, 2),))
    """
    directory = files.local(path)
    records = open_table(directory)
    try:
        manifest = records.manifest
        first = manifest.columns[0]
        details = tuple(
            ColumnFacts(
                name=column.name,
                type=column.field.description,
                nbytes=records.values(column.name).reader.nbytes(),
                missing=column.missing,
                dead_nbytes=column.dead_nbytes,
                bins=sum(1 for size in column.bin_sizes if size),
            )
            for column in manifest.columns
        )
        return Description(
            path=directory,
            dataset=manifest.dataset.hex(),
            generation=manifest.generation,
            rows=manifest.live_rows,
            deleted=manifest.rows - manifest.live_rows,
            columns=tuple((column.name, column.type) for column in details),
            details=details,
            bins=details[0].bins,
            segments=tuple(
                (s.first_row, s.rows, s.first_bin, s.bins) for s in first.layout.segments
            ),
            record_nbytes=sum(column.nbytes for column in details),
            dead_nbytes=sum(column.dead_nbytes for column in details),
            disk_nbytes=_disk_nbytes(directory, manifest),
            metadata=None if manifest.catalog is None else dict(manifest.catalog.metadata),
        )
    finally:
        records.close()


def _disk_nbytes(directory: str, manifest: Manifest) -> int:
    """Bytes of the files that a commit names."""
    small = [MANIFEST_NAME, LOCK_NAME, *other_names(manifest)]
    paths = [os.path.join(directory, name) for name in small]
    tables = sum(
        manifest.index_size(column) + manifest.sums_size(column) + sum(column.bin_sizes)
        for column in manifest.columns
    )
    return tables + sum(map(files.size_of, paths))


def check_dataset(path: str | os.PathLike[str], *, progress: Progress | None = None) -> CheckReport:
    """Read and verify everything of a dataset's last commit.

    Args:
        path: its directory.
        progress: called now and then with (records checked, records in all).

    Raises:
        FormatError: there is no dataset, or its manifest is damaged: nothing can be checked.
        StorageError: there is no such directory.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"abc"] * 10)
        >>> report = check_dataset(path)
        >>> report.ok, report.checked
        (True, 10)
    """
    directory = files.local(path)
    rows = read_manifest(directory).rows
    findings: list[Finding] = []
    found = checked = 0
    try:
        snapshot = open_all(directory)
    except SplitpipeError as error:
        return CheckReport(directory, rows, 0, (Finding(None, str(error)),), 1)
    try:
        records = TableRecords(directory, snapshot, OpenOptions())
    except SplitpipeError as error:
        return CheckReport(directory, rows, 0, (Finding(None, str(error)),), 1)
    try:
        for upto, finding in _checked(records):
            checked = upto
            if finding is not None:
                found += 1
                if len(findings) < _MOST_FINDINGS:
                    findings.append(finding)
            if progress is not None:
                progress(upto, rows)
    finally:
        records.close()
    return CheckReport(directory, rows, checked, tuple(findings), found)


def _checked(records: TableRecords) -> Iterator[tuple[int, Finding | None]]:
    """One pass over a dataset. Yields ``(records done, a finding or None)``."""
    manifest = records.manifest
    columns = manifest.columns
    for at, column in enumerate(columns):
        checker = _Checker(manifest, column, records.values(column.name))
        for done, finding in checker.run():
            # A record is done when it is in every column.
            yield (done + at * manifest.rows) // len(columns), finding
    for finding in _others(records.path, manifest):
        yield manifest.rows, finding


def _others(directory: str, manifest: Manifest) -> Iterator[Finding]:
    """The catalog; deleted rows and dictionaries were compared when they were opened."""
    if manifest.catalog is None:
        return
    name = catalog_name(manifest.volume, manifest.catalog.number)
    path = os.path.join(directory, name)
    try:
        with files.opened(path, os.O_RDONLY) as descriptor:
            size = files.status(descriptor, path).st_size
            crc = checksum_of(descriptor, size, path)
    except SplitpipeError as error:
        yield Finding(None, str(error))
        return
    if (size, crc) != (manifest.catalog.size, manifest.catalog.crc):
        yield Finding(None, f"{path} does not fit its checksum: restore it from a copy")


class _Checker:
    """One pass over a column. Yields ``(records done, a finding or None)``."""

    def __init__(self, manifest: Manifest, column: Column, values: ColumnValues) -> None:
        self._manifest = manifest
        self._column = column
        self._values = values
        self._reader: ColumnReader = values.reader
        # Where the last record of every bin ended: records must follow each other closely, as
        # long as none was updated.
        self._ends = [FILE_HEADER_NBYTES] * len(column.bin_sizes)
        self._together = not column.version
        # Bytes need no look at what they mean; what was pickled gets none.
        kind, packed = column.field.kind, column.field.compression
        self._decodes = kind != "pickle" and (kind != "bytes" or packed is not None)

    def run(self) -> Iterator[tuple[int, Finding | None]]:
        done = 0
        for block in self._blocks():
            for finding in self._stripe(*block):
                yield done, finding
            done += len(block[1])
            yield done, None
        for finding in self._files():
            yield done, finding

    def _blocks(self) -> Iterator[tuple[bool, range]]:
        """All rows, a part of a stripe at a time; the first part of a stripe is marked."""
        row = 0
        while row < self._reader.rows:
            stop = self._reader.next_run(row)
            for start in range(row, stop, _BLOCK_ROWS):
                yield start == row, range(start, min(stop, start + _BLOCK_ROWS))
            row = stop

    def _stripe(self, first: bool, rows: range) -> Iterator[Finding]:
        if first:
            try:
                problem = self._reader.check_stripe(rows.start)
            except SplitpipeError as error:
                problem = str(error)
            if problem is not None:
                yield Finding(rows.start, problem)
        for row in rows:
            try:
                problem = self._record(row)
            except CorruptRecord as error:
                problem = str(error)
                self._pass_over(row)
            except SplitpipeError as error:
                problem = f"record {row}: {error}"
                self._pass_over(row)
            if problem is not None:
                yield Finding(row, problem)

    def _record(self, row: int) -> str | None:
        """Read and verify one record, decode it, and look at its header."""
        if self._column.missing and is_missing(self._reader, row):
            return self._placement(row, 0)
        nbytes = len(self._reader.read(row))
        if self._decodes:
            self._values.get(row)
        return self._placement(row, nbytes)

    def _pass_over(self, row: int) -> None:
        """A damaged record does not put the one after it in the wrong place."""
        entry = self._reader.entry(row)
        if entry.number < len(self._ends):
            self._ends[entry.number] = entry.offset + entry.length

    def _placement(self, row: int, nbytes: int) -> str | None:
        """Whether a record has its header before it, and follows the one before."""
        entry = self._reader.entry(row)
        header = pack_record_header(entry.crc, nbytes, row)
        start = entry.offset - len(header)
        previous = self._ends[entry.number]
        self._ends[entry.number] = entry.offset + nbytes
        bins = self._reader.bins
        if self._together and start != previous:
            path = bins.path(entry.number)
            return f"record {row} of {path} starts at byte {start}, expected at {previous}"
        if bins.map(entry.number)[start : entry.offset] != header:
            return (
                f"the header of record {row} at byte {start} of {bins.path(entry.number)} is "
                "damaged; the record itself is intact"
            )
        return None

    def _files(self) -> Iterator[Finding]:
        """What no record leads to: sizes, and the headers of the files."""
        for number, end in enumerate(self._ends):
            size = self._column.bin_sizes[number]
            if self._together and size and end != size:
                yield Finding(
                    None, f"{self._reader.bins.path(number)} has {size} bytes, its records {end}"
                )
        try:
            self._reader.check_sums_file()
        except SplitpipeError as error:
            yield Finding(None, str(error))
