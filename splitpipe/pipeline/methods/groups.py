"""Stages that put items together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from splitpipe.pipeline.methods.base import Methods
from splitpipe.pipeline.stage import StageOptions, check_count
from splitpipe.pipeline.stages import Batch

__all__ = ["GroupMethods"]


class GroupMethods(Methods):
    """Methods of a `Pipeline` that make batches, windows and packs."""

    def batch(
        self,
        size: int,
        *,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        workers: int | None = None,
        executor: str | None = None,
        ordered: bool = True,
        capacity: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Join `size` items into one.

        Arrays of one shape and type are stacked, numbers become an array, dicts and tuples are
        batched key by key, anything else becomes a list.

        Args:
            size: items a batch.
            drop_last: leave out a last batch that is not full (it is counted).
            collate: makes the batch out of the list of its items instead.
            workers: as for `map`, like the options that follow.
            executor: see `map`.
            ordered: see `map`.
            capacity: see `map`.
            name: see `map`.
        """
        check_count("size", size, least=1)
        operation = Batch(size, drop_last, collate)
        return self._with(operation, name, StageOptions(workers, ordered, capacity, executor))
