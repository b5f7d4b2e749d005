"""A small cache with the interface that remote datasets need, in one process.

Responsible for: `StandInCache`, good enough to test what is built on a cache apart from it: blocks
are fetched one after the other, nothing is shared, and a test evicts what it likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from splitpipe.stores.base import Store

BLOCK = 4096


class StandInToken:
    def __init__(self, marks: Sequence[tuple[Any, np.ndarray, np.ndarray]]) -> None:
        self._marks = marks

    def still_valid(self) -> bool:
        return all((file.marks[blocks] == seen).all() for file, blocks, seen in self._marks)


class StandInFile:
    def __init__(self, cache: StandInCache, store: Store, key: str, size: int, tag: Any) -> None:
        self.cache, self.store, self.key, self.size, self.tag = cache, store, key, size, tag
        self.block_nbytes = cache.block_nbytes
        self.path = os.path.join(cache.directory, f"{len(cache.files):05d}.sparse")
        with open(self.path, "wb") as file:
            file.truncate(size)
        self.marks = np.zeros(-(-size // self.block_nbytes), dtype=np.uint64)
        self.requests: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []

    def blocks(self, ranges: Any) -> np.ndarray:
        found: set[int] = set()
        for start, stop in np.asarray(ranges).reshape(-1, 2).tolist():
            assert 0 <= start < stop <= self.size, (start, stop, self.size)
            found.update(range(start // self.block_nbytes, (stop - 1) // self.block_nbytes + 1))
        return np.array(sorted(found), dtype=np.int64)

    def ensure(self, ranges: Any) -> StandInToken:
        blocks = self.blocks(ranges)
        for block in blocks[self.marks[blocks] == 0].tolist():
            start = block * self.block_nbytes
            stop = min(self.size, start + self.block_nbytes)
            self.requests.append((start, stop))
            data = self.store.read(self.key, start, stop, tag=self.tag)
            with open(self.path, "r+b") as file:
                file.seek(start)
                file.write(data)
            self.cache.fillings += 1
            self.marks[block] = self.cache.fillings
        return StandInToken([(self, blocks, self.marks[blocks].copy())])

    def evict(self, blocks: Iterable[int]) -> None:
        self.cache.evictions[0] += 1
        with open(self.path, "r+b") as file:
            for block in blocks:
                self.marks[block] = 0
                start = block * self.block_nbytes
                file.seek(start)
                file.write(bytes(min(self.size, start + self.block_nbytes) - start))

    def touch(self, blocks: Any) -> None:
        pass

    def done_with(self, ranges: Any) -> None:
        self.done += np.asarray(ranges).reshape(-1, 2).tolist()

    def invalidate(self, ranges: Any) -> None:
        self.evict(self.blocks(ranges).tolist())

    def missing(self, ranges: Any) -> int:
        blocks = self.blocks(ranges)
        return int((self.marks[blocks] == 0).sum()) * self.block_nbytes

    def close(self) -> None:
        pass

    def read(self, start: int, stop: int) -> bytes:
        return self.store.read(self.key, start, stop, tag=self.tag)


class StandInPrefetch:
    nbytes, done = 1, True

    def cancel(self) -> None:
        pass


class StandInCache:
    def __init__(self, directory: str, limit_nbytes: int = 1 << 40) -> None:
        os.makedirs(directory, exist_ok=True)
        self.directory, self.limit_nbytes = directory, limit_nbytes
        self.block_nbytes = BLOCK
        self.files: dict[Any, StandInFile] = {}
        self.fillings = 0
        self.evictions = memoryview(bytearray(8)).cast("Q")

    def folder(self, name: str) -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def open(
        self,
        store: Store,
        key: str,
        *,
        size: int,
        tag: str | None,
        identity: str,
        block_nbytes: int,
    ) -> StandInFile:
        name = store.url, key, identity
        if name not in self.files:
            self.files[name] = StandInFile(self, store, key, size, tag)
        return self.files[name]

    def ensure_all(self, needs: Any, *, extent_nbytes: int | None = None) -> StandInToken:
        tokens = [file.ensure(ranges) for file, ranges in needs]
        return StandInToken([mark for token in tokens for mark in token._marks])

    def prefetch(self, needs: Any, *, extent_nbytes: int | None = None) -> StandInPrefetch:
        self.ensure_all(needs)
        return StandInPrefetch()

    def close(self) -> None:
        pass
