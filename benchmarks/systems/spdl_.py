"""spdl: a subprocess that iterates, its arrays in a pool of shared-memory segments.

The pool (``SharedMemorySegmentPool``) copies an array once, into a whole segment, and gives it
back as a view: the strongest peer for large batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from spdl.pipeline import PipelineBuilder, SharedMemorySegmentPool, iterate_in_subprocess

from benchmarks.base import BatchWork, Run, Unsupported

__all__ = ["SpdlPipeline"]

SEGMENTS = 8
BUFFER = 4
SLACK_NBYTES = 1 << 16


class _Repeatable:
    """An iterable that starts anew at every ``iter``, made in the child."""

    def __init__(self, function: Callable[[int], Any], numbers: range) -> None:
        self._function, self._numbers = function, numbers

    def __iter__(self) -> Iterator[Any]:
        return map(self._function, self._numbers)


class _Generated:
    def __init__(self, generate: Callable[[int], Iterable[Any]], count: int) -> None:
        self._generate, self._count = generate, count

    def __iter__(self) -> Iterator[Any]:
        return iter(self._generate(self._count))


class _Run:
    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Any]:
        """Take from the parts in turn until each has ended."""
        running = [iter(part) for part in self._parts]
        while running:
            for part in list(running):
                try:
                    item = next(part)
                except StopIteration:
                    running.remove(part)
                else:
                    yield item
                    del item

    def close(self) -> None:
        for part in self._parts:
            part._shutdown()


class _Built:
    """A pipeline that is built for each epoch, over an executor that stays."""

    def __init__(self, function: Callable[[int], Any], count: int, workers: int) -> None:
        self._function, self._count, self._workers = function, count, workers
        self._executor = ProcessPoolExecutor(workers)

    def __iter__(self) -> Iterator[Any]:
        pipeline = (
            PipelineBuilder()
            .add_source(range(self._count))
            .pipe(
                self._function,
                executor=self._executor,
                concurrency=16 * self._workers,
                output_order="input",
            )
            .add_sink(16 * self._workers)
            .build(num_threads=1)
        )
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    def close(self) -> None:
        self._executor.shutdown()


class SpdlPipeline:
    """Batches through the segment pool, anything else through its queue."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        parts = []
        nbytes = work.max_nbytes + SLACK_NBYTES
        for worker in range(workers):
            numbers = range(worker, count, workers)
            pool = SharedMemorySegmentPool(segment_size=nbytes, count=SEGMENTS)
            make = partial(_Repeatable, work.make, numbers)
            parts.append(iterate_in_subprocess(make, buffer_size=BUFFER, arena=pool))
        return _Run(parts)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        return _Built(function, count, workers)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        return _Run([iterate_in_subprocess(partial(_Generated, generate, count), buffer_size=64)])

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("its subprocess iterates one iterable")
