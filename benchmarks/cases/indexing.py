"""Finding the records of JSON Lines, page cache warm.

Rules: before the first figure every system's index is asked for its length and for records spread
over all files, which have to be those that were written; every round begins without an index and
ends when it is kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, WrongResult
from benchmarks.data import Records, text_records

__all__ = ["CASES"]

FILES = 4
ASKED = 2000


class LinesSystem(Protocol):
    """Indexes a folder of JSON Lines."""

    def index(self, directory: Path, workers: int) -> Any:
        """Index all files; what comes back has a length."""
        ...

    def rows(self, indexed: Any, numbers: Sequence[int]) -> list[Any]:
        """Some records, parsed."""
        ...

    def forget(self, directory: Path, indexed: Any) -> None:
        """Remove the index."""
        ...


def _written(directory: Path, records: Records) -> int:
    """Write the records to files, consecutive ones to the same; bytes in all."""
    directory.mkdir(parents=True)
    bounds = [len(records) * number // FILES for number in range(FILES + 1)]
    total = 0
    for number in range(FILES):
        with open(directory / f"{number}.jsonl", "wb") as file:
            for at in range(bounds[number], bounds[number + 1]):
                row = {"n": at, "text": records[at].decode("ascii")}
                total += file.write(json.dumps(row).encode() + b"\n")
    return total


def _check(system: LinesSystem, indexed: Any, records: Records, seed: int) -> None:
    if len(indexed) != len(records):
        raise WrongResult(f"{len(indexed)} records were found, {len(records)} were written")
    rng = np.random.default_rng([seed, 9])
    numbers = rng.integers(0, len(records), min(ASKED, len(records))).tolist()
    for number, row in zip(numbers, system.rows(indexed, numbers), strict=True):
        if row != {"n": number, "text": records[number].decode("ascii")}:
            raise WrongResult(f"record {number} is another: {row!r}")


def index_lines(system: LinesSystem, context: Context) -> Iterator[Metrics]:
    """From files without an index to one that is kept."""
    count = context.pick(full=800_000, quick=200_000, tiny=500)
    records = text_records(count, context.seed)
    directory = context.directory / "data"
    nbytes = _written(directory, records)
    indexed = system.index(directory, context.workers)
    _check(system, indexed, records, context.seed)
    system.forget(directory, indexed)
    yield {"records": count, "bytes": nbytes}
    while True:
        begin = time.perf_counter()
        indexed = system.index(directory, context.workers)
        seconds = time.perf_counter() - begin
        if len(indexed) != count:
            raise WrongResult(f"{len(indexed)} records were found, {count} were written")
        system.forget(directory, indexed)
        yield {"gb_s": nbytes / seconds / 1e9, "rec_s": count / seconds}


CASES = (
    Case(
        "index_jsonl",
        "Indexing JSON Lines of 130-330 bytes where they lie",
        "lines",
        index_lines,
        (Metric("gb_s", "GB/s"), Metric("rec_s", "rec/s")),
        "data_forager",
        ("splitpipe", "data_forager"),
        ("splitpipe@2",),
        rounds=5,
    ),
)
