"""Fetching what comes next in an order.

Responsible for: `Ahead`, which knows up to which position of an order blocks were asked for.

Rules:
- it never waits for data, and a failure is not its business: whoever reads meets it again;
- every process that reads an order asks for what all of them will read: the cache sees to it that
  a block comes once;
- an order is followed in pieces of some size, so that requests are large: a piece is asked for
  when there is room for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from splitpipe.errors import SplitpipeError
from splitpipe.storage.base import Order, Rows

if TYPE_CHECKING:
    from splitpipe.cache import Prefetch

__all__ = ["Ahead"]

# An order is asked for in so many pieces.
_PIECES = 4


class Ahead:
    """What was asked for ahead of reading.

    Args:
        rows: how many records ahead; 0: nothing is asked for.
    """

    def __init__(self, rows: int) -> None:
        self._order: Order | None = None
        self._upto = 0
        self._under_way: deque[Prefetch] = deque()
        self._rows = rows

    def go(self, order: Order, position: int, prefetch: Callable[[Rows], Prefetch | None]) -> None:
        """Ask for what follows a position of an order, as far as there is room.

        Args:
            order: what is read.
            position: of it.
            prefetch: asks for rows; ``None``, if there is nothing to ask for.
        """
        if not self._rows:
            return
        if order is not self._order and order != self._order:
            self._stop()
            self._order, self._upto = order, position
        elif not self._upto - self._rows - 1 <= position:
            # Another round of the same order, or a jump.
            self._upto = position
        begin = max(self._upto, position)
        end = min(len(order), position + self._rows)
        piece = max(1, self._rows // _PIECES)
        while begin < end and (end - begin >= piece or end == len(order)):
            stop = min(end, begin + piece)
            if not self._ask(order, begin, stop, prefetch):
                break
            begin = self._upto = stop

    def _ask(
        self,
        order: Order,
        start: int,
        stop: int,
        prefetch: Callable[[Rows], Prefetch | None],
    ) -> bool:
        while self._under_way and self._under_way[0].done:
            self._under_way.popleft()
        try:
            asked = prefetch(order.indices(start, stop))
        except SplitpipeError:
            return False
        if asked is not None:
            if not asked.nbytes:
                return False
            self._under_way.append(asked)
        return True

    def _stop(self) -> None:
        while self._under_way:
            with suppress(SplitpipeError):
                self._under_way.popleft().cancel()

    def close(self) -> None:
        """Ask for nothing more."""
        self._rows = 0
        self._stop()
