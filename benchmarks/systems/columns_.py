"""Three columns of float64: splitpipe, and peers in the fastest form they have for such records.

Peers that keep bytes hold a record's columns side by side, and make a batch of one join; nobody
but splitpipe keeps metadata beside it, or compares a checksum. None is imported before its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base import Indices
from benchmarks.cases.columns import COLUMNS, WIDTH, Series

__all__ = [
    "DataForagerColumns",
    "DatasetsColumns",
    "LmdbColumns",
    "MemmapColumns",
    "SplitpipeColumns",
    "SqliteColumns",
]

CHUNK = 4096
NBYTES = WIDTH * 8
_KEY = Struct(">I").pack


def _ranges() -> dict[str, slice]:
    """Where in a packed record the values of a column are."""
    found, at = {}, 0
    for name, width in COLUMNS.items():
        found[name] = slice(at, at + width)
        at += width
    return found


_RANGES = _ranges()
_BYTES = {name: slice(r.start * 8, r.stop * 8) for name, r in _RANGES.items()}


def _chunks(series: Series) -> Iterator[Indices]:
    for start in range(0, len(series), CHUNK):
        yield np.arange(start, min(start + CHUNK, len(series)))


def _packed(series: Series) -> Iterator[bytes]:
    for indices in _chunks(series):
        data = series.packed(indices).tobytes()
        yield from (data[at : at + NBYTES] for at in range(0, len(data), NBYTES))


def _unpacked(records: Sequence[Any], columns: Sequence[str] | None) -> dict[str, Any]:
    """A batch of packed records, by column: one copy, or one of what is asked for."""
    if columns is not None and len(columns) == 1:
        part = _BYTES[columns[0]]
        array = np.frombuffer(b"".join([record[part] for record in records]))
        return {columns[0]: array.reshape(len(records), -1)}
    array = np.frombuffer(b"".join(records)).reshape(len(records), WIDTH)
    return {name: array[:, _RANGES[name]] for name in columns or COLUMNS}


class SplitpipeColumns:
    """A column each, with a key and declared metadata for every record; checksums on."""

    def write(self, directory: Path, series: Series) -> None:
        """One durable commit."""
        import splitpipe as sp

        schema = {name: sp.ndarray("float64", (width,)) for name, width in COLUMNS.items()}
        with sp.DatasetWriter(directory, schema, metadata={"length": "int64"}) as writer:
            for indices in _chunks(series):
                columns = series.columns(indices)
                rows = zip(*columns.values(), strict=True)
                writer.write_many(
                    [dict(zip(columns, row, strict=True)) for row in rows],
                    keys=[f"series-{number}" for number in indices.tolist()],
                    metas=[{"length": n % 1000, "source": f"s{n % 7}"} for n in indices.tolist()],
                )

    def open(self, directory: Path) -> Any:
        """Open it."""
        import splitpipe as sp

        return sp.open_dataset(directory)


class _Lmdb:
    def __init__(self, directory: Path) -> None:
        import lmdb

        self._env = lmdb.open(str(directory), readonly=True, lock=False, readahead=True)
        # Memory views into the map: a record is copied once, by the join.
        self._txn = self._env.begin(buffers=True)

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> dict[str, Any]:
        get, key = self._txn.get, _KEY
        return _unpacked([get(key(index)) for index in indices.tolist()], columns)

    def close(self) -> None:
        self._txn.abort()
        self._env.close()


class LmdbColumns:
    """Packed records by number."""

    def write(self, directory: Path, series: Series) -> None:
        """One transaction."""
        import lmdb

        env = lmdb.open(str(directory), map_size=64 << 30)
        with env.begin(write=True) as txn, txn.cursor() as cursor:
            items = ((_KEY(number), record) for number, record in enumerate(_packed(series)))
            cursor.putmulti(items, dupdata=False, overwrite=False, append=True)
        env.close()

    def open(self, directory: Path) -> _Lmdb:
        """Map it."""
        return _Lmdb(directory)


class _Sqlite:
    def __init__(self, directory: Path) -> None:
        import sqlite3

        self._db = sqlite3.connect(f"file:{directory / 'data.db'}?mode=ro", uri=True)
        self._db.execute("PRAGMA mmap_size = 8589934592")
        self._db.isolation_level = None
        self._db.execute("BEGIN")

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> dict[str, Any]:
        numbers = indices.tolist()
        what = "data"
        if columns is not None and len(columns) == 1:
            part = _BYTES[columns[0]]
            what = f"substr(data, {part.start + 1}, {part.stop - part.start})"
        marks = ",".join("?" * len(numbers))
        found = dict(
            self._db.execute(f"SELECT id, {what} FROM records WHERE id IN ({marks})", numbers)
        )
        records = itemgetter(*numbers)(found) if len(numbers) > 1 else [found[numbers[0]]]
        if what == "data":
            return _unpacked(records, columns)
        assert columns is not None
        return {columns[0]: np.frombuffer(b"".join(records)).reshape(len(numbers), -1)}

    def close(self) -> None:
        self._db.close()


class SqliteColumns:
    """Packed records by rowid, a batch in one question."""

    def write(self, directory: Path, series: Series) -> None:
        """One transaction."""
        import sqlite3

        db = sqlite3.connect(directory / "data.db")
        # Pages that hold several records: with SQLite's usual ones every record begins a new one.
        db.execute("PRAGMA page_size = 32768")
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, data BLOB)")
        with db:
            db.executemany("INSERT INTO records VALUES (?, ?)", enumerate(_packed(series)))
        db.close()

    def open(self, directory: Path) -> _Sqlite:
        """Read-only, memory-mapped."""
        return _Sqlite(directory)


class _Datasets:
    def __init__(self, directory: Path) -> None:
        import datasets

        # As Arrow: its own numpy format is several times slower, and makes float32 of float64.
        self._dataset = datasets.load_from_disk(str(directory / "arrow")).with_format("arrow")
        self._one = {name: self._dataset.select_columns([name]) for name in COLUMNS}

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> dict[str, Any]:
        one = columns is not None and len(columns) == 1
        table = (self._one[columns[0]] if one and columns else self._dataset)[indices]
        return {
            name: table[name].combine_chunks().flatten().to_numpy().reshape(len(indices), -1)
            for name in columns or COLUMNS
        }

    def close(self) -> None:
        del self._dataset, self._one


class DatasetsColumns:
    """Arrow columns of lists of one length."""

    def write(self, directory: Path, series: Series) -> None:
        """`Dataset.save_to_disk`."""
        import datasets
        import pyarrow as pa

        datasets.disable_progress_bars()
        columns = series.columns(np.arange(len(series)))
        arrays = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for name, values in columns.items()
        }
        datasets.Dataset(pa.table(arrays)).save_to_disk(str(directory / "arrow"))

    def open(self, directory: Path) -> _Datasets:
        """Map the Arrow file."""
        return _Datasets(directory)


class _DataForager:
    def __init__(self, directory: Path) -> None:
        from data_forager.datasets.common import Dataset

        class Packed(Dataset):  # type: ignore[misc]
            """Samples as the bytes they are."""

            def _process_sample(self, sample_bytes: bytes) -> Any:
                return sample_bytes

        self._dataset = Packed.create_from_index_on_filesystem(str(directory))
        self._dataset.initialize()

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> dict[str, Any]:
        dataset = self._dataset
        return _unpacked([dataset[index] for index in indices.tolist()], columns)

    def close(self) -> None:
        self._dataset._close_files()


class DataForagerColumns:
    """Packed records in one file, and its index."""

    def write(self, directory: Path, series: Series) -> None:
        """Write the file, and where every record lies in it."""
        from data_forager.index_stores.fs_based import IndexStore

        path = directory / "records.bin"
        with path.open("wb") as file:
            file.writelines(_packed(series))
        store = IndexStore(str(directory))
        store.init_store()
        for number in range(len(series)):
            store.add_sample(str(path), number * NBYTES, NBYTES)
        store.close()

    def open(self, directory: Path) -> _DataForager:
        """Load the index."""
        return _DataForager(directory)


class _Memmap:
    def __init__(self, directory: Path) -> None:
        self._columns: Mapping[str, npt.NDArray[np.float64]] = {
            name: np.load(directory / f"{name}.npy", mmap_mode="r").view(np.ndarray)
            for name in COLUMNS
        }

    def get_batch(self, indices: Indices, columns: Sequence[str] | None) -> dict[str, Any]:
        return {name: self._columns[name].take(indices, axis=0) for name in columns or COLUMNS}

    def close(self) -> None:
        self._columns = {}


class MemmapColumns:
    """numpy's own gather on a mapped file a column: the bound, without checksums or metadata."""

    def write(self, directory: Path, series: Series) -> None:
        """`numpy.save`."""
        for name, values in series.columns(np.arange(len(series))).items():
            np.save(directory / f"{name}.npy", np.ascontiguousarray(values))

    def open(self, directory: Path) -> _Memmap:
        """Map the files."""
        return _Memmap(directory)
