"""The bound: bytes copied by numpy in this process, with nothing in between."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base import BatchesAlone, BatchWork, Run, Unsupported

__all__ = ["MemcpyPipeline", "MemcpyStorage"]

BINS = 64


class _Reader:
    def __init__(self, directory: Path) -> None:
        with np.load(directory / "index.npz") as index:
            self._places: list[tuple[int, int, int]] = list(
                zip(
                    index["bins"].tolist(),
                    index["starts"].tolist(),
                    index["stops"].tolist(),
                    strict=True,
                )
            )
        self._bins = []
        for number in range(BINS):
            with open(directory / f"{number}.bin", "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bins.append(np.frombuffer(mapped, np.uint8))
        longest = max(stop - start for _, start, stop in self._places)
        self._buffer = np.empty(longest, np.uint8)

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        buffer, bins, places = self._buffer, self._bins, self._places
        for index in indices:
            number, start, stop = places[index]
            out = buffer[: stop - start]
            np.copyto(out, bins[number][start:stop])
            yield out

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        raise Unsupported("one buffer holds one record")

    def sequential(self) -> Iterator[Any]:
        return self.each(sorted(range(len(self._places)), key=self._places.__getitem__))

    def shuffled(self, seed: int) -> Iterator[Any]:
        """Bins in random order, and the records of each bin in random order."""
        rng = np.random.default_rng(seed)
        numbers = np.array([place[0] for place in self._places])
        order = [rng.permutation(np.flatnonzero(numbers == b)) for b in rng.permutation(BINS)]
        return self.each(np.concatenate(order).tolist())

    def close(self) -> None:
        self._bins.clear()


class MemcpyStorage:
    """Bins of bare bytes; a record is copied into one buffer that is used again."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Deal the records to the bins in turn."""
        ends = [0] * BINS
        places = []
        for index, record in enumerate(records):
            number = index % BINS
            places.append((number, ends[number], ends[number] + len(record)))
            ends[number] += len(record)
        for number in range(BINS):
            # An empty file cannot be mapped.
            data = b"".join(records[number::BINS]) or b"\0"
            (directory / f"{number}.bin").write_bytes(data)
        bins, starts, stops = np.array(places).T
        np.savez(directory / "index.npz", bins=bins, starts=starts, stops=stops)

    def open(self, directory: Path) -> _Reader:
        """Map every bin."""
        return _Reader(directory)


class _Run:
    def __init__(self, work: BatchWork, count: int, turns: int) -> None:
        self._work, self._count, self._turns = work, count, turns
        self._turn = 0
        self._buffers: dict[tuple[int, str], Any] = {}

    def __iter__(self) -> Iterator[Any]:
        for number in range(self._count):
            self._turn = number % self._turns
            yield self._work.fill(number, self._again)

    def _again(self, shape: tuple[int, ...], dtype: str, near: Any = None) -> Any:
        """The same memory for every array of a type: a batch has one array of each."""
        count, key = math.prod(shape), (self._turn, dtype)
        if key not in self._buffers or self._buffers[key].size < count:
            self._buffers[key] = np.empty(count, dtype)
        return self._buffers[key][:count].reshape(shape)

    def close(self) -> None:
        self._buffers.clear()


class MemcpyPipeline(BatchesAlone):
    """Each batch is copied into the same arrays and looked at in the same process.

    Args:
        turns: How many batches have memory of their own before the first one's is used again. Where
            two processes work at the same time it is three: one is read, one is on its way, one is
            written.
    """

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        return _Run(work, count, self._turns)
