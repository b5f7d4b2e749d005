"""`batch`: several items in, one out, stacked straight into the place where its reader reads it.

Responsible for: `Batch`, and `new_rows`, which everything that makes batches begins one with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.checks import function, settle, whole
from splitpipe.pipeline.stages.collate import Rows, Stack
from splitpipe.pipeline.stages.padding import Pad, Ragged, ragged_rule

__all__ = ["Batch", "check_rows", "new_rows"]

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Batch(Operation):
    """Several items in, one out: stacked straight into the place where the consumer reads them.

    Args:
        size: items a batch.
        drop_last: a last batch that is not full is left out, and its items counted.
        collate: makes the batch out of the list of its items instead.
        ragged: what becomes of arrays, and lists of numbers, of different lengths: ``"list"``
            leaves them a list, ``"pad"`` or a `Pad` makes one array of them, a dict of `Pad` does
            so with the columns that it names.
    """

    size: int
    drop_last: bool = False
    collate: Collate | None = None
    ragged: Ragged = "list"

    def __post_init__(self) -> None:
        settle(self, size=whole("size", self.size, least=1))
        check_rows(self.collate, self.ragged)

    @property
    def ratio(self) -> int | None:
        return self.size

    @property
    def label(self) -> str:
        return f"batch({self.size})"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        size, finish, pad = self.size, self.collate, ragged_rule(self.ragged)
        while True:
            rows = new_rows(size, finish, pad)
            for item in islice(items, size):
                rows.add(item)
                del item
            count = rows.count
            if count == 0:
                return
            if count < size and self.drop_last:
                context.dropped += count
                return
            yield rows.finish()
            if count < size:
                return


def check_rows(collate: Collate | None, ragged: Ragged) -> None:
    """Refuse what no batch can be made with.

    Raises:
        GraphError: `collate` is no function, `ragged` means nothing, or both are given.
    """
    pad = ragged_rule(ragged)
    if collate is not None:
        function("collate", collate)
        if pad is not None:
            raise GraphError("ragged= says what batch does itself; collate= does that instead")


def new_rows(
    size: int, collate: Collate | None, pad: Pad | Mapping[str, Pad] | None
) -> Stack | Rows:
    """Return a batch in the making."""
    return Stack(size, pad) if collate is None else Rows(collate)
