"""From one worker to as many as pay: what a run that finds it out itself reaches, and keeps.

Rules: a figure of a system that tunes itself is taken after `FOUND_S`, over a stretch in which it
has to stay where it is; the same stretch of a run whose workers were given by hand is its measure.
Both works burn processor time of a worker and give small batches, so that nothing but the number of
workers matters.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base import Case, Context, Metric, Metrics, PipelineSystem, WrongResult
from benchmarks.cases.throughput import Closing

__all__ = ["CASES", "Costly"]

FOUND_S = 15.0
STAYS_S = 8.0
MOST = 1 << 22
"""Batches of a run: more than anybody can read in its time."""


@lru_cache(maxsize=1)
def _packed() -> bytes:
    rng = np.random.default_rng(6)
    return zlib.compress(rng.integers(0, 40, 200_000, np.uint8).tobytes())


@dataclass(frozen=True, slots=True)
class Costly:
    """A batch work of 16 rows, each of which costs a millisecond or two.

    Attributes:
        decodes: whether rows are decompressed, or arithmetic is done.
    """

    decodes: bool
    rows: int = 16
    reuse: int = 1

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch."""
        return 8 * 64 * self.rows

    def row(self, number: int) -> npt.NDArray[np.int64]:
        """Row `number`."""
        if self.decodes:
            raw = np.frombuffer(zlib.decompress(_packed()), np.uint8)
            row = raw[:64].astype(np.int64)
        else:
            until = time.thread_time() + 0.002
            while time.thread_time() < until:
                pass
            row = np.zeros(64, np.int64)
        row[0] = number
        return row

    def make(self, number: int) -> npt.NDArray[np.int64]:
        """Batch `number`."""
        first = number * self.rows
        return np.stack([self.row(one) for one in range(first, first + self.rows)])

    def fill(self, number: int, empty: Any) -> npt.NDArray[np.int64]:
        """Batch `number`, in memory of its own."""
        return self.make(number)

    def reusing(self, count: int) -> Costly:
        """The same work."""
        return replace(self, reuse=count)


def _rate(system: PipelineSystem, work: Costly, context: Context) -> float:
    """Batches a second in the stretch behind `FOUND_S`."""
    begin_s = context.pick(full=FOUND_S, quick=FOUND_S, tiny=0.05)
    end_s = begin_s + context.pick(full=STAYS_S, quick=3.0, tiny=0.05)
    counted, since, number = 0, 0.0, -1
    with Closing(system.batches(work, MOST, workers=context.workers)) as run:
        start = now = time.perf_counter()
        for number, batch in enumerate(run):
            first = int(np.asarray(batch)[0, 0])
            if first != number * work.rows:
                raise WrongResult(f"batch {number} begins with row {first}")
            now = time.perf_counter()
            if since:
                counted += 1
            elif now - start >= begin_s:
                since = now
            if now - start >= end_s:
                break
    return counted / (now - since) if counted else 0.0


def autotune(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """A heavy map, and a decode."""
    yield {"found_s": FOUND_S, "stays_s": STAYS_S}
    while True:
        yield {
            "map": _rate(system, Costly(decodes=False), context),
            "decode": _rate(system, Costly(decodes=True), context),
        }


CASES = (
    Case(
        "autotune",
        f"Workers found out by the run: batches a second {FOUND_S:.0f} s after its start",
        "pipeline",
        autotune,
        (Metric("map", "batches/s, heavy map"), Metric("decode", "batches/s, decode")),
        "splitpipe-rows@2",
        ("splitpipe-auto", "splitpipe-rows", "splitpipe-rows@2"),
        ("splitpipe", "splitpipe-rows@3"),
        rounds=1,
    ),
)
