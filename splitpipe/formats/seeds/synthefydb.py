"""The SQLite index of a synthefy folder, opened without leaving a trace.

Responsible for: `SamplesFile`, which opens ``index.sqlite`` read-only and tells its fields;
`SamplesCatalog`, which answers questions about its table ``samples``, as a ``Catalog`` over rows.

Rules:
- nothing is created beside the file: it is opened as immutable. What its writer left in a
  ``-wal`` file is applied to a copy in memory;
- a database is data of others: no schema of theirs is trusted, only the table ``samples`` is read,
  and of names that it gives, those that go into SQL are quoted;
- a connection lives for one question, so that threads and forks share nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.storage import files
from splitpipe.storage.base import Rows
from splitpipe.storage.catalog_values import bindable
from splitpipe.storage.clause import checked_clause, readers_only

__all__ = ["SamplesCatalog", "SamplesFile", "quoted"]

INDEX = "index.sqlite"
TABLE = "samples"
# A copy with the writer's last changes is held in memory, so it must not be large.
_COPY_NBYTES_LIMIT = 1 << 30
_VALUE_NBYTES_LIMIT = 64 << 20
_AT_ONCE = 5000


def quoted(name: str) -> str:
    r"""A name as SQL takes any name.

    Example:
        >>> quoted("length of 'x'")
        '"length of \'x\'"'
    """
    return '"' + name.replace('"', '""') + '"'


@dataclass(slots=True)
class SamplesFile:
    """The file ``index.sqlite`` of a folder.

    Attributes:
        path: of it.
        wal: where its writer has left changes that are not in the file yet, if it has.
    """

    path: str
    wal: str | None = field(init=False)
    _copy: list[bytes] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        path = f"{self.path}-wal"
        self.wal = path if os.path.isfile(path) and os.path.getsize(path) else None

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that can only read, with SQLite's errors translated."""
        try:
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise FormatError(
                f"{self.path}: {error}; it is damaged or no index of synthefy-dataset-utils"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        if self.wal is not None:
            if not self._copy:
                self._copy.append(self._merged())
            connection = sqlite3.connect(":memory:")
            connection.deserialize(self._copy[0])
        else:
            # SQLite itself says no more than "unable to open" of a file that is not there.
            files.close(files.open_file(self.path, os.O_RDONLY))
            name = urllib.parse.quote(self.path)
            connection = sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_NBYTES_LIMIT)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _merged(self) -> bytes:
        """The database with what is in its ``-wal`` file, as one piece of memory."""
        sources = (self.path, f"{self.path}-wal")
        if sum(map(os.path.getsize, sources)) > _COPY_NBYTES_LIMIT:
            raise FormatError(
                f"{sources[1]} holds changes that are not in {self.path} yet: its writer was not "
                "closed; open and close it once with sqlite3, as it is too large for a copy"
            )
        with tempfile.TemporaryDirectory(prefix="splitpipe-") as folder:
            for source, name in zip(sources, (INDEX, f"{INDEX}-wal"), strict=True):
                with open(os.path.join(folder, name), "wb") as copy:
                    copy.write(files.read_whole(source, limit=_COPY_NBYTES_LIMIT))
            connection = sqlite3.connect(os.path.join(folder, INDEX))
            try:
                connection.execute("PRAGMA journal_mode=DELETE")
                return connection.serialize()
            finally:
                connection.close()

    def columns(self) -> list[str]:
        """The columns of ``samples``.

        Raises:
            FormatError: there is no such table, or it is a view, or virtual.
        """
        with self.connected() as connection:
            found = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,)
            ).fetchone()
            named = [row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")]
        if found is None or not found[0] or "id" not in named:
            raise FormatError(f"{self.path} has no table {TABLE!r} with an id: is it synthefy's?")
        return named

    def fields(self) -> dict[str, str]:
        """Field -> name of its folder, in the order in which fields were added."""
        columns = set(self.columns())
        with self.connected() as connection:
            told = connection.execute("SELECT name, base_dir FROM fields ORDER BY rowid").fetchall()
        found: dict[str, str] = {}
        for name, base in told:
            if not isinstance(name, str) or not isinstance(base, str):
                raise FormatError(f"{self.path}: the field {name!r} has no folder")
            folder = os.path.basename(base.rstrip("/"))
            if not folder or folder in (".", "..") or "\0" in folder:
                raise FormatError(f"{self.path}: the folder of field {name!r} is {base!r}")
            if {f"{name}_offset", f"{name}_shard"} <= columns:
                found[name] = folder
        if not found:
            raise FormatError(f"{self.path} names no field that its samples have")
        return found


class SamplesCatalog:
    """Keys, metadata and SQL of a synthefy folder; see ``Catalog``.

    Args:
        file: its database.
        rowid_of: the ``rowid`` of rows.
        row_of: the rows of ascending ``rowid``; -1 for one that was not there.
    """

    def __init__(
        self,
        file: SamplesFile,
        rowid_of: Callable[[Rows], Rows],
        row_of: Callable[[Rows], Rows],
    ) -> None:
        self._file = file
        self._rowid_of = rowid_of
        self._row_of = row_of

    def row(self, key: str) -> int:
        """The row of a sample's id; see ``Catalog.row``."""
        with self._file.connected() as connection:
            found = connection.execute(f"SELECT rowid FROM {TABLE} WHERE id = ?", (key,)).fetchone()
        row = -1 if found is None else int(self._row_of(np.array(found, dtype=np.int64))[0])
        if row < 0:
            raise KeyError(key)
        return row

    def keys(self, rows: Rows) -> list[str | None]:
        """The ids of samples; see ``Catalog.keys``."""
        return [None if key is None else str(key) for key in self._values("id", rows)]

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """``meta_json`` of samples; see ``Catalog.meta``."""
        found: list[dict[str, Any]] = []
        for row, text in zip(rows.tolist(), self._values("meta_json", rows), strict=True):
            try:
                meta = json.loads(text) if text else {}
            except (ValueError, TypeError, RecursionError) as error:
                raise CorruptRecord(self._no_object(row)) from error
            if not isinstance(meta, dict):
                raise CorruptRecord(self._no_object(row))
            found.append(meta)
        return found

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """The rows for which a clause about ``samples`` is true; see ``Catalog.where``."""
        checked = checked_clause(clause, self._file.columns())
        most = -1 if limit is None else max(0, limit)
        statement = f"SELECT rowid FROM {TABLE} WHERE ({checked}) ORDER BY rowid LIMIT {most:d}"
        with self._file.connected() as connection:
            connection.set_authorizer(_samples_only)
            try:
                found = connection.execute(statement, bindable(parameters)).fetchall()
            except sqlite3.Error as error:
                raise FormatError(
                    f"the clause {clause!r:.200} cannot be answered by {self._file.path}: {error}"
                ) from error
        rows = self._row_of(np.array(found, dtype=np.int64).reshape(-1))
        return rows[rows >= 0]

    def close(self) -> None:
        """Nothing stays open between questions."""

    def _no_object(self, row: int) -> str:
        return f"{self._file.path}: meta_json of record {row} is no JSON object"

    def _values(self, column: str, rows: Rows) -> list[Any]:
        rowids = self._rowid_of(rows).tolist()
        found: dict[int, Any] = {}
        with self._file.connected() as connection:
            for at in range(0, len(rowids), _AT_ONCE):
                found.update(
                    connection.execute(
                        f"SELECT rowid, {column} FROM {TABLE} WHERE rowid IN "
                        "(SELECT value FROM json_each(?))",
                        (json.dumps(rowids[at : at + _AT_ONCE]),),
                    ).fetchall()
                )
        return [found.get(rowid) for rowid in rowids]


def _samples_only(
    action: int, first: str | None, second: str | None, database: str | None, inner: str | None
) -> int:
    if action == sqlite3.SQLITE_READ and first == TABLE:
        return sqlite3.SQLITE_OK
    return readers_only(action, first, second, database, inner)
