"""Who uses a cache, and how much room each of them has taken.

Responsible for: `Account`: the lock of the shared state, this process's row in it, taking and
giving back room, the limit that holds, and finding the rows of the dead.

Rules:
- room is taken before anything is fetched, so the limit is never passed;
- the smallest limit of the living processes holds for all;
- a row belongs to whoever holds the lock on its byte, which the kernel lets go when its owner dies:
  pids and times decide nothing;
- the lock is held for microseconds, and never while anything is waited for.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from splitpipe.cache import files
from splitpipe.cache.folder import Layout
from splitpipe.cache.state import (
    EVICTING,
    MAKING,
    NO_LIMIT,
    ROWS,
    SLOTS,
    State,
    make_state,
    this_boot,
)
from splitpipe.errors import CacheFull, StorageError

__all__ = ["Account", "Slot"]

_MUTEX, _EVICTING, _ROW_0, _MAKING_0 = 0, 1, 16, 4096
_MAKERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Slot:
    """Room that was taken for a stretch of blocks.

    Attributes:
        row, slot: where it is noted.
        kind: what for.
        digest: of the object.
        first, count: the blocks.
        number: for blocks that come, the mark number of the first; for those that go, one more
            than any they have.
        nbytes: how much.
    """

    row: int
    slot: int
    kind: int
    digest: bytes
    first: int
    count: int
    number: int
    nbytes: int


class Account:
    """The shared numbers of one cache, and this process's part in them.

    Args:
        layout: of the cache; the file is made where there is none.
        limit: of this process, in bytes.
        recount: counts what the objects use; told whether the machine was started anew.
    """

    def __init__(self, layout: Layout, limit: int, *, recount: Callable[[bool], int]) -> None:
        path = layout.state
        with files.translated("open its accounts", path):
            if not os.path.exists(path):
                make_state(path)
            self._locks = layout.locks(path)
        self._path = path
        self._limit = limit
        self._recount = recount
        self._thread_lock = threading.Lock()
        self._row: int | None = None
        self._free: list[int] = []
        self.living = 1
        self._ticked = -1
        try:
            self.state = State(path)
            self._join()
        except BaseException:
            self._locks.close()
            raise

    # -- the lock ----------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Iterator[State]:
        with self._thread_lock:
            if self._locks.descriptor < 0:
                raise StorageError(errno.EBADF, "the cache is closed", self._path)
            try:
                self._locks.lock(_MUTEX)  # here: it may be had when an interrupt comes
                self.state.finish()
                yield self.state
            finally:
                self._locks.unlock(_MUTEX)

    @contextmanager
    def evicting(self) -> Iterator[None]:
        """One evictor at a time; the caller sees to it that it is one thread of its process."""
        try:
            self._locks.lock(_EVICTING)
            yield
        finally:
            self._locks.unlock(_EVICTING)

    @contextmanager
    def making(self, digest: bytes) -> Iterator[None]:
        """One maker of an object's files at a time, as `evicting`."""
        byte = _maker(digest)
        try:
            self._locks.lock(byte)
            yield
        finally:
            self._locks.unlock(byte)

    @contextmanager
    def removing(self, digest: bytes) -> Iterator[bool]:
        """As `making`, without waiting: False where somebody is making one."""
        byte = _maker(digest)
        if not self._locks.try_lock(byte):
            yield False
            return
        try:
            yield True
        finally:
            self._locks.unlock(byte)

    # -- rows --------------------------------------------------------------------------------

    def _join(self) -> None:
        """Take a row, and settle what a restart of the machine or dead processes left."""
        with self._held() as state:
            if self._row is not None:
                return
            others = self._living(state)
            if state.boot != this_boot():
                if others:
                    raise StorageError(
                        0,
                        "another machine uses this cache; give each machine a folder of its own",
                        self._path,
                    )
                state.rows["taken"] = 0
                state.reset(self._recount(True))
                state.boot = this_boot()
            free = (row for row in np.flatnonzero(state.rows["taken"] == 0).tolist())
            row = next((row for row in free if self._locks.try_lock(_ROW_0 + row)), None)
            if row is None:
                raise CacheFull(0, f"{ROWS} processes use this cache already", self._path)
            entry = state.rows[row]
            entry["slots"]["nbytes"] = 0
            entry["pid"], entry["limit"], entry["taken"] = os.getpid(), self._limit, 1
            self._row, self._free = row, list(range(SLOTS))
            self._settle_limit(state, [*others, row])

    def _living(self, state: State) -> list[int]:
        """Rows of other processes that live."""
        taken = np.flatnonzero(state.rows["taken"]).tolist()
        return [r for r in taken if r != self._row and self._locks.is_locked(_ROW_0 + r)]

    def _settle_limit(self, state: State, rows: list[int]) -> None:
        self.living = len(rows)
        state.limit = min((int(state.rows[row]["limit"]) for row in rows), default=NO_LIMIT)

    def look_around(self) -> list[list[Slot]]:
        """Find who died.

        Returns:
            for each of them the room it had taken. Its row is held by this process until `bury`.
        """
        found = []
        with self._held() as state:
            living = [] if self._row is None else [self._row]
            for row in np.flatnonzero(state.rows["taken"]).tolist():
                if row == self._row:
                    continue
                if self._locks.try_lock(_ROW_0 + row):
                    found.append(self._slots(state, row))
                else:
                    living.append(row)
            self._settle_limit(state, living)
        return found

    def _slots(self, state: State, row: int) -> list[Slot]:
        slots = [Slot(row, -1, 0, b"", 0, 0, 0, 0)]  # the row itself
        entries = state.rows[row]["slots"]
        for i in np.flatnonzero(entries["nbytes"]).tolist():
            entry = entries[i]
            numbers = (int(entry[name]) for name in ("first", "count", "number", "nbytes"))
            slots.append(Slot(row, i, int(entry["kind"]), entry["digest"].tobytes(), *numbers))
        return slots

    def bury(self, row: int) -> None:
        """All that a dead process had taken was given back: its row is free."""
        with self._held() as state:
            state.rows[row]["taken"] = 0
            self._locks.unlock(_ROW_0 + row)

    # -- room --------------------------------------------------------------------------------

    def take(
        self, kind: int, digest: bytes, *, first: int, count: int, nbytes: int, was_used: int = 0
    ) -> Slot | None:
        """Take room; None where there is not as much.

        Args:
            kind: what for.
            digest: of the object.
            first: block.
            count: of blocks.
            nbytes: how much.
            was_used: how much of it was counted as used until now.
        """
        if self._row is None:
            self._join()  # a forked child
        with self._held() as state:
            if self._row is None or not self._free:
                return None
            if kind == EVICTING and _is_noted(state, digest, first, count):
                return None
            used, reserved = state.used - was_used, state.reserved + nbytes
            if not was_used and used + reserved > state.limit:
                return None
            number = state.clock + 1
            state.clock += max(1, count)
            slot = self._free.pop()
            entry = state.rows[self._row]["slots"][slot]
            entry["digest"] = np.frombuffer(digest, np.uint8)
            entry["first"], entry["count"], entry["number"] = first, count, number
            entry["kind"] = kind
            state.change(used, reserved, row=self._row, slot=slot, nbytes=nbytes)
        return Slot(self._row, slot, kind, digest, first, count, number, nbytes)

    def tick(self) -> int:
        """The clock, moved on if nothing was asked for since the last tick of this process: what is
        wanted at different times while nothing comes must not look as if it were at one.
        """
        if self.state.clock == self._ticked:
            with self._held() as state:
                state.clock += 1
        self._ticked = self.state.clock
        return self._ticked

    def settle(self, slot: Slot, *, used: int) -> None:
        """Give back room that was taken; ``used`` bytes of it are used from now on."""
        with self._held() as state:
            state.change(
                state.used + used,
                state.reserved - slot.nbytes,
                row=slot.row,
                slot=slot.slot,
                nbytes=0,
            )
            if slot.row == self._row:
                self._free.append(slot.slot)

    def reclaim(self, kind: int, digest: bytes, *, first: int, count: int) -> None:
        """Give back room that a thread of this process took for some blocks, if it did: it was
        interrupted before it knew.
        """
        with self._held() as state:
            if self._row is None:
                return
            for slot in self._slots(state, self._row)[1:]:
                if (slot.kind, slot.digest, slot.first, slot.count) == (kind, digest, first, count):
                    reserved = state.reserved - slot.nbytes
                    state.change(state.used, reserved, row=slot.row, slot=slot.slot, nbytes=0)
            taken = {slot.slot for slot in self._slots(state, self._row)}
            self._free = [number for number in range(SLOTS) if number not in taken]

    def count_eviction(self) -> None:
        """Between the clearing of marks and the punching."""
        with self._held() as state:
            state.count_eviction()

    def correct(self) -> tuple[int, int] | None:
        """Count anew what is used, where nobody else is there.

        Returns:
            what was noted and what was counted; None where others are at work.
        """
        with self._held() as state:
            if self._living(state) or len(self._free) < SLOTS:
                return None
            noted, counted = state.used + state.reserved, self._recount(False)
            state.reset(counted)
        return noted, counted

    # -- ending ------------------------------------------------------------------------------

    def renew(self) -> None:
        """In a forked child: a row of its own, and none of its parent's locks."""
        self._thread_lock = threading.Lock()
        self._row, self._free = None, []  # taken when it first needs room
        self._locks.renew()

    def check_there(self) -> None:
        """Raise where somebody removed the folder.

        Raises:
            StorageError: with ``errno.ESTALE``.
        """
        descriptor = self._locks.descriptor
        if descriptor >= 0 and os.fstat(descriptor).st_nlink == 0:
            text = "the cache's folder was removed while it is in use; open the dataset again"
            raise StorageError(errno.ESTALE, text, os.path.dirname(self._path))

    def close(self) -> None:
        """Leave; a second call does nothing."""
        if self._locks.descriptor < 0:
            return
        if self._row is not None:
            row = self._row
            with self._held() as state:
                # What is still reserved is for whoever looks around next.
                if len(self._free) == SLOTS:
                    state.rows[row]["taken"] = 0
                self._row = None
                self._settle_limit(state, self._living(state))
        self._locks.close()


def _maker(digest: bytes) -> int:
    return _MAKING_0 + int.from_bytes(digest[:8], "little") % _MAKERS


def _is_noted(state: State, digest: bytes, first: int, count: int) -> bool:
    """Whether a slot is about some of these blocks: of somebody who died, since they are locked."""
    slots = state.rows["slots"][state.rows["taken"] != 0]
    slots = slots[(slots["nbytes"] != 0) & (slots["kind"] != MAKING)]
    near = (slots["first"] < first + count) & (slots["first"] + slots["count"] > first)
    return any(digest == found.tobytes() for found in slots["digest"][near])
