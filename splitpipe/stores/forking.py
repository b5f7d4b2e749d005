"""What a fork must not inherit.

Responsible for: `ForkLock`, a lock that is free in a child whoever held it at the fork; `abandon`,
for connections that belong to the parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType

__all__ = ["ForkLock", "abandon"]

_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_abandoned: list[object] = []


class ForkLock:
    """A lock that a child finds open: no thread that could open it has come along.

    What it guards has to be right at any moment, or be made anew in another process.

    Example:
        >>> with ForkLock():
        ...     "alone"
        'alone'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


def abandon(inherited: object) -> None:
    """Keep what the parent still uses from being cleaned up here.

    Cleaning up would end nothing of the parent's, but it takes locks that may be held for ever.
    """
    _abandoned.append(inherited)


def _open_all() -> None:
    for lock in list(_locks):
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_open_all)
