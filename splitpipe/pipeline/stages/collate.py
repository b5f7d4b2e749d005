"""Many rows into one batch.

Responsible for: `Stack`, what ``batch`` does with its rows when the user gives no function of his
own.

Rules:
- arrays of one shape and type become one array with a new first axis; the first row decides, its
  successors are copied into their row when they arrive, while they are still in the cache;
- numbers become an array, dicts and tuples are batched key by key; anything else (strings, bytes,
  arrays of different shapes) stays a list: nothing is padded, cast or dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.pipeline.allocate import empty

__all__ = ["Rows", "Stack"]

_NUMBERS = (bool, int, float, complex, np.number, np.bool_)


class Stack:
    """A batch in the making, of at most `size` rows.

    Example:
        >>> stack = Stack(2)
        >>> stack.add({"x": np.arange(3), "name": "a"})
        >>> stack.add({"x": np.arange(3), "name": "b"})
        >>> stack.finish()
        {'x': array([[0, 1, 2],
               [0, 1, 2]]), 'name': ['a', 'b']}
    """

    __slots__ = (
        "_array",
        "_children",
        "_dtype",
        "_make",
        "_rows",
        "_shape",
        "_size",
        "count",
    )

    def __init__(self, size: int) -> None:
        self.count = 0
        self._size = size
        self._rows: list[Any] = []
        self._array: NDArray[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype: Any = None
        self._children: dict[Any, Stack] | None = None
        self._make: Any = None

    def add(self, row: Any) -> None:
        """Append `row`."""
        array = self._array
        if array is not None:  # first, since it is the case that has to be fast
            if type(row) is np.ndarray and row.shape == self._shape and row.dtype == self._dtype:
                array[self.count] = row
            else:
                self._fall_back()
                self._rows.append(row)
            self.count += 1
            return
        if self.count == 0:
            self._begin(row)
            if self._array is not None:
                self.add(row)
                return
        if self._children is not None:
            self._add_children(row)
        else:
            self._rows.append(row)
        self.count += 1

    def finish(self) -> Any:
        """Return the batch; the stack is done with."""
        if self._array is not None:
            array = self._array if self.count == self._size else self._array[: self.count]
            self._array = None  # whoever gets the batch is the only one to hold it
            return array
        if self._children is not None:
            return self._make({key: child.finish() for key, child in self._children.items()})
        rows, self._rows = self._rows, []
        return _numbers(rows) if len(set(map(type, rows))) == 1 else rows

    def _begin(self, row: Any) -> None:
        kind = type(row)
        if kind is np.ndarray and not row.dtype.hasobject:
            self._shape, self._dtype = row.shape, row.dtype
            self._array = empty((self._size, *row.shape), row.dtype, near=row)
        elif kind is dict:
            self._children = {key: Stack(self._size) for key in row}
            self._make = _same
        elif isinstance(row, tuple):
            self._children = {i: Stack(self._size) for i in range(len(row))}
            self._make = _as_tuple(kind)

    def _fall_back(self) -> None:
        """Rows turned out to differ: keep them as they came."""
        assert self._array is not None
        self._rows = [row.copy() for row in self._array[: self.count]]
        self._array = None

    def _add_children(self, row: Any) -> None:
        assert self._children is not None
        kind = dict if self._make is _same else tuple
        if not isinstance(row, kind):
            raise ValueError(
                f"row {self.count} of a batch is a {type(row).__name__}, "
                f"the ones before it are {kind.__name__}s"
            )
        values = row if isinstance(row, dict) else dict(enumerate(row))
        if values.keys() != self._children.keys():
            raise ValueError(
                f"row {self.count} of a batch has the keys {list(values)}, "
                f"the ones before it have {list(self._children)}"
            )
        for key, child in self._children.items():
            child.add(values[key])


class Rows:
    """Rows for a function of the user's that makes the batch."""

    __slots__ = ("_collate", "_rows", "count")

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.count = 0
        self._collate = collate
        self._rows: list[Any] = []

    def add(self, row: Any) -> None:
        """Append `row`."""
        self._rows.append(row)
        self.count += 1

    def finish(self) -> Any:
        """Return the batch; the rows are no longer held."""
        rows, self._rows = self._rows, []
        return self._collate(rows)


def _numbers(rows: list[Any]) -> Any:
    """An array of rows of one type, unless numpy could only make one by changing a number."""
    if not isinstance(rows[0], _NUMBERS):
        return rows
    array = np.array(rows)
    if isinstance(rows[0], int) and array.dtype.kind not in "iub":
        return rows  # beyond 64 bits, or a mixture that would become float
    return array


def _same(columns: dict[Any, Any]) -> Any:
    return columns


def _as_tuple(kind: type) -> Any:
    make = getattr(kind, "_make", tuple)
    return lambda columns: make(columns[i] for i in range(len(columns)))
