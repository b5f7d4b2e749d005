"""How far an input of a chain was read: for notes on errors, and for the positions of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Cursor"]


class Cursor:
    """How far an input of a chain was read: up to `position`.

    Args:
        position: where it begins.
        counted: whether `count` has to count items one by one. It need not where every stage gives
            one item for one (the caller counts what comes out), nor where the input knows it.
    """

    __slots__ = ("counted", "position")

    def __init__(self, position: int = 0, *, counted: bool = True) -> None:
        self.position = position
        self.counted = counted

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield `items` and count them."""
        cursor = self
        for cursor.position, item in enumerate(items, self.position + 1):
            yield item
            del item

    @property
    def treated(self) -> int:
        """Number of the item that was taken last."""
        return max(0, self.position - 1) if self.counted else self.position
