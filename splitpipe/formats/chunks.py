"""Rows that lie in chunks: row groups, record batches, shards.

Responsible for: telling which chunk holds a row (`Chunks`), putting the values of several chunks
together in the order asked for (`gather`, and `ChunkedRecords` by it), and keeping what is costly
to make, a decoded chunk, within a bound of bytes (`Cache`).

Rules:
- a chunk is visited once a batch, whatever the order of the rows;
- no lock and no seek position: two threads may make the same chunk, one of the two stays;
- what is dropped from the cache is never closed, so that whoever reads from it can finish.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from splitpipe.schema import Schema
from splitpipe.storage.base import (
    Batch,
    Order,
    Records,
    Rows,
    given_array,
    iterate_blocks,
    missing_in_out,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Cache", "ChunkedRecords", "Chunks", "Values", "bins_of", "column_of", "gather"]

Values = list[Any] | npt.NDArray[Any]
# The values of columns at some rows of one chunk: an array where none is missing and the column is
# stackable, else a list.
ValuesOf = Callable[[int, Rows, Sequence[str]], Mapping[str, Values]]

T = TypeVar("T")


class Chunks:
    """The rows of consecutive chunks.

    Args:
        counts: how many rows each has.

    Example:
        >>> chunks = Chunks([2, 0, 3])
        >>> chunks.rows, len(chunks), chunks.locate(2)
        (5, 3, (2, 0))
        >>> rows = np.array([4, 0, 3])
        >>> [(chunk, at.tolist(), local.tolist()) for chunk, at, local in chunks.groups(rows)]
        [(0, [1], [0]), (2, [0, 2], [2, 1])]
    """

    __slots__ = ("_list", "_starts", "rows")

    def __init__(self, counts: Sequence[int]) -> None:
        self._starts = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(np.asarray(counts, dtype=np.int64), out=self._starts[1:])
        self._list: list[int] = self._starts.tolist()
        self.rows = self._list[-1]

    def __len__(self) -> int:
        return len(self._list) - 1

    def locate(self, row: int) -> tuple[int, int]:
        """The chunk of a row, and the row's place in it."""
        chunk = bisect_right(self._list, row) - 1
        return chunk, row - self._list[chunk]

    def groups(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """For each chunk with some of ``rows``: itself, their places in ``rows``, and in it."""
        if len(rows) == 1:
            chunk, place = self.locate(int(rows[0]))
            yield chunk, np.zeros(1, dtype=np.int64), np.array([place], dtype=np.int64)
            return
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(owners, kind="stable")
        owners, local = owners[order], rows[order]
        local -= self._starts[owners]
        cuts = (np.flatnonzero(np.diff(owners)) + 1).tolist()
        for first, last in pairwise((0, *cuts, len(rows)) if len(rows) else ()):
            yield int(owners[first]), order[first:last], local[first:last]


def bins_of(counts: Sequence[int]) -> BinLayout:
    """A layout in which every file, or chunk, of so many rows is a bin.

    Example:
        >>> [list(rows) for rows in bins_of([2, 0, 3]).bins()]
        [[0, 1], [2, 3, 4]]
    """
    segments: list[Segment] = []
    first = 0
    for count in counts:
        if count:
            segments.append(Segment(first_row=first, rows=count, first_bin=len(segments), bins=1))
            first += count
    return BinLayout(segments)


def gather(
    chunks: Chunks,
    schema: Schema,
    values_of: ValuesOf,
    rows: Rows,
    columns: Sequence[str],
    out: Mapping[str, npt.NDArray[Any]] | None,
) -> Batch:
    """Read a batch chunk by chunk; see ``Records.read``."""
    given = {name: given_array(schema, name, len(rows), out) for name in columns}
    parts: dict[str, list[tuple[Rows, Values]]] = {name: [] for name in columns}
    for chunk, places, local in chunks.groups(rows):
        for name, values in values_of(chunk, local, columns).items():
            parts[name].append((places, values))
    return {name: _joined(schema, name, rows, parts[name], given[name]) for name in columns}


class ChunkedRecords(Records):
    """What is the same in all records that lie in chunks, in their order.

    Whoever inherits sets `schema`, and ``_chunks``, and says what a chunk holds in ``_values``.
    """

    _chunks: Chunks

    def __len__(self) -> int:
        return self._chunks.rows

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch, column by column; see ``Records.read``."""
        return gather(self._chunks, self.schema, self._values, rows, columns, out)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See ``Records.iterate``."""
        return iterate_blocks(self, order, start, stop)

    @abstractmethod
    def _values(self, chunk: int, local: Rows, columns: Sequence[str]) -> Mapping[str, Values]:
        """The values of columns at some rows of a chunk."""


def _joined(
    schema: Schema,
    name: str,
    rows: Rows,
    parts: list[tuple[Rows, Values]],
    out: npt.NDArray[Any] | None,
) -> Values:
    field = schema[name]
    if field.stackable and all(isinstance(values, np.ndarray) for _, values in parts):
        if out is None:
            out = np.empty((len(rows), *field.fixed_shape), dtype=field.numpy_dtype)
        for places, values in parts:
            out[places] = values
        return out
    joined: list[Any] = [None] * len(rows)
    for places, values in parts:
        for place, value in zip(places.tolist(), _single(values), strict=True):
            joined[place] = value
    return column_of(schema, name, rows, joined, out)


def _single(values: Values) -> list[Any]:
    """Values as records have them: Python's numbers, arrays of their own, numpy's dates."""
    if not isinstance(values, np.ndarray):
        return values
    if values.ndim > 1:
        return [row.copy() for row in values]
    return list(values) if values.dtype.kind in "mM" else values.tolist()


def column_of(
    schema: Schema, name: str, rows: Rows, values: list[Any], out: npt.NDArray[Any] | None
) -> Values:
    """What ``Records.read`` gives for a column, from the values of its rows one by one."""
    lost = next((place for place, value in enumerate(values) if value is None), None)
    if out is not None and lost is not None:
        raise missing_in_out(name, int(rows[lost]))
    field = schema[name]
    if not field.stackable or lost is not None:
        return values
    array = np.empty((len(values), *field.fixed_shape), field.numpy_dtype) if out is None else out
    for row, value in enumerate(values):
        array[row] = value
    return array


class Cache(Generic[T]):
    """What was made last, within a bound of bytes.

    Args:
        nbytes: the bound. One value may exceed it, and is then the only one that is kept.

    Example:
        >>> cache = Cache[str](10)
        >>> cache.get("a", lambda: ("eight", 8)), cache.get("a", lambda: ("new", 8))
        ('eight', 'eight')
        >>> cache.get("b", lambda: ("four", 4)), cache.get("a", lambda: ("new", 8))
        ('four', 'new')
    """

    __slots__ = ("_bound", "_kept")

    def __init__(self, nbytes: int) -> None:
        self._bound = nbytes
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of a key; if it is not kept, ``make`` gives it with its size in bytes."""
        known = self._kept.get(key)
        if known is not None:
            self._touch(key)
            return known[0]
        made = make()
        self._kept[key] = made
        # The sum is taken anew: a running total would need a lock, which a fork may leave locked.
        total = sum(size for _, size in tuple(self._kept.values()))
        while total > self._bound and len(self._kept) > 1:
            try:
                _, (_, size) = self._kept.popitem(last=False)
            except KeyError:  # another thread was faster
                break
            total -= size
        return made[0]

    def _touch(self, key: Hashable) -> None:
        try:
            self._kept.move_to_end(key)
        except KeyError:  # another thread has dropped it meanwhile
            return

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
