"""How well a stream is shuffled, as one number.

Responsible for: `Neighbours`, which sums up while items pass; `mixing`, which turns the sums into
the number; and `order_mixing`, the same number for an order of a source.

Method: the rank version of von Neumann's ratio (R. Bartels, "The Rank Version of von Neumann's
Ratio Test for Randomness", Journal of the American Statistical Association 77, 1982, 40-46): the
sum of the squared distances, in ranks, of neighbours. Here an item's rank is its number at the
input. If every order of n items is equally likely, a squared distance has the mean n(n + 1) / 6;
where the order is kept, each is 1. From the sum that was found, and the one to be expected, both
less what an order that is kept would have, the number is

    1 - |1 - sqrt(found / expected)|

0 where the order is kept (or reversed), and 1, but for chance (about 0.5 / sqrt(n)), where it is as
good as uniform. Between the two it says how far neighbours come from, in parts of what uniform
order would have: a buffer that holds a tenth of the data has about 0.3. It falls again where
neighbours are systematically far apart.

Rules:
- what is measured are sums, over epochs and workers alike; the number is made of them when it is
  wanted, while an epoch is under way, too;
- it looks at neighbours only. Streams that were dealt together in turn look well mixed to it, as
  their neighbours are far apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "Neighbours", "mixing", "order_mixing"]

MEASURES = ("mixing found", "mixing expected")
"""The sums that `mixing` is made of."""

_OFTEN = 255
"""Sums are handed on whenever these bits of the count are 0."""

_SAMPLES = 64
"""Places at which an order is looked at."""

_RUN = 64
"""Neighbours at each of them."""


class Neighbours:
    """Sums over the neighbours of one epoch.

    Args:
        measured: where the sums go, every few items and when `flush` is called.

    Example:
        >>> measured = {"mixing found": 0.0, "mixing expected": 0.0}
        >>> neighbours = Neighbours(measured)
        >>> for number in (2, 3, 0, 1):
        ...     neighbours.add(number)
        >>> neighbours.flush()
        >>> round(mixing(measured), 2)
        0.93
    """

    __slots__ = ("_count", "_flushed", "_last", "_measured", "_squares")

    def __init__(self, measured: dict[str, float]) -> None:
        self._measured = measured
        self._last = 0
        self._count = 0
        self._squares = 0
        self._flushed = 0

    def add(self, number: int) -> None:
        """The item that was the `number`-th at the input is the next one at the output."""
        distance = number - self._last if self._count else 0
        self._last = number
        self._count += 1
        self._squares += distance * distance
        if self._count & _OFTEN == 0:
            self.flush()

    def flush(self) -> None:
        """Add what is not there yet to the sums."""
        count, before = self._count, self._flushed
        found, expected = MEASURES
        steps = max(0, count - 1) - max(0, before - 1)
        self._measured[found] += self._squares - steps
        self._measured[expected] += _squares_of(count) - _squares_of(before) - steps
        self._squares, self._flushed = 0, count


def _squares_of(count: int) -> float:
    """The mean, over all orders of so many items, of their sum of squared distances."""
    return count * (count * count - 1) / 6


def mixing(measured: Mapping[str, float]) -> float:
    """Return how well a stream is shuffled, from 0 (its order was kept) to 1 (as good as uniform).

    Args:
        measured: the sums, as the `shuffle` stage measures them. Of nothing, or of epochs of two
            items at most, nothing can be said: NaN.

    Example:
        >>> mixing({"mixing found": 25.0, "mixing expected": 100.0})
        0.5
    """
    found, expected = (measured.get(name, 0.0) for name in MEASURES)
    if expected <= 0:
        return math.nan
    return max(0.0, 1 - abs(1 - math.sqrt(max(0.0, found) / expected)))


class _Order(Protocol):
    def __len__(self) -> int: ...

    def indices(self, start: int, stop: int) -> NDArray[np.int64]: ...


def order_mixing(order: _Order) -> float:
    """Return how well an order of a source is shuffled: the number of `mixing`, from a sample.

    Of a long order, some 4,000 neighbours at 64 places are looked at, the same ones every time.

    Args:
        order: of a source, as `splitpipe.global_order` makes it.

    Example:
        >>> from splitpipe.order import global_order, sequential_order
        >>> order_mixing(sequential_order(100))
        0.0
        >>> order_mixing(global_order(100_000, seed=0, epoch=0)) > 0.97
        True
    """
    size = len(order)
    if size <= _SAMPLES * (_RUN + 1):
        starts, run = [0], size - 1
    else:
        starts, run = [k * (size - _RUN - 1) // (_SAMPLES - 1) for k in range(_SAMPLES)], _RUN
    found = count = 0.0
    for start in starts:
        distances = np.diff(order.indices(start, min(start + run + 1, size)).astype(np.float64))
        found += float(np.sum(distances**2)) - len(distances)
        count += len(distances)
    expected = count * (size * (size + 1) / 6 - 1)
    return mixing(dict(zip(MEASURES, (found, expected), strict=True)))
