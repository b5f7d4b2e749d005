"""Records of several datasets in one order, some of which cannot be read.

Responsible for: `outcomes`, which reads ahead in each part past what fails in another; `Plain`, a
part that cannot do that by itself; and `offers`, whether one can.

Rules:
- every position gives one thing, the record or an ``Unreadable``, at its place;
- parts that read ahead by themselves do so side by side, each as far as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.storage.base import Order, Rows, Unreadable
from splitpipe.views.following import follow, followers
from splitpipe.views.selection import Selection

__all__ = ["Plain", "offers", "outcomes", "raised"]

_BLOCK = 1024
"""Positions that are dealt out to the parts at once."""

_TOGETHER = 256
"""Rows that a part which knows no better reads at once."""


def offers(part: Any) -> bool:
    """Whether a part goes on past a record that cannot be read."""
    return hasattr(part, "outcomes")


def raised(found: Iterator[Any]) -> Iterator[Any]:
    """Yield records, and raise the error of the first that cannot be read."""
    for made in found:
        if type(made) is Unreadable:
            raise made.error
        yield made
        del made


def outcomes(
    parts: Sequence[Any], starts: Sequence[int], order: Order, start: int, stop: int
) -> Iterator[Any]:
    """Yield what is at positions of an order over parts end to end.

    Args:
        parts: with `outcomes`; others as `Plain`.
        starts: where each begins, and where the last one ends.
        order: of the whole.
        start: the first position.
        stop: the position after the last one.

    Example:
        >>> from splitpipe.order import sequential_order
        >>> parts = [Plain(None, [10, 11].__getitem__), Plain(None, [12].__getitem__)]
        >>> list(outcomes(parts, [0, 2, 3], sequential_order(3), 1, 3))
        [11, 12]
    """
    told = followers(parts, starts, order)
    bounds = np.array(starts)
    for first in range(start, stop, _BLOCK):
        end = min(first + _BLOCK, stop)
        rows = order.indices(first, end)
        owners = np.searchsorted(bounds, rows, side="right") - 1
        coming: dict[int, Iterator[Any]] = {}
        for number in distinct(owners).tolist():
            local = Selection(rows[owners == number] - bounds[number])
            coming[number] = parts[number].outcomes(local, 0, len(local))
        follow(told, end)
        for number in owners.tolist():
            made = next(coming[number])
            if type(made) is Unreadable:
                made = Unreadable(made.row + starts[number], made.error)
            yield made
            del made


@dataclass(frozen=True, slots=True)
class Plain:
    """A part that knows nothing of records that cannot be read.

    Attributes:
        several: reads rows together.
        one: reads a row.
    """

    several: Callable[[Rows], Sequence[Any]] | None
    one: Callable[[int], Any]

    def outcomes(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """As that of others: read together, and one by one where one fails."""
        for first in range(start, stop, _TOGETHER):
            yield from self._some(order.indices(first, min(first + _TOGETHER, stop)))

    def _some(self, rows: Rows) -> Sequence[Any]:
        if self.several is not None:
            try:
                return self.several(rows)
            except Exception:
                if len(rows) > 1:  # the halves that are well are read together
                    half = len(rows) // 2
                    return [*self._some(rows[:half]), *self._some(rows[half:])]
        return [self._outcome(row) for row in rows.tolist()]

    def _outcome(self, row: int) -> Any:
        try:
            return self.one(row)
        except Exception as error:
            return Unreadable(row, error)
