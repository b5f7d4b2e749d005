"""Which records a stream gives in an epoch.

Responsible for: `Draws`, from the n-th sample of a stream in an epoch to a row of its source.

A stream that gives c samples of n records goes through all of them c // n times, each pass in an
order of its own, and then gives a *rest* of c % n more. Rests of consecutive epochs are consecutive
stretches of one more order: no record is in two of them until fewer are left than a rest has; then
they begin anew, in another order. So every record comes c // n times in an epoch or once more, and
in the epochs of one such round never more than once more.

Rules:
- a stretch of a binwise order lies in few bins: a part of a large remote dataset costs a part of
  its bytes;
- a stream that is not shuffled gives its records in their order; its rest goes on, epoch for epoch,
  where the one before ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.order import Order, Rows, make_order
from splitpipe.permutation import derive_key

__all__ = ["Draws"]

_PASS: Final = 0x50415353
_REST: Final = 0x52455354
"""What the keys of a stream's orders are for."""

_ORDERS: Final = 2
"""Orders that are kept: reading goes from one pass to the next."""


class Draws(Order):
    """The samples of a stream in an epoch; no bijection: sample -> row.

    Args:
        source: what is drawn from.
        count: samples in an epoch.
        shuffle: see `splitpipe.order.make_order`.
        window: see there.
        seed: of the stream.
        epoch: which.

    Example:
        >>> list(Draws(range(4), 6, shuffle=None, window=1, seed=0, epoch=0))
        [0, 1, 2, 3, 0, 1]
        >>> list(Draws(range(4), 6, shuffle=None, window=1, seed=0, epoch=1))
        [0, 1, 2, 3, 2, 3]
    """

    __slots__ = ("_count", "_given", "_passes", "_pieces", "_size")

    def __init__(
        self, source: Any, count: int, *, shuffle: str | None, window: int, seed: int, epoch: int
    ) -> None:
        super().__init__()
        self._given = (source, count, shuffle, window, seed, epoch)
        self._count = count
        self._size = len(source)
        self._passes, rest = divmod(count, self._size) if count else (0, 0)

        def piece(number: int) -> tuple[Order, int]:
            """Return the order of a pass, or of the rest, and where in it that begins."""
            if number < self._passes:
                key, made, first = _PASS, epoch * self._passes + number, 0
            else:
                key, (made, part) = _REST, divmod(epoch, self._size // rest)
                first = part * rest
            keyed = derive_key(seed, key)
            return make_order(source, shuffle, seed=keyed, epoch=made, window=window), first

        self._pieces = lru_cache(_ORDERS)(piece)

    def __len__(self) -> int:
        return self._count

    def at(self, positions: Rows) -> Rows:
        numbers = positions // max(1, self._size)
        made = np.empty(len(positions), np.int64)
        for number in distinct(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            order, first = self._pieces(number)
            made[mine] = order.at(positions[mine] + (first - number * self._size))
        return made

    def _cut(self, start: int, stop: int) -> Iterator[Rows]:
        while start < stop:
            number, place = divmod(start, self._size)
            taken = min(stop - start, self._size - place)
            order, first = self._pieces(number)
            yield order._between(first + place, first + place + taken)
            start += taken

    def _between(self, start: int, stop: int) -> Rows:
        parts = list(self._cut(start, stop))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _row(self, position: int) -> int:
        number, place = divmod(position, self._size)
        order, first = self._pieces(number)
        return order[first + place]

    def __reduce__(self) -> Any:
        return _draws, self._given

    def __repr__(self) -> str:
        return f"Draws({self._count} of {self._size})"


def _draws(
    source: Any, count: int, shuffle: str | None, window: int, seed: int, epoch: int
) -> Draws:
    return Draws(source, count, shuffle=shuffle, window=window, seed=seed, epoch=epoch)
