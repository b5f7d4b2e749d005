"""`concat`: one input after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join, Progress
from splitpipe.pipeline.stages.told import Ticks

__all__ = ["Concat"]


@dataclass(frozen=True)
class Concat(Join):
    """All items of the first input, then those of the second, and so on."""

    @property
    def label(self) -> str:
        return "concat"

    def length(self, lengths: Sequence[int]) -> int | None:
        return sum(lengths)

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        counts = [Ticks(context.begun(number)) for number in range(len(inputs))]
        context.tell = lambda: Progress(tuple(one.count for one in counts))
        for items, one in zip(inputs, counts, strict=True):
            yield from one.over(items)
