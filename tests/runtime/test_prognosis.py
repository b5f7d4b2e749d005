"""The doctor on real runs with planted bottlenecks: it names them, and what it expects happens.

Planted work takes its time and no CPU: it is as long on a busy machine as on an idle one.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.diagnosis import Diagnosis

PAUSE = threading.Event()
CLOSE = 0.25
"""How far the rate after following the advice may be off the expected one."""


class Pause:
    """Work of a known size; large things may be carried, or made slowly at the start."""

    def __init__(self, seconds: float, *, start_s: float = 0.0, nbytes: int = 0) -> None:
        self.seconds = seconds
        self.start_s = start_s
        self.nbytes = nbytes

    def __call__(self, item: Any) -> Any:
        PAUSE.wait(self.seconds)
        return np.ones(self.nbytes, np.uint8) if self.nbytes else item

    def stream(self, items: Any) -> Any:
        for item in items:
            yield self(item)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        PAUSE.wait(self.start_s)


class Reader:
    """A source that takes so long for each item."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds

    def __call__(self) -> Any:
        for number in range(self.count):
            PAUSE.wait(self.seconds)
            yield number


def rate_of(pipe: Any, *, loop_s: float = 0.0, **options: Any) -> tuple[float, Diagnosis]:
    """Run it; return items a second behind the first one, and what the doctor says."""
    with pipe.loader(**options) as loader:
        next(loader)
        since, count = time.perf_counter(), 0
        for _ in loader:
            count += 1
            if loop_s:
                PAUSE.wait(loop_s)
        rate = count / (time.perf_counter() - since)
    return rate, loader.doctor()


def follows(found: Diagnosis, before: float, after: float) -> None:
    """What was expected is what happened."""
    assert found.gain is not None
    assert after / before == pytest.approx(found.gain, rel=CLOSE), found.text


def test_consumer() -> None:
    pipe = sp.Pipeline(range(150)).map(Pause(0.004), workers=1)
    before, found = rate_of(pipe, loop_s=0.012)
    assert (found.kind, found.stage) == ("consumer", "consumer")
    after, _ = rate_of(pipe)
    follows(found, before, after)


def test_slow_stage_that_may_have_workers() -> None:
    def pipe(workers: int) -> sp.Pipeline:
        fused = (
            sp.Pipeline(range(200))
            .map(Pause(0.001), name="quick")
            .map(Pause(0.008), workers=workers, name="slow")
        )
        return fused.map(Pause(0.001), name="light")

    before, found = rate_of(pipe(1), loop_s=0.003)
    assert (found.kind, found.stage) == ("workers", "slow")
    assert found.workers is not None
    assert found.workers > 1
    after, _ = rate_of(pipe(found.workers), loop_s=0.003)
    follows(found, before, after)


def test_slow_stage_that_needs_the_order() -> None:
    def pipe(workers: int | None) -> sp.Pipeline:
        first = sp.Pipeline(range(200)).through(Pause(0.004).stream, name="pack", workers=1)
        return first.through(Pause(0.006).stream, name="tag", workers=workers)

    before, found = rate_of(pipe(None))
    assert (found.kind, found.stage, found.workers) == ("stage", "tag", 1)
    after, _ = rate_of(pipe(found.workers))
    follows(found, before, after)


def test_source() -> None:
    def pipe(seconds: float) -> sp.Pipeline:
        return sp.Pipeline(Reader(150, seconds)).through(Pause(0.001).stream, name="light")

    before, found = rate_of(pipe(0.010))
    assert (found.kind, found.stage) == ("source", "source")
    after, _ = rate_of(pipe(0.005))  # the advice reckons with half the time
    follows(found, before, after)


def test_memory() -> None:
    nbytes = 1 << 20
    pipe = sp.Pipeline(range(150)).through(Pause(0.010, nbytes=nbytes).stream, name="grow")
    before, found = rate_of(pipe, loop_s=0.010, arena_bytes=nbytes + (1 << 19))
    assert (found.kind, found.stage) == ("memory", "grow")
    after, _ = rate_of(pipe, loop_s=0.010)
    assert after > before


def test_startup() -> None:
    pipe = sp.Pipeline(range(50)).map(Pause(0.004, start_s=0.8), workers=1)
    since = time.perf_counter()
    _, found = rate_of(pipe)
    elapsed = time.perf_counter() - since
    assert found.kind == "start-up"
    since = time.perf_counter()
    rate_of(pipe, epochs=10)
    in_one = (time.perf_counter() - since) / 10
    assert found.gain is not None
    assert elapsed / in_one > 1.5
    assert elapsed / in_one < found.gain * (1 + CLOSE)  # what a run without end would come to


def test_order_that_waits_for_the_slowest() -> None:
    def pipe(capacity: int) -> sp.Pipeline:
        return sp.Pipeline(range(240)).map(uneven, workers=4, capacity=capacity)

    before, found = rate_of(pipe(4))
    assert (found.kind, found.stage) == ("window", "uneven")
    after, _ = rate_of(pipe(64))
    follows(found, before, after)


def uneven(item: int) -> int:
    PAUSE.wait(0.06 if item % 12 == 0 else 0.003)
    return item
