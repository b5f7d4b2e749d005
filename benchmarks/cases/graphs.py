"""Graphs: several boundaries one behind the other, sources mixed, work shared, random numbers.

Rules: before the first figure everything that arrives is compared with what must; in the timed
rounds it is counted and stamped items are looked at. Figures that are compared with one another
(one stage and three, together and apart, with random numbers and without) are taken in one round,
right after one another. Processor time is that of all processes of a run, while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, Run, WrongResult
from benchmarks.cases.throughput import IMAGES, TOKENS, Closing
from benchmarks.processor import processor_s
from benchmarks.work import ArrayWork

__all__ = ["CASES", "HOPS", "GraphSystem"]

HOPS = 2
"""Processes that hand a batch on, between the one that makes it and the consumer."""
AHEAD = 40
"""More batches than any system has between two processes."""
WEIGHTS = (4.0, 3.0, 2.0, 1.0)
BATCH = 8


class GraphSystem(Protocol):
    """Runs graphs; a system need not have every method."""

    def chain(self, work: ArrayWork, count: int, *, hops: int) -> Run:
        """Batches 0 .. count-1 of `work`, made in one process and handed on by `hops` more."""
        ...

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        """(source, number) of sources that have `count` items each, chosen by weight."""
        ...

    def branches(self, function: Any, count: int, *, size: int, apart: bool) -> Mapping[str, Run]:
        """``function(0..count-1)`` as ``train``, in batches of `size`, and as ``eval``, negated.

        `apart`: each of them in a run of its own, started when it is iterated.
        """
        ...

    def workers_s(self, run: Run) -> float:
        """Processor seconds of the workers of a run of `branches`."""
        ...

    def randoms(self, count: int, *, random: bool) -> Run:
        """(number, value) of each number; the value random, or half the number."""
        ...


# -- boundaries


def chain(system: GraphSystem, context: Context, *, work: ArrayWork) -> Iterator[Metrics]:
    """Batches through three processes, compared with one and with bare copies."""
    for hops in (0, HOPS):
        with Closing(system.chain(work, 12, hops=hops)) as run:
            seen = -1
            for seen, batch in enumerate(run):
                work.check(batch, seen)
                del batch
        if seen != 11:
            raise WrongResult(f"{seen + 1} batches came through {hops} hops, not 12")
    copy_s = _copying_s(work, 20)
    seconds = context.pick(full=0.8, quick=0.3, tiny=0.02)
    count = max(10, min(int(seconds / copy_s / 3), context.pick(full=10_000, quick=2_000, tiny=20)))
    warm_up = context.pick(full=40, quick=40, tiny=4)
    yield {"batches": count, "batch_nbytes": work.nbytes}
    while True:
        copy_s = _copying_s(work, count)
        one_s, one_cpu, _ = _through(system, work, warm_up, count, 0)
        wall, cpu, sent = _through(system, work, warm_up, count, HOPS)
        boundary = (cpu - one_cpu) / HOPS
        yield {
            "batches_s": 1 / wall,
            "of_one": 100 * one_s / wall,
            "of_copies": 100 * (HOPS + 1) * copy_s / wall,
            "boundary_ms": boundary * 1e3,
            "writes": boundary / copy_s,
            **({} if sent is None else {"sent": sent}),
        }


def _copying_s(work: ArrayWork, count: int) -> float:
    """Seconds of a copy between three arrays each in turn: what a run has in use at least."""
    targets, sources = ([np.ones(work.shape, work.dtype) for _ in range(3)] for _ in range(2))
    begin = time.thread_time()
    for number in range(count):
        np.copyto(targets[number % 3], sources[number % 3])
    return (time.thread_time() - begin) / count


def _through(
    system: GraphSystem, work: ArrayWork, warm_up: int, count: int, hops: int
) -> tuple[float, float, float | None]:
    """Seconds and processor seconds a batch, and payloads that crossed each boundary with it."""
    # What lies ready ahead of the consumer stays for later: no process has ended when the clock
    # stops, and taken its time with it.
    total = warm_up + count + AHEAD * (hops + 1)
    with Closing(system.chain(work, total, hops=hops)) as run:
        items = iter(run)
        for number in range(warm_up):
            work.touch(next(items), number)
        wall, cpu = time.perf_counter(), processor_s()
        for number, batch in enumerate(islice(items, count), warm_up):
            work.touch(batch, number)
            del batch
        wall, cpu = time.perf_counter() - wall, processor_s() - cpu
        seen = warm_up + count
        for batch in items:
            work.touch(batch, seen)
            seen += 1
            del batch
        tell = getattr(run, "sent_nbytes", None)
        sent = None if tell is None else sum(tell()) / (hops + 1) / total / work.nbytes
    if seen != total:
        raise WrongResult(f"{seen} batches came, not {total}")
    return wall / count, cpu / count, sent


# -- sources


def mixing(system: GraphSystem, context: Context) -> Iterator[Metrics]:
    """Items of four sources, chosen by weights of 4 : 3 : 2 : 1."""
    small = context.pick(full=20_000, quick=10_000, tiny=2_000)
    with Closing(system.mixed(small, WEIGHTS)) as run:
        # No source is at its end: the largest has two fifths of them.
        _check_mix([tuple(item) for item in islice(run, small)])
    most = context.pick(full=400_000, quick=50_000, tiny=2_000)
    yield {"items": most}
    while True:
        with Closing(system.mixed(most, WEIGHTS)) as run:
            items = iter(run)
            seen = [0] * len(WEIGHTS)
            seen[next(items)[0]] += 1
            begin = time.perf_counter()
            for source, number in islice(items, most - 1):
                if number != seen[source]:
                    raise WrongResult(f"item {number} of source {source} is not its next one")
                seen[source] += 1
            wall = time.perf_counter() - begin
        if sum(seen) != most:
            raise WrongResult(f"{sum(seen)} items came, not {most}")
        yield {"items_s": most / wall}


def _check_mix(items: Sequence[tuple[int, int]]) -> None:
    seen = [0] * len(WEIGHTS)
    for source, number in items:
        if number != seen[source]:
            raise WrongResult(f"item {number} of source {source} came, {seen[source]} is its next")
        seen[source] += 1
    for source, weight in enumerate(WEIGHTS):
        share = weight / sum(WEIGHTS)
        off = abs(seen[source] - share * len(items))
        if off > 6 * (len(items) * share * (1 - share)) ** 0.5:
            raise WrongResult(f"source {source} has {seen[source]} of {len(items)} items")


# -- branches


@dataclass(frozen=True, slots=True)
class Shared:
    """The work that both branches need: uses up processor time and gives the number back."""

    cost_s: float

    def __call__(self, number: int) -> int:
        until = time.thread_time() + self.cost_s
        while time.thread_time() < until:
            pass
        return number


def branches(system: GraphSystem, context: Context) -> Iterator[Metrics]:
    """Two loaders over one piece of work, in one run and in two."""
    work = Shared(context.pick(full=0.0005, quick=0.0002, tiny=0.00002))
    count = BATCH * context.pick(full=200, quick=100, tiny=10)
    yield {"items": count, "cost_ms": work.cost_s * 1e3}
    while True:
        together, together_cpu = _read(system, work, count, apart=False)
        apart, apart_cpu = _read(system, work, count, apart=True)
        yield {
            "together_s": together,
            "apart_s": apart,
            "share": together / apart,
            "cpu_share": together_cpu / apart_cpu,
        }


def _read(system: GraphSystem, work: Shared, count: int, *, apart: bool) -> tuple[float, float]:
    """Seconds and processor seconds of reading both, starting included: apart it is done twice."""
    wall, cpu = time.perf_counter(), time.process_time()
    loaders = system.branches(work, count, size=BATCH, apart=apart)
    try:
        train, evaluated = loaders["train"], loaders["eval"]
        if apart:
            negated = (-number for number in range(count))
            _compare(train, _batches(count))
            _compare(evaluated, negated)
            runs = [train, evaluated]
        else:
            _compare(_in_step(iter(train), iter(evaluated)), _steps(count))
            runs = [train]  # it tells of all workers of the run
        wall = time.perf_counter() - wall
        cpu = time.process_time() - cpu + sum(system.workers_s(run) for run in runs)
    finally:
        for run in loaders.values():
            run.close()
    return wall, cpu


def _batches(count: int) -> Iterator[list[int]]:
    return (list(range(first, first + BATCH)) for first in range(0, count, BATCH))


def _steps(count: int) -> Iterator[tuple[list[int], list[int]]]:
    return ((batch, [-number for number in batch]) for batch in _batches(count))


def _in_step(train: Iterator[Any], evaluated: Iterator[Any]) -> Iterator[tuple[Any, list[Any]]]:
    for batch in train:
        yield batch, list(islice(evaluated, BATCH))


def _plain(item: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(_plain(one) for one in item)
    return item.tolist() if hasattr(item, "tolist") else item


def _compare(items: Iterable[Any], expected: Iterable[Any]) -> None:
    got = [_plain(item) for item in items]
    if got != list(expected):
        raise WrongResult(f"{len(got)} items came that are not those expected")


# -- random numbers


def randoms(system: GraphSystem, context: Context) -> Iterator[Metrics]:
    """A map that draws one random number an item, and the same map that draws none."""
    small = context.pick(full=5_000, quick=2_000, tiny=200)
    with Closing(system.randoms(small, random=True)) as run:
        first = [tuple(item) for item in run]
    with Closing(system.randoms(small, random=True)) as run:
        again = [tuple(item) for item in run]
    if first != again:
        raise WrongResult("two runs gave different numbers")
    if [number for number, _ in first] != list(range(small)):
        raise WrongResult("the items are not those of the source, in order")
    values = [value for _, value in first]
    if len(set(values)) != small or abs(float(np.mean(values)) - 0.5) > 3 / small**0.5:
        raise WrongResult("the numbers are not random ones from 0 to 1")
    count = context.pick(full=100_000, quick=20_000, tiny=300)
    yield {"items": count}
    while True:
        drawn, plain = (_drain(system, count, random=random) for random in (True, False))
        yield {
            "random_s": count / drawn,
            "plain_s": count / plain,
            "more_us": (drawn - plain) / count * 1e6,
        }


def _drain(system: GraphSystem, count: int, *, random: bool) -> float:
    with Closing(system.randoms(count, random=random)) as run:
        items = iter(run)
        total = next(items)[0]
        begin = time.perf_counter()
        for number, _ in items:
            total += number
        seconds = time.perf_counter() - begin
    if total != count * (count - 1) // 2:
        raise WrongResult(f"the items add up to {total}")
    return seconds


def _chain_case(name: str, title: str, work: ArrayWork) -> Case:
    return Case(
        name,
        f"{title} through three processes in a chain, in front of the consumer",
        "graphs",
        partial(chain, work=work),
        (
            Metric("batches_s", "batches/s"),
            Metric("of_one", "% of one process"),
            Metric("of_copies", "% of three bare copies"),
            Metric("boundary_ms", "ms CPU/boundary more", False),
            Metric("writes", "copies' time/boundary more", False),
            Metric("sent", "payloads sent/boundary", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("splitpipe-zmq", "zmq", "mpqueue"),
    )


CASES = (
    _chain_case("chain_9.6MB", "Batches of 9.6 MB", IMAGES),
    _chain_case("chain_1MB", "Batches of 1 MB", TOKENS),
    Case(
        "mix",
        "Items of four sources, chosen by weights of 4 : 3 : 2 : 1",
        "graphs",
        mixing,
        (Metric("items_s", "items/s"),),
        "inline",
        (),
        ("inline", "splitpipe", "python", "torchdata", "grain"),
    ),
    Case(
        "branches",
        "Two loaders over one piece of work: one run of sp.run against two runs",
        "graphs",
        branches,
        (
            Metric("together_s", "s together", False),
            Metric("apart_s", "s apart", False),
            Metric("share", "of the time apart", False),
            Metric("cpu_share", "of the CPU apart", False),
        ),
        "splitpipe",
        (),
        ("splitpipe", "inline"),
        rounds=5,
    ),
    Case(
        "random",
        "A map that draws a random number for each item (rng), and one that draws none",
        "graphs",
        randoms,
        (
            Metric("random_s", "items/s with"),
            Metric("plain_s", "items/s without"),
            Metric("more_us", "us/item more", False),
        ),
        "inline",
        (),
        ("inline", "splitpipe", "python"),
    ),
)
