"""`map`: one item in, one item out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, name_of
from splitpipe.pipeline.stages.random import wants_rng

__all__ = ["Map"]


@dataclass(frozen=True)
class Map(Operation):
    """One item in, one item out; a function with a parameter ``rng`` gets the item's generator."""

    function: Callable[..., Any]
    per_item: ClassVar[bool] = True

    @property
    def ratio(self) -> int | None:
        return 1

    @cached_property
    def random(self) -> bool:
        return wants_rng(self.function)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        function = self.function
        if self.random:
            for item in items:
                yield function(item, rng=context.item_rng())
                del item
            return
        for item in items:
            yield function(item)
            del item  # an item that lies in a slot must not keep it while the next one is made
