"""`batch_by_cost`: as many items a batch as it may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.batch import check_rows
from splitpipe.pipeline.stages.filling import (
    MEASURES,
    Filling,
    Length,
    Limits,
    check_length,
    with_lengths,
)
from splitpipe.pipeline.stages.padding import Ragged, ragged_rule

__all__ = ["BatchByCost"]


@dataclass(frozen=True)
class BatchByCost(Operation):
    """Consecutive items as a batch, as many as it may cost; every item is in one.

    Args:
        limits: what a batch may cost, and how many items it may have.
        length: what an item costs: a function, or the name of the column whose ``len()`` it is;
            None is the ``len()`` of the item.
        collate: as for `Batch`.
        ragged: as for `Batch`.
    """

    limits: Limits
    length: Length = None
    collate: Callable[[list[Any]], Any] | None = None
    ragged: Ragged = "list"
    holds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_length(self.length)
        check_rows(self.collate, self.ragged)

    @property
    def label(self) -> str:
        return "batch_by_cost"

    @property
    def measures(self) -> tuple[str, ...]:
        return MEASURES

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        batch = Filling(self.limits, context.measured, self.collate, ragged_rule(self.ragged))
        first = taken = context.begun()  # the item with which the next batch begins
        context.tell = lambda: Progress((first,), taken=(taken,))
        for number, (item, cost) in enumerate(with_lengths(items, self.length), first):
            taken = number + 1
            if not batch.has_room(cost):
                first = number
                yield batch.finish()
            batch.add(item, cost)
            del item
            if batch.full:
                first = number + 1
                yield batch.finish()
        first += len(batch)
        if len(batch):
            yield batch.finish()
