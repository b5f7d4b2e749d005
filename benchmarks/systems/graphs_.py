"""Graphs: chains of batches, sources that are mixed, work that is shared, random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count as numbers_from
from typing import Any, ClassVar

import numpy as np

from benchmarks.base import Run, Unsupported
from benchmarks.work import ArrayWork

__all__ = [
    "GrainGraphs",
    "InlineGraphs",
    "MpQueueGraphs",
    "PythonGraphs",
    "SplitpipeGraphs",
    "SplitpipeZmqGraphs",
    "TorchdataGraphs",
    "ZmqGraphs",
]

SEED = 3


def _passed_on(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield item
        del item


def _filled(numbers: Iterable[int], work: ArrayWork) -> Iterator[Any]:
    import splitpipe as sp

    def empty(shape: tuple[int, ...], dtype: str, near: Any = None) -> Any:
        return sp.empty(shape, dtype, near=near)

    for number in numbers:
        yield work.fill(number, empty)


def _item(number: int, source: int) -> tuple[int, int]:
    return source, number


def _half(number: int) -> tuple[int, float]:
    return number, number / 2


def _drawn(number: int, rng: np.random.Generator) -> tuple[int, float]:
    return number, rng.random()


def _negated(number: int) -> int:
    return -number


class _Lazy:
    """A run that is started when it is iterated; everything it started ends with `close`."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._loader: Any = None

    def __iter__(self) -> Iterator[Any]:
        self._loader = self._start()
        return iter(self._loader)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()

    def stats(self) -> Any:
        """What the loader says of itself."""
        return self._loader.stats()


class _Chain(_Lazy):
    """The run of a chain, which knows what crossed each boundary."""

    def sent_nbytes(self) -> list[int]:
        """Bytes that each process has sent."""
        return [task.nbytes for task in self.stats()[:-1]]


class SplitpipeGraphs:
    """One process for every stage that is said to have one."""

    options: ClassVar[Mapping[str, Any]] = {}
    workers = 1

    def chain(self, work: ArrayWork, count: int, *, hops: int) -> Run:
        import splitpipe as sp

        pipe = sp.Pipeline(range(count)).through(_filled, work, workers=1)
        for _ in range(hops):
            pipe = pipe.through(_passed_on, workers=1)
        return _Chain(partial(pipe.loader, **self.options))

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        import splitpipe as sp

        inputs = [
            sp.Pipeline(range(count), seed=SEED).map(partial(_item, source=source))
            for source in range(len(weights))
        ]
        mixed = sp.mix(inputs, weights, workers=self.workers)
        return _Lazy(partial(mixed.loader, **self.options))

    def branches(
        self, function: Callable[[int], int], count: int, *, size: int, apart: bool
    ) -> Mapping[str, Run]:
        import splitpipe as sp

        shared = sp.Pipeline(range(count)).map(function, workers=self.workers)
        outputs = {"train": shared.batch(size), "eval": shared.map(_negated)}
        if apart:
            return {
                name: _Lazy(partial(pipe.loader, **self.options)) for name, pipe in outputs.items()
            }
        return sp.run(outputs, **self.options)

    def workers_s(self, run: Any) -> float:
        return float(sum(task.cpu_s for task in run.stats()[:-1]))

    def randoms(self, count: int, *, random: bool) -> Run:
        import splitpipe as sp

        pipe = sp.Pipeline(range(count), seed=SEED)
        function: Callable[..., tuple[int, float]] = _drawn if random else _half
        made = pipe.map(function, workers=self.workers)
        return _Lazy(partial(made.loader, **self.options))


class SplitpipeZmqGraphs(SplitpipeGraphs):
    """The same over ZeroMQ."""

    options: ClassVar[Mapping[str, Any]] = {"transport": "zmq"}


class InlineGraphs(SplitpipeGraphs):
    """The same in this process."""

    options: ClassVar[Mapping[str, Any]] = {"executor": "inline"}


class _Makes:
    """What a peer's first process runs: new arrays, since it sends them in a thread of its own."""

    def __init__(self, work: ArrayWork) -> None:
        self._work = work.reusing(0)

    def __call__(self, count: int) -> Iterator[Any]:
        return map(self._work.make, range(count))


class _Others:
    """What a system does that has chains alone."""

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        raise Unsupported("it mixes nothing")

    def branches(self, function: Any, count: int, *, size: int, apart: bool) -> Mapping[str, Run]:
        raise Unsupported("it has no branches")

    def workers_s(self, run: Any) -> float:
        raise Unsupported("it has no branches")

    def randoms(self, count: int, *, random: bool) -> Run:
        raise Unsupported("it knows nothing of random numbers")


class MpQueueGraphs(_Others):
    """A queue between any two processes."""

    def chain(self, work: ArrayWork, count: int, *, hops: int) -> Run:
        from benchmarks.systems.mpqueue_ import MpQueuePipeline

        return MpQueuePipeline().chain(_Makes(work), count, _passed_on, hops)


class ZmqGraphs(_Others):
    """A socket between any two processes."""

    def chain(self, work: ArrayWork, count: int, *, hops: int) -> Run:
        from benchmarks.systems.zmq_ import ZmqPipeline

        return ZmqPipeline().chain(_Makes(work), count, _passed_on, hops)


class _Here:
    """A run in this process."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def close(self) -> None:
        """Nothing runs."""


class _Rest(_Others):
    """What a system does that has no chains of processes."""

    def chain(self, work: ArrayWork, count: int, *, hops: int) -> Run:
        raise Unsupported("it has no chain of processes")


class PythonGraphs(_Rest):
    """As one writes it by hand, in one loop."""

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        return _Here(_mixed_by_hand(count, weights))

    def randoms(self, count: int, *, random: bool) -> Run:
        """A generator for each item, of seed and number, as reproducible programs have it."""
        if not random:
            return _Here(map(_half, range(count)))
        return _Here(_drawn(n, np.random.default_rng([SEED, n])) for n in range(count))


def _mixed_by_hand(count: int, weights: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Choices drawn a thousand at a time."""
    rng = np.random.default_rng(SEED)
    sources = [iter(zip([source] * count, range(count))) for source in range(len(weights))]
    shares = np.array(weights) / sum(weights)
    for _ in numbers_from():
        for chosen in rng.choice(len(weights), 1024, p=shares).tolist():
            item = next(sources[chosen], None)
            if item is None:
                return
            yield item


class TorchdataGraphs(_Rest):
    """``MultiNodeWeightedSampler`` over a node for each source."""

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        from torchdata.nodes import IterableWrapper, Loader, MultiNodeWeightedSampler

        nodes = {
            str(source): IterableWrapper([(source, number) for number in range(count)])
            for source in range(len(weights))
        }
        shares = {str(source): weight for source, weight in enumerate(weights)}
        node = MultiNodeWeightedSampler(
            nodes, shares, stop_criteria="FIRST_DATASET_EXHAUSTED", seed=SEED
        )
        return _Here(Loader(node))


class GrainGraphs(_Rest):
    """``MapDataset.mix``, read as an iterator; its choice follows the weights without chance."""

    def mixed(self, count: int, weights: Sequence[float]) -> Run:
        import grain

        sources = [
            grain.MapDataset.range(count).map(partial(_item, source=source))
            for source in range(len(weights))
        ]
        mixed = grain.MapDataset.mix(sources, weights=list(weights))
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        return _Here(mixed.to_iter_dataset(options))
