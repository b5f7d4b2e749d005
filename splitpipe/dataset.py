"""A dataset as a sequence of records.

Responsible for: `open_dataset`, which finds out what a path holds; `Dataset`, what users hold of
records of any kind: what an index may be, keys, batches of columns; and `BinDataset`, the same
with a fast lane for plain bytes of our own format.

Rules:
- a `Dataset` is a snapshot: what a writer commits later is seen by datasets opened later;
- reading keeps no lock and no seek position: any number of threads and forked children may read
  through one object;
- memory is bounded whatever the order: a few MiB of records are held ahead, or one record.

Bytes, checksums and files are the business of ``storage/``, views that of ``views/``.
"""

from __future__ import annotations

import operator
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from importlib import import_module
from typing import Any, Self, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import BARE, Schema
from splitpipe.storage.base import Catalog, Order, Records, Rows, records_of
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.indices import checked_rows
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import decode, encode
from splitpipe.storage.snapshot import open_all, read_manifest
from splitpipe.storage.table import OpenOptions, TableRecords
from splitpipe.views.concat import concat as _concat
from splitpipe.views.methods import Viewable
from splitpipe.views.subset import iterate_rows

__all__ = ["BinDataset", "Dataset", "OrderLike", "concat", "dataset_of", "open_dataset"]

Indices = Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]
OrderLike = Order


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    verify: bool = True,
    max_open_bins: int = 256,
    decode: bool = False,
    allow_pickle: bool = False,
    format: str | None = None,
    **options: Any,
) -> Dataset:
    """Open a dataset: one that a `DatasetWriter` wrote, or data of another format in place.

    One of our own opens in milliseconds, for any number of records. Of another format, an index
    is built the first time, and kept.

    Args:
        path: its directory; of another format also a file, or a list of files.
        verify: compare every record with its checksum; else damage is returned as it is.
        max_open_bins: how many bin files of a column stay mapped; each takes two descriptors.
        decode: give images, sound and video decoded instead of as bytes; needs their extra.
        allow_pickle: read columns of pickled values. They run what they say: only for data that
            you trust.
        format: the name of another format; else it is recognised.
        options: of another format: ``index_dir`` (where its index is kept), ``progress``,
            ``workers``, and its own, see ``docs/formats.md``.

    Raises:
        StorageError: there is nothing at ``path``, or it cannot be read.
        FormatError: what is there is not a dataset, or is damaged, or of a newer version.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> with sp.DatasetWriter(path := tempfile.mkdtemp(), bins=2) as writer:
        ...     writer.write_many([b"one", b"two", b"three"])
        >>> ds = open_dataset(path)
        >>> ds[-1], ds[:2], ds.get_batch([2, 0])
        (b'three', [b'one', b'two'], [b'three', b'one'])
    """
    if isinstance(path, str | os.PathLike) and format is None and _is_ours(path, options):
        how = OpenOptions(
            verify=verify, max_open_bins=max_open_bins, decode=decode, allow_pickle=allow_pickle
        )
        directory = os.path.abspath(os.fspath(path))
        return dataset_of(TableRecords(directory, open_all(directory), how))
    if allow_pickle:
        options["allow_pickle"] = True
    # Imported late: most programs read no other formats.
    formats = import_module("splitpipe.formats")
    return dataset_of(formats.recognise(path, format=format, **options))


def _is_ours(path: str | os.PathLike[str], options: Mapping[str, Any]) -> bool:
    if not os.path.lexists(os.path.join(path, MANIFEST_NAME)):
        return False
    if set(options) - {"index_dir", "progress", "workers"}:
        raise TypeError(f"a splitpipe dataset is opened without {', '.join(options)}")
    return True


def dataset_of(records: Records) -> Dataset:
    """The dataset of records of any kind.

    Example:
        >>> from splitpipe.storage.base import MemoryRecords
        >>> dataset_of(MemoryRecords(Schema({"n": "int64"}), {"n": [3, 4]}))[1]
        {'n': 4}
    """
    if isinstance(records, TableRecords) and _is_plain(records):
        return BinDataset(records)
    return Dataset(records)


def _look_closer(index: int) -> None:
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


class Dataset(Viewable, Sequence[Any]):
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

    # -- keys and metadata -----------------------------------------------------------------

    def keys(self, indices: Indices | None = None) -> list[str | None]:
        """The keys of records, of all unless said; ``None`` for a record without one.

        Raises:
            FormatError: the dataset has no keys.
        """
        rows = np.arange(self._count) if indices is None else self._rows_of(indices)
        return self._asked().keys(rows)

    def meta(self, index: SupportsIndex | str) -> dict[str, Any]:
        """The metadata of one record, by its index or key; empty if it has none.

        Raises:
            KeyError: there is no such key.
            FormatError: the dataset has no metadata.
        """
        return self.metas([self._asked().row(index) if isinstance(index, str) else index])[0]

    def metas(self, indices: Indices | None = None) -> list[dict[str, Any]]:
        """The metadata of several records, of all unless said."""
        rows = np.arange(self._count) if indices is None else self._rows_of(indices)
        return self._asked().meta(rows)

    def _asked(self) -> Catalog:
        if self._records.catalog is None:
            raise FormatError(
                f"{self!r} has no catalog of keys and metadata: write records with key= or meta=, "
                "or declare metadata, with a DatasetWriter"
            )
        return self._records.catalog

    # -- telling ---------------------------------------------------------------------------

    @property
    def records(self) -> Records:
        """What this reads: the seam below, for those who work by the block."""
        return self._records

    @property
    def schema(self) -> Schema:
        """The columns of a record."""
        return self._schema

    @property
    def path(self) -> str:
        """The dataset's directory; a view has none."""
        return str(self._told("path"))

    @property
    def generation(self) -> int:
        """The commit that this snapshot is of; it grows with every commit."""
        return int(self._told("manifest").generation)

    @property
    def nbytes(self) -> int:
        """Bytes of all records together, as stored. Reads the index through, once."""
        return int(self._told("nbytes")())

    def _told(self, name: str) -> Any:
        if not hasattr(self._records, name):
            raise AttributeError(f"{self!r} is not one directory of our own format: it has no such")
        return getattr(self._records, name)

    def bin_layout(self) -> BinLayout:
        """Which rows lie in which bin, for a binwise order."""
        return self._records.layout()

    def to_arrow(self, columns: Sequence[str] | None = None, *, metadata: bool = False) -> Any:
        """The dataset as a ``pyarrow.Table``; needs the extra ``table``.

        See ``splitpipe.integrations.arrow`` for which column becomes what, and for a stream of
        batches instead of a table in memory.

        Args:
            columns: which columns, all of them unless said.
            metadata: add ``key`` and ``meta`` (JSON text) of every record.
        """
        # By name: it is a room above this one, and has an extra of its own.
        arrow = import_module("splitpipe.integrations.arrow")
        return arrow.to_arrow(self, columns, metadata=metadata)

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


class BinDataset(Dataset):
    """A dataset of plain bytes in our own format, whose records the reader hands out directly.

    Args:
        records: of one column of bytes, none of them missing or deleted.
    """

    __slots__ = ("_reader", "_take")

    def __init__(self, records: TableRecords) -> None:
        super().__init__(records)
        self._reader = records.values(BARE).reader
        self._take = self._reader.take

    def get_batch(self, indices: Indices, columns: Any = None, out: Any = None) -> Any:
        """See `Dataset.get_batch`."""
        if columns is None and out is None:
            records = self._take(indices)
            if records is not None:
                return records
        return super().get_batch(indices, columns, out)

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
