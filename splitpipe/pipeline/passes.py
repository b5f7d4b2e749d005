"""The order of several passes over the same rows, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from splitpipe.order import Order, Rows

__all__ = ["FOREVER", "Passes"]

FOREVER = 1 << 62
"""Positions of a source that is repeated for ever: more than any run will read."""


class Passes(Order):
    """Pass after pass, each in an order of its own; no bijection, every row comes `passes` times.

    Args:
        size: rows.
        passes: how many.
        order: returns the order of a pass.

    Example:
        >>> from splitpipe.order import sequential_order
        >>> Passes(2, 3, lambda _: sequential_order(2)).indices(1, 5).tolist()
        [1, 0, 1, 0]
    """

    __slots__ = ("_order", "_passes", "_size")

    def __init__(self, size: int, passes: int, order: Callable[[int], Order]) -> None:
        super().__init__()
        self._size = size
        self._passes = passes
        self._order = lru_cache(4)(order)

    def __len__(self) -> int:
        return self._size * self._passes

    def _between(self, start: int, stop: int) -> Rows:
        parts = [np.empty(0, np.int64)]
        while start < stop:
            number, first = divmod(start, self._size)
            count = min(stop - start, self._size - first)
            parts.append(self._order(number).indices(first, first + count))
            start += count
        return np.concatenate(parts)

    def _row(self, position: int) -> int:
        number, first = divmod(position, self._size)
        return self._order(number)[first]
