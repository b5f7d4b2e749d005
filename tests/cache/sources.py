"""Stores for the tests of the cache: real ones, that also count."""

from __future__ import annotations

import os
import threading

import numpy as np

from splitpipe.stores import MemoryStore

__all__ = ["CountingStore", "noise"]


def noise(nbytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(nbytes)


class CountingStore(MemoryStore):
    """Objects in memory; what is read is noted in a file, which processes may share.

    A read waits for `gate` before it answers; `asked` is set when it begins.
    """

    def __init__(self, url: str = "memory://bucket/", log: str | None = None) -> None:
        super().__init__(url)
        self.reads: list[tuple[str, int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.log = log
        self.error: BaseException | None = None
        self._changed = threading.Condition()

    def wait_for_reads(self, count: int) -> None:
        """Wait until so many reads have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.reads) >= count, 30)

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        data = super().read(key, start, stop, tag=tag)
        with self._changed:
            self.reads.append((key, start, start + len(data)))
            self._changed.notify_all()
        if self.log:
            with open(self.log, "ab", buffering=0) as file:
                file.write(f"{key} {start} {start + len(data)} {os.getpid()}\n".encode())
        self.asked.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return data
