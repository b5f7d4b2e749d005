"""`flat_map`: one item in, any number out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, name_of
from splitpipe.pipeline.stages.random import wants_rng

__all__ = ["FlatMap"]


@dataclass(frozen=True)
class FlatMap(Operation):
    """One item in, any number out: the function is a generator or returns an iterable."""

    function: Callable[..., Iterable[Any]]
    per_item: ClassVar[bool] = True

    @cached_property
    def random(self) -> bool:
        return wants_rng(self.function)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        function, random = self.function, self.random
        for item in items:
            made = function(item, rng=context.item_rng()) if random else function(item)
            yield from context.divided(made)
            del item
