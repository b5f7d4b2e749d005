"""`bucket`: batches of items of like length, so that little of them is padding.

Method: as ``bucket_by_sequence_length`` of tf.data: every item goes into the bucket of its length,
and a bucket that is full comes out as a batch. Where boundaries are learned, from the lengths of
the first items, they are quantiles, so that every bucket gets as many of those, or those with
which these items would be padded least: the best partition of a sorted sample, found by dynamic
programming (W. D. Fisher, "On Grouping for Maximum Homogeneity", Journal of the American
Statistical Association 53, 1958, 789-798).

Rules:
- every item is in exactly one batch; what is left in buckets at the end comes in batches that are
  not full, shortest first, unless the user said that they are dropped;
- what is held is bounded: a batch for every bucket, and, once an epoch, the items that boundaries
  are learned from, which are used like all others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.batch import check_rows
from splitpipe.pipeline.stages.checks import choice, number, settle, whole, wholes
from splitpipe.pipeline.stages.filling import (
    MEASURES,
    Filling,
    Length,
    Limits,
    check_length,
    with_lengths,
)
from splitpipe.pipeline.stages.padding import Ragged, ragged_rule
from splitpipe.pipeline.stages.told import numbers_of, numbers_text

__all__ = ["Bucket", "Buckets"]

_LEARNED_FROM = 1000
"""Most lengths that are compared with one another: time grows with the square, to about 4 ms for
each bucket."""


@dataclass(frozen=True)
class Buckets:
    """Which lengths go together.

    Args:
        boundaries: growing; the first bucket has the lengths below the first one, the last those
            from the last one on.
        learn: instead: how many buckets there are, boundaries learned from the first items.
        by: ``"padding"``: so that there is least of it; ``"quantiles"``: so that each bucket gets
            as many items.
        sample: how many items they are learned from.
        sizes: items a batch for every bucket, shortest first; None: for all the same.
    """

    boundaries: tuple[float, ...] | None = None
    learn: int | None = None
    by: str = "padding"
    sample: int = 1000
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        settle(self, sample=whole("sample", self.sample, least=1))
        choice("by", self.by, ("padding", "quantiles"))
        if (self.boundaries is None) == (self.learn is None):
            raise GraphError("buckets need either boundaries, or how many to learn, and not both")
        if self.boundaries is None:
            settle(self, learn=whole("the number of buckets", self.learn, least=1))
        else:
            made = tuple(number("a boundary", b, least=0.0) for b in self.boundaries)
            if any(low >= high for low, high in pairwise(made)):
                raise GraphError(f"the boundaries of buckets must grow: {made}")
            settle(self, boundaries=made)
        if self.sizes is not None:
            settle(self, sizes=wholes("sizes", self.sizes, least=1))
            if len(self.sizes) != self.count:
                raise GraphError(f"there are {len(self.sizes)} sizes for {self.count} buckets")

    @property
    def count(self) -> int:
        """How many there are."""
        if self.boundaries is not None:
            return len(self.boundaries) + 1
        assert self.learn is not None
        return self.learn

    def learned(self, lengths: list[float]) -> tuple[float, ...]:
        """Return the boundaries, learned from `lengths` where they are not given."""
        if self.boundaries is not None:
            return self.boundaries
        if not lengths:
            return ()
        if self.by == "padding":
            return _least_padding(np.sort(np.array(lengths, np.float64)), self.count)
        parts = np.arange(1, self.count) / self.count
        made: list[float] = np.quantile(np.array(lengths), parts, method="higher").tolist()
        return tuple(made)


def _least_padding(lengths: NDArray[np.float64], groups: int) -> tuple[float, ...]:
    """Return the boundaries between `groups` groups of sorted lengths, each padded to its longest,
    with which they take least.
    """
    if len(lengths) > _LEARNED_FROM:
        at = np.linspace(0, len(lengths) - 1, _LEARNED_FROM).round().astype(np.int64)
        lengths = lengths[at]
    size = len(lengths)
    number = np.arange(size + 1)
    takes = np.concatenate([[0.0], number[1:] * lengths])  # the first j of them as one group
    cuts = []
    for _ in range(groups - 1):
        cut, better = np.zeros(size + 1, np.int64), np.zeros(size + 1)
        for j in range(1, size + 1):
            costs = takes[:j] + (j - number[:j]) * lengths[j - 1]
            cut[j] = costs.argmin()
            better[j] = costs[cut[j]]
        cuts.append(cut)
        takes = better
    boundaries, j = [], size
    for cut in reversed(cuts):
        j = int(cut[j])
        boundaries.append(float(lengths[j]))
    return tuple(reversed(boundaries))


@dataclass(frozen=True)
class Bucket(Operation):
    """Batches of items of like length.

    Args:
        buckets: which lengths go together.
        limits: of a batch.
        length: of an item: a function, or the name of the column whose ``len()`` it is; None is the
            ``len()`` of the item.
        drop_last: batches that are not full at the end are left out, and their items counted.
        collate: as for `Batch`.
        ragged: as for `Batch`.
    """

    buckets: Buckets
    limits: Limits
    length: Length = None
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    ragged: Ragged = "list"
    holds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_length(self.length)
        check_rows(self.collate, self.ragged)

    @property
    def label(self) -> str:
        return "bucket"

    @property
    def measures(self) -> tuple[str, ...]:
        return MEASURES

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        measured, state = with_lengths(items, self.length), context.start.state
        fillings = self._fillings(context)
        held: list[list[int]] = [[] for _ in fillings]  # the numbers of the items in them
        taken = context.begun()
        first: list[Any] = []
        if state is None:
            learns = self.buckets.boundaries is None
            first = list(islice(measured, self.buckets.sample)) if learns else []
            boundaries = self.buckets.learned([cost for _, cost in first])
            read = ahead = taken + len(first)
        else:
            boundaries = tuple(state["boundaries"])
            self._refill(measured, boundaries, fillings, held, context)
            taken = read = ahead = state["taken"]

        def tell() -> Progress:
            numbers = [number for one in held for number in one]
            told = {"boundaries": list(boundaries), "taken": taken, "held": numbers_text(numbers)}
            return Progress((min(numbers, default=taken),), told, taken=(max(read, ahead),))

        context.tell = tell
        for index, (item, cost) in enumerate(chain(_popped(first), measured), taken):
            at = bisect_right(boundaries, cost)
            filling, taken, read = fillings[at], index, index + 1
            if not filling.has_room(cost):
                held[at] = []
                yield filling.finish()
            filling.add(item, cost)
            held[at].append(index)
            taken = read
            del item
            if filling.full:
                held[at] = []
                yield filling.finish()
        for at, filling in enumerate(fillings):
            held[at] = []
            if self.drop_last:
                context.dropped += len(filling)
            elif len(filling):
                yield filling.finish()

    def _refill(
        self,
        measured: Iterator[tuple[Any, float]],
        boundaries: tuple[float, ...],
        fillings: list[Filling],
        held: list[list[int]],
        context: Context,
    ) -> None:
        """Get hold of the items that were held where an epoch is resumed."""
        state, first = context.start.state, context.begun()
        wanted = set(numbers_of(state["held"]))
        count = first
        for index, (item, cost) in enumerate(islice(measured, state["taken"] - first), first):
            count = index + 1
            if index in wanted:
                at = bisect_right(boundaries, cost)
                fillings[at].add(item, cost)
                held[at].append(index)
            del item
        context.check_reread(count, state["taken"])

    def _fillings(self, context: Context) -> list[Filling]:
        pad, sizes = ragged_rule(self.ragged), self.buckets.sizes
        limits = [self.limits] * self.buckets.count
        if sizes is not None:
            limits = [replace(self.limits, size=size) for size in sizes]
        return [Filling(one, context.measured, self.collate, pad) for one in limits]


def _popped(first: list[Any]) -> Iterator[Any]:
    """Yield from the front, and let go of what was yielded."""
    first.reverse()
    while first:
        yield first.pop()
