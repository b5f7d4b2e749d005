"""Arrow's columns as columns of records.

Responsible for: which `Field` an Arrow type is (`reading_of`), and the values of some rows of an
Arrow array. Imports pyarrow: only the formats that need it import this module, when they open.

Rules:
- an array that came from a file is validated (``validate(full=True)``) by who read it before a
  value is taken from it here: Arrow trusts the offsets inside of an array;
- what has no kind of its own among the fields is given as text (times, decimals) or as JSON
  (structures, ragged lists), never guessed at.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError, StorageError
from splitpipe.formats.chunks import Values
from splitpipe.schema import Field
from splitpipe.storage.base import Rows

__all__ = ["Reading", "features_of", "reading_of", "refused"]

Column: TypeAlias = "pa.Array | pa.ChunkedArray"
# As many strings are taken faster one by one than by a call that gathers them first.
_ONE_BY_ONE = 16
_MEDIA = {"Image": "image", "Audio": "audio", "Video": "video"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a column of some Arrow type is read.

    Attributes:
        field: what it is.
        convert: the values of a whole array.
        direct: whether the array's values are a numpy array as they lie, so that a few of them
            are picked there.
    """

    field: Field
    convert: Callable[[pa.Array], Values]
    direct: bool = False

    def values(self, column: Column, rows: Rows) -> Values:
        """The values at some rows of a validated column."""
        if self.direct and isinstance(column, pa.Array) and not column.null_count:
            picked: npt.NDArray[Any] = column.to_numpy()[rows]
            return picked
        if self.convert is _objects and len(rows) <= _ONE_BY_ONE:
            return [column[row].as_py() for row in rows.tolist()]
        first = int(rows[0])
        if int(rows[-1]) - first == len(rows) - 1 and (np.diff(rows) == 1).all():
            taken = column.slice(first, len(rows))
        else:
            taken = column.take(pa.array(rows))
        if isinstance(taken, pa.ChunkedArray):
            taken = taken.combine_chunks()
        return self.convert(taken)


@contextmanager
def refused(where: str, error: type[FormatError] = CorruptRecord) -> Iterator[None]:
    """Turn what Arrow raises into an error of ours that says where."""
    try:
        yield
    except SplitpipeError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError) as problem:
        if isinstance(problem, OSError) and problem.errno:
            reason = problem.strerror or str(problem)
            raise StorageError(problem.errno, f"cannot read: {reason}", where) from problem
        raise error(f"{where}: {problem}; it was cut or is damaged: copy it again") from problem
    except MemoryError as problem:
        raise error(f"{where} asks for more memory than there is: {problem}") from problem


def reading_of(kind: pa.DataType, feature: Mapping[str, Any] | None = None) -> Reading:
    """How a column is read.

    Args:
        kind: its Arrow type.
        feature: what Hugging Face's library noted about it, if it did.

    Example:
        >>> reading_of(pa.list_(pa.int32(), 3)).field.shape
        (3,)
        >>> reading_of(pa.timestamp("s")).field.kind
        'str'
    """
    if isinstance(kind, pa.BaseExtensionType):
        inner = reading_of(kind.storage_type, feature)
        return Reading(inner.field, lambda array: inner.convert(array.storage))
    special = _feature(kind, feature or {})
    if special is not None:
        return special
    if pa.types.is_dictionary(kind):
        inner = reading_of(kind.value_type)
        return Reading(inner.field, lambda array: inner.convert(array.dictionary_decode()))
    scalar = _numpy_name(kind)
    if scalar is not None:
        return Reading(Field("scalar", dtype=scalar), _scalars, not pa.types.is_boolean(kind))
    for test, reading in _PLAIN:
        if test(kind):
            return reading
    return _list(kind) or Reading(Field("json"), _json)


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face's library noted about the columns: its ``features``, or nothing."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


# --- plain values --------------------------------------------------------------------------------


def _numpy_name(kind: pa.DataType) -> str | None:
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    name: str = np.dtype(kind.to_pandas_dtype()).name
    return name


def _scalars(array: pa.Array) -> Values:
    if array.null_count:
        return _objects(array)
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def _objects(array: pa.Array) -> Values:
    values: list[Any] = array.to_pylist()
    return values


def _as_text(array: pa.Array) -> Values:
    return _objects(array.cast(pa.string()))


def _whole(array: pa.Array) -> Values:
    """Durations as whole numbers of their unit."""
    return _scalars(array.cast(pa.int64()))


def _json(array: pa.Array) -> Values:
    return [_plain(value) for value in array.to_pylist()]


def _plain(value: Any) -> Any:
    """A value as JSON can say it."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    return value


_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], Reading], ...] = (
    (
        lambda kind: (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind)
        ),
        Reading(Field("str"), _objects),
    ),
    (
        lambda kind: (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
            or pa.types.is_binary_view(kind)
        ),
        Reading(Field("bytes"), _objects),
    ),
    (pa.types.is_duration, Reading(Field("scalar", dtype="int64"), _whole)),
    (
        lambda kind: (
            (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
            or pa.types.is_decimal(kind)
        ),
        Reading(Field("str"), _as_text),
    ),
)


# --- lists of numbers ----------------------------------------------------------------------------


def _list(kind: pa.DataType) -> Reading | None:
    """Lists of numbers as arrays: of one shape where the type says so, else of one free axis."""
    shape: list[int] = []
    inner = kind
    while pa.types.is_fixed_size_list(inner):
        shape.append(inner.list_size)
        inner = inner.value_type
    if shape:
        name = _numpy_name(inner)
        return None if name is None else _array(name, tuple(shape))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        name = _numpy_name(kind.value_type)
        if name is not None:
            return Reading(Field("ndarray", dtype=name, shape=(None,)), _rows_of(name))
    return None


def _array(name: str, shape: tuple[int, ...]) -> Reading:
    def convert(array: pa.Array) -> Values:
        if array.null_count:
            return [
                _block(array.slice(row, 1), name, shape)[0] if valid else None
                for row, valid in enumerate(array.is_valid().to_pylist())
            ]
        return _block(array, name, shape)

    return Reading(Field("ndarray", dtype=name, shape=shape), convert)


def _block(array: pa.Array, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Lists without missing ones as one array of shape (n, *shape)."""
    count = len(array)
    for axis in shape:
        if not pa.types.is_fixed_size_list(array.type):
            lengths = np.diff(array.offsets.to_numpy())
            if (lengths != axis).any():
                raise FormatError(f"an array of shape {shape} has an axis of {lengths.max()}")
        if array.null_count:
            raise FormatError("an array of numbers has a part that is missing")
        array = array.flatten()
    return _numbers(array, name).reshape(count, *shape)


def _numbers(array: pa.Array, name: str) -> npt.NDArray[Any]:
    if array.null_count:
        raise FormatError("a list of numbers has a number that is missing (null)")
    return np.array(array.to_numpy(zero_copy_only=False), dtype=name)


def _rows_of(name: str) -> Callable[[pa.Array], Values]:
    def convert(array: pa.Array) -> Values:
        bounds = array.offsets.to_numpy().tolist()
        first = bounds[0]
        values = _numbers(array.values.slice(first, bounds[-1] - first), name)
        rows: list[Any] = [
            values[start - first : stop - first].copy() for start, stop in pairwise(bounds)
        ]
        if array.null_count:
            for row, valid in enumerate(array.is_valid().to_pylist()):
                if not valid:
                    rows[row] = None
        return rows

    return convert


# --- what Hugging Face's library means by a type -------------------------------------------------


def _feature(kind: pa.DataType, feature: Mapping[str, Any]) -> Reading | None:
    what = feature.get("_type")
    if what in _MEDIA and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return Reading(Field(_MEDIA[what]), _media)
    if what in _MEDIA and pa.types.is_binary(kind):
        return Reading(Field(_MEDIA[what]), _objects)
    shape = feature.get("shape")
    if isinstance(what, str) and what.startswith("Array") and isinstance(shape, list):
        inner = kind
        for _ in shape:
            if not (pa.types.is_list(inner) or pa.types.is_fixed_size_list(inner)):
                return None
            inner = inner.value_type
        name = _numpy_name(inner)
        if name is not None and all(type(axis) is int and axis > 0 for axis in shape):
            return _array(name, tuple(shape))
    return None


def _media(array: pa.Array) -> Values:
    stored = array.field("bytes").to_pylist()
    if not array.null_count and None not in stored:
        return list(stored)
    paths: list[Any] = [None] * len(stored)
    if array.type.get_field_index("path") >= 0:
        paths = array.field("path").to_pylist()
    for row, valid in enumerate(array.is_valid().to_pylist()):
        if not valid:
            stored[row] = None
        elif stored[row] is None and paths[row] is not None:
            raise FormatError(
                f"the dataset holds only the path {paths[row]!r} of a file, not the file: save it "
                "anew with the files embedded"
            )
    return list(stored)
