"""`Dataset`: records of any kind as a sequence.

Responsible for: what an index may be, batches of columns, orders; `BinDataset`, the same with a
fast lane for plain bytes of our own format; and how both travel.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from splitpipe.dataset.telling import Indices, Telling
from splitpipe.errors import FormatError
from splitpipe.schema import BARE, Schema
from splitpipe.storage.base import Order, Records, Rows, records_of
from splitpipe.storage.indices import checked_rows
from splitpipe.storage.manifest import decode, encode
from splitpipe.storage.snapshot import open_all, read_manifest
from splitpipe.storage.table import OpenOptions, TableRecords
from splitpipe.views.concat import concat as _concat
from splitpipe.views.methods import Viewable
from splitpipe.views.subset import iterate_rows

__all__ = ["BinDataset", "Dataset", "OrderLike", "concat", "dataset_of"]

OrderLike = Order


def dataset_of(records: Records) -> Dataset:
    """The dataset of records of any kind.

    Example:
        >>> from splitpipe.storage.base import MemoryRecords
        >>> dataset_of(MemoryRecords(Schema({"n": "int64"}), {"n": [3, 4]}))[1]
        {'n': 4}
    """
    if isinstance(records, TableRecords) and _is_plain(records):
        return BinDataset(records)
    if hasattr(records, "take"):
        return RemoteDataset(records)
    return Dataset(records)


def _look_closer(index: Any) -> None:
    """There is no fast lane."""


def _is_plain(records: TableRecords) -> bool:
    manifest = records.manifest
    column = manifest.columns[0]
    bare = manifest.bare and column.field.kind == "bytes" and column.field.compression is None
    return bare and not column.missing and manifest.deleted is None


def concat(datasets: Sequence[Dataset]) -> Dataset:
    """Datasets end to end; all have the same columns.

    Raises:
        FormatError: there is none, or columns differ.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"a", b"b"])
        >>> ds = sp.open_dataset(path)
        >>> concat([ds, ds])[2:]
        [b'a', b'b']
    """
    return dataset_of(_concat([dataset._records for dataset in datasets]))


class Dataset(Telling, Viewable, Sequence[Any]):
    """The records of one snapshot of a dataset, made by `open_dataset`, or a view of others.

    A record is a dict with a value for every column, ``None`` for a missing one; in a dataset of
    plain values it is the value itself. Indexing takes an integer (also negative, also numpy's), a
    key, a slice, or a list or array of integers; the last two give a list of records.

    Args:
        records: what it reads; users have it from `open_dataset`.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"%d" % n for n in range(10)], splits=3)
        >>> ds = sp.open_dataset(path)
        >>> len(ds), ds[3], ds[8:], ds[[0, -1]], ds.nbytes
        (10, b'3', [b'8', b'9'], [b'0', b'9'], 10)
        >>> sum(len(record) for record in ds)
        10
    """

    __slots__ = ("__weakref__", "_count", "_names", "_one", "_quick", "_records", "_schema")

    def __init__(self, records: Records) -> None:
        self._records = records
        self._schema: Schema = records.schema
        self._names = tuple(self._schema)
        self._count = len(records)
        # Some records have a shorter way to a single one.
        self._one = getattr(records, "get", None)
        self._quick = getattr(records, "quick", None) or _look_closer

    # -- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int | np.integer[Any] | str) -> Any: ...

    @overload
    def __getitem__(self, index: slice | Indices) -> list[Any]: ...

    def __getitem__(self, index: Any) -> Any:
        # The fast lane never decides that something is wrong: what is not plainly right goes the
        # long way.
        if type(index) is int:
            record = self._quick(index)
            return self._read(index) if record is None else record
        if isinstance(index, slice):
            return self._read_slice(index)
        if isinstance(index, str) and self._records.catalog is not None:
            return self._read(self._records.catalog.row(index))
        try:
            row = operator.index(index)
        except TypeError:
            return self._read_rows(self._rows_of(index))
        return self._read(row)

    def _read(self, index: int) -> Any:
        row = index + self._count if index < 0 else index
        if not 0 <= row < self._count:
            raise IndexError(f"record {index} of a dataset of {self._count} records")
        if self._one is not None:
            return self._one(row)
        return self._read_rows(np.array([row], dtype=np.int64))[0]

    def _read_rows(self, rows: Rows) -> list[Any]:
        return records_of(self._schema, self._records.read(rows, self._names))

    def _read_slice(self, index: slice) -> list[Any]:
        rows = range(*index.indices(self._count))
        if rows.step == 1 and len(rows) > 1:
            return list(self.iterate_rows(rows.start, rows.stop))
        return self._read_rows(np.arange(rows.start, rows.stop, rows.step, dtype=np.int64))

    def __contains__(self, value: object) -> bool:
        """Whether there is such a record or, for a string where records are none, such a key."""
        strings = self._schema.bare and self._schema[BARE].kind == "str"
        if not isinstance(value, str) or strings or self._records.catalog is None:
            return super().__contains__(value)
        try:
            self._records.catalog.row(value)
        except KeyError:
            return False
        return True

    def get_batch(
        self,
        indices: Indices,
        columns: Sequence[str] | None = None,
        out: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any] | None = None,
    ) -> Any:
        """Read several records at once, which is faster than one by one.

        Args:
            indices: integers in any order, negative ones counted from the end, repeated as you
                like: a list, a tuple, a range, or a numpy array of shape (n,).
            columns: which columns to read, all of them unless said; the others are not touched.
            out: arrays to fill, by column, for columns of numbers and of arrays of one shape:
                of the column's dtype and of shape (n, ...). In a dataset of plain values, the
                array itself.

        Returns:
            By column, an array of shape (n, ...) where the column has one shape and none of
            these values is missing, else a list of n values. In a dataset of plain values, if
            ``columns`` is not said, that array or list itself.

        Raises:
            IndexError: an index is past the end, or the array is not one of integers.
            CorruptRecord: a record is damaged.
            FormatError: there is no such column, or ``out`` does not fit.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> with sp.DatasetWriter(path := tempfile.mkdtemp()) as writer:
            ...     writer.write_many([{"text": "a", "n": 1}, {"text": "b", "n": 2}])
            >>> sp.open_dataset(path).get_batch([1, 0], columns=["n"])
            {'n': array([2, 1])}
        """
        rows = self._rows_of(indices)
        if columns is None and self._schema.bare:
            given = {BARE: out} if isinstance(out, np.ndarray) else out
            return self._records.read(rows, self._names, given)[BARE]
        names = self._names if columns is None else self._schema.checked_names(columns)
        if out is None:
            return self._records.read(rows, names)
        if not isinstance(out, Mapping) or not set(out) <= set(names):
            raise FormatError(f"out must be a dict of arrays for some of {', '.join(names)}")
        return self._records.read(rows, names, out)

    def _rows_of(self, indices: Any) -> Rows:
        """Indices as checked int64 row numbers from 0."""
        return checked_rows(indices, self._count)

    # -- iterating -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self.iterate_rows(0, self._count)

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order: the fastest way to read them.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"a", b"b", b"c"])
            >>> list(sp.open_dataset(path).iterate_rows(1, 3))
            [b'b', b'c']
        """
        if not 0 <= start <= stop <= self._count:
            raise IndexError(f"rows {start} to {stop} of a dataset of {self._count} records")
        return iterate_rows(self._records, start, stop)

    def iterate(self, order: OrderLike, start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Records in the order of ``order``, read ahead in blocks of bounded size.

        Args:
            order: of ``splitpipe.order``, over this dataset's rows.
            start: the first position.
            stop: the position after the last one; ``None`` goes to the end.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> from splitpipe.order import global_order
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"%d" % n for n in range(100)])
            >>> ds = sp.open_dataset(path)
            >>> records = list(ds.iterate(global_order(len(ds), seed=1, epoch=0)))
            >>> sorted(records) == sorted(ds), records == list(ds)
            (True, False)
        """
        stop = len(order) if stop is None else stop
        if not 0 <= start <= stop <= len(order):
            raise IndexError(f"positions {start} to {stop} of an order of {len(order)}")
        return self._records.iterate(order, start, stop)

    @property
    def together(self) -> int:
        """Records that are worth asking for at once: more than one where each is waited for."""
        return int(getattr(self._records, "together", 1))

    def __repr__(self) -> str:
        if not isinstance(self._records, TableRecords):
            return f"Dataset({self._records!r})"
        what = "" if self._schema.bare else f" of {', '.join(self._names)}"
        return f"Dataset({self.path!r}, {self._count} records{what}, generation {self.generation})"

    # -- travelling and ending -------------------------------------------------------------

    def _viewed(self, records: Records) -> Dataset:
        return dataset_of(records)

    def __reduce__(self) -> Any:
        return dataset_of, (self._records,)

    def close(self) -> None:
        """Let go of the files; a second call does nothing. Records stay valid.

        A view leaves the datasets open that it is of.
        """
        self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Taking(Dataset):
    """A dataset of whose records batches may be had without a look at each index.

    Args:
        records: the records.
        take: gives those of some indices, or None: look closer.
    """

    __slots__ = ("_take",)

    def __init__(self, records: Any, take: Callable[[Any], list[bytes] | None]) -> None:
        super().__init__(records)
        self._take = take

    def get_batch(self, indices: Indices, columns: Any = None, out: Any = None) -> Any:
        """See `Dataset.get_batch`."""
        if columns is None and out is None:
            records = self._take(indices)
            if records is not None:
                return records
        return super().get_batch(indices, columns, out)


class BinDataset(_Taking):
    """A dataset of plain bytes in our own format, whose records the reader hands out directly.

    Args:
        records: of one column of bytes, none of them missing or deleted.
    """

    __slots__ = ("_reader",)

    def __init__(self, records: TableRecords) -> None:
        self._reader = records.values(BARE).reader
        super().__init__(records, self._reader.take)

    def lengths(self, indices: Indices) -> npt.NDArray[np.int64]:
        """Lengths of records in bytes, without reading them: an int64 array of shape (n,).

        Raises:
            FormatError: the index is damaged there.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"", b"22", b"333"])
            >>> sp.open_dataset(path).lengths([2, 0]).tolist()
            [3, 0]
        """
        self._told("values")(BARE)  # which says so if the dataset is closed
        return self._reader.lengths(self._rows_of(indices))

    def __reduce__(self) -> Any:
        records: Any = self._records
        manifest = zlib.compress(encode(records.manifest), 9)
        return _reopen, (self.path, manifest, astuple(records._options))


class RemoteDataset(_Taking):
    """A dataset of our own format that lies in a store.

    Args:
        records: ``RemoteRecords``, which most programs do not import.
    """

    __slots__ = ()

    def __init__(self, records: Any) -> None:
        super().__init__(records, records.take or _look_closer)

    def lengths(self, indices: Indices) -> npt.NDArray[np.int64]:
        """Stored bytes of records, without reading them: an int64 array of shape (n,).

        Raises:
            FormatError: the index is damaged there.
        """
        found: npt.NDArray[np.int64] = self._told("lengths")(self._rows_of(indices), self._names)
        return found


def _reopen(path: str, manifest: bytes, options: tuple[Any, ...]) -> Dataset:
    """Open the snapshot that a pickled dataset was, also after later commits."""
    wanted = decode(zlib.decompress(manifest), path)
    try:
        snapshot = open_all(path, wanted)
    except FormatError as error:
        if read_manifest(path).dataset == wanted.dataset:
            raise
        raise FormatError(
            f"{path} is not the dataset any more that was pickled here (generation "
            f"{wanted.generation} of {wanted.dataset.hex()}): it was overwritten"
        ) from error
    return dataset_of(TableRecords(path, snapshot, OpenOptions(*options)))
