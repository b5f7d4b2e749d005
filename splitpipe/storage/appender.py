"""Turning lists of records into bytes of bins, index and sums.

Responsible for: `ColumnAppender`, which deals the records of one column to its bins and writes
what ``docs/format.md`` says. It knows nothing of manifests on disk, locks or commits: it starts
from a `Column`, and says at any time what `Column` its files would make.

Rules:
- every write goes to an explicit offset at or after the committed end of its file, and the
  state moves only when all writes of a chunk succeeded: after an error the same chunk can be
  appended again, and lands on the same bytes;
- work is done a chunk at a time, in numpy and C loops: about 0.4 µs a record of 200 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.storage import files
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    LONG_LENGTH,
    LONG_RECORD_HEADER_NBYTES,
    RECORD_HEADER_DTYPE,
    RECORD_HEADER_NBYTES,
    FileId,
    file_header,
    file_name,
    index_seed,
    pack_record_header,
    place,
    places,
    record_seed,
    run_seed,
)
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.manifest import Column

__all__ = ["MISSING", "ColumnAppender", "payloads", "record_headers"]

# What the checksum of a missing value is of.
MISSING = b"missing"

# Descriptors kept open for bins; with more bins than this, some are reopened at every chunk.
_OPEN_BINS = 256
# Parts of this size and more are written by themselves instead of being joined by a copy.
_JOIN_NBYTES = 4 << 20
# A chunk shorter than this wastes the numpy calls made for it.
_WORTHWHILE_ROWS = 2048
_MOST_ROWS = 1 << 16


class ColumnAppender:
    """Appends records to the files of one column.

    Args:
        directory: the dataset's directory.
        dataset: the 16 bytes that name the dataset.
        volume: part of the files' names.
        column: what is committed.
        bins: number of bins; ``None`` goes on with the bins of the last segment.
        dealing: order in which the bins take records, for a new segment.
        max_open: how many files are held open.
        anew: whether a new segment begins, with new bins, if the last has rows.

    Attributes:
        sizes: bytes of every bin's file as they are now, 0 without a file.
    """

    def __init__(
        self,
        directory: str,
        dataset: bytes,
        volume: int,
        column: Column,
        *,
        bins: int | None = None,
        dealing: Sequence[int] | None = None,
        max_open: int = _OPEN_BINS,
        anew: bool = False,
    ) -> None:
        self._directory = directory
        self._dataset = dataset
        self._volume = volume
        self._column = column
        self._rows = column.layout.rows
        self.sizes = list(column.bin_sizes)
        self._descriptors: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._missing = 0
        self._max_open = max_open
        self._choose_segment(bins, None if dealing is None else tuple(dealing), anew=anew)
        self._seeds = np.array(
            [record_seed(dataset, column.number, number) for number in self._numbers],
            dtype=np.uint64,
        )
        self._run_seeds = [run_seed(dataset, column.number, n) for n in self._numbers]
        self._index_seed = index_seed(dataset, column.number)

    def _choose_segment(
        self, bins: int | None, dealing: tuple[int, ...] | None, *, anew: bool
    ) -> None:
        """Go on with the last segment where that is what was asked for, else start one."""
        segments = list(self._column.layout.segments)
        last = segments.pop()
        if not last.rows and last.first_bin + last.bins == len(self.sizes):
            # Nothing was dealt yet: the number of bins may still be chosen.
            del self.sizes[last.first_bin :]
            last = Segment(last.first_row, 0, last.first_bin, bins or last.bins, dealing)
            self.sizes += [0] * last.bins
        elif (
            not last.rows
            or anew
            or (bins is not None and bins != last.bins)
            or (dealing is not None and dealing != last.dealing)
        ):
            if last.rows:
                segments.append(last)
            last = Segment(self._rows, 0, len(self.sizes), bins or last.bins, dealing)
            self.sizes += [0] * last.bins
        self._closed = tuple(segments)
        self._segment = last
        self._numbers = [last.bin_at(turn) for turn in range(last.bins)]
        self._tails = np.array(
            [self.sizes[number] or FILE_HEADER_NBYTES for number in self._numbers],
            dtype=np.int64,
        )
        tail = np.frombuffer(last.tail, dtype="<u4").tolist()
        self._page_crc: int | None = tail[0] if tail else None
        self._run_crcs: list[int] = tail[1:]
        self._sums_end = FILE_HEADER_NBYTES + self._column.layout.sums_nbytes()
        # Places in the round whose present run has a record that was updated since.
        self._torn = self._find_torn() if self._run_crcs and self._column.version else frozenset()

    def _find_torn(self) -> frozenset[int]:
        """Look into the index: which runs of the incomplete stripe are not together any more."""
        segment = self._segment
        first = self._rows - segment.tail_rows
        identity = self._identity("index")
        path = os.path.join(self._directory, file_name(identity))
        descriptor = files.open_file(path, os.O_RDONLY)
        try:
            start = FILE_HEADER_NBYTES + ENTRY_NBYTES * first
            raw = files.read_at(descriptor, ENTRY_NBYTES * segment.tail_rows, start, path)
        finally:
            files.close(descriptor)
        bins = np.frombuffer(raw, dtype=ENTRY_DTYPE)["bin"]
        turns = np.arange(len(bins)) % segment.bins
        moved = bins != np.array(self._numbers, dtype=np.uint32)[turns]
        return frozenset(turns[moved].tolist())

    def _identity(self, kind: str, number: int = 0) -> FileId:
        if kind != "bin":
            number = self._column.version
        return FileId(kind, self._dataset, self._volume, self._column.number, number)

    @property
    def rows(self) -> int:
        """Rows appended so far, committed ones included."""
        return self._rows

    @property
    def path(self) -> str:
        """Where the index lies that is appended to."""
        return os.path.join(self._directory, file_name(self._identity("index")))

    def bin_aside(self) -> int:
        """The number of the bin for updated records: the last one, in no segment."""
        if len(self.sizes) == self._segment.first_bin + self._segment.bins:
            self.sizes.append(0)
        return len(self.sizes) - 1

    @property
    def planned_bins(self) -> tuple[int, int]:
        """First number and count of the bins that may be created."""
        return self._segment.first_bin, self._segment.bins

    def room(self) -> int:
        """How many records make a good next chunk: up to the end of a stripe."""
        stripe = self._segment.stripe_rows
        rest = stripe - (self._rows - self._segment.first_row) % stripe
        if rest < _WORTHWHILE_ROWS:
            rest += stripe * -(-(_WORTHWHILE_ROWS - rest) // stripe)
        return min(rest, _MOST_ROWS)

    def append(self, records: Sequence[bytes | None]) -> int:
        """Write records, in order; return how many, which is all unless an error is raised.

        A value that is missing is ``None``.

        An error leaves the appender at the end of a stripe that was written in full: `rows`
        says how many of ``records`` are in.
        """
        done = 0
        while done < len(records):
            stripe = self._segment.stripe_rows
            room = stripe - (self._rows - self._segment.first_row) % stripe
            part = records[done : done + room] if done or len(records) > room else records
            self._append_within_stripe(part)
            done += len(part)
        return done

    def _append_within_stripe(self, values: Sequence[bytes | None]) -> None:
        bins = self._segment.bins
        count = len(values)
        turn = (self._rows - self._segment.first_row) % bins
        records, signed = payloads(values)
        lengths = np.fromiter(map(len, records), np.int64, count)
        offsets, tails = self._place(lengths, turn)
        turns = (turn + np.arange(count)) % bins
        rows = np.arange(self._rows, self._rows + count, dtype=np.uint64)
        starts = (self._seeds[turns] ^ places(offsets, rows)).tolist()
        crcs = list(map(google_crc32c.extend, starts, signed))
        headers = record_headers(crcs, lengths, rows)
        runs = self._write_bins(records, headers, turn)
        entries = np.empty(count, dtype=ENTRY_DTYPE)
        entries["offset"] = offsets
        entries["length"] = lengths
        entries["bin"] = np.array(self._numbers, dtype=np.uint32)[turns]
        entries["crc"] = crcs
        page_crc, sums_end = self._write_index(entries.tobytes(), runs)
        # Everything is written: only now does the state move.
        self._rows += count
        self._missing += 0 if records is values else sum(value is None for value in values)
        self._tails = tails
        for place_in_round in range(turn, min(turn + count, turn + bins)):
            self.sizes[self._numbers[place_in_round % bins]] = int(tails[place_in_round % bins])
        ended = sums_end != self._sums_end
        self._run_crcs = [] if ended else runs
        if ended:
            self._torn = frozenset()
        self._page_crc = None if ended else page_crc
        self._sums_end = sums_end

    def _place(
        self, lengths: npt.NDArray[np.int64], turn: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Offsets of the payloads, and where every bin ends after them."""
        bins = self._segment.bins
        count = len(lengths)
        overheads = np.where(
            lengths >= LONG_LENGTH, LONG_RECORD_HEADER_NBYTES, RECORD_HEADER_NBYTES
        )
        # One row a round, one column a bin: the sum down a column is where a record ends.
        table = np.zeros(-(-(turn + count) // bins) * bins, dtype=np.int64)
        table[turn : turn + count] = lengths + overheads
        ends = np.cumsum(table.reshape(-1, bins), axis=0) + self._tails
        offsets = ends.reshape(-1)[turn : turn + count] - lengths
        return offsets.astype(np.uint64), ends[-1].copy()

    def _write_bins(self, records: Sequence[bytes], headers: list[bytes], turn: int) -> list[int]:
        """Write every bin's part; return the run checksums of the stripe so far."""
        bins = self._segment.bins
        runs = list(self._run_crcs)
        for step in range(min(bins, len(records))):
            at = (turn + step) % bins
            own = records[step::bins]
            pieces: list[bytes] = [b""] * (2 * len(own))
            pieces[::2] = headers[step::bins]
            pieces[1::2] = own
            if max(map(len, own)) < _JOIN_NBYTES:
                pieces = [b"".join(pieces)]
            offset = int(self._tails[at])
            if at >= len(runs):
                # The run's first record: bins are reached in turn, so this appends one.
                row = self._rows + step
                runs.append(place(self._run_seeds[at], offset, row))
            self.write_pieces(self._numbers[at], pieces, offset)
            if at in self._torn:
                continue
            for piece in pieces:
                runs[at] = google_crc32c.extend(runs[at], piece)
        return runs

    def write_pieces(self, number: int, pieces: list[bytes], offset: int) -> None:
        """Write to a bin, after its header if it has no file yet; `sizes` is left as it is."""
        identity = self._identity("bin", number)
        descriptor, path = self._open(identity, fresh=not self.sizes[number])
        if not self.sizes[number]:
            pieces = [file_header(identity) + pieces[0], *pieces[1:]]
            offset = 0
        for piece in pieces:
            files.write_at(descriptor, piece, offset, path)
            offset += len(piece)

    def _write_index(self, entries: bytes, runs: list[int]) -> tuple[int, int]:
        """Write the entries, and the stripe's sums if it is complete."""
        segment = self._segment
        descriptor, path = self._open(self._identity("index"))
        files.write_at(descriptor, entries, FILE_HEADER_NBYTES + ENTRY_NBYTES * self._rows, path)
        start = self._page_crc
        if start is None:
            start = place(self._index_seed, 0, self._rows)
        page_crc = google_crc32c.extend(start, entries)
        rows = self._rows + len(entries) // ENTRY_NBYTES - segment.first_row
        if rows % segment.stripe_rows:
            return page_crc, self._sums_end
        sums = np.array([page_crc, *runs], dtype="<u4").tobytes()
        descriptor, path = self._open(self._identity("sums"))
        files.write_at(descriptor, sums, self._sums_end, path)
        return page_crc, self._sums_end + len(sums)

    def create(self) -> None:
        """Make the index and the sums file of a new column, with their headers.

        Those that are there are left alone: the manifest of an empty dataset names some.
        """
        for kind in ("index", "sums"):
            identity = self._identity(kind)
            header = file_header(identity)
            if not files.begins_with(os.path.join(self._directory, file_name(identity)), header):
                descriptor, path = self._open(identity, fresh=True)
                files.write_at(descriptor, header, 0, path)

    def _open(self, identity: FileId, *, fresh: bool = False) -> tuple[int, str]:
        name = file_name(identity)
        path = os.path.join(self._directory, name)
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            while len(self._descriptors) >= self._max_open:
                # Before it was synced: here closing may be what tells of a lost write.
                oldest = next(iter(self._descriptors))
                with files.translated("close", os.path.join(self._directory, oldest)):
                    os.close(self._descriptors.pop(oldest))
            flags = os.O_WRONLY | (os.O_CREAT | os.O_TRUNC if fresh else 0)
            advice = "" if fresh else "a file of the dataset is missing: restore it from a copy"
            descriptor = files.open_file(path, flags, doing="open for writing", advice=advice)
            self._descriptors[name] = descriptor
        self._dirty.add(name)
        return descriptor, path

    def sync(self) -> None:
        """Make everything appended durable: bins first, then the index and the sums."""
        for name in sorted(self._dirty, key=lambda name: (not name.endswith(".bin"), name)):
            path = os.path.join(self._directory, name)
            descriptor = self._descriptors.get(name)
            if descriptor is not None:
                files.sync(descriptor, path)
                continue
            with files.opened(path, os.O_WRONLY) as descriptor:
                files.sync(descriptor, path)
        self._dirty.clear()

    def column(self) -> Column:
        """The column as the files are now."""
        tail = b""
        if self._page_crc is not None:
            tail = np.array([self._page_crc, *self._run_crcs], dtype="<u4").tobytes()
        segment = Segment(
            first_row=self._segment.first_row,
            rows=self._rows - self._segment.first_row,
            first_bin=self._segment.first_bin,
            bins=self._segment.bins,
            dealing=self._segment.dealing,
            tail=tail,
        )
        return replace(
            self._column,
            bin_sizes=tuple(self.sizes),
            layout=BinLayout((*self._closed, segment)),
            missing=self._column.missing + self._missing,
        )

    def close(self) -> None:
        """Close the files; what was not committed stays past the committed sizes."""
        while self._descriptors:
            files.close(self._descriptors.popitem()[1])


def payloads(values: Sequence[bytes | None]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """What is written for values, and what their checksums are of.

    They differ for a missing value alone: nothing is written, and `MISSING` is what its checksum
    is of, which tells it from a value of no bytes.
    """
    if None not in values:
        return values, values  # type: ignore[return-value]  # it was just looked at
    return [v or b"" for v in values], [MISSING if v is None else v for v in values]


def record_headers(
    crcs: list[int], lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.uint64]
) -> list[bytes]:
    """The header of every record: in one C loop, except where a length needs 64 bits."""
    count = len(crcs)
    table = np.empty(count, dtype=RECORD_HEADER_DTYPE)
    table["crc"] = crcs
    table["length"] = np.minimum(lengths, LONG_LENGTH)
    table["row_low"] = rows & np.uint64(0xFFFFFFFF)
    table["row_high"] = rows >> np.uint64(32)
    headers: list[Any] = table.view(f"V{RECORD_HEADER_NBYTES}").tolist()
    for at in np.flatnonzero(lengths >= LONG_LENGTH).tolist():
        headers[at] = pack_record_header(crcs[at], int(lengths[at]), int(rows[at]))
    return headers
