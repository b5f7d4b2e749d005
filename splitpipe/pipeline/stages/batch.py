"""`batch`: several items in, one out, stacked straight into the place where its reader reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.collate import Rows, Stack

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch(Operation):
    """Several items in, one out: stacked straight into the place where the consumer reads them."""

    size: int
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None

    @property
    def ratio(self) -> int | None:
        return self.size

    @property
    def label(self) -> str:
        return f"batch({self.size})"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        size, finish = self.size, self.collate
        while True:
            stack = Stack(size) if finish is None else Rows(finish)
            for item in islice(items, size):
                stack.add(item)
                del item
            count = stack.count
            if count == 0:
                return
            if count < size and self.drop_last:
                context.dropped += count
                return
            yield stack.finish()
            if count < size:
                return
