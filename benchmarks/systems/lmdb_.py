"""LMDB through ``lmdb``: one environment, big-endian record numbers as keys, one transaction."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Any

import lmdb

__all__ = ["LmdbStorage"]

_KEY = Struct(">I").pack


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._env = lmdb.open(str(directory), readonly=True, lock=False, readahead=True)
        self._txn = self._env.begin()

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        get, key = self._txn.get, _KEY
        for index in indices:
            yield get(key(index))

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        # One get a key is faster than Cursor.getmulti, which gives pairs of key and value.
        get, key = self._txn.get, _KEY
        return [get(key(index)) for index in indices]

    def sequential(self) -> Iterator[Any]:
        with self._txn.cursor() as cursor:
            yield from cursor.iternext(keys=False, values=True)

    def shuffled(self, seed: int) -> Iterator[Any]:
        """There are no bins: a permutation of all keys, one get each."""
        order = list(range(self._env.stat()["entries"]))
        random.Random(seed).shuffle(order)
        return self.each(order)

    def close(self) -> None:
        self._txn.abort()
        self._env.close()


class LmdbStorage:
    """Keys appended in order within one write transaction: LMDB's fastest way in."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """One transaction, one durable commit."""
        env = lmdb.open(str(directory), map_size=64 << 30)
        key = _KEY
        with env.begin(write=True) as txn, txn.cursor() as cursor:
            items = ((key(index), record) for index, record in enumerate(records))
            cursor.putmulti(items, dupdata=False, overwrite=False, append=True)
        env.close()

    def open(self, directory: Path) -> _Reader:
        """Map the environment without locks."""
        return _Reader(directory)
