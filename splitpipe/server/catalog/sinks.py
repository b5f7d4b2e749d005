"""Where the rows of an upload go.

Responsible for: `Sink`, the seam; `BinSink`, bins with a commit for every call; `FileSink`, one
file of CSV, JSON Lines or Parquet for every call; and `rows_of`, what a call may carry.

Rules:
- a call is durable before its method returns, and is there whole or not at all;
- what a format cannot hold is refused, never written as something else.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from splitpipe.errors import Conflict, FormatError, InvalidRequest, SplitpipeError
from splitpipe.schema import Field, Schema
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.snapshot import read_manifest
from splitpipe.storage.writer import DatasetWriter

__all__ = ["BinSink", "FileSink", "Sink", "rows_of"]

Row = Mapping[str, Any]
_BINS: Final = 16
# The number of the call, and how many rows it brought.
_PART: Final = re.compile(r"part-([0-9]{8})-([0-9]+)\.(?:csv|jsonl|parquet)")
_MOST_CALLS: Final = 100_000_000


def rows_of(value: Any) -> Sequence[Row]:
    """The rows that a call carries.

    Args:
        value: a list of rows, or a dict of columns.

    Raises:
        InvalidRequest: it is neither, or columns differ in length.

    Example:
        >>> rows_of({"n": np.arange(2), "text": ["a", None]})
        [{'n': 0, 'text': 'a'}, {'n': 1, 'text': None}]
    """
    if isinstance(value, Mapping):
        lengths = {len(column) for column in value.values() if hasattr(column, "__len__")}
        if len(lengths) != 1 or any(not hasattr(v, "__len__") for v in value.values()):
            raise InvalidRequest(
                f"columns must be lists or arrays of one length, not of {sorted(lengths)}"
            )
        columns = [_singles(column) for column in value.values()]
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, list | tuple) and all(isinstance(row, Mapping) for row in value):
        return list(value)
    raise InvalidRequest("rows are a list of objects, or an object of columns")


def _singles(column: Any) -> Sequence[Any]:
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "biufcSU":
        return list(column.tolist())
    return list(column)


class Sink(ABC):
    """Takes the rows of an upload, call by call.

    Attributes:
        next_sequence: of the call that is wanted.
        rows: how many were written so far.
    """

    next_sequence: int
    rows: int

    @abstractmethod
    def append(self, sequence: int, rows: Sequence[Row], schema: Schema) -> None:
        """Write the rows of call `next_sequence`, durably.

        Raises:
            FormatError: one does not fit; none was written.
            StorageError: they cannot be written.
        """

    @abstractmethod
    def finish(self, schema: Schema) -> None:
        """Write what is there even if there are no rows, and let go."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; a second call does nothing."""


class BinSink(Sink):
    """Bins: a commit for every call, which says how many calls there were.

    Args:
        path: of the folder.
        format: is not needed.
    """

    def __init__(self, path: str, format: str) -> None:
        self._path = path
        self._writer: DatasetWriter | None = None
        self.next_sequence, self.rows = 0, 0
        if files.is_there(os.path.join(path, MANIFEST_NAME)):
            manifest = read_manifest(path)
            self.next_sequence = int((manifest.note or {}).get("calls", 0))
            self.rows = manifest.live_rows

    def append(self, sequence: int, rows: Sequence[Row], schema: Schema) -> None:
        """See `Sink.append`."""
        writer = self._opened(schema)
        writer.write_many(rows)
        writer.note = {"calls": sequence + 1}
        writer.commit()
        self.next_sequence = sequence + 1
        self.rows = writer.committed_rows

    def _opened(self, schema: Schema) -> DatasetWriter:
        if self._writer is None:
            there = files.is_there(os.path.join(self._path, MANIFEST_NAME))
            self._writer = DatasetWriter(
                self._path, schema, append=there, bins=None if there else _BINS
            )
        return self._writer

    def finish(self, schema: Schema) -> None:
        """See `Sink.finish`."""
        writer = self._opened(schema)
        if writer.committed_rows == 0:
            writer.note = {"calls": self.next_sequence}
            writer.commit()
        self.close()

    def close(self) -> None:
        """See `Sink.close`: what was not committed is taken back."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # The next writer cuts what is left; the set may have been removed meanwhile.
            with contextlib.suppress(SplitpipeError):
                writer.abort()


class FileSink(Sink):
    """Files: one for every call, named after its number and how many rows it brought.

    Args:
        path: of the folder.
        format: ``csv``, ``jsonl`` or ``parquet``.
    """

    def __init__(self, path: str, format: str) -> None:
        self._path = path
        self._format = format
        files.make_directory(path)
        with files.translated("list the folder", path):
            found = sorted(
                (int(m[1]), int(m[2])) for m in map(_PART.fullmatch, os.listdir(path)) if m
            )
        self.next_sequence = len(found)
        self.rows = sum(rows for _, rows in found)
        if [number for number, _ in found] != list(range(len(found))):
            raise Conflict(f"files are missing in {path}: remove this column set")

    def append(self, sequence: int, rows: Sequence[Row], schema: Schema) -> None:
        """See `Sink.append`."""
        if sequence >= _MOST_CALLS:
            raise Conflict(f"an upload has at most {_MOST_CALLS} calls: send more rows in each")
        for row in rows:
            schema.check(row)
        data = _ENCODERS[self._format](rows, schema)
        name = f"part-{sequence:08d}-{len(rows)}.{self._format}"
        files.replace(os.path.join(self._path, name), data)
        files.sync_directory(self._path)
        self.next_sequence = sequence + 1
        self.rows += len(rows)

    def finish(self, schema: Schema) -> None:
        """See `Sink.finish`."""
        if not self.next_sequence:
            self.append(0, [], schema)

    def close(self) -> None:
        """See `Sink.close`: no file stays open."""


# --- rows as files -------------------------------------------------------------------------------


def _csv(rows: Sequence[Row], schema: Schema) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema)
    for row in rows:
        writer.writerow([_csv_field(name, field, row.get(name)) for name, field in schema.items()])
    return text.getvalue().encode("utf-8")


def _csv_field(name: str, field: Field, value: Any) -> str:
    if field.kind == "str":
        if value is None:
            raise FormatError(
                f"column {name!r}: CSV cannot tell a missing text from an empty one: write bins, "
                "JSON Lines or Parquet"
            )
        return str(value)
    if value is None:
        return ""
    if field.kind == "scalar":
        return _scalar_text(name, field, value)
    return _json_text(name, field, value, "CSV")


def _scalar_text(name: str, field: Field, value: Any) -> str:
    kind = field.numpy_dtype.kind
    if kind == "b":
        return "true" if value else "false"
    if kind in "iu":
        return str(int(value))
    if kind == "f":
        return repr(float(value))
    if kind == "M":
        return str(np.datetime64(value))
    raise FormatError(f"column {name!r}: CSV holds no {field.dtype}: write bins")


def _json_text(name: str, field: Field, value: Any, format: str) -> str:
    if field.kind not in ("json", "ndarray"):
        raise FormatError(
            f"column {name!r}: {format} holds no {field.kind}: write bins, or Parquet"
        )
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise FormatError(f"column {name!r}: {format} holds no arrays of {value.dtype}")
        value = value.tolist()
    return json.dumps(value, ensure_ascii=False)


def _jsonl(rows: Sequence[Row], schema: Schema) -> bytes:
    lines: list[str] = []
    for row in rows:
        members = [
            f"{json.dumps(name)}: {_json_value(name, field, row.get(name))}"
            for name, field in schema.items()
        ]
        lines.append(f"{{{', '.join(members)}}}\n")
    return "".join(lines).encode("utf-8")


def _json_value(name: str, field: Field, value: Any) -> str:
    if value is None:
        return "null"
    if field.kind == "scalar":
        if field.numpy_dtype.kind in "cmM":
            raise FormatError(f"column {name!r}: JSON Lines holds no {field.dtype}: write bins")
        return json.dumps(value.item() if isinstance(value, np.generic) else value)
    if field.kind == "str":
        return json.dumps(value, ensure_ascii=False)
    return _json_text(name, field, value, "JSON Lines")


def _parquet(rows: Sequence[Row], schema: Schema) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from splitpipe.dataset.dataset import dataset_of
    from splitpipe.integrations.arrow import to_arrow
    from splitpipe.storage.base import MemoryRecords

    held = {name: [row.get(name) for row in rows] for name in schema}
    table = to_arrow(dataset_of(MemoryRecords(schema, held)))
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return bytes(out.getvalue())


_ENCODERS: Final = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
