"""Threads that fetch.

Responsible for: `Pool`, a bounded number of threads of one process that do what they are given, in
the order in which it was given.

Rules:
- a thread starts when there is work that nobody is free for, and none before;
- a child that was forked begins with a pool of its own;
- nobody waits for ever for a thread that waits for a network: they end with the process, whatever
  they are at.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

__all__ = ["Pool"]

_CLOSING_S = 2.0
"""How long closing waits for a thread that is at work."""

_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class _Crew:
    """The threads of one process; they hold this, and never the pool itself."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.work: SimpleQueue[_Work | None] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.lock = threading.Lock()
        self.busy = 0
        self.closed = False

    def run(self) -> None:
        while True:
            work = self.work.get()
            if work is None:
                return
            future, function, arguments = work
            if future.set_running_or_notify_cancel():
                try:
                    made = function(*arguments)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(made)
                    del made
            with self.lock:
                self.busy -= 1
            # Nothing of it is kept while the next one is waited for.
            del work, future, function, arguments

    def submit(self, work: _Work, most: int) -> bool:
        """Give it work; False: it has ended, or is another process's."""
        if self.process != os.getpid():  # whose thread may hold the lock for ever
            return False
        with self.lock:
            if self.closed:
                return False
            self.busy += 1
            if self.busy > len(self.threads) < most:
                name = f"splitpipe-fetch-{len(self.threads)}"
                thread = threading.Thread(target=self.run, name=name, daemon=True)
                thread.start()
                self.threads.append(thread)
            self.work.put(work)
            return True

    def end(self) -> None:
        """Let the threads end when they have done what they were given; nobody is waited for."""
        if self.process != os.getpid():
            return
        with self.lock:
            if not self.closed:
                self.closed = True
                for _ in self.threads:
                    self.work.put(None)


class Pool:
    """At most so many threads.

    Args:
        threads: how many.

    Example:
        >>> pool = Pool(4)
        >>> [task.result() for task in [pool.submit(pow, 2, n) for n in range(4)]]
        [1, 2, 4, 8]
        >>> pool.close()
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        # By process, and by how often it was closed: what a dictionary does it does at once, and a
        # forked child does not wait for a lock that nobody there holds.
        self._crews: dict[tuple[int, int], _Crew] = {}
        self._closed = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called; what is cancelled before its turn never is."""
        future: Future[Any] = Future()
        work = (future, function, arguments)
        while not self._crew().submit(work, self._most):
            self._closed += 1
        return future

    def _crew(self) -> _Crew:
        key = os.getpid(), self._closed
        known = self._crews.get(key)
        if known is not None:
            return known
        made = _Crew()
        known = self._crews.setdefault(key, made)
        if known is made:
            weakref.finalize(self, made.end)
        return known

    def close(self) -> None:
        """Let the threads end; a second call does nothing, and work begins anew."""
        self._closed += 1
        for key in list(self._crews):
            crew = self._crews.pop(key, None)
            if crew is not None and key[0] == os.getpid():
                crew.end()
                for thread in crew.threads:
                    thread.join(_CLOSING_S)

    def __reduce__(self) -> Any:
        return Pool, (self._most,)

    def __repr__(self) -> str:
        return f"Pool({self._most})"
