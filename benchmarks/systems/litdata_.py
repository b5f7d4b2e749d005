"""LitData: chunks of one serialised item each record, read by ``StreamingDataset``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from litdata import StreamingDataset
from litdata.streaming.cache import Cache

__all__ = ["LitdataStorage"]

CHUNK_NBYTES = 64 << 20


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "lit")
        self._dataset = StreamingDataset(self._path)

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        dataset = self._dataset
        for index in indices:
            yield dataset[index]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        return list(self.each(indices))

    def sequential(self) -> Iterator[Any]:
        return iter(StreamingDataset(self._path))

    def shuffled(self, seed: int) -> Iterator[Any]:
        return iter(StreamingDataset(self._path, shuffle=True, seed=seed))

    def close(self) -> None:
        del self._dataset


class LitdataStorage:
    """The writer behind ``optimize``, in this process; it never syncs."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Item by item, then merge the index."""
        cache = Cache(str(directory / "lit"), chunk_bytes=CHUNK_NBYTES)
        for index, record in enumerate(records):
            cache[index] = record
        cache.done()
        cache.merge()

    def open(self, directory: Path) -> _Reader:
        """Loads its index."""
        return _Reader(directory)
