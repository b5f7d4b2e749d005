"""Hugging Face ``datasets``: one binary column in Arrow, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

__all__ = ["DatasetsStorage"]

CHUNK = 1000


class _Reader:
    def __init__(self, directory: Path) -> None:
        datasets.disable_progress_bars()
        self._dataset = datasets.load_from_disk(str(directory / "arrow"))

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        dataset = self._dataset
        for index in indices:
            yield dataset[index]["data"]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        records: Sequence[Any] = self._dataset[indices]["data"]
        return records

    def sequential(self) -> Iterator[Any]:
        for batch in self._dataset.iter(CHUNK):
            yield from batch["data"]

    def shuffled(self, seed: int) -> Iterator[Any]:
        for batch in self._dataset.shuffle(seed=seed, keep_in_memory=True).iter(CHUNK):
            yield from batch["data"]

    def close(self) -> None:
        del self._dataset


class DatasetsStorage:
    """``Dataset.save_to_disk``; it never syncs."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """From a list in memory to Arrow files."""
        datasets.disable_progress_bars()
        features = datasets.Features({"data": datasets.Value("large_binary")})
        dataset = datasets.Dataset.from_dict({"data": records}, features=features)
        dataset.save_to_disk(str(directory / "arrow"))

    def open(self, directory: Path) -> _Reader:
        """Map the Arrow files."""
        return _Reader(directory)
