"""data-forager: an index over lines of text files, read by seeking."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_forager.datasets.common import Dataset
from data_forager.indexers.jsonl_indexer import create_default_jsonl_indexer

from benchmarks.base import Unsupported

__all__ = ["DataForagerStorage"]

FILES = 64


class _Lines(Dataset):  # type: ignore[misc]
    """Lines as bytes, without the newline: nothing is parsed."""

    def _process_sample(self, sample_bytes: bytes) -> Any:
        return sample_bytes[:-1]


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._dataset = _Lines.create_from_index_on_filesystem(str(directory))
        self._dataset.initialize()
        # Files are indexed one after the other; this undoes it.
        count = len(self._dataset)
        starts = [0]
        for file in range(FILES):
            starts.append(starts[-1] + len(range(file, count, FILES)))
        self._starts = starts

    def _place(self, index: int) -> int:
        return self._starts[index % FILES] + index // FILES

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        dataset, place = self._dataset, self._place
        for index in indices:
            yield dataset[place(index)]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        return list(self.each(indices))

    def sequential(self) -> Iterator[Any]:
        dataset = self._dataset
        return (dataset[index] for index in range(len(dataset)))

    def shuffled(self, seed: int) -> Iterator[Any]:
        order = list(range(len(self._dataset)))
        random.Random(seed).shuffle(order)
        dataset = self._dataset
        return (dataset[index] for index in order)

    def close(self) -> None:
        self._dataset._close_files()


class DataForagerStorage:
    """Text only: a record is a line."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Write the lines, then let the library index them."""
        if any(b"\n" in record for record in records):
            raise Unsupported("a record with a newline is two records")
        for number in range(FILES):
            with open(directory / f"{number:04d}.jsonl", "wb") as file:
                file.writelines(record + b"\n" for record in records[number::FILES])
        create_default_jsonl_indexer(str(directory))()

    def open(self, directory: Path) -> _Reader:
        """Loads its index into memory."""
        return _Reader(directory)
