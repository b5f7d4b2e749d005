"""`shuffle`: items in random order, within a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.checks import settle, whole
from splitpipe.pipeline.stages.mixing import MEASURES, Neighbours

__all__ = ["Shuffle"]

_BLOCK = 1024
"""Random numbers that are drawn at once."""


@dataclass(frozen=True)
class Shuffle(Operation):
    """Every item once, in an order that depends on the seed, the stage's name and the epoch alone.

    A buffer of `buffer` items is filled; from then on a random one of them leaves, and the next
    item takes its place. Where the buffer holds the whole epoch every order is equally likely;
    where it does not, no item comes more than `buffer` - 1 places before its own. What it measures
    says how good that was: see `mixing`.

    A source with random access is shuffled better, and at no cost, by ``Pipeline(shuffle=)``.
    """

    buffer: int
    holds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, buffer=whole("buffer", self.buffer, least=1))

    @property
    def label(self) -> str:
        return f"shuffle({self.buffer})"

    @property
    def measures(self) -> tuple[str, ...]:
        return MEASURES

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        rng, size = context.rng(), self.buffer
        neighbours = Neighbours(context.measured)
        add = neighbours.add
        held: list[tuple[int, Any]] = []
        places: list[int] = []
        for numbered in enumerate(items):
            if len(held) < size:
                held.append(numbered)
                continue
            if not places:
                places = rng.integers(size, size=_BLOCK).tolist()
            place = places.pop()
            (number, item), held[place] = held[place], numbered
            neighbours.add(number)
            del numbered
            yield item
            del item
        for place in rng.permutation(len(held)).tolist():
            number, item = held[place]
            held[place] = (0, None)
            add(number)
            yield item
            del item
        neighbours.flush()
