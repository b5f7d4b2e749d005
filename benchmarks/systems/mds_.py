"""MosaicML streaming: MDS shards with one bytes column, read locally."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

__all__ = ["MdsStorage"]


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._dataset = self._opened(shuffle=False, seed=0)

    def _opened(self, *, shuffle: bool, seed: int) -> Any:
        clean_stale_shared_memory()
        return StreamingDataset(
            local=str(self._directory / "mds"), shuffle=shuffle, shuffle_seed=seed, batch_size=256
        )

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        dataset = self._dataset
        for index in indices:
            yield dataset[index]["data"]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        return [sample["data"] for sample in self._dataset[indices]]

    def sequential(self) -> Iterator[Any]:
        return (sample["data"] for sample in self._dataset)

    def shuffled(self, seed: int) -> Iterator[Any]:
        self._dataset = self._opened(shuffle=True, seed=seed)
        return (sample["data"] for sample in self._dataset)

    def close(self) -> None:
        del self._dataset


class MdsStorage:
    """Uncompressed, without hashes; it never syncs."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Sample by sample."""
        with MDSWriter(out=str(directory / "mds"), columns={"data": "bytes"}) as writer:
            for record in records:
                writer.write({"data": record})

    def open(self, directory: Path) -> _Reader:
        """A local copy needs no download."""
        return _Reader(directory)
