"""Records on a disk whose pages the system has forgotten.

Rules: only the files of this benchmark are dropped from the page cache (written out first, since
only clean pages can be dropped), and that they are gone is checked by reads that refuse to wait
(RWF_NOWAIT). The disk's own rate is taken in the same run, by the system named ``disk``, which
reads the same amount of bytes from front to back.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

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
from benchmarks.cases.storage import written
from benchmarks.data import binary_records

__all__ = ["CASES"]

BATCH = 256
PAGE_NBYTES = 4096
PROBES = 64


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def forget(directory: Path) -> None:
    """Drop the pages of every file below `directory`."""
    for path in _files(directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(directory: Path, rng: np.random.Generator) -> float:
    """Share of random pages of the larger files that can be read without the disk."""
    hits = probes = 0
    for path in _files(directory):
        size = path.stat().st_size
        if size < 1 << 20:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # Random advice first: a probe that misses must not start a read-ahead.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            for offset in rng.integers(0, size // PAGE_NBYTES, PROBES).tolist():
                probes += 1
                hits += _is_cached(descriptor, offset * PAGE_NBYTES)
        finally:
            os.close(descriptor)
    return hits / probes if probes else 0.0


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise
    return True


def cold_batches(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """Every record once, in batches of 256, in the order of one random permutation."""
    count = context.pick(full=20_000, quick=4_000, tiny=64)
    records = binary_records(count, context.seed, low=72 << 10, high=88 << 10)
    directory = context.directory / "data"
    written(system, records, directory)
    rng = np.random.default_rng([context.seed, 7])
    reader = system.open(directory)
    some = rng.integers(0, count, min(count, 2_000)).tolist()
    try:
        if [records.number(record) for record in reader.get_batch(some)] != some:
            raise WrongResult("records came in another order than they were asked for")
        epoch = _batches
    except Unsupported:
        epoch = _front_to_back
    reader.close()
    yield {"records": count, "bytes": records.nbytes}
    while True:
        forget(directory)
        cached = cached_share(directory, rng)
        order = rng.permutation(count).tolist()
        begin = time.perf_counter()
        reader = system.open(directory)
        total = epoch(reader, order)
        seconds = time.perf_counter() - begin
        reader.close()
        if total != records.nbytes:
            raise WrongResult(f"{total} bytes came, not {records.nbytes}")
        yield {
            "gb_s": total / seconds / 1e9,
            "rec_s": count / seconds,
            "cached_before": cached,
        }


def _batches(reader: StorageReader, order: list[int]) -> int:
    total = 0
    for start in range(0, len(order), BATCH):
        total += sum(map(len, reader.get_batch(order[start : start + BATCH])))
    return total


def _front_to_back(reader: StorageReader, order: list[int]) -> int:
    return sum(map(len, reader.sequential()))


CASES = (
    Case(
        "cold",
        "Cold page cache: shuffled batches of 256 records of 72-88 KiB",
        "storage",
        cold_batches,
        (
            Metric("gb_s", "GB/s"),
            Metric("rec_s", "rec/s"),
            Metric("cached_before", "share", False),
        ),
        "disk",
        ("splitpipe", "disk"),
        ("lmdb", "sqlite", "splitdataloader", "array_record"),
        rounds=5,
    ),
)
