"""Operations driven by hand: lists in, a list out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from splitpipe.pipeline.stages.base import Context, Operation, Place

__all__ = ["Again", "Watched", "context_of", "drive"]


def context_of(operation: Operation, *, seed: int = 0, epoch: int = 0, **more: Any) -> Context:
    """A context as whoever runs a graph makes it."""
    return Context(
        "stage", seed=seed, epoch=epoch, place=Place(), measures=operation.measures, **more
    )


def drive(
    operation: Operation, *inputs: Iterable[Any], context: Context | None = None
) -> list[Any]:
    """What `operation` makes of `inputs`."""
    context = context or context_of(operation)
    assert context.place is not None
    streams = [iter(items) for items in inputs]
    if len(streams) == 1:
        streams = [context.place.mark(streams[0])]
    return list(operation.run(streams, context))


class Again:
    """An input that can be begun anew; it counts how often that was done."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = list(items)
        self._current = iter(self._items)
        self.passes = 1

    def __iter__(self) -> Again:
        return self

    def __next__(self) -> Any:
        return next(self._current)

    def again(self) -> Iterator[Any]:
        """The items once more."""
        self.passes += 1
        return iter(self._items)


class Watched:
    """An iterator that knows how many items were taken from it."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.taken = 0

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.taken += 1
        return item
