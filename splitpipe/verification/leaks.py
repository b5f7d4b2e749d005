"""Memory that runs leave behind.

Responsible for: `growth`, the memory that a graph keeps from one pass to the next, with the line of
code that allocates it.

Rules:
- memory is what Python's allocators and numpy have handed out and not got back, counted exactly by
  `tracemalloc`, not what the system lends to the process: a slope of that is noise for an hour.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Growth", "growth"]

PASSES = 6
"""Passes whose memory is compared, after two that warm up."""
LEAST_NBYTES = 2048
"""What a pass may keep: less is the bookkeeping of Python itself."""


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
