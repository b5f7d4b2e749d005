"""Fetching what will be wanted.

Responsible for: `Prefetch`, what was asked for and how far it is; `Ahead`, a process's share of the
cache for such things.

Rules:
- nothing here waits, or takes what somebody else is at: a block that is claimed is left out;
- where something has to go for it, a process has at most half of its part of the limit full of
  blocks that were fetched ahead and not wanted yet;
- they go last, until the cache has been filled once more;
- what goes wrong is not told: whoever wants the block will meet it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TypeAlias

import numpy as np

from splitpipe.cache.flight import Flight, give_up
from splitpipe.cache.opened import Opened
from splitpipe.cache.pool import Pool
from splitpipe.cache.ranges import Blocks, pieces, runs
from splitpipe.cache.space import Space
from splitpipe.distinct import distinct

__all__ = ["Ahead", "Prefetch"]

Wanted: TypeAlias = Sequence[tuple[Opened, Blocks]]


class Prefetch:
    """What was asked for ahead.

    Attributes:
        nbytes: how much of it was missing, and will be fetched; 0 where there is no share left.
        cancelled: whether `cancel` was called.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self.cancelled = False
        self._left = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether nothing of it is to be fetched any more."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Leave out what nobody has begun."""
        self.cancelled = True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is done; False when the time is over before."""
        return self._done.wait(timeout_s)

    def begin(self, nbytes: int = 0) -> None:
        """Another part is to be done."""
        with self._lock:
            self.nbytes += nbytes
            self._left += 1
            self._done.clear()

    def end(self) -> None:
        """A part is done, or was left out."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    def give_up(self) -> None:
        """Nobody works on it any more."""
        self.cancelled = True
        self._done.set()


class Ahead:
    """The share of one process.

    Args:
        space: of the cache.
        pool: that fetches.
    """

    def __init__(self, space: Space, pool: Pool) -> None:
        self._space = space
        self._pool = pool
        self._lock = threading.Lock()
        self._unused: list[tuple[Opened, Blocks]] = []
        self._queued_nbytes = 0
        self._under_way: weakref.WeakSet[Prefetch] = weakref.WeakSet()

    def prefetch(self, wanted: Wanted, prefetch: Prefetch, *, extent_nbytes: int) -> None:
        """Ask for blocks."""
        tasks = []
        with self._lock:
            self._under_way.add(prefetch)
            self._unused = [left for entry in self._unused if len((left := _unused(entry))[1])]
            for opened, blocks in wanted:
                missing = distinct(blocks[opened.marks.marks.take(blocks) == 0])
                most = opened.most_blocks(extent_nbytes)
                for start, length in chain(*(pieces(*run, most=most) for run in runs(missing))):
                    nbytes = opened.identity.cost(start, length)
                    if not self._has_room(nbytes):
                        break
                    self._queued_nbytes += nbytes
                    prefetch.begin(nbytes)
                    tasks.append(partial(self._run, prefetch, opened, start, length, nbytes))
        for task in tasks:
            self._pool.submit(task, later=True)

    def look(self, find: Callable[[], Wanted], prefetch: Prefetch, *, extent_nbytes: int) -> None:
        """Find out in the background what to ask for."""

        def look() -> None:
            try:
                if not prefetch.cancelled:
                    self.prefetch(find(), prefetch, extent_nbytes=extent_nbytes)
            finally:
                prefetch.end()

        with self._lock:
            self._under_way.add(prefetch)
        prefetch.begin()
        self._pool.submit(look, later=True)

    def renew(self) -> None:
        """In a forked child: the parent fetches for itself."""
        for prefetch in list(self._under_way):
            prefetch.__init__()  # type: ignore[misc]  # a thread may have been in the old one
            prefetch.cancelled = True

    def close(self) -> None:
        """Nothing is fetched ahead any more: nobody is to wait for it."""
        with self._lock:
            under_way = list(self._under_way)
        for prefetch in under_way:
            prefetch.give_up()

    def _has_room(self, nbytes: int) -> bool:
        state = self._space.account.state
        if state.used + state.reserved + self._queued_nbytes + nbytes <= state.limit:
            return True
        share = state.limit // (2 * max(1, self._space.account.living))
        unused = sum(opened.identity.cost_of(blocks) for opened, blocks in self._unused)
        return unused + self._queued_nbytes + nbytes <= share

    def _run(self, prefetch: Prefetch, opened: Opened, first: int, count: int, nbytes: int) -> None:
        try:
            if not prefetch.cancelled:
                self._fetch(opened, first, count)
        finally:
            with self._lock:
                self._queued_nbytes -= nbytes
            prefetch.end()

    def _fetch(self, opened: Opened, first: int, count: int) -> None:
        blocks = np.arange(first, first + count)
        turn = self._space.account.state.limit // opened.identity.block_nbytes
        missing = blocks[opened.marks.marks[first : first + count] == 0]
        flights: list[Flight] = []
        try:
            opened.claim(missing, flights, most=count, ahead=max(1, turn))
            for flight in flights:
                flight.run()
                if flight.error is None:
                    there = np.arange(flight.first, flight.first + flight.count)
                    with self._lock:
                        self._unused.append((opened, there))
        finally:
            give_up(flights)


def _unused(entry: tuple[Opened, Blocks]) -> tuple[Opened, Blocks]:
    """The blocks of an entry that are there, and that nobody has wanted yet."""
    opened, blocks = entry
    if opened.data < 0:
        return opened, blocks[:0]
    marks = opened.marks
    ahead = marks.stamps.take(blocks) > np.uint64(opened.space.account.state.clock)
    return opened, blocks[ahead & (marks.marks.take(blocks) != 0)]
