"""Stages that treat each item by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self, Unpack

from splitpipe.pipeline.methods.base import Methods, StreamOptions, function_of
from splitpipe.pipeline.stage import StageOptions, Workers
from splitpipe.pipeline.stages import AsyncMap, Filter, FlatMap, Map, Unbatch

__all__ = ["ItemMethods"]


class ItemMethods(Methods):
    """Methods of a `Pipeline` whose stages may have several workers."""

    def map(
        self,
        function: Callable[[Any], Any],
        *,
        workers: Workers = None,
        executor: str | None = None,
        ordered: bool = True,
        capacity: int | None = None,
        name: str | None = None,
    ) -> Self:
        """One item in, one item out.

        Args:
            function: called with each item.
            workers: how many run this stage and the ones that ride with it; 0 is the consumer's
                own process, None lets the stage ride with its neighbour, ``"auto"`` begins with
                one and adds more while that pays, up to the CPUs and the memory there are.
            executor: what the workers are: ``"process"``, ``"thread"``, or ``"inline"`` for the
                consumer's own process; None: as for the whole run (see `Pipeline.loader`).
            ordered: False lets items overtake one another between workers.
            capacity: most units of work under way at a time; bounds memory, changes nothing else.
            name: how the stage is called in messages and statistics.
        """
        options = StageOptions.of(workers, ordered, capacity, executor)
        return self._with(Map(function_of("map", function)), name, options)

    def async_map(
        self,
        function: Callable[..., Awaitable[Any]],
        *,
        concurrency: int = 16,
        **options: Unpack[StreamOptions],
    ) -> Self:
        """One item in, one item out, by a coroutine function: up to `concurrency` calls at a time.

        For work that waits (the network, a disk, a server). Results come in the order of the items.

        Args:
            function: an ``async def``, called with each item; a parameter ``rng`` gets the item's
                generator.
            concurrency: most calls under way, and so most items that are read ahead.
            options: see `StreamOptions`.

        Example:
            >>> import splitpipe as sp
            >>> async def fetched(x):
            ...     return x * 2
            >>> list(sp.Pipeline(range(3)).async_map(fetched))
            [0, 2, 4]
        """
        return self._stream(AsyncMap(function, concurrency), options)

    def filter(
        self,
        function: Callable[[Any], Any],
        *,
        workers: Workers = None,
        executor: str | None = None,
        ordered: bool = True,
        capacity: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Keep the items for which `function` says yes; the others are counted. Options as for
        `map`.
        """
        options = StageOptions.of(workers, ordered, capacity, executor)
        return self._with(Filter(function_of("filter", function)), name, options)

    def flat_map(
        self,
        function: Callable[[Any], Iterable[Any]],
        *,
        workers: Workers = None,
        executor: str | None = None,
        ordered: bool = True,
        capacity: int | None = None,
        name: str | None = None,
    ) -> Self:
        """One item in, any number out: `function` is a generator, or returns an iterable.

        With several workers the outputs of one item travel together and must fit into memory; with
        one they stream. Options as for `map`.
        """
        options = StageOptions.of(workers, ordered, capacity, executor)
        return self._with(FlatMap(function_of("flat_map", function)), name, options)

    def unbatch(self, *, unpad: bool = False, name: str | None = None) -> Self:
        """Split every item into its rows: the inverse of `batch`.

        Args:
            unpad: cut rows that were padded with ``Pad(lengths=True)`` to the lengths they had, and
                leave out the columns of lengths and masks.
            name: how the stage is called in messages and statistics.
        """
        return self._with(Unbatch(unpad), name, StageOptions())
