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

    def end(self) -> None:
        if self.closed or self.process != os.getpid():
            return
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
        self._crew: _Crew | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called; what is cancelled before its turn never is."""
        crew = self._own()
        future: Future[Any] = Future()
        with crew.lock:
            crew.busy += 1
            if crew.busy > len(crew.threads) < self._most:
                name = f"splitpipe-fetch-{len(crew.threads)}"
                thread = threading.Thread(target=crew.run, name=name, daemon=True)
                crew.threads.append(thread)
                thread.start()
        crew.work.put((future, function, arguments))
        return future

    def _own(self) -> _Crew:
        crew = self._crew
        if crew is None or crew.closed or crew.process != os.getpid():
            crew = self._crew = _Crew()
            weakref.finalize(self, crew.end)
        return crew

    def close(self) -> None:
        """Let the threads end; a second call does nothing, and work begins anew."""
        crew, self._crew = self._crew, None
        if crew is None or crew.process != os.getpid():
            return
        crew.end()
        for thread in crew.threads:
            thread.join(_CLOSING_S)

    def __reduce__(self) -> Any:
        return Pool, (self._most,)

    def __repr__(self) -> str:
        return f"Pool({self._most})"
