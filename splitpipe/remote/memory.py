"""Reading records without keeping them anywhere.

Responsible for: `read_through`, for what a cache cannot hold: the same values, made of bytes that
come straight from the store.

Rules:
- it always goes on, however small the cache is;
- a record is compared with its checksum as ever, and fetched once more when it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord
from splitpipe.remote.columns import RemoteColumn
from splitpipe.schema import Schema
from splitpipe.storage.appender import MISSING
from splitpipe.storage.base import Batch, Rows, Values, missing_in_out
from splitpipe.storage.format import (
    ENTRY,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    place,
)

__all__ = ["read_through"]

_ABSENT = object()


def read_through(
    schema: Schema,
    columns: Mapping[str, RemoteColumn],
    physical: Rows,
    names: Sequence[str],
    *,
    out: Mapping[str, npt.NDArray[Any]] | None,
    verify: bool,
) -> Batch:
    """Values of some columns, as `Records.read` gives them.

    Args:
        schema: of the records.
        columns: by name.
        physical: the rows.
        names: which columns.
        out: arrays to fill, which were looked at.
        verify: whether checksums are compared.
    """
    batch: Batch = {}
    for name in names:
        column, given = columns[name], None if out is None else out.get(name)
        values = [_value(column, row, verify=verify) for row in physical.tolist()]
        batch[name] = _assembled(schema, name, values, physical, given)
    return batch


def _assembled(
    schema: Schema, name: str, values: list[Any], rows: Rows, out: npt.NDArray[Any] | None
) -> Values:
    field = schema[name]
    lost = next((at for at, value in enumerate(values) if value is None), None)
    if out is not None and lost is not None:
        raise missing_in_out(name, int(rows[lost]))
    if not field.stackable or lost is not None:
        return values
    target = np.empty((len(rows), *field.fixed_shape), field.numpy_dtype) if out is None else out
    for at, value in enumerate(values):
        target[at] = value
    return target


def _value(column: RemoteColumn, row: int, *, verify: bool) -> Any:
    for again in (True, False):
        try:
            stored = _stored(column, row, verify=verify)
        except CorruptRecord:
            if not again:
                raise
            _throw_away(column, np.array([row], dtype=np.int64))
        else:
            break
    return None if stored is None else column.values.decoded(row, stored)


def _throw_away(column: RemoteColumn, rows: Rows) -> None:
    for spans in (column.index_spans(rows), column.data_spans(rows)):
        for file, ranges in column.files.opened(column.files.wanted(spans)):
            file.invalidate(ranges)


def _stored(column: RemoteColumn, row: int, *, verify: bool) -> bytes | None:
    """The bytes of a value, proven; ``None`` for a missing one."""
    files, reader = column.files, column.values.reader
    at = FILE_HEADER_NBYTES + ENTRY_NBYTES * row
    raw = files.file(files.index).read(at, at + ENTRY_NBYTES)
    offset, length, number, crc = ENTRY.unpack(raw)
    if number >= files.index:
        raise CorruptRecord(f"record {row}: its index entry names bin {number}, there is none")
    size = files.sizes[number]
    if offset < FILE_HEADER_NBYTES + RECORD_HEADER_NBYTES or offset + length > size:
        raise CorruptRecord(
            f"record {row}: its index entry names bytes {offset} to {offset + length} of "
            f"{files.url(number)}, which has {size}"
        )
    start = place(reader.seeds[number], offset, row)
    if not length and google_crc32c.extend(start, MISSING) == crc and column.values.missing:
        return None
    data = files.file(number).read(offset, offset + length) if length else b""
    if verify and google_crc32c.extend(start, data) != crc:
        raise CorruptRecord(
            f"record {row}: {length} bytes at offset {offset} of {files.url(number)} do not fit "
            "their checksum: copy the dataset there again"
        )
    return data
