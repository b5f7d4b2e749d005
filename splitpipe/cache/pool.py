"""A bounded number of threads that fetch.

Responsible for: `Pool`: threads that are started when there is work, and end with `close`.

Rules:
- what somebody waits for goes before what may be wanted later, and the latter never has more than
  half of the threads;
- a task tells its own errors: nothing that it raises is heard here;
- threads hold the pool alone, never the cache: one that nobody refers to any more can end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Pool"]

Task = Callable[[], object]
_PATIENCE_S: Final = 5.0


class Pool:
    """Threads that run tasks.

    Args:
        most: how many at once.

    Example:
        >>> pool, done = Pool(2), threading.Event()
        >>> pool.submit(done.set)
        >>> done.wait(10)
        True
        >>> pool.close()
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._ready = threading.Condition()
        self._now: deque[Task] = deque()
        self._later: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._busy_later = 0
        self._closed = False

    def submit(self, task: Task, *, later: bool = False) -> None:
        """Have a task run; nothing happens when the pool is closed."""
        with self._ready:
            if self._closed:
                return
            (self._later if later else self._now).append(task)
            if self._idle < len(self._now) + len(self._later) and len(self._threads) < self._most:
                thread = threading.Thread(
                    target=self._work, name=f"splitpipe-cache-{len(self._threads)}", daemon=True
                )
                thread.start()  # first: who is interrupted leaves none that cannot be joined
                self._threads.append(thread)
            else:
                self._ready.notify()

    def _next(self) -> tuple[Task, bool] | None:
        """The next task, and whether it is one of the later ones; None when closed."""
        with self._ready:
            self._idle += 1
            try:
                while not self._closed:
                    if self._now:
                        return self._now.popleft(), False
                    if self._later and self._busy_later < max(1, self._most // 2):
                        self._busy_later += 1
                        return self._later.popleft(), True
                    self._ready.wait()
                return None
            finally:
                self._idle -= 1

    def _work(self) -> None:
        while (found := self._next()) is not None:
            task, later = found
            try:
                task()
            except Exception:
                pass  # a task keeps what went wrong for whoever waits for it
            finally:
                del task, found
                if later:
                    with self._ready:
                        self._busy_later -= 1
                        self._ready.notify()

    def close(self, *, wait: bool = True) -> None:
        """End the threads; what nobody has begun is dropped. A second call does nothing.

        Args:
            wait: whether to wait for them, for a few seconds: who hangs in a request ends after it.
        """
        with self._ready:
            self._closed = True
            self._now.clear()
            self._later.clear()
            self._ready.notify_all()
        end = time.monotonic() + _PATIENCE_S
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, end - time.monotonic()))
