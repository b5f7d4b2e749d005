"""Passes over an input of a stage that begins it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = ["Again", "Pass"]


class _Chain(Protocol):
    def begin(
        self, number: int, epoch: int, owner: int, reader: str
    ) -> tuple[Iterator[Any], int]: ...
    def end(self, owner: int) -> None: ...


class Again(Iterator[Any]):
    """An input that can be begun anew; see `Repeat`."""

    def __init__(self, chain: _Chain, number: int, epoch: int, owner: int, reader: str) -> None:
        self._begin: Callable[[int], tuple[Iterator[Any], int]] = lambda label: chain.begin(
            number, label, owner, reader
        )
        self._end = chain.end
        self._epoch = epoch
        self._done = 0
        self._items, self._owner = self._begin(epoch)

    def __next__(self) -> Any:
        return next(self._items)

    def again(self) -> Iterator[Any]:
        """Return the items of the next pass, an epoch of its own to everything random in it."""
        self._end(self._owner)
        self._done += 1
        self._items, self._owner = self._begin(self._epoch + (self._done << 32))
        return self._items


class Pass:
    """Closes what one pass was made of, with what it was made for."""

    leaves = True

    def __init__(self, chain: _Chain, owner: int) -> None:
        self._chain, self._owner = chain, owner

    def close(self) -> None:
        self._chain.end(self._owner)
