"""Records of a dataset that lies elsewhere: the `Records` of our own format in a store.

Responsible for: `RemoteRecords`: having here what is read, reading it as if the dataset were a
local one, and what becomes of bytes that are not here any more, or wrong.

Rules:
- nothing is handed out that was not proven: by its checksum or, where those are not wanted, by a
  token which says that nothing was taken away since it was seen to be there;
- so where checksums are compared, what was seen to be there once is read without another look;
- what is wrong is fetched once more before it is called damaged;
- what the cache cannot hold is read through memory: slower, never wrong;
- it pickles as its store, its manifest and where its cache is, never with credentials; opened in
  another process it asks the store for nothing that is here.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CacheFull, CorruptRecord, FormatError, StorageError
from splitpipe.remote.ahead import Ahead
from splitpipe.remote.catalog import RemoteCatalog
from splitpipe.remote.columns import RemoteColumn
from splitpipe.remote.extents import Spans
from splitpipe.remote.memory import read_through
from splitpipe.remote.mirror import Mirror
from splitpipe.remote.policy import Policy
from splitpipe.remote.versions import Versions
from splitpipe.schema import Schema
from splitpipe.storage.base import Batch, Catalog, Order, Rows, given_array, records_of
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import Manifest, decode, encode
from splitpipe.storage.table import OpenOptions, TableRecords
from splitpipe.stores.base import Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache, Prefetch

__all__ = ["RemoteRecords"]

Made = TypeVar("Made")
Need = tuple[RemoteColumn, Spans]

# How often what was taken away meanwhile is fetched again, before it is read through memory.
_ROUNDS = 4
# How often what is wrong is fetched again: the index first, then what it leads to.
_FETCHED_AGAIN = 2
# Where this many bins and fewer are all here, that is found out at once.
_SURVEYED_BINS = 1024
# Records that are waited for together: few at first, so that the first one is soon there.
_FIRST_ROWS = 4
_MOST_ROWS = 2048
_BLOCK_NBYTES = 4 << 20


class RemoteRecords:
    """The records of one snapshot of a remote dataset, made by `open_remote`.

    Args:
        store: where the dataset lies.
        manifest: the snapshot.
        versions: of the objects.
        cache: where blocks of them are kept.
        options: how records are read.
        policy: how they are fetched.

    Attributes:
        schema: the columns.
        catalog: keys, metadata and SQL; ``None`` where there are none.
        manifest: the commit.
        path: the dataset's url.
        quick: see `TableRecords.quick`.
        data_nbytes: of all its bins, indices and sums together.
        policy: how it is fetched.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        versions: Versions,
        cache: BlockCache,
        *,
        options: OpenOptions,
        policy: Policy | None = None,
    ) -> None:
        self.path = store.url.rstrip("/")
        self.manifest = manifest
        self.schema: Schema = manifest.schema
        self._options = options
        self.policy = Policy() if policy is None else policy
        self._store = store
        self._cache = cache
        self._names = tuple(self.schema)
        self._neighbours = self.policy.neighbours
        self._mirror = Mirror(store, manifest, versions, cache)
        try:
            self._table = TableRecords(self._mirror.path, self._mirror.snapshot(), options)
        except BaseException:
            self._mirror.close()
            raise
        self._columns = {
            column.name: RemoteColumn(files, self._table.values(column.name))
            for column, files in zip(manifest.columns, self._mirror.columns, strict=True)
        }
        self.catalog: Catalog | None = None
        if self._table.catalog is not None:
            self.catalog = RemoteCatalog(self._mirror, self._table.catalog)
        self.data_nbytes = sum(sum(c.files.sizes) for c in self._columns.values())
        # What was seen once need not be looked at again, unless looking is what keeps it: a cache
        # that is too small goes by what was looked at last.
        limit = cache.limit_nbytes
        self._remembers = limit is None or self.data_nbytes <= limit
        self._evictions = cache.evictions
        self._seen = self._evictions[0]
        self.quick = self._table.quick if self._remembers and options.verify else None
        self._ahead = Ahead(self)
        self._closed = False
        if self._remembers:
            self._survey()

    def _survey(self) -> None:
        """See what is here already."""
        if sum(column.files.index for column in self._columns.values()) > _SURVEYED_BINS:
            return
        for column in self._columns.values():
            files = column.files
            for number, size in enumerate(files.sizes):
                if size and bool((files.file(number).marks & 1).all()):
                    files.known.add([(number, np.array([[0, size]], dtype=np.int64))])

    @property
    def _warm(self) -> bool:
        """Whether all is here, as far as is known; with checksums that need not be certain."""
        if not self._remembers or (self._evictions[0] != self._seen and not self._options.verify):
            return False
        return all(c.files.known.complete for c in self._columns.values())

    def _forget(self) -> None:
        for column in self._columns.values():
            column.files.known.forget()

    # -- having what is read ---------------------------------------------------------------

    def _ensure(self, rows: Rows, names: Sequence[str]) -> Callable[[], bool]:
        """Have what some rows need.

        Args:
            rows: physical.
            names: of columns.

        Returns:
            What tells whether it is still here.
        """
        columns = [self._columns[name] for name in names]
        index = [(column, column.index_spans(rows)) for column in columns]
        if not self._remembers:
            self._have(index)
            data = [(column, column.data_spans(rows)) for column in columns]
            # One token for both: the index may be taken away while the bins come.
            return self._have(index + data)
        seen = self._evictions[0]
        if seen != self._seen:
            self._forget()
            self._seen = seen
        self._have(index)
        self._have([(column, column.data_spans(rows)) for column in columns])
        return lambda: self._evictions[0] == seen

    def _have(self, needs: Sequence[Need]) -> Callable[[], bool]:
        wanted = []
        for column, spans in needs:
            left = column.files.known.lacking(spans) if self._remembers else spans
            if len(left[0]):
                wanted.append((column.files, column.files.wanted(left)))
        if not wanted:
            return _always
        opened = [pair for files, found in wanted for pair in files.opened(found)]
        token = self._mirror.ensure(opened, extent_nbytes=self.policy.extent_nbytes)
        if self._remembers:
            for files, found in wanted:
                files.known.add(found)
        return token.still_valid

    def prefetch(self, positions: Rows) -> Prefetch | None:
        """Ask for some records, without waiting for more than their index entries.

        Returns:
            What was asked for; ``None`` where all is here.
        """
        rows = self._table.physical(positions)
        extent = self.policy.extent_nbytes // self._mirror.block_nbytes if self._neighbours else 1
        wanted = []
        columns = list(self._columns.values())
        self._have([(column, column.index_spans(rows)) for column in columns])
        for column in columns:
            spans = column.data_spans(rows)
            left = column.files.known.lacking(spans) if self._remembers else spans
            wanted += column.files.opened(column.files.wanted(left, extent=max(1, extent)))
        wanted = [(file, ranges) for file, ranges in wanted if file.missing(ranges)]
        if not wanted:
            return None
        return self._cache.prefetch(wanted, extent_nbytes=self.policy.extent_nbytes)

    def _again(self, rows: Rows, names: Sequence[str]) -> None:
        """Throw away what some rows need, also what proves their entries."""
        columns = [self._columns[name] for name in names]
        spans = [(c, s) for c in columns for s in (c.index_spans(rows), c.data_spans(rows))]
        spans += [(column, column.page_spans()) for column in columns]
        for column, some in spans:
            for file, ranges in column.files.opened(column.files.wanted(some)):
                file.invalidate(ranges)
        self._forget()
        self._have([(column, column.page_spans()) for column in columns])

    def _careful(self, rows: Rows, names: Sequence[str], read: Callable[[], Made]) -> Made:
        """Read after everything needed was seen to be here, again where that did not hold.

        Args:
            rows: physical.
            names: of columns.
            read: reads them from the mirror.

        Raises:
            CacheFull: the cache cannot hold it all at once.
            CorruptRecord: it is damaged where it lies.
        """
        fetched_again = 0
        for _ in range(_ROUNDS + _FETCHED_AGAIN):
            still_here = self._ensure(rows, names)
            try:
                found = read()
            except FormatError as error:
                if self._lost(still_here):
                    continue
                if fetched_again == _FETCHED_AGAIN or not isinstance(error, CorruptRecord):
                    raise self._told(error) from error
                fetched_again += 1
                self._again(rows, names)
                continue
            if self._options.verify or still_here():
                return found
        raise CacheFull(errno.ENOBUFS, "what is read is taken away again at once", self.path)

    def _lost(self, still_here: Callable[[], bool]) -> bool:
        """Whether what was looked at is not, or may not be, here any more."""
        placed = self._mirror.place_headers()
        if still_here():
            return placed
        self._forget()
        return True

    def _told(self, error: FormatError) -> FormatError:
        """The error of a file here as that of the object that it is of."""
        return type(error)(str(error).replace(self._mirror.path, self.path))

    # -- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._table)

    def get(self, row: int) -> Any:
        """One record, which is faster than `read` for it alone."""
        self._check_open()
        if self._warm:
            try:
                return self._table.get(row)
            except FormatError:
                self._forget()
        batch = self.read(np.array([row], dtype=np.int64), self._names)
        return records_of(self.schema, batch)[0]

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        self._check_open()
        if out:
            for name in columns:
                given_array(self.schema, name, len(rows), out)
        if not len(rows):
            return self._table.read(rows, columns, out)
        physical = self._table.physical(rows)
        try:
            return self._careful(
                physical, columns, lambda: self._table.read(rows, columns, out)
            )
        except CacheFull:
            verify = self._options.verify
            return read_through(
                self.schema, self._columns, physical, columns, out=out, verify=verify
            )

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`; what follows in the order, also behind ``stop``, is fetched."""
        self._check_open()
        return self._stream(order, start, stop)

    def _stream(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        position, count = start, _FIRST_ROWS
        while position < stop:
            if self._warm:
                try:
                    for record in self._table.iterate(order, position, stop):
                        position += 1
                        yield record
                        del record
                except FormatError:
                    self._forget()
                continue
            end = min(stop, position + count)
            rows = order.indices(position, end)
            block = records_of(self.schema, self.read(rows, self._names))
            # Before the block is handed out, so that the network works meanwhile.
            self._ahead.go(order, end)
            position, count = end, min(2 * count, _MOST_ROWS, self._ahead.rows_of(_BLOCK_NBYTES))
            block.reverse()
            while block:
                yield block.pop()

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order."""
        return self.iterate(Consecutive(len(self)), start, stop)

    # -- what the index alone says ---------------------------------------------------------

    def lengths(self, rows: Rows, names: Sequence[str]) -> Rows:
        """Stored bytes of records, payloads unread: an int64 array of shape (n,)."""
        physical = self._table.physical(rows)
        readers = [self._columns[name].values.reader for name in names]

        def read() -> Rows:
            total: Rows = np.sum([r.lengths(physical) for r in readers], axis=0, dtype=np.int64)
            return total

        return self._of_index(names, read)

    def nbytes(self) -> int:
        """Stored bytes of all values of all rows; fetches the index whole."""
        return self._of_index(self._names, self._table.nbytes)

    def _of_index(self, names: Sequence[str], read: Callable[[], Made]) -> Made:
        self._check_open()
        columns = [self._columns[name] for name in names]
        needs = [(c, s) for c in columns for s in (c.whole_index_spans(), c.page_spans())]
        for attempt in range(_ROUNDS):
            seen = self._evictions[0]
            if seen != self._seen:
                self._forget()
                self._seen = seen
            self._have(needs)
            try:
                return read()
            except FormatError as error:
                if self._lost(lambda seen=seen: self._evictions[0] == seen):
                    continue
                if attempt:
                    raise self._told(error) from error
                for column, spans in needs:
                    for file, ranges in column.files.opened(column.files.wanted(spans)):
                        file.invalidate(ranges)
                self._forget()
        raise CacheFull(errno.ENOBUFS, "the index does not stay in the cache", self.path)

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        return self._table.layout()

    # -- travelling and ending -------------------------------------------------------------

    def __reduce__(self) -> Any:
        manifest = zlib.compress(encode(self.manifest), 9)
        versions = self._mirror.versions
        where = self._store, manifest, versions, self._cache
        return _reopen, (*where, self._options, self.policy)

    def close(self) -> None:
        """See `Records.close`; what was fetched stays in the cache."""
        if not self._closed:
            self._closed = True
            self._ahead.close()
            self._table.close()
            self._mirror.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(errno.EBADF, "the dataset is closed", self.path)

    def __repr__(self) -> str:
        return f"RemoteRecords({self.path!r}, {len(self)} of {list(self.schema)})"


def _always() -> bool:
    return True


class Consecutive:
    """The order in which rows lie."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Consecutive) and other._rows == self._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``."""
        return np.arange(start, stop, dtype=np.int64)


def _reopen(
    store: Store,
    manifest: bytes,
    versions: Versions,
    cache: BlockCache,
    options: OpenOptions,
    policy: Policy,
) -> RemoteRecords:
    decoded = decode(zlib.decompress(manifest), store.url)
    return RemoteRecords(store, decoded, versions, cache, options=options, policy=policy)
