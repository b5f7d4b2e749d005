"""`through` and `stage`: a free generator over whole streams, ordinary or async."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from splitpipe.errors import GraphError, ResumeError
from splitpipe.pipeline.stages.base import Context, Join, Progress, name_of
from splitpipe.pipeline.stages.checks import settle, whole
from splitpipe.pipeline.stages.random import generator, wants_rng
from splitpipe.pipeline.stages.told import Ticks

__all__ = ["Through"]


@dataclass(frozen=True)
class Through(Join):
    """A free generator over one or several whole streams.

    A parameter called ``rng`` gets a generator for the epoch, unless the user gave one.

    An async generator function gets async iterators. It runs in an event loop of the stage's own:
    tasks that it starts go on while it waits; what it leaves behind is cancelled and waited for
    when the stage ends.

    To go on in the middle of an epoch the whole stage is run again from its beginning, unless

    - what the function returns (or is) has ``state_dict()`` and ``load_state_dict(state)``, with
      states in values of JSON. `load_state_dict` is called before the first item is asked for; the
      inputs then go on behind what had been taken of them when the state was;
    - or `restart_every` is given: the function is called anew for that many items of its one input,
      and takes nothing from one call to the next.
    """

    function: Callable[..., Iterable[Any] | AsyncIterable[Any]]
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    restart_every: int | None = None

    def __post_init__(self) -> None:
        if self.restart_every is not None:
            settle(self, restart_every=whole("restart_every", self.restart_every, least=1))
            if _is_async(self.function):
                raise GraphError("restart_every= is for generators that are not asynchronous")

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
        elif self.restart_every is not None:
            yield from self._restarting(inputs[0], self.restart_every, keywords, context)
        elif _is_generator(function):
            yield from function(*inputs, *self.arguments, **keywords)
        else:
            yield from self._telling(inputs, keywords, context)

    def _telling(
        self, inputs: Sequence[Iterator[Any]], keywords: dict[str, Any], context: Context
    ) -> Iterator[Any]:
        """Yield what the function gives, which may be able to tell its state."""
        function: Any = self.function
        counts = [Ticks(context.begun(number)) for number in range(len(inputs))]
        counted = [one.over(items) for one, items in zip(counts, inputs, strict=True)]
        made: Iterable[Any] = function(*counted, *self.arguments, **keywords)
        teller: Any = next((one for one in (made, function) if _tells(one)), None)
        state = context.start.state
        if state is not None:
            if teller is None:
                raise ResumeError(
                    f"stage {context.stage!r} has told its state, and has no load_state_dict any "
                    "more; give it one, or begin the epoch anew"
                )
            teller.load_state_dict(state["user"])
        over = state is not None and state.get("over", False)

        def tell() -> Progress:
            # A copy: it may go on with the very object that it tells.
            told = {"user": deepcopy(teller.state_dict()), **({"over": True} if over else {})}
            return Progress(tuple(one.count for one in counts), told)

        if teller is not None:
            context.tell = tell
        if not over:
            yield from made
            over = True  # who reads it may still have something to give

    def _restarting(
        self, items: Iterator[Any], every: int, keywords: dict[str, Any], context: Context
    ) -> Iterator[Any]:
        """Yield what the function gives for `every` items at a time."""
        first, random = context.begun(), keywords.get("rng") is not self.keywords.get("rng")
        taken = Ticks(first)
        items = taken.over(items)
        while True:
            found = list(islice(items, 1))
            if not found and first:
                return
            given, number = Ticks(), first // every
            context.tell = partial(_again, first, given, taken)
            if random:
                keywords["rng"] = generator(context.seed, context.stage, context.epoch, number)
            block = _block(found, items, every)
            made: Any = self.function(block, *self.arguments, **keywords)
            yield from given.over(made)
            for item in block:  # what it did not want
                del item
            first += every


def _again(first: int, given: Ticks, taken: Ticks) -> Progress:
    return Progress((first,), None, given.count, (taken.count,))


def _block(found: list[Any], items: Iterator[Any], size: int) -> Iterator[Any]:
    """Yield the one item that was found, if any, and those behind it, `size` in all."""
    if found:
        yield found.pop()
        yield from islice(items, size - 1)


def _tells(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _is_generator(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.isgeneratorfunction(function)


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance whose __call__ is one
    )
