"""What a fork must not inherit.

Responsible for: `ForkLock`, a lock that is free in a child whoever held it at the fork; `abandon`,
for connections that belong to the parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

__all__ = ["ForkLock", "abandon"]

_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_abandoned: list[object] = []

Kind: TypeAlias = type[BaseException]


class ForkLock:
    """A lock that a child finds open: no thread that could open it has come along.

    What it guards has to be right at any moment, or be made anew in another process. ``with`` is
    given the methods of the lock inside: no signal is handled between its being taken and the
    block, as one could be within a method written in Python, and it would stay taken.

    Example:
        >>> with ForkLock():
        ...     "alone"
        'alone'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    @property
    def __enter__(self) -> Callable[[], bool]:
        return self._lock.__enter__

    @property
    def __exit__(  # noqa: PLE0302  as above
        self,
    ) -> Callable[[Kind | None, BaseException | None, TracebackType | None], None]:
        return self._lock.__exit__


def abandon(inherited: object) -> None:
    """Keep what the parent still uses from being cleaned up here.

    Cleaning up would end nothing of the parent's, but it takes locks that may be held for ever.
    """
    _abandoned.append(inherited)


def _open_all() -> None:
    for lock in list(_locks):
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_open_all)
