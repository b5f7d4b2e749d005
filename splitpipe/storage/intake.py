"""One column of a writing session: from values to its files.

Responsible for: `Intake`, which encodes the values of one column, holds them until a block is
worth writing, trains the column's dictionary from the first of them, and puts updated values
aside. Which records there are, and when they count, is the business of ``session``.

Rules:
- after an error of the disk what was not written is still held, and is written by the next try;
- a dictionary is written, whole and durable, before anything that was compressed with it counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.codecs import Codec, Compressed, Zstd, codec, train
from splitpipe.schema import Field
from splitpipe.storage import files
from splitpipe.storage.appender import ColumnAppender
from splitpipe.storage.changes import Updates, entries_of, missing_among, record_nbytes, rewrite
from splitpipe.storage.committed import Column, Manifest, Sealed
from splitpipe.storage.format import file_header, file_name
from splitpipe.storage.lock import Announcement
from splitpipe.storage.snapshot import read_sealed

__all__ = ["TRAINING_NBYTES", "Intake", "announcement"]

# A dictionary is trained from at most this many bytes of values.
TRAINING_NBYTES = 8 << 20
_BLOCK_ROWS = 1 << 16


class Intake:
    """Takes the values of one column.

    Args:
        directory: of the dataset.
        manifest: whose files these are.
        appender: of the column's files.
        column: what was committed of it.
        zstd: how values are compressed, if they are.
        since: how many rows there were before the column was; they have no value.

    Attributes:
        column: what was committed.
        appender: of the column's files.
        since: how many rows there were before the column was.
        pending: encoded values that were not written yet.
        training: whether they wait, uncompressed, for a dictionary to be trained.
        updates: new values of rows that were there.
    """

    def __init__(
        self,
        directory: str,
        manifest: Manifest,
        appender: ColumnAppender,
        column: Column,
        *,
        zstd: Zstd | None = None,
        since: int = 0,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._zstd = zstd or Zstd()
        self.since = since
        self.column = column
        self.appender = appender
        self.pending: list[bytes | None] = []
        self._aside: list[tuple[int, bytes | None]] = []
        self.updates = Updates(manifest.dataset, column.number)
        self._made: Sealed | None = None
        wanted = self._zstd.dictionary
        fresh = (
            column.field.compression is not None
            and column.dictionary is None
            and not column.layout.rows
        )
        self.training = fresh and wanted is True
        dictionary = b""
        if column.dictionary is not None:
            identity = manifest.file_id("dictionary", column)
            dictionary = read_sealed(directory, identity, column.dictionary)
        elif fresh and isinstance(wanted, bytes):
            dictionary = self._keep_dictionary(wanted)
        self._codec = self._make_codec(dictionary)
        self._plain = codec(replace(column.field, compression=None))

    def _make_codec(self, dictionary: bytes) -> Codec:
        return codec(self.column.field, dictionary=dictionary, level=self._zstd.level)

    @property
    def field(self) -> Field:
        """The column's type."""
        return self.column.field

    # -- values ----------------------------------------------------------------------------

    def encode(self, value: Any) -> bytes | None:
        """The bytes of a value as they wait for being written.

        Raises:
            FormatError: it does not fit.
        """
        if value is None:
            return None
        return (self._plain if self.training else self._codec).encode(value)

    def train(self) -> None:
        """Train the dictionary from what is held, and compress that."""
        if not self.training or not (self.pending or self._aside):
            return
        samples, nbytes = [], 0
        for value in chain(self.pending, (value for _, value in self._aside)):
            if nbytes >= TRAINING_NBYTES:
                break
            if value:
                samples.append(value)
                nbytes += len(value)
        dictionary = train(samples)
        if dictionary:
            self._keep_dictionary(dictionary)
        self._codec = packer = self._make_codec(dictionary)
        assert isinstance(packer, Compressed)
        self.pending[:] = [None if value is None else packer.pack(value) for value in self.pending]
        self._aside[:] = [(row, v if v is None else packer.pack(v)) for row, v in self._aside]
        self.training = False

    def keep_dictionary(self, dictionary: bytes) -> None:
        """Compress with this dictionary from now on; nothing was written yet."""
        self._keep_dictionary(dictionary)
        self._codec = self._make_codec(dictionary)
        self.training = False

    def _keep_dictionary(self, dictionary: bytes) -> bytes:
        """Write a dictionary to its file, durably."""
        identity = self._manifest.file_id("dictionary", self.column)
        path = os.path.join(self._directory, file_name(identity))
        descriptor = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            files.write_at(descriptor, file_header(identity) + dictionary, 0, path)
            files.sync(descriptor, path)
        finally:
            files.close(descriptor)
        crc = int(google_crc32c.value(dictionary))
        self._made = Sealed(self._manifest.generation + 1, len(dictionary), crc)
        return dictionary

    # -- writing ---------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows that have or will have a value, or none, once everything held is written."""
        return max(self.appender.rows, self.since) + len(self.pending)

    def flush(self) -> None:
        """Write what is held."""
        self.train()
        self._catch_up()
        if self.pending:
            before = self.appender.rows
            try:
                self.appender.append(self.pending)
            finally:
                del self.pending[: self.appender.rows - before]
        if self._aside:
            rows = [row for row, _ in self._aside]
            self.updates.append(self.appender, rows, [value for _, value in self._aside])
            self._aside.clear()

    def _catch_up(self) -> None:
        """Give a column that was added no value in the rows that were there before."""
        while (lag := self.since - self.appender.rows) > 0:
            self.appender.append([None] * min(lag, _BLOCK_ROWS))

    @property
    def blank(self) -> bool:
        """Whether the column was added in this session, and nothing was written to it yet."""
        return not self.appender.rows and not self.pending and not self._aside

    def put_aside(self, row: int, value: bytes | None) -> None:
        """Take a new value for a row that is written already."""
        self._aside.append((row, value))

    def held_nbytes(self) -> int:
        """Bytes of values that wait."""
        return sum(map(_nbytes, self.pending)) + sum(_nbytes(value) for _, value in self._aside)

    def present(self, rows: npt.NDArray[np.int64]) -> list[bool] | None:
        """Whether rows that are written have a value; ``None`` if all rows have."""
        column = self.appender.column()
        if not column.missing:
            return None
        entries = entries_of(self.appender.path, rows)
        there = np.ones(len(rows), dtype=np.bool_)
        there[missing_among(self._manifest, column, entries, rows)] = False
        found: list[bool] = there.tolist()
        return found

    # -- committing ------------------------------------------------------------------------

    def commit(self, number: int) -> Column:
        """Make everything durable; the column as its files are now.

        Args:
            number: of the commit.
        """
        self.appender.sync()
        column = self.appender.column()
        if self._made is not None:
            column = replace(column, dictionary=self._made)
        if self.updates:
            column = rewrite(self._directory, self._manifest, column, self.updates, number)
        return column

    def without(self, column: Column, rows: Iterable[int]) -> Column:
        """A column that `commit` gave, with the records of these rows counted as dead."""
        path = os.path.join(self._directory, file_name(self._manifest.file_id("index", column)))
        entries = entries_of(path, np.array(sorted(rows), dtype=np.int64))
        return replace(column, dead_nbytes=column.dead_nbytes + record_nbytes(entries))

    def close(self) -> None:
        """Close the files."""
        self.appender.close()


def announcement(
    volume: int, intakes: Sequence[Intake], earlier: Announcement | None
) -> Announcement:
    """Which files a session may make from now on, and may have made.

    Args:
        volume: of the files.
        intakes: its columns.
        earlier: what it announced before.
    """
    first = min(intake.appender.planned_bins[0] for intake in intakes)
    # One more, for records that will be updated.
    last = max(len(intake.appender.sizes) for intake in intakes) + 1
    columns = 1 + max(intake.column.number for intake in intakes)
    if earlier is not None:
        last = max(last, earlier.first_bin + earlier.bins)
        first = min(first, earlier.first_bin)
        columns = max(columns, earlier.columns)
    return Announcement(volume, first, last - first, columns)


def _nbytes(value: Sequence[int] | None) -> int:
    return 0 if value is None else len(value)
