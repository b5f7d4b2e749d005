"""Opening a dataset of 100 million records in a fresh process.

Rules: the dataset is made by the formulas of the format instead of a writer, but is whole: every
record, header, entry and checksum is what a writer would have written; records that are spread
over it are read and compared in every round, with their checksums.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, WrongResult

__all__ = ["CASES", "SyntheticSystem"]

SPREAD = 100


class SyntheticSystem(Protocol):
    """Makes a dataset of records of four bytes, each its own number, and opens it."""

    def make(self, directory: Path, stripes: int) -> int:
        """Make it; gives the number of records."""
        ...

    def open(self, directory: Path) -> Any:
        """Open it: something that is indexed, and closed."""
        ...


def open_synthetic(system: SyntheticSystem, context: Context) -> Iterator[Metrics]:
    """Open, read a few records; then once more, counting what is allocated."""
    stripes = context.pick(full=24_415, quick=1_000, tiny=2)
    directory, told = context.directory / "data", context.directory / "complete"
    if not told.exists():
        told.write_text(str(system.make(directory, stripes)))
    count = int(told.read_text())
    wanted = np.linspace(0, count - 1, SPREAD).astype(np.int64).tolist()
    small = context.directory / "small"
    if not small.exists():
        system.make(small, 1)
    yield {"records": count}
    # The first dataset that is opened pays for imports, which are measured elsewhere.
    first = system.open(small)
    first[0]
    first.close()
    begin = time.perf_counter()
    dataset = system.open(directory)
    open_s = time.perf_counter() - begin
    records = [dataset[number] for number in wanted]
    first_s = time.perf_counter() - begin
    if [int.from_bytes(record, "little") for record in records] != wanted:
        raise WrongResult("a record of the large dataset differs from what must be there")
    dataset.close()
    tracemalloc.start()
    dataset = system.open(directory)
    for number in wanted:
        dataset[number]
    heap = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    dataset.close()
    yield {
        "open_ms": open_s * 1e3,
        "first_records_ms": first_s * 1e3,
        "heap_mb": heap / 1e6,
    }


CASES = (
    Case(
        "open_100m",
        f"Opening 100,000,000 records in a fresh process, and reading {SPREAD} of them",
        "synthetic",
        open_synthetic,
        (
            Metric("open_ms", "ms", False),
            Metric("first_records_ms", "ms", False),
            Metric("heap_mb", "MB", False),
        ),
        "splitpipe",
        ("splitpipe",),
        fresh=True,
    ),
)
