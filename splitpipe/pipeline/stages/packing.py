"""Which sequences share a pack: bin packing of whole numbers.

Responsible for: `plan_packs`, a pure function from lengths to numbers of packs.

Methods (E. G. Coffman et al., "Bin Packing Approximation Algorithms: Survey and Classification",
Handbook of Combinatorial Optimization, 2013):
- best fit decreasing: longest first, each into the pack with the least room that is enough. It
  needs at most 11/9 of the fewest packs possible, and one more. Sequences of one length are placed
  together: into a pack with room r go r // length of them, so that the work grows with the number
  of different lengths and rooms, not with that of sequences;
- best fit: the same in the order in which sequences come;
- first fit: in that order, each into the first pack that has room; found by descending a tree of
  the most room that any pack of a subtree has.

Rules:
- every sequence is in one pack, no pack has more than its capacity;
- packs are numbered by their first sequence, so that they leave in about the order they came in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitpipe.pipeline.stages.checks import choice, whole

__all__ = ["STRATEGIES", "plan_packs"]

_MANY = 4
"""From so many sequences of one length on, they are placed together."""

Numbers: TypeAlias = NDArray[np.int64]


def plan_packs(lengths: ArrayLike, capacity: int, strategy: str = "best_fit_decreasing") -> Numbers:
    """Return the number of the pack for every sequence.

    Args:
        lengths: of the sequences: whole numbers from 0 to `capacity`.
        capacity: of every pack.
        strategy: ``"best_fit_decreasing"``, ``"best_fit"`` or ``"first_fit"``.

    Returns:
        An int64 array of the shape of `lengths`: packs from 0, numbered by their first sequence.

    Raises:
        GraphError: the capacity or the strategy cannot be.
        ValueError: a length cannot be.

    Example:
        >>> plan_packs([5, 7, 2, 3, 3], 10)
        array([0, 1, 0, 1, 0])
    """
    capacity = whole("capacity", capacity, least=1)
    plan = STRATEGIES[choice("strategy", strategy, tuple(STRATEGIES))]
    made = np.asarray(lengths)
    if made.size == 0:
        return np.empty(made.shape, np.int64)
    if made.ndim != 1 or made.dtype.kind not in "iu":
        raise ValueError(
            f"lengths must be one axis of whole numbers, not {made.dtype} of shape {made.shape}"
        )
    if made.min() < 0 or made.max() > capacity:
        wrong = int(np.argmax((made < 0) | (made > capacity)))
        raise ValueError(
            f"sequence {wrong} has a length of {made[wrong]}; a pack takes from 0 to {capacity}"
        )
    some = np.flatnonzero(made)
    if not len(some):
        return np.zeros(len(made), np.int64)
    # An empty sequence goes where the one before it goes, or at the beginning the first one.
    before = np.searchsorted(some, np.arange(len(made)), side="right") - 1
    packs = plan(made[some].astype(np.int64), capacity)[np.maximum(before, 0)]
    return _in_order_of_coming(packs)


def _in_order_of_coming(packs: Numbers) -> Numbers:
    count = int(packs.max()) + 1
    first = np.full(count, len(packs), np.int64)
    first[packs[::-1]] = np.arange(len(packs) - 1, -1, -1)  # of several writes, the last one stays
    number = np.empty(count, np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(count)
    return number[packs]


class _Rooms:
    """Packs by the room they have left, for those who want the least that is enough.

    Args:
        capacity: of a new pack.
        least: a room below this is of use to nobody.
    """

    __slots__ = ("_at", "_capacity", "_least", "_sorted", "opened")

    def __init__(self, capacity: int, least: int) -> None:
        self._capacity = capacity
        self._least = least
        self._sorted: list[int] = []
        self._at: dict[int, list[int]] = {}
        self.opened = 0

    def place(self, length: int) -> int:
        """Return the pack for one sequence."""
        place = bisect_left(self._sorted, length)
        if place == len(self._sorted):
            pack, room = self.opened, self._capacity
            self.opened += 1
        else:
            room = self._sorted[place]
            packs = self._at[room]
            pack = packs.pop()
            if not packs:
                del self._sorted[place], self._at[room]
        room -= length
        if room >= self._least:
            if room in self._at:
                self._at[room].append(pack)
            else:
                self._at[room] = [pack]
                insort(self._sorted, room)
        return pack

    def place_many(self, length: int, count: int, placed: list[int]) -> None:
        """Append the packs for `count` sequences of one length, as placing one by one would."""
        while count > 1:
            place = bisect_left(self._sorted, length)
            if place == len(self._sorted):
                each = self._capacity // length
                full = count // each
                if not full:
                    break
                taken = list(range(self.opened, self.opened + full))
                self.opened += full
                left = self._capacity - each * length
            else:
                room = self._sorted[place]
                packs = self._at[room]
                each = room // length
                full = min(len(packs), count // each)
                if not full:
                    break
                taken = packs[-full:]
                del packs[-full:]
                if not packs:
                    del self._sorted[place], self._at[room]
                left = room - each * length
            placed += taken if each == 1 else chain.from_iterable(map(repeat, taken, repeat(each)))
            count -= full * each
            self._keep(left, taken)
        # Fewer than fill the next pack, which all of them go into.
        placed += [self.place(length) for _ in range(count)]

    def _keep(self, room: int, packs: list[int]) -> None:
        if room >= self._least:
            known = self._at.get(room)
            if known is None:
                self._at[room] = packs
                insort(self._sorted, room)
            else:
                known += packs


def _best_fit_decreasing(lengths: Numbers, capacity: int) -> Numbers:
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    ends = np.flatnonzero(np.diff(descending)) + 1
    starts = np.concatenate([[0], ends])
    counts = np.diff(np.concatenate([starts, [len(lengths)]]))
    rooms = _Rooms(capacity, int(descending[-1]))
    placed: list[int] = []
    for length, count in zip(descending[starts].tolist(), counts.tolist(), strict=True):
        if count < _MANY:
            placed += [rooms.place(length) for _ in range(count)]
        else:
            rooms.place_many(length, count, placed)
    packs = np.empty(len(lengths), np.int64)
    packs[order] = placed
    return packs


def _best_fit(lengths: Numbers, capacity: int) -> Numbers:
    rooms = _Rooms(capacity, int(lengths.min()))
    return np.fromiter(map(rooms.place, lengths.tolist()), np.int64, len(lengths))


def _first_fit(lengths: Numbers, capacity: int) -> Numbers:
    size = 1 << max(0, (len(lengths) - 1).bit_length())
    most = [capacity] * (2 * size)  # node i has the children 2i and 2i + 1; packs are the leaves
    packs = np.empty(len(lengths), np.int64)
    for number, length in enumerate(lengths.tolist()):
        node = 1
        while node < size:
            node *= 2
            if most[node] < length:
                node += 1
        packs[number] = node - size
        most[node] -= length
        node //= 2
        while node:
            left, right = most[2 * node], most[2 * node + 1]
            most[node] = max(right, left)
            node //= 2
    return packs


STRATEGIES: dict[str, Callable[[Numbers, int], Numbers]] = {
    "best_fit_decreasing": _best_fit_decreasing,
    "best_fit": _best_fit,
    "first_fit": _first_fit,
}
"""How packs are planned, by name."""
