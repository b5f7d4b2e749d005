"""Telling the parts of a whole what comes next in its order.

Responsible for: `PartOf`, an order as one of several datasets end to end sees it, and `followers`
and `follow`, which hand it to those parts that fetch ahead: `Records` with a method ``ahead(order,
position)``, as a remote dataset has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from splitpipe.storage.base import Order, Rows

__all__ = ["PartOf", "follow", "followers"]


class PartOf:
    """An order over datasets end to end, as far as it leads to one of them.

    Args:
        order: of the whole.
        first: row of the whole at which the part begins.
        stop: the row after its last.

    Example:
        >>> from splitpipe.order import sequential_order
        >>> PartOf(sequential_order(10), 4, 8).indices(0, 6).tolist()
        [0, 1]
    """

    __slots__ = ("_first", "_order", "_stop")

    def __init__(self, order: Order, first: int, stop: int) -> None:
        self._order, self._first, self._stop = order, first, stop

    def __len__(self) -> int:
        """Positions of the whole order."""
        return len(self._order)

    def indices(self, start: int, stop: int) -> Rows:
        """The part's rows among positions ``start`` to ``stop - 1``: often fewer than these."""
        rows = self._order.indices(start, stop)
        return rows[(rows >= self._first) & (rows < self._stop)] - self._first

    @property
    def apart(self) -> bool:
        """See `splitpipe.order.Order.apart`."""
        return bool(getattr(self._order, "apart", False))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PartOf) or self._bounds != other._bounds:
            return False
        return self._order is other._order or self._order == other._order

    def __hash__(self) -> int:
        return hash(self._bounds)

    @property
    def _bounds(self) -> tuple[int, int]:
        return self._first, self._stop


def followers(
    parts: Sequence[Any], starts: Sequence[int], order: Order
) -> list[tuple[Any, PartOf]]:
    """The parts that want to know what comes, each with the order as it sees it.

    Args:
        parts: end to end; ``None`` for what is no dataset.
        starts: where each begins, and where the last one ends.
        order: of the whole.
    """
    return [
        (part, PartOf(order, starts[number], starts[number + 1]))
        for number, part in enumerate(parts)
        if hasattr(part, "ahead")
    ]


def follow(told: Sequence[tuple[Any, PartOf]], position: int) -> None:
    """Tell them that the order was read up to a position."""
    for part, order in told:
        part.ahead(order, position)
