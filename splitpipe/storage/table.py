"""Reading a dataset of columns: the `Records` of our own format.

Responsible for: `TableRecords`: one snapshot of a dataset with any columns, some rows of which may
be deleted. Where a value lies and whether it is right is known by ``reader``, what it is by
``values``.

Rules:
- only the columns that are asked for are touched;
- everything a snapshot needs is held open from the start: what later commits make stale is not
  removed before it is closed;
- it pickles as its path and its manifest, and so opens the same snapshot again, also after later
  commits, as long as somebody holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.codecs import Reading, codec
from splitpipe.errors import StorageError
from splitpipe.schema import Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Rows,
    consecutive_layout,
    given_array,
    iterate_blocks,
)
from splitpipe.storage.catalog import SqliteCatalog
from splitpipe.storage.committed import Column
from splitpipe.storage.deleted import gaps_of, read_deleted
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import decode, encode
from splitpipe.storage.reader import ColumnReader
from splitpipe.storage.snapshot import Snapshot, open_all, read_sealed
from splitpipe.storage.values import ColumnValues

__all__ = ["OpenOptions", "TableRecords", "open_table"]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a dataset is read.

    Attributes:
        verify: whether every record is compared with its checksum.
        max_open_bins: how many bins of a column stay mapped at once.
        decode: whether images, sound and video are decoded; else they are bytes.
        allow_pickle: whether pickled columns may be read, which runs what they say.
    """

    verify: bool = True
    max_open_bins: int = 256
    decode: bool = False
    allow_pickle: bool = False


def open_table(path: str | os.PathLike[str], options: OpenOptions | None = None) -> TableRecords:
    """Open the last commit of a dataset.

    Raises:
        FormatError: it is not a dataset, or is damaged.
        StorageError: it cannot be read.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from splitpipe.storage.writer import DatasetWriter
        >>> path = tempfile.mkdtemp()
        >>> with DatasetWriter(path) as writer:
        ...     writer.write_many([{"n": 1, "text": "a"}, {"n": 2, "text": None}])
        >>> records = open_table(path)
        >>> records.read(np.array([1, 0]), ["text", "n"])
        {'text': [None, 'a'], 'n': array([2, 1])}
        >>> records.close()
    """
    directory = os.path.abspath(os.fspath(path))
    return TableRecords(directory, open_all(directory), options or OpenOptions())


class TableRecords:
    """The records of one snapshot, made by `open_table`.

    Args:
        directory: of the dataset.
        snapshot: what to read; it is closed with this.
        options: how.

    Attributes:
        schema: the columns.
        catalog: keys, metadata and SQL, by position; ``None`` where there are none.
        manifest: the commit.
        path: the dataset's directory.
        quick: where records are plain values that are quickly made, a function of a row that
            gives its record, or ``None``: take the long way, `get`. Else ``None``.
    """

    def __init__(self, directory: str, snapshot: Snapshot, options: OpenOptions) -> None:
        self.path = directory
        self.manifest = manifest = snapshot.manifest
        self.schema: Schema = manifest.schema
        self.catalog: Catalog | None = None
        self._options = options
        self._snapshot = snapshot
        self._columns: dict[str, ColumnValues] = {}
        self._names = tuple(self.schema)
        self._rows = manifest.live_rows
        self._closed = False
        try:
            for column in manifest.columns:
                self._columns[column.name] = self._open_column(column)
            self._deleted = read_deleted(directory, manifest)
        except BaseException:
            self.close()
            raise
        if manifest.catalog is not None:
            self.catalog = SqliteCatalog(
                directory,
                manifest.volume,
                manifest.catalog,
                rows=manifest.rows,
                deleted=self._deleted,
            )
        # Where a live position lies: as many rows further as were deleted before it.
        self._gaps = gaps_of(self._deleted)
        simple = self.schema.bare and not len(self._gaps)
        self.quick = self._columns[self._names[0]].quick() if simple else None

    def _open_column(self, column: Column) -> ColumnValues:
        manifest, options = self.manifest, self._options
        dictionary = b""
        if column.dictionary is not None:
            identity = manifest.file_id("dictionary", column)
            dictionary = read_sealed(self.path, identity, column.dictionary)
        reader = ColumnReader(
            self.path,
            manifest,
            column,
            self._snapshot.indexes.pop(0),
            rows=manifest.rows,
            verify=options.verify,
            max_open_bins=options.max_open_bins,
        )
        reading = Reading(decode=options.decode, allow_pickle=options.allow_pickle)
        try:
            return ColumnValues(
                column, reader, codec(column.field, reading=reading, dictionary=dictionary)
            )
        except BaseException:
            reader.close()
            raise

    # -- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._rows

    def get(self, row: int) -> Any:
        """One record, which is faster than `read` for it alone.

        Args:
            row: from 0 to ``len - 1``.
        """
        self._check_open()
        if len(self._gaps):
            row = int(self.physical(np.array([row], dtype=np.int64))[0])
        if self.schema.bare:
            return self._columns[self._names[0]].get(row)
        return {name: values.get(row) for name, values in self._columns.items()}

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        self._check_open()
        physical = self.physical(rows)
        return {
            name: self._columns[name].read(
                physical, given_array(self.schema, name, len(rows), out) if out else None
            )
            for name in columns
        }

    def physical(self, rows: Rows) -> Rows:
        """Where positions lie among all rows, deleted ones included."""
        if not len(self._gaps):
            # The kernel in C reads rows as they lie.
            return np.ascontiguousarray(rows)
        return rows + np.searchsorted(self._gaps, rows, side="right")

    def positions(self, physical: Rows) -> Rows:
        """Positions of rows that are not deleted."""
        if not len(self._gaps):
            return physical
        return physical - np.searchsorted(self._deleted, physical)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`."""
        self._check_open()
        if not self._streams():
            return iterate_blocks(self, order, start, stop)
        return self._zipped(
            [values.stream_ordered(order, start, stop) for values in self._columns.values()]
        )

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order: the fastest way to read them."""
        self._check_open()
        if not self._streams():
            return iterate_blocks(self, _Consecutive(stop), start, stop)
        return self._zipped([values.stream_rows(start, stop) for values in self._columns.values()])

    def _streams(self) -> bool:
        return not len(self._gaps) and all(v.streams for v in self._columns.values())

    def _zipped(self, columns: list[Iterator[Any]]) -> Iterator[Any]:
        if self.schema.bare:
            return columns[0]
        names = self._names
        return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))

    def values(self, name: str) -> ColumnValues:
        """One column, by physical row."""
        self._check_open()
        return self._columns[name]

    def nbytes(self) -> int:
        """Stored bytes of all values of all rows, deleted ones included."""
        self._check_open()
        return sum(values.reader.nbytes() for values in self._columns.values())

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        if len(self._gaps):
            return consecutive_layout(self._rows)
        return self.manifest.columns[0].layout

    # -- travelling and ending -------------------------------------------------------------

    def __reduce__(self) -> Any:
        return _reopen, (self.path, encode(self.manifest), self._options)

    def close(self) -> None:
        """See `Records.close`."""
        self._closed = True
        for values in self._columns.values():
            values.reader.close()
        self._snapshot.close()
        if self.catalog is not None:
            self.catalog.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(9, "the dataset is closed", self.path)

    def __repr__(self) -> str:
        return f"TableRecords({self.path!r}, {self._rows} of {list(self.schema)})"


class _Consecutive:
    """The order in which rows lie."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def indices(self, start: int, stop: int) -> Rows:
        return np.arange(start, stop, dtype=np.int64)


def _reopen(path: str, manifest: bytes, options: OpenOptions) -> TableRecords:
    return TableRecords(path, open_all(path, decode(manifest, path)), options)
