"""Records in Arrow's record batches, read where they are mapped.

Responsible for: `ArrowRecords`: the batches of IPC files and streams, their counts, the columns
that are valid, and the order of rows that an indices file gives. Imports pyarrow.

Rules:
- files are mapped, as everybody maps them; what is not compressed is read where it lies;
- a column of a batch is validated whole before the first value is taken from it (Arrow itself
  checks a batch's frame, and trusts what is inside);
- batches are opened when they are needed and bounded by ``cache_nbytes``. Only a stream with
  dictionaries, which cannot be entered in the middle, is held whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.chunks import Cache, ChunkedRecords, Chunks, Values, bins_of
from splitpipe.formats.columnar.arrowfields import readings_of, schema_of
from splitpipe.formats.columnar.arrowtypes import Reading, refused
from splitpipe.formats.files.sources import Fingerprint, fingerprint
from splitpipe.formats.names import column_names
from splitpipe.storage.base import Batch, Catalog, Rows
from splitpipe.storage.layout import BinLayout

__all__ = ["ArrowRecords"]

_FILE_MAGIC = b"ARROW1"
_OLD_MAGIC = b"FEA1"
# What a batch that lies in a map costs to keep: its description.
_MAPPED_NBYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class _Mapped:
    """One mapped file and where its batches are.

    Attributes:
        path: of the file.
        schema: of its batches.
        counts: rows of each batch.
        buffer: the whole file.
        reader: of a file with a footer.
        starts: of a stream, where each batch begins.
        held: of a stream with dictionaries, the batches themselves.
    """

    path: str
    schema: pa.Schema
    counts: tuple[int, ...]
    buffer: pa.Buffer
    reader: Any = None
    starts: tuple[int, ...] = ()
    held: tuple[pa.RecordBatch, ...] = ()

    def batch(self, number: int) -> pa.RecordBatch:
        with refused(f"batch {number} of {self.path}"):
            if self.held:
                return self.held[number]
            if self.reader is not None:
                return self.reader.get_batch(number)
            message = pa.ipc.read_message(self.buffer.slice(self.starts[number]))
            return pa.ipc.read_record_batch(message, self.schema)

    def cost(self, batch: pa.RecordBatch) -> int:
        """What keeping a batch costs in memory: its values, if they do not lie in the map.

        Arrow's own ``nbytes`` follows offsets that nobody has validated yet.
        """
        first, last = self.buffer.address, self.buffer.address + self.buffer.size
        buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer]
        elsewhere = [int(b.size) for b in buffers if not first <= b.address < last]
        return _MAPPED_NBYTES + sum(elsewhere)


def _map(path: str) -> _Mapped:
    with refused(path, FormatError):
        with pa.memory_map(path) as source:
            # The map lives as long as this does; the file need not stay open for it.
            buffer = source.read_buffer(source.size())
        start = buffer.slice(0, min(8, buffer.size)).to_pybytes()
        if start.startswith(_OLD_MAGIC):
            raise FormatError(f"{path} is a Feather file of version 1: write it anew as version 2")
        if start.startswith(_FILE_MAGIC):
            return _map_file(path, buffer)
        return _map_stream(path, buffer)


def _map_file(path: str, buffer: pa.Buffer) -> _Mapped:
    reader = pa.ipc.open_file(buffer)
    # To count rows, one column is enough; the narrowest, should it be compressed.
    schema = reader.schema
    fixed = [i for i, field in enumerate(schema) if pa.types.is_primitive(field.type)]
    options = pa.ipc.IpcReadOptions(included_fields=(fixed or [0])[:1] if len(schema) else None)
    counter = pa.ipc.open_file(buffer, options=options)
    counts = tuple(counter.get_batch(i).num_rows for i in range(counter.num_record_batches))
    if counts:
        reader.get_batch(0)  # also reads the dictionaries, which later are only looked up
    return _Mapped(path, schema, counts, buffer, reader)


def _map_stream(path: str, buffer: pa.Buffer) -> _Mapped:
    source = pa.BufferReader(buffer)
    reader = pa.ipc.open_stream(source)
    keep = _has_dictionary(reader.schema)
    counts: list[int] = []
    starts: list[int] = []
    held: list[pa.RecordBatch] = []
    while True:
        starts.append(source.tell())
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        counts.append(batch.num_rows)
        if keep:
            held.append(batch)
    # A stream ends with a mark of eight bytes; without, nobody can tell whether it was cut.
    if source.tell() - starts[-1] < 8:
        raise FormatError(
            f"{path} ends at byte {source.tell()} without the mark that ends a stream: it was cut, "
            "or is still being written; copy it again"
        )
    return _Mapped(
        path, reader.schema, tuple(counts), buffer, starts=tuple(starts), held=tuple(held)
    )


def _has_dictionary(kinds: Any) -> bool:
    for field in kinds:
        kind = field.type
        if pa.types.is_dictionary(kind):
            return True
        if pa.types.is_nested(kind) and _has_dictionary(
            kind.field(i) for i in range(kind.num_fields)
        ):
            return True
    return False


class ArrowRecords(ChunkedRecords):
    """The rows of Arrow files, one after the other; made by ``FORMAT.open``.

    Args:
        paths: the files, in order.
        indices: files with one column of row numbers: the order in which rows are read.
        cache_nbytes: how much of unpacked batches is kept.
    """

    catalog: Catalog | None = None

    def __init__(
        self, paths: Sequence[str], indices: Sequence[str] = (), *, cache_nbytes: int
    ) -> None:
        self._given = (tuple(paths), tuple(indices), cache_nbytes)
        self._known_by = _known(paths)
        self._files = [_map(path) for path in paths]
        self._batches = [
            (file, number) for file in self._files for number in range(len(file.counts))
        ]
        self._chunks = Chunks([count for file in self._files for count in file.counts])
        with refused(paths[0], FormatError):
            self._readings, self._places = _readings(self._files)
        self.schema = schema_of(self._files[0].schema, self._readings)
        self._cache = Cache[list[pa.Array]](cache_nbytes)
        self._valid: set[tuple[int, str]] = set()
        self._order = _order(indices, self._chunks.rows) if indices else None

    def __len__(self) -> int:
        return super().__len__() if self._order is None else len(self._order)

    def __repr__(self) -> str:
        return f"ArrowRecords({len(self)} rows of {len(self._files)} files)"

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch, column by column; see ``Records.read``."""
        return super().read(rows if self._order is None else self._order[rows], columns, out)

    def layout(self) -> BinLayout:
        """A file is a bin; with an order of its own, all is one bin."""
        if self._order is not None:
            return bins_of([len(self)])
        return bins_of([sum(file.counts) for file in self._files])

    def close(self) -> None:
        """Let go of the batches that were unpacked. Maps end with the object; no file is open."""
        self._cache.clear()

    def _values(self, chunk: int, local: Rows, columns: Sequence[str]) -> dict[str, Values]:
        file, number = self._batches[chunk]
        stored = self._cache.get(chunk, lambda: self._opened(file, number))
        values: dict[str, Values] = {}
        for name in columns:
            column = stored[self._places[name]]
            with refused(f"column {name!r} in batch {number} of {file.path}"):
                if (chunk, name) not in self._valid:
                    column.validate(full=True)
                    self._valid.add((chunk, name))
                values[name] = self._readings[name].values(column, local)
        return values

    def _opened(self, file: _Mapped, number: int) -> tuple[list[pa.Array], int]:
        """The columns of a batch, and what they cost."""
        batch = file.batch(number)
        if batch.num_rows != file.counts[number]:
            raise CorruptRecord(f"batch {number} of {file.path} changed since it was opened")
        return batch.columns, file.cost(batch)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._given, self._known_by)


def _reopen(
    given: tuple[Sequence[str], Sequence[str], int], known_by: Sequence[Fingerprint]
) -> ArrowRecords:
    paths, indices, cache_nbytes = given
    if _known(paths) != tuple(map(tuple, known_by)):
        raise FormatError(
            f"the files of {os.path.dirname(paths[0])} are not what they were when the dataset was "
            "opened: open it again"
        )
    return ArrowRecords(paths, indices, cache_nbytes=cache_nbytes)


def _known(paths: Sequence[str]) -> tuple[Fingerprint, ...]:
    return tuple(fingerprint(path) for path in paths)


def _readings(mapped: Sequence[_Mapped]) -> tuple[dict[str, Reading], dict[str, int]]:
    """How each column is read, and its place in a batch. All files have the same columns."""
    first = mapped[0]
    for other in mapped[1:]:
        if not other.schema.equals(first.schema):
            raise FormatError(
                f"{other.path} has other columns than {first.path}: {other.schema.names} of types "
                f"{[str(t) for t in other.schema.types]}, not {first.schema.names} of types "
                f"{[str(t) for t in first.schema.types]}; open them one by one"
            )
    if not len(first.schema):
        raise FormatError(f"{first.path} has no columns")
    names = column_names(first.schema.names)
    places = {name: place for place, name in enumerate(names)}
    return readings_of(first.schema, names), places


def _order(paths: Sequence[str], rows: int) -> Rows:
    """The row numbers that indices files hold."""
    parts: list[npt.NDArray[Any]] = []
    for path in paths:
        mapped = _map(path)
        for number in range(len(mapped.counts)):
            with refused(path):
                column = mapped.batch(number).column(0)
                column.validate(full=True)
                if not pa.types.is_integer(column.type) or column.null_count:
                    raise FormatError(f"{path} does not hold row numbers")
                parts.append(column.to_numpy())
    order = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
    if len(order) and int(order.max()) >= rows:
        raise FormatError(f"{paths[0]} names row {order.max()} of {rows}")
    return order.astype(np.int64)
