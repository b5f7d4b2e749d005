"""`repeat`: the whole stream several times in one epoch.

Responsible for: `Repeat`, and for what an operation needs whose inputs are begun anew.

Rules:
- every pass is a pass like any other: an order shuffles it anew, a generator begins anew, random
  stages draw other numbers;
- what is begun anew runs in the same process: what lies before it cannot be asked for another pass
  over a channel. Stages that treat each item by itself are the exception, since repeating what they
  read is the same: the source repeats for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["Repeat"]


@dataclass(frozen=True)
class Repeat(Operation):
    """Every item of the input `count` times, pass after pass; None: for ever.

    Its input has a method ``again()``, which returns the items of the next pass.
    """

    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            settle(self, count=whole("count", self.count, least=1))

    @property
    def label(self) -> str:
        return "repeat" if self.count is None else f"repeat({self.count})"

    @property
    def reopens(self) -> bool:
        return True

    def run(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        (items,) = inputs
        return self.apply(items, context)

    def apply(self, items: Any, context: Context) -> Iterator[Any]:
        done, current = 0, iter(items)
        while True:
            empty = True
            for item in current:
                empty = False
                yield item
                del item
            done += 1
            if done == self.count:
                return
            if empty and self.count is None:
                return  # nothing, for ever, is nothing
            current = items.again()
