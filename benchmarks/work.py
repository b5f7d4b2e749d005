"""What the producers of the pipeline cases produce, and how the consumer proves it.

Responsible for: batches of arrays, of dicts, of mixed sizes; tiny tuples; items that burn a given
time; slow generators. Everything here is picklable, for children that are spawned.

Rules:
- making a batch is one memory copy and no more, so that moving it is what is measured: the rows are
  those of a few arrays, made once a process, and a batch is put together by copying them. Where a
  system lets its user build a batch in the memory that travels, that copy is the only one;
- every row carries its number in its first and in its last eight bytes, so that a stale, torn or
  swapped batch is seen, also in the rounds that are timed;
- a system that is done with a batch before it asks for the next one gets all of them in one array
  (`reuse` of 1), which stays in the cache. A system that pickles later, in a thread of its own,
  takes turns of several or gets new ones (`reuse` of 0), or it would deliver bytes of the future.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base import WrongResult

__all__ = [
    "ArrayWork",
    "Burn",
    "DictWork",
    "MixedWork",
    "Paced",
    "Timed",
    "add_one",
    "heavy_tail",
    "pairs",
    "spin_until",
]

SOURCES = 4
PAGE_NBYTES = 4096
Array = npt.NDArray[Any]
Empty = Callable[..., Array]
"""Memory for an array of a shape and a dtype, told what will be copied into it."""


class _Source:
    """One array of random bytes, and views of the places where its rows carry their numbers."""

    def __init__(self, shape: tuple[int, ...], dtype: str, rng: random.Random) -> None:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.array = np.frombuffer(bytearray(rng.randbytes(nbytes)), dtype).reshape(shape)
        self.rows = list(self.array)
        words = self.array.reshape(shape[0], -1).view(np.uint64)
        self.first = words[:, 0]
        self.last = words[:, -1]


@lru_cache(maxsize=4)
def _sources(shape: tuple[int, ...], dtype: str) -> list[_Source]:
    rng = random.Random(4)  # numpy's own takes 10 ms to import, in every process that is started
    return [_Source(shape, dtype, rng) for _ in range(SOURCES)]


def _check_stamp(row: Array, number: int) -> None:
    words = row.reshape(-1).view(np.uint64)
    if words[0] != number or words[-1] != number:
        raise WrongResult(f"row {number} carries the stamps {words[0]} and {words[-1]}")


def _touch(array: Array) -> int:
    """Read one element of every page, as a consumer that copies to a device would."""
    return int(array.reshape(-1)[:: PAGE_NBYTES // array.itemsize].sum(dtype=np.uint64))


@lru_cache(maxsize=16)
def _buffer(turn: int, shape: tuple[int, ...], dtype: str) -> Array:
    return np.empty(shape, dtype)


def _heap(shape: tuple[int, ...], dtype: str, near: Array | None = None) -> Array:
    return np.empty(shape, dtype)


def _again(turn: int, shape: tuple[int, ...], dtype: str, near: Array | None = None) -> Array:
    return _buffer(turn, shape, dtype)


def _memory(number: int, reuse: int) -> Empty:
    """What gives batch `number` its arrays: the heap, or one of `reuse` buffers in turn."""
    return partial(_again, number % reuse) if reuse else _heap


class _Reusing:
    """What all works share: where `make` puts a batch."""

    __slots__ = ()

    def reusing(self, count: int) -> Any:
        """The same work, but `make` takes turns of `count` arrays; 0 for a new one each time."""
        return replace(self, reuse=count)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class ArrayWork(_Reusing):
    """Batches that are one array each: `shape[0]` rows of `shape[1:]`."""

    shape: tuple[int, ...]
    dtype: str
    by_rows: bool = True
    reuse: int = 1

    @property
    def rows(self) -> int | None:
        """Rows in a batch, where it is worth the while to make it row by row."""
        return self.shape[0] if self.by_rows else None

    @property
    def nbytes(self) -> float:
        """Bytes of a batch."""
        return float(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch."""
        return int(self.nbytes)

    def row(self, number: int) -> Array:
        """Row `number` of the stream, as a view of an array that is used again later."""
        batch, index = divmod(number, self.shape[0])
        source = _sources(self.shape, self.dtype)[batch % SOURCES]
        source.first[index] = source.last[index] = number
        row: Array = source.rows[index]
        return row

    def make(self, number: int) -> Array:
        """Batch `number` whole, in an array that `reuse` says."""
        return self.fill(number, _memory(number, self.reuse))

    def fill(self, number: int, empty: Empty) -> Array:
        """Batch `number` in memory from `empty`."""
        source = self._expected(number)
        batch = empty(self.shape, self.dtype, source)
        np.copyto(batch, source)
        return batch

    def _expected(self, number: int) -> Array:
        count = self.shape[0]
        source = _sources(self.shape, self.dtype)[number % SOURCES]
        source.first[:] = source.last[:] = np.arange(number * count, (number + 1) * count)
        return source.array

    def touch(self, batch: Array, number: int) -> int:
        """Read every page and check the first and the last row."""
        _check_stamp(batch[0], number * self.shape[0])
        _check_stamp(batch[-1], number * self.shape[0] + self.shape[0] - 1)
        return _touch(batch)

    def check(self, batch: Any, number: int) -> None:
        """Compare every byte with what was to come."""
        if batch.shape != self.shape or batch.dtype != np.dtype(self.dtype):
            raise WrongResult(f"batch {number} is {batch.dtype}{batch.shape}")
        if not np.array_equal(batch, self._expected(number)):
            raise WrongResult(f"batch {number} differs from what was produced")


@dataclass(frozen=True, slots=True)
class DictWork(_Reusing):
    """Batches that are dicts: images, labels and weights, about `images` in bytes."""

    images: ArrayWork
    reuse: int = 1

    @property
    def rows(self) -> int | None:
        """Rows in a batch."""
        return self.images.rows

    @property
    def nbytes(self) -> float:
        """Bytes of a batch."""
        return self.images.nbytes + 12.0 * self.images.shape[0]

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch."""
        return int(self.nbytes)

    def row(self, number: int) -> dict[str, Any]:
        """One row, as a dict of one image and two numbers."""
        return {
            "image": self.images.row(number),
            "label": np.int64(number),
            "weight": np.float32(number % 7),
        }

    def fill(self, number: int, empty: Empty) -> dict[str, Array]:
        """Batch `number` in memory from `empty`."""
        count = self.images.shape[0]
        batch = {
            "image": self.images.fill(number, empty),
            "label": empty((count,), "int64"),
            "weight": empty((count,), "float32"),
        }
        batch["label"][:] = np.arange(number * count, (number + 1) * count)
        batch["weight"][:] = batch["label"] % 7
        return batch

    def make(self, number: int) -> dict[str, Array]:
        """Batch `number` whole, in arrays that `reuse` says."""
        return self.fill(number, _memory(number, self.reuse))

    def touch(self, batch: dict[str, Array], number: int) -> int:
        """Read every page, check the stamps and the labels."""
        count = self.images.shape[0]
        if batch["label"][0] != number * count or batch["label"][-1] != (number + 1) * count - 1:
            raise WrongResult(f"batch {number} has the labels of another")
        return self.images.touch(batch["image"], number) + int(batch["weight"].sum())

    def check(self, batch: Any, number: int) -> None:
        """Compare every byte with what was to come."""
        for key, array in self.fill(number, _heap).items():
            if batch[key].dtype != array.dtype or not np.array_equal(batch[key], array):
                raise WrongResult(f"{key} of batch {number} differs from what was produced")


@dataclass(frozen=True, slots=True)
class MixedWork(_Reusing):
    """Batches of one flat array each, of sizes spread evenly on a log scale."""

    low_nbytes: int
    high_nbytes: int
    reuse: int = 1
    rows: int | None = None

    def size(self, number: int) -> int:
        """Bytes of batch `number`."""
        # Multiples of the golden ratio visit a range evenly without repeating.
        share = number * 0.6180339887498949 % 1.0
        return int(self.low_nbytes * (self.high_nbytes / self.low_nbytes) ** share) // 8 * 8

    @property
    def nbytes(self) -> float:
        """Bytes of a batch, on average."""
        return sum(self.size(number) for number in range(1000)) / 1000

    @property
    def max_nbytes(self) -> int:
        """Bytes of the largest batch."""
        return self.high_nbytes

    def make(self, number: int) -> Array:
        """Batch `number` whole, in an array that `reuse` says."""
        size = self.size(number)
        if self.reuse == 0:
            return self.fill(number, _heap)
        whole = _memory(number, self.reuse)((self.high_nbytes,), "uint8")
        return self.fill(number, lambda *_: whole[:size])

    def fill(self, number: int, empty: Empty) -> Array:
        """Batch `number` in memory from `empty`."""
        source = self._expected(number)
        batch = empty((self.size(number),), "uint8", source)
        np.copyto(batch, source)
        return batch

    def _expected(self, number: int) -> Array:
        source = _sources((1, self.high_nbytes), "uint8")[number % SOURCES]
        batch: Array = source.rows[0][: self.size(number)]
        words = batch.view(np.uint64)
        words[0] = words[-1] = number
        return batch

    def row(self, number: int) -> Any:
        """There are no rows in batches of unequal size."""
        raise TypeError("batches of mixed size have no rows")

    def touch(self, batch: Array, number: int) -> int:
        """Read every page, check both stamps and the size."""
        if batch.size != self.size(number):
            raise WrongResult(f"batch {number} has {batch.size} bytes")
        _check_stamp(batch, number)
        return _touch(batch)

    def check(self, batch: Any, number: int) -> None:
        """Check the ends and a piece of the middle (the stamps of other sizes lie in between)."""
        self.touch(batch, number)
        middle = slice(8, self.low_nbytes // 2)
        if not np.array_equal(batch[middle], self._expected(number)[middle]):
            raise WrongResult(f"batch {number} differs from what was produced")


def pairs(count: int) -> Iterator[tuple[int, int]]:
    """Tiny tuples, as fast as a generator can."""
    for number in range(count):
        yield (number, number + 1)


def add_one(items: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The middle of a chain: a free generator with next to nothing to do."""
    for first, second in items:
        yield (first, second + 1)


@lru_cache(maxsize=4)
def heavy_tail(count: int, seed: int) -> tuple[float, ...]:
    """Costs in seconds: Pareto of exponent 1.3 from 0.4 ms on, cut at 40 ms."""
    rng = np.random.default_rng([seed, 5])
    return tuple(np.minimum(0.0004 * (1.0 + rng.pareto(1.3, count)), 0.04).tolist())


@dataclass(frozen=True, slots=True)
class Burn:
    """A function of a number that uses up the cost of that item on its thread's processor.

    The first `warm` numbers cost nothing: they bring every worker to life.
    """

    count: int
    seed: int
    warm: int

    def __call__(self, number: int) -> int:
        """Use up the time and give the number of the item back; -1 for a warming one."""
        item = number - self.warm
        if item < 0:
            return -1
        stop = time.thread_time() + heavy_tail(self.count, self.seed)[item]
        while time.thread_time() < stop:
            pass
        return item


def spin_until(moment: float) -> None:
    """Wait on `time.perf_counter` without giving the processor away: exact to a microsecond."""
    while time.perf_counter() < moment:
        pass


@dataclass(frozen=True, slots=True)
class Timed(_Reusing):
    """A batch work whose every batch takes `cost_s` to make, the copy included."""

    work: ArrayWork
    cost_s: float
    reuse: int = 1
    rows: int | None = None

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch."""
        return self.work.max_nbytes

    def make(self, number: int) -> Array:
        """Batch `number`, ready when its time is up."""
        return self.fill(number, _memory(number, self.reuse))

    def fill(self, number: int, empty: Empty) -> Array:
        """Batch `number` in memory from `empty`, ready when its time is up."""
        stop = time.perf_counter() + self.cost_s
        batch = self.work.fill(number, empty)
        spin_until(stop)
        return batch

    def row(self, number: int) -> Any:
        """A timed batch is made whole."""
        raise TypeError("a timed batch has no rows")


@dataclass(frozen=True, slots=True)
class Paced:
    """A generator of (kind, moment) after bursts: fast items first, then slow ones.

    After a burst that teaches a chunking system to use long chunks, items come `pause_s` apart;
    `moment` is the system-wide monotonic clock when the item was ready.
    """

    burst: int
    slow: int
    pause_s: float

    def __call__(self, count: int) -> Iterator[tuple[str, int]]:
        """`count` repetitions of a burst and a slow stretch."""
        for _ in range(count):
            for number in range(self.burst):
                last = number == self.burst - 1
                yield ("last of burst" if last else "burst", time.monotonic_ns())
            for _ in range(self.slow):
                time.sleep(self.pause_s)
                yield ("slow", time.monotonic_ns())
