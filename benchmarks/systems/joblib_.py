"""joblib: ``Parallel(return_as="generator")`` over loky's processes, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import joblib

from benchmarks.base import BatchWork, Run, Unsupported

__all__ = ["JoblibPipeline"]


class _Run:
    def __init__(self, function: Callable[[int], Any], count: int, workers: int) -> None:
        self._function, self._count = function, count
        self._parallel = joblib.Parallel(n_jobs=workers, return_as="generator", backend="loky")

    def __iter__(self) -> Iterator[Any]:
        calls = (joblib.delayed(self._function)(number) for number in range(self._count))
        yield from self._parallel(calls)

    def close(self) -> None:
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


class JoblibPipeline:
    """With one worker it computes in the consumer's process: only several say something."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        return self.map(work.reusing(0).make, count, workers=workers)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        if workers < 2:
            raise Unsupported("one job runs in the process that asks for it")
        return _Run(function, count, workers)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        raise Unsupported("jobs are functions")

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("jobs are functions")
