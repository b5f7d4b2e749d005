"""A second request beside one that takes too long.

Responsible for: `Hedges`: which reads are slow, by how long reads of their size took so far; a
second request for those, in a thread of its own; the first whole answer. The idea is that of
"hedged requests" (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013).

Rules:
- reads alone, of which the length is known: they change nothing, whoever answers;
- a read is slow that takes as long as no usual one: beyond the outer quartile by one and a half of
  the distance of the quartiles, which is what a box plot draws as outliers (Tukey). A read whose
  second request answered first counts with the time it had taken by then, so that what is usual is
  not measured by the fast ones alone;
- there are never more second requests than a share of all, `AT_ONCE` of them at once;
- both are whole attempts, with every check and time-out of one; a second one that fails is no news,
  and is made anew at once unless the server is busy; if the first one fails for a passing reason,
  the second one is waited for;
- whoever comes too late is called away: its connection is closed, its thread ends.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Final

from splitpipe.errors import RemoteError
from splitpipe.stores.forking import ForkLock
from splitpipe.stores.waiting import Watch, watching

__all__ = ["Hedges"]

AT_ONCE: Final = 4
BURST: Final = 4.0  # second requests that may be saved up
KNOWN: Final = 16  # reads of a size, until it is known how long they take
KEPT: Final = 64
FIRST_S: Final = 0.25  # where it is not known
CLOSE_S: Final = 1.0
LEAST_S: Final = 0.01  # beyond the median; a second request has a price, too


class Hedges:
    """Second requests for the slow reads of one store.

    Args:
        share: most second requests, as a share of all first ones.
        count: told ``hedges`` and ``hedges_won`` as they happen.

    Example:
        >>> Hedges(0.1).read(lambda: b"hello", 5)
        b'hello'
    """

    def __init__(self, share: float, count: Callable[..., None] = lambda **more: None) -> None:
        self.share = share
        self._count = count
        self._lock = ForkLock()
        self._usual: dict[int, _Usual] = {}
        self._allowed = 1.0
        self._pid = os.getpid()
        self._running: set[threading.Thread] = set()

    def read(self, ask: Callable[[], bytes], nbytes: int) -> bytes:
        """What the first of one request, or of two, answers."""
        if not self.share:
            return ask()
        with self._lock:
            self._allowed = min(BURST, self._allowed + self.share)
            usual = self._usual.setdefault(nbytes.bit_length(), _Usual())
        return _Race(self, ask, usual).run()

    def start(self, work: Callable[[], None]) -> bool:
        """Do it in a thread of its own, if one more is allowed."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._running = os.getpid(), set()
            if self._allowed < 1.0 or len(self._running) >= AT_ONCE:
                return False
            thread = threading.Thread(
                target=copy_context().run, args=(self._run, work), name="splitpipe-hedge"
            )
            thread.daemon = True
            self._running.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            with self._lock:
                self._running.discard(thread)
            return False
        return True

    def another(self) -> bool:
        """Whether one more request is allowed; it counts as made."""
        with self._lock:
            if self._allowed < 1.0:
                return False
            self._allowed -= 1.0
        self._count(hedges=1)
        return True

    def won(self) -> None:
        """A second request answered first."""
        self._count(hedges_won=1)

    def close(self) -> None:
        """Wait for those that came too late; not for one that hangs in connecting."""
        end_s = time.monotonic() + CLOSE_S
        with self._lock:
            running = list(self._running) if self._pid == os.getpid() else []
        for thread in running:
            if thread.ident is not None:
                thread.join(max(0.0, end_s - time.monotonic()))

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._running.discard(threading.current_thread())


class _Usual:
    """How long reads of one size take."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._took_s: deque[float] = deque(maxlen=KEPT)
        self._known = 0
        self.slow_s = FIRST_S

    def took(self, seconds: float) -> None:
        with self._lock:
            self._took_s.append(seconds)
            self._known += 1
            if self._known >= KNOWN and self._known % 8 == 0:
                took = sorted(self._took_s)
                low, middle, high = (took[len(took) * quarter // 4] for quarter in (1, 2, 3))
                self.slow_s = max(high + 1.5 * (high - low), middle + LEAST_S)


class _Race:
    """One read, and its second request."""

    def __init__(self, hedges: Hedges, ask: Callable[[], bytes], usual: _Usual) -> None:
        self._hedges = hedges
        self._ask = ask
        self._usual = usual
        self._begun = time.monotonic()
        self._first = Watch(self._begun + usual.slow_s, self._slow)
        self._second: Watch | None = None
        self._over = threading.Event()
        self._answer: bytes | None = None
        self._ended = False  # no further second request

    def run(self) -> bytes:
        try:
            data = watching(self._first, self._ask)
        except RemoteError as error:
            answer = self._awaited() if error.transient else None
            if answer is None:
                raise
            self._hedges.won()
            data = answer
        finally:
            self._ended = True
            if self._second is not None:
                self._second.call_away()
            self._first.close()
        self._usual.took(time.monotonic() - self._begun)
        return data

    def _slow(self) -> float | None:
        """The first request takes too long; when to look again."""
        if self._second is None:
            now = time.monotonic()
            slow_s = self._usual.slow_s
            if now < self._begun + slow_s:  # what is usual became known meanwhile
                return self._begun + slow_s
            second = Watch()
            self._first.open()
            second.open()
            self._second = second
            if self._hedges.start(self._try):
                return None
            self._second = None
            second.close()
            return now + slow_s
        return None

    def _try(self) -> None:
        """The second request, in a thread of its own."""
        assert self._second is not None
        try:
            watching(self._second, self._answered)
        finally:
            self._over.set()
            if self._answer is not None:
                self._first.call_away()
            self._second.close()

    def _answered(self) -> None:
        while self._answer is None and self._hedges.another():
            self._answer = self._once()
            if self._ended:
                break

    def _once(self) -> bytes | None:
        try:
            return self._ask()
        except RemoteError as error:
            self._ended = self._ended or not error.transient or error.errno == errno.EBUSY
        except Exception:  # the first request says it, too
            self._ended = True
        return None

    def _awaited(self) -> bytes | None:
        """What the second request answers, if there is one."""
        if self._second is None:
            return None
        self._over.wait()
        return self._answer
