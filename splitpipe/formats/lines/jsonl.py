"""JSON Lines: a JSON value a line.

Responsible for: which files are JSON Lines, and what a line gives. Finding lines is the business
of ``finding``, reading them of ``records``.

Rules:
- text is UTF-8, strictly; a byte-order mark at the start of a file and CRLF are understood, blank
  lines are none;
- JSON is what Python's ``json`` reads: a name that comes twice keeps the last value, ``NaN`` is a
  number;
- whether a line is JSON is known when it is read. ``validate=True`` looks at every line while the
  file is indexed, and so does ``broken="skip"``, which has to know which lines count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.lines import finding
from splitpipe.formats.lines.finding import Bytes, LineScanner, Split
from splitpipe.formats.lines.options import check_broken, chosen_files, fitted, names_of, schema_of
from splitpipe.formats.lines.records import IndexedRecords, Opening
from splitpipe.schema import FieldLike, Schema

__all__ = ["FORMAT"]

SUFFIXES = (".jsonl", ".ndjson")
_decode = json.JSONDecoder().decode


def _recognises(source: Source) -> bool:
    return bool(source.suffixes() & set(SUFFIXES))


def _split(window: Bytes, ended: bool) -> Split:
    return finding.drop_blank(window, finding.split_lines(window, ended))


def value_of(data: bytes) -> Any:
    """The value of a line.

    Raises:
        ValueError: it is not JSON in UTF-8.
    """
    try:
        return _decode(str(data, "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start} of the line") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos} of the line") from error
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply to be read") from error


@dataclass(frozen=True, slots=True)
class _Values:
    """Every line is a record, whatever it holds."""

    schema: Schema

    def decode(self, data: bytes) -> Any:
        """The value."""
        return value_of(data)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Every line is an object, of which some members are columns."""

    schema: Schema

    def decode(self, data: bytes) -> Mapping[str, Any]:
        """The columns' values."""
        value = value_of(data)
        if not isinstance(value, dict):
            raise ValueError(f"an object is needed for columns, not a {type(value).__name__}")
        return fitted(self.schema, value)


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about JSON Lines.

    Attributes:
        schema: members to read, with their types; a record is then a dict of them.
        columns: members to read as they stand, or of the schema.
        broken: ``"raise"``, or ``"skip"`` to leave out and count lines that cannot be read.
        validate: look at every line while indexing.
        max_record: bytes of the longest line.
        suffixes: of the files of a folder, instead of ``.jsonl`` and ``.ndjson``.
    """

    schema: Schema | Mapping[str, FieldLike] | None = None
    columns: Sequence[str] | None = None
    broken: str = "raise"
    validate: bool = False
    max_record: int = finding.DEFAULT_MAX_RECORD
    suffixes: Sequence[str] | None = None


def _open(source: Source, indexing: Indexing, **given: Any) -> IndexedRecords:
    """Open JSON Lines; see `Options`."""
    options = Options(**given)
    check_broken(options.broken)
    chosen = schema_of(options.schema, options.columns, "json")
    decoder = _Values(Schema("json")) if chosen is None else _Columns(chosen)
    looks = options.validate or options.broken == "skip"
    scanner = LineScanner(
        "jsonl",
        _split,
        check=decoder.decode if looks else None,
        broken=options.broken,
        max_record=options.max_record,
        settings={"schema": decoder.schema.to_json()} if looks else {},
    )
    paths = chosen_files(source, SUFFIXES, options.suffixes, "jsonl")
    return IndexedRecords(Opening("jsonl", source, indexing, given), paths, scanner, decoder)


FORMAT = Format(
    "jsonl",
    "files .jsonl or .ndjson, also .gz and .zst, or a folder with them",
    _recognises,
    _open,
    options=names_of(Options),
)
