"""Items through process boundaries, as fast as they go.

Rules: before the first figure a whole run is compared byte for byte with what was produced; in the
timed rounds the consumer still checks the stamps of every batch and the number of items, and reads
every page. A round starts its own processes; they have delivered some items before the clock
starts, so that starting them is not part of a rate (it has cases of its own).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from benchmarks.base import Case, Context, Metric, Metrics, PipelineSystem, Run, WrongResult
from benchmarks.nested import NestedWork
from benchmarks.work import ArrayWork, Burn, DictWork, MixedWork, add_one, heavy_tail, pairs

__all__ = ["CASES", "IMAGES", "TOKENS", "Closing"]

IMAGES = ArrayWork((64, 224, 224, 3), "uint8")
TOKENS = ArrayWork((256, 2048), "uint16", by_rows=False)
Work = ArrayWork | DictWork | MixedWork | NestedWork


class Closing:
    """Close a run at the end of a block, also after an error."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> Run:
        return self.run

    def __exit__(self, *_: object) -> None:
        self.run.close()


def _checked(system: PipelineSystem, work: Work, context: Context) -> float:
    """Compare a run with what was to come; returns batches a second of the last part of it."""
    count = 40
    times = []
    with Closing(system.batches(work, count, workers=context.workers)) as run:
        number = -1
        for number, batch in enumerate(run):
            work.check(batch, number)
            times.append(time.perf_counter())
    if number != count - 1:
        raise WrongResult(f"{number + 1} batches came, not {count}")
    return count // 2 / (times[-1] - times[count // 2 - 1])


def _timed(system: PipelineSystem, work: Work, context: Context, count: int) -> dict[str, float]:
    """Rate and the consumer's own processor time over `count` batches after the warm-up."""
    # A pool of shared memory is slow until every page of it has been touched.
    warm_up = context.pick(full=40, quick=40, tiny=2) * int(work.max_nbytes // work.nbytes)
    seen = total = 0
    touch = work.touch
    with Closing(system.batches(work, warm_up + count, workers=context.workers)) as run:
        items = iter(run)
        for seen in range(warm_up):
            total += touch(next(items), seen)
        cpu, wall = time.process_time(), time.perf_counter()
        for seen, batch in enumerate(islice(items, count), warm_up):
            total += touch(batch, seen)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # Some take half a second to say that nothing more comes: that is not part of a rate.
        seen += sum(1 for _ in items)
    if seen != warm_up + count - 1:
        raise WrongResult(f"{seen + 1} batches came, not {warm_up + count}")
    return {
        "batches_s": count / wall,
        "gb_s": count * work.nbytes / wall / 1e9,
        "consumer_ms": cpu / count * 1e3,
    }


def _batches(system: PipelineSystem, context: Context, *, work: Work) -> Iterator[Metrics]:
    rate = _checked(system, work, context)
    seconds = context.pick(full=0.8, quick=0.3, tiny=0.02)
    count = max(40, min(int(rate * seconds), context.pick(full=20_000, quick=5_000, tiny=30)))
    yield {"batches": count, "batch_nbytes": work.nbytes}
    while True:
        yield _timed(system, work, context, count)


def _drained(run: Run, count: int, shift: int) -> float:
    """Seconds from the first item to the last of a stream of tiny tuples."""
    total = 0
    with Closing(run):
        items = iter(run)
        total += next(items)[1]
        begin = time.perf_counter()
        for _, second in items:
            total += second
        seconds = time.perf_counter() - begin
    # Tuples (i, i + 1 + hops): a lost, repeated or invented one shows in the sum.
    expected = count * (count - 1) // 2 + count * (1 + shift)
    if total != expected:
        raise WrongResult(f"the items add up to {total}, not {expected}")
    return seconds


def _check_tiny(run: Run, count: int, shift: int) -> None:
    with Closing(run):
        got = [tuple(item) for item in run]
    if got != [(number, number + 1 + shift) for number in range(count)]:
        raise WrongResult(f"{len(got)} tuples came, not the {count} that were produced, in order")


def _tiny(start: Callable[[int], Run], context: Context, *, shift: int = 0) -> Iterator[Metrics]:
    small = context.pick(full=20_000, quick=5_000, tiny=300)
    _check_tiny(start(small), small, shift)
    rate = small / _drained(start(small), small, shift)
    most = context.pick(full=1_000_000, quick=100_000, tiny=500)
    count = max(small, min(most, int(rate * 1.5)))
    if rate > 200_000:
        count = most
    yield {"items": count}
    while True:
        yield {"items_s": count / _drained(start(count), count, shift)}


def tiny(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """Tiny tuples out of one other process."""
    return _tiny(partial(system.stream, pairs), context)


def chain(system: PipelineSystem, context: Context, *, hops: int) -> Iterator[Metrics]:
    """Tiny tuples through further processes on the way."""
    return _tiny(lambda count: system.chain(pairs, count, add_one, hops), context, shift=hops)


def ordered_map(system: PipelineSystem, context: Context) -> Iterator[Metrics]:
    """Items of very unequal cost, computed on two workers, delivered in order."""
    count = context.pick(full=1_500, quick=300, tiny=30)
    costs = heavy_tail(count, context.seed)
    work = sum(costs)
    yield {
        "items": count,
        "work_s": work,
        "longest_ms": max(costs) * 1e3,
        "possible_percent": 100 * work / context.workers / _greedy(costs, context.workers),
    }
    warm = 2 * context.workers
    function = Burn(count, context.seed, warm)
    while True:
        with Closing(system.map(function, count + warm, workers=context.workers)) as run:
            items = iter(run)
            for _ in range(warm):
                next(items)
            begin = time.perf_counter()
            got = list(islice(items, count))
            wall = time.perf_counter() - begin
            got += items
        if got != list(range(count)):
            raise WrongResult("the results are not those of the items, in order")
        yield {"percent": 100 * work / context.workers / wall, "wall_s": wall}


def _greedy(costs: Iterable[float], workers: int) -> float:
    """Seconds that a schedule takes which gives each item to the worker that is free first."""
    free = [0.0] * workers
    for cost in costs:
        free[free.index(min(free))] += cost
    return max(free)


def _batch_case(
    name: str, title: str, work: Any, bars: tuple[str, ...], others: tuple[str, ...]
) -> Case:
    return Case(
        name,
        title,
        "pipeline",
        partial(_batches, work=work),
        (
            Metric("batches_s", "batches/s"),
            Metric("gb_s", "GB/s"),
            Metric("consumer_ms", "ms CPU/batch", False),
        ),
        "spdl",
        bars,
        others,
    )


_OWN = ("inline", "splitpipe-generator", "bare", "memcpy", "memcpy-3")
_ROWS = ("splitpipe-rows", "splitpipe-rows@2", "inline-rows")
_REST = ("grain", "torchdata", "zmq", "mpqueue")
_ALL = ("spdl", "torch", "splitdataloader", *_REST)
_TWO = ("spdl@2", "torch@2", "splitdataloader@2", "grain@2", "joblib@2")
_BARS = ("splitpipe", "splitpipe@2", "inline", "bare", "memcpy-3", *_ALL[:3])
_TINY = (Metric("items_s", "items/s"),)

CASES = (
    _batch_case(
        "batch_9.6MB",
        "Batches of 64 x 224 x 224 x 3 uint8 (9.6 MB)",
        IMAGES,
        ("splitpipe", "splitpipe@2", *_ROWS, *_OWN, *_ALL[:3]),
        ("splitpipe-copy", "splitpipe-zmq", *_REST, *_TWO),
    ),
    _batch_case(
        "batch_1MB",
        "Token batches of 256 x 2048 uint16 (1 MB)",
        TOKENS,
        ("splitpipe", "inline", "spdl"),
        ("splitpipe-generator", "splitpipe-copy", "splitpipe-zmq", "memcpy", *_ALL[1:]),
    ),
    _batch_case(
        "batch_dict",
        "Batches that are dicts of images, labels, weights (4.8 MB)",
        DictWork(ArrayWork((32, 224, 224, 3), "uint8")),
        (),
        ("splitpipe", *_OWN, *_ALL),
    ),
    _batch_case(
        "batch_nested",
        "Batches that are dicts in a dict, with strings beside the arrays (4.8 MB)",
        NestedWork(ArrayWork((32, 224, 224, 3), "uint8")),
        _BARS,
        ("splitpipe-generator", "splitpipe-copy", "memcpy", *_REST),
    ),
    _batch_case(
        "batch_mixed",
        "Batches of 0.1 to 20 MB, sizes mixed",
        MixedWork(100_000, 20_000_000),
        _BARS,
        ("splitpipe-generator", "splitpipe-copy", "memcpy", *_REST),
    ),
    Case(
        "tiny",
        "1,000,000 tuples of two integers through one boundary",
        "pipeline",
        tiny,
        _TINY,
        "splitpipe",
        ("splitpipe", "inline"),
        ("splitpipe-zmq", "splitdataloader", "torch", "spdl", "zmq", "mpqueue"),
    ),
    Case(
        "chain",
        "1,000,000 tuples through three processes in a chain: generator, stage, consumer",
        "pipeline",
        partial(chain, hops=1),
        _TINY,
        "splitpipe",
        ("splitpipe", "inline"),
        ("splitpipe-zmq", "zmq", "mpqueue"),
    ),
    Case(
        "chain_4",
        "1,000,000 tuples through four processes in a chain: generator, two stages, consumer",
        "pipeline",
        partial(chain, hops=2),
        _TINY,
        "splitpipe",
        (),
        ("splitpipe", "zmq", "mpqueue"),
    ),
    Case(
        "ordered_map",
        "Ordered map of heavy-tailed work on two workers, share of the ideal",
        "pipeline",
        ordered_map,
        (Metric("percent", "% of ideal"),),
        "splitpipe@2",
        ("splitpipe@2",),
        ("joblib@2", "torch@2", "spdl@2", "torchdata@2", "grain@2"),
        rounds=5,
    ),
)
