"""Datasets as Arrow tables, for questions that need more than a clause: DuckDB, Polars, pandas.

Responsible for: `to_arrow` (a table in memory), `record_batches` (a stream of batches, for data
larger than memory) and which column becomes what. Needs the extra ``table`` (pyarrow).

| column | Arrow |
|---|---|
| scalar | its type; dates of days are ``date32`` |
| array of a fixed shape | fixed-size lists, one in another for each axis, without copying |
| array with free axes | lists, one in another |
| array of any shape | a struct of ``shape`` and flat ``data`` |
| ``str`` | ``large_string`` |
| ``json`` | ``large_string``, the JSON text |
| ``bytes``, ``pickle``, image, audio, video | ``large_binary`` |

A missing value is null. The columns' own types are noted in the schema's metadata: what reads Arrow
and Parquet here takes columns back as what they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError
from splitpipe.integrations.extras import imported
from splitpipe.schema import Field, Schema

__all__ = ["NOTE", "arrow_array", "arrow_schema", "record_batches", "to_arrow"]

_BATCH_ROWS = 16384
# Under which key of a schema's metadata the columns' own types are noted; as ``arrowfields`` reads.
NOTE = b"splitpipe"


def to_arrow(
    dataset: Dataset, columns: Sequence[str] | None = None, *, metadata: bool = False
) -> Any:
    """A dataset, or some of its columns, as a ``pyarrow.Table`` in memory.

    Args:
        dataset: any dataset or view.
        columns: which columns, all of them unless said.
        metadata: add ``key`` and ``meta`` (JSON text) of every record.

    Raises:
        ImportError: pyarrow is not installed.
        FormatError: there is no such column, no catalog, or a type that Arrow lacks.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write_many([{"text": "a", "n": 1}, {"text": None, "n": 2}])
        >>> to_arrow(sp.open_dataset(path)).to_pylist()
        [{'text': 'a', 'n': 1}, {'text': None, 'n': 2}]
    """
    stream = record_batches(dataset, columns, metadata=metadata)
    return _pyarrow().Table.from_batches(list(stream), schema=stream.schema)


def record_batches(
    dataset: Dataset,
    columns: Sequence[str] | None = None,
    *,
    metadata: bool = False,
    rows: int = _BATCH_ROWS,
) -> Any:
    """A dataset as a ``pyarrow.RecordBatchReader``: batches are read when they are asked for.

    Args:
        dataset: any dataset or view.
        columns: which columns, all of them unless said.
        metadata: add ``key`` and ``meta`` (JSON text) of every record.
        rows: how many records a batch has.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"a", b"b", b"c"])
        >>> [batch.num_rows for batch in record_batches(sp.open_dataset(path), rows=2)]
        [2, 1]
    """
    pa = _pyarrow()
    names = tuple(dataset.schema) if columns is None else dataset.schema.checked_names(columns)
    schema = arrow_schema(dataset.schema, names, metadata=metadata)
    if metadata:
        dataset.keys([])  # says so if there is no catalog
    return pa.RecordBatchReader.from_batches(
        schema, _batches(dataset, names, schema, metadata, rows)
    )


def _batches(
    dataset: Dataset, names: Sequence[str], schema: Any, metadata: bool, rows: int
) -> Iterator[Any]:
    pa = _pyarrow()
    for start in range(0, len(dataset), rows):
        block = range(start, min(start + rows, len(dataset)))
        batch = dataset.get_batch(block, columns=names)
        arrays = [
            _array(dataset.schema[name], batch[name], schema.field(name).type) for name in names
        ]
        if metadata:
            metas = dataset.metas(block)
            arrays.append(pa.array(dataset.keys(block), pa.large_string()))
            arrays.append(pa.array([json.dumps(m) for m in metas], pa.large_string()))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def arrow_schema(schema: Schema, names: Sequence[str], *, metadata: bool = False) -> Any:
    """The Arrow schema of some columns.

    Raises:
        FormatError: a column is of a type that Arrow lacks, or has the name of what
            ``metadata`` adds.
    """
    pa = _pyarrow()
    fields = [pa.field(name, _type(name, schema[name])) for name in names]
    if metadata:
        taken = {"key", "meta"} & set(names)
        if taken:
            raise FormatError(
                f"column {taken.pop()!r} has the name of what metadata=True adds: name the "
                "columns that are wanted"
            )
        fields += [pa.field("key", pa.large_string()), pa.field("meta", pa.large_string())]
    noted = schema if schema.bare else schema.select(names)
    return pa.schema(fields, metadata={NOTE: json.dumps(noted.to_json())})


def _type(name: str, field: Field) -> Any:
    pa = _pyarrow()
    if field.kind in ("str", "json"):
        return pa.large_string()
    if field.kind not in ("scalar", "ndarray"):
        return pa.large_binary()
    try:
        inner = pa.from_numpy_dtype(field.numpy_dtype)
    except (pa.ArrowNotImplementedError, NotImplementedError) as error:
        raise FormatError(
            f"column {name!r} is of {field.dtype}, which Arrow has no type for: select() others"
        ) from error
    if field.kind == "scalar":
        return inner
    if field.shape is None:
        return pa.struct({"shape": pa.list_(pa.int64()), "data": pa.large_list(inner)})
    for length in reversed(field.shape):
        inner = pa.large_list(inner) if length is None else pa.list_(inner, length)
    return inner


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can stand for
        return json.dumps(value)
    return text


def arrow_array(field: Field, values: Any) -> Any:
    """Values of a column as an Arrow array.

    Args:
        field: what the column is.
        values: an array of shape (n, ...), or a list of n values, ``None`` for a missing one.

    Example:
        >>> arrow_array(Field("json"), [{"a": 1}, None]).to_pylist()
        ['{"a": 1}', None]
    """
    return _array(field, values, _type("of these values", field))


def _array(field: Field, values: Any, kind: Any) -> Any:
    """One column of one batch."""
    pa = _pyarrow()
    if isinstance(values, np.ndarray):
        return _stacked(values, kind)
    if field.kind == "scalar" and field.numpy_dtype.kind in "mM":
        return _times(field, values, kind)
    if field.kind == "json":
        values = [None if v is None else _json(v) for v in values]
    elif field.kind == "ndarray" and field.shape is None:
        values = [
            None if v is None else {"shape": list(v.shape), "data": v.reshape(-1)} for v in values
        ]
    elif field.kind == "ndarray":
        values = [None if v is None else v.tolist() if v.ndim > 1 else v for v in values]
    elif field.kind not in ("scalar", "str"):
        values = [v if v is None or isinstance(v, bytes) else _encoded(field, v) for v in values]
    return pa.array(values, kind)


def _times(field: Field, values: list[Any], kind: Any) -> Any:
    """Dates of which some are missing: Arrow takes numpy's only out of arrays."""
    missing = np.array([value is None for value in values], dtype=bool)
    numbers = np.array([0 if v is None else np.int64(v.view("i8")) for v in values], dtype="i8")
    return _pyarrow().array(numbers.view(field.numpy_dtype), kind, mask=missing)


def _stacked(values: npt.NDArray[Any], kind: Any) -> Any:
    """Values of one shape: the memory of the array becomes that of the column."""
    pa = _pyarrow()
    flat = np.ascontiguousarray(values).reshape(-1)
    lengths = values.shape[1:]
    inner = kind
    for _ in lengths:
        inner = inner.value_type
    array = pa.array(flat, inner)
    for length in reversed(lengths):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array if array.type == kind else array.cast(kind)


def _encoded(field: Field, value: Any) -> bytes:
    raise FormatError(
        f"a {field.kind} is a {type(value).__name__} here, which Arrow has no type for: open the "
        "dataset without decode= and allow_pickle="
    )


def _pyarrow() -> Any:
    return imported("pyarrow", extra="table", by="an Arrow table")
