"""Where the output of a job goes, and how far it is.

Responsible for: `Target`, the seam between a job and what it writes, and `DatasetTarget`, a new
dataset. ``column`` has the other one.

Rules:
- the note is part of the commit: what is written and what is known to be done change together;
- commits are made at the ends of tasks only, and a dataset is named after its job: so the files are
  the same however often the job was begun;
- what was not committed is taken back, by the next run if this one was killed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError
from splitpipe.jobs.identity import Note
from splitpipe.jobs.work import Made
from splitpipe.schema import Schema
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.session import Opening, Session
from splitpipe.storage.snapshot import read_manifest

__all__ = ["DatasetTarget", "Target", "note_at"]

# What is held before it is written.
PENDING_NBYTES = 8 << 20


class Target(ABC):
    """Takes what a job makes, in order. To be used in a ``with`` block."""

    @abstractmethod
    def note(self) -> Note | None:
        """What stands in the last commit, now that nobody else can change it."""

    @abstractmethod
    def begin(self, schema: Schema, zstd: Mapping[str, Zstd]) -> None:
        """Say what records are; before the first is added."""

    @abstractmethod
    def add(self, made: Made) -> None:
        """Add what comes next."""

    @abstractmethod
    def commit(self, note: Note) -> None:
        """Make it durable, and say how far the job is."""

    @abstractmethod
    def finish(self, note: Note) -> None:
        """Do what is left to do when everything is committed."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Let go; what was not committed is taken back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)


def note_at(directory: str) -> Note | None:
    """The note of a job in the last commit of a dataset; ``None`` where there is neither.

    Raises:
        FormatError: what is there is damaged.
    """
    if not files.is_there(os.path.join(directory, MANIFEST_NAME)):
        return None
    return Note.from_json(read_manifest(directory).note)


class DatasetTarget(Target):
    """A dataset that a job makes.

    Args:
        path: its directory.
        name: what it is named after.
        begun: whether an earlier run left something to go on with.
        bins: how many bins share the records; ``None`` for the usual number.
        overwrite: whether to replace what is there.

    Raises:
        LockedError: somebody else writes there.
        StorageError: there is another dataset, or it cannot be written there.
    """

    def __init__(
        self,
        path: str,
        *,
        name: bytes,
        begun: bool,
        bins: int | None = None,
        overwrite: bool = False,
    ) -> None:
        opening = Opening(
            bins=None if begun else bins, append=begun, overwrite=overwrite, name=name
        )
        self._committed = False
        self._pending_nbytes = 0
        self._session = Session(path, opening, None)

    def note(self) -> Note | None:
        """What stands in the last commit of the job."""
        return Note.from_json(self._session.manifest.note)

    @property
    def rows(self) -> int:
        """How many records there are, those included that are not committed yet."""
        return self._session.rows

    def begin(self, schema: Schema, zstd: Mapping[str, Zstd]) -> None:
        """See `Target.begin`.

        Raises:
            FormatError: what is there has other columns.
        """
        session = self._session
        if session.manifest.schema == schema:
            return
        if session.manifest.rows:
            raise FormatError(
                f"{session.path} has {session.manifest.schema!r}, the job makes {schema!r}: "
                "say restart to begin anew"
            )
        session.use_compression(zstd)
        session.restart(schema)

    def add(self, made: Made) -> None:
        """See `Target.add`."""
        session = self._session
        for name, intake in session.intakes.items():
            intake.pending.extend(made.columns[name].values())
            self._pending_nbytes += made.columns[name].data.nbytes
        held = len(next(iter(session.intakes.values())).pending)
        room = min(intake.appender.room() for intake in session.intakes.values())
        if self._pending_nbytes >= PENDING_NBYTES or held >= room:
            session.flush()
            self._pending_nbytes = 0

    def commit(self, note: Note) -> None:
        """See `Target.commit`.

        Raises:
            AssertionError: more or fewer records are there than the note says.
        """
        note.total.check(read=note.done, written=self.rows)
        self.put(note)

    def put(self, note: Note) -> None:
        """Commit with this note, whatever it counts."""
        self._session.note = note.to_json()
        self._session.commit()
        self._committed = True
        self._pending_nbytes = 0

    def finish(self, note: Note) -> None:
        """Nothing is left to do."""

    def close(self, *, failed: bool) -> None:
        """See `Target.close`."""
        if failed or not self._committed:
            self._session.abort()  # leaves what earlier runs committed
        else:
            self._session.release()
