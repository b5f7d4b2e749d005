"""Batches straight from columns.

Responsible for: `stacked`, which gives for columns that were read together exactly what
`Pipeline.batch` gives for their records one by one, at a fraction of its cost; and `cut`, which
takes a batch out of several that were read at once.

Rules:
- the result is the same value, with the same types, as that of stacking records: whether an
  iteration has a filter or not must not show in the type of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.pipeline.stages.collate import Stack
from splitpipe.schema import BARE, Schema

__all__ = ["cut", "stack", "stacked"]

_LISTS = frozenset({"bytes", "str", "image", "audio", "video"})
"""Kinds whose values are never stacked."""

_PLAIN = frozenset({str, bytes, type(None)})
"""Types whose values stay a list."""

_COUNTS = frozenset({int, float, bool})
"""Types whose values become an array."""

_LARGEST = np.iinfo(np.int64).max


def stack(rows: Sequence[Any]) -> Any:
    """Return the batch of records, as `Pipeline.batch` makes it.

    Raises:
        ValueError: they do not have the same fields.
    """
    first = rows[0]
    if type(first) is dict:
        names = first.keys()
        # Most records: by column, in a tenth of the time. What is not plainly so goes row by row.
        if all(type(row) is dict and row.keys() == names for row in rows):
            return {name: _values([row[name] for row in rows]) for name in names}
    return _stack(rows)


def stacked(schema: Schema, columns: dict[str, Any]) -> Any:
    """Return the batch of records whose columns are given, as a `Dataset` reads them.

    Example:
        >>> schema = Schema({"n": "int32", "text": "str"})
        >>> stacked(schema, {"n": np.array([1, 2], np.int32), "text": ["a", "b"]})
        {'n': array([1, 2]), 'text': ['a', 'b']}
    """
    made = {name: _column(schema[name].kind, values) for name, values in columns.items()}
    return made[BARE] if schema.bare else made


def cut(columns: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return rows ``start:stop`` of columns; arrays are views."""
    return {name: values[start:stop] for name, values in columns.items()}


def _values(values: list[Any]) -> Any:
    """Return one column of a batch."""
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        return values
    if len(kinds) == 1 and kinds <= _COUNTS:
        array = np.array(values)
        return array if array.dtype.kind in "iubf" else values  # beyond 64 bits
    return _stack(values)


def _stack(rows: Sequence[Any]) -> Any:
    made = Stack(len(rows))
    for row in rows:
        made.add(row)
    return made.finish()


def _column(kind: str, values: Any) -> Any:
    if not isinstance(values, np.ndarray):
        return values if kind in _LISTS else stack(values)
    return _numbers(values) if kind == "scalar" else values


def _numbers(values: NDArray[Any]) -> Any:
    """Return scalars as numpy makes an array of Python's numbers."""
    kind = values.dtype.kind
    if kind in "mM":
        return list(values)  # dates are no numbers: they would lose their unit
    if kind == "u" and values.dtype.itemsize == 8 and values.max() > _LARGEST:
        return values
    if kind in "iu":
        return values.astype(np.int64, copy=False)
    return values.astype({"f": np.float64, "c": np.complex128}.get(kind, values.dtype), copy=False)
