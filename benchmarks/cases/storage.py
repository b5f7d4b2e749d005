"""Records at rest: writing, opening and reading three shapes of data, page cache warm.

Rules: the dataset is written once for each system and checked whole (every record, byte for byte,
through every way of reading) before the first figure; the timed loops still count records and
bytes, so that a short or a padded epoch is an error and not a record.
"""

from __future__ import annotations

import os
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base import (
    Case,
    Context,
    Metric,
    Metrics,
    StorageReader,
    StorageSystem,
    Unsupported,
    WrongResult,
)
from benchmarks.data import Records, binary_records, text_records, token_records

__all__ = ["CASES", "disk_usage", "written"]

BATCH = 256


def disk_usage(directory: Path) -> int:
    """Bytes of all files below `directory`: what is stored, holes not counted."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sum(min(path.stat().st_size, path.stat().st_blocks * 512) for path in files)


def written(system: StorageSystem, records: Records, directory: Path) -> float:
    """Write into an empty `directory`; seconds from the first call to a durable end."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    data = list(records)
    begin = time.perf_counter()
    system.write(directory, data)
    return time.perf_counter() - begin


def _drained(stream: Iterable[Any], nbytes: int) -> float:
    """Seconds to take everything out of `stream`, which must hold `nbytes` in all."""
    total = 0
    begin = time.perf_counter()
    for record in stream:
        total += len(record)
    seconds = time.perf_counter() - begin
    return _counted(seconds, total, nbytes)


def _in_batches(reader: StorageReader, indices: list[int], nbytes: int) -> float:
    """Seconds to get all `indices` in batches."""
    total = 0
    begin = time.perf_counter()
    for start in range(0, len(indices), BATCH):
        total += sum(map(len, reader.get_batch(indices[start : start + BATCH])))
    seconds = time.perf_counter() - begin
    return _counted(seconds, total, nbytes)


def _counted(seconds: float, total: int, nbytes: int) -> float:
    if total != nbytes:
        raise WrongResult(f"{total} bytes came, not {nbytes}")
    return seconds


def _supported(measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except Unsupported:
        return None


def _numbers(
    read: Callable[[Sequence[int]], Iterable[Any]], records: Records, some: list[int]
) -> list[int]:
    return [records.number(record) for record in read(some)]


def _check(reader: StorageReader, records: Records, some: list[int]) -> None:
    """Every way of reading gives the records that were written."""
    for read in (reader.each, reader.get_batch):
        got = _supported(partial(_numbers, read, records, some))
        if got is not None and got != some:
            raise WrongResult("records came in another order than they were asked for")
    _supported(lambda: records.check_all(reader.sequential()))
    order = _supported(lambda: records.check_all(reader.shuffled(1)))
    if order is not None and len(order) > 100 and order == sorted(order):
        raise WrongResult("the shuffled epoch is not shuffled")


def _reading(system: StorageSystem, context: Context, records: Records) -> Iterator[Metrics]:
    """Write and check, then read the same dataset in four ways each round."""
    directory = context.directory / "data"
    write_s = written(system, records, directory)
    reader = system.open(directory)
    rng = np.random.default_rng([context.seed, 6])
    count, nbytes = len(records), records.nbytes
    some = rng.integers(0, count, min(count, 20_000)).tolist()
    probe = time.perf_counter()
    _check(reader, records, some)
    yield {
        "records": count,
        "bytes": nbytes,
        "write_s": write_s,
        "overhead_bytes_per_record": (disk_usage(directory) - nbytes) / count,
        "check_s": time.perf_counter() - probe,
    }
    reads = _affordable(reader, records, some[:BATCH])
    try:
        seed = 1
        while True:
            seed += 1
            wanted = rng.integers(0, count, reads).tolist()
            yield _read_round(reader, records, wanted, seed)
    finally:
        reader.close()


def _affordable(reader: StorageReader, records: Records, some: list[int]) -> int:
    """How many single reads take about a third of a second."""
    nbytes = records.nbytes_of(some)
    seconds = _supported(lambda: _drained(reader.each(some), nbytes))
    if seconds is None:
        seconds = _supported(lambda: _in_batches(reader, some, nbytes)) or 1.0
    reads = int(0.35 * len(some) / seconds) // BATCH * BATCH
    return max(BATCH, min(reads, 400_000))


def _read_round(
    reader: StorageReader, records: Records, wanted: list[int], seed: int
) -> dict[str, float]:
    some, all_ = records.nbytes_of(wanted), records.nbytes
    measures: list[tuple[str, Callable[[], float], int, int]] = [
        ("get", lambda: _drained(reader.each(wanted), some), len(wanted), some),
        ("batch", lambda: _in_batches(reader, wanted, some), len(wanted), some),
        ("sequential", lambda: _drained(reader.sequential(), all_), len(records), all_),
        ("shuffled", lambda: _drained(reader.shuffled(seed), all_), len(records), all_),
    ]
    metrics: dict[str, float] = {}
    for name, measure, items, nbytes in measures:
        seconds = _supported(measure)
        if seconds is not None:
            metrics[f"{name}_rec_s"] = items / seconds
            metrics[f"{name}_gb_s"] = nbytes / seconds / 1e9
    return metrics


def _w1(context: Context) -> Records:
    return text_records(context.pick(full=1_000_000, quick=100_000, tiny=500), context.seed)


def _w2(context: Context) -> Records:
    count = context.pick(full=20_000, quick=2_000, tiny=60)
    return binary_records(count, context.seed, low=12 << 10, high=150 << 10)


def _w3(context: Context) -> Records:
    return token_records(context.pick(full=200_000, quick=20_000, tiny=300), context.seed)


def read_text(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """W1: many short records."""
    return _reading(system, context, _w1(context))


def read_binary(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """W2: fewer, large, incompressible records."""
    return _reading(system, context, _w2(context))


def read_tokens(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """W3: rows of one length."""
    return _reading(system, context, _w3(context))


def write_text(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """W1 written into a new directory each round, from a list in memory, to a durable end."""
    records = _w1(context)
    directory = context.directory / "data"
    written(system, records, directory)
    reader = system.open(directory)
    try:
        _supported(lambda: records.check_all(reader.sequential()))
    finally:
        reader.close()
    yield {"records": len(records), "bytes": records.nbytes}
    while True:
        seconds = written(system, records, directory)
        overhead = (disk_usage(directory) - records.nbytes) / len(records)
        yield {"write_s": seconds, "overhead_bytes": overhead}


def _private_kib() -> int:
    """Memory of this process that no other one shares, and that no file backs."""
    total = 0
    with open("/proc/self/smaps_rollup") as lines:
        for line in lines:
            if line.startswith(("Private_Dirty:", "Anonymous:")):
                total = max(total, int(line.split()[1]))
    return total


def open_many(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """Open a dataset of 10 million records in a process that has never opened one."""
    count = context.pick(full=10_000_000, quick=500_000, tiny=2_000)
    directory = context.directory / "data"
    if not (context.directory / "complete").exists():
        directory.mkdir(parents=True, exist_ok=True)
        system.write(directory, _Numbers(range(count)))
        (context.directory / "complete").touch()
    wanted = [0, count - 1, count // 2]
    yield {"records": count, "overhead_bytes_per_record": disk_usage(directory) / count - 4}
    system.open(_tiny_dataset(system, context.directory / "first")).close()
    before = _private_kib()
    begin = time.perf_counter()
    reader = system.open(directory)
    open_s = time.perf_counter() - begin
    first = list(reader.each(wanted))
    first_s = time.perf_counter() - begin
    private = _private_kib() - before
    if [int.from_bytes(record, "little") for record in first] != wanted:
        raise WrongResult("a record of the large dataset differs from what was written")
    reader.close()
    tracemalloc.start()
    reader = system.open(directory)
    heap = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    yield {
        "open_ms": open_s * 1e3,
        "first_records_ms": first_s * 1e3,
        "heap_mb": heap / 1e6,
        "private_mb": max(private, 0) / 1024,
    }


class _Numbers(Sequence[bytes]):
    """Ten million records of four bytes that are not held in memory."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self._numbers[index]
        return _Numbers(found) if isinstance(found, range) else found.to_bytes(4, "little")

    def __iter__(self) -> Iterator[bytes]:
        return (number.to_bytes(4, "little") for number in self._numbers)


def _tiny_dataset(system: StorageSystem, directory: Path) -> Path:
    """A dataset of a few records: opening it pays for imports, which are measured elsewhere."""
    if not directory.exists():
        directory.mkdir()
        system.write(directory, [os.urandom(4) for _ in range(100)])
    return directory


_READ_METRICS = (
    Metric("get_rec_s", "rec/s"),
    Metric("batch_rec_s", "rec/s"),
    Metric("sequential_rec_s", "rec/s"),
    Metric("shuffled_rec_s", "rec/s"),
    Metric("shuffled_gb_s", "GB/s"),
)
_PEERS = (
    "inline",
    "sqlite",
    "data_forager",
    "mds",
    "litdata",
    "array_record",
    "webdataset",
)

CASES = (
    Case(
        "w1_read",
        "W1: reading 1,000,000 text records of 100-300 bytes",
        "storage",
        read_text,
        _READ_METRICS,
        "lmdb",
        ("splitpipe", "lmdb", "splitdataloader", "datasets", "arrow"),
        _PEERS,
    ),
    Case(
        "w1_write",
        "W1: writing it, with one durable commit",
        "storage",
        write_text,
        (Metric("write_s", "s", False), Metric("overhead_bytes", "B/rec", False)),
        "lmdb",
        ("splitpipe", "lmdb"),
        ("sqlite", "datasets", "data_forager", "array_record"),
        rounds=5,
    ),
    Case(
        "open_10m",
        "Opening 10,000,000 records in a fresh process",
        "storage",
        open_many,
        (
            Metric("open_ms", "ms", False),
            Metric("first_records_ms", "ms", False),
            Metric("heap_mb", "MB", False),
            Metric("private_mb", "MB", False),
        ),
        "splitpipe",
        ("splitpipe",),
        ("lmdb", "array_record"),
        fresh=True,
    ),
    Case(
        "w2_read",
        "W2: reading 20,000 incompressible records of 12-150 KiB",
        "storage",
        read_binary,
        _READ_METRICS,
        "memcpy",
        ("splitpipe", "memcpy"),
        ("inline", "lmdb", "splitdataloader", "sqlite", "mds", "array_record"),
    ),
    Case(
        "w3_read",
        "W3: reading 200,000 rows of 2048 uint16",
        "storage",
        read_tokens,
        _READ_METRICS,
        "lmdb",
        ("splitpipe", "lmdb"),
        ("memcpy", "splitdataloader", "sqlite", "datasets", "array_record"),
    ),
)
