"""Small texts compressed one by one with a dictionary, page cache warm.

Two kinds of text: that of W1, random letters in which nothing comes twice, so that their uneven
frequencies are all a compressor gains; and lines of Python's own library, which are text.

Rules: every record is compared before the first figure; ``stored`` counts payloads and dictionary,
against the bytes of the records; ``disk`` counts all files.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, WrongResult
from benchmarks.cases.storage import disk_usage
from benchmarks.data import Records, text_records

__all__ = ["CASES", "LEVEL", "TRAINING_NBYTES", "CompressedReader", "CompressingSystem"]

LEVEL = 3
# What every system trains its dictionary from: the first records.
TRAINING_NBYTES = 8 << 20
BATCH = 256


class CompressedReader(Protocol):
    """An open dataset of records of bytes."""

    def each(self, indices: Sequence[int]) -> Iterator[bytes]:
        """Records one at a time."""
        ...

    def get_batch(self, indices: Sequence[int]) -> Sequence[bytes]:
        """Many records in one call."""
        ...

    def stored_nbytes(self) -> int:
        """Bytes of all payloads as they are kept, and of the dictionary."""
        ...

    def close(self) -> None:
        """Release files and maps."""
        ...


class CompressingSystem(Protocol):
    """Writes records, compressed or not."""

    def write(self, directory: Path, records: Records) -> None:
        """Write everything into an empty directory."""
        ...

    def open(self, directory: Path) -> CompressedReader:
        """Open what `write` wrote."""
        ...


def _source_records(count: int, seed: int) -> Records:
    """Pieces of 100 to 300 bytes of Python's own library, each with its number before it."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    block = b"".join(file.read_bytes() for file in files)
    rng = np.random.default_rng([seed, 7])
    lengths = rng.integers(92, 292, count, endpoint=True)
    starts = rng.integers(0, len(block) - lengths)
    return Records(block, starts.tolist(), (starts + lengths).tolist(), text=True)


def _rates(reader: CompressedReader, wanted: list[int], nbytes: int) -> dict[str, float]:
    """Records a second, one by one and in batches."""
    batches = [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]
    reads: dict[str, Callable[[], int]] = {
        "get_rec_s": lambda: sum(map(len, reader.each(wanted))),
        "batch_rec_s": lambda: sum(sum(map(len, reader.get_batch(some))) for some in batches),
    }
    found = {}
    for name, read in reads.items():
        begin = time.perf_counter()
        total = read()
        found[name] = len(wanted) / (time.perf_counter() - begin)
        if total != nbytes:
            raise WrongResult(f"{total} bytes came, not {nbytes}")
    return found


def compress(
    system: CompressingSystem, context: Context, make: Callable[[int, int], Records]
) -> Iterator[Metrics]:
    """Random records, one by one and in batches."""
    count = context.pick(full=1_000_000, quick=100_000, tiny=1_000)
    records = make(count, context.seed)
    directory = context.directory / "data"
    directory.mkdir(parents=True)
    begin = time.perf_counter()
    system.write(directory, records)
    write_s = time.perf_counter() - begin
    reader = system.open(directory)
    try:
        records.check_all(reader.each(range(count)))
        rng = np.random.default_rng([context.seed, 13])
        some = rng.integers(0, count, 1000).tolist()
        if [records.number(record) for record in reader.get_batch(some)] != some:
            raise WrongResult("records came in another order than they were asked for")
        sizes = {
            "stored": reader.stored_nbytes() / records.nbytes,
            "disk": disk_usage(directory) / records.nbytes,
        }
        yield {"records": count, "bytes": records.nbytes, "write_s": write_s}
        asked = min(count, 100 * BATCH * context.pick(full=10, quick=4, tiny=1))
        while True:
            wanted = rng.integers(0, count, asked).tolist()
            yield {**sizes, **_rates(reader, wanted, records.nbytes_of(wanted))}
    finally:
        reader.close()


_METRICS = (
    Metric("stored", "of raw", False),
    Metric("disk", "of raw", False),
    Metric("get_rec_s", "rec/s"),
    Metric("batch_rec_s", "rec/s"),
)
_TEXTS: tuple[tuple[str, str, Any], ...] = (
    ("zstd", "1,000,000 records of W1 (random letters)", text_records),
    ("zstd_text", "1,000,000 pieces of Python's library of 100-300 bytes", _source_records),
)

CASES = tuple(
    Case(
        name,
        f"{title}, compressed one by one with a dictionary",
        "compression",
        partial(compress, make=make),
        _METRICS,
        "splitpipe",
        ("splitpipe", "splitpipe-zstd", "zstandard"),
    )
    for name, title, make in _TEXTS
)
