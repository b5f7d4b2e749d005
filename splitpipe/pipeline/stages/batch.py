"""`batch`: several items in, one out, stacked straight into the place where its reader reads it.

Responsible for: `Batch`, and `new_rows`, which everything that makes batches begins one with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.checks import function, settle, whole
from splitpipe.pipeline.stages.collate import Rows, Stack
from splitpipe.pipeline.stages.guard import Guard
from splitpipe.pipeline.stages.padding import Pad, Ragged, ragged_rule
from splitpipe.pipeline.stages.policy import Policy

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
        policy: what becomes of batches that cannot be made: each is left out whole.
    """

    size: int
    drop_last: bool = False
    collate: Collate | None = None
    ragged: Ragged = "list"
    policy: Policy | None = None
    ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, size=whole("size", self.size, least=1))
        check_rows(self.collate, self.ragged)

    @property
    def ratio(self) -> int | None:
        return None if self.policy is not None and self.policy.leaves_out else self.size

    @property
    def places(self) -> bool:
        return self.policy is not None

    @property
    def label(self) -> str:
        return f"batch({self.size})"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        if self.policy is not None:
            yield from self._guarded(items, context, Guard(self.policy, context))
            return
        size, finish, pad = self.size, self.collate, ragged_rule(self.ragged)
        read = context.begun()
        context.tell = lambda: Progress((read,))  # the last batch may be a smaller one
        while True:
            rows = new_rows(size, finish, pad)
            for item in islice(items, size):
                rows.add(item)
                del item
            count = rows.count
            read += count
            if count == 0:
                return
            if count < size and self.drop_last:
                context.dropped += count
                return
            yield rows.finish()
            if count < size:
                return

    def _guarded(self, items: Iterator[Any], context: Context, guard: Guard) -> Iterator[Any]:
        """As `apply`, of rows that are held until their batch is made, or left out."""
        counts, place = context.counts, context.place
        begun = context.begun() - counts.treated
        context.tell = lambda: Progress((begun + counts.treated,))
        items = context.ledger.keep(items)
        while True:
            held: list[Any] = []
            first = (counts.treated, 0)
            for item in islice(items, self.size):
                if not held and place is not None:
                    first = place.number, place.part
                held.append(item)
                del item
            count = len(held)
            counts.treated += count
            if count < self.size and self.drop_last:
                context.dropped += count
                break
            made = [] if count == 0 else self._made(held, first, guard)
            del held
            while made:
                yield made.pop()
            if count < self.size:
                break
        guard.end()

    def _made(self, held: list[Any], first: tuple[int, int], guard: Guard) -> list[Any]:
        """Return the batch of the rows `held`; none where it is left out."""
        again = not held or guard.begin(first, items=len(held))
        made: list[Any] = []
        while again:
            try:
                rows = new_rows(self.size, self.collate, ragged_rule(self.ragged))
                for row in held:
                    rows.add(row)
                made = [rows.finish()]
                again = False
            except Exception as error:
                again = guard.failed(error, first, items=len(held))
        guard.end_item()
        return made


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
