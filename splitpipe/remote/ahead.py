"""Fetching what comes next in an order.

Responsible for: `Ahead`, which knows up to which position of an order blocks were asked for;
`Behind`, which knows what was read for the last time.

Rules:
- it never waits for data, and a failure is not its business: whoever reads meets it again;
- every process that reads an order asks for what all of them will read: the cache sees to it that
  a block comes once;
- an order is followed in pieces of some size, so that requests are large: a piece is asked for
  when there is room for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from splitpipe.errors import SplitpipeError
from splitpipe.storage.base import Order, Rows

if TYPE_CHECKING:
    from splitpipe.cache import Prefetch

__all__ = ["Ahead", "Behind"]

# An order is asked for in so many pieces.
_PIECES = 4


class Ahead:
    """What was asked for ahead of reading.

    Args:
        rows: how many records ahead; 0: nothing is asked for.
    """

    def __init__(self, rows: int) -> None:
        self._upto: int | None = None
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
        if self._upto is None or position < self._upto - self._rows - 1:
            # Its beginning, another round of the same order, or a jump.
            self._upto = position
        for begin, stop in self._pieces(order, max(self._upto, position), position + self._rows):
            if not self._ask(order, begin, stop, prefetch):
                break
            self._upto = stop

    def _pieces(self, order: Order, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """What is asked for together, where it begins before ``end``."""
        size = len(order)
        end = min(end, size)
        groups = getattr(order, "bin_groups", None)
        if groups is not None:
            # Whole groups of bins, so that what is asked for is not scattered over them.
            for group in groups(begin, size):
                if group.start >= end or group.stop - group.start > self._rows:
                    break
                yield group.start, group.stop
                begin = group.stop
        piece = max(1, self._rows // _PIECES)
        while begin < end and (end - begin >= piece or end == size):
            stop = min(end, begin + piece)
            yield begin, stop
            begin = stop

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


class Behind:
    """Which bins of a binwise order were read for the last time in the epoch."""

    def __init__(self) -> None:
        self._upto: int | None = None

    def bins(self, order: Order, position: int) -> list[int]:
        """Numbers of bins that no position from ``position`` on leads to, each told once.

        The group before is left out: others may still read it.
        """
        groups = getattr(order, "bin_groups", None)
        if groups is None:
            return []
        if self._upto is None:
            self._upto = position
        ended: list[Any] = []
        for group in groups(min(self._upto, position), len(order)):
            if group.stop > position:
                break
            ended.append(group)
        told = ended[:-1]
        if told:
            self._upto = told[-1].stop
        return [number for group in told for number, _ in group.members]
