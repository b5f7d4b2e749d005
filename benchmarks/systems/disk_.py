"""The bound of a cold read: the disk from front to back, into one buffer, nothing understood."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import Unsupported

__all__ = ["DiskStorage"]

FILES = 64
CHUNK_NBYTES = 8 << 20


class _Reader:
    """Gives the bytes of the files in the order in which they lie."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def sequential(self) -> Iterator[Any]:
        buffer = memoryview(bytearray(CHUNK_NBYTES))
        for number in range(FILES):
            descriptor = os.open(self._directory / f"{number}.bin", os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while count := os.readv(descriptor, [buffer]):
                    yield buffer[:count]
            finally:
                os.close(descriptor)

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        raise Unsupported("this reader knows no records")

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        raise Unsupported("this reader knows no records")

    def shuffled(self, seed: int) -> Iterator[Any]:
        raise Unsupported("this reader knows no records")

    def close(self) -> None:
        """Nothing is held open."""


class DiskStorage:
    """The same records, dealt to as many files as the other systems use."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Write each file in one go, so that it lies in one piece where the system allows it."""
        for number in range(FILES):
            with open(directory / f"{number}.bin", "wb") as file:
                file.writelines(records[number::FILES])
                file.flush()
                os.fsync(file.fileno())

    def open(self, directory: Path) -> _Reader:
        """Nothing is opened yet."""
        return _Reader(directory)
