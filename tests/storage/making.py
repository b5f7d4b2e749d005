"""Datasets for tests: small ones with everything in them, and what must be true of any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from splitpipe.dataset import open_dataset
from splitpipe.storage import DatasetWriter, check_dataset

__all__ = ["assert_holds", "numbered", "placed", "write"]


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Records of different lengths, also 0, each telling its number."""
    return [(b"%d," % n) * (n % 5) for n in range(start, start + count)]


def placed(seed: int, offset: int, row: int) -> int:
    """`place`, as `docs/format.md` says it."""
    mixed = (offset * 0x9E3779B97F4A7C15 + row * 0xBF58476D1CE4E5B9) % 2**64
    return seed ^ mixed // 2**32


def write(path: str | os.PathLike[str], records: Sequence[bytes], bins: int = 2) -> Path:
    """Write a dataset in one session."""
    with DatasetWriter(path, bins=bins) as writer:
        writer.write_many(records)
    return Path(path)


def assert_holds(path: str | os.PathLike[str], records: Sequence[bytes]) -> None:
    """The dataset holds exactly these records, by every way of reading, and is intact."""
    expected = list(records)
    with open_dataset(path) as ds:
        assert len(ds) == len(expected)
        assert list(ds) == expected
        assert [ds[row] for row in range(len(ds))] == expected
        assert ds.get_batch(range(len(expected))) == expected
        assert ds.lengths(range(len(expected))).tolist() == [len(r) for r in expected]
        assert ds.nbytes == sum(len(record) for record in expected)
    report = check_dataset(path)
    assert report.ok, report.findings
    assert report.checked == len(expected)
