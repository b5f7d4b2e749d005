"""Files by location.

Responsible for: `Fetcher`, which knows the stores of all origins and the cache in front of them,
reads whole files through them, and does so several at a time; `Access`, what a user says of them;
and `checked`, which compares what came with what a table says of it.

Rules:
- a store is opened when the first file of its origin is asked for, once a process;
- options, which may hold credentials, are for the origin that they were given for, and are sent to
  no other that a table names;
- through the cache where there is one, which is shared by all processes of the machine; straight
  from the store otherwise, as files of this machine always are. What may be tried again was tried
  again below this;
- it travels as what it is made of: another process opens stores, cache and threads of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.raw.locations import Location, is_url, placed
from splitpipe.raw.pool import Pool
from splitpipe.stores import Store, open_store
from splitpipe.stores.sealed import Sealed

__all__ = ["Access", "Fetcher", "checked", "options_by_origin"]

_NOT_CACHED: Final = ("file", "memory")


def options_by_origin(
    options: Mapping[str, Any] | None, origins: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Options of stores by the root that each is for.

    Args:
        options: by the url of an origin (``"s3://bucket"``), or of a whole scheme (``"s3://"``);
            or those of the only origin.
        origins: urls that the user named: of the table, of its base, and what it may reach.

    Raises:
        FormatError: nothing says which origin they are for.

    Example:
        >>> options_by_origin({"key": "k"}, ["/data", "s3://bucket/table.csv"])
        {'s3://bucket/': {'key': 'k'}}
        >>> options_by_origin({"s3://": {"key": "k"}}, [])
        {'s3://': {'key': 'k'}}
    """
    given = dict(options or {})
    if not given:
        return {}
    named = [name for name in given if is_url(name)]
    if named and len(named) == len(given):
        return {_root(name): dict(given[name]) for name in named}
    roots = {_root(url) for url in origins if is_url(url)}
    if named or len(roots) != 1:
        raise FormatError(
            "storage_options= must say which origin they are for: {'s3://bucket': {...}}; there "
            f"are {', '.join(sorted(roots)) or 'none'}"
        )
    return {roots.pop(): given}


def _root(url: str) -> str:
    return url if url.endswith("://") else placed(url).root


@dataclass(frozen=True, slots=True)
class Access:
    """How files are had.

    Attributes:
        stores: stores of the user's own, by the url of their root.
        options: for those that are opened, by root or by scheme; see `options_by_origin`.
        cache_dir: where the cache is; ``None``: there is none.
        cache_limit: bytes of the cache.
        concurrency: requests under way at a time, in every process.
    """

    stores: Mapping[str, Store] = field(default_factory=dict)
    options: Sealed = field(default_factory=lambda: Sealed({}))
    cache_dir: str | None = None
    cache_limit: int | str | None = None
    concurrency: int = 16

    def open(self, root: str) -> Store:
        """The store of an origin, without the cache."""
        if root in self.stores:
            return self.stores[root]
        options = self.options.open()
        scheme = root.partition("://")[0] + "://"
        return open_store(root, storage_options=options.get(root, options.get(scheme)))


class Fetcher:
    """Reads files wherever they lie.

    Args:
        access: how.

    Example:
        >>> from splitpipe.stores import MemoryStore
        >>> store = MemoryStore()
        >>> _ = store.write("a.txt", b"hello")
        >>> fetcher = Fetcher(Access({"memory://x/": store}))
        >>> fetcher.read(Location("memory://x/", "a.txt"))
        b'hello'
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._pool = Pool(access.concurrency)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._opened: dict[str, Store] = {}
        self._cache: Any = None

    def read(self, location: Location) -> bytes:
        """All of a file.

        Raises:
            StorageError, RemoteError: see `Store`.
        """
        return self._store(location.root).read(location.key)

    def start(self, location: Location) -> Future[bytes]:
        """Begin to read a file; several are read at a time."""
        return self._pool.submit(self.read, location)

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Have files come into the cache that will be wanted soon; nothing without one."""
        by_root: dict[str, list[str]] = {}
        for location in locations:
            by_root.setdefault(location.root, []).append(location.key)
        for root, keys in by_root.items():
            ahead = getattr(self._store(root), "prefetch", None)
            if ahead is not None and self._caches(root):
                ahead(keys)

    def _caches(self, root: str) -> bool:
        kind = root.partition("://")[0]
        return self.access.cache_dir is not None and is_url(root) and kind not in _NOT_CACHED

    def _store(self, root: str) -> Store:
        if self._process != os.getpid():  # a child that was forked: connections are not shared
            self._lock, self._opened, self._cache = threading.Lock(), {}, None
            self._process = os.getpid()
        known = self._opened.get(root)
        if known is None:
            with self._lock:
                known = self._opened.get(root)
                if known is None:
                    known = self._opened[root] = self._behind_cache(root)
        return known

    def _behind_cache(self, root: str) -> Store:
        store = self.access.open(root)
        if not self._caches(root):
            return store
        from splitpipe import cache  # maps files, which nobody needs who has none

        if self._cache is None:
            limit = self.access.cache_limit
            self._cache = (
                cache.BlockCache(self.access.cache_dir)
                if limit is None
                else cache.BlockCache(self.access.cache_dir, limit)
            )
        cached: Store = cache.CachedStore(store, self._cache)
        return cached

    def close(self) -> None:
        """Let go of threads, connections and the cache; a second call does nothing."""
        self._pool.close()
        if self._process != os.getpid():
            return
        with self._lock:
            opened, self._opened = self._opened, {}
            cache, self._cache = self._cache, None
        for root, store in opened.items():
            if root not in self.access.stores:  # those are the user's
                store.close()
        if cache is not None:
            cache.close()

    def __reduce__(self) -> Any:
        return Fetcher, (self.access,)

    def __repr__(self) -> str:
        behind = "" if self.access.cache_dir is None else f" through {self.access.cache_dir}"
        return f"Fetcher({self.access.concurrency} at a time{behind})"


def checked(
    data: bytes, size: Any = None, md5: str | None = None, sha256: str | None = None
) -> bytes:
    """The bytes of a file, if they are those that a table says; what is ``None`` is not said.

    Raises:
        CorruptRecord: they are not.

    Example:
        >>> checked(b"abc", size=3, md5="900150983CD24FB0D6963F7D28E17F72")
        b'abc'
        >>> checked(b"abc", size="4")
        Traceback (most recent call last):
        splitpipe.errors.CorruptRecord: the table says 4 bytes, there are 3
    """
    if size is not None and size != "":
        try:
            wanted = int(size)
        except ValueError as error:
            raise CorruptRecord(f"the table says {size!r:.60} for a number of bytes") from error
        if len(data) != wanted:
            raise CorruptRecord(f"the table says {wanted} bytes, there are {len(data)}")
    for name, digest in (("md5", md5), ("sha256", sha256)):
        if digest:
            found = hashlib.new(name, data, usedforsecurity=False).hexdigest()
            if found != digest.strip().lower():
                raise CorruptRecord(f"the table says {name} {digest!r:.80}, it is {found}")
    return data
