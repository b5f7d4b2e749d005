"""Consecutive records of a source, and the bytes that stand for them in a copy.

Responsible for: `Reader`, which reads a block of records column by column and says which record
is to blame when one cannot be read; `Packer`, which makes of a block what is stored, in a worker;
how many records a block has; and dictionaries trained from the source.

Rules:
- whoever packs is one of many: what a block becomes depends on the block alone;
- a column of numbers or of arrays of one shape is never taken apart into values;
- blocks are bounded by their bytes, as a sample over the whole source tells them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.codecs import Codec, Zstd, codec, train
from splitpipe.dataset import Dataset
from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import Batch, Rows, Values

__all__ = [
    "Block",
    "PackedColumn",
    "Packer",
    "Reader",
    "Rowset",
    "block_records",
    "name_of",
    "trained",
]

BLOCK_NBYTES: Final = 4 << 20
_MOST_RECORDS: Final = 4096
_SAMPLES: Final = 16
_SAMPLE_NBYTES: Final = 64 << 20
_MEDIA: Final = ("image", "audio", "video")
_MISSING: Final = -1

Metas = list[dict[str, Any]]


def name_of(dataset: Dataset) -> str:
    """What a dataset is called in messages: its directory, or what it reads."""
    try:
        return dataset.path
    except AttributeError:
        return repr(dataset.records)


@dataclass(frozen=True, slots=True)
class Rowset:
    """Consecutive records, column by column.

    Attributes:
        values: of every column.
        keys, metas: of every record; ``None`` where there is no catalog.
    """

    values: Batch
    keys: list[str | None] | None
    metas: Metas | None


class Reader:
    """Reads consecutive records; travels to workers with its dataset.

    Args:
        dataset: what to read.
        size: how many records at a time.
    """

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset = dataset
        self.size = size

    def rows(self, start: int) -> Rows:
        """The rows of the block that begins with ``start``."""
        return np.arange(start, min(start + self.size, len(self.dataset)), dtype=np.int64)

    def read(self, rows: Rows) -> Rowset:
        """Records at consecutive rows.

        Raises:
            CorruptRecord: one cannot be read; the message names it.
        """
        try:
            return self._read(rows)
        except SplitpipeError as error:
            raise self._located(rows, error) from error

    def _read(self, rows: Rows) -> Rowset:
        records = self.dataset.records
        values = records.read(rows, tuple(records.schema))
        if records.catalog is None:
            return Rowset(values, None, None)
        return Rowset(values, records.catalog.keys(rows), records.catalog.meta(rows))

    def _located(self, rows: Rows, error: SplitpipeError) -> SplitpipeError:
        """The error of the first record that cannot be read."""
        for row in rows:
            try:
                self._read(np.array([row]))
            except FormatError as found:
                return CorruptRecord(f"record {row} of {name_of(self.dataset)}: {found}")
            except SplitpipeError as found:
                return found
        return error

    def __reduce__(self) -> Any:
        return Reader, (self.dataset, self.size)


def block_records(source: Dataset) -> int:
    """How many records have about `BLOCK_NBYTES`, as a sample over the whole source tells."""
    reader = Reader(source, 1)
    count, total = 0, 0
    for row in np.linspace(0, len(source) - 1, min(_SAMPLES, len(source)), dtype=np.int64):
        try:
            values = reader.read(np.array([row])).values
        except SplitpipeError:
            continue  # which is said when its turn comes
        count, total = count + 1, total + sum(map(_memory, values.values()))
        if total > _SAMPLE_NBYTES:
            break
    mean = max(1, total // max(1, count))
    return max(1, min(_MOST_RECORDS, BLOCK_NBYTES // mean))


def _memory(values: Any) -> int:
    """About how many bytes values take."""
    if isinstance(values, np.ndarray | np.generic):
        return int(values.nbytes)
    if isinstance(values, bytes | str):
        return len(values)
    if isinstance(values, Mapping):
        return sum(_memory(value) for value in values.values())
    if isinstance(values, list | tuple):
        return sum(map(_memory, values))
    return 8


# -- what is stored --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PackedColumn:
    """The stored values of a column, end to end.

    Attributes:
        data: uint8 array, their bytes.
        lengths: int64 array of shape (n,); -1 where a value is missing.
    """

    data: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]

    def values(self) -> list[bytes | None]:
        """The values, one by one."""
        raw = self.data.tobytes()
        stops = np.cumsum(np.maximum(self.lengths, 0))
        starts = (stops - np.maximum(self.lengths, 0)).tolist()
        found: list[bytes | None] = [
            raw[start:stop] for start, stop in zip(starts, stops.tolist(), strict=True)
        ]
        for at in np.flatnonzero(self.lengths == _MISSING).tolist():
            found[at] = None
        return found


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records as they are stored.

    Attributes:
        start: the row of the first.
        count: how many there are.
        columns: by name.
        keys, metas: of every record; ``None`` where there is no catalog.
    """

    start: int
    count: int
    columns: Mapping[str, PackedColumn]
    keys: list[str | None] | None
    metas: Metas | None

    @property
    def nbytes(self) -> int:
        """Bytes of all values as they are stored."""
        return sum(int(column.data.nbytes) for column in self.columns.values())


class Packer:
    """Reads a block and packs it; travels to workers.

    Args:
        reader: of the source.
        schema: of the copy.
        zstd: how columns are compressed, with their dictionaries.
    """

    def __init__(self, reader: Reader, schema: Schema, zstd: Mapping[str, Zstd]) -> None:
        self._reader = reader
        self._schema = schema
        self._zstd = dict(zstd)
        self._codecs = {name: _codec(field, zstd.get(name)) for name, field in schema.items()}

    def __call__(self, start: int) -> Block:
        """The block that begins with row ``start``.

        Raises:
            CorruptRecord: a record cannot be read.
            FormatError: a value cannot be stored. Both name the record.
        """
        rows = self._reader.rows(start)
        found = self._reader.read(rows)
        columns = {name: self._packed(name, found.values[name], start) for name in self._schema}
        return Block(start, len(rows), columns, found.keys, found.metas)

    def _packed(self, name: str, values: Values, start: int) -> PackedColumn:
        field, packer = self._schema[name], self._codecs[name]
        if isinstance(values, np.ndarray) and _as_stored(field, values):
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            return PackedColumn(data, np.full(len(values), field.nbytes, dtype=np.int64))
        packed: list[bytes | None] = []
        try:
            # What came before an error is in the list then: its length names the record.
            packed.extend(
                None if value is None else packer.encode(_undecoded(field, value))
                for value in values
            )
        except FormatError as error:
            row = start + len(packed)
            source = name_of(self._reader.dataset)
            raise FormatError(f"column {name!r} of record {row} of {source}: {error}") from error
        lengths = [_MISSING if value is None else len(value) for value in packed]
        joined = b"".join(value for value in packed if value is not None)
        return PackedColumn(np.frombuffer(joined, np.uint8), np.array(lengths, dtype=np.int64))

    def __reduce__(self) -> Any:
        return Packer, (self._reader, self._schema, self._zstd)


def _codec(field: Field, zstd: Zstd | None) -> Codec:
    if field.compression is None or zstd is None:
        return codec(field)
    dictionary = zstd.dictionary if isinstance(zstd.dictionary, bytes) else b""
    return codec(field, dictionary=dictionary, level=zstd.level)


def _as_stored(field: Field, values: npt.NDArray[Any]) -> bool:
    """Whether the bytes of an array are those of its values, one after the other."""
    return (
        field.compression is None
        and field.stackable
        and values.dtype == field.numpy_dtype
        and values.shape[1:] == field.fixed_shape
    )


def _undecoded(field: Field, value: Any) -> Any:
    if field.kind in _MEDIA and not isinstance(value, bytes | bytearray | memoryview):
        raise FormatError(
            f"it is a decoded {field.kind}: open the source without decode=True, so that the "
            "file is copied and not its pixels or samples"
        )
    return value


# -- dictionaries ----------------------------------------------------------------------------


def trained(reader: Reader, schema: Schema, zstd: Mapping[str, Zstd]) -> dict[str, Zstd]:
    """The same compression, with dictionaries trained from stretches all over the source."""
    names = [name for name, how in zstd.items() if how.dictionary is True]
    found = dict(zstd)
    for name in names:
        plain = _codec(replace(schema[name], compression=None), None)
        samples = [
            plain.encode(value)
            for rows in _stretches(reader)
            for value in _readable(reader, rows, name)
            if value is not None
        ]
        found[name] = Zstd(zstd[name].level, train(samples) or False)
    return found


def _stretches(reader: Reader) -> Iterator[Rows]:
    """Neighbouring rows at 16 places, together of about 2 x `BLOCK_NBYTES`."""
    count = len(reader.dataset)
    length = max(1, reader.size // (_SAMPLES // 2))
    starts = np.linspace(0, max(0, count - length), min(_SAMPLES, count), dtype=np.int64).tolist()
    before = 0
    for start in starts:
        yield np.arange(max(start, before), min(start + length, count), dtype=np.int64)
        before = start + length


def _readable(reader: Reader, rows: Rows, name: str) -> Values:
    try:
        return reader.dataset.records.read(rows, (name,))[name] if len(rows) else []
    except SplitpipeError:
        return []  # which is said when its turn comes
