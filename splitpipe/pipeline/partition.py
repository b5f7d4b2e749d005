"""Dividing samples into groups of equal number and nearly equal cost.

Responsible for: `divided`, which does it, by one of `METHODS`, and `imbalance`, which says how
well.

Two methods, both deterministic, both with equally many samples in every group:

- ``"differencing"``: the largest differencing method of N. Karmarkar and R. M. Karp ("The
  Differencing Method of Set Partitioning", report UCB/CSD 82/113, Berkeley, 1982) in its balanced
  form for any number of groups (W. Michiels, J. Korst, E. Aarts and J. van Leeuwen, "Performance
  Ratios for the Differencing Method Applied to the Balanced Number Partitioning Problem", STACS
  2003): samples are sorted and cut into rows of one for each group; the two rows whose sums lie
  furthest apart are joined, the largest of one with the smallest of the other, until one is left.
- ``"largest-first"``: each sample, largest first, goes to the group with the smallest sum that has
  room (R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM Journal on Applied
  Mathematics 17, 1969; with a bound on the number: L. Babel, H. Kellerer, V. Kotov, "The
  k-Partitioning Problem", Mathematical Methods of Operations Research 47, 1998).

Either is improved by exchanges until groups are even within 0.2 %: as long as it makes the more
expensive one of two groups cheaper, the most expensive group of all gives one of its samples for a
cheaper one of another group. A few exchanges undo what both methods do badly, samples that cost
more than a group should; with them the two come out alike, and the second takes half the time.

Rules:
- equal costs are told apart by their place: the same numbers give the same groups everywhere.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "divided", "imbalance"]

METHODS = ("largest-first", "differencing")

_EXCHANGES = 4
"""Exchanges at most, for each group."""

_EVEN = 1.002
"""The largest sum over the mean one from which on exchanges are not worth their time."""

Costs = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]


def divided(costs: Costs, groups: int, method: str = "largest-first") -> Numbers:
    """Return which samples each group has: an array of shape (groups, samples // groups).

    Args:
        costs: one for each sample, of at least 0: as many as `groups` divides.
        groups: how many.
        method: one of `METHODS`.

    Returns:
        Places of samples, ascending in each group; groups in the order of their first samples.

    Example:
        >>> divided(np.array([9, 1, 8, 2, 7, 3]), 3).tolist()
        [[0, 1], [2, 3], [4, 5]]
    """
    size = len(costs) // groups
    if groups == 1 or size <= 1:
        return np.arange(groups * size, dtype=np.int64).reshape(groups, size)
    values = costs.tolist()
    ranked = np.argsort(-costs, kind="stable").tolist()
    made = (_differenced if method == "differencing" else _filled)(values, ranked, groups)
    _exchange(values, made)
    table = np.array(made, dtype=np.int64)
    table.sort(axis=1)
    return table[np.argsort(table[:, 0], kind="stable")]


def _differenced(values: Sequence[Any], ranked: Sequence[int], groups: int) -> list[list[int]]:
    heap: list[tuple[Any, int, list[tuple[Any, int, list[int]]]]] = []
    for number, first in enumerate(range(0, len(ranked), groups)):
        # Ascending: sums, and who they are by their first sample, so that ties have one outcome.
        row = [(values[one], one, [one]) for one in reversed(ranked[first : first + groups])]
        heap.append((row[0][0] - row[-1][0], number, row))
    heapq.heapify(heap)
    number = len(heap)
    while len(heap) > 1:
        _, _, left = heapq.heappop(heap)
        _, _, right = heapq.heappop(heap)
        joined = [
            (low[0] + high[0], min(low[1], high[1]), _longer(low[2], high[2]))
            for low, high in zip(left, reversed(right), strict=True)
        ]
        joined.sort(key=_sum_and_first)
        heapq.heappush(heap, (joined[0][0] - joined[-1][0], number, joined))
        number += 1
    return [members for _, _, members in heap[0][2]]


def _longer(left: list[int], right: list[int]) -> list[int]:
    """Both, in the longer of the two lists: it is not copied again and again."""
    if len(left) < len(right):
        left, right = right, left
    left.extend(right)
    return left


def _sum_and_first(one: tuple[Any, int, list[int]]) -> tuple[Any, int]:
    return one[0], one[1]


def _filled(values: Sequence[Any], ranked: Sequence[int], groups: int) -> list[list[int]]:
    size = len(ranked) // groups
    made: list[list[int]] = [[] for _ in range(groups)]
    heap: list[tuple[Any, int]] = [(0, group) for group in range(groups)]
    for one in ranked:
        total, group = heap[0]
        made[group].append(one)
        if len(made[group]) == size:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (total + values[one], group))
    return made


def _exchange(values: Sequence[Any], made: list[list[int]]) -> None:
    """Make the most expensive group cheaper by exchanges with others, cheapest first."""
    sums = [sum(values[one] for one in members) for members in made]
    enough = sum(sums) * _EVEN / len(made)
    if max(sums) <= enough:
        return
    for members in made:
        members.sort(key=lambda one: (values[one], one))
    for _ in range(_EXCHANGES * len(made)):
        most = max(range(len(made)), key=lambda group: (sums[group], group))
        if sums[most] <= enough:
            return
        for other in sorted(range(len(made)), key=lambda group: (sums[group], group)):
            pair = _best_pair(values, made[most], made[other], sums[most] - sums[other])
            if pair is not None:
                break
        else:
            return
        given, taken = pair
        moved = values[made[most][given]] - values[made[other][taken]]
        one, two = made[most].pop(given), made[other].pop(taken)
        for member, group, change in ((two, most, -moved), (one, other, moved)):
            insort(made[group], member, key=lambda one: (values[one], one))
            sums[group] += change


def _best_pair(
    values: Sequence[Any], dear: list[int], cheap: list[int], gap: Any
) -> tuple[int, int] | None:
    """Return which two samples to exchange so that sums that are `gap` apart come closest; None
    where none do.
    """
    best: tuple[int, int] | None = None
    least = gap * (1 - 1e-9) if isinstance(gap, float) else gap
    costs = [values[one] for one in cheap]
    for given, one in enumerate(dear):
        wanted = values[one] - gap / 2
        place = bisect_left(costs, wanted)
        for taken in (place - 1, place):
            if 0 <= taken < len(costs):
                left = abs(gap - 2 * (values[one] - costs[taken]))
                if left < least:
                    best, least = (given, taken), left
    return best


def imbalance(costs: Any) -> Any:
    """Return how unevenly ranks are loaded: the largest cost over the mean one, of every step.

    1 is even; the ranks of a step with 1.5 wait a third of its time for the slowest. A step that
    costs nothing is even.

    Args:
        costs: of every step, of every rank: shape (..., ranks).

    Returns:
        A float, or an array of shape (...).

    Example:
        >>> import splitpipe as sp
        >>> sp.imbalance([[3, 1], [2, 2]]).tolist()
        [1.5, 1.0]
    """
    table = np.asarray(costs, dtype=np.float64)
    mean = table.mean(axis=-1)
    return np.where(mean > 0, table.max(axis=-1) / np.where(mean > 0, mean, 1.0), 1.0)[()]
