"""Batches that somebody holds, with what each of them weighs.

Responsible for: `Holding`, a set of numbers with the samples that each has, and its JSON.

Rules:
- batches of one size that follow each other are one run: streams without filters have one or two,
  however many batches are held;
- its JSON is kept until it changes: with hundreds of sessions only those that moved since the last
  entry of the journal are written out anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from splitpipe.server.feed.ranges import Ranges, normal

__all__ = ["Holding", "Run", "count_of", "samples_of"]

Run = tuple[int, int, int]
"""Numbers from the first to before the second; the samples that each of them has."""


def count_of(runs: Iterable[Run]) -> int:
    """How many batches these are."""
    return sum(stop - start for start, stop, _ in runs)


def samples_of(runs: Iterable[Run]) -> int:
    """How many samples they have together."""
    return sum((stop - start) * samples for start, stop, samples in runs)


class Holding:
    """Numbers and their samples.

    Args:
        runs: what it holds, disjoint.
        holder: whose they are.

    Example:
        >>> held = Holding([(3, 5, 32), (5, 6, 7)], holder="a")
        >>> held.ranges, held.samples, held.member
        (((3, 6),), 71, '"a":[[3,5,32],[5,6,7]]')
        >>> held.take(((4, 9),))
        [(4, 5, 32), (5, 6, 7)]
        >>> held.text
        '[[3,4,32]]'
    """

    def __init__(self, runs: Iterable[Sequence[int]] = (), *, holder: str = "") -> None:
        self.samples = 0
        self._runs: list[Run] = []
        self._holder = json.dumps(holder)
        self._ranges: Ranges | None = None
        self._text: str | None = None
        self.merge([(start, stop, samples) for start, stop, samples in runs])

    def __len__(self) -> int:
        return count_of(self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def ranges(self) -> Ranges:
        """Its numbers."""
        if self._ranges is None:
            self._ranges = normal(self._runs)
        return self._ranges

    @property
    def lowest(self) -> int:
        """The first of its numbers. It has some."""
        return self._runs[0][0]

    def put(self, start: int, samples: Sequence[int]) -> None:
        """Add the numbers from `start` on, which it does not hold."""
        runs = []
        for each, equal in groupby(samples):
            stop = start + sum(1 for _ in equal)
            runs.append((start, stop, each))
            start = stop
        self.merge(runs)

    def merge(self, runs: Sequence[Run]) -> None:
        """Add these, which it does not hold."""
        if not runs:
            return
        self.samples += samples_of(runs)
        merged: list[Run] = []
        own = self._runs
        for run in sorted([*own, *runs]) if own and own[-1][0] > runs[0][0] else [*own, *runs]:
            if merged and merged[-1][1] == run[0] and merged[-1][2] == run[2]:
                merged[-1] = (merged[-1][0], run[1], run[2])
            else:
                merged.append(run)
        self._changed(merged)

    def take(self, ranges: Ranges) -> list[Run]:
        """Remove the numbers of `ranges` that it holds, and give them."""
        taken: list[Run] = []
        left: list[Run] = []
        at = 0
        for start, stop, samples in self._runs:
            while at < len(ranges) and ranges[at][1] <= start:
                at += 1
            place = at
            while start < stop:
                if place >= len(ranges) or ranges[place][0] >= stop:
                    left.append((start, stop, samples))
                    break
                first, last = max(start, ranges[place][0]), min(stop, ranges[place][1])
                if start < first:
                    left.append((start, first, samples))
                taken.append((first, last, samples))
                start = last
                place += 1
        if taken:
            self.samples -= samples_of(taken)
            self._changed(left)
        return taken

    @property
    def text(self) -> str:
        """Its runs as JSON."""
        if self._text is None:
            self._text = f"[{','.join([f'[{a},{b},{c}]' for a, b, c in self._runs])}]"
        return self._text

    @property
    def member(self) -> str:
        """Its JSON as a member of an object, under the name of its holder."""
        return f"{self._holder}:{self.text}"

    def _changed(self, runs: list[Run]) -> None:
        self._runs = runs
        self._ranges = self._text = None
