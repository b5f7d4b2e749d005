"""Room in a cache: taken before anything comes, made by throwing others out.

Responsible for: `Space`: taking room within the limit, making it, the files of objects, and giving
back what the dead had taken.

Rules:
- what was wanted longest ago goes first, whoever wanted it; what is being fetched does not go;
- one thread of one process throws out at a time; the others find the room that it made;
- where the file system cannot give back places in a file, whole objects go that nobody has open.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from splitpipe.cache import files
from splitpipe.cache.account import Account, Slot
from splitpipe.cache.eviction import choose, evict, oldest, repair
from splitpipe.cache.folder import Layout
from splitpipe.cache.journal import Journal
from splitpipe.cache.locks import Locks
from splitpipe.cache.marks import Identity, MarkFile
from splitpipe.cache.objects import (
    is_whole,
    make_object,
    open_object,
    remove_object,
    use_of,
)
from splitpipe.cache.state import EVICTING, FILLING, MAKING, NO_LIMIT
from splitpipe.cache.statistics import Counters
from splitpipe.errors import CacheFull, FormatError, StorageError

__all__ = ["Space"]

_STRIDE: Final = 32  # the part of the limit that goes at once
_STRIDE_NBYTES: Final = 64 << 20
_FRESH_NBYTES: Final = 64 << 20
_LOOK_AROUND_S: Final = 0.25
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.002


class Space:
    """Room in one cache.

    Args:
        layout: of its folder.
        limit: of this process, in bytes.
        counters: what is told of evictions.

    Attributes:
        closing: set when the cache is closed.
        closing_s: how long closing files has waited for the disk, in all.
        make_durable: has what was filled made durable in the background; who has threads sets it.
    """

    def __init__(self, layout: Layout, limit: int, counters: Counters) -> None:
        self.layout = layout
        self._journal = Journal(layout)
        self.account = Account(layout, limit, recount=self._recount)
        self._counters = counters
        self._one = threading.RLock()
        self.closing = threading.Event()
        self._looked_around = 0.0
        self._told = False
        self.closing_s = 0.0
        self._holes: bool | None = None
        self.make_durable: Callable[[], object] = lambda: None
        self._fresh_nbytes = 0
        with self._one:
            self.look_around()
            if self.account.state.used > self.account.state.limit:
                self.prune(self.account.state.limit)

    def _recount(self, restarted: bool) -> int:
        if restarted:
            self._journal.replay()
        return sum(use_of(self.layout, d, restarted=restarted) for d in self.layout.found())

    # -- taking ------------------------------------------------------------------------------

    def take(
        self,
        digest: bytes,
        *,
        first: int,
        count: int,
        nbytes: int,
        patient: bool = True,
        kind: int = FILLING,
    ) -> Slot:
        """Room for some blocks, made where there is none.

        Args:
            digest: of the object.
            first: block.
            count: of blocks.
            nbytes: how much.
            patient: whether to wait a while for what others are fetching to be there, and to go.
            kind: what for.

        Raises:
            CacheFull: none can be made.
        """
        end = time.monotonic() + (_PATIENCE_S if patient else 0.0)
        while True:
            slot = self.account.take(kind, digest, first=first, count=count, nbytes=nbytes)
            if slot is not None:
                return slot
            if self.make_room(nbytes):
                continue
            if time.monotonic() >= end or self.closing.wait(_PAUSE_S):
                limit = self.account.state.limit
                text = f"no room for {nbytes} bytes within the cache's limit of {limit}"
                raise CacheFull(0, text, self.layout.root)

    def note_fresh(self, nbytes: int) -> None:
        """Blocks were filled that are not durable yet."""
        self._fresh_nbytes += nbytes  # a guess, where threads meet
        if self._fresh_nbytes >= _FRESH_NBYTES:
            self._fresh_nbytes = 0
            self.make_durable()

    def settle(self, slot: Slot, *, used: int) -> None:
        """What room was taken for is there, or not."""
        self.account.settle(slot, used=used)

    def reclaim(self, digest: bytes, *, first: int, count: int) -> None:
        """Whoever took room for some blocks was interrupted: nothing is taken for them."""
        self.account.reclaim(FILLING, digest, first=first, count=count)

    # -- objects -----------------------------------------------------------------------------

    def open(self, identity: Identity) -> tuple[Locks, MarkFile]:
        """An object's files, made where there are none, with its life held.

        Raises:
            CacheFull: there is no room for them.
            FormatError: they are damaged, and somebody has them open.
        """
        while True:
            self.account.check_there()
            locks = open_object(self.layout, identity.digest) or self._made(identity)
            try:
                marks = MarkFile(self.layout.marks(identity.digest))
                if is_whole(self.layout, marks, identity.digest):
                    return locks, marks
            except FormatError:
                pass
            except BaseException:
                locks.close()
                raise
            locks.close()
            with self._making(identity.digest):
                path = self.layout.marks(identity.digest)
                if not remove_object(self.layout, identity.digest) and os.path.exists(path):
                    raise FormatError(f"{path} is damaged, and another process has it open")

    @contextmanager
    def _making(self, digest: bytes) -> Iterator[None]:
        with self._one, self.account.making(digest):
            yield

    def _made(self, identity: Identity) -> Locks:
        digest, used = identity.digest, 0
        nbytes = identity.overhead_nbytes
        slot = self.take(digest, first=0, count=0, nbytes=nbytes, kind=MAKING)
        try:
            with self._making(digest):
                locks = open_object(self.layout, digest)
                if locks is None:
                    make_object(self.layout, identity)
                    used = nbytes
                    locks = open_object(self.layout, digest)
        finally:
            self.settle(slot, used=used)
        if locks is None:
            raise StorageError(errno.ESTALE, "somebody removed the cache's files", self.layout.root)
        return locks

    # -- making room -------------------------------------------------------------------------

    def make_room(self, nbytes: int) -> int:
        """Throw out what was wanted longest ago, until there is room for so much.

        Returns:
            how many bytes went, or may be free by now; 0 where nothing can go.
        """
        state = self.account.state
        if nbytes > state.limit:
            return 0
        with self._one:
            if time.monotonic() - self._looked_around > _LOOK_AROUND_S:
                self.look_around()
            with self.account.evicting():
                wanted = state.used + state.reserved + nbytes - state.limit
                if wanted <= 0:
                    return 1
                stride = min(state.limit // _STRIDE, _STRIDE_NBYTES)
                return self._throw_out(max(wanted, stride))

    def prune(self, to_nbytes: int, *, unused_for_s: float | None = None) -> int:
        """Throw out until at most so much is used; how many bytes went.

        Args:
            to_nbytes: how much may stay.
            unused_for_s: only of objects whose marks and stamps nobody changed for so long.
        """
        before = None if unused_for_s is None else time.time() - unused_for_s
        gone = 0
        with self._one, self.account.evicting():
            while (over := self.account.state.used - to_nbytes) > 0:
                went = self._throw_out(over, used_before=before, every=True)
                if not went:
                    break
                gone += went
        return gone

    def give_back(self, nbytes: int) -> int:
        """Throw out as much, because the disk is full before the limit is reached."""
        with self._one, self.account.evicting():
            return self._throw_out(nbytes)

    def tell_full(self, error: CacheFull) -> None:
        """Warn, once, that something could not be kept."""
        if not self._told:
            self._told = True
            warnings.warn(
                f"{error}: what does not fit is read through memory", RuntimeWarning, stacklevel=2
            )

    def _throw_out(
        self, nbytes: int, *, used_before: float | None = None, every: bool = False
    ) -> int:
        if self._holes is None:
            self._holes = files.has_holes(self.layout.root)
        most = nbytes if self._holes else NO_LIMIT
        victims, empty = choose(self.layout, most, used_before=used_before, every=every)
        gone = 0
        if self._holes:
            gone = evict(self.account, self.layout, self._journal, victims)
        else:
            for those in oldest(victims):
                gone += self._remove(those.digest) if gone < nbytes else 0
        gone += sum(self._remove(digest, only_empty=True) for digest in empty)
        self._counters.add(evicted_nbytes=gone)
        return gone

    def _remove(self, digest: bytes, *, only_empty: bool = False) -> int:
        """Remove the files of an object that nobody has open; what they used."""
        with self.account.removing(digest) as alone:
            if not alone:
                return 0
            try:
                marks = MarkFile(self.layout.marks(digest))
            except (FileNotFoundError, FormatError):
                return 0
            identity, present = marks.identity, marks.present()
            if only_empty and len(present):
                return 0
            nbytes = identity.overhead_nbytes + identity.cost_of(present)
            kind, count = (EVICTING, identity.blocks) if len(present) else (MAKING, 0)
            slot = self.account.take(
                kind, digest, first=0, count=count, nbytes=nbytes, was_used=nbytes
            )
            if slot is None:
                return 0
            gone = remove_object(self.layout, digest)
            self.account.count_eviction()
            self.settle(slot, used=0 if gone else nbytes)
            return nbytes if gone else 0

    # -- the dead ----------------------------------------------------------------------------

    def look_around(self) -> None:
        """Give back what dead processes had taken, and see who lives."""
        with self._one:
            for row, *slots in self.account.look_around():
                for slot in slots:
                    repair(self.account, self.layout, slot)
                self.account.bury(row.row)
            self._looked_around = time.monotonic()

    def renew(self) -> None:
        """In a forked child."""
        self._one = threading.RLock()
        self.closing = threading.Event()
        self.account.renew()

    def close(self) -> None:
        """Leave; a second call does nothing."""
        self.closing.set()
        self.account.close()
