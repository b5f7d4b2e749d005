"""`take`: the first items of every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["Take"]


@dataclass(frozen=True)
class Take(Operation):
    """The first items of every epoch; those after them are never made."""

    count: int

    def __post_init__(self) -> None:
        settle(self, count=whole("count", self.count, least=0))

    @property
    def label(self) -> str:
        return f"take({self.count})"

    def needs(self, output: int) -> int:
        return output

    def least(self, output: int) -> int:
        return output

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        yield from islice(items, max(0, self.count - context.start.first))
