"""ArrayRecord: chunked files with checksums; one record a group, so that random reads are cheap."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

__all__ = ["ArrayRecordStorage"]

FILES = 8
CHUNK = 1024


class _Reader:
    def __init__(self, directory: Path) -> None:
        paths = [str(directory / f"{number}.array_record") for number in range(FILES)]
        self._source = ArrayRecordDataSource(paths)
        count = len(self._source)
        starts = [0]
        for file in range(FILES):
            starts.append(starts[-1] + len(range(file, count, FILES)))
        self._starts = starts

    def _place(self, index: int) -> int:
        return self._starts[index % FILES] + index // FILES

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        source, place = self._source, self._place
        for index in indices:
            yield source[place(index)]

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        place = self._place
        records: Sequence[Any] = self._source.__getitems__([place(index) for index in indices])
        return records

    def _in_chunks(self, order: Sequence[int]) -> Iterator[Any]:
        for start in range(0, len(order), CHUNK):
            yield from self._source.__getitems__(order[start : start + CHUNK])

    def sequential(self) -> Iterator[Any]:
        return self._in_chunks(range(len(self._source)))

    def shuffled(self, seed: int) -> Iterator[Any]:
        order = list(range(len(self._source)))
        random.Random(seed).shuffle(order)
        return self._in_chunks(order)

    def close(self) -> None:
        self._source.__exit__(None, None, None)


class ArrayRecordStorage:
    """Uncompressed, as the records here do not compress."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Deal the records to a few files; it never syncs."""
        for number in range(FILES):
            path = str(directory / f"{number}.array_record")
            writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
            for record in records[number::FILES]:
                writer.write(record)
            writer.close()

    def open(self, directory: Path) -> _Reader:
        """Readers are opened at the first access."""
        return _Reader(directory)
