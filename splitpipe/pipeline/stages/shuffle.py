"""`shuffle`: items in random order, within a buffer.

To go on in the middle of an epoch it reads again from the oldest item that it held, and keeps those
that it held. Their numbers and the state of its generator are what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.checks import settle, whole
from splitpipe.pipeline.stages.mixing import MEASURES, Neighbours
from splitpipe.pipeline.stages.told import Draws, numbers_of, numbers_text

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
        size = self.buffer
        neighbours = Neighbours(context.measured)
        add = neighbours.add
        buffer = _Buffer(size, context.rng())
        taken = buffer.begin(items, context)
        context.tell = buffer.tell
        held, places = buffer.held, buffer.draws.left
        for numbered in enumerate(items, taken):
            if len(held) < size:
                held.append(numbered)
                continue
            if not places:
                places = buffer.draws.more()
            place = places.pop()
            (number, item), held[place] = held[place], numbered
            add(number)
            del numbered
            yield item
            del item
        for place in buffer.last():
            number, item = held[place]
            held[place] = (number, None)
            add(number)
            yield item
            del item
        neighbours.flush()


class _Buffer:
    """What is held, and what was drawn.

    Args:
        size: items that are held.
        rng: says which of them leaves.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.held: list[tuple[int, Any]] = []
        self.draws = Draws(rng, lambda rng: rng.integers(size, size=_BLOCK).tolist())
        self._rng = rng
        self._order: list[int] | None = None  # in which the last ones leave
        self._out = 0  # how many of those have left
        self._first = 0  # the number of the first item that is read

    def begin(self, items: Iterator[Any], context: Context) -> int:
        """Get hold of what was held where an epoch is resumed; return the number of the next
        item.
        """
        state, first = context.start.state, context.begun()
        self._first = first
        if state is None:
            return first
        numbers = numbers_of(state["held"])
        self._out = state["out"]
        self.draws.restore(state)
        self.held += ((number, None) for number in numbers)
        places = {number: place for place, number in enumerate(numbers)}
        taken: int = state["taken"]
        count = first
        for number, item in enumerate(islice(items, taken - first), first):
            place, count = places.get(number), number + 1
            if place is not None:
                self.held[place] = (number, item)
            del item
        context.check_reread(count, taken)
        return taken

    def last(self) -> Iterator[int]:
        """Yield the places of what is left, in the order in which it leaves."""
        self.draws.note()
        self._order = self._rng.permutation(len(self.held)).tolist()
        for self._out, place in enumerate(self._order[self._out :], self._out + 1):  # noqa: B020
            yield place

    def tell(self) -> Progress:
        """See `Context.tell`."""
        numbers = [number for number, _ in self.held]
        order = self._order
        left = numbers if order is None else [numbers[place] for place in order[self._out :]]
        taken = 1 + max(numbers, default=self._first - 1)
        out = 0 if order is None else self._out
        told = {"held": numbers_text(numbers), "taken": taken, "out": out, **self.draws.tell()}
        return Progress((min(left, default=taken),), told, taken=(taken,))
