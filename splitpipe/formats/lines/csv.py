"""CSV and its relatives: a header, then a record a row, fields in quotes where they need it.

Responsible for: finding rows whose quoted fields hold line ends, what a row gives, and which
columns there are. Opening and reading are the business of ``records``.

Rules:
- quotes are as RFC 4180 has them: around a whole field, doubled inside it. Then a line end is one
  of a row exactly if the number of quotes before it is even, which is found in parallel;
- a quote elsewhere is refused with its place, because it may mean that rows are not what they
  seem. ``lenient=True`` takes every row as Python's ``csv`` would, at its speed and in one thread;
- every row has as many fields as there are columns; empty lines are no rows;
- a field is a ``str`` unless ``schema=`` says another type, of which an empty field is missing.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source, suffix_of
from splitpipe.formats.files.sources import OpenFile
from splitpipe.formats.lines import finding
from splitpipe.formats.lines.finding import Bytes, LineScanner, Split
from splitpipe.formats.lines.options import check_broken, chosen_files, fitted, names_of, schema_of
from splitpipe.formats.lines.records import IndexedRecords, Opening
from splitpipe.formats.lines.text import checked_encoding, text_of
from splitpipe.schema import Field, FieldLike, Schema

__all__ = ["FORMAT"]

SUFFIXES = (".csv", ".tsv")
_FEED, _RETURN = 10, 13


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are told apart.

    Attributes:
        delimiter: between two fields.
        quote: around a field that holds delimiters, quotes or line ends; ``None`` for none.
        encoding: of the text.
    """

    delimiter: str
    quote: str | None
    encoding: str

    def fields(self, data: bytes) -> list[str]:
        """The fields of one row.

        Raises:
            ValueError: it is not one row.
        """
        rows = list(self.rows([text_of(data, self.encoding)]))
        if len(rows) != 1:
            raise ValueError(f"one row is needed, here are {len(rows)}")
        return rows[0]

    def rows(self, text: Iterable[str]) -> Iterator[list[str]]:
        """The rows of lines of text, as Python's ``csv`` reads them.

        Raises:
            ValueError: it cannot.
        """
        try:
            if self.quote is None:
                yield from csv.reader(text, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
            else:
                yield from csv.reader(text, delimiter=self.delimiter, quotechar=self.quote)
        except csv.Error as error:
            raise ValueError(f"not CSV: {error}") from error

    @property
    def told(self) -> dict[str, Any]:
        """As JSON values."""
        return {"delimiter": self.delimiter, "quote": self.quote, "encoding": self.encoding}


def split_rows(window: Bytes, ended: bool, quote: int, delimiter: int) -> Split:
    r"""The rows of a window that begins with one.

    Raises:
        ValueError: a quote stands where none may be, or is not closed; ``args[1]`` is where.

    Example:
        >>> split_rows(np.frombuffer(b'a,"x\ny"\nb,""', np.uint8), True, ord('"'), ord(","))
        Split(starts=array([0, 8]), stops=array([ 7, 12]), consumed=12)
    """
    quotes = np.flatnonzero(window == quote)
    if not len(quotes):
        return _without_empty(finding.split_lines(window, ended))
    feeds = np.flatnonzero(window == _FEED)
    feeds = feeds[np.searchsorted(quotes, feeds) % 2 == 0]
    end = len(window) if ended else int(feeds[-1]) + 1 if len(feeds) else 0
    _check_quotes(window, quotes[: np.searchsorted(quotes, end)], delimiter)
    if ended and len(quotes) % 2:
        raise ValueError("a quoted field is not closed", int(quotes[-1]))
    if ended and window[-1] != _FEED:
        feeds = np.append(feeds, len(window))
    if not len(feeds):
        return Split(feeds, feeds, 0)
    starts = np.concatenate([[0], feeds[:-1] + 1])
    returns = (window[feeds - 1] == _RETURN) & (feeds > starts)
    return _without_empty(Split(starts, feeds - returns, min(int(feeds[-1]) + 1, len(window))))


def _without_empty(split: Split) -> Split:
    keep = split.starts < split.stops
    return split if keep.all() else Split(split.starts[keep], split.stops[keep], split.consumed)


def _check_quotes(window: Bytes, quotes: npt.NDArray[np.int64], delimiter: int) -> None:
    """Every quote opens a field, closes one, or is one of two inside one."""
    doubled = quotes[1:] == quotes[:-1] + 1
    opening, closing = quotes[::2], quotes[1::2]
    before = window[np.maximum(opening - 1, 0)]
    good = (opening == 0) | (before == delimiter) | (before == _FEED)
    # Closed and opened again at once: a quote that is meant.
    good[1:] |= doubled[1::2]
    behind = window[np.minimum(closing + 1, len(window) - 1)]
    fine = (closing == len(window) - 1) | (behind == delimiter) | (behind == _FEED)
    fine |= behind == _RETURN
    fine[: len(doubled[1::2])] |= doubled[1::2]
    for places, wrong in ((opening, ~good), (closing, ~fine)):
        if wrong.any():
            raise ValueError("a quote inside a field", int(places[wrong][0]))


def split_lenient(window: Bytes, ended: bool, dialect: Dialect) -> Split:
    """The rows of a window that begins with one, as Python's ``csv`` tells them."""
    complete = finding.split_lines(window, ended)
    stops = complete.stops.tolist()
    # One character a byte, whatever the encoding: what tells rows apart is ASCII.
    text = str(window[: complete.consumed].data, "latin-1")
    bounds = [*complete.starts.tolist(), complete.consumed]
    taken = 0

    def each() -> Iterator[str]:
        nonlocal taken
        for start, stop in pairwise(bounds):
            taken += 1
            yield text[start:stop]
        # Asked for more than there is: the row that comes next is not whole.
        taken += 1

    found: list[tuple[int, int]] = []
    begun = consumed = 0
    for row in dialect.rows(each()):
        if taken >= len(bounds) and not ended:
            break
        last = min(taken, len(stops)) - 1
        if row:
            found.append((bounds[begun], stops[last]))
        begun, consumed = last + 1, bounds[last + 1]
    places = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Split(places[:, 0], places[:, 1], consumed)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row, by the columns of its file."""

    dialect: Dialect
    names: tuple[str, ...]
    schema: Schema

    def decode(self, data: bytes) -> Mapping[str, Any]:
        """The values of the schema's columns."""
        fields = self.dialect.fields(data)
        if len(fields) != len(self.names):
            raise ValueError(f"a row of {len(fields)} fields, there are {len(self.names)} columns")
        given = dict(zip(self.names, fields, strict=True))
        return fitted(
            self.schema,
            {name: _typed(field, given[name], name) for name, field in self.schema.items()},
        )


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _typed(field: Field, text: str, name: str) -> Any:
    """A field's value, before it is fitted to its column."""
    if field.kind == "str":
        return text
    if not text:
        return None
    kind = "j" if field.kind != "scalar" else field.numpy_dtype.kind
    try:
        if kind == "j":
            return json.loads(text)
        if kind == "b":
            return _BOOLEANS[text.lower()]
        if kind in "iu":
            # Python's own rules would also take 1_000.
            return int(text.replace("_", "?"))
        if kind == "f":
            return float(text.replace("_", "?"))
        return np.array(text, field.numpy_dtype)[()]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"field {name!r}: {text[:60]!r} is no {field.dtype or 'JSON'}") from None


def _splitter(dialect: Dialect, lenient: bool) -> Callable[[Bytes, bool], Split]:
    if lenient:
        return partial(split_lenient, dialect=dialect)
    if dialect.quote is None:
        return _split_unquoted
    return partial(split_rows, quote=ord(dialect.quote), delimiter=ord(dialect.delimiter))


def _split_unquoted(window: Bytes, ended: bool) -> Split:
    return _without_empty(finding.split_lines(window, ended))


@dataclass(frozen=True, slots=True)
class _Header:
    """What the first row of every file has to be."""

    dialect: Dialect
    fields: tuple[str, ...]

    def check(self, data: bytes) -> None:
        """Raise ``ValueError`` if it is another."""
        found = tuple(self.dialect.fields(data))
        if found != self.fields:
            raise ValueError(
                f"the header {list(found)} is not that of the first file, {list(self.fields)}: "
                "open files of one kind"
            )


def _first_row(
    paths: Sequence[str], split: Callable[[Bytes, bool], Split], dialect: Dialect
) -> tuple[str, ...] | None:
    """The fields of the first row there is; ``None`` if all files are empty."""
    for path in paths:
        file = OpenFile(path)
        data = finding.first_record(file, split)
        if data is not None:
            try:
                return tuple(dialect.fields(data))
            except ValueError as error:
                raise CorruptRecord(f"the first row of {path}: {error}") from error
    return None


def _names(
    header: tuple[str, ...] | None, first: tuple[str, ...] | None, names: Sequence[str] | None
) -> tuple[str, ...]:
    """The names of a file's columns."""
    if names is not None:
        if first is not None and len(names) != len(first):
            raise FormatError(f"names= has {len(names)} names, the first row {len(first)} fields")
        found = tuple(names)
    elif header is not None:
        found = header
    elif first is not None:
        found = tuple(f"column_{number}" for number in range(1, len(first) + 1))
    else:
        raise FormatError("there is no row that could name the columns: say names=")
    try:
        whole = Schema(dict.fromkeys(found, "str"))
    except FormatError as error:
        mended = [re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII) for name in found]
        raise FormatError(f"{error}; or name the columns yourself: names={mended}") from error
    if len(whole) != len(found):
        raise FormatError(f"two columns have the same name in {list(found)}: say names=")
    return found


def _dialect(delimiter: str | None, quote: str | None, encoding: str, path: str) -> Dialect:
    delimiter = delimiter or ("\t" if suffix_of(path) == ".tsv" else ",")
    for what, mark in (("delimiter", delimiter), ("quote", quote)):
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in "\r\n\0"):
            raise FormatError(f"{what} must be one ASCII character, not {mark!r}")
    if delimiter == quote:
        raise FormatError(f"delimiter and quote cannot both be {quote!r}")
    return Dialect(delimiter, quote, checked_encoding(encoding))


def _recognises(source: Source) -> bool:
    return bool(source.suffixes() & set(SUFFIXES))


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about CSV.

    Attributes:
        delimiter: between fields: a comma, for ``.tsv`` a tab, unless said.
        quote: around fields that need it; ``None`` if quotes mean nothing.
        encoding: UTF-8, or one with a byte a character.
        header: whether the first row of every file names the columns.
        names: of the columns, instead of the header's.
        schema: columns to read, with their types; all of them as ``str`` unless said.
        columns: columns to read, as ``str`` or of the schema.
        lenient: take rows as Python's ``csv`` does, whatever the quotes.
        broken: ``"raise"``, or ``"skip"`` to leave out and count rows that cannot be read.
        validate: look at every row while indexing.
        max_record: bytes of the longest row.
        suffixes: of the files of a folder, instead of ``.csv`` and ``.tsv``.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"
    header: bool = True
    names: Sequence[str] | None = None
    schema: Schema | Mapping[str, FieldLike] | None = None
    columns: Sequence[str] | None = None
    lenient: bool = False
    broken: str = "raise"
    validate: bool = False
    max_record: int = finding.DEFAULT_MAX_RECORD
    suffixes: Sequence[str] | None = None


def _open(source: Source, indexing: Indexing, **given: Any) -> IndexedRecords:
    """Open CSV; see `Options`."""
    options = Options(**given)
    check_broken(options.broken)
    paths = chosen_files(source, SUFFIXES, options.suffixes, "csv")
    dialect = _dialect(options.delimiter, options.quote, options.encoding, paths[0])
    # A setting of the whole process, and the only way; raising it changes no result.
    csv.field_size_limit(max(csv.field_size_limit(), options.max_record))
    split = _splitter(dialect, options.lenient)
    first = _first_row(paths, split, dialect)
    header = first if options.header else None
    names = _names(header, first, options.names)
    schema = schema_of(options.schema, options.columns, "str")
    schema = schema if schema is not None else Schema(dict.fromkeys(names, "str"))
    for name in schema:
        if name not in names:
            raise FormatError(f"there is no column {name!r}; columns: {', '.join(names)}")
    row = _Row(dialect, names, schema)
    looks = options.validate or options.broken == "skip"
    scanner = LineScanner(
        "csv",
        split,
        by_line=not options.lenient,
        quote=None if options.lenient or dialect.quote is None else ord(dialect.quote),
        header=None if header is None else _Header(dialect, header).check,
        check=row.decode if looks else None,
        broken=options.broken,
        max_record=options.max_record,
        settings={
            "dialect": dialect.told,
            "header": header,
            "lenient": options.lenient,
            "schema": schema.to_json() if looks else None,
            "names": names if looks else None,
        },
    )
    return IndexedRecords(Opening("csv", source, indexing, given), paths, scanner, row)


FORMAT = Format(
    "csv",
    "files .csv or .tsv, also .gz and .zst, or a folder with them",
    _recognises,
    _open,
    options=names_of(Options),
)
