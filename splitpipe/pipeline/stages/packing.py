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
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitpipe.pipeline.stages.checks import choice, whole

__all__ = ["STRATEGIES", "plan_packs"]

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
    least = made.min()
    if least < 0 or made.max() > capacity:
        wrong = int(np.argmax((made < 0) | (made > capacity)))
        raise ValueError(
            f"sequence {wrong} has a length of {made[wrong]}; a pack takes from 0 to {capacity}"
        )
    made = made.astype(np.int64)
    if least > 0:
        return _in_order_of_coming(plan(made, capacity))
    some = np.flatnonzero(made)
    if not len(some):
        return np.zeros(len(made), np.int64)
    # An empty sequence goes where the one before it goes, or at the beginning the first one.
    before = np.searchsorted(some, np.arange(len(made)), side="right") - 1
    packs = plan(made[some], capacity)[np.maximum(before, 0)]
    return _in_order_of_coming(packs)


def _in_order_of_coming(packs: Numbers) -> Numbers:
    count = int(packs.max()) + 1
    first = np.full(count, len(packs), np.int64)
    first[packs[::-1]] = np.arange(len(packs) - 1, -1, -1)  # of several writes, the last one stays
    number = np.empty(count, np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(count)
    return number[packs]


def _place(runs: Iterable[tuple[int, int]], capacity: int, least: int) -> list[int]:
    """Return the pack of every sequence, each put where the least room is that is enough.

    One loop over local names: at a million a second there is no time for calls.

    Args:
        runs: lengths above 0, and how many sequences of that length there are together.
        capacity: of a new pack.
        least: of all lengths: a room below it is of use to nobody.
    """
    placed: list[int] = []
    rooms: list[int] = []  # that packs have, each once, sorted
    packs_of: dict[int, list[int]] = {}
    opened = 0
    for length, count in runs:
        while count:
            place = bisect_left(rooms, length)
            new = place == len(rooms)
            room = capacity if new else rooms[place]
            if length * count > room:  # full packs, as many as there are of this room
                each = room // length
                some = count // each
                packs = list(range(opened, opened + some)) if new else packs_of[room][-some:]
                placed += packs if each == 1 else [pack for pack in packs for _ in range(each)]
            else:  # one pack takes them all; nearly always it is one sequence
                each, some = count, 1
                packs = [opened] if new else packs_of[room][-1:]
                placed += packs * count
            if new:
                opened += some
            elif len(packs) == len(packs_of[room]):
                del rooms[place], packs_of[room]
            else:
                del packs_of[room][-some:]
            count -= each * len(packs)
            room -= each * length
            if room in packs_of:
                packs_of[room] += packs
            elif room >= least:
                packs_of[room] = packs
                insort(rooms, room)
    return placed


def _best_fit_decreasing(lengths: Numbers, capacity: int) -> Numbers:
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(descending)) + 1, [len(lengths)]])
    runs = zip(descending[starts[:-1]].tolist(), np.diff(starts).tolist(), strict=True)
    packs = np.empty(len(lengths), np.int64)
    packs[order] = _place(runs, capacity, int(descending[-1]))
    return packs


def _best_fit(lengths: Numbers, capacity: int) -> Numbers:
    runs = zip(lengths.tolist(), repeat(1), strict=False)
    return np.array(_place(runs, capacity, int(lengths.min())), np.int64)


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
