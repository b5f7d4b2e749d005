"""Reading records without keeping them anywhere.

Responsible for: `read_through`, for what a cache cannot hold, or should not: the same values, made
of bytes that come straight from the store, just those of the records.

Rules:
- it always goes on, however small the cache is;
- neighbours come in one request, and requests go out side by side;
- a record is compared with its checksum as ever, and fetched once more when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import CacheFull, CorruptRecord
from splitpipe.remote.columns import RemoteColumn
from splitpipe.schema import Schema
from splitpipe.storage.appender import MISSING
from splitpipe.storage.base import Batch, Rows, Values, missing_in_out
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    RECORD_HEADER_NBYTES,
    place,
)

__all__ = ["Through", "read_through"]

# Bytes between two records that are rather thrown away than asked for around.
_GAP_NBYTES = 16 << 10
_LARGEST_NBYTES = 8 << 20

# number of the file, first byte, end
_Piece = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Through:
    """How to read through memory.

    Attributes:
        schema: of the records.
        columns: by name.
        verify: whether checksums are compared.
        side_by_side: ``map`` with several threads.
    """

    schema: Schema
    columns: Mapping[str, RemoteColumn]
    verify: bool
    side_by_side: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


def read_through(
    how: Through,
    physical: Rows,
    names: Sequence[str],
    out: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Batch:
    """Values of some columns, as `Records.read` gives them.

    Args:
        how: to read.
        physical: the rows.
        names: which columns.
        out: arrays to fill, which were looked at.
    """
    batch: Batch = {}
    for name in names:
        column, rows = how.columns[name], physical.tolist()
        entries = _entries(column, physical)
        stored = _stored(how, column, rows, entries)
        values = [
            None if one is None else column.values.decoded(row, one)
            for row, one in zip(rows, stored, strict=True)
        ]
        given = None if out is None else out.get(name)
        batch[name] = _assembled(how.schema, name, values, physical, given)
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


def _entries(column: RemoteColumn, rows: Rows) -> npt.NDArray[Any]:
    """Index entries: from the cache where it can hold them, else one by one."""
    files = column.files
    try:
        for _ in range(4):
            token = files.ensure(column.index_spans(rows))
            found = column.values.reader.raw_entries(rows)
            if token.still_valid():
                return found
    except CacheFull:
        pass
    index = files.file(files.index)
    places = (FILE_HEADER_NBYTES + ENTRY_NBYTES * rows).tolist()
    raw = b"".join(index.read(at, at + ENTRY_NBYTES) for at in places)
    return np.frombuffer(raw, dtype=ENTRY_DTYPE)


def _stored(
    how: Through, column: RemoteColumn, rows: list[int], entries: npt.NDArray[Any]
) -> list[bytes | None]:
    """The bytes of values, proven; ``None`` for a missing one."""
    pieces = [_piece(column, row, *e) for row, e in zip(rows, entries.tolist(), strict=True)]
    fetched = _fetched(how, column, pieces)
    found: list[bytes | None] = []
    for row, entry, piece in zip(rows, entries.tolist(), pieces, strict=True):
        data = fetched[piece]
        if not _fits(column, row, entry, data) and how.verify:
            if _is_missing(column, row, entry):
                found.append(None)
                continue
            data = _once_more(column, row)
        elif not data and _is_missing(column, row, entry):
            found.append(None)
            continue
        found.append(data)
    return found


def _piece(
    column: RemoteColumn, row: int, offset: int, length: int, number: int, _crc: int
) -> _Piece:
    files = column.files
    if number >= files.index:
        raise CorruptRecord(f"record {row}: its index entry names bin {number}, there is none")
    size = files.sizes[number]
    if offset < FILE_HEADER_NBYTES + RECORD_HEADER_NBYTES or offset + length > size:
        raise CorruptRecord(
            f"record {row}: its index entry names bytes {offset} to {offset + length} of "
            f"{files.url(number)}, which has {size}"
        )
    return number, offset, offset + length


def _fetched(how: Through, column: RemoteColumn, pieces: list[_Piece]) -> dict[_Piece, bytes]:
    """The bytes of pieces, neighbours in one request."""
    wanted = sorted(set(pieces))
    groups: list[list[_Piece]] = []
    for piece in wanted:
        number, start, stop = piece
        if groups:
            other, first, _ = groups[-1][0]
            near = start - groups[-1][-1][2] <= _GAP_NBYTES and stop - first <= _LARGEST_NBYTES
            if other == number and near:
                groups[-1].append(piece)
                continue
        groups.append([piece])

    def fetch(group: list[_Piece]) -> bytes:
        number, first, stop = group[0][0], group[0][1], max(piece[2] for piece in group)
        return column.files.fetched(number, first, stop) if stop > first else b""

    found: dict[_Piece, bytes] = {}
    for group, data in zip(groups, how.side_by_side(fetch, groups), strict=True):
        first = group[0][1]
        for piece in group:
            found[piece] = data[piece[1] - first : piece[2] - first]
    return found


def _fits(column: RemoteColumn, row: int, entry: tuple[int, ...], data: bytes) -> bool:
    offset, _, number, crc = entry
    start = place(column.values.reader.seeds[number], offset, row)
    return bool(google_crc32c.extend(start, data) == crc)


def _is_missing(column: RemoteColumn, row: int, entry: tuple[int, ...]) -> bool:
    return not entry[1] and bool(column.values.missing) and _fits(column, row, entry, MISSING)


def _once_more(column: RemoteColumn, row: int) -> bytes:
    """Fetch a record again whose checksum did not fit, and its index entry."""
    files = column.files
    files.throw_away(column.index_spans(np.array([row], dtype=np.int64)))
    at = FILE_HEADER_NBYTES + ENTRY_NBYTES * row
    raw = files.file(files.index).read(at, at + ENTRY_NBYTES)
    entry = np.frombuffer(raw, dtype=ENTRY_DTYPE).tolist()[0]
    number, start, stop = _piece(column, row, *entry)
    data = files.fetched(number, start, stop)
    if _fits(column, row, entry, data):
        return data
    raise CorruptRecord(
        f"record {row}: {stop - start} bytes at offset {start} of {files.url(number)} do not fit "
        "their checksum: copy the dataset there again"
    )
