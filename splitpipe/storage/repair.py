"""Making an index again from the bins alone.

Responsible for: `repair`: index and sums of every column whose own are lost or damaged, rebuilt
from the records in the bins, which carry their row and prove themselves.

Rules:
- it needs an intact manifest, and changes no committed byte: what it makes is a new generation;
- of several copies of a row the newest counts: updated records lie in bins of their own, later
  ones behind earlier ones;
- a row of which no good copy is left keeps the entry of an intact index page, which goes on to
  say that the record is damaged; without one, the row has no value from then on. Both are told.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import SplitpipeError
from splitpipe.storage import files, retire
from splitpipe.storage.appender import ColumnAppender
from splitpipe.storage.changes import Updates, missing_among
from splitpipe.storage.committed import Column, Manifest, Stale
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    LOCK_NAME,
    MANIFEST_NAME,
    file_header,
    file_name,
    index_seed,
    place,
    record_seed,
    run_seed,
)
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.lock import Announcement, WriterLock
from splitpipe.storage.manifest import encode
from splitpipe.storage.scan import MayHold, scan
from splitpipe.storage.snapshot import read_manifest

__all__ = ["Repaired", "repair"]

Entries = npt.NDArray[Any]
Progress = Callable[[int, int], None]

_MOST_TOLD = 1000
_RECORD_HEADERS = {False: 14, True: 22}


@dataclass(frozen=True, slots=True)
class Repaired:
    """What `repair` did.

    Attributes:
        path: the dataset's directory.
        rows: rows of the dataset, deleted ones included.
        columns: the columns whose index was made again; none if all was well.
        lost: ``(column, row)`` of records that are damaged or gone, at most 1000.
        blank: how many of them have no value from now on, as not even the index knew them.
        doubtful: whether updated records are damaged and no index says whose they are: some
            records may be what they were before an update.
        generation: the commit that this is now.
    """

    path: str
    rows: int
    columns: tuple[str, ...]
    lost: tuple[tuple[str, int], ...]
    blank: int
    doubtful: bool
    generation: int


def repair(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Repaired:
    """Make lost or damaged indices again from the bins alone, and commit them.

    Args:
        path: the dataset's directory.
        progress: called with (bins read, bins in all).

    Raises:
        FormatError: it is not a dataset, or its manifest is damaged.
        LockedError: a writer is at work on it.
        StorageError: the disk failed. Nothing was changed.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write_many([b"a", b"b"])
        >>> os.unlink(os.path.join(path, "v0001-c000.index"))
        >>> repair(path).columns
        ('data',)
        >>> list(sp.open_dataset(path))
        [b'a', b'b']
    """
    directory = files.local(path)
    read_manifest(directory)
    lock = WriterLock(os.path.join(directory, LOCK_NAME))
    try:
        manifest = read_manifest(directory)
        report = _Repair(directory, manifest, lock, progress).run()
    except BaseException:
        lock.release(tidy=False)
        raise
    # What a killed writer left is for the next one to remove.
    lock.release(tidy=lock.previous is None)
    return report


class _Repair:
    """One repair, under the writer's lock."""

    def __init__(
        self, directory: str, manifest: Manifest, lock: WriterLock, progress: Progress | None
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._lock = lock
        self._progress = progress
        self._bins = sum(len(column.bin_sizes) for column in manifest.columns)
        self._read = 0
        self._lost: list[tuple[str, int]] = []
        self._blank = 0
        self._doubtful = False
        # Of the column at hand: rows whose record is damaged, and the sums of every stripe, by
        # its first row.
        self._damaged = np.zeros(0, dtype=np.bool_)
        self._known_sums: dict[int, bytes] = {}

    def run(self) -> Repaired:
        manifest = self._manifest
        number = manifest.following
        last = 1 + max(len(column.bin_sizes) for column in manifest.columns)
        earlier = self._lock.previous
        if earlier is not None and earlier.volume == manifest.volume:
            last = max(last, earlier.first_bin + earlier.bins)
        columns_end = max(manifest.next_column, earlier.columns if earlier else 0)
        self._lock.announce(Announcement(manifest.volume, 0, last, columns_end))
        columns = [self._column(column, number) for column in manifest.columns]
        made = tuple(column.name for column in columns if column.version == number)
        if made:
            stale = [
                Stale("index", manifest.volume, old.number, old.version)
                for old, new in zip(manifest.columns, columns, strict=True)
                if old.version != new.version
            ]
            manifest = replace(
                manifest,
                generation=number,
                columns=tuple(columns),
                stale=(*manifest.stale, *stale),
                note=None,
            )
            files.replace(os.path.join(self._directory, MANIFEST_NAME), encode(manifest))
            files.sync_directory(self._directory)
            retire.remove_retired(self._directory, manifest.retired, manifest.stale)
        return Repaired(
            self._directory,
            manifest.rows,
            made,
            tuple(self._lost[:_MOST_TOLD]),
            self._blank,
            self._doubtful,
            manifest.generation,
        )

    def _column(self, column: Column, number: int) -> Column:
        """The column with an index that fits its bins; unchanged if its own does."""
        self._known_sums.clear()
        found, entries, whole = self._from_bins(column)
        known, trusted = self._from_index(column)
        # What the index proves is the newest: the bins alone cannot tell that from an older copy
        # of which the newer one is damaged.
        found &= ~trusted | (entries == known)
        entries[trusted] = known[trusted]
        self._doubtful = self._doubtful or not (whole or trusted.all())
        gone = np.flatnonzero(~found)
        self._lost += [(column.name, row) for row in gone[:_MOST_TOLD].tolist()]
        blank = gone[~trusted[gone]]
        self._damaged = ~found
        if trusted.all() and self._sums_fit(column, entries):
            return column
        self._damaged[blank] = False
        self._blank += len(blank)
        column = self._blanked(column, blank, entries)
        return self._written(replace(column, version=number), entries)

    def _from_bins(self, column: Column) -> tuple[npt.NDArray[np.bool_], Entries, bool]:
        """Which rows the bins have a good copy of; the entries of the newest of them.

        And whether the bins of updated records are whole: else there may have been newer ones.
        """
        rows = column.layout.rows
        found = np.zeros(rows, dtype=np.bool_)
        entries = np.zeros(rows, dtype=ENTRY_DTYPE)
        whole = True
        turns = {s.bin_at(t): (s, t) for s in column.layout.segments for t in range(s.bins)}
        # Bins of no segment hold updated records: the newest are in the last.
        order = sorted(range(len(column.bin_sizes)), key=lambda bin: (bin not in turns, bin))
        for number in order:
            data = self._bin(column, number)
            seed = record_seed(self._manifest.dataset, column.number, number)
            end = FILE_HEADER_NBYTES
            for record in scan(data, seed, _rows_of(turns.get(number), rows)):
                found[record.row] = True
                entries[record.row] = (record.offset, record.length, number, record.crc)
                together = record.offset - end in _RECORD_HEADERS.values()
                whole = whole and (number in turns or together)
                end = record.offset + record.length
            whole = whole and (number in turns or end == max(end, column.bin_sizes[number]))
            self._read += 1
            if self._progress is not None:
                self._progress(self._read, self._bins)
        return found, entries, whole

    def _bin(self, column: Column, number: int) -> mmap.mmap | bytes:
        """What is left of a bin's committed bytes."""
        size = column.bin_sizes[number]
        path = os.path.join(
            self._directory, file_name(self._manifest.file_id("bin", column, number))
        )
        if not size:
            return b""
        try:
            descriptor = files.open_file(path, os.O_RDONLY)
        except SplitpipeError:
            return b""
        try:
            size = min(size, files.status(descriptor, path).st_size)
            with files.translated("map", path):
                return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b""
        finally:
            files.close(descriptor)

    def _from_index(self, column: Column) -> tuple[Entries, npt.NDArray[np.bool_]]:
        """The entries of the index that is there, and which of them a page's checksum proves."""
        manifest, rows = self._manifest, column.layout.rows
        entries = np.zeros(rows, dtype=ENTRY_DTYPE)
        trusted = np.zeros(rows, dtype=np.bool_)
        raw = self._table("index", column)
        sums = self._table("sums", column)
        there = raw[: len(raw) // ENTRY_NBYTES * ENTRY_NBYTES][: rows * ENTRY_NBYTES]
        entries[: len(there) // ENTRY_NBYTES] = np.frombuffer(there, dtype=ENTRY_DTYPE)
        seed = index_seed(manifest.dataset, column.number)
        at = 0
        for segment in column.layout.segments:
            for first, last, tail in _stripes(segment):
                own = segment.tail if tail else sums[at : at + segment.sums_nbytes]
                self._known_sums[first] = own
                at += 0 if tail else segment.sums_nbytes
                page = there[first * ENTRY_NBYTES : last * ENTRY_NBYTES]
                crc = google_crc32c.extend(place(seed, 0, first), page)
                trusted[first:last] = own[:4] == crc.to_bytes(4, "little")
        return entries, trusted

    def _table(self, kind: str, column: Column) -> bytes:
        """What is left of an index or sums file, after its header."""
        identity = self._manifest.file_id(kind, column)
        size = {"index": self._manifest.index_size, "sums": self._manifest.sums_size}[kind](column)
        path = os.path.join(self._directory, file_name(identity))
        try:
            raw = files.read_whole(path, limit=size)
        except SplitpipeError:
            return b""
        return raw[FILE_HEADER_NBYTES:] if raw.startswith(file_header(identity)) else b""

    def _sums_fit(self, column: Column, entries: Entries) -> bool:
        sums, layout = self._sums(column, entries)
        return sums == self._table("sums", column) and layout == column.layout

    def _blanked(self, column: Column, blank: npt.NDArray[Any], entries: Entries) -> Column:
        """Put "no value" into the bins for rows that nothing is known of."""
        if len(blank):
            appender = ColumnAppender(
                self._directory,
                self._manifest.dataset,
                self._manifest.volume,
                # Only bins are written: which version of the index there is does not matter.
                replace(column, version=0),
            )
            try:
                updates = Updates(self._manifest.dataset, column.number)
                updates.append(appender, blank.tolist(), [None] * len(blank))
                appender.sync()
                _, entries[blank], _ = updates.final()
                column = replace(column, bin_sizes=tuple(appender.sizes))
            finally:
                appender.close()
        every = np.arange(len(entries), dtype=np.int64)
        missing = len(missing_among(self._manifest, column, entries, every))
        return replace(column, missing=missing)

    def _written(self, column: Column, entries: Entries) -> Column:
        """Write index and sums under the column's version, durably."""
        sums, layout = self._sums(column, entries)
        for kind, data in (("sums", sums), ("index", entries.tobytes())):
            identity = self._manifest.file_id(kind, column)
            path = os.path.join(self._directory, file_name(identity))
            descriptor = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                files.write_at(descriptor, file_header(identity) + data, 0, path)
                files.sync(descriptor, path)
            finally:
                files.close(descriptor)
        return replace(column, layout=layout)

    def _sums(self, column: Column, entries: Entries) -> tuple[bytes, BinLayout]:
        """The sums of all complete stripes, and the layout with the others."""
        maps = [self._bin(column, number) for number in range(len(column.bin_sizes))]
        parts: list[bytes] = []
        segments: list[Segment] = []
        for segment in column.layout.segments:
            rest = b""
            for first, last, tail in _stripes(segment):
                sums = self._stripe(column, segment, entries[first:last], first, maps)
                if tail:
                    rest = sums
                else:
                    parts.append(sums)
            segments.append(replace(segment, tail=rest))
        return b"".join(parts), BinLayout(segments)

    def _stripe(
        self, column: Column, segment: Segment, entries: Entries, first: int, maps: list[Any]
    ) -> bytes:
        dataset = self._manifest.dataset
        seed = index_seed(dataset, column.number)
        sums = [google_crc32c.extend(place(seed, 0, first), entries.tobytes())]
        for turn in range(min(segment.bins, len(entries))):
            number = segment.bin_at(turn)
            run = entries[turn :: segment.bins]
            if (run["bin"] != number).any():
                sums.append(0)
                continue
            head = _RECORD_HEADERS[int(run["length"][0]) >= 0xFFFFFFFF]
            start, stop = int(run["offset"][0]) - head, int(run["offset"][-1] + run["length"][-1])
            begin = place(run_seed(dataset, column.number, number), start, first + turn)
            crc = google_crc32c.extend(begin, maps[number][start:stop])
            if self._damaged[first + turn : first + len(entries) : segment.bins].any():
                # Damaged bytes must not get a checksum that fits them.
                known = self._known_sums[first][4 * (1 + turn) :][:4]
                crc = int.from_bytes(known, "little") if len(known) == 4 else crc ^ 1
            sums.append(crc)
        return np.array(sums, dtype="<u4").tobytes()


def _stripes(segment: Segment) -> list[tuple[int, int, bool]]:
    """First row, last row + 1, and whether it is incomplete, of every stripe."""
    stop = segment.first_row + segment.rows
    firsts = range(segment.first_row, stop, segment.stripe_rows)
    return [
        (first, min(stop, first + segment.stripe_rows), first + segment.stripe_rows > stop)
        for first in firsts
    ]


def _rows_of(place_in: tuple[Segment, int] | None, rows: int) -> MayHold:
    """Which rows may lie in a bin: those it was dealt, or any updated one."""
    if place_in is None:
        return lambda asked: asked < rows
    segment, turn = place_in
    stop = segment.first_row + segment.rows

    def dealt(asked: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        inside = (asked >= segment.first_row) & (asked < stop)
        mine: npt.NDArray[np.bool_] = (asked - segment.first_row) % segment.bins == turn
        return inside & mine

    return dealt
