"""Stages that treat each item by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self, Unpack

from splitpipe.pipeline.guarding import guarded
from splitpipe.pipeline.methods.base import Methods, PoolOptions, StreamOptions, function_of
from splitpipe.pipeline.stage import StageOptions
from splitpipe.pipeline.stages import AsyncMap, Filter, FlatMap, Map, Unbatch
from splitpipe.pipeline.stages.policy import Policy

__all__ = ["ItemMethods"]


class ItemMethods(Methods):
    """Methods of a `Pipeline` whose stages may have several workers."""

    def map(
        self,
        function: Callable[[Any], Any],
        *,
        on_error: Policy | str | None = None,
        **options: Unpack[PoolOptions],
    ) -> Self:
        """One item in, one item out.

        Args:
            function: called with each item.
            on_error: what becomes of an item for which `function` raises: ``"raise"``, ``"skip"``,
                or a policy (`splitpipe.skip`, `splitpipe.retry`, `splitpipe.quarantine`); None: as
                the loader says.
            options: see `PoolOptions`: ``workers``, ``executor``, ``ordered``, ``capacity``,
                ``name``.
        """
        operation = guarded(Map(function_of("map", function)), on_error)
        return self._pooled(operation, options)

    def async_map(
        self,
        function: Callable[..., Awaitable[Any]],
        *,
        concurrency: int = 16,
        on_error: Policy | str | None = None,
        **options: Unpack[StreamOptions],
    ) -> Self:
        """One item in, one item out, by a coroutine function: up to `concurrency` calls at a time.

        For work that waits (the network, a disk, a server). Results come in the order of the items.

        Args:
            function: an ``async def``, called with each item; a parameter ``rng`` gets the item's
                generator.
            concurrency: most calls under way, and so most items that are read ahead.
            on_error: as for `map`; what waits for another try holds up only what is behind it.
            options: see `StreamOptions`.

        Example:
            >>> import splitpipe as sp
            >>> async def fetched(x):
            ...     return x * 2
            >>> list(sp.Pipeline(range(3)).async_map(fetched))
            [0, 2, 4]
        """
        return self._stream(guarded(AsyncMap(function, concurrency), on_error), options)

    def filter(
        self,
        function: Callable[[Any], Any],
        *,
        on_error: Policy | str | None = None,
        **options: Unpack[PoolOptions],
    ) -> Self:
        """Keep the items for which `function` says yes; the others are counted. Options as for
        `map`.
        """
        operation = guarded(Filter(function_of("filter", function)), on_error)
        return self._pooled(operation, options)

    def flat_map(
        self,
        function: Callable[[Any], Iterable[Any]],
        *,
        on_error: Policy | str | None = None,
        **options: Unpack[PoolOptions],
    ) -> Self:
        """One item in, any number out: `function` is a generator, or returns an iterable.

        With several workers, or with `on_error`, the outputs of one item travel together and must
        fit into memory; with one they stream. Options as for `map`.
        """
        operation = guarded(FlatMap(function_of("flat_map", function)), on_error)
        return self._pooled(operation, options)

    def unbatch(
        self,
        *,
        unpad: bool = False,
        on_error: Policy | str | None = None,
        name: str | None = None,
    ) -> Self:
        """Split every item into its rows: the inverse of `batch`.

        Args:
            unpad: cut rows that were padded with ``Pad(lengths=True)`` to the lengths they had, and
                leave out the columns of lengths and masks.
            on_error: as for `map`.
            name: how the stage is called in messages and statistics.
        """
        return self._with(guarded(Unbatch(unpad), on_error), name, StageOptions())
