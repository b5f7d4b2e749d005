"""Sets of sequences, most of which follow each other.

Responsible for: `RangeSet`, and `compact`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from splitpipe.wire.messages import Ranges

__all__ = ["RangeSet", "compact", "without"]


def compact(sequences: Iterable[int]) -> Ranges:
    """Return sequences as ranges.

    Example:
        >>> compact([5, 1, 2, 3])
        [(1, 4), (5, 6)]
    """
    ranges: Ranges = []
    for sequence in sorted(sequences):
        if ranges and ranges[-1][1] == sequence:
            ranges[-1] = ranges[-1][0], sequence + 1
        elif not ranges or ranges[-1][1] < sequence:
            ranges.append((sequence, sequence + 1))
    return ranges


def without(sequences: set[int], ranges: Ranges) -> set[int]:
    """Return those of `sequences` that are in none of `ranges`, however long these say they are."""
    for start, stop in ranges:
        if stop - start <= len(sequences):
            sequences = sequences.difference(range(start, stop))
        else:
            sequences = {one for one in sequences if not start <= one < stop}
    return sequences


class RangeSet:
    """A set of sequences.

    Example:
        >>> seen = RangeSet()
        >>> for sequence in (0, 1, 3):
        ...     seen.add(sequence)
        >>> 1 in seen, 2 in seen, seen.ranges
        (True, False, [(0, 2), (3, 4)])
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    @property
    def ranges(self) -> Ranges:
        """What is in it."""
        return list(zip(self._starts, self._stops))

    def __contains__(self, sequence: int) -> bool:
        place = bisect_right(self._starts, sequence) - 1
        return place >= 0 and sequence < self._stops[place]

    def add(self, sequence: int) -> None:
        """Put one in."""
        self.add_range(sequence, sequence + 1)

    def discard(self, sequence: int) -> None:
        """Take one out, if it is in."""
        place = bisect_right(self._starts, sequence) - 1
        if place < 0 or sequence >= self._stops[place]:
            return
        start, stop = self._starts[place], self._stops[place]
        left = [(a, b) for a, b in ((start, sequence), (sequence + 1, stop)) if a < b]
        self._starts[place : place + 1] = [a for a, _ in left]
        self._stops[place : place + 1] = [b for _, b in left]

    def add_range(self, start: int, stop: int) -> None:
        """Put those from `start` on, before `stop`, in."""
        if stop <= start:
            return
        starts, stops = self._starts, self._stops
        if stops and stops[-1] == start:  # it goes on, as nearly always
            stops[-1] = stop
            return
        first = bisect_right(stops, start - 1)
        last = bisect_right(starts, stop)
        if first < last:
            start, stop = min(start, starts[first]), max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]
