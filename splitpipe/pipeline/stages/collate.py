"""Many rows into one batch.

Responsible for: `Stack`, what ``batch`` does with its rows when the user gives no function of his
own.

Rules:
- arrays of one shape and type become one array with a new first axis; the first row decides, its
  successors are copied into their row when they arrive, while they are still in the cache;
- numbers become an array; dicts, tuples, named tuples and dataclasses are batched field by field;
  anything else (strings, bytes, arrays of different shapes) stays a list: nothing is cast or
  dropped in silence, and padded only where a `Pad` says so;
- a batch of dataclasses is an instance of the same class whose fields are batches; its
  ``__post_init__`` is not called again, since that is about one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.pipeline.allocate import empty
from splitpipe.pipeline.stages.padding import Pad, Padded, pad_rows

__all__ = ["Rows", "Stack", "instance_of"]

_NUMBERS = (bool, int, float, complex, np.number, np.bool_)
_PAD_NAMES = ("values", "lengths", "mask")
_TRY = "; make the rows alike with map, or give batch a collate= of your own"


class Stack:
    """A batch in the making, of at most `size` rows.

    Args:
        size: most rows.
        pad: how rows of different lengths become one array: all of them, or those of the columns
            that are named; None: they stay lists.
        path: names of the columns that lead here from the whole batch, for messages.

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
        "_kind",
        "_pad",
        "_path",
        "_rows",
        "_shape",
        "_size",
        "_values",
        "count",
    )

    def __init__(
        self, size: int, pad: Pad | Mapping[str, Pad] | None = None, path: tuple[Any, ...] = ()
    ) -> None:
        self.count = 0
        self._size = size
        self._pad = pad
        self._path = path
        self._rows: list[Any] = []
        self._array: NDArray[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype: Any = None
        self._kind: Any = None
        self._children: dict[Any, Stack] | None = None
        self._values: Callable[[Any], Any] = tuple

    def add(self, row: Any) -> None:
        """Append `row`.

        Raises:
            ValueError: it does not have the fields of the rows before it.
        """
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
        """Return the batch; the stack is done with.

        Raises:
            ValueError: rows cannot be padded as was said.
        """
        if isinstance(self._pad, Mapping) and not self._path:
            unknown = self._pad.keys() - self._columns()
            if unknown:
                raise ValueError(f"a batch has no columns {sorted(unknown)} that could be padded")
        return self._finish()

    def _finish(self) -> Any:
        if self._children is not None:
            return self._finish_children()
        made = self._finish_column()
        if not isinstance(made, Padded):
            return made
        named = zip(_PAD_NAMES, made, strict=True)
        asked = {name: part for name, part in named if part is not None}
        return asked if len(asked) > 1 else made.values

    def _begin(self, row: Any) -> None:
        kind = type(row)
        if isinstance(self._pad, Pad) and _is_column(row):
            return  # how long the longest is, the last row says
        if kind is np.ndarray and not row.dtype.hasobject:
            self._shape, self._dtype = row.shape, row.dtype
            self._array = empty((self._size, *row.shape), row.dtype, near=row)
        elif kind is dict:
            self._divide(dict, row)
        elif isinstance(row, tuple):
            self._divide(kind, getattr(kind, "_fields", range(len(row))))
        elif is_dataclass(row):
            names = [field.name for field in fields(row)]
            if names:
                self._divide(kind, names)
                self._values = attrgetter(*names) if len(names) > 1 else _only(names[0])

    def _divide(self, kind: Any, keys: Any) -> None:
        self._kind = kind
        self._children = {}
        for key in keys:
            pad = self._pad.get(key, self._pad) if isinstance(self._pad, Mapping) else self._pad
            self._children[key] = Stack(self._size, pad, (*self._path, key))

    def _fall_back(self) -> None:
        """Rows turned out to differ: keep them as they came."""
        assert self._array is not None
        self._rows = [row.copy() for row in self._array[: self.count]]
        self._array = None

    def _add_children(self, row: Any) -> None:
        assert self._children is not None
        if self._kind is dict:
            if not isinstance(row, dict):
                raise self._other_kind(row)
            if row.keys() != self._children.keys():
                raise self._other_keys(list(row))
            for key, child in self._children.items():
                child.add(row[key])
            return
        if issubclass(self._kind, tuple) != isinstance(row, tuple) or (
            not isinstance(row, tuple) and type(row) is not self._kind
        ):
            raise self._other_kind(row)
        values = self._values(row)
        if len(values) != len(self._children):
            raise self._other_keys(list(range(len(values))))
        for child, value in zip(self._children.values(), values, strict=True):
            child.add(value)

    def _finish_children(self) -> Any:
        assert self._children is not None
        children, kind = self._children, self._kind
        if kind is not dict:
            values = [child._finish() for child in children.values()]
            if issubclass(kind, tuple):
                return getattr(kind, "_make", tuple)(values)
            return instance_of(kind, dict(zip(children, values, strict=True)))
        columns: dict[Any, Any] = {}
        for key, child in children.items():
            made = child._finish() if child._children is not None else child._finish_column()
            if not isinstance(made, Padded):
                columns[key] = made
                continue
            columns[key] = made.values
            for part, beside in (("lengths", made.lengths), ("mask", made.mask)):
                if beside is not None:
                    columns[self._beside(key, part)] = beside
        return columns

    def _finish_column(self) -> Any:
        if self._array is not None:
            array = self._array if self.count == self._size else self._array[: self.count]
            self._array = None  # whoever gets the batch is the only one to hold it
            return array
        rows, self._rows = self._rows, []
        if isinstance(self._pad, Pad) and rows and all(map(_may_be_padded, rows)):
            return pad_rows(rows, self._pad, self._where())
        return _numbers(rows) if len(set(map(type, rows))) == 1 else rows

    def _beside(self, key: Any, part: str) -> str:
        assert self._children is not None
        name = f"{key}_{part}"
        if name in self._children:
            raise ValueError(
                f"a batch cannot have the {part} of column {key!r} as {name!r}: "
                "there is such a column already; rename it with map"
            )
        return name

    def _other_kind(self, row: Any) -> ValueError:
        kind = "tuple" if issubclass(self._kind, tuple) else self._kind.__name__
        return ValueError(
            f"row {self.count} of a batch is a {type(row).__name__}, "
            f"the ones before it are {kind}s{self._where()}{_TRY}"
        )

    def _other_keys(self, keys: list[Any]) -> ValueError:
        assert self._children is not None
        known = list(self._children)
        missing = [key for key in known if key not in keys]
        more = [key for key in keys if key not in self._children]
        said = [f"missing: {missing}"] * bool(missing) + [f"too many: {more}"] * bool(more)
        return ValueError(
            f"row {self.count} of a batch has the keys {keys}, the ones before it have "
            f"{known} ({'; '.join(said)}){self._where()}{_TRY}"
        )

    def _columns(self) -> set[Any]:
        children = self._children or {}
        return set(children).union(*(child._columns() for child in children.values()))

    def _where(self) -> str:
        return f", column {''.join(f'[{key!r}]' for key in self._path)}" if self._path else ""


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


def instance_of(kind: type, values: Mapping[str, Any]) -> Any:
    """Return an instance of a dataclass with these fields, frozen or not, with slots or without;
    neither ``__init__`` nor ``__post_init__`` is called.
    """
    made: Any = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _is_column(row: Any) -> bool:
    """Whether a row has a length that may differ from that of the next one."""
    return isinstance(row, list) or (isinstance(row, np.ndarray) and row.ndim > 0)


def _may_be_padded(row: Any) -> bool:
    """Whether it is a column of numbers, or of other things of one size."""
    if isinstance(row, list):
        return not row or isinstance(row[0], (*_NUMBERS, list, np.ndarray))
    return _is_column(row)


def _only(name: str) -> Callable[[Any], Any]:
    value = attrgetter(name)
    return lambda row: (value(row),)


def _numbers(rows: list[Any]) -> Any:
    """An array of rows of one type, unless numpy could only make one by changing a number."""
    if not isinstance(rows[0], _NUMBERS):
        return rows
    array = np.array(rows)
    if isinstance(rows[0], int) and array.dtype.kind not in "iub":
        return rows  # beyond 64 bits, or a mixture that would become float
    return array
