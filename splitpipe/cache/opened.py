"""One object that this process has open: its files, and who works on which of its blocks.

Responsible for: `Opened`: claims of blocks against threads and other processes, fetching, marking,
reading what is there, making marks durable.

Rules:
- a block is claimed in this process first (`_busy`), then by its lock: the locks of one open file
  do not exclude the threads that share it;
- nothing waits while it holds a claim, but for the store and for room;
- the files are closed when the last claim is let go.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import numpy as np

from splitpipe.cache import files
from splitpipe.cache.account import Slot
from splitpipe.cache.eviction import throw_out
from splitpipe.cache.flight import Flight
from splitpipe.cache.locks import LIFE
from splitpipe.cache.marks import DURABLE, FIXED, PRESENT, Identity, fence
from splitpipe.cache.ranges import Blocks, pieces, runs
from splitpipe.cache.space import Space
from splitpipe.cache.statistics import Counters
from splitpipe.errors import CacheFull, StorageError
from splitpipe.stores import Store

__all__ = ["Opened"]

_PATIENCE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.0003
_LONGEST_PAUSE_S: Final = 0.005
_WORTH_NBYTES: Final = 4 << 20
_CLOSING_S: Final = 0.3  # what closing files may take for the disk, in all


class Opened:
    """An object that is open in this process.

    Args:
        space: of the cache.
        store: where the object is.
        identity: what it is.
        tag: its version there.
        counters: of the cache.

    Attributes:
        fresh: whether this process has filled blocks that are not durable yet.
    """

    def __init__(
        self,
        space: Space,
        store: Store,
        identity: Identity,
        *,
        tag: str | None,
        counters: Counters,
    ) -> None:
        self.space = space
        self.identity = identity
        self.counters = counters
        self.path = space.layout.data(identity.digest)
        self._store = store
        self._tag = tag
        self._lock = threading.Lock()
        self._busy: dict[int, Flight] = {}
        self.fresh = False
        self._closing = False
        with files.translated("keep an object", self.path):
            self._locks, self.marks = space.open(identity)
            try:
                self.data = files.open_file(self.path)
            except BaseException:
                self._locks.close()
                raise

    # -- claims ------------------------------------------------------------------------------

    def claim(
        self,
        missing: Blocks,
        flights: list[Flight],
        *,
        most: int,
        keep: bool = False,
        ahead: int = 0,
    ) -> list[int]:
        """Claim blocks that are to be fetched.

        Args:
            missing: sorted.
            flights: takes what was claimed, none of which has begun. They are the caller's whatever
                is raised: an interrupt may come at any line.
            most: how many blocks a request may have.
            keep: see `Flight`.
            ahead: see `Flight`.

        Returns:
            the blocks that somebody else works on. What was there by now is nowhere.
        """
        with self._lock:
            self._check_open()
            wanted = missing.tolist()
            busy = [block for block in wanted if block in self._busy]
            free = np.array([b for b in wanted if b not in self._busy], np.int64)
            try:
                for first, count in runs(self._locked(free, busy)):
                    for start, length in pieces(first, count, most=most):
                        flights.append(Flight(self, start, length, keep=keep, ahead=ahead))
                        mine = dict.fromkeys(range(start, start + length), flights[-1])
                        self._busy.update(mine)
            except BaseException:
                for block in free.tolist():
                    if block not in self._busy:
                        self._locks.unlock(block)
                raise
        return busy

    def _locked(self, free: Blocks, busy: list[int]) -> Blocks:
        """Lock those of some blocks that are still missing; add to `busy` those that cannot be."""
        got: list[int] = []
        for first, count in runs(free):
            got.extend(self._try(first, count, busy))
        there = [block for block in got if self.marks.marks[block]]
        for block in there:
            self._locks.unlock(block)
        return np.array(sorted(set(got) - set(there)), np.int64)

    def _try(self, first: int, count: int, busy: list[int]) -> Iterable[int]:
        if self._locks.try_lock(first, count):
            return range(first, first + count)
        got: list[int] = []
        for block in range(first, first + count):
            (got if self._locks.try_lock(block) else busy).append(block)
        return got

    def let_go(self, flight: Flight) -> None:
        """Give what a flight has claimed free, once, however often it is said."""
        every = range(flight.first, flight.first + flight.count)
        with self._lock:
            mine = np.array([b for b in every if self._busy.get(b) is flight], np.int64)
            for first, count in runs(mine):
                with suppress(OSError):
                    self._locks.unlock(first, count)
            for block in mine.tolist():
                del self._busy[block]
            if self._closing and not self._busy:
                self._close()

    def wait(self, block: int) -> None:
        """Wait until a block is there, or nobody works on it.

        Raises:
            CacheFull: whoever works on it does not go on.
        """
        flight = self._busy.get(block)
        if flight is not None:
            flight.landed.wait()
            return
        end, pause = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
        while not self.marks.marks[block]:
            with self._lock:
                self._check_open()
                if block in self._busy or self._locks.try_lock(block):
                    if block not in self._busy:
                        self._locks.unlock(block)
                    return
            if time.monotonic() > end:
                text = f"the process that fetches block {block} does not go on"
                raise CacheFull(errno.ETIMEDOUT, text, self.path)
            if self.space.closing.wait(pause):
                raise StorageError(errno.EBADF, "the cache was closed", self.path)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)

    def most_blocks(self, extent_nbytes: int) -> int:
        """How many blocks a request may have: few where many share a small cache."""
        account = self.space.account
        share = account.state.limit // (2 * max(1, account.living))
        return max(1, min(extent_nbytes, share) // self.identity.block_nbytes)

    # -- filling -----------------------------------------------------------------------------

    def fetch(self, first: int, count: int, *, streamed: bool = False) -> bytes:
        """Bytes of blocks, from the store."""
        start, stop = self.identity.extent(first, count)
        return self.fetch_range(start, stop, streamed=streamed)

    def fetch_range(self, start: int, stop: int, *, streamed: bool) -> bytes:
        """Any bytes, from the store."""
        data = self._store.read(self.identity.key, start, stop, tag=self._tag)
        if len(data) != stop - start:
            text = f"{stop - start} bytes from {start} on were wanted, {len(data)} came"
            raise StorageError(errno.EIO, text, self.identity.key)
        self.counters.add(
            requests=1, fetched_nbytes=len(data), streamed_nbytes=len(data) if streamed else 0
        )
        return data

    def write(self, first: int, data: bytes) -> None:
        """Put bytes of claimed blocks into the file.

        Raises:
            CacheFull: the disk is full, also after something else was thrown out.
            StorageError: the folder was removed.
        """
        self.space.account.check_there()
        start = self.identity.extent(first, 1)[0]
        try:
            with files.translated("keep what was fetched", self.path):
                files.write_at(self.data, data, start)
        except CacheFull:
            if not self.space.give_back(len(data)):
                raise
            with files.translated("keep what was fetched", self.path):
                files.write_at(self.data, data, start)

    def punch(self, first: int, count: int) -> None:
        """Give the place of claimed blocks back, after a failure."""
        start, stop = self.identity.extent(first, count)
        with suppress(OSError):
            files.punch_hole(self.data, start, stop - start)

    def mark(self, slot: Slot, *, ahead: int) -> None:
        """Claimed blocks are there."""
        numbers = np.arange(slot.number, slot.number + slot.count, dtype=np.uint64)
        there = slice(slot.first, slot.first + slot.count)
        self.marks.stamps[there] = numbers + np.uint64(ahead)
        self.marks.marks[there] = (numbers << np.uint64(2)) | np.uint64(PRESENT)

    @property
    def worth_a_sync(self) -> bool:
        """Whether it is so large that waiting for the disk costs less than fetching it again."""
        return self.identity.size >= _WORTH_NBYTES

    def make_durable(self) -> None:
        """Have the blocks that are there on the disk for certain, and say so in their marks.

        Also those that others filled: what they wrote is in the same file.
        """
        self.fresh = False
        marks = self.marks.marks
        before = marks.copy()
        blocks = np.flatnonzero((before != 0) & (before & np.uint64(DURABLE) == 0))
        if not len(blocks) or self.data < 0:
            return
        with files.translated("make blocks durable", self.path):
            folder = files.open_file(os.path.dirname(self.path), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                files.close(folder)
            files.sync(self.data)
        for first, count in runs(blocks):
            with self._lock:
                if self._locks.descriptor < 0:
                    return
                free = [b for b in range(first, first + count) if b not in self._busy]
                for start, length in runs(np.array(free, np.int64)):
                    for block in self._try(start, length, []):
                        if (marks[block] ^ before[block]) & FIXED == 0:
                            marks[block] |= np.uint64(DURABLE)
                        self._locks.unlock(block)

    def discard(self, blocks: Blocks) -> None:
        """Throw out blocks whose bytes are wrong, unless somebody is fetching them anew."""
        for first, count in runs(blocks):
            for block in range(first, first + count):
                self._discard(block)

    def _discard(self, block: int) -> None:
        with self._lock:
            self._check_open()
            if block in self._busy or not self._locks.try_lock(block):
                return
            try:
                throw_out(
                    self.space.account, self.marks, self.data, self._locks, first=block, count=1
                )
            finally:
                self._locks.unlock(block)

    # -- reading -----------------------------------------------------------------------------

    def copy(self, first: int, count: int, into: memoryview, *, start: int, stop: int) -> Blocks:
        """Copy the bytes of blocks that are there.

        Args:
            first: block.
            count: of blocks.
            into: where to, beginning with the byte ``start``.
            start: the first byte that is wanted.
            stop: one more than the last.

        Returns:
            the blocks whose bytes were not there all the time: what was copied of them is nothing.
        """
        before = self.marks.marks[first : first + count].copy()
        blocks = np.arange(first, first + count)
        if not before.any():
            return blocks
        begin, end = self.identity.extent(first, count)
        begin, end = max(begin, start), min(end, stop)
        target = into[begin - start : end - start]
        done = 0
        descriptor = self.data
        while done < len(target):
            read = os.preadv(descriptor, [target[done:]], begin + done)
            if read <= 0:
                raise StorageError(errno.EIO, "the cache's file was cut", self.path)
            done += read
        if self.data != descriptor:
            raise StorageError(errno.EBADF, "it was closed while it is read", self.path)
        fence()
        after = self.marks.marks[first : first + count]
        gone: Blocks = blocks[(before == 0) | ((before ^ after) & FIXED != 0)]
        return gone

    # -- ending ------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closing:
            raise StorageError(errno.EBADF, "it is closed", self.path)

    def renew(self) -> None:
        """In a forked child: what the parent's threads were at is theirs."""
        self._lock = threading.Lock()
        self._busy = {}
        self.fresh = False
        if not self._closing:
            self._locks.renew(shared=LIFE)

    def close(self) -> None:
        """Close the files when nobody works on them any more; a second call does nothing."""
        if self._closing:
            return
        if self.fresh and self.worth_a_sync and self.space.closing_s < _CLOSING_S:
            began = time.monotonic()
            with suppress(StorageError):
                self.make_durable()
            self.space.closing_s += time.monotonic() - began
        with self._lock:
            if not self._closing:
                self._closing = True
                if not self._busy:
                    self._close()

    def _close(self) -> None:
        data, self.data = self.data, -1
        files.close(data)
        self._locks.close()
