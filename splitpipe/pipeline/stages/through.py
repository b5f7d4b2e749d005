"""`through` and `stage`: a free generator over whole streams, ordinary or async."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join, name_of
from splitpipe.pipeline.stages.random import wants_rng

__all__ = ["Through"]


@dataclass(frozen=True)
class Through(Join):
    """A free generator over one or several whole streams.

    A parameter called ``rng`` gets a generator for the epoch, unless the user gave one.

    An async generator function gets async iterators. It runs in an event loop of the stage's own:
    tasks that it starts go on while it waits; what it leaves behind is cancelled and waited for
    when the stage ends.
    """

    function: Callable[..., Iterable[Any] | AsyncIterable[Any]]
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return name_of(self.function)

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        function: Any = self.function
        keywords = self.keywords
        if "rng" not in keywords and wants_rng(function):
            keywords = {**keywords, "rng": context.rng()}
        if _is_async(function):
            from splitpipe.pipeline.stages.asynchronous import stream  # asyncio takes 25 ms

            arguments = self.arguments

            def bound(*streams: Any, **given: Any) -> Any:
                return function(*streams, *arguments, **given)

            yield from stream(f"splitpipe-{context.stage}", bound, inputs, keywords)
        else:
            yield from function(*inputs, *self.arguments, **keywords)


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance whose __call__ is one
    )
