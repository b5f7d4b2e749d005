"""What every operation is and may ask for.

Responsible for: `Operation`, and the `Context` in which one runs.

Rules:
- an operation is lazy: it takes from its inputs only what it needs for the next output, and keeps
  nothing it need not keep; an item that it holds no longer is let go of before the next one is
  asked for (it may lie in a slot of shared memory);
- it is deterministic: what comes out depends on what goes in, on its own values, and on the
  generators of its context, never on time, on a worker's number or on a process-wide generator;
- it says what the planner must know: whether each item stands for itself (`per_item`), whether
  counts are known beforehand (`ratio`), whether it asks for an item's generator (`random`);
- a StopIteration that user code lets slip is an error, never an end (PEP 479 sees to that: every
  `apply` is a generator);
- no item is dropped unless the user said so: what is left out is counted in ``context.dropped``,
  and what else is worth knowing in the operation's `measures`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from splitpipe.pipeline.stages.random import generator

__all__ = ["Context", "Join", "Operation", "Place", "name_of"]


class Place:
    """Which item is being treated: the number that its nearest numbering ancestor gave it.

    Items are numbered, from 0 in every epoch, by sources and by every operation that is not
    `per_item`. What per-item stages make of one keeps its number.
    """

    __slots__ = ("number",)

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def mark(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield `items` and number them, beginning with the current number."""
        for self.number, item in enumerate(items, self.number):  # noqa: B020 - it counts here
            yield item
            del item


class Context:
    """What a running stage is told, and what it tells: one a stage and epoch.

    Args:
        stage: its name.
        seed: of the pipeline.
        epoch: which pass over the source.
        place: of the item that is being treated; None where no stage asked for it.
        measures: the operation's.

    Attributes:
        dropped: items that were left out on purpose.
        measured: what was counted beside, by name.
    """

    __slots__ = ("_again", "_last", "dropped", "epoch", "measured", "place", "seed", "stage")

    def __init__(
        self,
        stage: str = "stage",
        *,
        seed: int = 0,
        epoch: int = 0,
        place: Place | None = None,
        measures: Sequence[str] = (),
    ) -> None:
        self.stage = stage
        self.seed = seed
        self.epoch = epoch
        self.place = place
        self.dropped = 0
        self.measured: dict[str, float] = dict.fromkeys(measures, 0.0)
        self._last = -1
        self._again = 0

    def rng(self) -> np.random.Generator:
        """Return the generator of this stage for the whole epoch; a new one, at its beginning."""
        return generator(self.seed, self.stage, self.epoch)

    def item_rng(self) -> np.random.Generator:
        """Return the generator for the item that is being treated; once an item."""
        place = self.place
        assert place is not None, "a stage that wants a generator has to say so (`random`)"
        self._again = self._again + 1 if place.number == self._last else 0
        self._last = place.number
        return generator(self.seed, self.stage, self.epoch, place.number, self._again)


class Operation(ABC):
    """What a stage with one input does."""

    per_item: ClassVar[bool] = False
    """Each input item is treated by itself: several workers may share the stage."""

    measures: ClassVar[tuple[str, ...]] = ()
    """Names of what it counts in ``context.measured``; sums over workers and epochs."""

    @property
    def ratio(self) -> int | None:
        """How many input items make one output item; None when only running it tells."""
        return None

    @property
    def random(self) -> bool:
        """Whether it calls ``context.item_rng``."""
        return False

    @property
    @abstractmethod
    def label(self) -> str:
        """The name of the stage unless the user gives one."""

    def run(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        """Return the outputs for `inputs`: what whoever runs a graph calls."""
        (items,) = inputs
        return self.apply(items, context)

    @abstractmethod
    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        """Yield the outputs for `items`."""


class Join(Operation):
    """What a stage with several inputs does: `apply_all` instead of `apply`."""

    def run(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        return self.apply_all(inputs, context)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        return self.apply_all([items], context)

    @abstractmethod
    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        """Yield the outputs for `inputs`."""

    def length(self, lengths: Sequence[int]) -> int | None:
        """Return how many items come out where the inputs have `lengths`; None: only running
        tells.
        """
        return None


def name_of(function: Callable[..., Any]) -> str:
    """Return what a stage that runs `function` is called."""
    return getattr(function, "__name__", None) or type(function).__name__
