"""Compressed records: splitpipe without and with zstd, and the compressor alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import splitpipe as sp
from benchmarks.cases.compression import LEVEL, TRAINING_NBYTES
from benchmarks.data import Records

__all__ = ["PlainRecords", "SplitpipeZstd", "ZstandardAlone"]

# What `zstd --train` makes unless it is told otherwise.
DICTIONARY_NBYTES = 112_640


class _Splitpipe:
    def __init__(self, directory: Path) -> None:
        self._dataset: Any = sp.open_dataset(directory)
        self.get_batch = self._dataset.get_batch
        self._beside = sum(path.stat().st_size for path in directory.glob("*.dictionary"))

    def each(self, indices: Sequence[int]) -> Iterator[bytes]:
        dataset = self._dataset
        for index in indices:
            yield dataset[index]

    def stored_nbytes(self) -> int:
        return int(self._dataset.nbytes) + self._beside

    def close(self) -> None:
        self._dataset.close()


class PlainRecords:
    """Not compressed: what the rates are compared with."""

    def _options(self) -> dict[str, Any]:
        return {}

    def write(self, directory: Path, records: Records) -> None:
        """One durable commit."""
        with sp.DatasetWriter(directory, "bytes", **self._options()) as writer:
            writer.write_many(records)

    def open(self, directory: Path) -> _Splitpipe:
        """Open it."""
        return _Splitpipe(directory)


class SplitpipeZstd(PlainRecords):
    """With a dictionary that the writer trains."""

    def _options(self) -> dict[str, Any]:
        return {"compression": sp.Zstd(LEVEL, dictionary=True)}


class _Frames:
    def __init__(self, directory: Path) -> None:
        import zstandard

        self._dictionary, self._frames = pickle.loads((directory / "frames").read_bytes())
        data = zstandard.ZstdCompressionDict(self._dictionary)
        self._decompress = zstandard.ZstdDecompressor(dict_data=data).decompress

    def each(self, indices: Sequence[int]) -> Iterator[bytes]:
        decompress, frames = self._decompress, self._frames
        for index in indices:
            yield decompress(frames[index])

    def get_batch(self, indices: Sequence[int]) -> list[bytes]:
        return list(self.each(indices))

    def stored_nbytes(self) -> int:
        return sum(map(len, self._frames)) + len(self._dictionary)

    def close(self) -> None:
        self._frames = []


class ZstandardAlone:
    """``train_dictionary`` of the first records, and a list of frames in memory."""

    def write(self, directory: Path, records: Records) -> None:
        """Train, and compress one by one."""
        import zstandard

        sample, nbytes = [], 0
        for record in records:
            if nbytes >= TRAINING_NBYTES:
                break
            sample.append(record)
            nbytes += len(record)
        trained = zstandard.train_dictionary(min(DICTIONARY_NBYTES, nbytes // 4), sample)
        compress = zstandard.ZstdCompressor(level=LEVEL, dict_data=trained).compress
        frames = [compress(record) for record in records]
        (directory / "frames").write_bytes(pickle.dumps((trained.as_bytes(), frames)))

    def open(self, directory: Path) -> _Frames:
        """Load the frames."""
        return _Frames(directory)
