"""Asking a catalog: keys, metadata and SQL over the records of one snapshot.

Responsible for: `SqliteCatalog`, the `Catalog` of our own datasets. How the file is made stands in
``catalog_writer``, what a clause may be in ``clause``.

Rules:
- the file is compared with its checksum when it is first opened, and opened as one that nobody
  changes;
- nothing is spliced into SQL but the clause, which was looked at, and may do nothing but read;
- a connection belongs to one process and is used by one thread at a time: after a fork, the child
  opens its own;
- rows that come out were looked at: what is no row of the snapshot is damage, not a record.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from operator import index as as_integer
from pathlib import Path
from typing import Any, Final

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.storage import files
from splitpipe.storage.base import Rows
from splitpipe.storage.catalog_file import OWN_NAMES, CatalogId, catalog_name, checksum_of
from splitpipe.storage.catalog_values import bindable, check_key, decode_meta
from splitpipe.storage.clause import checked_clause, readers_only

__all__ = ["SqliteCatalog"]

# Rows that are looked up in one statement, and from how many on the whole table is read instead.
_AT_ONCE: Final = 500
# No value that a clause makes may be longer: printf('%1000000000d', 1) is an error.
_LONGEST_VALUE: Final = 256 << 20
# What SQLite raises: names and text that are no UTF-8 come as the second.
_ERRORS: Final = (sqlite3.Error, UnicodeError)
_NO_ROWS: Final = np.empty(0, dtype=np.int64)


class SqliteCatalog:
    """The catalog of one commit.

    Args:
        directory: of the dataset.
        volume: of the dataset's files.
        identity: as the manifest names it.
        rows: how many rows the snapshot has, deleted ones included.
        deleted: the rows that were deleted, ascending: what comes in and goes out are positions
            among the others.

    Example:
        >>> import tempfile
        >>> from splitpipe.storage.catalog_writer import CatalogWriter
        >>> path = tempfile.mkdtemp()
        >>> metas = [{"n": 5, "tags": ["x"]}, {"n": 7}]
        >>> with CatalogWriter(path, 1, None, metadata={"n": "int64"}, columns=["text"]) as writer:
        ...     writer.add(0, ["a", "b"], metas, {"text": [True, False]})
        ...     identity = writer.finish(1)
        >>> catalog = SqliteCatalog(path, 1, identity, rows=2)
        >>> catalog.row("b"), catalog.where("n > ? AND text IS NULL", [6]).tolist()
        (1, [1])
        >>> catalog.where("json_extract(meta, '$.tags[0]') = 'x'").tolist()
        [0]
        >>> catalog.close()
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_deleted",
        "_directory",
        "_finalizer",
        "_gaps",
        "_identity",
        "_rows",
        "_sessions",
        "_volume",
        "path",
    )

    def __init__(
        self,
        directory: str,
        volume: int,
        identity: CatalogId,
        *,
        rows: int,
        deleted: Rows = _NO_ROWS,
    ) -> None:
        self._directory = directory
        self._volume = volume
        self._identity = identity
        self._rows = rows
        self._deleted = deleted
        self._gaps = deleted - np.arange(len(deleted))
        self._closed = False
        self.path = os.path.join(directory, catalog_name(volume, identity.number))
        # By process: a child that was forked must not use its parent's connection, nor wait for
        # a lock that one of its threads held.
        self._sessions: dict[int, _Session] = {}
        self._finalizer = weakref.finalize(self, _close, self._sessions)

    # -- rows ------------------------------------------------------------------------------

    def row(self, key: str) -> int:
        """See `Catalog.row`."""
        try:
            check_key(key)
        except FormatError:
            raise KeyError(key) from None
        found = self._fetch("SELECT row FROM records WHERE key = ?", [key])
        if not len(found):
            raise KeyError(key)
        return int(self._positions(found)[0])

    def where(
        self,
        clause: str,
        parameters: Sequence[Any] = (),
        *,
        limit: int | None = None,
    ) -> Rows:
        """See `Catalog.where`.

        Args:
            clause: an expression of SQL over ``row``, ``key``, ``meta`` (JSON text), the declared
                metadata, and the dataset's columns, which are 1 where there is a value and NULL
                where it is missing.
            parameters: a value for every ``?`` of the clause.
            limit: at most so many rows, the first ones.

        Raises:
            FormatError: the clause is no single expression, names what is not here, or asks for
                more than reading; or parameters do not fit.
        """
        session = self._session()
        checked_clause(clause, session.names)
        values = bindable(parameters)
        question = f"SELECT row FROM records WHERE ({clause}\n)"
        if limit is not None:
            # A number that was looked at, so that the clause's parameters stay its own.
            question += f" ORDER BY row LIMIT {_checked_limit(limit)}"
        try:
            found = session.fetch(question, values)
        except _ERRORS as error:
            raise self._refused(clause, error) from error
        return self._positions(np.sort(found))

    def _refused(self, clause: str, error: Exception) -> FormatError:
        reason = str(error)
        if isinstance(error, sqlite3.DatabaseError) and "malformed" in reason:
            if "JSON" in reason:
                reason += " (something else than metadata is read as JSON)"
            else:
                return FormatError(f"{self.path} is damaged: {reason}")
        if "not authorized" in reason or "prohibited" in reason:
            reason += "; a clause may only read the catalog, with functions that have no effects"
        names = ", ".join(self._session().names)
        return FormatError(
            f"the clause {clause!r:.200} cannot be answered: {reason}. Names here: {names}; other "
            "metadata is reached as json_extract(meta, '$.name')"
        )

    # -- what rows have --------------------------------------------------------------------

    def keys(self, rows: Rows) -> list[str | None]:
        """See `Catalog.keys`."""
        found = self._values("key", rows)
        if not all(key is None or isinstance(key, str) for key in found):
            raise CorruptRecord(f"{self.path} has keys that are no strings: it is damaged")
        return found

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """See `Catalog.meta`."""
        return [decode_meta(text) for text in self._values("meta", rows)]

    def _values(self, name: str, rows: Rows) -> list[Any]:
        physical = self._physical(rows)
        if not len(physical):
            return []
        session = self._session()
        wanted = distinct(physical)
        found: dict[int, Any] = {}
        low, high = int(wanted[0]), int(wanted[-1])
        try:
            if high - low < 4 * len(wanted):
                question = f"SELECT row, {name} FROM records WHERE row BETWEEN ? AND ?"
                found.update(session.fetch_all(question, [low, high]))
            else:
                for at in range(0, len(wanted), _AT_ONCE):
                    some = wanted[at : at + _AT_ONCE].tolist()
                    marks = ", ".join("?" * len(some))
                    question = f"SELECT row, {name} FROM records WHERE row IN ({marks})"
                    found.update(session.fetch_all(question, some))
            return [found[row] for row in physical.tolist()]
        except (*_ERRORS, KeyError) as error:
            raise CorruptRecord(f"{self.path} is damaged: {error!r}") from error

    # -- positions and rows ----------------------------------------------------------------

    def _physical(self, positions: Rows) -> Rows:
        if not len(self._gaps):
            return positions
        return positions + np.searchsorted(self._gaps, positions, side="right")

    def _positions(self, physical: Rows) -> Rows:
        """Where rows lie among those that are not deleted."""
        if not len(physical):
            return physical
        low, high = int(physical.min()), int(physical.max())
        places = np.searchsorted(self._deleted, physical)
        if len(self._deleted):
            nearest = self._deleted[np.minimum(places, len(self._deleted) - 1)]
            gone = bool((nearest == physical).any())
        else:
            gone = False
        if low < 0 or high >= self._rows or gone:
            raise CorruptRecord(
                f"{self.path} names rows that the dataset does not have ({low} to {high} of "
                f"{self._rows}): it is damaged, or of another commit"
            )
        return physical - places

    # -- the connection --------------------------------------------------------------------

    def _fetch(self, question: str, values: Sequence[Any]) -> Rows:
        try:
            return self._session().fetch(question, values)
        except _ERRORS as error:
            raise CorruptRecord(f"{self.path} is damaged: {error}") from error

    def _session(self) -> _Session:
        if self._closed:
            raise StorageError(errno.EBADF, "the dataset is closed", self._directory)
        process = os.getpid()
        session = self._sessions.get(process)
        if session is None:
            verified = any(session.verified for session in list(self._sessions.values()))
            session = self._sessions.setdefault(
                process, _Session(self.path, self._identity, verified)
            )
        session.open()
        return session

    def __reduce__(self) -> Any:
        identity = (self._directory, self._volume, self._identity, self._rows, self._deleted)
        return _reopen, identity

    def close(self) -> None:
        """See `Catalog.close`."""
        self._closed = True
        self._finalizer()

    def __repr__(self) -> str:
        return f"SqliteCatalog({self.path!r})"


def _reopen(
    directory: str, volume: int, identity: CatalogId, rows: int, deleted: Rows
) -> SqliteCatalog:
    return SqliteCatalog(directory, volume, identity, rows=rows, deleted=deleted)


def _checked_limit(limit: int) -> int:
    try:
        count = as_integer(limit)
    except TypeError:
        count = -1
    if count < 0:
        raise FormatError(f"limit must be an integer from 0, not {limit!r}")
    return min(count, (1 << 63) - 1)


def _close(sessions: dict[int, _Session]) -> None:
    session = sessions.pop(os.getpid(), None)
    if session is not None:
        session.close()


class _Session:
    """One process's connection, used by one thread at a time."""

    __slots__ = ("_connection", "_identity", "_lock", "_path", "names", "verified")

    def __init__(self, path: str, identity: CatalogId, verified: bool) -> None:
        self._path = path
        self._identity = identity
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self.verified = verified
        self.names: tuple[str, ...] = ()

    def open(self) -> None:
        """Open the file, if nobody did.

        Raises:
            FormatError: it does not fit its checksum, or is no catalog.
            StorageError: it cannot be read.
        """
        with self._lock:
            if self._connection is not None:
                return
            self._verify()
            try:
                self._connection = self._connect()
            except _ERRORS as error:
                raise FormatError(f"{self._path} is no catalog: {error}") from error

    def _verify(self) -> None:
        if self.verified:
            return
        advice = "restore it from a copy; the records themselves can be read without it"
        descriptor = files.open_file(self._path, os.O_RDONLY, advice=advice)
        try:
            size = files.status(descriptor, self._path).st_size
            intact = size == self._identity.size and self._identity.crc == checksum_of(
                descriptor, size, self._path
            )
        finally:
            files.close(descriptor)
        if not intact:
            raise CorruptRecord(f"the catalog {self._path} does not fit its checksum: {advice}")
        self.verified = True

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=ro&immutable=1",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA trusted_schema = OFF").fetchall()
            connection.execute("PRAGMA query_only = ON").fetchall()
            columns = connection.execute("PRAGMA table_info(records)").fetchall()
            self.names = tuple(str(column[1]) for column in columns)
            if self.names[: len(OWN_NAMES)] != OWN_NAMES:
                raise FormatError(f"{self._path} is no catalog: it has no table of records")
            # Their first use declares them, which the authorizer would not allow.
            for table in ("json_each", "json_tree"):
                connection.execute(f"SELECT 1 FROM {table}('[]')").fetchall()
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(readers_only)
        except BaseException:
            connection.close()
            raise
        return connection

    def fetch(self, question: str, values: Sequence[Any]) -> Rows:
        """The single integers that a question gives."""
        with self._lock:
            found = (row for (row,) in self._open().execute(question, values))
            return np.fromiter(found, dtype=np.int64)

    def fetch_all(self, question: str, values: Sequence[Any]) -> list[tuple[int, Any]]:
        """The pairs that a question gives."""
        with self._lock:
            return self._open().execute(question, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StorageError(errno.EBADF, "the dataset is closed", self._path)
        return self._connection

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
