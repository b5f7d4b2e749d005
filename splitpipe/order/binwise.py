"""The order that reads bin after bin.

Responsible for: `BinwiseOrder`, and `BinGroup`, what of it lies in the same bins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import GraphError
from splitpipe.order.base import Order, Rows, check_rows, numbers
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.storage.layout import BinLayout, Stretch

__all__ = ["BinGroup", "BinwiseOrder", "binwise_order"]

_BINS: Final = 2
_RECORDS: Final = 3


@dataclass(frozen=True, slots=True)
class BinGroup:
    """Positions of a binwise order that lie in the same bins.

    Attributes:
        start: the first position.
        stop: the position after the last one.
        members: ``(bin number, its rows)`` of the bins, in the order in which their records are
            numbered by ``places``.
        whole: whether all positions of these bins are in the range that was asked for.
        order: where the group belongs.
        number: the group's number in the order.
    """

    start: int
    stop: int
    members: tuple[tuple[int, range], ...]
    whole: bool
    order: BinwiseOrder
    number: int

    @property
    def places(self) -> Rows:
        """For every position, the record's place when the bins' rows are put end to end."""
        first = int(self.order._starts[self.number])
        permutation = self.order._permutation(self.number)
        return numbers(permutation, self.start - first, self.stop - first)


class BinwiseOrder(Order):
    """Bins in shuffled order, ``window`` of them at a time, their records shuffled together.

    Args:
        layout: which rows lie in which bin.
        seed: any integer; ``None`` shuffles nothing and goes bin by bin in order.
        epoch: any integer.
        window: how many bins are shuffled together.
    """

    __slots__ = ("_bins", "_key", "_starts", "epoch", "layout", "seed", "window")

    def __init__(
        self, layout: BinLayout | Stretch, *, seed: int | None, epoch: int, window: int
    ) -> None:
        super().__init__()
        self.layout = layout
        self.seed = seed
        self.epoch = epoch
        self.window = window
        bins = layout.numbered_bins()
        self._key: int | None = None
        if seed is not None:
            shuffled = KeyedPermutation(len(bins), derive_key(seed, epoch, _BINS))
            bins = [bins[place] for place in shuffled.between(0, len(bins)).tolist()]
            self._key = derive_key(seed, epoch, _RECORDS)
        self._bins = bins
        counts = np.array([len(rows) for _, rows in bins], dtype=np.int64)
        # Position at which every group of ``window`` bins starts, and the end.
        ends = np.concatenate(([0], np.cumsum(counts)))
        self._starts = np.append(ends[:-1:window], ends[-1])

    def __len__(self) -> int:
        return self.layout.rows

    def __reduce__(self) -> Any:
        return _binwise, (self.layout, self.seed, self.epoch, self.window)

    def __repr__(self) -> str:
        return (
            f"BinwiseOrder({self.layout!r}, seed={self.seed}, epoch={self.epoch}, "
            f"window={self.window})"
        )

    def bin_groups(self, start: int, stop: int) -> Iterator[BinGroup]:
        """The positions ``start`` to ``stop - 1``, cut where the bins change."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"positions {start} to {stop} of an order of {len(self)}")
        while start < stop:
            number = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = int(self._starts[number]), int(self._starts[number + 1])
            upto = min(stop, end)
            yield BinGroup(
                start=start,
                stop=upto,
                members=self._members(number),
                whole=start == first and upto == end,
                order=self,
                number=number,
            )
            start = upto

    def at(self, positions: Rows) -> Rows:
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        made = np.empty(len(positions), dtype=np.int64)
        for number in distinct(groups).tolist():
            mine = np.flatnonzero(groups == number)
            places = self._permutation(number).at(positions[mine] - self._starts[number])
            made[mine] = _rows_at(self._members(number), places)
        return made

    def _members(self, number: int) -> tuple[tuple[int, range], ...]:
        return tuple(self._bins[number * self.window : (number + 1) * self.window])

    def _permutation(self, number: int) -> KeyedPermutation:
        """The bijection of a group's records; its key comes from the group's first bin."""
        size = int(self._starts[number + 1] - self._starts[number])
        if self._key is None:
            return KeyedPermutation(size, None)
        return KeyedPermutation(size, derive_key(self._key, self._bins[number * self.window][0]))

    def _between(self, start: int, stop: int) -> Rows:
        parts = [_rows_at(group.members, group.places) for group in self.bin_groups(start, stop)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _row(self, position: int) -> int:
        number = bisect_right(self._starts, position) - 1
        place = self._permutation(number)[position - int(self._starts[number])]
        for _, rows in self._members(number):
            if place < len(rows):
                return rows[place]
            place -= len(rows)
        raise AssertionError("a place past the end of its group")


def _rows_at(members: Sequence[tuple[int, range]], places: Rows) -> Rows:
    """Rows of places among the rows of several bins put end to end."""
    if len(members) == 1:
        rows = members[0][1]
        return rows.start + rows.step * places
    counts = np.array([len(rows) for _, rows in members], dtype=np.int64)
    ends = np.cumsum(counts)
    member = np.searchsorted(ends, places, side="right")
    starts = np.array([rows.start for _, rows in members], dtype=np.int64)
    steps = np.array([rows.step for _, rows in members], dtype=np.int64)
    within = places - (ends - counts)[member]
    return starts[member] + steps[member] * within


def _binwise(
    layout: BinLayout | Stretch, seed: int | None, epoch: int, window: int
) -> BinwiseOrder:
    return BinwiseOrder(layout, seed=seed, epoch=epoch, window=window)


def binwise_order(
    layout: BinLayout | Stretch, seed: int | None, epoch: int, window: int = 1
) -> BinwiseOrder:
    """Bins in shuffled order and records shuffled inside them, in O(bins) memory.

    Reading this order touches ``window`` bins at a time, so that it is nearly sequential on the
    disk. A larger window shuffles better: the records of ``window`` bins are shuffled together.

    Args:
        layout: of a dataset, from ``Dataset.bin_layout()``.
        seed: any integer; ``None`` goes bin by bin without shuffling.
        epoch: any integer; every epoch is another shuffle.
        window: bins shuffled together, at least 1.

    Example:
        >>> from splitpipe.storage.layout import Segment
        >>> layout = BinLayout([Segment(first_row=0, rows=6, first_bin=0, bins=2)])
        >>> list(binwise_order(layout, seed=None, epoch=0))
        [0, 2, 4, 1, 3, 5]
        >>> sorted(binwise_order(layout, seed=3, epoch=0))
        [0, 1, 2, 3, 4, 5]
    """
    if check_rows(window, "window") < 1:
        raise GraphError(f"window must be at least 1, not {window}")
    return BinwiseOrder(layout, seed=seed, epoch=epoch, window=window)
