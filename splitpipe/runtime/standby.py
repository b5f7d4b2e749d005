"""Worker processes that are given work more than once.

Responsible for: `Line`, the owner's end of what joins it to one of its worker processes, over which
that is called back from its work and given other work; `Standby`, the worker's end.

Rules:
- a worker goes on standby only if it was called. One whose channels break for any other reason
  leaves, and is missed;
- who is on standby holds nothing of the work that it had. Where it cannot know that (threads or
  processes that a stage has started are still there) it leaves, too;
- work travels to a process that this one has started, and over a socket pair that it was born with.
  Whoever does not take it in time counts as dead: the owner waits for nobody;
- nothing is sent and nothing is read while all is well: a run without deaths does not notice.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import socket
import threading
from typing import Any

from splitpipe.transport.parcel import receive_parcel, send_parcel

__all__ = ["GIVE_S", "Line", "Standby"]

GIVE_S = 5.0
"""How long a process may take to take its work: a spare may be importing still."""

LEAVE_S = 0.01
"""How long threads of ours may take to end that have nothing to do any more."""

_CALLED, _READY = b"c", b"r"


class Line:
    """The owner's end. As an argument of the process it becomes that one's `Standby`.

    Args:
        ours: where the worker has brought its own line; None: a new one is made for it.

    Example:
        >>> line = Line()
        >>> standby = Standby(line.travels())
        >>> standby.called()
        False
        >>> line.call()
        >>> standby.called()
        True
        >>> line.close()
    """

    def __init__(self, ours: socket.socket | None = None) -> None:
        if ours is None:
            self._ours, self._theirs = socket.socketpair()
        else:
            self._ours = self._theirs = ours

    def travels(self) -> socket.socket:
        """Return the worker's end: it is the worker's from now on."""
        return self._theirs

    def __reduce__(self) -> tuple[Any, ...]:
        return Standby, (self._theirs,)

    def started(self) -> None:
        """The worker has its end: it need not be here, too."""
        self._theirs.close()

    def fileno(self) -> int:
        """Return what can be read once the worker has something to say, or is gone."""
        return self._ours.fileno()

    def call(self) -> None:
        """Call the worker back; before its channels are shut."""
        with contextlib.suppress(OSError):  # it is gone: its sentinel says so
            self._ours.send(_CALLED, socket.MSG_DONTWAIT)

    def ready(self) -> bool:
        """Whether the worker is on standby now; of who was called, and has something to say."""
        try:
            return self._ours.recv(1, socket.MSG_DONTWAIT) == _READY
        except OSError:
            return False

    def give(self, work: object) -> None:
        """Give a worker something to do that is on standby, or soon will be.

        Raises:
            OSError: it does not take it.
        """
        self._ours.settimeout(GIVE_S)
        try:
            send_parcel(self._ours, work)
        finally:
            self._ours.settimeout(None)

    def close(self) -> None:
        """Let go of it: a worker that is on standby leaves. Safe to call twice."""
        with contextlib.suppress(OSError):  # a fork of this process may hold it, too
            self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()
        self._theirs.close()


class Standby:
    """The worker's end.

    Args:
        line: to the owner.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._threads: frozenset[threading.Thread] = frozenset()

    def begin(self) -> None:
        """This process is about to do its first work: what is there now is not of that work, and
        need not be looked at by the garbage collector.
        """
        gc.freeze()
        self._threads = frozenset(threading.enumerate())

    def called(self) -> bool:
        """Whether the worker was called back."""
        try:
            return self._line.recv(1, socket.MSG_DONTWAIT) == _CALLED
        except OSError:
            return False

    def clean(self) -> bool:
        """Whether nothing is left of the work that was done; what only has to go goes now."""
        gc.collect()
        left = set(threading.enumerate()) - self._threads
        for thread in left:
            if thread.name.startswith("splitpipe-"):
                thread.join(LEAVE_S)
        return not any(map(threading.Thread.is_alive, left)) and not _children()

    def ready(self) -> None:
        """Say that this process is on standby: once for each time that it was called."""
        with contextlib.suppress(ConnectionError):  # nobody is there: `next` tells
            self._line.send(_READY)

    def next(self) -> Any:
        """Return what this process is to do next; None: leave.

        Raises:
            OSError: it did not arrive.
        """
        try:
            return receive_parcel(self._line)
        except (ConnectionError, EOFError):
            return None


def _children() -> bool:
    return bool(multiprocessing.active_children())
