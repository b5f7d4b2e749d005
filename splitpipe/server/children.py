"""Processes that a server starts: engines, tasks, and those that answer one question.

Responsible for: `Hold`, what a server has as long as it lives, and `die_with_the_server`; what
children find in their environment, and how the end of one is told.

Rules:
- the server alone has the writing end of a pipe. When it is gone, however that came, the kernel
  kills whoever asked for it: also one in which no thread gets to run, or that was stopped;
- where the kernel cannot be asked (no F_SETSIG), a thread waits for the same;
- the pipe may be the one by which a child was told its job, once that was read: whatever comes
  later by it, not only its end, kills.

Sources: F_SETSIG and O_ASYNC in fcntl(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import threading
from pathlib import Path
from typing import IO, Final

__all__ = ["Hold", "die_with_the_server", "environment", "how_it_ended", "last_words"]

_PACKAGE: Final = str(Path(__file__).resolve().parents[2])
_TOLD_NBYTES: Final = 4_000
_ORPHANED: Final = 70


class Hold:
    """What tells engines that this process lives.

    Example:
        >>> hold = Hold()
        >>> hold.reading > 0, hold.close(), hold.close()
        (True, None, None)
    """

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        """Inherited by engines, and by nobody else."""
        self._open = True

    def close(self) -> None:
        """Let go. Engines that are there die. Safe to call twice."""
        if self._open:
            self._open = False
            os.close(self.reading)
            os.close(self._writing)


def die_with_the_server(reading: int) -> None:
    """Let this process be killed when the other end of a pipe is gone: of a `Hold`, or of stdin.

    Args:
        reading: this end. It is closed here, or kept until the end of the process.
    """
    if hasattr(fcntl, "F_SETSIG"):
        with contextlib.suppress(OSError):
            # To whom a signal goes is a property of the open file: so one of this process's own.
            own = os.open(f"/proc/self/fd/{reading}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
            os.close(reading)
            poll = select.poll()
            poll.register(own, select.POLLIN)
            if poll.poll(0):
                os._exit(_ORPHANED)
            return
    threading.Thread(
        target=_watch, args=(reading,), name="splitpipe-server-watch", daemon=True
    ).start()


def _watch(reading: int) -> None:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.poll()
    os._exit(_ORPHANED)


# -- their environment, and their end


def environment() -> dict[str, str]:
    """Return this process's, by which the package is found there as it was found here."""
    known = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([_PACKAGE, *known]))}


def how_it_ended(status: int) -> str:
    """Say what a return code of `subprocess` means.

    Example:
        >>> how_it_ended(3), how_it_ended(-11)
        ('status 3', 'SIGSEGV')
        >>> how_it_ended(-9)
        'SIGKILL, as a machine without memory ends processes'
    """
    if status >= 0:
        return f"status {status}"
    if status == -signal.SIGKILL:
        return "SIGKILL, as a machine without memory ends processes"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def last_words(words: IO[bytes]) -> str:
    """Return the end of what one wrote to a file."""
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - _TOLD_NBYTES))
    return words.read().decode("utf-8", "replace").strip()
