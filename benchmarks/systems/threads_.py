"""Pipelines whose workers are threads: one function over many numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.base import Run

__all__ = [
    "ExecutorThreads",
    "InlineThreads",
    "SpdlThreads",
    "SpdlThreadsOrdered",
    "SplitpipeThreads",
]

AHEAD = 16
"""Items for each worker that may be under way, wherever a system wants to be told."""


class SplitpipeThreads:
    """``map(function, workers=n)`` with ``executor="thread"``."""

    ordered = True
    executor = "thread"

    def items(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        import splitpipe as sp

        pipe = sp.Pipeline(range(count)).map(function, workers=workers)
        return pipe.loader(executor=self.executor)


class InlineThreads(SplitpipeThreads):
    """The same in one thread: the consumer's."""

    executor = "inline"


class SpdlThreads:
    """Its usual form: a pool of threads, results as they come, or in their order.

    Args:
        order: ``"completion"`` or ``"input"``.
    """

    def __init__(self, order: str = "completion") -> None:
        self._order = order
        self.ordered = order == "input"

    def items(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        from spdl.pipeline import PipelineBuilder

        order: Any = self._order
        builder = PipelineBuilder().add_source(range(count))
        builder = builder.pipe(function, concurrency=workers, output_order=order)
        return _SpdlRun(builder.add_sink(AHEAD * workers).build(num_threads=workers))


class SpdlThreadsOrdered(SpdlThreads):
    """The same, in the order of the input."""

    def __init__(self) -> None:
        super().__init__("input")


class _SpdlRun:
    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        pipeline.start()

    def __iter__(self) -> Iterator[Any]:
        items: Iterator[Any] = iter(self._pipeline.get_iterator())
        return items

    def close(self) -> None:
        self._pipeline.stop()


class ExecutorThreads:
    """``concurrent.futures`` by hand: a window of futures, read in order."""

    ordered = True

    def items(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        return _ExecutorRun(function, count, workers)


class _ExecutorRun:
    def __init__(self, function: Callable[[int], Any], count: int, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._numbers = iter(range(count))
        self._function = function
        self._ahead = AHEAD * workers

    def __iter__(self) -> Iterator[Any]:
        submit, function = self._pool.submit, self._function
        futures = [submit(function, n) for _, n in zip(range(self._ahead), self._numbers)]
        futures.reverse()
        while futures:
            yield futures.pop().result()
            for number in self._numbers:
                futures.insert(0, submit(function, number))
                break

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
