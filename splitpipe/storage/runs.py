"""Reading many neighbours at once: whole stripes, whole bins.

Responsible for: the fast way through a dataset of small records. A stripe is read with one
verified copy and one checksum a bin instead of one a record, and split in memory; a bin is read
whole, its runs verified, and split in any order.

Rules:
- only the fast "all is well" lives here: what does not fit a checksum is read again record by
  record, which finds the record at fault or, if every record fits its own checksum (the damage
  lies in a header or in the sums), returns it;
- no more than a bounded number of bytes is held: `STRIPE_NBYTES` or `BINS_NBYTES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import SplitpipeError
from splitpipe.storage.bins import BinFiles
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    FILE_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    RUN_RECORDS,
    place,
)
from splitpipe.storage.layout import Segment
from splitpipe.storage.pages import IndexPages, Page

__all__ = ["BINS_NBYTES", "SMALL_NBYTES", "STRIPE_NBYTES", "LoadedBins", "RunReader", "moved_turns"]

# Records smaller than this on average gain from being read in runs: the saving is the 100 ns
# of a checksum call, the price a second copy.
SMALL_NBYTES = 2048
# Most bytes of a stripe, and of the bins shuffled together, that are held in memory.
STRIPE_NBYTES = 16 << 20
BINS_NBYTES = 64 << 20
_PIECE_NBYTES = 4 << 20


class RunReader:
    """Reads verified runs of one column.

    Args:
        bins: the column's bins.
        pages: the column's index pages.
        seeds: ``run_seed`` of every bin.
    """

    __slots__ = ("_bins", "_pages", "_seeds")

    def __init__(self, bins: BinFiles, pages: IndexPages, seeds: Sequence[int]) -> None:
        self._bins = bins
        self._pages = pages
        self._seeds = seeds

    def read_stripe(self, page: Page) -> list[bytes] | None:
        """All records of a stripe in row order; ``None`` if anything does not fit."""
        try:
            raw, runs = self._pages.read(page)
        except SplitpipeError:
            return None
        entries = np.frombuffer(raw, dtype=ENTRY_DTYPE)
        if len(moved_turns(page, entries)):
            return None
        offsets = entries["offset"].astype(np.int64)
        stops = offsets + entries["length"].astype(np.int64)
        used = min(page.segment.bins, page.rows)
        buffer, shifts = self._join_runs(page, offsets, stops, entries["bin"][:used], runs)
        if buffer is None:
            return None
        turns = np.arange(page.rows) % page.segment.bins
        shift = shifts[turns]
        return [
            buffer[start:stop]
            for start, stop in zip(
                (offsets + shift).tolist(), (stops + shift).tolist(), strict=True
            )
        ]

    def _join_runs(
        self,
        page: Page,
        offsets: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        numbers: npt.NDArray[Any],
        runs: npt.NDArray[np.uint32],
    ) -> tuple[bytes | None, npt.NDArray[np.int64]]:
        """Copy and verify the runs; also what turns a bin's offset into one of the copy."""
        bins, used = page.segment.bins, len(numbers)
        starts = (offsets[:used] - RECORD_HEADER_NBYTES).tolist()
        last = np.arange(page.rows - used, page.rows)
        ends = np.empty(used, dtype=np.int64)
        ends[last % bins] = stops[last]
        parts: list[bytes] = []
        shifts: list[int] = []
        held = 0
        for turn, (number, start, end, crc) in enumerate(
            zip(numbers.tolist(), starts, ends.tolist(), runs.tolist(), strict=True)
        ):
            part = self._bins.map(number)[start:end]
            seed = place(self._seeds[number], start, page.first_row + turn)
            if google_crc32c.extend(seed, part) != crc:
                return None, ends
            parts.append(part)
            shifts.append(held - start)
            held += len(part)
        return b"".join(parts), np.array(shifts, dtype=np.int64)

    def first_bad_run(self, page: Page, raw: bytes, runs: npt.NDArray[np.uint32]) -> int | None:
        """The bin of the first run of a stripe that does not fit its checksum.

        Unlike reading, this does not ask how large a run is: it is checked a piece at a time. An
        index that is right by its checksum may still say anything: what it says to lie outside
        of the bin is wrong without a look. A run that is not together any more has no checksum.
        """
        bins = page.segment.bins
        moved = moved_turns(page, np.frombuffer(raw, dtype=ENTRY_DTYPE)).tolist()
        for turn, crc in enumerate(runs.tolist()):
            number = page.segment.bin_at(turn)
            if turn in moved:
                if crc:
                    return number
                continue
            rows = range(page.first_row + turn, page.first_row + page.rows, bins)
            start, end = self._pages.extent(rows[0], rows[-1])
            if not FILE_HEADER_NBYTES <= start <= end <= self._bins.size(number):
                return number
            seed = place(self._seeds[number], start, rows[0])
            mapped = self._bins.map(number)
            for at in range(start, end, _PIECE_NBYTES):
                seed = google_crc32c.extend(seed, mapped[at : min(end, at + _PIECE_NBYTES)])
            if seed != crc:
                return number
        return None

    def load_bins(self, members: Sequence[tuple[int, range]], table: Any) -> LoadedBins | None:
        """Read bins whole and verify them; ``None`` if anything does not fit.

        Args:
            members: ``(bin number, its rows)`` of the bins.
            table: the index entries of all rows, as an array of ``format.ENTRY_DTYPE``.
        """
        buffers: list[bytes] = []
        starts: list[npt.NDArray[np.int64]] = []
        stops: list[npt.NDArray[np.int64]] = []
        held = 0
        for number, rows in members:
            try:
                self._pages.verify(rows.start, rows[-1] + 1)
            except SplitpipeError:
                return None
            entries = table[rows.start : rows[-1] + 1 : rows.step]
            if (entries["bin"] != number).any():
                # Some were updated since, and lie elsewhere.
                return None
            offsets = entries["offset"].astype(np.int64)
            ends = offsets + entries["length"].astype(np.int64)
            first = int(offsets[0]) - RECORD_HEADER_NBYTES
            buffer = self._bins.map(number)[first : int(ends[-1])]
            if not self._runs_fit(number, rows, buffer, first, offsets, ends):
                return None
            buffers.append(buffer)
            starts.append(offsets + (held - first))
            stops.append(ends + (held - first))
            held += len(buffer)
        whole = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        return LoadedBins(whole, np.concatenate(starts), np.concatenate(stops))

    def _runs_fit(
        self,
        number: int,
        rows: range,
        buffer: bytes,
        first: int,
        offsets: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> bool:
        segment, turn = self._place_of(rows)
        if rows != segment.rows_at(turn):
            # An older snapshot, seen through a newer manifest: it ends in the middle of a run.
            return False
        heads = (offsets[::RUN_RECORDS] - RECORD_HEADER_NBYTES).tolist()
        tails = [*(ends[RUN_RECORDS - 1 :: RUN_RECORDS].tolist()), int(ends[-1])]
        crcs = self._pages.run_sums(segment, turn)
        seed = self._seeds[number]
        for run, (start, crc) in enumerate(zip(heads, crcs, strict=True)):
            row = rows[run * RUN_RECORDS]
            part = buffer[start - first : tails[run] - first]
            if google_crc32c.extend(place(seed, start, row), part) != crc:
                return False
        return True

    def _place_of(self, rows: range) -> tuple[Segment, int]:
        segment = self._pages.page_of(rows.start).segment
        return segment, rows.start - segment.first_row


def moved_turns(page: Page, entries: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Places in the round whose run in this stripe has a record that was updated since.

    Such a record lies in a bin for updated records: its run is not together any more.
    """
    bins = page.segment.bins
    own = np.array([page.segment.bin_at(turn) for turn in range(min(bins, page.rows))])
    turns = np.arange(len(entries)) % bins
    return distinct(turns[entries["bin"] != own[turns]])


class LoadedBins:
    """Whole bins in memory, verified.

    Args:
        buffer: their bytes.
        starts: where every record starts in it, bin after bin.
        stops: where every record ends.
    """

    __slots__ = ("_buffer", "_starts", "_stops")

    def __init__(
        self, buffer: bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> None:
        self._buffer = buffer
        self._starts = starts
        self._stops = stops

    def __len__(self) -> int:
        return len(self._starts)

    def take(self, places: npt.NDArray[np.int64]) -> list[bytes]:
        """Records by their place, counted from 0, bin after bin."""
        buffer = self._buffer
        return [
            buffer[start:stop]
            for start, stop in zip(
                self._starts.take(places).tolist(), self._stops.take(places).tolist(), strict=True
            )
        ]
