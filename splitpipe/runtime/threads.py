"""Workers in threads of the consumer's process.

Responsible for: `WorkerThread`, which runs one worker and tells when it ended in a way that nobody
foresaw, and ending several of them together.

Rules:
- a thread cannot be killed. Wherever it waits, shutting the links wakes it; while it is in user
  code it is waited for, and then left to itself, with one warning that names it. What it makes
  after that goes nowhere, and it ends when that call returns;
- one that is not in user code only needs a CPU to leave: on a machine with much else to do that may
  take longer than anybody's patience with user code, and is no reason for a warning;
- a thread left behind never keeps the interpreter from leaving;
- nothing that a worker does ends silently: what is not told by a message is told by `on_death`.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence

from splitpipe.runtime.failure import keep_exceptions

__all__ = ["WorkerThread", "join_all", "warn_of"]

STARVED_S = 20.0
"""How long a thread that only has to leave may wait for a CPU."""

_LOOK_S = 0.02
_WAITING = frozenset({"threading", "zmq", "select", "selectors", "socket", "contextlib"})


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

    def leaves(self, within_s: float) -> bool:
        """Wait for its end for as long as it is on its way there: not in a call of user code."""
        deadline = time.monotonic() + within_s
        while not self.join(_LOOK_S):
            if _in_user_code(self._thread.ident) or time.monotonic() > deadline:
                return False
        return True

    def _run(self) -> None:
        keep_exceptions()
        try:
            self._work()
        except BaseException as error:
            self._on_death(error)


def join_all(workers: Sequence[WorkerThread], within_s: float) -> list[WorkerThread]:
    """Wait for the ends of `workers`, together `within_s`, and longer for those that are not in
    user code; return those that did not come.
    """
    deadline = time.monotonic() + within_s
    left = [worker for worker in workers if not worker.join(deadline - time.monotonic())]
    return [worker for worker in left if not worker.leaves(STARVED_S)]


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


def _in_user_code(thread: int | None) -> bool:
    """Whether what runs in a thread is neither ours nor what we wait with."""
    frame = sys._current_frames().get(thread or 0)
    while frame is not None:
        room = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if room == "splitpipe":
            return False
        if room not in _WAITING:
            return True
        frame = frame.f_back
    return False
