"""Records of a dataset that lies elsewhere: the `Records` of our own format in a store.

Responsible for: `RemoteRecords`: what it has brought here is read as if the dataset were local.

Rules:
- nothing is handed out that was not proven: by its checksum or, where those are not wanted, by
  what tells that nothing was taken away since it was seen to be here;
- so where checksums are compared, what was seen to be here once is read without another look;
- what the cache cannot hold is read through memory: slower, never wrong;
- it pickles as its store, its manifest and where its cache is, never with credentials; opened in
  another process it asks the store for nothing that is here.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CacheFull, FormatError, StorageError
from splitpipe.remote.catalog import RemoteCatalog
from splitpipe.remote.columns import RemoteColumn
from splitpipe.remote.helpers import Helpers
from splitpipe.remote.keeping import Keeping
from splitpipe.remote.memory import Through, read_through
from splitpipe.remote.mirror import Mirror
from splitpipe.remote.policy import Policy
from splitpipe.remote.streaming import Consecutive, Streaming
from splitpipe.remote.versions import Versions
from splitpipe.schema import Schema
from splitpipe.storage.base import Batch, Catalog, Order, Rows, given_array, records_of
from splitpipe.storage.bins import BinFiles
from splitpipe.storage.format import FileId
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.manifest import Manifest, decode, encode
from splitpipe.storage.table import OpenOptions, TableRecords
from splitpipe.stores.base import Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache

__all__ = ["RemoteRecords"]


class RemoteRecords:
    """The records of one snapshot of a remote dataset, made by `open_remote`.

    Args:
        store: where the dataset lies.
        manifest: the snapshot.
        versions: of the objects.
        cache: where blocks of them are kept; it is closed with this, as the store is.
        options: how records are read.
        policy: how they are fetched.

    Attributes:
        schema: the columns.
        catalog: keys, metadata and SQL; ``None`` where there are none.
        manifest: the commit.
        path: the dataset's url.
        quick: see `TableRecords.quick`.
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
        self.catalog: Catalog | None = None
        self._options = options
        self._policy = policy = policy or Policy()
        self._store, self._cache = store, cache
        self._names = tuple(self.schema)
        self._closed = False
        self._mirror = mirror = Mirror(store, manifest, versions, cache)
        try:
            self._table = TableRecords(mirror.path, mirror.snapshot(), options)
        except BaseException:
            mirror.close()
            raise
        if self._table.catalog is not None:
            self.catalog = RemoteCatalog(mirror, self._table.catalog)
        columns = {
            column.name: RemoteColumn(files, self._table.values(column.name))
            for column, files in zip(manifest.columns, mirror.columns, strict=True)
        }
        bins = {c.number: self._table.values(c.name).reader.bins for c in manifest.columns}
        mirror.reopened = partial(_forget, bins)
        self._keeping = Keeping(mirror, columns, policy, verify=options.verify)
        self._helpers = Helpers()
        self._through = Through(self.schema, columns, options.verify, self._helpers.map)
        self._streaming = Streaming(
            self._table, self._keeping, self._through, policy, limit_nbytes=cache.limit_nbytes
        )
        self.quick = self._table.quick if self._keeping.remembers and options.verify else None

    # -- reading ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._table)

    @property
    def take(self) -> Callable[[Any], list[bytes] | None] | None:
        """Where records are plain bytes that may be read without a look: `ColumnReader.take`."""
        column = self.manifest.columns[0]
        plain = column.field.kind == "bytes" and column.field.compression is None
        if not self.manifest.bare or not plain or self.quick is None or column.missing:
            return None
        return self._table.values(self._names[0]).reader.take

    def get(self, row: int) -> Any:
        """One record, which is faster than `read` for it alone."""
        self._check_open()
        if self._keeping.warm:
            try:
                return self._table.get(row)
            except FormatError:
                self._keeping.forget()
        return self._read_all(np.array([row], dtype=np.int64))[0]

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
            return self._keeping.careful(
                physical, columns, lambda: self._table.read(rows, columns, out)
            )
        except CacheFull:
            return read_through(self._through, physical, columns, out)

    def _read_all(self, rows: Rows) -> list[Any]:
        return self._read_some(self.schema, rows)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`; what follows in the order, also behind ``stop``, is fetched."""
        self._check_open()
        return self._streaming.stream(order, start, stop, self._read_all, self.schema)

    def iterate_columns(self, order: Order, start: int, stop: int, schema: Schema) -> Iterator[Any]:
        """Records of some columns, as `iterate`; nothing of the others is fetched."""
        self._check_open()
        return self._streaming.stream(order, start, stop, partial(self._read_some, schema), schema)

    def _read_some(self, schema: Schema, rows: Rows) -> list[Any]:
        return records_of(schema, self.read(rows, tuple(schema)))

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order."""
        return self.iterate(Consecutive(len(self)), start, stop)

    def ahead(self, order: Order, position: int) -> None:
        """Fetch what follows in an order that others read, without waiting for it.

        Args:
            order: over these rows; `indices` of a stretch may give fewer rows than positions.
            position: of the order, which was read up to here.
        """
        self._check_open()
        self._streaming.ahead(order, position)

    # -- what the index alone says ---------------------------------------------------------

    def lengths(self, rows: Rows, names: Sequence[str]) -> Rows:
        """Stored bytes of records, payloads unread: an int64 array of shape (n,)."""
        self._check_open()
        physical = self._table.physical(rows)
        readers = [self._table.values(name).reader for name in names]

        def read() -> Rows:
            total: Rows = np.sum([r.lengths(physical) for r in readers], axis=0, dtype=np.int64)
            return total

        return self._keeping.of_index(names, read)

    def nbytes(self) -> int:
        """Stored bytes of all values of all rows; fetches the index whole."""
        self._check_open()
        return self._keeping.of_index(self._names, self._table.nbytes)

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        return self._table.layout()

    # -- travelling and ending -------------------------------------------------------------

    def __reduce__(self) -> Any:
        manifest = zlib.compress(encode(self.manifest), 9)
        where = self._store, manifest, self._mirror.versions, self._cache
        return _reopen, (*where, self._options, self._policy)

    def close(self) -> None:
        """See `Records.close`; what was fetched stays in the cache."""
        if not self._closed:
            self._closed = True
            self._streaming.close()
            self._helpers.close()
            self._table.close()
            self._mirror.close()
            self._cache.close()
            self._store.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(errno.EBADF, "the dataset is closed", self.path)

    def __repr__(self) -> str:
        return f"RemoteRecords({self.path!r}, {len(self)} of {list(self.schema)})"


def _forget(bins: Mapping[int, BinFiles], identity: FileId) -> None:
    if identity.kind == "bin":
        bins[identity.column].forget(identity.number)


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
