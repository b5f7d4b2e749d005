"""A new column as the output of a job.

Responsible for: `ColumnTarget`, which gathers the values in a dataset of their own, one commit a
task, and makes them a column of the dataset that they are for with one commit at the end.

Rules:
- readers never see half a column;
- the dataset is locked from the beginning to the end: what the column is made of stays what it is;
- the values lie in a folder inside of the dataset until they are the column, and are removed after
  that, by their names. Killed in between, the next run sees that the column is there and tidies up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError, LockedError, ResumeError
from splitpipe.jobs.identity import Note
from splitpipe.jobs.target import PENDING_NBYTES, DatasetTarget, Target
from splitpipe.jobs.work import Made
from splitpipe.schema import BARE, Field, Schema
from splitpipe.storage import files, retire
from splitpipe.storage.committed import Manifest
from splitpipe.storage.format import LOCK_NAME, MANIFEST_NAME
from splitpipe.storage.intake import Intake
from splitpipe.storage.lock import Announcement
from splitpipe.storage.session import Opening, Session
from splitpipe.storage.snapshot import read_manifest
from splitpipe.storage.table import open_table

__all__ = ["ColumnTarget", "gathered_at", "tidy"]

_BLOCK_ROWS: Final = 4096


def gathered_at(path: str, column: str) -> str:
    """Where the values of a column lie until they are one.

    Example:
        >>> gathered_at("data", "score")
        'data/job-26287f10b9d012bb'
    """
    return os.path.join(path, f"job-{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}")


def _remove_gathered(path: str, column: str) -> None:
    """Remove what was gathered for a column, where there is something; its lock is held."""
    directory = gathered_at(path, column)
    if files.is_there(os.path.join(directory, MANIFEST_NAME)):
        manifest = read_manifest(directory)
        bins = max(len(column.bin_sizes) for column in manifest.columns)
        announced = Announcement(manifest.volume, 0, bins, len(manifest.columns))
        # What says that there is something goes last.
        retire.remove_volume(directory, announced, manifest.following)
        files.unlink(os.path.join(directory, MANIFEST_NAME))
    if files.is_there(directory):
        files.unlink(os.path.join(directory, LOCK_NAME))
        # Unless somebody put a file there: it is not ours to remove.
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def tidy(path: str, column: str | None) -> None:
    """Remove what a run left that was killed after its last commit."""
    gathered = column is not None and files.is_there(gathered_at(path, column))
    if not gathered and not files.size_of(os.path.join(path, LOCK_NAME)):
        return
    try:
        session = Session(path, Opening(append=True), None)
    except LockedError:
        return  # somebody is at work, who tidies up himself
    try:
        if column is not None:
            _remove_gathered(path, column)
    finally:
        session.release()


class ColumnTarget(Target):
    """A column that a job makes.

    Args:
        path: of the dataset that it is for.
        column: its name.
        seen: the commit of the dataset that the job was looked at for.
        name: what the gathered values are named after.
        begun: whether an earlier run left some of them.
        overwrite: whether the values of a column of this name may be replaced, and gathered ones
            thrown away.

    Raises:
        LockedError: somebody else writes there.
        FormatError: there can be no such column.
        ResumeError: the dataset was changed just now.
    """

    def __init__(
        self,
        path: str,
        column: str,
        *,
        seen: Manifest,
        name: bytes,
        begun: bool,
        overwrite: bool = False,
    ) -> None:
        self._path, self._column = path, column
        self._field: Field | None = None
        self._zstd: Zstd | None = None
        self._gathering: DatasetTarget | None = None
        self._session = Session(path, Opening(append=True), None)
        try:
            manifest = self._session.manifest
            if (manifest.dataset, manifest.generation) != (seen.dataset, seen.generation):
                raise ResumeError(f"{path} was changed by somebody else just now: try again")
            bins = len(manifest.columns[0].bin_sizes)
            self._gathering = DatasetTarget(
                gathered_at(path, column), name=name, begun=begun, bins=bins, overwrite=overwrite
            )
        except BaseException:
            self._session.release()
            raise

    def note(self) -> Note | None:
        """See `Target.note`."""
        assert self._gathering is not None
        return self._gathering.note()

    def begin(self, schema: Schema, zstd: Mapping[str, Zstd]) -> None:
        """See `Target.begin`."""
        assert self._gathering is not None
        ((name, self._field),) = schema.items()
        self._zstd = zstd.get(name)
        self._gathering.begin(Schema("bytes"), {})

    def add(self, made: Made) -> None:
        """See `Target.add`."""
        assert self._gathering is not None
        (values,) = made.columns.values()
        self._gathering.add(made._replace(columns={BARE: values}))

    def commit(self, note: Note) -> None:
        """See `Target.commit`."""
        assert self._gathering is not None
        note.total.check(read=note.done, written=note.total.written)
        if self._gathering.rows != note.done:
            raise AssertionError(f"{self._gathering.rows} values for {note.done} records")
        self._gathering.put(note)

    def finish(self, note: Note) -> None:
        """Make the values a column.

        Raises:
            FormatError: there is none, and nobody said of which type they would be.
        """
        if note.schema is None:
            raise FormatError(
                f"no record gave a value, so that nobody knows of which type {self._column!r} is: "
                "give the job a schema="
            )
        gathering, self._gathering = self._gathering, None
        assert gathering is not None
        assert self._field is not None
        gathering.close(failed=False)
        self._fill(self._field)
        self._session.note = replace(note, column=self._column).to_json()
        self._session.commit()
        _remove_gathered(self._path, self._column)

    def _fill(self, field: Field) -> None:
        session, name = self._session, self._column
        before = session.intakes.get(name)
        # The values are compressed already, with this dictionary if there is one.
        session.use_compression({} if self._zstd is None else {name: self._zstd})
        rows = session.rows
        intake = session.new_column(name, field)
        try:
            there = self._take(intake, rows)
        except BaseException:
            session.give_up_column(intake, before)
            raise
        if before is not None:
            session.replaced(before)
        if session.catalog is not None:
            if before is None:
                session.catalog.add_column(name)
            session.catalog.set_present(range(rows), name, there)
            session.catalog_changed = True

    def _take(self, intake: Intake, rows: int) -> list[bool]:
        """Give a column its values; in which rows it has one."""
        source, there, nbytes = self._values(), [], 0
        intake.since = 0
        for row in range(rows):
            value = next(source) if self._session.deleted.is_live(row) else None
            intake.pending.append(value)
            there.append(value is not None)
            nbytes += len(value or b"")
            if len(intake.pending) >= intake.appender.room() or nbytes >= PENDING_NBYTES:
                intake.flush()
                nbytes = 0
        if next(source, self) is not self:
            raise FormatError(f"{self._path}: there are more values than records")
        intake.flush()
        return there

    def _values(self) -> Iterator[bytes | None]:
        records = open_table(gathered_at(self._path, self._column))
        try:
            for start in range(0, len(records), _BLOCK_ROWS):
                rows = np.arange(start, min(start + _BLOCK_ROWS, len(records)), dtype=np.int64)
                yield from records.values(BARE).encoded(rows)
        finally:
            records.close()

    def close(self, *, failed: bool) -> None:
        """See `Target.close`."""
        try:
            if self._gathering is not None:
                self._gathering.close(failed=failed)
        finally:
            if failed:
                self._session.abort()
            else:
                self._session.release()
