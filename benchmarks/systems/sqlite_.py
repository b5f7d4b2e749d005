"""SQLite: blobs by rowid in one table, write-ahead off, one transaction."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["SqliteStorage"]

PER_QUERY = 256


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(f"file:{directory / 'data.db'}?mode=ro", uri=True)
        self._db.execute("PRAGMA mmap_size = 8589934592")
        # One transaction: without it, every SELECT locks and unlocks the file.
        self._db.isolation_level = None
        self._db.execute("BEGIN")

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        cursor = self._db.cursor()
        for index in indices:
            yield cursor.execute("SELECT data FROM records WHERE id = ?", (index,)).fetchone()[0]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        marks = ",".join("?" * len(indices))
        query = f"SELECT id, data FROM records WHERE id IN ({marks})"
        found = dict(self._db.execute(query, indices))
        return [found[index] for index in indices]

    def sequential(self) -> Iterator[Any]:
        return (row[0] for row in self._db.execute("SELECT data FROM records ORDER BY id"))

    def shuffled(self, seed: int) -> Iterator[Any]:
        order = list(range(self._db.execute("SELECT count(*) FROM records").fetchone()[0]))
        random.Random(seed).shuffle(order)
        return self.each(order)

    def close(self) -> None:
        self._db.close()


class SqliteStorage:
    """``executemany`` into a fresh table; SQLite syncs at the commit."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """One transaction, one durable commit."""
        db = sqlite3.connect(directory / "data.db")
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, data BLOB)")
        with db:
            db.executemany("INSERT INTO records VALUES (?, ?)", enumerate(records))
        db.close()

    def open(self, directory: Path) -> _Reader:
        """Read-only, memory-mapped."""
        return _Reader(directory)
