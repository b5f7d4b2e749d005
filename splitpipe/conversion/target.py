"""The copy while it is being made: what is there already, and the session that writes it.

Responsible for: `Note`, which beside a copy says of which source it is, how it is written and
whether it was proven; `begun`, which tells what a directory holds; `Target`, which takes blocks.

Rules:
- a note is about the dataset that it names: one that was there before, or that replaced the copy,
  is never taken for it, and never added to;
- the note is written before anything is committed. So a run that was killed leaves an empty
  dataset, or the one that was to be replaced, or a copy that is gone on with;
- what was copied is committed when the source fails, and taken back when the target does.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from splitpipe.codecs import Zstd
from splitpipe.conversion.blocks import Block
from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage import files
from splitpipe.storage.committed import Manifest
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.session import Opening, Session
from splitpipe.storage.snapshot import read_manifest

__all__ = ["Begun", "Note", "Plan", "Target", "begun"]

NAME: Final = "conversion.json"
COMMIT_NBYTES: Final = 256 << 20
_LARGEST_NOTE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """What lies beside a copy.

    Attributes:
        source: what is copied.
        records: how many it has.
        schema: its columns, as JSON.
        options: how the copy is written, as it was asked for.
        levels: how hard zstd tries, by column.
        proven: the generation of the copy that was proven equal; ``None`` before that.
    """

    source: str
    records: int
    schema: Any
    options: Mapping[str, Any]
    levels: Mapping[str, int] = field(default_factory=dict)
    proven: int | None = None

    def write(self, directory: str, dataset: bytes) -> None:
        """Put it beside the dataset that it is about."""
        text = json.dumps({"dataset": dataset.hex(), **asdict(self)}, indent=1)
        files.replace(os.path.join(directory, NAME), text.encode())
        files.sync_directory(directory)


@dataclass(frozen=True, slots=True)
class Begun:
    """A copy that an earlier run began.

    Attributes:
        note: what it wrote beside it.
        manifest: the last commit.
    """

    note: Note
    manifest: Manifest

    @property
    def rows(self) -> int:
        """How many records were copied."""
        return self.manifest.live_rows


def begun(directory: str) -> Begun | None:
    """The copy that a directory holds; ``None`` where there is no dataset, or an empty one.

    Raises:
        StorageError: a dataset is there that is no copy, or it cannot be read.
        FormatError: it is damaged, or was changed since it was copied.
    """
    if not files.is_there(os.path.join(directory, MANIFEST_NAME)):
        return None
    manifest = read_manifest(directory)
    note = _read_note(directory, manifest.dataset)
    if not manifest.rows and (note is not None or not manifest.generation):
        return None  # what a run leaves that was killed before its first commit
    if note is None:
        raise StorageError(
            errno.EEXIST,
            f"a dataset of {manifest.live_rows} records is here that is not known to be a copy: "
            "choose another directory, or say overwrite to replace it",
            directory,
        )
    changed = note.proven is not None and note.proven != manifest.generation
    if changed or manifest.deleted is not None or manifest.rows > note.records:
        raise FormatError(
            f"{directory} was a copy of {note.source} and was changed since: choose another "
            "directory, or say overwrite"
        )
    return Begun(note, manifest)


def _raw_note(directory: str) -> bytes | None:
    try:
        return files.read_whole(os.path.join(directory, NAME), limit=_LARGEST_NOTE)
    except StorageError:
        return None


def _read_note(directory: str, dataset: bytes) -> Note | None:
    """The note beside a dataset; ``None`` if there is none that is about it."""
    try:
        document = json.loads(_raw_note(directory) or b"")
        if document.pop("dataset") != dataset.hex():
            return None
        note = Note(**document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = isinstance(note.options, dict) and isinstance(note.levels, dict)
    return note if sound and isinstance(note.records, int) else None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a new copy is written.

    Attributes:
        schema: of the copy.
        zstd: how its columns are compressed.
        metadata: declared names and their types; ``None`` without a catalog.
        bins: how many share the records; ``None`` for the usual number.
        overwrite: whether a dataset that is there may be replaced.
    """

    schema: Schema
    zstd: Mapping[str, Zstd]
    metadata: Mapping[str, str] | None
    bins: int | None = None
    overwrite: bool = False


class Target:
    """Takes the blocks of a source, in order. To be used in a ``with`` block.

    Args:
        directory: of the copy.
        note: to lie beside it.
        earlier: what an earlier run left to go on with; ``None`` begins anew.
        plan: how to begin.

    Attributes:
        nbytes: of the values that were added.

    Raises:
        LockedError: somebody else writes there.
        StorageError: it cannot be written there.
    """

    def __init__(self, directory: str, note: Note, earlier: Begun | None, plan: Plan) -> None:
        self._directory = directory
        self._fresh = earlier is None
        self._pending = 0
        self.nbytes = 0
        # Whether all columns and the catalog have the same records.
        self._whole = True
        self._session = session = self._open(plan, earlier)
        self._note_before = _raw_note(directory)
        try:
            if earlier is None:
                note.write(directory, session.manifest.dataset)
                if plan.metadata is not None:
                    session.open_catalog(plan.metadata)
            elif session.manifest.dataset != earlier.manifest.dataset:
                raise FormatError(f"{directory} was replaced by another process meanwhile")
        except BaseException:
            self._give_up()
            raise

    def _open(self, plan: Plan, earlier: Begun | None) -> Session:
        if earlier is not None:
            return Session(self._directory, Opening(append=True), None)
        # An empty dataset is begun in as it is; one that got records meanwhile is refused.
        opening = Opening(bins=plan.bins, overwrite=plan.overwrite, compression=plan.zstd)
        return Session(self._directory, opening, plan.schema)

    @property
    def rows(self) -> int:
        """How many records the copy has, those included that are not committed yet."""
        return self._session.rows

    def add(self, block: Block) -> None:
        """Add the records that follow.

        Raises:
            FormatError: a key is there already, or metadata does not fit its declaration; what
                came before is added.
            StorageError: the disk failed.
        """
        columns = {name: column.values() for name, column in block.columns.items()}
        everything = slice(0, block.count)
        self._whole = False
        try:
            self._enlist(block, columns, everything)
        except FormatError:
            self._add_one_by_one(block, columns)
            raise
        self._take(columns, everything)
        self._whole = True
        self.nbytes += block.nbytes
        self._pending += block.nbytes
        if self._pending >= self._worthwhile():
            self.commit()

    def _worthwhile(self) -> int:
        """Bytes after which a commit is due; a catalog is written whole by each."""
        grown = self.nbytes // 8 if self._session.catalog is not None else 0
        return max(COMMIT_NBYTES, grown)

    def _add_one_by_one(self, block: Block, columns: Mapping[str, list[bytes | None]]) -> None:
        """Add the records before the one that the catalog refuses, and name that one."""
        for at in range(block.count):
            one = slice(at, at + 1)
            try:
                self._enlist(block, columns, one)
            except FormatError as error:
                self._whole = True
                raise FormatError(f"record {block.start + at}: {error}") from error
            self._take(columns, one)

    def _enlist(self, block: Block, columns: Mapping[str, list[bytes | None]], part: slice) -> None:
        """Tell the catalog of records."""
        catalog = self._session.catalog
        if catalog is None:
            return
        present = {
            name: [value is not None for value in values[part]]
            for name, values in columns.items()
            if None in values
        }
        keys = None if block.keys is None else block.keys[part]
        metas = None if block.metas is None else [meta or None for meta in block.metas[part]]
        catalog.add(self.rows, keys, metas, present, count=part.stop - part.start)
        self._session.catalog_changed = True

    def _take(self, columns: Mapping[str, list[bytes | None]], part: slice) -> None:
        for name, intake in self._session.intakes.items():
            intake.pending.extend(columns[name][part])
        self._session.flush()

    def commit(self) -> None:
        """Make what was added durable."""
        self._whole = False
        self._session.commit()
        self._whole = True
        self._pending = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._whole or (error is not None and not self.rows):
            self._give_up()
            return
        try:
            # Also when the source failed, or somebody ended this: the next run goes on from here.
            self.commit()
        except BaseException:
            self._give_up()
            raise
        self._session.release()

    def _give_up(self) -> None:
        """Take back what was not committed; the note too, if nothing of it was."""
        try:
            if self._fresh and not self._session.committed_rows:
                name = os.path.join(self._directory, NAME)
                if self._note_before is None:
                    files.unlink(name)
                else:
                    files.replace(name, self._note_before)
        finally:
            self._session.abort()
