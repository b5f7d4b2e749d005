"""torchdata's ``nodes``: an ordered ``ParallelMapper`` on processes behind a ``Loader``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

from benchmarks.base import BatchWork, Run, Unsupported
from benchmarks.systems.torch_ import _arrays, _tensors

__all__ = ["TorchdataPipeline"]


class _Run:
    def __init__(
        self, function: Callable[[int], Any], count: int, workers: int, *, tensors: bool
    ) -> None:
        node = ParallelMapper(
            IterableWrapper(range(count)),
            function,
            num_workers=workers,
            in_order=True,
            method="process",
            multiprocessing_context="fork",
        )
        self._loader = Loader(node)
        self._node = node
        self._tensors = tensors

    def __iter__(self) -> Iterator[Any]:
        for item in self._loader:
            yield _arrays(item) if self._tensors else item

    def close(self) -> None:
        iterator = getattr(getattr(self._node, "_it", None), "_it", None)
        if iterator is not None:
            iterator._shutdown()


class _AsTensors:
    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __call__(self, number: int) -> Any:
        return _tensors(self._make(number))


class TorchdataPipeline:
    """Everything goes through a mapper; it has no stage that is a generator of its own."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        function = _AsTensors(work.reusing(0).make)
        return _Run(function, count, workers, tensors=True)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        return _Run(function, count, workers, tensors=False)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        raise Unsupported("a process node maps items, it does not make them")

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("a process node maps items, it does not make them")
