"""Which column becomes what between our records and Ray's blocks, in both directions.

Responsible for: `block_of`, records as an Arrow table with Ray's tensors; `schema_of` and
`columns_of`, such a table as columns of records.

| column | block |
|---|---|
| scalar, ``str``, ``bytes``, media | as `splitpipe.integrations.arrow` says |
| ``json`` | the JSON text |
| array with a known number of axes | a tensor of Ray's; as lists with ``tensors=False`` |
| array of any shape | a struct of ``shape`` and flat ``data`` |

Rules:
- a column has one type in all blocks, whatever values a block happens to have: what does not fit is
  an error, never another type;
- nothing is pickled: Ray's columns of Python objects are refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data.extensions import (
    ArrowPythonObjectType,
    ArrowTensorArray,
    ArrowVariableShapedTensorArray,
    ArrowVariableShapedTensorType,
    get_arrow_extension_tensor_types,
)

from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError
from splitpipe.formats.columnar.arrowtypes import reading_of, refused
from splitpipe.integrations.arrow import record_batches
from splitpipe.schema import BARE, Field, Schema
from splitpipe.storage.base import Batch, Rows, Values

__all__ = ["block_of", "columns_of", "schema_of"]


def block_of(dataset: Dataset, rows: Rows, names: Sequence[str], *, tensors: bool) -> pa.Table:
    """Some records as a block.

    Args:
        dataset: what to read.
        rows: which, in the order in which they are wanted; at least one.
        names: of the columns, at least one.
        tensors: whether arrays become Ray's tensors.

    Raises:
        FormatError: an array is missing where it should be a tensor, or Arrow lacks a type.
    """
    schema = dataset.schema
    as_tensors = [name for name in names if tensors and _is_tensor(schema[name])]
    plain = [name for name in names if name not in as_tensors]
    made: dict[str, Any] = {}
    if plain:
        batch = record_batches(dataset.subset(rows), plain, rows=len(rows)).read_next_batch()
        made = dict(zip(plain, batch.columns, strict=True))
    if as_tensors:
        for name, values in dataset.get_batch(rows, columns=as_tensors).items():
            made[name] = _tensors(name, schema[name], values)
    return pa.table({name: made[name] for name in names})


def _is_tensor(field: Field) -> bool:
    return (
        field.kind == "ndarray" and field.shape is not None and field.numpy_dtype.kind not in "mMc"
    )


def _tensors(name: str, field: Field, values: Values) -> Any:
    if isinstance(values, np.ndarray):
        return ArrowTensorArray.from_numpy(np.ascontiguousarray(values))
    if any(value is None for value in values):
        raise FormatError(
            f"column {name!r} has values that are missing, which a tensor of Ray's cannot be: say "
            "tensors=False to have lists, or select() other columns"
        )
    # One type for all blocks, also where all arrays of this one have the same shape.
    return ArrowVariableShapedTensorArray.from_numpy([np.ascontiguousarray(v) for v in values])


# -- from Ray --------------------------------------------------------------------------------


def schema_of(kind: pa.Schema) -> Schema:
    """The columns that an Arrow schema suggests.

    Raises:
        FormatError: a column has no type, or holds Python objects.

    Example:
        >>> schema_of(pa.schema({"n": pa.int32(), "text": pa.string()}))
        Schema({'n': Field('int32'), 'text': Field('str')})
    """
    return Schema({field.name: _field(field.name, field.type) for field in kind})


def _field(name: str, kind: pa.DataType) -> Field:
    if isinstance(kind, ArrowPythonObjectType) or pa.types.is_null(kind):
        what = "only missing values" if pa.types.is_null(kind) else "pickled Python objects"
        raise FormatError(
            f"column {name!r} has {what} for Ray, so that no type follows: say schema=, and give "
            "values that Arrow has a type for"
        )
    if isinstance(kind, ArrowVariableShapedTensorType):
        return Field("ndarray", _numpy(_values_of(kind)), (None,) * kind.ndim)
    if isinstance(kind, get_arrow_extension_tensor_types()):
        return Field("ndarray", _numpy(_values_of(kind)), tuple(kind.shape))
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return Field("scalar", f"datetime64[{kind.unit}]")
    if pa.types.is_date32(kind):
        return Field("scalar", "datetime64[D]")
    if pa.types.is_duration(kind):
        return Field("scalar", f"timedelta64[{kind.unit}]")
    return reading_of(kind).field


def _values_of(kind: Any) -> pa.DataType:
    """The type of a tensor's values, which Ray has called otherwise before."""
    return kind.value_type if hasattr(kind, "value_type") else kind.scalar_type


def _numpy(kind: pa.DataType) -> str:
    name: str = np.dtype(kind.to_pandas_dtype()).name
    return name


def columns_of(table: pa.Table, schema: Schema) -> Batch:
    """The values of a block, for records of a schema.

    Raises:
        FormatError: columns differ, or one cannot be what the schema says.
    """
    names = [BARE] if schema.bare else list(schema)
    given = table.column_names
    if schema.bare and len(given) == 1:
        table = table.rename_columns(names)
    elif set(given) != set(names):
        raise FormatError(
            f"the blocks have the columns {sorted(given)}, the schema says {sorted(names)}: "
            "select_columns() or rename_columns() before writing, or say another schema="
        )
    return {name: _values(name, schema[name], table.column(name)) for name in names}


def _values(name: str, field: Field, column: pa.ChunkedArray) -> Values:
    parts = [_of_array(name, field, chunk) for chunk in column.chunks]
    if not parts:
        return []
    if all(isinstance(part, np.ndarray) and part.dtype != object for part in parts):
        arrays: list[Any] = list(parts)
        if len({part.shape[1:] for part in arrays}) == 1:
            return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return [value for part in parts for value in part]


def _of_array(name: str, field: Field, array: pa.Array) -> Values:
    kind = array.type
    if isinstance(kind, ArrowPythonObjectType):
        _field(name, kind)  # which refuses it
    if isinstance(kind, get_arrow_extension_tensor_types()):
        return _of_tensors(array)
    if field.kind == "scalar" and field.numpy_dtype.kind in "mM":
        return _dates(name, field, array)
    if field.kind == "json" and _is_text(kind):
        return [None if text is None else json.loads(text) for text in array.to_pylist()]
    with refused(f"column {name!r}", FormatError):
        return reading_of(kind).convert(array)


def _of_tensors(array: Any) -> Values:
    if not array.null_count:
        values: Values = array.to_numpy(zero_copy_only=False)
        return values
    there = array.is_valid().to_pylist()
    return [
        array.slice(at, 1).to_numpy(zero_copy_only=False)[0] if valid else None
        for at, valid in enumerate(there)
    ]


def _dates(name: str, field: Field, array: pa.Array) -> Values:
    with refused(f"column {name!r}", FormatError):
        wanted = array.cast(pa.from_numpy_dtype(field.numpy_dtype))
        values: Any = wanted.to_numpy(zero_copy_only=False).astype(field.numpy_dtype)
    if not wanted.null_count:
        dates: Values = values
        return dates
    there = wanted.is_valid().to_pylist()
    return [value if valid else None for value, valid in zip(values, there, strict=True)]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
