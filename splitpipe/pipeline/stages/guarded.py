"""A stage whose items may fail without ending the run.

Responsible for: `Guarded`, which does what another operation does, and what a policy says where
that raises.

Rules:
- only what the stage itself raises is its policy's concern, never what came to it from its input;
- an item is left out whole: of a stage that makes several items of one, none goes on before all of
  them are made;
- an item that is tried again is the same: the same object, place and random numbers;
- counts behind a stage that may leave items out are not known beforehand (`ratio`), so that
  whatever needs them is done where the stream is in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.failed import Counts
from splitpipe.pipeline.stages.filter import Filter
from splitpipe.pipeline.stages.guard import Guard
from splitpipe.pipeline.stages.map import Map
from splitpipe.pipeline.stages.policy import Policy
from splitpipe.pipeline.stages.reading import Reading

__all__ = ["Guarded"]

_ONE_AT_MOST = (Map, Filter, Reading)
"""Operations that give nothing before they fail: their items need not be gathered."""


@dataclass(frozen=True)
class Guarded(Operation):
    """An operation that treats each item by itself, and what becomes of items that fail in it.

    Args:
        operation: what is done.
        policy: what to do where it raises.
    """

    operation: Operation
    policy: Policy
    per_item: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.operation.per_item:
            raise GraphError(f"{self.operation.label!r} takes no on_error: it reads a whole stream")

    @property
    def ratio(self) -> int | None:
        return None if self.policy.leaves_out else self.operation.ratio

    @property
    def random(self) -> bool:
        return self.operation.random

    @property
    def places(self) -> bool:
        return True

    @property
    def measures(self) -> tuple[str, ...]:
        return self.operation.measures

    @property
    def label(self) -> str:
        return self.operation.label

    @property
    def kind(self) -> str:
        return self.operation.kind

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        if isinstance(self.operation, _ONE_AT_MOST):
            return self._streamed(items, context)
        return self._gathered(items, context)

    def _streamed(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        """Run the operation over the stream, and begin it anew behind an item that failed."""
        guard = Guard(self.policy, context)
        feed = _Feed(context.counts, guard if guard.watched else None)
        stream = feed.items(items)
        while True:
            try:
                yield from self.operation.run((stream,), context)
                break
            except Exception as error:
                if feed.broken:
                    raise
                feed.again = guard.failed(error)
        guard.end()

    def _gathered(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        """Run the operation over each item by itself."""
        guard = Guard(self.policy, context)
        counts, place = context.counts, context.place
        for item in items:
            counts.treated += 1
            part = 0 if place is None else place.part
            outputs: deque[tuple[int, Any]] | None = None
            again = guard.begin()
            while again:
                try:
                    outputs = self._outputs(item, context)
                    again = False
                except Exception as error:
                    if place is not None:
                        place.part = part
                    again = guard.failed(error)
            guard.end_item()
            del item
            while outputs:
                number, output = outputs.popleft()
                if place is not None:
                    place.part = number
                yield output
                del output
        guard.end()

    def _outputs(self, item: Any, context: Context) -> deque[tuple[int, Any]]:
        """Return all that becomes of one item, each with which part of it that is."""
        made: deque[tuple[int, Any]] = deque()
        for output in context.ledger.keep(self.operation.run((iter((item,)),), context)):
            made.append((0 if context.place is None else context.place.part, output))
            del output
        return made


class _Feed:
    """The items of a stage, one of them once more where that is wanted.

    Args:
        counts: of the stage.
        guard: is told of each, and says whether it is to be treated; None: nobody asks.
    """

    __slots__ = ("_counts", "_guard", "again", "broken")

    def __init__(self, counts: Counts, guard: Guard | None) -> None:
        self._counts = counts
        self._guard = guard
        self.again = False
        """Whether the item that was given last is to be given again."""
        self.broken = False
        """Whether the input itself failed."""

    def items(self, items: Iterator[Any]) -> Iterator[Any]:
        counts, guard = self._counts, self._guard
        try:
            for item in items:
                counts.treated += 1
                if guard is not None and not guard.begin():
                    del item
                    continue
                yield item
                while self.again:
                    self.again = False
                    yield item
                del item
                if guard is not None:
                    guard.end_item()
        except BaseException:
            self.broken = True
            raise
