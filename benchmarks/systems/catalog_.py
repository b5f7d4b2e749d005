"""Questions to a catalog: `Dataset.where`, and SQLite asked the same in the same kind of file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp
from benchmarks.base import Indices

__all__ = ["SplitpipeCatalog", "SqliteCatalog"]


class _Splitpipe:
    def __init__(self, directory: Path) -> None:
        self._dataset = sp.open_dataset(directory)
        self.where = self._dataset.where

    def rows(self, found: Any) -> Indices:
        """By the value that every record has of its own."""
        numbers: Indices = found.get_batch(range(len(found)))["n"]
        return numbers

    def close(self) -> None:
        self._dataset.close()


class SplitpipeCatalog:
    """A view of the dataset, its rows in order."""

    def open(self, directory: Path) -> _Splitpipe:
        """Open the dataset; its catalog is opened, and proven, by the first question."""
        return _Splitpipe(directory)


class _Sqlite:
    def __init__(self, directory: Path) -> None:
        (path,) = directory.glob("*-catalog-*.sqlite")
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

    def where(self, clause: str, parameters: Sequence[Any]) -> list[Any]:
        return self._db.execute(f"SELECT row FROM records WHERE {clause}", parameters).fetchall()

    def rows(self, found: Any) -> Indices:
        return np.array(found, dtype=np.int64).reshape(-1)

    def close(self) -> None:
        self._db.close()


class SqliteCatalog:
    """A list of rows as SQLite finds them; nothing is proven."""

    def open(self, directory: Path) -> _Sqlite:
        """Open the file that the dataset keeps its catalog in."""
        return _Sqlite(directory)
