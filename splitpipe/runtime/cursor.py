"""How far an input of a chain was read: for notes on errors, and for the positions of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from splitpipe.pipeline.stages.told import Ticks

__all__ = ["Cursor"]


class Cursor:
    """How far an input of a chain was read: up to `position`.

    Args:
        position: where it begins.
        counted: whether `count` has to count items one by one. It need not where every stage gives
            one item for one (the caller counts what comes out), nor where the input knows it.
    """

    __slots__ = ("_before", "_ticks", "counted")

    def __init__(self, position: int = 0, *, counted: bool = True) -> None:
        self._before = position
        self._ticks: Ticks | None = None
        self.counted = counted

    @property
    def position(self) -> int:
        """The number of the item that comes next."""
        return self._before if self._ticks is None else self._ticks.count

    @position.setter
    def position(self, position: int) -> None:
        self._before, self._ticks = position, None

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield `items` and count them."""
        if self._ticks is None:
            self._ticks = Ticks(self._before)
        return self._ticks.over(items)

    @property
    def treated(self) -> int:
        """Number of the item that was taken last."""
        return max(0, self.position - 1) if self.counted else self.position
