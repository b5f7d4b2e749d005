"""Stages, one after the other, in one process.

Responsible for: the `Chain`, and the `Cursor` that knows how far the input was read.

Rules:
- a chain is lazy: an item is made when it is asked for, so that the cursor says at any time which
  input items went into what came out so far;
- closing a chain closes the user's generators, innermost last, now and not when the garbage
  collector comes by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from splitpipe.errors import NotPicklable
from splitpipe.pipeline.source import FactorySource, SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Context, Map
from splitpipe.runtime.failure import failing_stage

__all__ = ["Chain", "Cursor", "one_to_one", "open_source"]


class Cursor:
    """How far the input of a chain was read: up to `position` in `epoch`.

    Args:
        epoch: of the input.
        position: where it begins.
        counted: whether `count` has to count items one by one. It need not where every stage gives
            one item for one (the caller counts what comes out), nor where the input knows it.
    """

    __slots__ = ("counted", "epoch", "position")

    def __init__(self, epoch: int = 0, position: int = 0, *, counted: bool = True) -> None:
        self.epoch = epoch
        self.position = position
        self.counted = counted

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield `items` and count them."""
        cursor = self
        for cursor.position, item in enumerate(items, self.position + 1):
            yield item
            del item


class Chain:
    """The stages of one task over one run of items.

    Args:
        stages: what to do, in order.
        cursor: counts the input.
    """

    def __init__(self, stages: Sequence[Stage], cursor: Cursor) -> None:
        self._stages = stages
        self._layers: list[Iterator[Any]] = []
        self._source: Iterator[Any] | None = None
        self.cursor = cursor
        self._contexts: list[Context] = []

    def start(self, items: Iterator[Any]) -> Iterator[Any]:
        """Return what the stages make of `items`; once."""
        self._layers.append(items)
        self._source = current = items
        if self.cursor.counted:
            current = self.cursor.count(items)
            self._layers.append(current)
        for stage in self._stages:
            context = Context(stage.name, epoch=self.cursor.epoch)
            self._contexts.append(context)
            current = stage.operation.run((current,), context)
            self._layers.append(current)
        return current

    @property
    def dropped(self) -> int:
        """How many items the stages left out on purpose."""
        return sum(context.dropped for context in self._contexts)

    def close(self) -> None:
        """Close every generator of the chain, the last stage's first.

        Raises:
            Exception: what the clean-up code of a user's generator raised, after all were closed.
        """
        failure: BaseException | None = None
        for layer in reversed(self._layers):
            close = getattr(layer, "close", None)
            if close is None or not hasattr(layer, "gi_frame"):
                continue
            try:
                close()
            except BaseException as error:
                failure = failure or error
        self._layers.clear()
        if failure is not None:
            raise failure

    def where(self, error: BaseException, source: Source | None, worker: str) -> tuple[str, ...]:
        """Return notes that say in which stage and at which item `error` was raised."""
        position = self.cursor.position
        stage = failing_stage(error, self._stages, self._source)
        if stage is None and isinstance(error, NotPicklable) and self._stages:
            stage = self._stages[-1].name
        if stage is None:
            stage = "source"  # it failed at an item that nobody could count any more
        elif self.cursor.counted:
            position = max(0, position - 1)
        notes = [f"in stage {stage!r} ({worker}), epoch {self.cursor.epoch}, input item {position}"]
        if isinstance(source, SequenceSource) and position < len(source):
            notes.append(source.describe(position, self.cursor.epoch))
        return tuple(notes)


def one_to_one(stages: Sequence[Stage]) -> bool:
    """Whether every stage gives one item for one, so that counting outputs counts inputs."""
    return all(isinstance(stage.operation, Map) for stage in stages)


def open_source(source: Source, epoch: int, positions: int | None) -> Iterator[Any]:
    """Return the items of an epoch: of `positions` of it, or all that a factory has."""
    if isinstance(source, FactorySource):
        return source.open()
    assert positions is not None
    return source.items(source.order(epoch), 0, positions)
