"""Runs for a long time, and looks whether anything grows: ``python -m benchmarks.soak``.

Responsible for: a pipeline with everything that holds memory (slots, a shuffle buffer, batches that
are kept for a while, several epochs), read for as long as it is asked for, and the slopes of what
it holds: resident memory, descriptors, threads and segments of all its processes.

    python -m benchmarks.soak --minutes 10

Rules:
- what the C library keeps for later is no leak, and hides small ones: its heap grows and shrinks by
  a mebibyte as chunks come and go, and each thread fills a cache of a quarter of one, which takes
  minutes. So the runner starts itself anew without those caches and with one heap
  (``GLIBC_TUNABLES``), and in every process what is free is given back before a look. With
  ``--as-it-comes`` both stay as they are;
- a slope is fitted to what was seen after the warm-up, half of the time: what the longest queues
  need comes up in the course of minutes. The slope stands with its error, since memory is noisy;
- memory fails when it grows by more than is allowed, by twice that error, and by one step of an
  allocator, in all: in a short run a step looks like a slope. What would not be seen is said;
- memory that processes share is not judged by its slope: a slot of the arena is there from when it
  is first written, the last one perhaps in the second hour. It fails when there is more of it than
  `ARENA_BYTES`, which the loader was told to stay below;
- descriptors, threads and segments fail when their last third has more than their first;
- what leaks does so by the item or by the epoch: ``--records`` makes epochs short and many;
- the verdict is the last line. Exit status: 0 passed, 1 failed, 2 too short to judge.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import splitpipe as sp
from benchmarks.chaotic.report import Report

__all__ = ["Record", "Sample", "judge", "main", "slope"]

RECORDS = 100_000
MIB = 1 << 20
WARM_UP = 0.5
EVERY_S = 0.5
LIMIT_MIB_H = 1.0
ARENA_BYTES = 64 << 20
STEP_MIB = 1.0  # an arena of Python's, the least that a process takes at once
TRIM_S = 1.0
TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"
"""A C library without caches; another one than GNU's does not look at it."""
LEAST_S = 60.0
"""A run that is shorter says nothing about a slope in an hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What all processes of a pipeline held at one moment.

    Attributes:
        at_s: when.
        memory_mib: resident memory that they made and do not share; what a process has from the one
            that forked it counts once.
        shared_mib: of their segments, once.
        descriptors, threads, segments, processes: how many.
    """

    at_s: float
    memory_mib: float
    shared_mib: float
    descriptors: int
    threads: int
    segments: int
    processes: int


class Record:
    """Samples, in memory that is there from the beginning: a list of them, a few hundred bytes
    each, would grow by 3 MiB in an hour, and be found.

    When it is full, every other one goes, and of those that come every other one is kept.

    >>> record = Record(4)
    >>> for second in range(6):
    ...     record.add(Sample(second, 1.0, 1.0, 1, 1, 1, 1))
    >>> [one.at_s for one in record.samples()]
    [0.0, 2.0, 4.0]
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._rows = np.full((capacity, len(fields(Sample))), np.nan)
        self._seen = self._kept = 0
        self._every = 1

    def add(self, sample: Sample) -> None:
        """Keep a sample, or leave it out."""
        if self._kept == len(self._rows):
            self._kept = len(self._rows[::2])
            self._rows[: self._kept] = self._rows[::2]
            self._every *= 2
        if self._seen % self._every == 0:
            self._rows[self._kept] = astuple(sample)
            self._kept += 1
        self._seen += 1

    def samples(self) -> list[Sample]:
        """Those that were kept, in order."""
        rows = self._rows[: self._kept].tolist()
        return [Sample(*row[:3], *map(int, row[3:])) for row in rows]


def sample() -> Sample:
    """Look at this process and all below it."""
    found = [os.getpid(), *(one.pid for one in psutil.Process().children(recursive=True))]
    memory = shared = 0.0
    descriptors = threads = segments = 0
    for pid in found:
        # It may end while it is looked at.
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            parts = _resident(pid)
            memory += parts["Pss_Anon"]
            shared += parts["Pss_Shmem"]
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            threads += len(os.listdir(f"/proc/{pid}/task"))
            segments += _segments(pid)
    now = time.monotonic()
    return Sample(now, memory, shared, descriptors, threads, segments, len(found))


def _resident(pid: int) -> dict[str, float]:
    """MiB of a process by their kind, with its part of those that it shares with others.

    Pages of files are not looked at: how many of those count here depends on who else has them
    mapped.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    parts = (line.split(":") for line in lines[1:])
    return {name: int(value.split()[0]) / 1024 for name, value in parts}


def _segments(pid: int) -> int:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/memfd:" in line or "/dev/shm/" in line for line in lines)


def slope(times_s: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Least squares: growth in an hour, and its standard error.

    >>> slope([0, 1800, 3600], [1.0, 2.0, 3.0])
    (2.0, 0.0)
    """
    n = len(times_s)
    mean_t, mean_v = sum(times_s) / n, sum(values) / n
    spread = sum((t - mean_t) ** 2 for t in times_s)
    if n < 3 or spread == 0:
        return 0.0, math.inf
    pairs = list(zip(times_s, values, strict=True))
    rise = sum((t - mean_t) * (v - mean_v) for t, v in pairs) / spread
    rest = sum((v - mean_v - rise * (t - mean_t)) ** 2 for t, v in pairs)
    error = math.sqrt(rest / (n - 2) / spread)
    return round(3600 * rise, 6), round(3600 * error, 6)


def judge(samples: Sequence[Sample], limit_mib_h: float) -> Report:
    """What grew."""
    report = Report()
    span = samples[-1].at_s - samples[0].at_s
    warm = [one for one in samples if one.at_s >= samples[0].at_s + WARM_UP * span]
    times = [one.at_s for one in warm]
    rise, error = slope(times, [one.memory_mib for one in warm])
    # A step in the middle of a stretch is half as steep again as one that is spread over it.
    seen = limit_mib_h + 2 * error + 3600 * 1.5 * STEP_MIB / max(1e-9, times[-1] - times[0])
    report.lines.append(
        f"memory: {warm[0].memory_mib:.1f} MiB after the warm-up, "
        f"{warm[-1].memory_mib:.1f} at the end; "
        f"{rise:+.2f} MiB/h (+- {error:.2f}), {limit_mib_h:g} allowed; "
        f"less than {seen:.1f} MiB/h would not be seen in so short a time"
    )
    report.require(rise <= seen, f"memory grows by {rise:.2f} MiB/h")
    most, least = max(one.shared_mib for one in samples), warm[0].shared_mib
    report.lines.append(
        f"shared memory: {least:.1f} MiB after the warm-up, {most:.1f} at most; "
        f"{ARENA_BYTES / MIB:.0f} allowed"
    )
    report.require(most <= ARENA_BYTES / MIB, f"shared memory grew to {most:.1f} MiB")
    third = max(1, len(warm) // 3)
    for name in ("descriptors", "threads", "segments", "processes"):
        early = max(getattr(one, name) for one in warm[:third])
        late = max(getattr(one, name) for one in warm[-third:])
        report.lines.append(f"{name}: {early} early, {late} late")
        report.require(late <= early, f"{name} grew from {early} to {late}")
    return report


@functools.cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_trimmed_s = 0.0


def settle() -> None:
    """Have the C library give back what it keeps for later, about once in `TRIM_S`."""
    global _trimmed_s
    if os.environ.get("GLIBC_TUNABLES") != TUNABLES:
        return
    if (now := time.monotonic()) >= _trimmed_s + TRIM_S and (trim := _trim()):
        _trimmed_s = now
        trim(0)


def small(x: int) -> tuple[int, int]:
    if not x % 256:
        settle()
    return x, x + 1


def handed_on(items: Iterator[Any]) -> Iterator[Any]:
    for number, item in enumerate(items):
        if not number % 256:
            settle()
        yield item


def image(x: int) -> Any:
    settle()
    return np.full(30_000, x % 251, np.uint8)


def pipelines(records: int = RECORDS) -> sp.Pipeline:
    """Small items through two processes, and large batches of a part of them beside."""
    items = sp.Pipeline(range(records), shuffle="global", seed=1).map(small, workers=1)
    items = items.shuffle(1000).through(handed_on, workers=1).batch(256)
    images = sp.Pipeline(range(records // 256), shuffle="global", seed=1)
    return sp.zip(items, images.map(image, workers=1).batch(4).unbatch(), uneven="shortest")


def read(end_s: float, least_epochs: int, records: int = RECORDS) -> Iterator[tuple[int, int]]:
    """Read until the time is over; yield epochs and items so far, a few times a second."""
    items, epoch, due = 0, 0, 0.0
    kept: list[Any] = []
    with pipelines(records).loader(epochs=None, arena_bytes=ARENA_BYTES) as loader:
        for batch in loader:
            items += len(batch[0][0])
            kept.append(batch[1])
            del kept[:-3], batch
            if (now := time.monotonic()) >= due:
                due = now + EVERY_S
                epoch = loader.epoch
                settle()
                yield epoch, items
                if now > end_s and epoch >= least_epochs:
                    return


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0)
    add("--epochs", type=int, default=0, help="go on until so many were read, too")
    add("--records", type=int, default=RECORDS, help="of an epoch")
    add("--as-it-comes", action="store_true", help="leave the C library's allocator as it is")
    add("--limit", type=float, default=LIMIT_MIB_H, help="MiB in an hour that memory may grow by")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Soak; returns the exit status."""
    arguments = _arguments(argv)
    if not arguments.as_it_comes and os.environ.get("GLIBC_TUNABLES") != TUNABLES:
        command = [sys.executable, "-m", "benchmarks.soak", *argv]
        os.execve(sys.executable, command, {**os.environ, "GLIBC_TUNABLES": TUNABLES})
    begin = time.monotonic()
    record, epoch, items = Record(), 0, 0
    until = begin + 60 * arguments.minutes
    for done in read(until, arguments.epochs, arguments.records):
        record.add(sample())
        epoch, items = done
    seconds = time.monotonic() - begin
    print(f"{seconds:.0f} s, {items} items, {epoch} whole epochs, {items / seconds:.0f} items/s")
    report = judge(record.samples(), arguments.limit)
    print("\n".join(report.lines))
    if seconds < LEAST_S:
        print(f"TOO SHORT to judge what grows: {LEAST_S:.0f} s at least")
        return 2
    print("PASSED" if report.passed else "FAILED: " + "; ".join(report.faults))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
