"""Arrow by itself: one binary column in an IPC file, memory-mapped, no layer above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["ArrowStorage"]

CHUNK = 16384


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._map = pa.memory_map(str(directory / "data.arrow"))
        self._file = pa.ipc.open_file(self._map)
        self._column = self._file.read_all().column(0)

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        column = self._column
        for index in indices:
            yield column[index].as_py()

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        records: Sequence[Any] = self._column.take(pa.array(indices)).to_pylist()
        return records

    def _batch(self, number: int) -> Any:
        return self._file.get_batch(number).column(0)

    def sequential(self) -> Iterator[Any]:
        # An array of objects is made faster than a list.
        for number in range(self._file.num_record_batches):
            yield from self._batch(number).to_numpy(zero_copy_only=False)

    def shuffled(self, seed: int) -> Iterator[Any]:
        """Record batches in random order, and the records of each in random order."""
        rng = np.random.default_rng(seed)
        for number in rng.permutation(self._file.num_record_batches).tolist():
            batch = self._batch(number)
            places = pa.array(rng.permutation(len(batch)))
            yield from batch.take(places).to_numpy(zero_copy_only=False)

    def close(self) -> None:
        self._map.close()


class ArrowStorage:
    """Batches of 16384 records, about as many as a bin of splitpipe has here; it never syncs."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """From a list in memory to one file."""
        table = pa.table({"data": pa.array(records, pa.large_binary())})
        path = str(directory / "data.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=CHUNK)

    def open(self, directory: Path) -> _Reader:
        """Map the file."""
        return _Reader(directory)
