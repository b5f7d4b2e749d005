"""Asking again what failed for a passing reason.

Responsible for: `RetryingStore`, any store with a `RetryPolicy`; `RetryStatistics`.

Rules:
- only what may pass is asked again: a `RemoteError` whose ``transient`` is true. That there is no
  such object, that it may not be seen, and that it changed are answers;
- a write of which nobody knows whether it was done is made again only under a condition
  (``expected``), which lets it happen once; if the condition then fails, what is there is compared:
  it may be our own;
- a read that takes too long is asked a second time beside the first (`hedging`);
- an error that is given up says how many attempts there were, in what time, and the last cause.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from splitpipe.errors import DatasetChanged, RemoteError, StorageError
from splitpipe.stores.base import ObjectStat, Store
from splitpipe.stores.forking import ForkLock
from splitpipe.stores.hedging import Hedges
from splitpipe.stores.patience import RetryPolicy, attempting

__all__ = ["RetryStatistics", "RetryingStore"]

Answered = TypeVar("Answered")

# A connection that broke, or an answer that is not what was announced: nothing that a server with
# too much to do says. One that was given up has been waited for, and the next one is for longer.
_AT_ONCE = (errno.ECONNRESET, errno.EPIPE, errno.EIO, errno.EPROTO, errno.ETIMEDOUT)


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """What a `RetryingStore` did since it was made, in this process.

    Attributes:
        requests: attempts, the first ones and hedges too.
        retries: attempts that were made again.
        hedges: attempts that were made beside one that took too long.
        hedges_won: hedges that answered first.
        failures: operations that were given up.
        nbytes_read: that were handed out.
        nbytes_written: that were published.
        waited_s: between attempts, by all threads together.
    """

    requests: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    failures: int = 0
    nbytes_read: int = 0
    nbytes_written: int = 0
    waited_s: float = 0.0


class RetryingStore:
    """A store whose requests are made again when they fail for a reason that may pass.

    Args:
        store: that does the work.
        policy: how often, and for how long.
        rng: where the waiting times come from.
        clock: seconds that only grow.
        sleep: waits so many seconds.

    Attributes:
        url: of the store.

    Example:
        >>> from splitpipe.stores import MemoryStore
        >>> store = RetryingStore(MemoryStore(), RetryPolicy(attempts=3))
        >>> store.write("a", b"hello").size, store.read("a", 1, 3)
        (5, b'el')
        >>> store.statistics().requests
        2
    """

    def __init__(
        self,
        store: Store,
        policy: RetryPolicy | None = None,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = store.url
        self.store = store
        self.policy = policy or RetryPolicy()
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        self._lock = ForkLock()
        self._counts = RetryStatistics()
        self._hedges = Hedges(self.policy.hedges, self._count_hedges)

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        return self._again(lambda: self.store.stat(key))

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        data = self._again(self._reading(key, start, stop, tag))
        self._count(nbytes_read=len(data))
        return data

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`; where it breaks off it begins anew and goes on behind the last key."""
        listing = _Listing(self.store, prefix)
        while True:
            found = self._again(listing.next)
            if found is None:
                return
            yield found

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        writing = _Writing(self.store, key, data, expected)
        stat = self._again(writing.attempt, once=expected is None)
        self._count(nbytes_written=stat.size)
        return stat

    def close(self) -> None:
        """See `Store.close`."""
        self._hedges.close()
        self.store.close()

    def statistics(self) -> RetryStatistics:
        """What was done so far."""
        return self._counts

    def _again(self, ask: Callable[[], Answered], *, once: bool = False) -> Answered:
        """The answer of the first attempt that has one; ``once`` as writes without a condition."""
        begun, timeouts, pauses = self._clock(), 0, 0
        again_at_once = True
        for number in range(self.policy.attempts):
            self._count(requests=1, retries=int(number > 0))
            try:
                return attempting(timeouts, ask)
            except RemoteError as error:
                timeouts += error.errno == errno.ETIMEDOUT
                took_s = self._clock() - begun
                at_once = again_at_once and error.errno in _AT_ONCE
                pause_s = self._pause_s(error, None if at_once else pauses)
                last = number + 1 >= self.policy.attempts or (once and error.maybe_done)
                if last or pause_s is None or took_s + pause_s > self.policy.deadline_s:
                    self._count(failures=1)
                    raise _given_up(error, number + 1, took_s, once) from error
                again_at_once, pauses = again_at_once and not at_once, pauses + (not at_once)
                self._sleep(pause_s)
                self._count(waited_s=pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _pause_s(self, error: RemoteError, pauses: int | None) -> float | None:
        """How long to wait before the next attempt; ``None`` where there is none.

        ``pauses`` is how many there were before this one, ``None`` if there need not be one.
        """
        policy, pause_s = self.policy, 0.0
        if not error.transient:
            return None
        if pauses is not None:
            # 2 ** 64 is beyond any longest_s, and still a float.
            longest_s = min(policy.longest_s, policy.base_s * 2.0 ** min(pauses, 64))
            with self._lock:
                pause_s = self._rng.uniform(0.0, longest_s)
        if error.retry_after_s is not None:
            if error.retry_after_s > policy.retry_after_s:
                return None
            pause_s += error.retry_after_s
        return pause_s

    def _reading(
        self, key: str, start: int, stop: int | None, tag: str | None
    ) -> Callable[[], bytes]:
        def ask() -> bytes:
            return self.store.read(key, start, stop, tag=tag)

        if stop is None:
            return ask  # how long it usually takes depends on a size that nobody knows
        return lambda: self._hedges.read(ask, stop - start)

    def _count_hedges(self, *, hedges: int = 0, hedges_won: int = 0) -> None:
        self._count(requests=hedges, hedges=hedges, hedges_won=hedges_won)

    def _count(self, **more: float) -> None:
        with self._lock:
            known = self._counts
            now = {name: getattr(known, name) + value for name, value in more.items()}
            self._counts = replace(known, **now)

    def __reduce__(self) -> tuple[Any, ...]:
        return RetryingStore, (self.store, self.policy)

    def __repr__(self) -> str:
        return f"RetryingStore({self.store!r})"


class _Listing:
    """A listing that can begin anew."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._running: Iterator[tuple[str, ObjectStat]] | None = None
        self._last: str | None = None

    def next(self) -> tuple[str, ObjectStat] | None:
        if self._running is None:
            self._running = iter(self._store.list(self._prefix))
        try:
            for key, stat in self._running:
                if self._last is None or key > self._last:
                    self._last = key
                    return key, stat
        except StorageError:
            self._running = None
            raise
        return None


class _Writing:
    """A write whose earlier attempts may have been done."""

    def __init__(self, store: Store, key: str, data: bytes, expected: str | None) -> None:
        self._store = store
        self._key = key
        self._data = data
        self._expected = expected
        self._maybe_done = False

    def attempt(self) -> ObjectStat:
        try:
            return self._store.write(self._key, self._data, expected=self._expected)
        except RemoteError as error:
            self._maybe_done = self._maybe_done or error.maybe_done
            raise
        except DatasetChanged:
            stat = self._ours() if self._maybe_done else None
            if stat is None:
                raise
            return stat

    def _ours(self) -> ObjectStat | None:
        """What is there, if it is what we wrote."""
        stat = self._store.stat(self._key)
        if stat.size != len(self._data):
            return None
        found = self._store.read(self._key, 0, stat.size, tag=stat.tag)
        return stat if found == bytes(self._data) else None


def _given_up(error: RemoteError, attempts: int, took_s: float, once: bool) -> RemoteError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    text = f"{error.strerror}; given up after {times} in {took_s:.1f} s"
    if once and error.maybe_done:
        text += "; whether it was written is not known: write with a condition to have it repeated"
    told = RemoteError(error.errno, text, error.filename)
    told.transient, told.maybe_done = error.transient, error.maybe_done
    told.retry_after_s = error.retry_after_s
    return told
