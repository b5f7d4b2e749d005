"""Batches that are made in parts, and put together where they are read.

Responsible for: `Splitting`, which says of a pool that its batches may be given out in parts; what
may travel in one; how a batch is put together from the rows of its parts.

Rules:
- whether a batch was made whole or in parts, and in how many, never shows in it: the same operation
  stacks the rows, in the same order, as `inline` does, and what a row's function raised comes to it
  at that row's place;
- a row travels only if it is after its journey what it was before (`travels`). A batch with another
  row is made once more, whole, and no batch of this run is split from then on;
- a function of the user's never runs in another process because of a split: a batch with a
  ``collate`` of his, and a batch with stages behind it in its pool, are made whole.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages.base import Context
from splitpipe.transport.envelope import ATOMS
from splitpipe.transport.message import Failed, Item

if TYPE_CHECKING:
    from splitpipe.pipeline.plan import Task

__all__ = ["AGAIN", "LAST", "PART", "Splitting", "Whole", "splitting", "travels"]

PART, LAST, AGAIN = 1, 2, 3
"""What a claim says in its `count`: a part of a batch, the last part of one, or a batch of which
parts were made and counted before. 0: whole units."""

_MAIN = frozenset({"__main__", "__mp_main__"})


class Whole(BaseException):
    """A row of `part` cannot travel alone. Not an Exception: no stage may swallow it."""

    def __init__(self, part: Item | Failed) -> None:
        super().__init__()
        self.part = part


@dataclass(frozen=True, slots=True)
class Splitting:
    """How the batches of a pool may be split.

    Attributes:
        stage: the batch.
        row: positions of the source that make one row of it.
        unit: positions that make it.
    """

    stage: Stage
    row: int
    unit: int

    def finish(self, rows: Generator[Any, None, None], epoch: int) -> Any:
        """Return the batch of `rows`; what they raise passes through the stage, as inline."""
        made = self.stage.operation.run((rows,), Context(self.stage.name, epoch=epoch))
        try:
            return next(made)
        finally:
            rows.close()

    def where(self, epoch: int, position: int) -> tuple[str, ...]:
        """Return notes for what the stage itself raised."""
        place = f"epoch {epoch}, input item {position}"
        return (f"in stage {self.stage.name!r} (where its parts are put together), {place}",)


def splitting(task: Task) -> Splitting | None:
    """Return how the batches of `task` may be split; None when they must be made whole."""
    if not task.splits:
        return None
    stage = task.stages[-1]
    assert stage.operation.ratio is not None
    return Splitting(stage, task.unit // stage.operation.ratio, task.unit)


def travels(row: Any) -> bool:
    """Whether `row` is the same after its journey by itself as in the company of its batch.

    Classes that travel by value would come from two workers as two classes.
    """
    kind = type(row)
    if kind in ATOMS or (kind is np.ndarray and not row.dtype.hasobject):
        return True
    if kind is dict:
        return all(type(key) in ATOMS and travels(value) for key, value in row.items())
    if kind is tuple or kind is list:
        return all(map(travels, row))
    return _importable(kind)


def _importable(kind: type) -> bool:
    """Whether any process finds `kind` by its name."""
    if kind.__module__ in _MAIN:
        return False
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind
