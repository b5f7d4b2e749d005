"""Stages that break a promise, each in a way of its own, and some that break none."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import splitpipe as sp

WORDS = [f"word {number}" for number in range(30)]

_total = 0
_before: Any = None
_kept: list[Any] = []
_files: list[Any] = []
LINES = io.StringIO()


def innocent(x: Any) -> Any:
    return ("innocent", x)


def kept(x: Any) -> bool:
    return sum(map(ord, str(x))) % 5 != 0


def drawn(x: Any, rng: np.random.Generator) -> Any:
    return x, float(rng.random())


def doubled(x: Any) -> Iterator[Any]:
    yield 0, x
    yield 1, x


def hidden_state(x: Any) -> Any:
    global _total
    _total += 1
    return x, _total


def since_the_last(x: int) -> int:
    """Repeatable in one process: the first item of an epoch makes it begin anew."""
    global _before
    before = x if x == 0 else _before
    _before = x
    threading.Event().wait(0.004)  # work that another worker takes a part of
    return x - before


def with_the_last(x: Any) -> Any:
    """Repeatable in one process: the first item of an epoch has nothing before it."""
    global _before
    before = None if x[1] == 0 else _before
    _before = x
    return before, x


def numbered(items: Iterator[Any]) -> Iterator[Any]:
    yield from enumerate(items)


def slow(x: Any) -> Any:
    threading.Event().wait(0.02)
    return x


def from_random(x: Any) -> Any:
    return x, random.random()


def from_numpy(x: Any) -> Any:
    return x, np.random.normal()


def carrying(x: Any, own: Any = np.random.default_rng(3)) -> Any:  # noqa: B008
    return x, own.random()


def by_process(x: Any) -> Any:
    return x, os.getpid()


def by_worker(x: Any) -> Any:
    return x, multiprocessing.current_process().name == "MainProcess"


def by_time(x: Any) -> Any:
    return x, time.perf_counter()


def by_set(x: Any) -> Any:
    return x, list({"one", "two", "three", "four", "five", "six", "seven"})


def in_place(x: Any) -> Any:
    x += 1
    return x


def next_line(x: Any) -> Any:
    return x, LINES.readline()


def hoarding(x: Any) -> Any:
    _kept.append(str(x) * 20)
    return x


def opening(x: Any) -> Any:
    _files.append(os.open("/dev/null", os.O_RDONLY))
    return x


def close_files() -> None:
    while _files:
        os.close(_files.pop())


def half(items: Iterator[Any]) -> Iterator[Any]:
    """Counts in a global: of an odd number of items it drops the other half every second time."""
    global _total
    for item in items:
        _total += 1
        if _total % 2:
            yield item


def clean() -> sp.Pipeline:
    """A graph of many stages that keeps every promise."""
    numbers = sp.Pipeline(range(60), shuffle="global", seed=5)
    left = numbers.map(drawn).filter(kept)
    right = sp.Pipeline(WORDS, shuffle="global", seed=5).flat_map(doubled).map(innocent)
    mixed = sp.mix([left, right], [2, 1]).shuffle(8).map(drawn, workers=2)
    return mixed.batch(4, collate=list)


pipelines = {"good": clean(), "bad": sp.Pipeline(WORDS).map(innocent).map(hidden_state)}
