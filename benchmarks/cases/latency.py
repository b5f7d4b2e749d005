"""What lies between an item's making and its use: overlap, the delay of chunks, steady memory.

Rules: producers and consumers that take 5 ms spin on the clock, since a sleep is late by as much
as is measured here. Delays are differences of the system-wide monotonic clock, which all processes
of a machine share.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.base import Case, Context, Metric, Metrics, PipelineSystem, Run, WrongResult
from benchmarks.cases.throughput import TOKENS, Closing
from benchmarks.work import Paced, Timed, spin_until

__all__ = ["CASES"]

PEERS = ("spdl", "torch", "splitdataloader", "zmq", "mpqueue")
COST_S = 0.005
WARM_UP = 8


def overlap(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """A producer of 5 ms a batch (1 MB) and a consumer of 5 ms a batch; the ideal is 5 ms."""
    count = context.pick(full=300, quick=100, tiny=10)
    yield {"batches": count, "cost_ms": COST_S * 1e3}
    while True:
        yield _overlap_round(system, context, count)


def _overlap_round(system: PipelineSystem, context: Context, count: int) -> dict[str, float]:
    work = Timed(TOKENS, COST_S)
    waits = []
    number = -1
    with Closing(system.batches(work, WARM_UP + count, workers=context.workers)) as run:
        items = iter(run)
        for _ in range(WARM_UP):
            next(items)
            spin_until(time.perf_counter() + COST_S)
        begin = ready = time.perf_counter()
        for number, batch in enumerate(islice(items, count), WARM_UP):
            taken = time.perf_counter()
            waits.append(taken - ready)
            TOKENS.touch(batch, number)
            spin_until(taken + COST_S)
            ready = time.perf_counter()
        wall = time.perf_counter() - begin
        number += sum(1 for _ in items)
    if number != WARM_UP + count - 1:
        raise WrongResult(f"{number + 1} batches came, not {WARM_UP + count}")
    return {
        "percent": 100 * count * COST_S / wall,
        "wait_ms": sum(waits) / count * 1e3,
        "longest_wait_ms": max(waits) * 1e3,
    }


def delay(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """How long after it was ready an item of a generator that turned slow is delivered.

    Each repetition is a burst of fast items, which teaches a chunking system long chunks, then
    items 20 ms apart. The last item of a burst counts too: nothing follows it for 20 ms.
    """
    paced = Paced(
        context.pick(full=100_000, quick=20_000, tiny=200),
        context.pick(full=25, quick=10, tiny=3),
        context.pick(full=0.02, quick=0.02, tiny=0.002),
    )
    repetitions = context.pick(full=3, quick=2, tiny=1)
    total = repetitions * (paced.burst + paced.slow)
    yield {"repetitions": repetitions, "burst": paced.burst, "slow": paced.slow}
    while True:
        delays: dict[str, list[int]] = {"burst": [], "last of burst": [], "slow": []}
        with Closing(system.stream(paced, repetitions)) as run:
            for kind, moment in run:
                delays[kind].append(time.monotonic_ns() - moment)
        if sum(map(len, delays.values())) != total:
            raise WrongResult(f"{sum(map(len, delays.values()))} items came, not {total}")
        slow = sorted(delays["slow"])
        yield {
            "slow_max_ms": slow[-1] / 1e6,
            "slow_median_ms": slow[len(slow) // 2] / 1e6,
            "last_of_burst_ms": max(delays["last of burst"]) / 1e6,
        }


def _private_bytes() -> int:
    """Memory of this process and its descendants, shared pages counted in parts (PSS)."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


def memory(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """Memory of all processes over 200 epochs of one run, after the first ones have settled."""
    epochs = context.pick(full=200, quick=40, tiny=6)
    settled = max(2, epochs // 10)
    count = context.pick(full=40, quick=20, tiny=4)
    yield {"epochs": epochs, "batches_an_epoch": count, "settled_after": settled}
    while True:
        with Closing(system.batches(TOKENS, count, workers=1, epochs=epochs)) as run:
            _epochs(run, settled, count)
            before, files = _private_bytes(), _descriptors()
            _epochs(run, epochs - settled, count)
            after, left = _private_bytes(), _descriptors()
        yield {
            "growth_mb": (after - before) / 1e6,
            "total_mb": after / 1e6,
            "descriptors": left - files,
        }


def _epochs(run: Run, epochs: int, count: int) -> None:
    """Take `epochs` epochs of `count` batches each, and hold none of them afterwards."""
    for _ in range(epochs):
        seen = 0
        for seen, batch in enumerate(run, 1):
            TOKENS.touch(batch, seen - 1)
        if seen != count:
            raise WrongResult(f"an epoch had {seen} batches, not {count}")
    gc.collect()


CASES = (
    Case(
        "overlap",
        "Producer of 5 ms against consumer of 5 ms (1 MB batches), share of the ideal",
        "pipeline",
        overlap,
        (
            Metric("percent", "% of ideal"),
            Metric("wait_ms", "ms/batch", False),
            Metric("longest_wait_ms", "ms", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("splitpipe-generator", "splitpipe-zmq", *PEERS, "grain"),
        rounds=5,
    ),
    Case(
        "delay",
        "Delay of an item of a generator that turned slow after a burst",
        "pipeline",
        delay,
        (
            Metric("slow_max_ms", "ms", False),
            Metric("slow_median_ms", "ms", False),
            Metric("last_of_burst_ms", "ms", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("splitpipe-zmq", *PEERS),
        rounds=5,
    ),
    Case(
        "memory",
        "Memory over 200 epochs (1 MB batches)",
        "pipeline",
        memory,
        (
            Metric("growth_mb", "MB", False),
            Metric("total_mb", "MB", False),
            Metric("descriptors", "open files", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("spdl", "torch"),
        rounds=3,
    ),
)
