"""Stages, one after the other, in one process.

Responsible for: `compose`, and the `Cursor` that knows how far the input was read.

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
from splitpipe.pipeline.stage import Dropped, Stage
from splitpipe.runtime.failure import failing_stage

__all__ = ["Chain", "Cursor"]


class Cursor:
    """How far the input of a chain was read: `position` items of `epoch`, from `start` on."""

    __slots__ = ("epoch", "position")

    def __init__(self, epoch: int = 0, position: int = 0) -> None:
        self.epoch = epoch
        self.position = position

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
        items: the input.
        cursor: counts the input.
    """

    def __init__(self, stages: Sequence[Stage], items: Iterator[Any], cursor: Cursor) -> None:
        self._stages = stages
        self.cursor = cursor
        self.dropped = Dropped()
        self._layers: list[Iterator[Any]] = [items]
        current = cursor.count(items)
        self._layers.append(current)
        for stage in stages:
            current = stage.operation.apply(current, self.dropped)
            self._layers.append(current)
        self.items = current

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
        position = max(0, self.cursor.position - 1)
        stage = failing_stage(error, self._stages)
        if stage is None and isinstance(error, NotPicklable) and self._stages:
            stage = self._stages[-1].name
        if stage is None:  # it came out of the source, at the item that was not counted any more
            stage, position = "source", self.cursor.position
        notes = [f"in stage {stage!r} ({worker}), epoch {self.cursor.epoch}, input item {position}"]
        if isinstance(source, SequenceSource) and position < len(source):
            notes.append(source.describe(position, self.cursor.epoch))
        return tuple(notes)


def source_items(source: Source, epoch: int, start: int, stop: int | None) -> Iterator[Any]:
    """Yield the items of ``start:stop`` of an epoch; a factory gives all it has."""
    if isinstance(source, FactorySource):
        items = source.open()
        try:
            yield from items
        finally:
            close = getattr(items, "close", None)
            if close is not None and hasattr(items, "gi_frame"):
                close()
    else:
        assert stop is not None
        yield from source.items(source.order(epoch), start, stop)
