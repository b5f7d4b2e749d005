"""`window`: overlapping batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.batch import check_rows, new_rows
from splitpipe.pipeline.stages.checks import settle, whole
from splitpipe.pipeline.stages.padding import Ragged, ragged_rule
from splitpipe.pipeline.stages.told import Ticks

__all__ = ["Window"]


@dataclass(frozen=True)
class Window(Operation):
    """Batches of `size` items, each beginning `step` items after the one before.

    With a step of `size` that is `batch`; with a smaller one windows overlap; with a larger one the
    items between them are left out and counted.

    Args:
        size: items a window.
        step: items from the beginning of one window to that of the next.
        drop_last: where the last full window does not reach the last item, the items behind it are
            left out and counted; else they come in a last, shorter window, which begins at its
            regular place.
        collate: as for `Batch`; ``list`` gives lists of items.
        ragged: as for `Batch`.
    """

    size: int
    step: int = 1
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    ragged: Ragged = "list"
    holds: ClassVar[bool] = True
    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(
            self,
            size=whole("size", self.size, least=1),
            step=whole("step", self.step, least=1),
        )
        check_rows(self.collate, self.ragged)

    @property
    def label(self) -> str:
        return f"window({self.size}, {self.step})"

    def needs(self, output: int) -> int:
        return output * self.step

    def least(self, output: int) -> int:
        return (output - 1) * self.step + 1 if output else 0

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        size, step, pad = self.size, self.step, ragged_rule(self.ragged)
        held: deque[Any] = deque()
        first, read = context.begun(), Ticks(context.begun())
        context.tell = lambda: Progress((first,), taken=(read.count,))
        items = read.over(items)
        # How many of them were in no window yet; where it begins, windows before had some of them.
        fresh = -max(0, size - step) if context.start.first else 0
        while True:
            for item in islice(items, size - len(held)):
                held.append(item)
                fresh += 1
                del item
            if len(held) < size and (self.drop_last or fresh <= 0):
                context.dropped += max(0, fresh)
                return
            rows = new_rows(size, self.collate, pad)
            for item in held:
                rows.add(item)
            item, fresh, count = None, 0, len(held)
            for _ in range(min(step, count)):
                held.popleft()
            yield rows.finish()
            if count < size:
                return
            for item in islice(items, step - count if step > count else 0):
                context.dropped += 1
                del item
