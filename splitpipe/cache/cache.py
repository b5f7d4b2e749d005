"""Blocks of remote objects on the disk, shared by all processes of a machine.

Responsible for: `BlockCache`, which puts the parts of this room together.

Rules:
- what is read is what the store has, or an error: a block that goes while it is copied is noticed;
- a block is fetched once for all processes, as long as it stays;
- what the folder holds never passes the limit;
- a fork gets locks of its own at once; threads, and what they were at, stay with the parent.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Self

from splitpipe.cache import fetching
from splitpipe.cache.ahead import Ahead, Prefetch
from splitpipe.cache.file import EXTENT_NBYTES, CachedFile
from splitpipe.cache.folder import claim, drop_mirrors
from splitpipe.cache.forks import renew_in_children
from splitpipe.cache.marks import Identity
from splitpipe.cache.opened import Opened
from splitpipe.cache.pool import Pool
from splitpipe.cache.ranges import Blocks, Ranges
from splitpipe.cache.sizes import default_directory, parse_nbytes
from splitpipe.cache.space import Space
from splitpipe.cache.state import NO_LIMIT
from splitpipe.cache.statistics import CacheStatistics, Counters
from splitpipe.cache.token import Token
from splitpipe.errors import FormatError, StorageError
from splitpipe.stores import ObjectStat, Store, checked_key

__all__ = ["BLOCK_NBYTES", "BlockCache"]

BLOCK_NBYTES: Final = 256 << 10
_LEAST_BLOCKS: Final = 4


class BlockCache:
    """A folder with blocks of remote objects, shared by all processes of a machine.

    Args:
        directory: of the cache; by default ``$SPLITPIPE_CACHE``, else the user's cache folder.
        limit_nbytes: how much it may hold, as a number or as ``"50GB"``; ``None`` is without limit.
            The smallest limit of the processes that use the folder holds.
        requests: how many are made at once.

    Attributes:
        directory: its absolute path.
        limit_nbytes: as it was given, in bytes.
        evictions: the live count of evictions: read it before the marks, compare it after copying.

    Raises:
        StorageError: the folder cannot be used, or other things lie in it.
        UnsupportedVersion: a newer version made it.
        FormatError: its files are damaged, or the limit is less than 4 blocks.

    Example:
        >>> import tempfile
        >>> from splitpipe.stores import MemoryStore
        >>> store = MemoryStore("memory://bucket/")
        >>> stat = store.write("a", b"hello world")
        >>> with BlockCache(tempfile.mkdtemp(), "10 MB") as cache, cache.open(store, "a") as file:
        ...     token = file.ensure([(0, 5)])
        ...     with open(file.path, "rb") as local:
        ...         text = local.read(5)
        ...     print(text, token.still_valid(), cache.statistics().requests)
        b'hello' True 1
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        limit_nbytes: int | str | None = "50GB",
        *,
        requests: int = 16,
    ) -> None:
        limit = NO_LIMIT if limit_nbytes is None else parse_nbytes(limit_nbytes)
        least = _LEAST_BLOCKS * BLOCK_NBYTES
        if limit < least:
            raise FormatError(f"a cache of {limit} bytes holds nothing: give it {least} or more")
        self._closed = True
        self._requests = requests
        self._layout = claim(default_directory() if directory is None else os.fspath(directory))
        self.directory = self._layout.root
        self.limit_nbytes = limit
        self._counters = Counters()
        self._space = Space(self._layout, limit, self._counters)
        self.evictions = self._space.account.state.evictions
        self._files: weakref.WeakSet[Opened] = weakref.WeakSet()
        self._start()
        self._closed = False
        renew_in_children(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._pool = Pool(self._requests)
        self._ahead = Ahead(self._space, self._pool)
        self._space.make_durable = partial(_make_durable, self._pool, self._files)

    # -- objects -----------------------------------------------------------------------------

    def open(
        self,
        store: Store,
        key: str,
        *,
        size: int | None = None,
        tag: str | None = None,
        stat: ObjectStat | None = None,
        identity: str | None = None,
        block_nbytes: int = BLOCK_NBYTES,
    ) -> CachedFile:
        """An object, as a local file whose blocks come when they are asked for.

        Args:
            store: where it is.
            key: there.
            size: of the object; the store is asked unless this or ``stat`` is given.
            tag: the version that is wanted; goes to the store with every request.
            stat: size and tag in one.
            identity: names the version in the cache instead of the tag, where that is known by
                other means, or the store has none.
            block_nbytes: how much is fetched at least; a power of two, of a page or more.

        Raises:
            CacheFull: there is no room for another object.
            StorageError, RemoteError: the store has no such object, or did not say.
        """
        self._check_open()
        if block_nbytes < 4096 or block_nbytes & (block_nbytes - 1):
            raise FormatError(f"a block of {block_nbytes} bytes: give a power of two from 4096 on")
        checked_key(key)
        if stat is None:
            stat = store.stat(key) if size is None else ObjectStat(size, tag)
        version = stat.tag if identity is None else identity
        what = Identity(store.url, key, version, stat.size, block_nbytes)
        opened = Opened(self._space, store, what, tag=stat.tag, counters=self._counters)
        self._files.add(opened)
        return CachedFile(self, opened, store=store, stat=stat, identity=identity)

    def ensure_all(
        self,
        wanted: Sequence[tuple[CachedFile, Ranges]],
        *,
        extent_nbytes: int = EXTENT_NBYTES,
    ) -> Token:
        """Have ranges of several objects there, all at one moment; see `CachedFile.ensure`."""
        self._check_open()
        if not wanted:
            return Token(self.evictions, self.evictions[0], ())
        blocks = [(file._opened, file.blocks(ranges)) for file, ranges in wanted]
        return fetching.ensure(self._pool, blocks, extent_nbytes=extent_nbytes)

    def prefetch(
        self,
        wanted: Sequence[tuple[CachedFile, Ranges]],
        *,
        extent_nbytes: int = EXTENT_NBYTES,
    ) -> Prefetch:
        """Fetch ranges of several objects, without waiting, as far as this process's share goes."""
        self._check_open()
        blocks = [(file._opened, file.blocks(ranges)) for file, ranges in wanted]
        prefetch = Prefetch()
        self._ahead.prefetch(blocks, prefetch, extent_nbytes=extent_nbytes)
        return prefetch

    def prefetch_found(
        self,
        finds: Sequence[Callable[[], CachedFile | None]],
        *,
        extent_nbytes: int = EXTENT_NBYTES,
    ) -> Prefetch:
        """Fetch whole objects that have to be found first, all of it without waiting."""
        self._check_open()
        prefetch = Prefetch()
        for find in finds:
            self._ahead.look(partial(_whole, find), prefetch, extent_nbytes=extent_nbytes)
        return prefetch

    def folder(self, name: str) -> str:
        """A folder below the cache's own for small files of whoever uses it, made if missing."""
        path = os.path.join(self.directory, *checked_key(name).split("/"))
        if name.split("/")[0] != "mirrors":
            raise FormatError(f"{name!r}: such folders are below mirrors/")
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    # -- looking -----------------------------------------------------------------------------

    def statistics(self) -> CacheStatistics:
        """What this object did since it was opened, and how full the folder is."""
        counters, account = self._counters, self._space.account
        self._check_open()
        return CacheStatistics(
            hits=counters.hits,
            misses=counters.misses,
            requests=counters.requests,
            fetched_nbytes=counters.fetched_nbytes,
            streamed_nbytes=counters.streamed_nbytes,
            evicted_nbytes=counters.evicted_nbytes,
            waits=counters.waits,
            limit_nbytes=account.state.limit,
            used_nbytes=account.state.used,
            reserved_nbytes=account.state.reserved,
            processes=account.living,
        )

    def prune(self, to_nbytes: int | str = 0, *, unused_for_s: float | None = None) -> int:
        """Throw out what was wanted longest ago, in use or not.

        Args:
            to_nbytes: how much may stay.
            unused_for_s: only objects that were not used for so long, by the clock of the machine.

        Returns:
            how many bytes went.
        """
        self._check_open()
        gone = self._space.prune(parse_nbytes(to_nbytes), unused_for_s=unused_for_s)
        self._space.look_around()
        if self._space.account.living == 1:
            drop_mirrors(self._layout)
        return gone

    # -- ending ------------------------------------------------------------------------------

    def close(self) -> None:
        """End its threads and close its files; a second call does nothing."""
        self._close(wait=True)

    def _close(self, *, wait: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._space.closing.set()
        self._pool.close(wait=wait)
        self._ahead.close()
        for opened in list(self._files):
            opened.close()
        self._space.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(errno.EBADF, "the cache is closed", self.directory)

    def renew(self) -> None:
        """In a forked child: threads, locks and a row of its own."""
        if self._closed:
            return
        self._space.renew()
        self._counters.renew()
        for opened in list(self._files):
            opened.renew()
        self._ahead.renew()
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self._close(wait=False)

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.directory, self.limit_nbytes, self._requests)

    def __repr__(self) -> str:
        return f"BlockCache({self.directory!r}, limit_nbytes={self.limit_nbytes})"


def _make_durable(pool: Pool, files: weakref.WeakSet[Opened]) -> None:
    for opened in list(files):
        if opened.fresh and opened.worth_a_sync:
            pool.submit(opened.make_durable, later=True)


def _again(directory: str, limit_nbytes: int, requests: int) -> BlockCache:
    return BlockCache(directory, limit_nbytes, requests=requests)


def _whole(find: Callable[[], CachedFile | None]) -> list[tuple[Opened, Blocks]]:
    file = find()
    return [] if file is None else [(file._opened, file.blocks([(0, file.size)]))]
