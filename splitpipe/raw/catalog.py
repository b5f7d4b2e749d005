r"""Questions in SQL about the rows of a table.

Responsible for: `TableCatalog`, the `Catalog` of a table: its keys, where a column gives them, and
clauses over its columns, answered by SQLite in memory.

Rules:
- a clause is looked at and bounded as that of any catalog, and may only read;
- of the table, the columns that a clause names are read, and no others;
- text is compared as text, numbers as numbers. A file of CSV holds text alone: a column of it all
  of whose values are numbers, as Python writes them, is one of numbers here (an empty one is NULL).
  Where only some are, to compare the column with a number is refused: SQLite would call every text
  larger than every number, and nobody would notice.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.storage.base import Records, Rows
from splitpipe.storage.catalog_values import bindable
from splitpipe.storage.clause import checked_clause, readers_only

__all__ = ["TableCatalog"]

_BLOCK = 4096
_ASKABLE = ("scalar", "str", "json")
_LONGEST_VALUE = 256 << 20


class TableCatalog:
    """Answers questions about a table.

    Args:
        records: its rows.
        key: the column of their keys; there are none unless it is said.

    Example:
        >>> from splitpipe.schema import Schema
        >>> from splitpipe.storage.base import MemoryRecords
        >>> table = MemoryRecords(Schema({"n": "str"}), {"n": ["10", "9", ""]})
        >>> TableCatalog(table).where("n > 9").tolist(), TableCatalog(table, "n").row("9")
        ([0], 1)
    """

    def __init__(self, records: Records, key: str | None = None) -> None:
        self._records = records
        self._key = key
        self._rows: dict[str, int] | None = None
        self._lock = threading.Lock()

    # -- keys ------------------------------------------------------------------------------

    def row(self, key: str) -> int:
        """See `Catalog.row`: the first question reads all keys.

        Raises:
            FormatError: several rows have it, or no column was said to have keys.
        """
        if self._key is None:
            raise FormatError("this table has no keys: say which column has them, key=")
        with self._lock:
            if self._rows is None:
                self._rows = self._all_keys()
        row = self._rows[key]
        if row < 0:
            raise FormatError(f"several rows have the key {key!r}: say the index of the one meant")
        return row

    def _all_keys(self) -> dict[str, int]:
        found: dict[str, int] = {}
        first = 0
        for rows in _blocks(len(self._records)):
            for place, key in enumerate(self.keys(rows), first):
                if key is not None:
                    found[key] = place if key not in found else -1
            first += len(rows)
        return found

    def keys(self, rows: Rows) -> list[str | None]:
        """See `Catalog.keys`."""
        if self._key is None:
            return [None] * len(rows)
        values = self._records.read(rows, [self._key])[self._key]
        return [None if value is None else str(value) for value in values]

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """See `Catalog.meta`: what there is are columns."""
        return [{} for _ in range(len(rows))]

    def close(self) -> None:
        """See `Catalog.close`: the rows are the table's."""

    # -- questions -------------------------------------------------------------------------

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """See `Catalog.where`.

        Raises:
            FormatError: the clause is no single expression, names what is not here, or compares
                text with a number.
        """
        # ``row`` is the number of the row, also where a column has this name.
        names = [
            name
            for name, field in self._records.schema.items()
            if field.kind in _ASKABLE and name.lower() != "row"
        ]
        checked_clause(clause, ["row", *names])
        values = bindable(parameters)
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            for table in ("json_each", "json_tree"):  # their first use declares them
                connection.execute(f"SELECT 1 FROM {table}('[]')").fetchall()
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            question = f"SELECT row FROM records WHERE ({clause}\n)"
            listed = "".join(f', "{name}"' for name in names)
            try:
                connection.execute(f"CREATE TABLE records(row INTEGER PRIMARY KEY{listed})")
                wanted = self._named(connection, question, values)
                self._fill(connection, [name for name in names if name in wanted], clause)
                connection.set_authorizer(readers_only)
                found = [row for (row,) in connection.execute(question, values)]
            except (sqlite3.Error, UnicodeError) as error:
                raise FormatError(
                    f"the clause {clause!r:.200} cannot be answered: {error}. Names here: row, "
                    f"{', '.join(names)}"
                ) from error
        finally:
            connection.close()
        rows = np.sort(np.array(found, dtype=np.int64))
        return rows if limit is None else rows[: max(0, limit)]

    @staticmethod
    def _named(connection: sqlite3.Connection, question: str, values: Sequence[Any]) -> set[str]:
        """The columns that a question reads; the table is empty yet."""
        names: set[str] = set()

        def note(
            action: int, first: str | None, second: str | None, name: str | None, by: str | None
        ) -> int:
            if action == sqlite3.SQLITE_READ and first == "records" and second:
                names.add(second)
            return readers_only(action, first, second, name, by)

        connection.set_authorizer(note)
        try:
            connection.execute(question, values).fetchall()
        finally:
            connection.set_authorizer(None)
        return names

    def _fill(self, connection: sqlite3.Connection, names: Sequence[str], clause: str) -> None:
        """Insert all rows, with some of their columns: one pass over the table, a second one where
        a column of text turned out late not to be of numbers.
        """
        columns = [_Column(name, self._records.schema[name].kind == "str") for name in names]
        listed = "".join(f', "{name}"' for name in names)
        marks = ", ".join("?" * (len(names) + 1))
        statement = f"INSERT INTO records (row{listed}) VALUES ({marks})"
        while True:
            connection.execute("BEGIN")
            first = 0
            for rows in _blocks(len(self._records)):
                batch = self._records.read(rows, names) if names else {}
                values = [column.bound(batch[column.name]) for column in columns]
                places = range(first, first + len(rows))
                connection.executemany(statement, zip(places, *values, strict=True))
                first += len(rows)
            for column in columns:
                column.check(clause)
            if not any(column.mixed for column in columns):
                connection.execute("COMMIT")
                return
            connection.execute("ROLLBACK")
            columns = [_Column(c.name, c.numbers and c.strange is None) for c in columns]


class _Column:
    """A column on its way into SQLite.

    Args:
        name: of it.
        numbers: whether it is text that may be numbers.
    """

    def __init__(self, name: str, numbers: bool) -> None:
        self.name = name
        self.numbers = numbers
        self.strange: str | None = None
        """Text in it that is no number."""
        self._some = False

    @property
    def mixed(self) -> bool:
        """Whether text was taken for a number, and other text is none."""
        return self._some and self.strange is not None

    def bound(self, values: Any) -> list[Any]:
        """Values as SQLite takes them."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            return [_small(value) for value in values.tolist()]
        if not self.numbers or self.strange is not None:
            return [_plain(value) for value in values]
        made: list[Any] = []
        for text in values:
            number = _number(text) if text else None
            if number is None and text:
                self.strange = text
                return [_plain(value) for value in values]
            made.append(number)
        self._some = self._some or any(text is not None for text in values)
        return made

    def check(self, clause: str) -> None:
        """Refuse a clause that compares text with a number.

        Raises:
            FormatError: it does.
        """
        if self.strange is not None and _compared(self.name).search(clause):
            raise FormatError(
                f"the clause {clause!r:.200} compares column {self.name!r} with a number, and "
                f"there is text in it, such as {self.strange!r:.60}: say CAST({self.name} AS REAL),"
                " which takes that for 0, or leave such rows out of the table"
            )


def _compared(name: str) -> re.Pattern[str]:
    """Finds a column beside a number, with what compares the two between them."""
    column, number = rf'(?<![\w.])"?{name}"?(?!\w)', r"[-+]?\s*\.?\d"
    sign = r"\s*(?:<=|>=|<>|!=|==|=|<|>)\s*"
    between = r"\s+(?:NOT\s+)?(?:BETWEEN|IN\s*\()\s*"
    text = f"{column}(?:{sign}|{between}){number}|[\\d.]{sign}{column}"
    return re.compile(text, re.IGNORECASE)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, bool | int):
        return _small(value)
    if isinstance(value, np.generic):
        return str(value)
    return json.dumps(value)


def _small(value: Any) -> Any:
    """An integer that SQLite has no room for becomes what it would make of it itself."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return float(value)
    return value


def _number(text: str) -> int | float | None:
    """The number that a text is, if it is one as Python writes it; ``007`` is a name."""
    try:
        value = int(text)
        if str(value) == text and -(1 << 63) <= value < 1 << 63:
            return value
    except ValueError:
        pass
    try:
        if re.fullmatch(r"-?(?:0|[1-9]\d*)\.\d+(?:[eE][-+]?\d+)?", text):
            return float(text)
    except ValueError:
        pass
    return None


def _blocks(count: int) -> Iterator[Rows]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count), dtype=np.int64)
