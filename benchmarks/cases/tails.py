"""One sample in ten takes 20 times as long: what the order of the stream then costs.

Rules: samples carry the moment at which their making began, so that a figure is the time from the
first measured sample's beginning to the delivery of the last batch, whatever starting took; the
ideal is all work divided by the workers, which no order and no schedule can beat. Samples either
sleep, as those do that wait for a disk or a network, or burn processor time.

What can be asked of a peer: two workers are at most twice as fast as one, and a loader that
delivers in order is never slower than one worker that does all the work. So the ideal is at most
twice any of them, unless moving the samples itself costs as much as making them (``singles``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base import Case, Context, Metric, Metrics, PipelineSystem, Run, WrongResult
from benchmarks.cases.throughput import Closing
from benchmarks.work import spin_until

__all__ = ["CASES", "Samples"]

SLOWER = 20
ONE_IN = 10
WARM_S = 0.05
"""What the first sample of a warming batch costs: time for the other workers to come to life."""
SLACK_S = 0.0004
"""A sleep is late by less than this; the rest is waited for on the clock."""
Array = npt.NDArray[np.float64]


def _random(number: int, size: int) -> bool:
    return bool(_dice(1 << 14)[number % (1 << 14)])


@lru_cache(maxsize=1)
def _dice(count: int) -> npt.NDArray[np.bool_]:
    """Exactly one in ten of every ten, at random places."""
    rng = np.random.default_rng(9)
    slow = np.zeros((count // ONE_IN + 1, ONE_IN), bool)
    slow[:, 0] = True
    return rng.permuted(slow, axis=1).ravel()


def _every_tenth(number: int, size: int) -> bool:
    return number % ONE_IN == 0


def _clustered(number: int, size: int) -> bool:
    """Slow ones lie together, as the long files of a folder do: one batch in ten is all slow."""
    return number // size % ONE_IN == ONE_IN // 2


@dataclass(frozen=True, slots=True)
class Samples:
    """A batch work, and a function for samples one by one.

    Attributes:
        slow: whether a sample (number, samples of a batch) is a slow one.
        cost_s: what a fast one costs.
        size: samples of a batch.
        sleeps: whether they sleep or burn processor time.
        warm: batches before the first that is measured.
        width: numbers in a sample.
    """

    slow: Callable[[int, int], bool]
    cost_s: float
    size: int
    sleeps: bool
    warm: int
    width: int = 1024
    reuse: int = 1

    @property
    def rows(self) -> int:
        """Samples of a batch."""
        return self.size

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch."""
        return 8 * self.size * self.width

    def cost(self, number: int) -> float:
        """Seconds that sample `number` costs."""
        measured = number - self.warm * self.size
        if measured < 0:
            return WARM_S if number % self.size == 0 else 0.0
        return self.cost_s * (SLOWER if self.slow(measured, self.size) else 1)

    def row(self, number: int) -> Array:
        """Sample `number`, which says who it is and when it was begun."""
        row = np.empty(self.width)
        row[0], row[-1] = time.monotonic(), number
        self.work(number)
        return row

    def work(self, number: int) -> tuple[int, float]:
        """Spend what sample `number` costs."""
        begin, cost = time.monotonic(), self.cost(number)
        if self.sleeps:
            stop = time.perf_counter() + cost
            time.sleep(max(0.0, cost - SLACK_S))
            spin_until(stop)
        else:
            until = time.thread_time() + cost
            while time.thread_time() < until:
                pass
        return number, begin

    def make(self, number: int) -> Array:
        """Batch `number`: its samples one after the other, stacked."""
        first = number * self.size
        return np.stack([self.row(one) for one in range(first, first + self.size)])

    def fill(self, number: int, empty: Callable[..., npt.NDArray[Any]]) -> Array:
        """Batch `number` in an array from `empty`."""
        batch = empty((self.size, self.width), "float64")
        for index in range(self.size):
            batch[index] = self.row(number * self.size + index)
        return batch

    def reusing(self, count: int) -> Samples:
        """The same work: its batches are new ones anyway."""
        return replace(self, reuse=count)


def _share(work: Samples, run: Run, count: int, workers: int) -> float:
    """Per cent of the ideal that `count` batches behind the warming ones reached."""
    total = work.warm + count
    with Closing(run):
        begin = float("inf")
        seen = -1
        for seen, batch in enumerate(islice(run, total)):
            numbers = np.asarray(batch)[:, -1].astype(np.int64)
            if not np.array_equal(numbers, np.arange(seen * work.size, (seen + 1) * work.size)):
                raise WrongResult(f"batch {seen} holds the samples {numbers.tolist()}")
            if seen >= work.warm:
                begin = min(begin, float(np.asarray(batch)[:, 0].min()))
            del batch
        wall = time.monotonic() - begin
    if seen != total - 1:
        raise WrongResult(f"{seen + 1} batches came, not {total}")
    numbers = range(work.warm * work.size, total * work.size)
    return 100 * sum(map(work.cost, numbers)) / workers / wall


def _singles(work: Samples, run: Run, count: int, workers: int) -> float:
    """As `_share`, for samples that are delivered one by one."""
    total = work.warm + count
    with Closing(run):
        got = list(islice(run, total))
        wall = time.monotonic() - min(begin for _, begin in got[work.warm :])
    if [number for number, _ in got] != list(range(total)):
        raise WrongResult(f"{len(got)} samples came, not the {total} that were asked for, in order")
    return 100 * sum(map(work.cost, range(work.warm, total))) / workers / wall


def tails(system: PipelineSystem, context: Context, *, sleeps: bool) -> Iterator[Metrics]:
    """Batches of samples with slow ones anywhere, in every second batch, and all in one batch."""
    workers = context.workers
    cost = context.pick(full=0.002, quick=0.001, tiny=0.0001)
    warm = 4 * workers
    settings = {
        "random": (Samples(_random, cost, 16, sleeps, warm), 30),
        "alternating": (Samples(_every_tenth, cost, 5, sleeps, warm), 96),
        "clustered": (Samples(_clustered, cost, 16, sleeps, warm), 30),
    }
    single = Samples(_every_tenth, cost / 20, 1, sleeps, warm)
    singles = context.pick(full=16_000, quick=5_000, tiny=60)
    yield {"workers": workers, "cost_ms": cost * 1e3, "single_ms": single.cost_s * 1e3}
    while True:
        figures = {}
        for name, (work, full) in settings.items():
            count = context.pick(full=full, quick=full, tiny=10)
            run = system.batches(work, warm + count, workers=workers)
            figures[name] = _share(work, run, count, workers)
        run = system.map(single.work, warm + singles, workers=workers)
        yield {**figures, "singles": _singles(single, run, singles, workers)}


CASES = tuple(
    Case(
        name,
        f"One sample in ten 20 times slower ({how}), two workers, in order, share of the ideal",
        "pipeline",
        partial(tails, sleeps=sleeps),
        (
            Metric("random", "% batches of 16, at random"),
            Metric("alternating", "% batches of 5, every tenth"),
            Metric("clustered", "% batches of 16, all in one of ten"),
            Metric("singles", "% one by one, 20 x less work"),
        ),
        "torch@2",
        ("splitpipe-rows@2", "torch@2"),
        ("splitpipe@2", "spdl@2", "grain@2", "joblib@2", "torchdata@2"),
        rounds=3,
    )
    for name, how, sleeps in (
        ("tails_waiting", "it waits", True),
        ("tails_computing", "it computes", False),
    )
)
