"""What runs leave behind.

Responsible for: `possessions`, what this process holds at one moment, and `growth`, the memory that
a graph keeps from one pass to the next, with the line of code that allocates it.

Rules:
- what multiprocessing keeps for the life of a program (the fork server, the resource tracker and
  their pipes) is no leak, nor are standard devices;
- memory is what Python's allocators and numpy have handed out and not got back, counted exactly by
  `tracemalloc`, not what the system lends to the process: a slope of that is noise for an hour.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psutil

__all__ = ["Growth", "Possessions", "growth", "left_behind", "possessions"]

SETTLE_S = 1.0
"""How long something that is on its way out may take to be gone."""
PASSES = 6
"""Passes whose memory is compared, after two that warm up."""
LEAST_NBYTES = 2048
"""What a pass may keep: less is the bookkeeping of Python itself."""


@dataclass(frozen=True)
class Possessions:
    """What this process holds."""

    children: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    segments: Counter[str]

    def beyond(self, before: Possessions) -> dict[str, list[str]]:
        """Return what is here and was not there before, by kind."""
        kinds = ("children", "threads", "descriptors", "segments")
        found = {kind: getattr(self, kind) - getattr(before, kind) for kind in kinds}
        return {kind: sorted(new.elements()) for kind, new in found.items() if new}


@dataclass(frozen=True)
class Growth:
    """Memory that passes over a graph keep.

    Attributes:
        nbytes: that a pass keeps, the least of several.
        items: of a pass.
        line: of code that allocates most of it, as ``file:number``; None where nothing is kept.
        file, number: the same.
    """

    nbytes: int
    items: int
    file: str = ""
    number: int = 0

    @property
    def line(self) -> str | None:
        """The line of code that allocates most of it."""
        return f"{self.file}:{self.number}" if self.file else None


def possessions() -> Possessions:
    """Return what this process holds now."""
    return Possessions(
        children=Counter(_children()),
        threads=Counter(f"{t.name} ({t.ident})" for t in threading.enumerate()),
        descriptors=Counter(_descriptors()),
        segments=Counter(_segments()),
    )


def left_behind(before: Possessions) -> dict[str, list[str]]:
    """Return what is still here after all that was on its way out had its time to go."""
    end = time.monotonic() + SETTLE_S
    gc.collect()
    while left := possessions().beyond(before):
        if time.monotonic() > end:
            return left
        threading.Event().wait(0.02)
    return {}


def growth(run: Callable[[], int], *, until: Callable[[], bool]) -> Growth:
    """Return the memory that every call of `run` keeps, of those that there is time for.

    Args:
        run: makes one pass, and returns its items.
        until: whether the time is over.
    """
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        return _growth(run, until)
    finally:
        if ours:
            tracemalloc.stop()


def _growth(run: Callable[[], int], until: Callable[[], bool]) -> Growth:
    run()
    items = run()
    sizes, first = [_traced()], tracemalloc.take_snapshot()
    for _ in range(PASSES):
        items = run()
        sizes.append(_traced())
        if until():
            break
    kept = min(later - earlier for earlier, later in pairwise(sizes))
    if kept < LEAST_NBYTES:
        return Growth(max(0, kept), items)
    unwanted = (
        tracemalloc.Filter(False, tracemalloc.__file__),
        tracemalloc.Filter(False, __file__),
    )
    last = tracemalloc.take_snapshot().filter_traces(unwanted)
    grown = last.compare_to(first.filter_traces(unwanted), "lineno")
    most = max(grown, key=lambda one: one.size_diff, default=None)
    if most is None:
        return Growth(kept, items)
    frame = most.traceback[0]
    return Growth(kept, items, frame.filename, frame.lineno)


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _keepers() -> set[int]:
    server: Any = multiprocessing.forkserver
    tracker: Any = multiprocessing.resource_tracker
    pids = {server._forkserver._forkserver_pid, tracker._resource_tracker._pid}
    return {pid for pid in pids if pid is not None}


def _kept_descriptors() -> set[int]:
    server: Any = multiprocessing.forkserver
    tracker: Any = multiprocessing.resource_tracker
    kept = {server._forkserver._forkserver_alive_fd, tracker._resource_tracker._fd}
    return {descriptor for descriptor in kept if descriptor is not None}


def _children() -> Iterator[str]:
    keepers = _keepers()
    for process in psutil.Process().children(recursive=True):
        if process.pid not in keepers:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield f"pid {process.pid} ({process.name()})"


def _descriptors() -> Iterator[str]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    kept = _kept_descriptors()
    for name in os.listdir(folder):
        # The folder's own descriptor is in the list and is closed by now.
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{name}")
            if int(name) not in kept and target not in ("/dev/urandom", "/dev/random"):
                yield target


def _segments() -> Iterator[str]:
    """Mappings of shared memory: they may outlive every descriptor."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5:]
            if path and path[0].startswith(("/memfd:", "/dev/shm/")):
                yield path[0].strip()
