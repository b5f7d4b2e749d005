"""One object as a local file whose blocks come when they are asked for.

Responsible for: `CachedFile`: the paths of what is there already, which have to be short; all else
is done by `fetching` and `Opened`.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt

from splitpipe.cache import fetching
from splitpipe.cache.ahead import Prefetch
from splitpipe.cache.marks import fence
from splitpipe.cache.opened import Opened
from splitpipe.cache.ranges import Blocks, Ranges, blocks_of, touched
from splitpipe.cache.token import OneToken, Token
from splitpipe.errors import StorageError
from splitpipe.stores import ObjectStat, Store

if TYPE_CHECKING:
    from splitpipe.cache.cache import BlockCache

__all__ = ["EXTENT_NBYTES", "CachedFile"]

EXTENT_NBYTES: Final = 4 << 20
"""How much a request asks for at most, unless somebody says."""


class CachedFile:
    """One object as a sparse local file, made by `BlockCache.open`.

    Map ``path``, or read it, after `ensure`; then ask the token whether what was copied is right.
    The file stays the same, at its full size, as long as this is open.

    Attributes:
        path: of the local file.
        key: in the store.
        size: in bytes.
        block_nbytes: the size of a block; the last one may be shorter.
        marks: one a block, read-only and live: 0 is missing, else a number that the folder never
            used before, with bit 1 set once the block is on the disk for certain.
    """

    def __init__(
        self,
        cache: BlockCache,
        opened: Opened,
        *,
        store: Store,
        stat: ObjectStat,
        identity: str | None,
    ) -> None:
        self.path = opened.path
        self.key = opened.identity.key
        self.size = opened.identity.size
        self.block_nbytes = opened.identity.block_nbytes
        self.marks: npt.NDArray[np.uint64] = opened.marks.marks.view()
        self.marks.flags.writeable = False
        self._cache = cache
        self._opened = opened
        self._marks = opened.marks.marks
        self._stamps = opened.marks.stamps
        self._words = self._marks.data
        self._stamp_words = self._stamps.data
        self._clock = opened.space.account.state.clock_word
        self._origin = store, stat, identity

    def blocks(self, ranges: Ranges) -> Blocks:
        """The blocks that ranges touch, sorted."""
        return blocks_of(ranges, size=self.size, block_nbytes=self.block_nbytes, name=self.key)

    def ensure(self, ranges: Ranges, *, extent_nbytes: int = EXTENT_NBYTES) -> Token:
        """Have ranges of bytes there, all at one moment; what is missing is fetched.

        Args:
            ranges: half open; in any order, overlapping if need be.
            extent_nbytes: how much a request may ask for.

        Raises:
            CacheFull: they cannot all be there: more than the limit, a full disk, or others need
                the room as fast as this process fills it. `read` gives them all the same.
            StorageError, RemoteError, DatasetChanged: the store's.
        """
        if len(ranges) == 1:
            start, stop = ranges[0]
            token = self._one(int(start), int(stop))
            if token is not None:
                return token
        blocks = touched(ranges, size=self.size, block_nbytes=self.block_nbytes, name=self.key)
        return self.ensure_blocks(blocks, extent_nbytes=extent_nbytes)

    def _one(self, start: int, stop: int) -> Token | None:
        """The token of a range within one block that is there."""
        block = start // self.block_nbytes
        if not 0 <= start < stop <= min(self.size, (block + 1) * self.block_nbytes):
            return None
        evictions = self._cache.evictions
        seen = evictions[0]
        mark = self._words[block]
        if not mark:
            return None
        self._stamp_words[block] = self._clock[0]
        self._cache._counters.hit(1)
        return OneToken(
            evictions, seen, marks=self._marks, words=self._words, block=block, mark=mark
        )

    def ensure_blocks(self, blocks: Blocks, *, extent_nbytes: int = EXTENT_NBYTES) -> Token:
        """The same for blocks, by number."""
        evictions = self._cache.evictions
        seen = evictions[0]
        found = self._marks.take(blocks)
        if np.count_nonzero(found) == len(blocks):
            self._stamps[blocks] = self._opened.space.account.tick()
            self._cache._counters.hit(len(blocks))
            return Token(evictions, seen, ((self._marks, blocks, found),))
        self._cache._check_open()
        return fetching.ensure(
            self._cache._pool, [(self._opened, blocks)], extent_nbytes=extent_nbytes
        )

    def missing(self, ranges: Ranges) -> int:
        """How many bytes are in blocks that these ranges touch and that are not there."""
        blocks = self.blocks(ranges)
        return self._opened.identity.cost_of(blocks[self._marks.take(blocks) == 0])

    def read(self, start: int, stop: int, *, extent_nbytes: int = EXTENT_NBYTES) -> bytes:
        """Bytes ``start`` to ``stop - 1``: always, also where the cache has no room for them.

        Raises:
            StorageError, RemoteError, DatasetChanged: the store's.
        """
        if not 0 <= start <= stop <= self.size:
            text = f"bytes {start} to {stop} are wanted, it has {self.size}"
            raise StorageError(errno.ERANGE, text, self.key)
        data = self._read_there(start, stop)
        if data is not None:
            return data
        self._cache._check_open()
        pool = self._cache._pool
        return fetching.read(pool, self._opened, start, stop, extent_nbytes=extent_nbytes)

    def _read_there(self, start: int, stop: int) -> bytes | None:
        """Bytes of blocks that are all there, unless anything at all is thrown out meanwhile."""
        evictions, descriptor = self._cache.evictions, self._opened.data
        seen = evictions[0]
        blocks = slice(start // self.block_nbytes, -(-stop // self.block_nbytes))
        marks = self._marks[blocks]
        if descriptor < 0 or not marks.all():
            return None
        try:
            data = os.pread(descriptor, stop - start, start)
        except OSError:
            return None
        fence()
        # A descriptor that was closed meanwhile may have been anybody's.
        if evictions[0] != seen or len(data) != stop - start or self._opened.data != descriptor:
            return None
        self._stamps[blocks] = self._clock[0]
        self._cache._counters.hit(len(marks))
        return data

    def prefetch(self, ranges: Ranges, *, extent_nbytes: int = EXTENT_NBYTES) -> Prefetch:
        """Fetch ranges without waiting, as far as this process's share of the cache goes."""
        return self._cache.prefetch([(self, ranges)], extent_nbytes=extent_nbytes)

    def touch(self, blocks: Blocks) -> None:
        """Note that blocks are in use, without looking whether they are there."""
        self._stamps[blocks] = self._clock[0]

    def done_with(self, ranges: Ranges) -> None:
        """Throw these out first, when room is needed."""
        self._stamps[self.blocks(ranges)] = 0

    def invalidate(self, ranges: Ranges, *, token: Token | None = None) -> None:
        """Throw blocks out because their bytes are wrong; who wants them fetches them anew.

        Args:
            ranges: of bytes that are wrong.
            token: of the `ensure` before they were read: what came anew since is left.
        """
        blocks = self.blocks(ranges)
        if token is not None:
            marks, seen, before = next(part for part in token.parts if part[0] is self._marks)
            known = dict(zip(seen.tolist(), (before | np.uint64(2)).tolist()))
            now = (marks.take(blocks) | np.uint64(2)).tolist()
            same = [known.get(block) == mark for block, mark in zip(blocks.tolist(), now)]
            blocks = blocks[np.array(same, bool)]
        self._opened.discard(blocks)

    def close(self) -> None:
        """Close its files; a second call does nothing."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self._opened.close()

    def __reduce__(self) -> tuple[object, ...]:
        store, stat, identity = self._origin
        return _open_again, (self._cache, store, self.key, stat, identity, self.block_nbytes)

    def __repr__(self) -> str:
        there = int(np.count_nonzero(self.marks))
        return f"CachedFile({self.key!r}, {there} of {len(self.marks)} blocks)"


def _open_again(
    cache: BlockCache,
    store: Store,
    key: str,
    stat: ObjectStat,
    identity: str | None,
    block_nbytes: int,
) -> CachedFile:
    return cache.open(store, key, stat=stat, identity=identity, block_nbytes=block_nbytes)
