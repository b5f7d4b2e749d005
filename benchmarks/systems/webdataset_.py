"""webdataset: tar files, read from front to back; shuffling is a buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import webdataset

from benchmarks.base import Unsupported

__all__ = ["WebdatasetStorage"]

SHARDS = 64
BUFFER = 10_000


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._urls = [str(directory / f"{number:04d}.tar") for number in range(SHARDS)]

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        raise Unsupported("a tar file has no index")

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        raise Unsupported("a tar file has no index")

    def sequential(self) -> Iterator[Any]:
        dataset = webdataset.WebDataset(self._urls, shardshuffle=False, empty_check=False)
        return (sample["bin"] for sample in dataset)

    def shuffled(self, seed: int) -> Iterator[Any]:
        dataset = webdataset.WebDataset(
            self._urls, shardshuffle=SHARDS, seed=seed, empty_check=False
        ).shuffle(BUFFER)
        return (sample["bin"] for sample in dataset)

    def close(self) -> None:
        """It keeps nothing open."""


class WebdatasetStorage:
    """One ``.bin`` member a record, in as many shards as the others have bins."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Shard after shard; it never syncs."""
        for number, url in enumerate(_Reader(directory)._urls):
            with webdataset.TarWriter(url) as writer:
                for index in range(number, len(records), SHARDS):
                    writer.write({"__key__": f"{index:08d}", "bin": records[index]})

    def open(self, directory: Path) -> _Reader:
        """Nothing is opened yet."""
        return _Reader(directory)
