"""grain: ``DataLoader`` over record numbers; arrays are copied to shared memory in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain

from benchmarks.base import BatchWork, Run, Unsupported

__all__ = ["GrainPipeline"]


class _Apply(grain.transforms.Map):  # type: ignore[misc]
    def __init__(self, function: Callable[[int], Any]) -> None:
        self._function = function

    def map(self, element: int) -> Any:
        return self._function(element)


class _Run:
    def __init__(
        self, function: Callable[[int], Any], count: int, workers: int, depth: int
    ) -> None:
        sampler = grain.samplers.IndexSampler(
            count, shard_options=grain.sharding.NoSharding(), shuffle=False, num_epochs=1
        )
        self._loader = grain.DataLoader(
            data_source=range(count),
            sampler=sampler,
            operations=[_Apply(function)],
            worker_count=workers,
            worker_buffer_size=depth,
            read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0),
        )
        self._iterator: Any = None

    def __iter__(self) -> Iterator[Any]:
        self._iterator = iter(self._loader)
        return self._iterator  # type: ignore[no-any-return]

    def close(self) -> None:
        # The loader's own iterator has no end before its epoch's; the one inside it has.
        inner = getattr(self._iterator, "_iterator", None)
        if hasattr(inner, "close"):
            inner.close()
        self._iterator = None


class GrainPipeline:
    """An array travels in shared memory that is new for each of them."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        return _Run(work.reusing(0).make, count, workers, 4)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        return _Run(function, count, workers, 32)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        raise Unsupported("its sources are read by index")

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("its sources are read by index")
