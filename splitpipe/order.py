"""Orders: which record comes at which position, as arithmetic.

Responsible for: `Order` and its three kinds (sequential, global, binwise), each a bijection from
positions to rows that is a pure function of (number of rows or bin layout, seed, epoch).

Rules:
- integer arithmetic only, on 32 and 64 bits: an order is the same on every machine, Python and
  numpy, and is pinned by golden values in the tests;
- no list of all rows: O(1) memory for the global order, O(bins) for the binwise one;
- an order opens nothing and pickles to a few numbers.

The bijection itself is in ``permutation.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index as as_integer
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import GraphError
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.native import kernel

__all__ = [
    "BinGroup",
    "BinwiseOrder",
    "GlobalOrder",
    "Order",
    "SequentialOrder",
    "binwise_order",
    "global_order",
    "make_order",
    "sequential_order",
]

Rows = npt.NDArray[np.int64]

# What a key is for: the same seed and epoch never give two things the same key.
_GLOBAL: Final = 1
_BINS: Final = 2
_RECORDS: Final = 3


# Small ranges are cut from a block of this many positions, computed once: a block costs 0.5 ms,
# and a range of 64 positions computed by itself would cost half as much.
_BLOCK: Final = 16384


class Order(ABC):
    """A bijection from positions to rows.

    Example:
        >>> order = global_order(5, seed=0, epoch=0)
        >>> sorted(order[position] for position in range(len(order)))
        [0, 1, 2, 3, 4]
    """

    __slots__ = ("_block",)

    def __init__(self) -> None:
        # First position and rows of the block computed last; replaced whole, so that threads
        # see the old one or the new one.
        self._block: tuple[int, Rows] = (0, np.empty(0, dtype=np.int64))

    @abstractmethod
    def __len__(self) -> int:
        """Number of positions, which is the number of rows."""

    @abstractmethod
    def _between(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``, computed."""

    @abstractmethod
    def _row(self, position: int) -> int:
        """The row at one position from 0, by the shortest way."""

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``: an int64 array of shape (n,)."""
        size = len(self)
        if not 0 <= start <= stop <= size:
            raise IndexError(f"positions {start} to {stop} of an order of {size}")
        if stop - start >= _BLOCK // 2:
            return self._between(start, stop)
        first, rows = self._block
        if not first <= start <= stop <= first + len(rows):
            first = start - start % _BLOCK
            if stop > first + _BLOCK:
                first = start
            rows = self._between(first, min(first + _BLOCK, size))
            self._block = first, rows
        return rows[start - first : stop - first].copy()

    def at(self, positions: Rows) -> Rows:
        """The rows at any positions from 0, in the order given: an int64 array of shape (n,)."""
        return np.array([self._row(at) for at in positions.tolist()], dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """The row at one position, negative ones counted from the end."""
        size = len(self)
        at = as_integer(position)
        at += size if at < 0 else 0
        if not 0 <= at < size:
            raise IndexError(f"position {position} of an order of {size}")
        return self._row(at)

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self), _BLOCK):
            yield from self.indices(start, min(start + _BLOCK, len(self))).tolist()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())


class SequentialOrder(Order):
    """Every row at its own position.

    Args:
        rows: number of rows.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``: an int64 array of shape (n,)."""
        if not 0 <= start <= stop <= self._rows:
            raise IndexError(f"positions {start} to {stop} of an order of {self._rows}")
        return self._between(start, stop)

    def at(self, positions: Rows) -> Rows:
        return positions.copy()

    def _between(self, start: int, stop: int) -> Rows:
        return np.arange(start, stop, dtype=np.int64)

    def _row(self, position: int) -> int:
        return position

    def __reduce__(self) -> Any:
        return SequentialOrder, (self._rows,)

    def __repr__(self) -> str:
        return f"SequentialOrder(rows={self._rows})"


class GlobalOrder(Order):
    """A shuffle of all rows.

    Args:
        permutation: the keyed bijection.
    """

    __slots__ = ("_permutation",)

    def __init__(self, permutation: KeyedPermutation) -> None:
        super().__init__()
        self._permutation = permutation

    def __len__(self) -> int:
        return self._permutation.size

    def at(self, positions: Rows) -> Rows:
        return self._permutation.at(positions)

    def _between(self, start: int, stop: int) -> Rows:
        return _numbers(self._permutation, start, stop)

    def _row(self, position: int) -> int:
        return self._permutation[position]

    def __reduce__(self) -> Any:
        return GlobalOrder, (self._permutation,)

    def __repr__(self) -> str:
        return f"GlobalOrder({self._permutation!r})"


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
        return _numbers(permutation, self.start - first, self.stop - first)


class BinwiseOrder(Order):
    """Bins in shuffled order, ``window`` of them at a time, their records shuffled together.

    Args:
        layout: which rows lie in which bin.
        seed: any integer; ``None`` shuffles nothing and goes bin by bin in order.
        epoch: any integer.
        window: how many bins are shuffled together.
    """

    __slots__ = ("_bins", "_key", "_starts", "epoch", "layout", "seed", "window")

    def __init__(self, layout: BinLayout, *, seed: int | None, epoch: int, window: int) -> None:
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


def _numbers(permutation: KeyedPermutation, start: int, stop: int) -> Rows:
    """``permutation.between(start, stop)``, in C where that was built: 8 ns a number, not 25."""
    network = permutation.network
    if kernel.permuted is None or network is None:
        return permutation.between(start, stop)
    bits, keys = network
    numbers: Rows = np.empty(stop - start, dtype=np.int64)
    kernel.permuted(numbers, start, permutation.size, bits, keys)
    return numbers


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


def _binwise(layout: BinLayout, seed: int | None, epoch: int, window: int) -> BinwiseOrder:
    return BinwiseOrder(layout, seed=seed, epoch=epoch, window=window)


def sequential_order(rows: int) -> SequentialOrder:
    """Rows in their own order.

    Example:
        >>> sequential_order(3).indices(1, 3).tolist()
        [1, 2]
    """
    return SequentialOrder(_count(rows, "rows"))


def global_order(rows: int, seed: int, epoch: int) -> GlobalOrder:
    """A shuffle of all rows, in O(1) memory.

    Args:
        rows: number of rows, from 0 to 2**63 - 1.
        seed: any integer.
        epoch: any integer; every epoch is another shuffle.

    Example:
        >>> first = global_order(1000, seed=7, epoch=0)
        >>> first.indices(0, 5).tolist() == first.indices(0, 1000)[:5].tolist()
        True
    """
    key = derive_key(seed, epoch, _GLOBAL)
    return GlobalOrder(KeyedPermutation(_count(rows, "rows"), key))


def binwise_order(layout: BinLayout, seed: int | None, epoch: int, window: int = 1) -> BinwiseOrder:
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
    if _count(window, "window") < 1:
        raise GraphError(f"window must be at least 1, not {window}")
    return BinwiseOrder(layout, seed=seed, epoch=epoch, window=window)


def make_order(
    source: Sequence[Any], shuffle: str | None, seed: int, epoch: int, window: int = 1
) -> Order:
    """The order in which a pipeline reads a sequence.

    Args:
        source: a `Dataset`, a list, a range: anything with a length.
        shuffle: ``None`` for the sequence's own order, ``"global"`` for a shuffle of
            everything, ``"binwise"`` for a shuffle that reads bin after bin.
        seed: any integer.
        epoch: any integer.
        window: for ``"binwise"``, how many bins are shuffled together.

    Raises:
        GraphError: ``shuffle`` is none of these, or the source has no bins.

    Example:
        >>> sorted(make_order(range(4), "global", seed=0, epoch=0))
        [0, 1, 2, 3]
    """
    if shuffle is None:
        return sequential_order(len(source))
    if shuffle == "global":
        return global_order(len(source), seed=seed, epoch=epoch)
    if shuffle != "binwise":
        raise GraphError(f'shuffle must be None, "binwise" or "global", not {shuffle!r}')
    layout = getattr(source, "bin_layout", None)
    if layout is None:
        raise GraphError(
            f'a {type(source).__name__} has no bins to shuffle: use shuffle="global", or a '
            'dataset from open_dataset with shuffle="binwise"'
        )
    return binwise_order(layout(), seed=seed, epoch=epoch, window=window)


def _count(value: int, name: str) -> int:
    count = as_integer(value)
    if not 0 <= count < 1 << 63:
        raise GraphError(f"{name} must be from 0 to 2**63 - 1, not {value}")
    return count
