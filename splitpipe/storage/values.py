"""The values of one column of a snapshot.

Responsible for: `ColumnValues`: from rows to values, by way of the column's reader and codec; and
for knowing which values are missing.

Rules:
- a missing value has an index entry of length 0, whose checksum is of the word ``missing``: it
  is told from an empty value by that, and proven like every other;
- an array of values is filled by the reader in one go; where that cannot be, value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.codecs import Codec, Compressed
from splitpipe.errors import FormatError
from splitpipe.schema import Field
from splitpipe.storage import stream
from splitpipe.storage.appender import MISSING
from splitpipe.storage.base import Order, Rows, Values, missing_in_out
from splitpipe.storage.committed import Column
from splitpipe.storage.format import place
from splitpipe.storage.reader import ColumnReader

__all__ = ["ColumnValues", "is_missing"]


def is_missing(reader: ColumnReader, row: int) -> bool:
    """Whether the index says, and proves, that a row has no value."""
    entry = reader.entry(row)
    if entry.length or entry.number >= len(reader.seeds):
        return False
    start = place(reader.seeds[entry.number], entry.offset, row)
    return bool(google_crc32c.extend(start, MISSING) == entry.crc)


class ColumnValues:
    """Values of one column, by physical row.

    Args:
        column: what the manifest says of it.
        reader: of its records.
        codec: of its field.

    Attributes:
        reader: the same.
        missing: how many rows have no value.
        streams: whether all values are there, so that neighbours may be read in runs.
    """

    __slots__ = (
        "_codec",
        "_direct",
        "_dtype",
        "_shape",
        "field",
        "missing",
        "name",
        "reader",
        "streams",
    )

    def __init__(self, column: Column, reader: ColumnReader, codec: Codec) -> None:
        self.name = column.name
        self.field: Field = column.field
        self.reader = reader
        self.streams = not column.missing
        self._codec = codec
        self.missing = column.missing
        self._direct = column.field.stackable and column.field.compression is None
        # Of every value of a stackable column; worked out once, not for every batch.
        self._shape = self.field.fixed_shape if self.field.stackable else None
        self._dtype = self.field.numpy_dtype if self.field.stackable else None

    def get(self, row: int) -> Any:
        """One value.

        Args:
            row: physical, checked.
        """
        record = self.reader.get(row)
        if not record:
            if self.missing and is_missing(self.reader, row):
                return None
            if record is None:
                record = self.reader.read(row)
        try:
            return self._codec.decode(record)
        except FormatError as error:
            raise self._placed(error, row) from error

    def decoded(self, row: int, record: bytes) -> Any:
        """The value that stored bytes of a row are, which were compared with their checksum."""
        return self._decode(row, record)

    def quick(self) -> Callable[[int], Any] | None:
        """The shortest way to one value: a function that gives it, or ``None``: see `get`.

        Only where no value is missing, and it pays.
        """
        if self.missing or self.field.kind not in ("bytes", "str"):
            return None
        if isinstance(self._codec, Compressed):
            return self._codec.quick(self.reader.decoded)
        return self.reader.get if self.field.kind == "bytes" else None

    def read(self, rows: Rows, out: npt.NDArray[Any] | None) -> Values:
        """Values in the given order: see `Records.read`."""
        lost = self._lost(rows) if self.missing else []
        if self._shape is not None and not lost:
            array = np.empty((len(rows), *self._shape), self._dtype) if out is None else out
            self._fill(rows, array)
            return array
        if out is not None:
            raise missing_in_out(self.name, int(rows[lost[0]]))
        if not lost:
            return self._decoded(rows)
        there = np.ones(len(rows), dtype=np.bool_)
        there[lost] = False
        values: list[Any] = [None] * len(rows)
        found = self._decoded(rows[there])
        for at, value in zip(np.flatnonzero(there).tolist(), found, strict=True):
            values[at] = value
        return values

    def _lost(self, rows: Rows) -> list[int]:
        """Which of these rows have no value, by their place among them."""
        empty = np.flatnonzero(self.reader.raw_lengths(rows) == 0)
        return [at for at in empty.tolist() if is_missing(self.reader, int(rows[at]))]

    def _fill(self, rows: Rows, array: npt.NDArray[Any]) -> None:
        if not len(rows) or (self._direct and self.reader.read_into(rows, array)):
            return
        records = self.reader.read_many(rows)
        try:
            self._codec.decode_into(records, array)
        except FormatError:
            # Once more, one by one, to say which.
            for row, record in zip(rows.tolist(), records, strict=True):
                self._decode(row, record)
            raise

    def _decoded(self, rows: Rows) -> list[Any]:
        records = self.reader.read_many(rows)
        if self.field.kind == "bytes" and self.field.compression is None:
            return records
        try:
            return list(map(self._codec.decode, records))
        except FormatError:
            return [self._decode(row, r) for row, r in zip(rows.tolist(), records, strict=True)]

    def _decode(self, row: int, record: bytes) -> Any:
        try:
            return self._codec.decode(record)
        except FormatError as error:
            raise self._placed(error, row) from error

    def _placed(self, error: FormatError, row: int) -> FormatError:
        return type(error)(f"field {self.name!r} of record {row}: {error}")

    def stream_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Values of consecutive rows; only if `streams`."""
        return self._decoding(stream.rows(self.reader, start, stop))

    def stream_ordered(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """Values at positions of an order; only if `streams`."""
        return self._decoding(stream.ordered(self.reader, order, start, stop))

    def _decoding(self, records: Iterator[bytes]) -> Iterator[Any]:
        if self.field.kind == "bytes" and self.field.compression is None:
            return records
        return map(self._codec.decode, records)

    def encoded(self, rows: Rows) -> Sequence[bytes | None]:
        """The stored bytes of values, for copying them; ``None`` for a missing one."""
        records: list[bytes | None] = list(self.reader.read_many(self._present(rows)))
        if not self.missing or len(records) == len(rows):
            return records
        found = iter(records)
        lost = set(self._lost(rows))
        return [None if at in lost else next(found) for at in range(len(rows))]

    def _present(self, rows: Rows) -> Rows:
        lost = self._lost(rows) if self.missing else []
        return np.delete(rows, lost) if lost else rows
