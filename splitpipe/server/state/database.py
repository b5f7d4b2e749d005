"""Opening the server's database, and its transactions.

Responsible for: SQLite set up for one writer and many readers, PostgreSQL by its URL, the errors of
the driver as errors of ours. The schema and its version: `versions.py`.

Rules:
- a transaction is a ``with`` block: it is committed when the block ends, and undone when it raises;
- writers of one process stand in line here, those of several processes at the database; a writer of
  SQLite takes the lock when it begins, so that a transaction that has begun to write never fails
  because another one was faster;
- an `IntegrityError` of SQLAlchemy passes: only the room that wrote the row knows what it means;
- no statement's values stand in an error, since some of them are nobody's business.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import sqlalchemy
from sqlalchemy import Connection, Engine, PoolProxiedConnection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from splitpipe.errors import FormatError, LockedError, StorageError
from splitpipe.server.state.versions import bring_up_to_date

__all__ = ["Database", "new_id", "now_s", "open_database"]

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process's transaction before it is an error."""
_WRITES = "splitpipe_writes"
_SERVER_LOCK = 0x73706C6974707365  # a name for PostgreSQL's advisory lock: "splitpse"


def new_id() -> str:
    """A new id of a row: sixteen hexadecimal digits.

    Example:
        >>> len(new_id())
        16
    """
    return secrets.token_hex(8)


def now_s() -> float:
    """The time as it is stored: seconds since 1970, UTC."""
    return time.time()


class Database:
    """An open database: made by `open_database`. Safe to use from several threads.

    Args:
        engine: what SQLAlchemy made of the URL.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._own: PoolProxiedConnection | None = None

    def __repr__(self) -> str:
        return f"Database({self.url!r})"

    @property
    def url(self) -> str:
        """Where it is, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> str:
        """Whose SQL it speaks: ``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database from its beginning to its end."""
        with self._translated(), self._engine.connect() as plain:
            connection = plain
            if self.dialect == "postgresql":
                connection = plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that changes something, committed when the block ends without an error."""
        with self._translated(), self._turn, self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def write_rows(self, work: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
        """Execute statements, each for some rows, in one transaction that is committed.

        For who writes all the time: what SQLAlchemy does around a small transaction of SQLite takes
        many times as long as that itself. So these go to the driver, by a connection that stays.

        Args:
            work: statements with names of parameters as ``:name``, and the rows of each.
        """
        if self.dialect != "sqlite":
            with self.write() as connection:
                for statement, rows in work:
                    connection.execute(text(statement), list(rows))
            return
        with self._turn:
            try:
                self._write_rows(work)
            except sqlite3.Error as error:
                raise _as_ours(error, self.url) from error

    def _write_rows(self, work: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
        if self._own is None:
            self._own = self._engine.raw_connection()
        driver = cast(sqlite3.Connection, self._own.driver_connection)
        driver.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in work:
                driver.executemany(statement, rows)
            driver.execute("COMMIT")
        except BaseException:
            driver.rollback()
            raise

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the database as the one server that uses it, for the block.

        Raises:
            LockedError: another server does.
        """
        if self.dialect == "postgresql":
            with self._translated(), self._engine.connect() as connection:
                asked = f"select pg_try_advisory_lock({_SERVER_LOCK})"
                if not connection.exec_driver_sql(asked).scalar_one():
                    raise _in_use(self.url)
                connection.commit()
                yield
                connection.invalidate()  # the lock goes with the connection
            return
        path = self._engine.url.database
        with nullcontext() if not path or path == ":memory:" else _locked(path, self.url):
            yield

    def close(self) -> None:
        """Let go of all connections. Safe to call twice."""
        with self._turn:
            own, self._own = self._own, None
        if own is not None:
            own.close()
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise _as_ours(error.orig, self.url) from error


@contextmanager
def _locked(path: str, name: str) -> Iterator[None]:
    """Hold a file beside a database of SQLite: whoever closes the database's own loses locks."""
    descriptor = os.open(f"{path}-server", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(name) from None
        yield
    finally:
        os.close(descriptor)


def _in_use(name: str) -> LockedError:
    return LockedError(
        f"{name} is used by another server: two would both go on with every iteration. End that "
        "one first, or choose another database"
    )


def open_database(url: str, *, durable: bool = False) -> Database:
    """Open the database of a server; make its tables where there are none.

    Args:
        url: ``sqlite:////folder/state.sqlite``, ``postgresql://user:password@host/name``.
        durable: wait for the disk at every commit of SQLite. Without it a commit survives the death
            of every process, and the last ones may be lost when the machine loses power.

    Returns:
        The open database; close it.

    Raises:
        UnsupportedVersion: a newer splitpipe made it.
        FormatError: it is no database, one of somebody else, or the URL means nothing.
        StorageError: it cannot be opened.

    Example:
        >>> with open_database("sqlite://") as database, database.read() as connection:
        ...     connection.exec_driver_sql("select value from meta").scalar_one()
        '1'
    """
    engine = _make_engine(url, durable=durable)
    database = Database(engine)
    try:
        with database.write() as connection:
            bring_up_to_date(connection, name=database.url)
    except BaseException:
        database.close()
        raise
    return database


def _make_engine(told: str, *, durable: bool) -> Engine:
    try:
        url = _with_driver(make_url(told))
        options = _options(url)
        engine = sqlalchemy.create_engine(url, hide_parameters=True, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise FormatError(
            "the database's URL means nothing to SQLAlchemy. Write sqlite:////folder/state.sqlite "
            "or postgresql://user@host/name"
        ) from error
    except ModuleNotFoundError as error:
        raise StorageError(
            f"the database's URL needs the package {error.name}, which is not installed. For "
            "PostgreSQL: pip install 'splitpipe[server,postgresql]'"
        ) from error
    if url.get_backend_name() == "sqlite":
        _set_up_sqlite(engine, durable=durable)
    return engine


def _with_driver(url: URL) -> URL:
    """PostgreSQL is spoken by psycopg, the driver of the extra, unless the URL names another."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _options(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    if backend == "postgresql":
        # A connection that the database closed meanwhile is noticed before it is used.
        return {"pool_pre_ping": True}
    raise FormatError(
        f"a database of kind {backend!r} is not supported. Use sqlite:// or postgresql://"
    )


def _set_up_sqlite(engine: Engine, *, durable: bool) -> None:
    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = (
            None  # transactions begin where we say, not where Python guesses
        )
        for statement in (
            "PRAGMA journal_mode=WAL",
            f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}",
            "PRAGMA foreign_keys=ON",
            "PRAGMA trusted_schema=OFF",
        ):
            connection.execute(statement)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _as_ours(error: BaseException | None, name: str) -> StorageError | FormatError:
    said = " ".join(str(error).split())
    if "not a database" in said or "malformed" in said:
        return FormatError(
            f"{name} is damaged, or no database: {said}. Restore it, or move it away"
        )
    if "unable to open" in said or "readonly" in said:
        return StorageError(f"{name} cannot be opened: {said}. Look at its folder's permissions")
    if "locked" in said:
        return StorageError(
            f"{name} was locked for {BUSY_TIMEOUT_S:g} s by another process. Is a server there?"
        )
    if "disk I/O error" in said or "is full" in said:
        full = StorageError(f"{name} cannot be written: {said}. Make room on its disk")
        full.errno = errno.ENOSPC if "full" in said else errno.EIO
        return full
    return StorageError(f"{name}: {said}")
