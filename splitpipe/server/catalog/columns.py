"""Which columns a column set has, and of which types.

Responsible for: `infer`, which looks at the first file of a set; `declared`, which compares what
somebody said with what is there; and the JSON form in which columns are stored and told.

Rules:
- the first file decides, by at most `GLANCE` of its rows where a format does not say types itself;
  what does not fit later is an error that names its file, never a guess;
- a column of text whose values all are numbers, as Python writes them, is one of numbers; empty
  fields of such a column are missing values;
- names that no column may have are mended, so that any header can be read.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from splitpipe.errors import FormatError
from splitpipe.formats.base import suffix_of
from splitpipe.formats.files import compressed
from splitpipe.formats.files.sources import OpenFile
from splitpipe.formats.lines.finding import Window
from splitpipe.formats.names import column_names
from splitpipe.schema import Field, Schema

__all__ = ["GLANCE", "columns_of", "header_of", "infer_text", "inferred", "schema_from"]

GLANCE: Final = 1000
"""Rows of the first file that are looked at where a format says no types."""

_GLANCE_NBYTES: Final = 1 << 20
_HEADER_NBYTES: Final = 1 << 14

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|nan|-?inf")
_KINDS: Final = (
    (re.compile("true|false|True|False"), "bool"),
    (_INTEGER, "int64"),
    (_FLOAT, "float64"),
)


def columns_of(schema: Schema) -> list[dict[str, Any]]:
    """The columns as JSON: name, type, and the type in a few words.

    Example:
        >>> columns_of(Schema({"n": "int64"}))
        [{'name': 'n', 'type': 'scalar', 'dtype': 'int64', 'description': 'int64'}]
    """
    return [
        {"name": name, **field.to_json(), "description": field.description}
        for name, field in schema.items()
    ]


def schema_from(columns: Any) -> Schema:
    """The schema that columns as JSON mean: what `columns_of` made, or names with types.

    Raises:
        FormatError: they mean none.

    Example:
        >>> schema_from({"n": "int64", "text": "str"})
        Schema({'n': Field('int64'), 'text': Field('str')})
    """
    if isinstance(columns, Mapping):
        return Schema(columns)
    if isinstance(columns, Sequence) and not isinstance(columns, str):
        return Schema.from_json({"columns": list(columns)})
    raise FormatError(f"columns are an object of names and types, not {columns!r:.100}")


# --- text ----------------------------------------------------------------------------------------


def inferred(path: str, format: str) -> Schema:
    """What columns a file of text has.

    Args:
        path: of the file.
        format: ``csv`` or ``jsonl``.

    Raises:
        FormatError: nothing names the columns, or it is no such file.
    """
    return _of_objects(path) if format == "jsonl" else _of_rows(path, header_of(path)[0])


def header_of(path: str) -> tuple[list[str], bool]:
    """The names of the columns of a file of CSV; whether they are what its header says.

    Names that no column may have are mended, file by file: columns are found by name, whatever
    their order in a file.

    Raises:
        FormatError: it has no header.
    """
    row = next(_csv_rows(path, _HEADER_NBYTES), None) or next(_csv_rows(path), None)
    if row is None:
        raise FormatError(f"{path} has no row that could name the columns")
    names = list(column_names(row))
    return names, names == row


def infer_text(values: Iterable[str]) -> Field:
    """The type that all texts of a column fit.

    Example:
        >>> infer_text(["1", "", "20"]), infer_text(["1", "2.5"]), infer_text(["007"])
        (Field('int64'), Field('float64'), Field('str'))
    """
    there = [value for value in values if value]
    for pattern, dtype in _KINDS:
        if there and all(pattern.fullmatch(value) for value in there):
            return Field("scalar", dtype=dtype)
    return Field("str")


def _of_rows(path: str, names: Sequence[str]) -> Schema:
    rows = list(islice(_csv_rows(path), 1, GLANCE + 1))
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise FormatError(
                f"{path}: row {number} has {len(row)} fields, the header has {len(names)}"
            )
    return Schema({name: infer_text(row[at] for row in rows) for at, name in enumerate(names)})


def _csv_rows(path: str, nbytes: int = _GLANCE_NBYTES) -> Iterator[list[str]]:
    """The rows at the beginning of a file, as its reader will tell them."""
    # A setting of the whole process; raising it changes no result.
    csv.field_size_limit(max(csv.field_size_limit(), _GLANCE_NBYTES))
    lines, whole = _lines(path, nbytes)
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        before = next(rows, None)
        for row in rows:
            if before:
                yield before
            before = row
    except csv.Error as error:
        raise FormatError(f"{path} is no CSV: {error}") from error
    # The last one may go on behind what was looked at, where a quoted field holds line ends.
    if before and whole:
        yield before


def _of_objects(path: str) -> Schema:
    from splitpipe.raw.tables import memory_table  # a large room for one function

    lines, _ = _lines(path)
    rows: list[Any] = []
    for line in islice((line for line in lines if line.strip()), GLANCE):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: row {len(rows) + 1} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise FormatError(f"{path}: a row is an object of columns, not {row!r:.60}")
        rows.append(row)
    if not rows:
        raise FormatError(f"{path} has no row that could name the columns")
    named = {name: None for row in rows for name in row}
    for column, given in column_names(named).items():
        if column != given:
            raise FormatError(
                f"{path}: {given!r} is no name of a column (letters, digits and '_'): rename it, "
                "or declare the columns that are wanted"
            )
    return memory_table(rows).schema


def _lines(path: str, nbytes: int = _GLANCE_NBYTES) -> tuple[list[str], bool]:
    """The first lines of a file, expanded where it is compressed; whether that is all of it."""
    file = OpenFile(path)
    kind = compressed.kind_of(file)
    window = Window(file if kind is None else compressed.Expansion(kind, file), 0, None)
    while not window.ended and len(window.bytes) < _GLANCE_NBYTES:
        window.fill()
    data = window.bytes.tobytes()
    whole = window.ended and len(data) <= nbytes
    data = data[:nbytes].removeprefix(codecs.BOM_UTF8)
    if not whole:
        data = data[: data.rfind(b"\n") + 1]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text in UTF-8: {error}") from error
    # Lines end as the reader has it: what else Unicode calls the end of a line is text.
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")], whole
