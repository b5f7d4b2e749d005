"""Passes over an input of a stage that begins it anew.

Responsible for: `Again`, such an input; `Pass`, which closes what one pass was made of; and how
passes are called (`widths`).

Rules:
- every pass is called differently, by which everything random in it differs: pass n of an input
  that is read in the epoch e is ``e + (n << 32)``. What is begun anew inside of such a pass adds
  its own number behind that one's, in so many bits as there are for each level;
- how many bits that are follows from the graph alone: what is begun anew runs in one process with
  all that it reads, however the graph is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from splitpipe.errors import GraphError
from splitpipe.pipeline.graph import Body

__all__ = ["Again", "Pass", "widths"]

_BITS = 32
"""Of the number of a pass, all levels together."""


def widths(body: Body) -> dict[int, int]:
    """Return how many bits the number of a pass has, for every part that begins its inputs anew."""
    levels: list[int] = []
    again = [p.stage is not None and p.stage.operation.reopens for p in body.parts]
    for part, reopens in zip(body.parts, again, strict=True):
        levels.append(max((levels[one] for one in part.inputs), default=0) + reopens)
    most = [level if reopens else 0 for level, reopens in zip(levels, again, strict=True)]
    for number in reversed(range(len(body.parts))):
        for one in body.parts[number].inputs:
            most[one] = max(most[one], most[number])
    return {number: _BITS // most[number] for number, reopens in enumerate(again) if reopens}


class _Chain(Protocol):
    def begin(
        self, number: int, epoch: int, owner: int, reader: str
    ) -> tuple[Iterator[Any], int]: ...
    def end(self, owner: int) -> None: ...


class Again(Iterator[Any]):
    """An input that can be begun anew; see `Repeat`.

    Args:
        chain: makes it.
        number: of the part that it is.
        epoch: how the pass is called in which it is read.
        owner: for whom it is made.
        reader: who reads it, in words.
        width: bits of the number of a pass.
    """

    def __init__(
        self, chain: _Chain, number: int, epoch: int, owner: int, reader: str, width: int
    ) -> None:
        self._reader, self._width = reader, width
        self._begin: Callable[[int], tuple[Iterator[Any], int]] = lambda label: chain.begin(
            number, label, owner, reader
        )
        self._end = chain.end
        self._epoch = epoch
        self._done = 0
        self._items, self._owner = self._begin(self._called(0))

    def __next__(self) -> Any:
        return next(self._items)

    def again(self) -> Iterator[Any]:
        """Return the items of the next pass, an epoch of its own to everything random in it."""
        self._end(self._owner)
        self._done += 1
        self._items, self._owner = self._begin(self._called(self._done))
        return self._items

    def _called(self, number: int) -> int:
        """Return how pass `number` is called."""
        if number >> self._width:
            raise GraphError(
                f"{self._reader!r} begins its input anew for the {number}th time; where several "
                f"stages do so one behind the other, {(1 << self._width) - 1} times are the most"
            )
        outer, epoch = self._epoch >> 32, self._epoch & 0xFFFFFFFF
        return epoch + ((outer << self._width | number) << 32)


class Pass:
    """Closes what one pass was made of, with what it was made for."""

    leaves = True

    def __init__(self, chain: _Chain, owner: int) -> None:
        self._chain, self._owner = chain, owner

    def close(self) -> None:
        self._chain.end(self._owner)
