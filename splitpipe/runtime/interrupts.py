"""Ctrl-C while something is being ended.

Responsible for: `held_back`, which lets an ending happen as a whole.

Rules:
- an ending that takes half a second is not interrupted: a second Ctrl-C would leave workers behind,
  and the interpreter waits for those of its children that nobody ended;
- nothing is lost: what was held back happens when the ending is over.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["held_back"]


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
