"""Whose turn a position is.

Responsible for: `Schedule` and its kinds, from a position to (stream, how many samples of it came
before); and `schedule_of`, which makes one by its name.

Rules:
- every stream has as many positions as was said, and its samples are counted in their order:
  what comes later in an epoch is a later sample of its stream;
- arithmetic on arrays: a block of positions costs the same wherever it lies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.order import GlobalOrder, Rows
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.pipeline.streams.spread import Spread

__all__ = [
    "SCHEDULES",
    "WITH_BATCH",
    "PerStream",
    "Random",
    "RoundRobin",
    "Schedule",
    "Sequential",
    "Stratified",
    "Turns",
    "schedule_of",
]

SCHEDULES: Final = ("random", "stratified", "per-stream", "round-robin", "sequential")

WITH_BATCH: Final = ("stratified", "per-stream")
"""Those that have to know how large a batch is."""

RANDOM_BLOCK: Final = 4096
"""Positions that are shuffled together by ``"random"``."""

_TABLE: Final = 32
"""Numbers in a table of batches and streams, for each position that is looked up in it; where there
would be more, it is done without a table."""

Turns = tuple[npt.NDArray[np.uint16], Rows]
"""For every position: the stream, and how many samples of it came before."""


class Schedule(ABC):
    """Whose turn the positions of an epoch are.

    Example:
        >>> streams, draws = schedule_of("round-robin", [3, 1], None, 0).find(np.arange(4))
        >>> streams.tolist(), draws.tolist()
        ([0, 1, 0, 0], [0, 0, 1, 2])
    """

    @abstractmethod
    def find(self, positions: Rows) -> Turns:
        """Return whose turn positions are, given in ascending order."""


def schedule_of(name: str, counts: Sequence[int], batch: int | None, key: int) -> Schedule:
    """Return the schedule of an epoch.

    Args:
        name: one of `SCHEDULES`.
        counts: samples of each stream in the epoch.
        batch: samples of a batch, for those of `WITH_BATCH`.
        key: of what is random in it; 64 bits.
    """
    if name == "sequential":
        return Sequential(counts)
    if name == "round-robin":
        return RoundRobin(counts)
    if name == "random":
        return Random(counts, key)
    assert batch is not None
    return Stratified(counts, batch, key) if name == "stratified" else PerStream(counts, batch, key)


class Sequential(Schedule):
    """One stream after the other."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._ends = np.cumsum(np.array(counts, np.int64))
        self._starts = self._ends - np.array(counts, np.int64)

    def find(self, positions: Rows) -> Turns:
        streams = np.searchsorted(self._ends, positions, side="right")
        return streams.astype(np.uint16), positions - self._starts[streams]


class RoundRobin(Schedule):
    """In turn, one sample each; a stream that has given all leaves the round."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._rounds: list[int] = [0]  # that are over where a stream leaves
        self._starts: list[int] = [0]
        self._left: list[npt.NDArray[np.int64]] = []
        for ended in sorted(set(counts)):
            self._left.append(np.flatnonzero(np.array(counts, np.int64) >= ended))
            rounds = ended - self._rounds[-1]
            self._starts.append(self._starts[-1] + rounds * len(self._left[-1]))
            self._rounds.append(ended)

    def find(self, positions: Rows) -> Turns:
        part = np.searchsorted(np.array(self._starts[1:]), positions, side="right")
        streams, draws = np.empty(len(positions), np.uint16), np.empty(len(positions), np.int64)
        for one in distinct(part).tolist():
            mine = np.flatnonzero(part == one)
            rounds, place = np.divmod(positions[mine] - self._starts[one], len(self._left[one]))
            streams[mine] = self._left[one][place]
            draws[mine] = self._rounds[one] + rounds
        return streams, draws


class Stratified(Schedule):
    """Every batch has each stream's share, rounded down or up; streams follow each other in it.

    That they do, and are not shuffled, lets ranks that deal a batch's samples out in turn have
    their shares of each stream, too.
    """

    def __init__(self, counts: Sequence[int], batch: int, key: int) -> None:
        self._block = batch
        self._spread = Spread(counts, batch, key)
        self._count = len(counts)

    def find(self, positions: Rows) -> Turns:
        numbers, places = np.divmod(positions, self._block)
        blocks, which = _numbered(numbers)
        if len(blocks) * self._count > _TABLE * len(positions):
            streams, draws = self._spread.place(numbers, places)
            return streams.astype(np.uint16), draws
        before, inside = self._spread.both(blocks)
        ends = np.cumsum(inside, axis=1)
        # All blocks end to end: one search tells the stream of every place.
        base = np.arange(len(blocks), dtype=np.int64)[:, None] * self._block
        flat = np.searchsorted((ends + base).ravel(), which * self._block + places, side="right")
        streams = flat - which * self._count
        # A last, shorter block ends before the next one would begin: nobody asks beyond it.
        draws = places + (before - (ends - inside)).ravel()[flat]
        return streams.astype(np.uint16), draws


class Random(Schedule):
    """Any turn: of every 4096 samples each stream has its share, rounded down or up, shuffled."""

    def __init__(self, counts: Sequence[int], key: int) -> None:
        self._key = key
        self._total = sum(counts)
        self._spread = Spread(counts, RANDOM_BLOCK, key)
        self._names = np.arange(len(counts), dtype=np.uint16)

    def find(self, positions: Rows) -> Turns:
        numbers, places = np.divmod(positions, RANDOM_BLOCK)
        blocks, which = _numbered(numbers)
        before, inside = self._spread.both(blocks)
        streams, draws = np.empty(len(positions), np.uint16), np.empty(len(positions), np.int64)
        for row, mine in _cut(which):
            turns, drawn = self._block(int(blocks[row]), before[row], inside[row])
            streams[mine], draws[mine] = turns[places[mine]], drawn[places[mine]]
        return streams, draws

    def _block(self, number: int, before: Rows, inside: Rows) -> Turns:
        size = min(RANDOM_BLOCK, self._total - number * RANDOM_BLOCK)
        shuffled = GlobalOrder(KeyedPermutation(size, derive_key(self._key, number)))
        turns = np.repeat(self._names, inside)[shuffled.indices(0, size)]
        # Sorted by stream, then by position: there the samples of each are numbered.
        starts = before - (np.cumsum(inside) - inside)
        draws = np.empty(size, np.int64)
        draws[np.argsort(turns, kind="stable")] = np.repeat(starts, inside) + np.arange(size)
        return turns, draws


class PerStream(Schedule):
    """Every batch is of one stream; whose, is random as by `Random`.

    Args:
        counts: samples of each stream: whole batches.
        batch: samples of a batch.
        key: of the turns.
    """

    def __init__(self, counts: Sequence[int], batch: int, key: int) -> None:
        self._batch = batch
        self._batches = Random([count // batch for count in counts], key)

    def find(self, positions: Rows) -> Turns:
        numbers, places = np.divmod(positions, self._batch)
        batches, which = _numbered(numbers)
        streams, draws = self._batches.find(batches)
        return streams[which], draws[which] * self._batch + places


def _numbered(numbers: Rows) -> tuple[Rows, Rows]:
    """Return which numbers there are in an ascending array, and which of these each is."""
    if not len(numbers):
        return numbers, numbers
    first, span = int(numbers[0]), int(numbers[-1]) - int(numbers[0]) + 1
    if span <= len(numbers):  # nearly every one between is there, too
        return np.arange(first, first + span, dtype=np.int64), numbers - first
    new = np.concatenate(([True], numbers[1:] != numbers[:-1]))
    return numbers[new], np.cumsum(new) - 1


def _cut(which: Rows) -> Iterator[tuple[int, slice]]:
    """Yield the values of an ascending array, and where each lies."""
    bounds = np.flatnonzero(np.concatenate(([True], which[1:] != which[:-1]))).tolist()
    for start, stop in zip(bounds, [*bounds[1:], len(which)], strict=True):
        if start < stop:
            yield int(which[start]), slice(start, stop)
