"""Indexing JSON Lines where they lie: splitpipe, and the library that does nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base import Unsupported

__all__ = ["DataForagerLines", "SplitpipeLines"]


class SplitpipeLines:
    """`recognise` with an index that is not there; durable when it returns."""

    def index(self, directory: Path, workers: int) -> Any:
        """Index all files."""
        from splitpipe.formats import recognise

        return recognise(directory, workers=workers)

    def rows(self, indexed: Any, numbers: Sequence[int]) -> list[Any]:
        """Some records."""
        found = indexed.read(np.array(numbers, dtype=np.int64), ["data"])["data"]
        return list(found)

    def forget(self, directory: Path, indexed: Any) -> None:
        """Remove the index."""
        indexed.close()
        shutil.rmtree(directory / ".splitpipe")


class DataForagerLines:
    """`create_default_jsonl_indexer` into an empty index."""

    def index(self, directory: Path, workers: int) -> Any:
        """Index all files."""
        from data_forager.datasets.jsonl import JsonlDataset
        from data_forager.indexers.jsonl_indexer import create_default_jsonl_indexer

        if workers != 1:
            raise Unsupported("it indexes in one process")
        create_default_jsonl_indexer(str(directory))()
        return JsonlDataset.create_from_index_on_filesystem(str(directory))

    def rows(self, indexed: Any, numbers: Sequence[int]) -> list[Any]:
        """Some records."""
        indexed.initialize()
        return [indexed[number] for number in numbers]

    def forget(self, directory: Path, indexed: Any) -> None:
        """Remove the index."""
        indexed._close_files()
        shutil.rmtree(directory / "index")
