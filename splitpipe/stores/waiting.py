"""Waiting for bytes of a connection, and being called away from it.

Responsible for: `Watch`, which a thread that reads may have beside it: an alarm at a certain
moment, and a way for other threads to end the wait; `watching`; `watch`, which has a socket heed
it.

Rules:
- without a watch a connection is read as ever;
- the time-out of the connection holds, whatever the watch does;
- a wait that was ended leaves its connection in the middle of a response: it is an error like
  others, by which the connection is closed and never used again.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from splitpipe.interrupts import having
from splitpipe.stores.forking import ForkLock

__all__ = ["Abandoned", "Watch", "watch", "watching"]


T = TypeVar("T")


class Abandoned(OSError):
    """Nobody wants the answer any more."""


class Watch:
    """What a waiting thread looks at beside its connection.

    Args:
        due_s: when to sound the alarm, by the monotonic clock; never with ``None``.
        alarm: called in the waiting thread; says when to be called again.

    Example:
        >>> with contextlib.closing(Watch()) as beside:
        ...     beside.open()
        ...     beside.call_away()
        ...     beside.wait(0, None)
        Traceback (most recent call last):
        splitpipe.stores.waiting.Abandoned: [Errno 125] nobody wants the answer any more
    """

    _pipe: tuple[int, int] | None = None

    def __init__(
        self, due_s: float | None = None, alarm: Callable[[], float | None] = lambda: None
    ) -> None:
        self._due_s = due_s
        self._alarm = alarm
        self._lock = ForkLock()

    def open(self) -> None:
        """Be ready to be called away; costs two descriptors until `close`."""
        with self._lock:
            self._pipe = self._pipe or os.pipe()

    def call_away(self) -> None:
        """End the wait that there is or that comes; from any thread."""
        with self._lock:
            if self._pipe is not None:
                os.write(self._pipe[1], b"!")

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self._pipe or ():  # whoever had it was interrupted
            close(descriptor)

    def wait(self, descriptor: int, end_s: float | None) -> None:
        """Until there is something to read, or the connection is over.

        Raises:
            TimeoutError: nothing was there until ``end_s``.
            Abandoned: somebody called.
        """
        while True:
            moments = [moment for moment in (end_s, self._due_s) if moment is not None]
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if self._pipe is not None:
                poll.register(self._pipe[0], select.POLLIN)
            left_s = max(0.0, min(moments) - time.monotonic()) if moments else None
            ready = poll.poll(None if left_s is None else math.ceil(left_s * 1e3))
            found = {number for number, _ in ready}
            if self._pipe is not None and self._pipe[0] in found:
                raise Abandoned(errno.ECANCELED, "nobody wants the answer any more")
            if descriptor in found:
                return
            now = time.monotonic()
            if end_s is not None and now >= end_s:
                raise TimeoutError("timed out")
            if self._due_s is not None and now >= self._due_s:
                self._due_s = self._alarm()


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def watching(beside: Watch, call: Callable[[], T]) -> T:
    """Return what `call` returns, which is watched where it reads from connections."""
    return having(_watch, beside, call)


def watch(sock: Any) -> None:
    """Have a socket that was just connected heed watches; what is no plain socket stays as it is.

    Whoever connects (urllib3) makes the socket, and reads by `recv_into`: its class is exchanged.
    """
    kind = {socket.socket: _Plain, ssl.SSLSocket: _Secure}.get(type(sock))
    if kind is not None:
        sock.__class__ = kind


class _Watched:
    """A socket that looks at the watch while there is nothing to read."""

    __slots__ = ()

    def recv_into(self: Any, *asked: Any, **more: Any) -> int:
        beside = _watch.get()
        receive: Callable[..., int] = super().recv_into  # type: ignore[misc]
        if beside is None:
            return receive(*asked, **more)
        timeout_s = self.gettimeout()
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            self.settimeout(0.0)
            while True:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                    return receive(*asked, **more)
                beside.wait(self.fileno(), end_s)
        finally:
            self.settimeout(timeout_s)


class _Plain(_Watched, socket.socket):
    __slots__ = ()


class _Secure(_Watched, ssl.SSLSocket):
    pass
