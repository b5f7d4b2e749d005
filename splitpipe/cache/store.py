"""A store in front of which lies a cache.

Responsible for: `CachedStore`: any store's objects, read through a `BlockCache`.

Rules:
- an object's version is pinned when it is first seen here: as long as this store is open, its bytes
  are of that version, or reading raises `DatasetChanged` (of the last hundred thousand objects);
- what has no version is not kept: nobody could tell when it changes;
- listing, asking and writing are the store's own.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from splitpipe.cache.ahead import Prefetch
from splitpipe.cache.cache import BlockCache
from splitpipe.cache.file import EXTENT_NBYTES, CachedFile
from splitpipe.cache.forks import renew_in_children
from splitpipe.errors import CacheFull, DatasetChanged, StorageError
from splitpipe.stores import ObjectStat, Store

__all__ = ["CachedStore"]

_OPEN: Final = 128  # objects
_KNOWN: Final = 200_000  # versions


class CachedStore:
    """A store whose reads go through a cache.

    Args:
        store: where the objects are.
        cache: where their blocks are kept; it is not closed with this store.

    Example:
        >>> import tempfile
        >>> from splitpipe.cache import BlockCache
        >>> from splitpipe.stores import MemoryStore
        >>> store = MemoryStore("memory://bucket/")
        >>> stat = store.write("a", b"hello world")
        >>> with BlockCache(tempfile.mkdtemp(), "10 MB") as cache:
        ...     cached = CachedStore(store, cache)
        ...     print(cached.read("a", 0, 5), cached.read("a"), cache.statistics().requests)
        ...     cached.close()
        b'hello' b'hello world' 1
    """

    def __init__(self, store: Store, cache: BlockCache) -> None:
        self.url = store.url
        self._store = store
        self._cache = cache
        self._lock = threading.Lock()
        self._stats: dict[tuple[str, str | None], ObjectStat] = {}
        renew_in_children(self)
        self._files: OrderedDict[tuple[str, str | None], CachedFile] = OrderedDict()

    # -- the store ---------------------------------------------------------------------------

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`: of the object as it is now; the version that is read is not changed."""
        stat = self._store.stat(key)
        with self._lock:
            self._stats.setdefault((key, None), stat)
            self._stats[key, stat.tag] = stat
            while len(self._stats) > _KNOWN:
                del self._stats[next(iter(self._stats))]
        return stat

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        stat = self._pinned(key, tag)
        end = stat.size if stop is None else stop
        if not 0 <= start <= end <= stat.size:
            text = f"bytes {start} to {end} are wanted, it has {stat.size}"
            raise StorageError(errno.ERANGE, text, key)
        try:
            file = self._file(key, stat)
        except CacheFull:
            file = None
        if file is None:
            return self._store.read(key, start, end, tag=stat.tag)
        return file.read(start, end)

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`."""
        return self._store.list(prefix)

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`: the new version is read from now on."""
        stat = self._store.write(key, data, expected=expected)
        self.forget(key)
        return stat

    def close(self) -> None:
        """Close the files and the store; a second call does nothing."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
        for file in files:
            file.close()
        self._store.close()

    # -- what a cache can do -----------------------------------------------------------------

    def file(self, key: str) -> CachedFile | None:
        """The object as a local file; None where it has no version, and is not kept.

        Raises:
            CacheFull: there is no room for another object.
        """
        return self._file(key, self._pinned(key, None))

    def prefetch(self, keys: Sequence[str], *, extent_nbytes: int = EXTENT_NBYTES) -> Prefetch:
        """Fetch whole objects, without waiting, as far as this process's share of the cache goes.

        What goes wrong is not told here: reading tells it.
        """
        return self._cache.prefetch_found(
            [partial(self.file, key) for key in keys], extent_nbytes=extent_nbytes
        )

    def forget(self, key: str) -> None:
        """Have the version of an object looked up anew."""
        with self._lock:
            for known in [known for known in self._stats if known[0] == key]:
                del self._stats[known]
                self._files.pop(known, None)

    # -- versions ----------------------------------------------------------------------------

    def _pinned(self, key: str, tag: str | None) -> ObjectStat:
        """What is read where this version is wanted, or any."""
        stat = self._stats.get((key, tag))
        if stat is None:
            stat = self.stat(key)
            if tag is not None and tag != stat.tag:
                text = f"it was replaced: {tag} is wanted, {stat.tag} is there"
                raise DatasetChanged(errno.ESTALE, text, key)
        return stat

    def _file(self, key: str, stat: ObjectStat) -> CachedFile | None:
        if stat.tag is None:
            return None
        with self._lock:
            found = self._files.get((key, stat.tag))
            if found is not None:
                self._files.move_to_end((key, stat.tag))
                return found
        file = self._cache.open(self._store, key, stat=stat)
        with self._lock:
            found = self._files.setdefault((key, stat.tag), file)
            # Whoever still reads one that leaves keeps it open.
            while len(self._files) > _OPEN:
                self._files.popitem(last=False)
        return found

    def renew(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return CachedStore, (self._store, self._cache)

    def __repr__(self) -> str:
        return f"CachedStore({self._store!r}, {self._cache!r})"
