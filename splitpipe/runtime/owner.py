"""The death of a worker with its owner.

Responsible for: `Owner`, by which the workers of a run know that the process that started them is
no more, and leave, whatever they are doing.

Rules:
- a worker that is in Python, or waits, is ended by a thread of its own, which waits on the owner's
  pidfd;
- one in which no thread gets to run (C code that never gives up the interpreter lock, a process
  that was stopped) is killed by the kernel, where that can be arranged: the owner alone holds the
  writing end of a pipe, and the reading end is set to send SIGKILL when the last writer is gone;
- neither depends on how the worker was started, nor on the thread that started it.

Sources: pidfd_open(2); F_SETSIG and O_ASYNC in fcntl(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import threading
from multiprocessing import process

from splitpipe.transport.anonymous import Descriptor

__all__ = ["ORPHANED", "Owner"]

ORPHANED = 70
"""Exit status of a worker whose owner is gone."""


class Owner:
    """This process, as the workers of one run see it. It is an argument of theirs.

    Example:
        >>> owner = Owner()
        >>> owner.close(), owner.close()
        (None, None)
    """

    def __init__(self) -> None:
        self._line: Descriptor | None = None
        self._hold: Descriptor | None = None
        if hasattr(fcntl, "F_SETSIG"):
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._line, self._hold = Descriptor(reading), Descriptor(writing)
            _held.add(self._hold)
        self._pidfd = _pidfd()

    def close(self) -> None:
        """Let go of its descriptors: the workers are gone. Safe to call twice."""
        for one in (self._pidfd, self._line, self._hold):
            if one is not None:
                _held.discard(one)
                one.close()

    def loosely(self) -> Owner:
        """Return it for who stays when the run is over, to be ended by others: without the kill."""
        other = Owner.__new__(Owner)
        other._pidfd, other._line, other._hold = self._pidfd, None, None
        return other

    def die_with(self) -> None:
        """In a worker: leave at once when the owner is gone. What it held in shared memory goes
        with the last who maps it.
        """
        sentinel = self._sentinel()
        if sentinel is None:
            return

        def watch() -> None:
            poll = select.poll()
            poll.register(sentinel, select.POLLIN)
            poll.poll()
            os._exit(ORPHANED)

        threading.Thread(target=watch, name="splitpipe-owner-watch", daemon=True).start()
        if self._line is not None:
            with contextlib.suppress(OSError):  # no /proc here: the thread alone has to do
                _kill_at_hangup(self._line)

    def _sentinel(self) -> int | None:
        if self._pidfd is not None:
            return self._pidfd.fd
        parent = process.parent_process()  # no pidfd here; multiprocessing has a pipe for it
        return None if parent is None else parent.sentinel

    def __getstate__(self) -> tuple[Descriptor | None, Descriptor | None]:
        return self._pidfd, self._line

    def __setstate__(self, state: tuple[Descriptor | None, Descriptor | None]) -> None:
        self._pidfd, self._line = state
        self._hold = None


_held: set[Descriptor] = set()
"""Writing ends of this process: a forked child must not keep them."""


def _let_go() -> None:
    for one in list(_held):
        one.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _kill_at_hangup(line: Descriptor) -> None:
    # To whom a signal goes is a property of the open file, which all workers share: so one more.
    own = os.open(f"/proc/self/fd/{line.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    line.close()
    poll = select.poll()
    poll.register(own, select.POLLIN)
    if poll.poll(0):
        os._exit(ORPHANED)


def _pidfd() -> Descriptor | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return Descriptor(os.pidfd_open(os.getpid()))
    except OSError:
        return None  # an old kernel, or a sandbox that forbids it
