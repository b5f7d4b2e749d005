"""What the tests of recovery share: stages that end their worker, and readers that kill workers.

Responsible for: `Deaths`, which lets a stage end its process at certain items, a certain number of
times in all processes together; `read_killing`, which kills workers between two items.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import splitpipe as sp
from tests.runtime.comparing import frozen

PATIENCE_S = 120.0


def _fault() -> None:
    with contextlib.suppress(OSError):
        sys.stderr.close()  # faulthandler of the test run would write there
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def _for_ever() -> None:
    while True:
        pass


def _holding_the_lock() -> None:
    sum(range(10**15))  # in C, and without looking for signals


WAYS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segv": _fault,
    "exit-0": lambda: os._exit(0),
    "exit-3": lambda: os._exit(3),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "loop": _for_ever,
    "lock": _holding_the_lock,
}


class Deaths:
    """How often, and where, a stage ends its worker.

    Args:
        folder: where it is counted, over all processes.
        at: items at which it happens.
        how: one of `WAYS`.
        times: how often at each of them.
    """

    def __init__(self, folder: Path, at: Sequence[Any], how: str = "kill", times: int = 1) -> None:
        self._folder = folder
        self._at = frozenset(at)
        self._how = how
        self._times = times

    def strike(self, item: Any) -> Any:
        """End this process if `item` is one of those; else return it."""
        if item in self._at:
            path = self._folder / f"death-{item}"
            with open(path, "ab", buffering=0) as file:
                if file.tell() < self._times:
                    file.write(b"x")
                    WAYS[self._how]()
        return item

    def through(self, items: Iterator[Any]) -> Iterator[Any]:
        """The same as a free stage."""
        for item in items:
            yield self.strike(item)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(path.stat().st_size for path in self._folder.glob("death-*"))


def kill_one(loader: sp.Loader, victim: int) -> None:
    """Kill worker number `victim`, counted over all that there are now."""
    supervisor = loader._run.supervisor
    assert supervisor is not None
    pids = supervisor.pids
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[victim % len(pids)], signal.SIGKILL)


def read_killing(loader: sp.Loader, at: Sequence[int]) -> list[list[Any]]:
    """Return the items of every epoch; when so many as `at` says were read, a worker is killed."""
    epochs: list[list[Any]] = []
    read = 0
    victims = iter(range(10**9))
    with loader:
        for items in loader.by_epoch():
            epochs.append([])
            for item in items:
                epochs[-1].append(frozen(item))
                del item
                read += 1
                if read in at:
                    kill_one(loader, next(victims))
    return epochs


def deaths_of(loader: sp.Loader) -> int:
    """How many workers of a run died."""
    return sum(task.deaths for task in loader.stats())


def joined(threads: Sequence[threading.Thread]) -> bool:
    """Whether all of them ended."""
    for thread in threads:
        thread.join(PATIENCE_S)
    return not any(thread.is_alive() for thread in threads)
