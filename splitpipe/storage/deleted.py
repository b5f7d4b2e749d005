"""Rows that were deleted: a sorted file of them, and what positions are among the others.

Responsible for: `DeletedRows` of a writing session, `read_deleted`, and the arithmetic between a
*position* (of a record, as users count) and its *row* (as files count, deleted ones included).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.storage import files
from splitpipe.storage.committed import Manifest, Sealed
from splitpipe.storage.format import file_header, file_name
from splitpipe.storage.snapshot import read_sealed

__all__ = ["DeletedRows", "gaps_of", "read_deleted"]

Rows = npt.NDArray[np.int64]


def read_deleted(directory: str, manifest: Manifest) -> Rows:
    """The deleted rows of a commit, ascending.

    Raises:
        FormatError: the file that has them is damaged.
        StorageError: it cannot be read.
    """
    if manifest.deleted is None:
        return np.empty(0, dtype=np.int64)
    identity = manifest.deleted_id(manifest.deleted.number)
    rows = np.frombuffer(read_sealed(directory, identity, manifest.deleted), dtype="<i8")
    if len(rows) and (rows[0] < 0 or rows[-1] >= manifest.rows or (np.diff(rows) <= 0).any()):
        raise FormatError(f"the deleted rows of {directory} are no ascending rows of it")
    return rows.astype(np.int64)


def gaps_of(deleted: Rows) -> Rows:
    """For every deleted row, the first position that lies behind it.

    A position's row is the position and the number of gaps that are not larger.

    Example:
        >>> gaps = gaps_of(np.array([1, 2, 5]))
        >>> positions = np.arange(4)
        >>> (positions + np.searchsorted(gaps, positions, side="right")).tolist()
        [0, 3, 4, 6]
    """
    return deleted - np.arange(len(deleted))


class DeletedRows:
    """The deleted rows of a session: those of the last commit, and those since.

    Args:
        directory: of the dataset.
        manifest: the last commit.
    """

    def __init__(self, directory: str, manifest: Manifest) -> None:
        self._directory = directory
        self._committed = read_deleted(directory, manifest)
        self._gaps = gaps_of(self._committed)
        self.since: set[int] = set()

    def row(self, position: int, rows: int) -> int:
        """The row at a position, of so many rows; positions do not move within a session.

        Raises:
            IndexError: there is none, or it was deleted in this session.
        """
        count = rows - len(self._committed)
        wanted = position + count if position < 0 else position
        if not 0 <= wanted < count:
            raise IndexError(f"record {position} of a dataset of {count} records")
        row = wanted + int(np.searchsorted(self._gaps, wanted, side="right"))
        if row in self.since:
            raise IndexError(f"record {position} was deleted in this session")
        return row

    def add(self, rows: Iterable[int]) -> None:
        """Delete rows."""
        self.since.update(rows)

    def all(self) -> Rows:
        """All deleted rows, ascending."""
        return np.union1d(self._committed, np.fromiter(self.since, np.int64, len(self.since)))

    def is_live(self, row: int) -> bool:
        """Whether a row was not deleted."""
        at = int(np.searchsorted(self._committed, row))
        committed = at < len(self._committed) and int(self._committed[at]) == row
        return not committed and row not in self.since

    def write(self, manifest: Manifest, number: int) -> Sealed:
        """Write all deleted rows to a file of their own, durably.

        Args:
            manifest: says whose they are.
            number: of the commit that this is for.
        """
        data = self.all().astype("<i8").tobytes()
        identity = manifest.deleted_id(number)
        path = os.path.join(self._directory, file_name(identity))
        descriptor = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            files.write_at(descriptor, file_header(identity) + data, 0, path)
            files.sync(descriptor, path)
        finally:
            files.close(descriptor)
        return Sealed(number, len(data), int(google_crc32c.value(data)))

    def settle(self) -> None:
        """Go on from a commit that has them all."""
        self._committed, self.since = self.all(), set()
        self._gaps = gaps_of(self._committed)
