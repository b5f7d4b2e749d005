"""Tables of Arrow, pandas and Polars as datasets, and datasets as tables.

Responsible for: `from_arrow`, `from_pandas` and `from_polars`, which give a `Dataset` over a table
in memory; `to_pandas` and `to_polars`. `splitpipe.convert` writes what these give into bins. Needs
the extra ``table`` (pyarrow), and ``pandas`` or ``polars``.

Rules:
- exact, or refused by name: a value here is the value there, and what is missing is missing;
- numbers without a missing one are not copied where their owner allows it;
- a NaN is a number, not a missing value, except in pandas' columns of objects, where it is how
  pandas says that one is missing. NaT is a missing value: tables know no other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError
from splitpipe.integrations.arrow import NOTE, to_arrow
from splitpipe.integrations.extras import imported
from splitpipe.schema import Field

__all__ = ["from_arrow", "from_pandas", "from_polars", "to_pandas", "to_polars"]


def from_arrow(table: Any) -> Dataset:
    """A ``pyarrow.Table`` (or a ``RecordBatch``, or a reader of them) as a dataset in memory.

    Numbers, text, bytes, dates, durations, lists of numbers, and what JSON can say. Dictionaries
    (categories) give their values. Times with a zone, decimals, times of day, and nested values
    with something else than numbers and text in them are refused. Names of columns that are no
    identifiers get ``_`` for what does not fit.

    Raises:
        FormatError: a column's values would become something else here.
        ImportError: pyarrow is not installed.

    Example:
        >>> import pyarrow as pa, splitpipe as sp
        >>> ds = sp.from_arrow(pa.table({"n": [1, None], "at": pa.array([0, 5], "timestamp[s]")}))
        >>> ds[1]
        {'n': None, 'at': np.datetime64('1970-01-01T00:00:05')}
    """
    pa = imported("pyarrow", extra="table", by="a table")
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    elif isinstance(table, pa.RecordBatchReader):
        table = table.read_all()
    elif not isinstance(table, pa.Table):
        raise FormatError(f"a pyarrow.Table is needed, not a {type(table).__name__}")
    arrow = import_module("splitpipe.formats.columnar.arrowtable")
    return dataset_of(arrow.ArrowTable(table))


def from_polars(frame: Any) -> Dataset:
    """A Polars ``DataFrame`` as a dataset in memory; see `from_arrow` for what is refused.

    Raises:
        FormatError: a column's values would become something else here.

    Example:
        >>> import polars as pl, splitpipe as sp
        >>> list(sp.from_polars(pl.DataFrame({"word": ["a", None], "n": [1, 2]})))
        [{'word': 'a', 'n': 1}, {'word': None, 'n': 2}]
    """
    pl = imported("polars", extra="polars", by="a frame of Polars")
    if isinstance(frame, pl.LazyFrame):
        raise FormatError("a LazyFrame has no rows yet: call .collect() first")
    if not isinstance(frame, pl.DataFrame):
        raise FormatError(f"a polars.DataFrame is needed, not a {type(frame).__name__}")
    for name, kind in frame.schema.items():
        if kind.base_type() is pl.Object:
            raise FormatError(f"column {name!r} holds Python objects: convert them first")
    try:
        return from_arrow(frame.to_arrow())
    except pl.exceptions.PolarsError as error:
        raise FormatError(f"Polars cannot hand over {frame.schema}: {error}") from error


def from_pandas(frame: Any) -> Dataset:
    """A pandas ``DataFrame`` as a dataset in memory; see `from_arrow` for what is refused.

    In columns of objects: arrays of one dtype, what JSON can say, text, bytes, numbers. Categories
    give their values.

    Raises:
        FormatError: a column's values would become something else here, or the frame has an index
            that would be lost.

    Example:
        >>> import pandas as pd, splitpipe as sp
        >>> ds = sp.from_pandas(pd.DataFrame({"word": ["a", None], "x": [0.5, float("nan")]}))
        >>> list(ds)
        [{'word': 'a', 'x': 0.5}, {'word': None, 'x': nan}]
    """
    pa, pd = (
        imported("pyarrow", extra="table", by="a table"),
        imported("pandas", extra="pandas", by="a frame of pandas"),
    )
    if not isinstance(frame, pd.DataFrame):
        raise FormatError(f"a pandas.DataFrame is needed, not a {type(frame).__name__}")
    index = frame.index
    if not (isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1)):
        raise FormatError(
            "the index of the frame would be lost: reset_index() makes it a column, "
            "reset_index(drop=True) drops it"
        )
    if not all(isinstance(name, str) for name in frame.columns) or not frame.columns.is_unique:
        raise FormatError(f"columns need names, each its own: {list(frame.columns)}")
    columns: dict[str, Any] = {}
    noted: dict[str, Any] = {}
    for name, series in frame.items():
        try:
            columns[name], field = _series(pa, series)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"column {name!r} ({series.dtype}): {error}") from error
        if field is not None:
            noted[name] = field.to_json()
    # Names that are none here are not looked up in the note: each column has one of its own.
    listed = [{"name": name, **field} for name, field in noted.items()]
    note = {NOTE: json.dumps({"columns": listed})} if listed else None
    return from_arrow(pa.table(columns).replace_schema_metadata(note))


def _series(pa: Any, series: Any) -> tuple[Any, Field | None]:
    """A column as an Arrow array, and what it is where its type does not say so."""
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        values = series.to_numpy(copy=False)
        if values.dtype.kind == "c":
            raise FormatError("Arrow has no complex numbers: split them into two columns")
        return pa.array(values, from_pandas=False), None
    if not isinstance(series.dtype, np.dtype):
        return pa.array(series, from_pandas=series.dtype.kind != "f"), None
    values = [None if _is_missing(value) else value for value in series]
    kinds = {type(value) for value in values if value is not None}
    if kinds and all(issubclass(kind, np.ndarray) for kind in kinds):
        return _object_arrays(pa, values)
    if any(issubclass(kind, dict | list | tuple) for kind in kinds):
        return pa.array([_as_json(value) for value in values], pa.large_string()), Field("json")
    if len(kinds) > 1 and not all(issubclass(kind, np.generic) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise FormatError(f"it holds objects of several types: {names}")
    return pa.array(values, from_pandas=False), None


def _is_missing(value: Any) -> bool:
    """What pandas has in a column of objects where a value is missing."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def _as_json(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False)
    if json.loads(text) != value:
        raise FormatError(f"JSON would make something else of {value!r:.100}")
    return text


def _object_arrays(pa: Any, values: list[Any]) -> tuple[Any, Field]:
    there = [value for value in values if value is not None]
    dtypes, shapes = {value.dtype for value in there}, {value.shape for value in there}
    if len(dtypes) > 1:
        raise FormatError(f"it holds arrays of several dtypes: {sorted(map(str, dtypes))}")
    axes = {len(shape) for shape in shapes}
    if len(axes) > 1:
        raise FormatError("it holds arrays of several numbers of axes")
    shape = tuple(
        lengths.pop() if len(lengths) == 1 else None for lengths in map(set, zip(*shapes))
    )
    field = Field("ndarray", dtypes.pop().name, shape)
    arrow = import_module("splitpipe.integrations.arrow")
    return arrow.arrow_array(field, values), field


# -- out ------------------------------------------------------------------------------------------


def to_polars(dataset: Dataset, columns: Sequence[str] | None = None) -> Any:
    """A dataset, or some of its columns, as a Polars ``DataFrame``.

    Columns are what `splitpipe.integrations.arrow.to_arrow` makes of them; JSON stays text. Polars
    has no dates in seconds: they are in milliseconds there.

    Raises:
        FormatError: there is no such column, or a type that Arrow or Polars lacks.

    Example:
        >>> import polars as pl, splitpipe as sp
        >>> ds = sp.from_polars(pl.DataFrame({"n": [1, None]}))
        >>> to_polars(ds)["n"].to_list()
        [1, None]
    """
    pl = imported("polars", extra="polars", by="a frame of Polars")
    table = to_arrow(dataset, columns)
    try:
        return pl.from_arrow(table.replace_schema_metadata(None))
    except pl.exceptions.PolarsError as error:
        raise FormatError(f"Polars cannot take {table.schema}: {error}") from error


def to_pandas(dataset: Dataset, columns: Sequence[str] | None = None) -> Any:
    """A dataset, or some of its columns, as a pandas ``DataFrame``.

    Numbers are numpy's, without a copy, or, where one is missing, pandas' own that know it
    (``Int64``); text is ``str``; arrays, bytes and JSON are objects. Days are in seconds, since
    pandas has none.

    Raises:
        FormatError: there is no such column, or a type that pandas lacks.

    Example:
        >>> import pandas as pd, splitpipe as sp
        >>> ds = sp.from_pandas(pd.DataFrame({"n": [1, 2]}))
        >>> to_pandas(ds)["n"].tolist()
        [1, 2]
    """
    pd = imported("pandas", extra="pandas", by="a frame of pandas")
    schema = dataset.schema
    names = tuple(schema) if columns is None else schema.checked_names(columns)
    batch = dataset.get_batch(range(len(dataset)), columns=names)
    found = {name: _pandas_column(pd, name, schema[name], batch[name]) for name in names}
    return pd.DataFrame(found, index=pd.RangeIndex(len(dataset)), copy=False)


def _pandas_column(pd: Any, name: str, field: Field, values: Any) -> Any:
    if field.kind == "scalar":
        if field.numpy_dtype.kind in "mM":
            return pd.Series(_in_units_of_pandas(name, field, values), copy=False)
        if isinstance(values, np.ndarray):
            return pd.Series(values.astype(values.dtype.newbyteorder("="), copy=False), copy=False)
        return _masked(pd, name, field, values)
    if field.kind == "str":
        return pd.Series(pd.array(values, dtype=pd.StringDtype(na_value=np.nan)))
    # One by one: pandas and numpy take lists of arrays of one shape for more axes.
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        objects[row] = value
    return pd.Series(objects, copy=False)


def _masked(pd: Any, name: str, field: Field, values: list[Any]) -> Any:
    """Numbers of which some are missing, and the others may be NaN."""
    kinds = {"b": "BooleanArray", "i": "IntegerArray", "u": "IntegerArray", "f": "FloatingArray"}
    dtype = field.numpy_dtype
    made = kinds.get(dtype.kind)
    if made is None or dtype.name == "float16":
        raise FormatError(
            f"column {name!r} is of {dtype.name} and has missing values, which pandas has no type "
            "for: select() other columns"
        )
    missing = np.array([value is None for value in values])
    numbers = np.array([0 if value is None else value for value in values], dtype=dtype.name)
    return pd.Series(getattr(pd.arrays, made)(numbers, missing))


def _in_units_of_pandas(name: str, field: Field, values: Any) -> npt.NDArray[Any]:
    dtype = field.numpy_dtype
    unit, count = np.datetime_data(dtype)
    coarse = unit in ("Y", "M", "W", "D", "h", "m")
    if count != 1 or not (coarse or unit in ("s", "ms", "us", "ns")):
        raise FormatError(f"column {name!r} is of {field.dtype}, which pandas has no type for")
    kind = "datetime64" if dtype.kind == "M" else "timedelta64"
    if isinstance(values, list):
        values = np.array(
            [np.array("NaT", dtype) if value is None else value for value in values], dtype
        )
    wanted = f"{kind}[{'s' if coarse else unit}]"
    exact = np.asarray(values).astype(wanted, copy=False)
    if coarse and not np.array_equal(exact.astype(dtype), values, equal_nan=True):
        raise FormatError(f"column {name!r} has a date that does not fit {wanted}")
    return exact
