"""What it costs to be seen: tiny items with counters, samples and questions, and without.

Rules: a run is blind when its workers and its consumer count nothing, sample nothing and tell
nothing (see the adapter); the rest is the same code. Blind, seen and asked runs take turns within a
round, forwards and backwards, and the quickest of each is compared: what a tenth of a second of the
machine's neighbours costs is more than what is measured here. An asked run is one whose loop calls
`Loader.stats` twice and `Loader.doctor` once.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from benchmarks.base import Case, Context, Metric, Metrics, WrongResult

__all__ = ["CASES", "MODES", "SeenSystem"]

MODES = ("blind", "seen", "asked")
PARTS = 4


class SeenSystem(Protocol):
    """Runs tiny tuples (i, i + 1) out of another process."""

    def run(self, count: int, mode: str) -> Any:
        """A context manager that gives a loader."""
        ...


def _once(system: SeenSystem, count: int, mode: str) -> tuple[float, float]:
    """Seconds from the first item to the last, and processor seconds of the whole run."""
    total = 0
    cpu = _processor_s()
    with system.run(count, mode) as loader:
        total += next(loader)[1]
        begin = time.perf_counter()
        for part in range(PARTS - 1):
            for _, second in islice(loader, count // PARTS):
                total += second
            if mode == "asked":
                if part == 1:
                    loader.doctor()
                else:
                    loader.stats()
        for _, second in loader:
            total += second
        wall = time.perf_counter() - begin
    cpu = _processor_s() - cpu
    if total != count * (count + 1) // 2:
        raise WrongResult(f"the items add up to {total}")
    return wall, cpu


def _processor_s() -> float:
    """Of this process and of all children that have ended: the workers are forked from here."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def seeing(system: SeenSystem, context: Context) -> Iterator[Metrics]:
    """The same stream, blind, seen and asked."""
    count = context.pick(full=1_000_000, quick=300_000, tiny=2_000)
    times = context.pick(full=3, quick=2, tiny=1)
    for mode in MODES:
        with system.run(300, mode) as loader:
            if [tuple(item) for item in loader] != [(n, n + 1) for n in range(300)]:
                raise WrongResult(f"a run that is {mode} gives other items")
    yield {"items": count}
    while True:
        walls: dict[str, list[float]] = {mode: [] for mode in MODES}
        cpus: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(times):
            for mode in (*MODES, *reversed(MODES)):
                wall, cpu = _once(system, count, mode)
                walls[mode].append(wall)
                cpus[mode].append(cpu)
        blind, seen, asked = (min(walls[mode]) for mode in MODES)
        blind_cpu, seen_cpu, asked_cpu = (min(cpus[mode]) for mode in MODES)
        yield {
            "items_s": count / seen,
            "blind_items_s": count / blind,
            "seen": seen / blind,
            "asked": asked / blind,
            "seen_cpu": seen_cpu / blind_cpu,
            "asked_cpu": asked_cpu / blind_cpu,
        }


CASES = (
    Case(
        "seeing",
        "1,000,000 tiny tuples with counters, samples and questions, against a run without",
        "seeing",
        seeing,
        (
            Metric("items_s", "items/s seen"),
            Metric("blind_items_s", "items/s blind"),
            Metric("seen", "of the time blind", False),
            Metric("asked", "of the time blind, asked", False),
            Metric("seen_cpu", "of the CPU blind", False),
            Metric("asked_cpu", "of the CPU blind, asked", False),
        ),
        "splitpipe",
        ("splitpipe",),
        rounds=9,
    ),
)
