"""The order of several passes over the same rows, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from splitpipe.distinct import distinct
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

    @property
    def apart(self) -> bool:
        """See `Order.apart`."""
        return self._order(0).apart

    def of(self, number: int) -> Order:
        """Return the order of a pass."""
        return self._order(number)

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the passes that positions ``start:stop`` lie in, and from where to where in each.

        Example:
            >>> from splitpipe.order import sequential_order
            >>> list(Passes(2, 3, lambda _: sequential_order(2)).cut(1, 4))
            [(0, 1, 2), (1, 0, 2)]
        """
        while start < stop:
            number, first = divmod(start, self._size)
            taken = min(stop - start, self._size - first)
            yield number, first, first + taken
            start += taken

    def at(self, positions: Rows) -> Rows:
        passes, within = np.divmod(positions, self._size)
        made = np.empty(len(positions), np.int64)
        for number in distinct(passes).tolist():
            mine = np.flatnonzero(passes == number)
            made[mine] = self._order(number).at(within[mine])
        return made

    def _between(self, start: int, stop: int) -> Rows:
        parts = [np.empty(0, np.int64)]
        for number, first, last in self.cut(start, stop):
            parts.append(self._order(number).indices(first, last))
        return np.concatenate(parts)

    def _row(self, position: int) -> int:
        number, first = divmod(position, self._size)
        return self._order(number)[first]
