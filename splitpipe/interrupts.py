"""Ctrl-C where it must not leave things half done.

Responsible for: `held_back`, which lets a beginning or an ending happen as a whole; and what holds
for the time of a call, whatever is raised in it: `locked`, which has a lock, `unlocked`, which lets
go of one, and `having`, which sets a context variable.

Rules:
- an ending that takes half a second is not interrupted: a second Ctrl-C would leave workers behind,
  and the interpreter waits for those of its children that nobody ended;
- a beginning runs code of the user's, which may take long: the second Ctrl-C does interrupt it;
- nothing is lost: what was held back happens when the ending is over;
- ``with lock`` alone needs nothing of this: no signal is handled between its taking a lock of C and
  its block. It cannot give up waiting, and so it is for locks that are had at once;
- the loops of `locked` and `unlocked` stand in their ``finally``: a function that both called would
  be interrupted as it begins;
- what a handler of a signal raises is what the user sees, and nothing that came of it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from types import FrameType
from typing import TypeVar

__all__ = ["having", "held_back", "locked", "unlocked"]

T = TypeVar("T")
V = TypeVar("V")


@contextmanager
def held_back(most: float = inf) -> Iterator[None]:
    """Let no Ctrl-C interrupt the block; it is handled when the block has ended.

    In threads other than the main one, which no signal interrupts, nothing is done.

    Args:
        most: how many are held back; the next one interrupts.

    Example:
        >>> import signal
        >>> try:
        ...     with held_back():
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("to its end")
        ... except KeyboardInterrupt:
        ...     print("and now")
        to its end
        and now
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if len(came) > most:
            came.clear()
            handler(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


def having(variable: ContextVar[V], value: V, call: Callable[[], T]) -> T:
    """Return what `call` returns, for which `variable` has `value`.

    A context manager would be interrupted between having set it and the block, and it would stay.

    Example:
        >>> number = ContextVar("number", default=1)
        >>> having(number, 2, number.get), number.get()
        (2, 1)
    """
    before = variable.get()
    try:
        variable.set(value)
        return call()
    finally:
        variable.set(before)


def locked(
    lock: threading.RLock, call: Callable[[], T], *, timeout_s: float | None = None
) -> T | None:
    """Return what `call` returns, for which `lock` is held; None, without a call, if it could not
    be had in time.

    A signal is handled between any two calls: after the lock was taken and before a ``try`` is
    reached, or before a ``finally`` lets go of it. It would stay taken then, and whoever wants it
    would wait for ever. So the lock is asked whether it is held, as in `unlocked`.

    Args:
        lock: not held by this thread.
        call: what to do.
        timeout_s: how long to wait for the lock, in seconds; None: until it is had.

    Example:
        >>> import threading
        >>> locked(threading.RLock(), lambda: "alone", timeout_s=0.0)
        'alone'
    """
    try:
        return call() if lock.acquire(timeout=-1 if timeout_s is None else timeout_s) else None
    finally:
        came: BaseException | None = None
        while True:
            try:
                if lock._is_owned():  # type: ignore[attr-defined]
                    lock.release()
                break
            except BaseException as error:
                came = error
        if came is not None:
            raise came


def unlocked(lock: threading.RLock, call: Callable[[], T]) -> T:
    """Return what `call` returns, for which `lock`, held once, is let go of.

    A signal is handled between any two calls: after the lock was released and before a ``try`` is
    reached, or while a ``finally`` waits for it. Whoever holds it by ``with`` would then release
    what is not theirs, and the user would see that in place of the Ctrl-C. So the lock is asked
    whether it is held, as `threading.Condition` asks it, until it is.

    Example:
        >>> import threading
        >>> lock = threading.RLock()
        >>> with lock:
        ...     unlocked(lock, lambda: "meanwhile, others may hold it")
        'meanwhile, others may hold it'
    """
    try:
        lock.release()
        return call()
    finally:
        came: BaseException | None = None
        while True:
            try:
                if not lock._is_owned():  # type: ignore[attr-defined]
                    lock.acquire()
                break
            except BaseException as error:
                came = error
        if came is not None:
            raise came
