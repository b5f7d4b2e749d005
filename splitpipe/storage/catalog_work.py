"""The file that a catalog is made in.

Responsible for: `WorkFile`: an SQLite file that only its session sees, until a rename makes it
the catalog of a commit.

Rules:
- a catalog that a commit may name is never opened for writing: going on means to copy it;
- a transaction that fails leaves the file as it was; what was finished before is not touched;
- SQLite's errors become ``StorageError`` here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import files
from splitpipe.storage.catalog_file import CatalogId, catalog_name, checksum_of, work_name

__all__ = ["WorkFile"]

# Rows that one execution of a statement inserts, if they have no more values than this together.
_ROWS_AT_ONCE: Final = 8
_MOST_VARIABLES: Final = 900

_SETTINGS: Final = (
    # `publish` makes the file durable; until then a crash loses it anyway.
    "synchronous = OFF",
    "journal_mode = MEMORY",
    "locking_mode = EXCLUSIVE",
    "cache_size = -65536",
    "analysis_limit = 1000",
)


class WorkFile:
    """The working file of one session.

    Args:
        directory: of the dataset.
        volume: of the dataset's files.
        previous: the catalog to go on from; ``None`` begins with an empty file.

    Raises:
        FormatError: the previous catalog is damaged.
        StorageError: the files cannot be read or written.
    """

    __slots__ = ("_connection", "_directory", "_last", "_ours", "_volume", "path")

    def __init__(self, directory: str, volume: int, previous: CatalogId | None) -> None:
        self._directory = directory
        self._volume = volume
        self._last = previous
        self.path = os.path.join(directory, work_name(volume))
        self._connection: sqlite3.Connection | None = None
        # Whether the file is there and holds what the last catalog does not.
        self._ours = previous is None
        files.unlink(self.path)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement; a query's rows are the caller's to fetch."""
        with self._translated():
            return self._open().execute(statement, parameters)

    def change(self, *changes: tuple[str, Sequence[Sequence[Any]]]) -> int:
        """Run statements, each for all of its values or, if something fails, none for any.

        Returns:
            How many rows were changed.
        """
        with self._translated():
            connection = self._open()
            try:
                connection.execute("BEGIN")
                changed = sum(connection.executemany(*change).rowcount for change in changes)
                connection.execute("COMMIT")
            except BaseException:
                # Some failures SQLite takes back by itself.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return changed

    def insert(self, names: Sequence[str], columns: Sequence[list[Any]]) -> None:
        """Insert rows into ``records``, all or none.

        Binding values is most of the work. So a column in which all are missing is not bound,
        and one execution inserts several rows.

        Args:
            names: of columns of the table.
            columns: their values, equally many in each.
        """
        there = [at for at, values in enumerate(columns) if not _all_missing(values)]
        listed = ", ".join(f'"{names[at]}"' for at in there)
        line = f"({', '.join('?' * len(there))})"
        flat = list(chain.from_iterable(zip(*(columns[at] for at in there), strict=True)))
        together = max(1, min(_ROWS_AT_ONCE, _MOST_VARIABLES // len(there)))
        size = together * len(there)
        whole = len(flat) // size * size
        head = f"INSERT INTO records ({listed}) VALUES "
        self.change(
            (head + ", ".join([line] * together), _cut(flat[:whole], size)),
            (head + line, _cut(flat[whole:], len(there))),
        )

    def publish(self, number: int, metadata: Mapping[str, str]) -> CatalogId:
        """Make it a commit's catalog; what is changed later goes into a copy.

        The file is durable, its name as soon as the manifest that names it is.
        """
        self._open()
        self._disconnect()
        path = os.path.join(self._directory, catalog_name(self._volume, number))
        descriptor = files.open_file(self.path, os.O_RDWR)
        try:
            files.sync(descriptor, self.path)
            size = files.status(descriptor, self.path).st_size
            crc = checksum_of(descriptor, size, self.path)
        finally:
            files.close(descriptor)
        with files.translated("name the catalog", path):
            os.replace(self.path, path)
        self._ours = False
        self._last = CatalogId(number, size, crc, dict(metadata))
        return self._last

    def close(self) -> None:
        """Remove the file; a second call does nothing."""
        self._disconnect()
        files.unlink(self.path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if not self._ours and self._last is not None:
            self._copy(self._last)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}").fetchall()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._ours = True
        return connection

    def _copy(self, last: CatalogId) -> None:
        source = os.path.join(self._directory, catalog_name(self._volume, last.number))
        with files.translated("copy the catalog", source):
            shutil.copyfile(source, self.path)
        descriptor = files.open_file(self.path, os.O_RDONLY)
        try:
            size = files.status(descriptor, self.path).st_size
            intact = size == last.size and checksum_of(descriptor, size, self.path) == last.crc
        finally:
            files.close(descriptor)
        if not intact:
            files.unlink(self.path)
            raise FormatError(
                f"{source} does not fit its checksum: restore it from a copy; keys and metadata "
                "cannot be changed before"
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = "full" in str(error)
            raise StorageError(
                errno.ENOSPC if full else errno.EIO,
                f"cannot write the catalog: {error}; nothing committed is lost: "
                f"{'make room' if full else 'see that the disk is well'} and commit again, or "
                "abort",
                self.path,
            ) from error


def _all_missing(values: list[Any]) -> bool:
    return values[0] is None and values.count(None) == len(values)


def _cut(values: list[Any], size: int) -> list[list[Any]]:
    return [values[at : at + size] for at in range(0, len(values), size)]
