"""A dataset as a sequence of records.

Responsible for: `open_dataset` and `Dataset`: what an index may be, in which order records are
fetched ahead, and that a dataset travels to other processes as its path and generation.

Rules:
- a `Dataset` is a snapshot: what a writer commits later is seen by datasets opened later;
- reading keeps no lock and no seek position: any number of threads and forked children may read
  through one object;
- memory is bounded whatever the order: a few MiB of records are held ahead, or one record.

Bytes, checksums and files are the business of ``storage/``.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import stream
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import Manifest
from splitpipe.storage.reader import ColumnReader
from splitpipe.storage.snapshot import open_snapshot

__all__ = ["Dataset", "OrderLike", "open_dataset"]

Indices = Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]

DEFAULT_OPEN_BINS = 256


class OrderLike(Protocol):
    """What `Dataset.iterate` needs of an order (``splitpipe.order`` makes them)."""

    def __len__(self) -> int:
        """Number of positions."""

    def indices(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The rows at positions ``start`` to ``stop - 1``."""


def open_dataset(
    path: str | os.PathLike[str], *, verify: bool = True, max_open_bins: int = DEFAULT_OPEN_BINS
) -> Dataset:
    """Open a dataset that a `DatasetWriter` wrote.

    Costs milliseconds and no memory to speak of, for any number of records.

    Args:
        path: its directory.
        verify: compare every record with its checksum. Without, a damaged record is returned
            as it is.
        max_open_bins: how many bin files stay mapped at once; each takes up to two file
            descriptors.

    Raises:
        StorageError: there is nothing at ``path``, or it cannot be read.
        FormatError: what is there is not a dataset, or is damaged.
        UnsupportedVersion: a newer splitpipe wrote it.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path, bins=2) as writer:
        ...     writer.write_many([b"one", b"two", b"three"])
        >>> ds = open_dataset(path)
        >>> ds[-1], ds[:2], ds.get_batch([2, 0])
        (b'three', [b'one', b'two'], [b'three', b'one'])
    """
    directory = os.path.abspath(os.fspath(path))
    manifest, index = open_snapshot(directory)
    reader = ColumnReader(
        directory,
        manifest,
        manifest.columns[0],
        index,
        rows=manifest.rows,
        verify=verify,
        max_open_bins=max_open_bins,
    )
    return Dataset(directory, manifest, reader, (verify, max_open_bins))


class Dataset(Sequence[bytes]):
    """The records of one snapshot of a dataset, made by `open_dataset`.

    Indexing takes an integer (also negative, also numpy's), a slice, or a list or array of
    integers; the last two give a list of records.

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

    __slots__ = (
        "__weakref__",
        "_get",
        "_manifest",
        "_maps",
        "_options",
        "_path",
        "_reader",
        "_rows",
        "_take",
    )

    def __init__(
        self, path: str, manifest: Manifest, reader: ColumnReader, options: tuple[bool, int]
    ) -> None:
        self._path = path
        self._manifest = manifest
        self._options = options
        self._reader = reader
        self._rows = reader.rows
        # The reader's own, for the fast lane.
        self._get = reader.get
        self._take = reader.take
        self._maps = reader.maps

    # -- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> bytes: ...

    @overload
    def __getitem__(self, index: slice | Indices) -> list[bytes]: ...

    def __getitem__(self, index: Any) -> Any:
        # The fast lane never decides that something is wrong: what is not plainly right goes to
        # `_read`.
        if type(index) is int:
            record = self._get(index)
            return self._read(index) if record is None else record
        if isinstance(index, slice):
            return self._read_slice(index)
        try:
            row = operator.index(index)
        except TypeError:
            return self.get_batch(index)
        return self._read(row)

    def _read(self, index: int) -> bytes:
        rows = self._rows
        row = index + rows if index < 0 else index
        if not 0 <= row < rows:
            raise IndexError(f"record {index} of a dataset of {rows} records")
        self._check_open()
        return self._reader.read(row)

    def _read_slice(self, index: slice) -> list[bytes]:
        rows = range(*index.indices(self._rows))
        self._check_open()
        if rows.step == 1 and len(rows) > 1:
            return list(self.iterate_rows(rows.start, rows.stop))
        return self._reader.read_many(np.arange(rows.start, rows.stop, rows.step, dtype=np.int64))

    def get_batch(self, indices: Indices) -> list[bytes]:
        """Read several records at once, which is faster than one by one.

        Args:
            indices: integers in any order, negative ones counted from the end, repeated as you
                like: a list, a tuple, a range, or a numpy array of shape (n,).

        Raises:
            IndexError: an index is past the end, or the array is not one of integers.
            CorruptRecord: a record is damaged.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"a", b"b", b"c"])
            >>> sp.open_dataset(path).get_batch([2, 2, -3])
            [b'c', b'c', b'a']
        """
        records = self._take(indices)
        if records is not None:
            return records
        rows = self._rows_of(indices)
        self._check_open()
        return self._reader.read_many(rows)

    def _rows_of(self, indices: Any) -> npt.NDArray[np.int64]:
        """Indices as checked int64 row numbers from 0."""
        given = np.asarray(indices)
        if given.size == 0 and given.ndim == 1:
            return np.empty(0, dtype=np.int64)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise IndexError(_not_indices(indices, given))
        if given.dtype == np.uint64 and int(given.max()) >= self._rows:
            raise IndexError(f"record {given.max()} of a dataset of {self._rows} records")
        rows = given.astype(np.int64, copy=False)
        lowest = int(rows.min())
        highest = int(rows.max())
        if lowest < -self._rows or highest >= self._rows:
            wrong = highest if highest >= self._rows else lowest
            raise IndexError(f"record {wrong} of a dataset of {self._rows} records")
        if lowest < 0:
            rows = np.where(rows < 0, rows + self._rows, rows)
        return rows

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
        rows = self._rows_of(indices)
        self._check_open()
        return self._reader.lengths(rows)

    # -- iterating -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self.iterate_rows(0, self._rows)

    def iterate_rows(self, start: int, stop: int) -> Iterator[bytes]:
        """Records ``start`` to ``stop - 1`` in row order: the fastest way to read them.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> sp.write_split_data(path, [b"a", b"b", b"c"])
            >>> list(sp.open_dataset(path).iterate_rows(1, 3))
            [b'b', b'c']
        """
        if not 0 <= start <= stop <= self._rows:
            raise IndexError(f"rows {start} to {stop} of a dataset of {self._rows} records")
        self._check_open()
        return stream.rows(self._reader, start, stop)

    def iterate(self, order: OrderLike, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
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
        self._check_open()
        return stream.ordered(self._reader, order, start, stop)

    # -- telling ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The dataset's directory."""
        return self._path

    @property
    def generation(self) -> int:
        """The commit that this snapshot is of; it grows with every commit."""
        return self._manifest.generation

    @property
    def nbytes(self) -> int:
        """Bytes of all records together. Reads the index through, once."""
        self._check_open()
        return self._reader.nbytes()

    def bin_layout(self) -> BinLayout:
        """Which rows lie in which bin, for a binwise order."""
        return self._reader.layout

    def __repr__(self) -> str:
        return f"Dataset({self._path!r}, {self._rows} records, generation {self.generation})"

    # -- travelling and ending -------------------------------------------------------------

    def __reduce__(self) -> Any:
        manifest = self._manifest
        return (
            _reopen,
            (self._path, manifest.dataset, manifest.generation, self._rows, *self._options),
        )

    def close(self) -> None:
        """Let go of the files; a second call does nothing. Records stay valid."""
        self._reader.close()
        self._maps = []

    def _check_open(self) -> None:
        if not self._maps and self._rows:
            raise StorageError(9, "the dataset is closed", self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _not_indices(indices: Any, given: npt.NDArray[Any]) -> str:
    if given.dtype.kind == "b":
        return (
            "an array of booleans is not an index here: use numpy.flatnonzero(mask) to say "
            "which records are meant"
        )
    if given.ndim == 1:
        return f"indices must be integers, not {given.dtype}"
    return f"indices must be an integer, a slice or a flat list, not {type(indices).__name__}"


def _reopen(
    path: str, dataset: bytes, generation: int, rows: int, verify: bool, max_open_bins: int
) -> Dataset:
    """Open the snapshot that a pickled dataset was, also after later appends."""
    manifest, index = open_snapshot(path)
    if manifest.dataset != dataset or manifest.generation < generation:
        os.close(index)
        raise FormatError(
            f"{path} is not the dataset any more that was pickled here (generation "
            f"{generation} of {dataset.hex()}): it was overwritten"
        )
    reader = ColumnReader(
        path,
        manifest,
        manifest.columns[0],
        index,
        rows=rows,
        verify=verify,
        max_open_bins=max_open_bins,
    )
    return Dataset(path, manifest.pinned(generation), reader, (verify, max_open_bins))
