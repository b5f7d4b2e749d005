"""`filter`: the items for which a function says yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, name_of
from splitpipe.pipeline.stages.random import wants_rng

__all__ = ["Filter"]


@dataclass(frozen=True)
class Filter(Operation):
    """Items for which the function says yes; the others are counted as dropped."""

    function: Callable[..., Any]
    per_item: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = True

    @cached_property
    def random(self) -> bool:
        return wants_rng(self.function)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        function, random = self.function, self.random
        for item in items:
            if function(item, rng=context.item_rng()) if random else function(item):
                yield item
            else:
                context.dropped += 1
            del item
