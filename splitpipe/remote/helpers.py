"""Threads that make requests where the cache does not.

Responsible for: `Helpers`.

Rules:
- they are started when they are first needed, and anew in a child that was forked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Helpers"]

Given = TypeVar("Given")
Made = TypeVar("Made")

_REQUESTS = 16


class Helpers:
    """A few threads of one process."""

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def map(self, function: Callable[[Given], Made], values: Iterable[Given]) -> Iterator[Made]:
        """``map`` side by side; alone where there is one value."""
        values = list(values)
        if len(values) < 2:
            return map(function, values)
        return self._pool().map(function, values)

    def submit(self, function: Callable[[], Made]) -> Future[Made]:
        """Call a function in one of the threads."""
        return self._pool().submit(function)

    def _pool(self) -> ThreadPoolExecutor:
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            # The threads of a parent do not run here.
            self._pools = {process: ThreadPoolExecutor(_REQUESTS, "splitpipe-remote")}
            pool = self._pools[process]
        return pool

    def close(self) -> None:
        """End the threads, when they are done with what they do."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.shutdown(cancel_futures=True)
