"""The table that says what samples there are.

Responsible for: `Table`, the records of a table with what is known beside them (its name, what its
paths are relative to, its keys, what it is known by); tables in memory, made of rows; and opening
files of tables with the readers of ``formats``.

Rules:
- the order of the rows is the table's identity: sizes and contents of its files and the number of
  its rows go into what a state of a run compares;
- rows are read when they are needed; only tables of JSON, lists and folders are held in memory;
- columns that a file of JSON Lines has are those of its first rows, unless they are said.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.formats import recognise
from splitpipe.formats.base import suffix_of
from splitpipe.formats.names import column_names
from splitpipe.raw.catalog import TableCatalog
from splitpipe.schema import BARE, Field, FieldLike, Schema
from splitpipe.storage import files
from splitpipe.storage.base import MemoryRecords, Records
from splitpipe.views import Selection

if TYPE_CHECKING:
    from splitpipe.raw.copies import Copies

__all__ = ["SUFFIXES", "Table", "memory_table", "print_of", "read_files"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".parq", ".json")

_GLANCE = 1000
"""Rows of JSON Lines that are looked at for the names of columns."""

_WHOLE_NBYTES = 64 << 20
"""A file up to this size is known by all of its bytes, a larger one by some."""

_SAMPLES, _SAMPLE_NBYTES = 256, 64 << 10
_LONGEST_JSON = 4 << 30


@dataclass(frozen=True, slots=True)
class Table:
    """A table, opened.

    Attributes:
        records: its rows.
        name: what it is called in messages.
        base: what relative paths in it are relative to: a folder, or a url.
        identity: stands for its contents, 32 hexadecimal digits.
        key: the column that names samples.
        files: the columns that are paths by what the table is: of a folder, or a list.
        copies: of a remote table, its files here.
        borrowed: whether the records are somebody else's, who closes them.
        catalog: answers questions in SQL about its rows.
    """

    records: Records
    name: str
    base: str
    identity: str
    key: str | None = None
    files: tuple[str, ...] = ()
    copies: Copies | None = None
    borrowed: bool = False
    catalog: TableCatalog = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "catalog", TableCatalog(self.records, self.key))

    def identity_of(self, selection: Selection | None) -> str:
        """Stands for some of its rows, in their order."""
        rows = None if selection is None else selection.rows
        if rows is None or (isinstance(rows, range) and rows == range(len(self.records))):
            return self.identity
        said = repr(rows).encode() if isinstance(rows, range) else rows.tobytes()
        return hashlib.blake2b(self.identity.encode() + said, digest_size=16).hexdigest()

    def key_of(self, row: int) -> str | None:
        """The key of a row, where there are keys and it can be read."""
        if self.key is None:
            return None
        try:
            return self.catalog.keys(np.array([row], dtype=np.int64))[0]
        except Exception:  # it is for a message about another error
            return None

    def close(self) -> None:
        """Let go of its files; a second call does nothing."""
        self.catalog.close()
        if not self.borrowed:
            self.records.close()
        if self.copies is not None:
            self.copies.close()

    def __reduce__(self) -> Any:
        records = self.records if self.copies is None else None
        known = (self.name, self.base, self.identity, self.key, self.files, self.copies)
        # Where it arrives nobody else has it.
        return _again, (records, known)


def _again(records: Records | None, known: tuple[Any, ...]) -> Table:
    copies = known[5]
    return Table(copies.open() if records is None else records, *known)


def read_files(
    paths: Sequence[str], *, format: str | None, index_dir: str | None, options: Mapping[str, Any]
) -> Records:
    """The rows of local files of one kind, end to end.

    Raises:
        FormatError: they are no tables, or of several kinds.
    """
    if format == "json" or (format is None and suffix_of(paths[0]) == ".json"):
        if options:
            raise TypeError(f"a table of JSON has no option {next(iter(options))!r}")
        return memory_table([row for path in paths for row in _json_rows(path)])
    given: Any = paths[0] if len(paths) == 1 else list(paths)

    def opened(**more: Any) -> Records:
        return recognise(given, format=format, index_dir=index_dir, **options, **more)

    records = opened()
    if not (records.schema.bare and records.schema[BARE].kind == "json"):
        if records.schema.bare:
            raise FormatError(f"{paths[0]} has no columns: a table is needed, not single values")
        return records
    glance = records.read(np.arange(min(_GLANCE, len(records))), [BARE])[BARE]
    names: dict[str, None] = {}
    for value in glance:
        if not isinstance(value, dict):
            raise FormatError(f"{paths[0]}: a row of a table is an object, not {value!r:.60}")
        names.update(dict.fromkeys(value))
    records.close()
    if not names:
        raise FormatError(
            f"{paths[0]} has no rows that could name its columns: say them by "
            "table_options={'columns': [...]}"
        )
    return opened(columns=list(names))


def _json_rows(path: str) -> list[Any]:
    data = files.read_whole(path, limit=_LONGEST_JSON)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from error
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        if len({len(values) for values in value.values()}) > 1:
            raise FormatError(f"{path}: its columns have different lengths")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FormatError(
            f"{path} is no table: a table of JSON is a list of objects, or an object of lists"
        )
    return value


def memory_table(rows: Iterable[Mapping[str, Any]]) -> MemoryRecords:
    """Rows as records in memory: columns as their names say, each of the type that all values fit.

    Raises:
        FormatError: there is no row, so that nothing names the columns.

    Example:
        >>> memory_table([{"url": "a.jpg", "n": 1}, {"url": "b.jpg"}]).schema
        Schema({'url': Field('str'), 'n': Field('int64')})
    """
    held = list(rows)
    names: dict[str, None] = {}
    for row in held:
        names.update(dict.fromkeys(row))
    if not names:
        raise FormatError("there are no rows: nothing says which columns there are")
    columns = {
        column: [row.get(given) for row in held] for column, given in column_names(names).items()
    }
    fields: dict[str, FieldLike] = {name: _field_of(values) for name, values in columns.items()}
    return MemoryRecords(Schema(fields), columns)


def _field_of(values: Sequence[Any]) -> Field:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return Field("str")
    if kinds == {bool}:
        return Field("scalar", dtype="bool")
    if kinds == {int} and all(v is None or -(1 << 63) <= v < 1 << 63 for v in values):
        return Field("scalar", dtype="int64")
    if kinds in ({float}, {int, float}):
        return Field("scalar", dtype="float64")
    if kinds == {bytes}:
        return Field("bytes")
    return Field("json")


def print_of(path: str) -> bytes:
    """What a file is known by wherever it lies: its size and its bytes, of a large one some."""
    size = files.size_of(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with files.opened(path, os.O_RDONLY) as descriptor:
        if size <= _WHOLE_NBYTES:
            digest.update(files.read_at(descriptor, size, 0, path))
        else:
            last = size - _SAMPLE_NBYTES
            for number in range(_SAMPLES):
                place = last * number // (_SAMPLES - 1)
                digest.update(files.read_at(descriptor, _SAMPLE_NBYTES, place, path))
    return digest.digest()
