"""Workers in threads of the consumer's process.

Responsible for: `WorkerThread`, which runs one worker and tells when it ended in a way that nobody
foresaw, and ending several of them together.

Rules:
- a thread cannot be killed. Wherever it waits, shutting the links wakes it; while it is in user
  code it is waited for, and then left to itself, with one warning that names it. What it makes
  after that goes nowhere, and it ends when that call returns;
- a thread left behind never keeps the interpreter from leaving;
- nothing that a worker does ends silently: what is not told by a message is told by `on_death`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence

from splitpipe.runtime.failure import keep_exceptions

__all__ = ["WorkerThread", "join_all", "warn_of"]


class WorkerThread:
    """A worker in a thread: what a process is for the other workers.

    Args:
        work: what it does.
        name: how it is called, in lists of threads and in warnings.
        on_death: called in the thread with what `work` raised; it should raise nothing.

    Example:
        >>> died = []
        >>> worker = WorkerThread(lambda: 1 // 0, "worker 0 of divide", died.append)
        >>> worker.start()
        >>> join_all([worker], 5.0), died
        ([], [ZeroDivisionError('integer division or modulo by zero')])
    """

    def __init__(
        self, work: Callable[[], None], name: str, on_death: Callable[[BaseException], None]
    ) -> None:
        self.name = name
        self._work = work
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name=f"splitpipe {name}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works still."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it came. A thread does not wait for itself."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, timeout_s))
        return not self.alive

    def _run(self) -> None:
        keep_exceptions()
        try:
            self._work()
        except BaseException as error:
            self._on_death(error)


def join_all(workers: Sequence[WorkerThread], within_s: float) -> list[WorkerThread]:
    """Wait for the ends of `workers`, together `within_s`; return those that did not come."""
    deadline = time.monotonic() + within_s
    return [worker for worker in workers if not worker.join(deadline - time.monotonic())]


def warn_of(left: Sequence[WorkerThread], within_s: float) -> None:
    """Say which workers were left to themselves."""
    if left:
        names = ", ".join(worker.name for worker in left)
        warnings.warn(
            f"still in a call of user code {within_s:g} s after the run was closed: {names}. "
            "A thread cannot be killed: each goes when its call returns, and what it makes goes "
            "nowhere. Work that may hang belongs into a process",
            RuntimeWarning,
            stacklevel=2,
        )
