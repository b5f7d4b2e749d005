"""Arrow columns of which something says what they were: our own note, or the type itself.

Responsible for: `noted_fields` (the fields that the writer of a table noted), `reading_as` (how a
column is read back as such a field), and `strict_reading`, which takes a column as exactly what
its type says, or refuses it. Imports pyarrow.

Rules:
- a note is believed only where the column's type is one that its writer would have chosen: a table
  that somebody changed since is read by its types;
- what a note calls a pickle is bytes: files do not decide that something is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from splitpipe.errors import FormatError
from splitpipe.formats.chunks import Values
from splitpipe.formats.columnar.arrowtypes import Reading, features_of, reading_of
from splitpipe.schema import Field, Schema

__all__ = ["NOTE", "noted_schema", "reading_as", "readings_of", "schema_of", "strict_reading"]

NOTE = b"splitpipe"
"""The key in a schema's metadata under which our own is kept."""

_BINARY = ("bytes", "image", "audio", "video")
_Nested = Callable[[pa.DataType], bool]


def noted_schema(schema: pa.Schema) -> Schema | None:
    """The schema of records that whoever made a table noted, or ``None``."""
    try:
        return Schema.from_json(json.loads((schema.metadata or {})[NOTE]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def readings_of(schema: pa.Schema, names: Mapping[str, str]) -> dict[str, Reading]:
    """How each column of a table is read.

    Args:
        schema: of the table.
        names: name of a column here -> its name in the table, in the table's order.
    """
    noted: Mapping[str, Field] = noted_schema(schema) or {}
    features = features_of(schema)
    readings: dict[str, Reading] = {}
    for place, (name, given) in enumerate(names.items()):
        kind = schema.field(place).type
        field = noted.get(given)
        known = None if field is None else reading_as(field, kind)
        readings[name] = known or reading_of(kind, features.get(given))
    return readings


def schema_of(schema: pa.Schema, readings: Mapping[str, Reading]) -> Schema:
    """The schema of records that are read so."""
    fields = {name: reading.field for name, reading in readings.items()}
    noted = noted_schema(schema)
    if noted is not None and noted.bare and list(noted) == list(fields):
        return Schema(next(iter(fields.values())))
    return Schema(fields)


def reading_as(field: Field, kind: pa.DataType) -> Reading | None:
    """How a column of a type is read as a field; ``None`` where it cannot be that field.

    Example:
        >>> reading_as(Field("json"), pa.large_string()).convert(pa.array(['{"a": 1}', None]))
        [{'a': 1}, None]
    """
    field = Field(field.kind, field.dtype, field.shape) if field.kind != "scalar" else field
    if field.kind == "json" and _is_text(kind):
        return Reading(field, _loaded)
    if field.kind in _BINARY and _is_binary(kind):
        return Reading(field, _listed)
    if field.kind == "scalar" and field.numpy_dtype.kind in "mM":
        return _times(field, kind)
    if field.kind == "ndarray":
        return _arrays(field, kind)
    return None


def strict_reading(kind: pa.DataType, where: str) -> Reading:
    """How a column is read if every value stays what it is.

    Raises:
        FormatError: values of this type would become something else.

    Example:
        >>> strict_reading(pa.timestamp("us"), "column 'when'").field
        Field('datetime64[us]')
    """
    if pa.types.is_dictionary(kind):
        inner = strict_reading(kind.value_type, where)
        return Reading(inner.field, lambda array: inner.convert(array.dictionary_decode()))
    name = _time_name(kind)
    if name is not None:
        found = _times(Field("scalar", dtype=name), kind)
        assert found is not None
        return found
    if _is_text(kind) or _is_binary(kind) or _is_plain(kind) or _is_json(kind):
        return reading_of(kind)
    advice = "cast it to text or to a number first"
    if pa.types.is_timestamp(kind):
        advice = "convert it to UTC and drop the time zone first, or cast it to text"
    raise FormatError(f"{where} is of Arrow's type {kind}, which no column here can hold: {advice}")


# --- types ---------------------------------------------------------------------------------------


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def _is_json(kind: pa.DataType) -> bool:
    """Whether JSON can say what is in a nested type."""
    if pa.types.is_struct(kind):
        inner = [kind.field(place).type for place in range(kind.num_fields)]
    elif _is_list(kind):
        inner = [kind.value_type]
    else:
        return False
    return all(_is_plain(one) or _is_text(one) or _is_json(one) for one in inner)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _time_name(kind: pa.DataType) -> str | None:
    if pa.types.is_date32(kind):
        return "datetime64[D]"
    if pa.types.is_date64(kind):
        return "datetime64[ms]"
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return f"datetime64[{kind.unit}]"
    if pa.types.is_duration(kind):
        return f"timedelta64[{kind.unit}]"
    return None


# --- values --------------------------------------------------------------------------------------


def _listed(array: pa.Array) -> Values:
    values: list[Any] = array.to_pylist()
    return values


def _loaded(array: pa.Array) -> Values:
    return [None if text is None else json.loads(text) for text in array.to_pylist()]


def _times(field: Field, kind: pa.DataType) -> Reading | None:
    """Dates and durations; a file may hold them in a finer unit, which must lose nothing."""
    if _time_name(kind) is None:
        return None
    dtype = field.numpy_dtype
    same = _time_name(kind) == field.dtype and not pa.types.is_date32(kind)
    wanted = pa.from_numpy_dtype(dtype)

    def convert(array: pa.Array) -> Values:
        exact = array if array.type == wanted else array.cast(wanted)
        whole = exact.cast(pa.int32()) if pa.types.is_date32(wanted) else exact
        numbers = whole.view(pa.int64()) if whole.type.bit_width == 64 else whole.cast(pa.int64())
        if not array.null_count:
            return _native(numbers).view(dtype)
        values = _native(numbers.fill_null(0)).view(dtype)
        return [
            value if valid else None
            for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)
        ]

    return Reading(field, convert, direct=same and not pa.types.is_date64(kind))


def _native(numbers: pa.Array) -> npt.NDArray[Any]:
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype="<i8")


def _arrays(field: Field, kind: pa.DataType) -> Reading | None:
    """Arrays as `splitpipe.integrations.arrow` lays them out."""
    if field.shape is None:
        if not pa.types.is_struct(kind) or kind.get_field_index("shape") < 0:
            return None
        return Reading(field, partial(_any_shape, dtype=field.numpy_dtype))
    inner = kind
    for length in field.shape:
        if not _is_list(inner):
            return None
        if pa.types.is_fixed_size_list(inner) and inner.list_size != length:
            return None
        inner = inner.value_type
    if not (pa.types.is_primitive(inner) or pa.types.is_boolean(inner)):
        return None
    return Reading(field, partial(_shaped, shape=field.shape, dtype=field.numpy_dtype))


def _any_shape(array: pa.Array, dtype: np.dtype[Any]) -> Values:
    shapes = array.field("shape").to_pylist()
    data = array.field("data")
    valid = array.is_valid().to_pylist()
    return [
        _flat(data.slice(row, 1), dtype).reshape(shapes[row]) if there else None
        for row, there in enumerate(valid)
    ]


def _flat(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The numbers of lists, end to end, as an array of their own."""
    while _is_list(array.type):
        array = array.flatten()
    if array.null_count:
        raise FormatError("an array of numbers has a part that is missing")
    return np.array(array.to_numpy(zero_copy_only=False), dtype=dtype)


def _shaped(array: pa.Array, shape: Sequence[int | None], dtype: np.dtype[Any]) -> Values:
    fixed = tuple(length for length in shape if length is not None)
    if len(fixed) == len(shape) and not array.null_count:
        return _flat(array, dtype).reshape(len(array), *fixed)
    rows: list[Any] = []
    for row, there in enumerate(array.is_valid().to_pylist()):
        part = array.slice(row, 1)
        rows.append(_flat(part, dtype).reshape(_shape_of(part, shape)) if there else None)
    return rows


def _shape_of(one: pa.Array, shape: Sequence[int | None]) -> tuple[int, ...]:
    """The shape of the only array in a list of arrays."""
    found: list[int] = []
    for length in shape:
        lengths = set(one.value_lengths().to_pylist()) if len(one) else {length or 0}
        if len(lengths) != 1 or (length is not None and lengths != {length}):
            raise FormatError(f"an array has an axis of {sorted(lengths)} items")
        found.append(lengths.pop())
        one = one.flatten()
    return tuple(found)
