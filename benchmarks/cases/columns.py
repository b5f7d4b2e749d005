"""W4: records of three columns of float64, read in batches, page cache warm.

Rules: every value is compared with what was written before the first figure, all columns and one;
a batch is a dict of arrays of shape (n, width), views of a larger array allowed; the timed loops
look at the shapes, and at the values of the last batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.base import Case, Context, Indices, Metric, Metrics, WrongResult

__all__ = ["CASES", "COLUMNS", "WIDTH", "ColumnsReader", "ColumnsSystem", "Series"]

# What a record of a time series has: name -> values.
COLUMNS = {"history": 128, "target": 32, "forecast": 32}
WIDTH = sum(COLUMNS.values())
BATCH = 256
AHEAD_S = 0.3

Arrays = Mapping[str, npt.NDArray[Any]]


class ColumnsReader(Protocol):
    """An open dataset of `COLUMNS`."""

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> Arrays:
        """Some records: an array of shape (n, width) for each column, all of them for None."""
        ...

    def close(self) -> None:
        """Release files and maps."""
        ...


class ColumnsSystem(Protocol):
    """Writes a dataset of `COLUMNS` and opens it again."""

    def write(self, directory: Path, series: Series) -> None:
        """Write everything into an empty directory."""
        ...

    def open(self, directory: Path) -> ColumnsReader:
        """Open what `write` wrote."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Records that are computed, not held: slices of one block, but for the record's number."""

    block: npt.NDArray[np.float64]
    starts: Indices

    @classmethod
    def made(cls, count: int, seed: int) -> Series:
        """`count` records from a seed."""
        rng = np.random.default_rng([seed, 4])
        block = rng.standard_normal(1 << 20)
        return cls(block, rng.integers(0, len(block) - WIDTH, count))

    def __len__(self) -> int:
        return len(self.starts)

    def packed(self, indices: Indices) -> npt.NDArray[np.float64]:
        """Records with their columns side by side: shape (n, `WIDTH`)."""
        values = self.block[self.starts[indices, None] + np.arange(WIDTH)]
        at = 0
        for number, width in enumerate(COLUMNS.values()):
            values[:, at] = indices + number / 4
            at += width
        return values

    def columns(self, indices: Indices) -> Arrays:
        """Records by column."""
        bounds = np.cumsum(list(COLUMNS.values()))[:-1]
        return dict(zip(COLUMNS, np.split(self.packed(indices), bounds, axis=1), strict=True))

    def check(self, batch: Arrays, indices: Indices, columns: Sequence[str] | None) -> None:
        """Raise `WrongResult` unless a batch holds exactly these records."""
        expected = self.columns(indices)
        if list(batch) != list(columns or COLUMNS):
            raise WrongResult(f"columns {list(batch)} came")
        for name, array in batch.items():
            if array.dtype != np.float64 or not np.array_equal(array, expected[name]):
                raise WrongResult(f"{name} differs from what was written")


_ONE = ("target",)


def _check(reader: ColumnsReader, series: Series, seed: int) -> None:
    for columns in (None, _ONE):
        for start in range(0, len(series), 4096):
            indices = np.arange(start, min(start + 4096, len(series)))
            series.check(reader.get_batch(indices, columns), indices, columns)
        indices = np.random.default_rng([seed, 5]).integers(0, len(series), 1000)
        series.check(reader.get_batch(indices, columns), indices, columns)


def _rate(
    reader: ColumnsReader, series: Series, batches: Indices, columns: Sequence[str] | None
) -> float:
    """Records a second in batches of random records."""
    batch: Arrays = {}
    shapes = [(BATCH, COLUMNS[name]) for name in columns or COLUMNS]
    get_batch = reader.get_batch
    begin = time.perf_counter()
    for indices in batches:
        batch = get_batch(indices, columns)
        if [array.shape for array in batch.values()] != shapes:
            raise WrongResult("a batch has another shape")
    seconds = time.perf_counter() - begin
    series.check(batch, batches[-1], columns)
    return batches.size / seconds


def read_columns(system: ColumnsSystem, context: Context) -> Iterator[Metrics]:
    """Batches of random records: all columns, and one."""
    count = context.pick(full=200_000, quick=20_000, tiny=500)
    series = Series.made(count, context.seed)
    directory = context.directory / "data"
    directory.mkdir(parents=True)
    system.write(directory, series)
    reader = system.open(directory)
    try:
        _check(reader, series, context.seed)
        yield {"records": count, "bytes": count * WIDTH * 8}
        rng = np.random.default_rng([context.seed, 6])
        sizes = {}
        for columns in (None, _ONE):
            some = rng.integers(0, count, (20, BATCH))
            rate = _rate(reader, series, some, columns)
            sizes[columns] = max(2, min(int(AHEAD_S * rate) // BATCH, 20_000))
        while True:
            metrics = {}
            for name, columns in (("all_rec_s", None), ("one_rec_s", _ONE)):
                wanted = rng.integers(0, count, (sizes[columns], BATCH))
                metrics[name] = _rate(reader, series, wanted, columns)
            yield metrics
    finally:
        reader.close()


CASES = (
    Case(
        "w4_read",
        "W4: batches of 256 random of 200,000 records of 128 + 32 + 32 float64; all columns, one",
        "columns",
        read_columns,
        (Metric("all_rec_s", "rec/s"), Metric("one_rec_s", "rec/s")),
        "lmdb",
        ("splitpipe", "lmdb", "sqlite", "datasets", "data_forager"),
        ("memmap",),
    ),
)
