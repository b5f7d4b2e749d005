"""splitdataloader: bins of size-prefixed records with an index file, and ``MpQItr``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from splitdataloader import MpQItr, SplitDataLoader, write_split_data

from benchmarks.base import BatchWork, Run, Unsupported

__all__ = ["SplitDataLoaderPipeline", "SplitDataLoaderStorage"]


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._loader = SplitDataLoader(str(directory))

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        loader = self._loader
        for index in indices:
            yield loader[index]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        loader = self._loader
        return [loader[index] for index in indices]

    def sequential(self) -> Iterator[Any]:
        return iter(self._loader.iterate_binwise(shuffle=False))

    def shuffled(self, seed: int) -> Iterator[Any]:
        random.seed(seed)
        return iter(self._loader.iterate_binwise(shuffle=True))

    def close(self) -> None:
        """It keeps nothing open."""


class SplitDataLoaderStorage:
    """``write_split_data`` with as many bins as the others have; it never syncs."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Opens a file for every record."""
        write_split_data(str(directory), records, splits=64)

    def open(self, directory: Path) -> _Reader:
        """Opens files at every access."""
        return _Reader(directory)


def _each(function: Callable[[int], Any], numbers: range) -> Iterator[Any]:
    return (function(number) for number in numbers)


class _Run:
    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Any]:
        """Take from the parts in turn until each has ended."""
        running = [iter(part) for part in self._parts]
        while running:
            for part in list(running):
                try:
                    yield next(part)
                except StopIteration:
                    running.remove(part)

    def close(self) -> None:
        for part in self._parts:
            process = getattr(part, "proc", None)
            if process is not None and process.is_alive():
                process.terminate()
                process.join()


class SplitDataLoaderPipeline:
    """One ``MpQItr`` a worker; what a chain needs, a child with children, it refuses."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        # Its queue pickles in a thread of its own, later than the generator goes on.
        return self.map(work.reusing(0).make, count, workers=workers)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        ranges = [range(worker, count, workers) for worker in range(workers)]
        return _Run([MpQItr(_each, function, numbers) for numbers in ranges])

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        return _Run([MpQItr(partial(generate, count))])

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("its children are daemons, which may have no children")
