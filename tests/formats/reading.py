"""What the tests of foreign formats share: opening, and reading everything in several ways."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.formats import recognise
from splitpipe.storage.base import Records, records_of


class Forward:
    """The order of the rows, as an order."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def indices(self, start: int, stop: int) -> Any:
        return np.arange(start, stop, dtype=np.int64)


def everything(records: Records) -> list[Any]:
    """All records, after comparing the ways of reading them."""
    count = len(records)
    found = list(records.iterate(Forward(count), 0, count))
    backwards = np.arange(count, dtype=np.int64)[::-1]
    batch = records.read(backwards, tuple(records.schema))
    assert same(records_of(records.schema, batch)[::-1], found)
    assert sum(segment.rows for segment in records.layout().segments) == count
    return found


def same(one: Any, other: Any) -> bool:
    """Equality that takes NaN for NaN."""
    return repr(one) == repr(other)


def opened(path: Any, **options: Any) -> list[Any]:
    """All records of a source, also after a journey to another process and back."""
    records = recognise(path, **options)
    found = everything(records)
    again = pickle.loads(pickle.dumps(records))
    assert same(everything(again), found)
    again.close()
    records.close()
    records.close()
    return found


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder, and when it was written to."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".splitpipe" not in path.parts
    }
