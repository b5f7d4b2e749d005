"""Which blocks of which files hold what is wanted, as arithmetic on arrays.

Responsible for: `FileBlocks`, the blocks of several files numbered one after the other, and
`Known`, which of them were seen to be there.

Rules:
- everything is done for a whole batch at once: the price of a record is a few nanoseconds;
- nothing is opened and nothing is asked: what comes out are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FileBlocks", "Known", "Ranges", "Spans"]

Numbers = npt.NDArray[np.int64]
# [start, stop) in bytes, of shape (n, 2).
Ranges = npt.NDArray[np.int64]
# First and last block of each thing that is wanted, by number among the blocks of all files.
Spans = tuple[Numbers, Numbers]


class FileBlocks:
    """The blocks of several files, numbered one after the other.

    Between two files a number is left out, so that blocks of different files are never neighbours.

    Args:
        sizes: of the files, in bytes.
        block_nbytes: size of a block; the last one of a file may be shorter.

    Attributes:
        bases: number of the first block of every file, and of the one after the last.
        total: one more than the largest number of a block.

    Example:
        >>> blocks = FileBlocks([100, 250], block_nbytes=100)
        >>> files, starts, stops = np.array([[1, 0, 1], [190, 5, 0], [210, 10, 20]])
        >>> spans = blocks.spans(files, starts, stops)
        >>> [(file, ranges.tolist()) for file, ranges in blocks.merged(spans)]
        [(0, [[0, 100]]), (1, [[0, 250]])]
    """

    __slots__ = ("_sizes", "bases", "block_nbytes", "total")

    def __init__(self, sizes: Sequence[int] | npt.NDArray[Any], block_nbytes: int) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self.block_nbytes = block_nbytes
        counts = -(-self._sizes // block_nbytes) + 1
        self.bases = np.concatenate(([0], np.cumsum(counts)))
        self.total = int(self.bases[-1])

    def spans(self, files: Numbers, starts: Numbers, stops: Numbers) -> Spans:
        """First and last block of byte ranges, none of them empty."""
        bases = self.bases.take(files)
        return bases + starts // self.block_nbytes, bases + (stops - 1) // self.block_nbytes

    def whole(self, file: int) -> Spans:
        """All blocks of one file."""
        return self.bases[file : file + 1], self.bases[file + 1 : file + 2] - 2

    def merged(self, spans: Spans, *, extent: int = 1) -> list[tuple[int, Ranges]]:
        """Byte ranges that cover spans, by file: ascending, apart, aligned to blocks.

        Args:
            spans: in any order, also overlapping.
            extent: how many blocks at once: ranges are aligned to so many.
        """
        firsts, lasts = spans
        if not len(firsts):
            return []
        if extent > 1:
            firsts, lasts = self._widened(firsts, lasts, extent)
        order = np.argsort(firsts, kind="stable")
        firsts = firsts[order]
        lasts = np.maximum.accumulate(lasts[order])
        breaks = np.flatnonzero(firsts[1:] > lasts[:-1] + 1)
        begins = firsts[np.concatenate(([0], breaks + 1))]
        ends = lasts[np.concatenate((breaks, [len(lasts) - 1]))]
        owners = np.searchsorted(self.bases, begins, side="right") - 1
        bases = self.bases[owners]
        starts = (begins - bases) * self.block_nbytes
        stops = np.minimum((ends - bases + 1) * self.block_nbytes, self._sizes[owners])
        ranges = np.stack((starts, stops), axis=1)
        at = np.flatnonzero(np.diff(owners)) + 1
        files = owners[np.concatenate(([0], at))].tolist()
        return list(zip(files, np.split(ranges, at), strict=True))

    def _widened(self, firsts: Numbers, lasts: Numbers, extent: int) -> Spans:
        owners = np.searchsorted(self.bases, firsts, side="right") - 1
        bases = self.bases[owners]
        firsts = bases + (firsts - bases) // extent * extent
        lasts = bases + ((lasts - bases) // extent + 1) * extent - 1
        return firsts, np.minimum(lasts, self.bases[owners + 1] - 2)

    def nbytes(self, needs: Sequence[tuple[int, Ranges]]) -> int:
        """Bytes of what `merged` gave."""
        return sum(int((ranges[:, 1] - ranges[:, 0]).sum()) for _, ranges in needs)


class Known:
    """Which blocks were seen to be there, as long as nothing is taken away.

    Args:
        blocks: of the files.
        files: how many of these, from the first, `complete` speaks of.

    Attributes:
        complete: whether all blocks of these files are.
    """

    __slots__ = ("_blocks", "_end", "_files", "_left", "_seen", "complete")

    def __init__(self, blocks: FileBlocks, files: int) -> None:
        self._blocks = blocks
        self._files = files
        self._end = int(blocks.bases[files])
        self._seen = np.zeros(blocks.total, dtype=np.bool_)
        # The numbers that are left out, one behind each file, are no blocks.
        self._seen[blocks.bases[1:] - 1] = True
        self._left = self._end - int(self._seen[: self._end].sum())
        self.complete = not self._left

    def lacking(self, spans: Spans) -> Spans:
        """Those spans of which a block was not seen."""
        firsts, lasts = spans
        there = self._seen.take(firsts) & self._seen.take(lasts)
        for at in np.flatnonzero(there & (lasts - firsts > 1)).tolist():
            there[at] = self._seen[firsts[at] : lasts[at] + 1].all()
        return firsts[~there], lasts[~there]

    def add(self, needs: Sequence[tuple[int, Ranges]]) -> None:
        """Blocks of what `FileBlocks.merged` gave were seen."""
        bases, block = self._blocks.bases, self._blocks.block_nbytes
        for file, ranges in needs:
            base = int(bases[file])
            for start, stop in ranges.tolist():
                part = self._seen[base + start // block : base - (-stop // block)]
                if file < self._files:
                    self._left -= len(part) - int(part.sum())
                part[:] = True
        # Threads may have counted a block twice: what the count says is looked at.
        self.complete = self._left <= 0 and bool(self._seen[: self._end].all())

    def forget(self) -> None:
        """Something may have been taken away."""
        self.complete = False
        self.__init__(self._blocks, self._files)  # type: ignore[misc]
