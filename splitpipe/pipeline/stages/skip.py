"""`skip`: everything but the first items of every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["Skip"]


@dataclass(frozen=True)
class Skip(Operation):
    """Everything but the first items of every epoch; those are made, let go of and counted."""

    count: int

    def __post_init__(self) -> None:
        settle(self, count=whole("count", self.count, least=0))

    @property
    def label(self) -> str:
        return f"skip({self.count})"

    def needs(self, output: int) -> int:
        return output + self.count if output else 0

    def least(self, output: int) -> int:
        return output + self.count if output else 0

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        for item in islice(items, max(0, self.count - context.begun())):
            context.dropped += 1
            del item
        yield from items
