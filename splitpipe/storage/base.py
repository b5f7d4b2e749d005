"""The seam under every dataset: records by row, column by column.

Responsible for: the protocols `Records` (what our own format, every foreign format and every view
offers) and `Catalog` (keys, metadata and SQL over rows); `MemoryRecords`, the real twin in
memory; and what implementations share: iterating in blocks, and a layout for rows that lie in no
bins.

Rules:
- rows reach an implementation checked: int64, from 0 to ``len - 1``, in any order, repeated as
  one likes;
- no lock and no seek position is kept between calls: safe in threads, after fork and spawn;
- an implementation pickles by itself, as what it needs to open the same snapshot again;
- ``close`` may be called twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import BARE, Schema, fit_array
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.unreadable import Unreadable

__all__ = [
    "Batch",
    "Catalog",
    "MemoryRecords",
    "Order",
    "Records",
    "Rows",
    "Unreadable",
    "consecutive_layout",
    "given_array",
    "iterate_blocks",
    "missing_in_out",
    "records_of",
]

Rows = npt.NDArray[np.int64]
# What a column gives for several rows.
Values = list[Any] | npt.NDArray[Any]
Batch = dict[str, Values]

BLOCK_NBYTES = 16 << 20
_BLOCK_RECORDS = 2048
_FIRST_BLOCK_RECORDS = 16
# Bins that are told of rows which lie in none.
_CONSECUTIVE_BINS = 64


class Order(Protocol):
    """What is needed of an order here; ``splitpipe.order`` makes them."""

    def __len__(self) -> int:
        """Number of positions."""

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``."""


class Catalog(Protocol):
    """Keys and metadata of records, and questions about them in SQL."""

    def row(self, key: str) -> int:
        """The row of a key.

        Raises:
            KeyError: there is none.
        """

    def keys(self, rows: Rows) -> list[str | None]:
        """The keys of rows; ``None`` for a record without one."""

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """The metadata of rows; empty for a record without any."""

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """The rows for which a clause of SQL is true, ascending."""

    def close(self) -> None:
        """Let go of the files; a second call does nothing."""


class Records(Protocol):
    """Records of any kind, by row.

    Attributes:
        schema: the columns of a record.
        catalog: keys, metadata and SQL; ``None`` where there are none.
    """

    schema: Schema
    catalog: Catalog | None

    def __len__(self) -> int:
        """Number of records."""

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """Values of some columns.

        Args:
            rows: int64 array of shape (n,), checked.
            columns: names of the schema; nothing of the others is touched.
            out: arrays to fill, by column; each of the column's dtype and of shape
                (n, ...), C-contiguous. Only for stackable columns.

        Returns:
            By column, in the order of ``columns``: an array of shape (n, ...) for a
            stackable column (``out[name]`` if given) without a missing value among these
            rows, else a list of n values, ``None`` for a missing one.

        Raises:
            FormatError: data is damaged, or ``out`` does not fit, also because a value is
                missing.
        """

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """Records at positions of an order, read ahead in blocks of bounded bytes."""

    def layout(self) -> BinLayout:
        """Which rows lie together, for binwise orders."""

    def close(self) -> None:
        """Let go of the files; a second call does nothing."""


def records_of(schema: Schema, batch: Batch) -> list[Any]:
    """Records from columns: plain values, or a dict each.

    Example:
        >>> records_of(Schema({"a": "int64", "b": "str"}), {"a": [1, 2], "b": ["x", None]})
        [{'a': 1, 'b': 'x'}, {'a': 2, 'b': None}]
    """
    columns = [_values(schema, name, batch[name]) for name in batch]
    if schema.bare:
        return columns[0]
    names = tuple(batch)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(schema: Schema, name: str, values: Values) -> list[Any]:
    """A column as single values: Python's numbers for scalars, arrays of their own for arrays."""
    if not isinstance(values, np.ndarray):
        return values
    if schema[name].kind != "scalar":
        return [row.copy() for row in values]
    # Dates stay numpy's: as Python's they would lose their unit.
    return list(values) if values.dtype.kind in "mM" else values.tolist()


def iterate_blocks(
    records: Records,
    order: Order,
    start: int,
    stop: int,
    after: Callable[[int], None] | None = None,
) -> Iterator[Any]:
    """`Records.iterate` for whoever has nothing better: blocks of about `BLOCK_NBYTES`.

    How many records a block has follows from how large those of the blocks before were; the
    first has few.

    Args:
        records: what is read.
        order: over its rows.
        start: the first position.
        stop: the position after the last one.
        after: called with the position behind each block, before its records are handed out.
    """
    names = tuple(records.schema)
    count, at = _FIRST_BLOCK_RECORDS, start
    while at < stop:
        end = min(stop, at + count)
        block = records_of(records.schema, records.read(order.indices(at, end), names))
        mean = sum(map(_nbytes, block)) / len(block)
        count = int(min(_BLOCK_RECORDS, max(1.0, BLOCK_NBYTES / max(mean, 1.0)), 16 * count))
        at = end
        if after is not None:
            after(end)
        yield from block


def _nbytes(value: Any) -> int:
    """About how much memory a value takes."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return sys.getsizeof(value, 64)


def consecutive_layout(rows: int, bins: int = _CONSECUTIVE_BINS) -> BinLayout:
    """A layout for rows that lie in no bins: consecutive rows in every bin.

    Example:
        >>> [list(bin) for bin in consecutive_layout(7, bins=3).bins()]
        [[0, 1], [2, 3], [4, 5, 6]]
    """
    count = max(1, min(rows, bins))
    bounds = [number * rows // count for number in range(count + 1)]
    return BinLayout(
        [
            Segment(first, last - first, number, 1)
            for number, (first, last) in enumerate(pairwise(bounds))
        ]
    )


def given_array(
    schema: Schema, name: str, count: int, out: Mapping[str, npt.NDArray[Any]] | None
) -> npt.NDArray[Any] | None:
    """The array that a caller gave for a column, looked at; ``None`` without one.

    Raises:
        FormatError: it is not of the column's dtype and shape, or cannot be written.
    """
    if out is None or name not in out:
        return None
    array: Any = out[name]
    field = schema[name]
    if not field.stackable:
        raise FormatError(f"out[{name!r}]: {field!r} gives a list, there is no array to fill")
    shape = (count, *field.fixed_shape)
    if not isinstance(array, np.ndarray) or array.dtype != field.numpy_dtype:
        raise FormatError(f"out[{name!r}] must be a numpy array of dtype {field.dtype}")
    if array.shape != shape or not array.flags.c_contiguous or not array.flags.writeable:
        raise FormatError(
            f"out[{name!r}] must be writable, C-contiguous and of shape {shape}, it is of shape "
            f"{array.shape}"
        )
    return array


def missing_in_out(name: str, row: int) -> FormatError:
    """The error of a value that is missing where the caller gave an array to fill."""
    return FormatError(
        f"field {name!r} of record {row} is missing: no array can hold that; read without out= "
        "to get None, or choose records where it is there"
    )


class MemoryRecords:
    """Records that lie in memory: the real twin of the ones on disk.

    Args:
        schema: the columns.
        columns: the values of every column, equally many; ``None`` for a missing one.
        catalog: keys and metadata of the rows.

    Raises:
        FormatError: a value does not fit its column, or columns differ in length.

    Example:
        >>> import numpy as np
        >>> records = MemoryRecords(Schema({"n": "int64"}), {"n": [3, 4, 5]})
        >>> records.read(np.array([2, 0]), ["n"])
        {'n': array([5, 3])}
    """

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Sequence[Any]],
        catalog: Catalog | None = None,
    ) -> None:
        if set(columns) != set(schema):
            raise FormatError(f"columns {list(columns)} are not those of {schema!r}")
        self.schema = schema
        self.catalog = catalog
        self._columns: dict[str, Values] = {}
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise FormatError(f"columns must have equally many values, not {sorted(lengths)}")
        self._rows = lengths.pop()
        for name in schema:
            values = list(columns[name])
            for row, value in enumerate(values):
                try:
                    schema.check(value if schema.bare else {name: value})
                except FormatError as error:
                    raise FormatError(f"record {row}: {error}") from error
            field = schema[name]
            if field.stackable and all(value is not None for value in values):
                stacked = np.empty((len(values), *field.fixed_shape), field.numpy_dtype)
                for row, value in enumerate(values):
                    stacked[row] = fit_array(field, value)
                self._columns[name] = stacked
            else:
                self._columns[name] = values

    def __len__(self) -> int:
        return self._rows

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        batch: Batch = {}
        for name in columns:
            given = given_array(self.schema, name, len(rows), out)
            values = self._columns[name]
            if isinstance(values, np.ndarray):
                batch[name] = np.take(values, rows, axis=0, out=given)
                continue
            found = [values[row] for row in rows.tolist()]
            field = self.schema[name]
            lost = next((at for at, value in enumerate(found) if value is None), None)
            if field.stackable and lost is None:
                stacked = np.empty((len(rows), *field.fixed_shape), field.numpy_dtype)
                target = stacked if given is None else given
                for at, value in enumerate(found):
                    target[at] = value
                batch[name] = target
                continue
            if given is not None and lost is not None:
                raise missing_in_out(name, int(rows[lost]))
            batch[name] = found
        return batch

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        return consecutive_layout(self._rows)

    def close(self) -> None:
        """See `Records.close`; there is nothing to let go of."""

    def __repr__(self) -> str:
        kind = f"of {self.schema[BARE].kind}" if self.schema.bare else f"of {list(self.schema)}"
        return f"MemoryRecords({self._rows} {kind})"
