"""Ctrl-C where it must not leave things half done.

Responsible for: `held_back`, which lets an ending happen as a whole, and `unlocked`, which lets go
of a lock for a while and has it again, whatever is raised meanwhile.

Rules:
- an ending that takes half a second is not interrupted: a second Ctrl-C would leave workers behind,
  and the interpreter waits for those of its children that nobody ended;
- nothing is lost: what was held back happens when the ending is over;
- what a handler of a signal raises is what the user sees, and nothing that came of it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

__all__ = ["held_back", "unlocked"]

T = TypeVar("T")


@contextmanager
def held_back() -> Iterator[None]:
    """Let no Ctrl-C interrupt the block; it is handled when the block has ended.

    In threads other than the main one, which no signal interrupts, nothing is done.

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
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


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
