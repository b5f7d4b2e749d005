"""A writing session: one writer, one commit after the other, all or nothing.

Responsible for: `Session`: the lock, the manifest that is there, the columns' intakes, deleted rows
and the catalog, and what makes a commit of them. What records are is the business of ``writer``.

Rules:
- the order of a commit: bins, index and sums are made durable, then whatever is written anew, then
  the directory, so that no manifest names a file whose name is not there; then the manifest is
  replaced by rename, then the directory is made durable again. The rename is the commit;
- no byte of what was committed is changed: what a commit replaces is removed after it, once no
  reader holds it;
- what a killed writer left is cut or removed by the next one, by number, never by listing the
  directory: the lock file says which files the dead writer may have made;
- a commit that failed can be tried again, and makes the same files again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from splitpipe.codecs import Zstd
from splitpipe.errors import StorageError
from splitpipe.schema import Field, Schema
from splitpipe.storage import files, retire
from splitpipe.storage.appender import ColumnAppender
from splitpipe.storage.catalog_writer import CatalogWriter
from splitpipe.storage.committed import Column, Manifest, Stale
from splitpipe.storage.deleted import DeletedRows
from splitpipe.storage.format import LOCK_NAME, MANIFEST_NAME
from splitpipe.storage.intake import Intake, announcement
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.lock import WriterLock
from splitpipe.storage.manifest import encode
from splitpipe.storage.snapshot import check_files, read_manifest
from splitpipe.storage.volume import (
    Opening,
    empty_manifest,
    find,
    named,
    of_other_schema,
    of_schema,
)

__all__ = ["DEFAULT_BINS", "Opening", "Session"]

DEFAULT_BINS = 64
# Files held open by all columns together.
_OPEN_FILES = 512
_CATALOG_ROWS = 1 << 14


class Session:
    """One writer at work on one dataset.

    Args:
        path: the dataset's directory, absolute.
        opening: how to begin.
        schema: of a new dataset; ``None`` is bytes, until `restart` says otherwise.

    Attributes:
        manifest: the last commit, or the empty one that a new volume begins with.
        intakes: the columns, by name.
        catalog: the catalog's writing session, where there is one.
        catalog_changed: whether it holds what the last commit does not.
        deleted: the rows that were deleted.
        note: to be part of the commits that follow, see `Manifest`; one that is new is a reason to
            commit.
    """

    def __init__(self, path: str, opening: Opening, schema: Schema | None) -> None:
        self.path = path
        self._opening = opening
        self._manifest_path = os.path.join(path, MANIFEST_NAME)
        self.intakes: dict[str, Intake] = {}
        self.catalog: CatalogWriter | None = None
        self.catalog_changed = False
        self.note: Mapping[str, Any] | None = None
        self._replaced: list[Stale] = []
        self._settled = True
        self._ended = False
        self._pid = os.getpid()
        found = find(path, change=opening.append or opening.overwrite)
        self._created = files.make_directory(path)
        self._lock = WriterLock(os.path.join(path, LOCK_NAME))
        try:
            # Again, now that nobody else can change it.
            found = find(path, change=opening.append or opening.overwrite)
            if found is not None and not opening.overwrite:
                check_files(path, found)
            retire.cut_leftovers(path, found, self._lock.previous)
            self._begin(found, schema)
        except BaseException:
            self.fail()
            raise

    @property
    def place(self) -> str:
        """Where the dataset is, for messages."""
        return self.path

    # -- beginning -------------------------------------------------------------------------

    def _begin(self, found: Manifest | None, schema: Schema | None) -> None:
        overwrite = self._opening.overwrite and found is not None
        bins = self._opening.bins or DEFAULT_BINS
        if found is None or overwrite:
            self.manifest = empty_manifest(bins, schema or Schema("bytes"), replaces=found)
            if found is None:
                how = self._opening
                self.manifest = replace(self.manifest, volume=how.volume, generation=how.generation)
        else:
            self.manifest = of_other_schema(self.path, found, schema, bins)
        if found is None or overwrite or not found.generation:
            self.manifest = named(self.manifest, self._opening.name)
        self._replaces = found if overwrite else None
        fresh = self.manifest is not found
        for column in self.manifest.columns:
            self._take_in(column)
        self.announce()
        if fresh:
            for intake in self.intakes.values():
                intake.appender.create()
                intake.appender.sync()
            if not overwrite:
                # From here on the directory is a dataset, an empty one, whatever happens.
                files.replace(self._manifest_path, encode(self.manifest))
                files.sync_directory(self.path)
        self.deleted = DeletedRows(self.path, self.manifest)
        if self.manifest.catalog is not None:
            self.open_catalog({})

    def restart(self, schema: Schema) -> None:
        """Give a dataset of no records another schema, before anything is written."""
        bins = self._opening.bins or len(self.manifest.columns[0].bin_sizes)
        for intake in self.intakes.values():
            intake.close()
        self.intakes.clear()
        self.manifest = of_schema(self.manifest, schema, bins)
        for column in self.manifest.columns:
            self._take_in(column)
        self.announce()
        for intake in self.intakes.values():
            intake.appender.create()

    def _listed(self) -> list[Intake]:
        return list(self.intakes.values())

    def use_compression(self, compression: Mapping[str, Zstd]) -> None:
        """Compress the columns that are made from now on like this."""
        self._opening = replace(self._opening, compression=compression)

    # -- columns ---------------------------------------------------------------------------

    def _take_in(self, column: Column, since: int = 0) -> Intake:
        self.intakes[column.name] = intake = self._intake(column, since)
        return intake

    def _intake(self, column: Column, since: int = 0) -> Intake:
        segment = column.layout.segments[-1]
        fresh = not column.layout.rows and since
        appender = ColumnAppender(
            self.path,
            self.manifest.dataset,
            self.manifest.volume,
            column,
            bins=segment.bins if fresh else self._opening.bins,
            dealing=None if fresh else self._opening.dealing,
            max_open=max(8, _OPEN_FILES // max(1, len(self.manifest.columns))),
        )
        zstd = (self._opening.compression or {}).get(column.name)
        return Intake(self.path, self.manifest, appender, column, zstd=zstd, since=since)

    def new_column(self, name: str, field: Field) -> Intake:
        """Make the files of one more column; without values so far."""
        number = max(
            self.manifest.next_column,
            1 + max(intake.column.number for intake in self.intakes.values()),
        )
        bins = self._opening.bins or self.manifest.columns[0].layout.segments[-1].bins
        layout = BinLayout([Segment(0, 0, 0, bins)])
        before = self.intakes.get(name)
        intake = self._take_in(Column(name, field, number, (0,) * bins, layout), self.rows)
        try:
            self.announce()
            intake.appender.create()
        except BaseException:
            self.give_up_column(intake, before)
            raise
        return intake

    def give_up_column(self, intake: Intake, before: Intake | None) -> None:
        """Remove the files of a column that was not committed, and put back what it replaced."""
        intake.close()
        if before is None:
            self.intakes.pop(intake.column.name, None)
        else:
            self.intakes[intake.column.name] = before
        self._remove(intake)

    def replaced(self, before: Intake) -> None:
        """Note that a column's files are of no use once the next commit is made."""
        before.close()
        committed = {column.number: column for column in self.manifest.columns}
        column = committed.get(before.column.number)
        # Of a volume that replaces another one, no manifest names anything yet.
        if column is not None and self._replaces is None:
            bins = len(before.appender.sizes)
            self._replaced += retire.column_files(self.manifest, column, bins)
        else:
            self._remove(before)

    def _remove(self, intake: Intake) -> None:
        manifest, bins = self.manifest, range(len(intake.appender.sizes))
        versions = (0, manifest.generation + 1)
        retire.remove_column(self.path, manifest.volume, intake.column.number, bins, versions)

    def announce(self, coming: Sequence[Intake] = ()) -> None:
        """Note which files may be made from now on, for whoever finds them after a crash."""
        intakes = [*self._listed(), *coming]
        note = announcement(self.manifest.volume, intakes, self._lock.announced)
        self._lock.announce(note)

    def check_changeable(self) -> None:
        """Raise ``StorageError`` unless records that are there may be changed."""
        self.check_usable()

    def check_usable(self) -> None:
        """Raise ``StorageError`` unless this process may still write."""
        if self._ended:
            raise StorageError(errno.EBADF, "the writer is closed", self.path)
        if os.getpid() != self._pid:
            raise StorageError(errno.EBADF, "the writer belongs to the parent process", self.path)

    # -- rows ------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows of the dataset once this session is committed, deleted ones included."""
        return min(intake.rows for intake in self.intakes.values())

    def flush(self) -> None:
        """Write what the columns hold."""
        for intake in self.intakes.values():
            intake.flush()

    def physical(self, position: int) -> int:
        """The row at a position; positions are those of the last commit, then what was added.

        Raises:
            IndexError: there is none, or it was deleted in this session.
        """
        return self.deleted.row(position, self.rows)

    # -- the catalog -----------------------------------------------------------------------

    def open_catalog(self, metadata: Mapping[str, str]) -> CatalogWriter:
        """The catalog's writing session, begun if there is none."""
        if self.catalog is not None:
            return self.catalog
        previous = self.manifest.catalog
        catalog = CatalogWriter(
            self.path,
            self.manifest.volume,
            previous,
            metadata=metadata,
            columns=list(self.intakes),
        )
        try:
            if previous is None:
                self._list_rows(catalog)
        except BaseException:
            catalog.close()
            raise
        self.catalog = catalog
        self.catalog_changed = self.catalog_changed or previous is None or bool(metadata)
        return catalog

    def _list_rows(self, catalog: CatalogWriter) -> None:
        """Give a new catalog the rows that are there, and which of their values are missing."""
        if not self.rows:
            return
        self.flush()
        for start in range(0, self.rows, _CATALOG_ROWS):
            rows = np.arange(start, min(self.rows, start + _CATALOG_ROWS), dtype=np.int64)
            found = {name: intake.present(rows) for name, intake in self.intakes.items()}
            present = {name: there for name, there in found.items() if there is not None}
            catalog.add(start, None, None, present, count=len(rows))
        deleted = self.deleted.all()
        if len(deleted):
            catalog.delete(deleted)

    # -- committing ------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything durable and visible; see `DatasetWriter.commit`."""
        self.flush()
        if self._is_committed():
            self._settle()
            return
        before, number = self.manifest, self.manifest.following
        columns = [intake.commit(number) for intake in self.intakes.values()]
        stale = [*before.stale, *self._replaced]
        for intake, column in zip(self._listed(), columns, strict=True):
            if column.version != intake.column.version:
                earlier = intake.column.version
                stale.append(Stale("index", before.volume, column.number, earlier))
        deleted, catalog = before.deleted, before.catalog
        if self.deleted.since:
            pairs = zip(self._listed(), columns, strict=True)
            columns = [intake.without(column, self.deleted.since) for intake, column in pairs]
            deleted = self.deleted.write(before, number)
            if before.deleted is not None:
                stale.append(Stale("deleted", before.volume, 0, before.deleted.number))
        if self.catalog is not None and self.catalog_changed:
            catalog = self.catalog.finish(number)
            if before.catalog is not None:
                stale.append(Stale("catalog", before.volume, 0, before.catalog.number))
        retired, still = retire.still_there(self.path, before.retired, stale)
        manifest = replace(
            before,
            generation=number,
            rows=min(column.layout.rows for column in columns),
            columns=tuple(columns),
            retired=retired,
            next_column=max(before.next_column, *(1 + column.number for column in columns)),
            deleted=deleted,
            catalog=catalog,
            stale=still,
            note=self.note,
        )
        pairs = zip(self._listed(), columns, strict=True)
        renewed = [self._intake(column) for intake, column in pairs if intake.updates]
        self.announce(renewed)
        files.replace(self._manifest_path, encode(manifest))
        # Readers see it from here on: there is no way back, and until all goes on from it,
        # nothing is done that may fail.
        self.manifest, self._replaces, self._settled = manifest, None, False
        self._begin_anew(renewed)
        self._settle()

    def _is_committed(self) -> bool:
        """Whether the columns' files are exactly those of the manifest."""
        return (
            self._replaces is None
            and (self.note is None or self.note == self.manifest.note)
            and not self.deleted.since
            and not self._replaced
            and not (self.catalog is not None and self.catalog_changed)
            and not any(intake.updates for intake in self._listed())
            and [(i.column.number, i.appender.rows) for i in self._listed()]
            == [(c.number, c.layout.rows) for c in self.manifest.columns]
        )

    def _begin_anew(self, renewed: Sequence[Intake]) -> None:
        """Go on from the commit that was just made."""
        self.deleted.settle()
        self._replaced, self.catalog_changed = [], False
        for intake in renewed:
            self.intakes[intake.column.name].close()
            self.intakes[intake.column.name] = intake

    def _settle(self) -> None:
        """Make the commit's name durable, and only then remove what it replaced."""
        if not self._settled:
            files.sync_directory(self.path)
            retire.remove_retired(self.path, self.manifest.retired, self.manifest.stale)
            self._settled = True

    # -- ending ----------------------------------------------------------------------------

    def abort(self) -> None:
        """Give up what was written since the last commit and let go of the dataset."""
        announced = self._lock.announced
        try:
            self._close_files()
            assert announced is not None
            if self._replaces is not None:
                retire.remove_volume(self.path, announced, self.manifest.generation + 1)
            else:
                retire.cut_leftovers(self.path, read_manifest(self.path), announced)
                if self._created and not self.manifest.generation:
                    retire.remove_dataset(self.path, announced)
        except BaseException:
            self.fail()
            raise
        self._lock.release()

    def release(self) -> None:
        """Let go of a dataset that was committed."""
        try:
            self._close_files()
        except BaseException:
            self.fail()
            raise
        self._lock.release()

    def fail(self) -> None:
        """Let go after an error; the lock's note lets the next writer tidy up."""
        try:
            self._close_files()
        finally:
            self._lock.release(tidy=False)

    def _close_files(self) -> None:
        self._ended = True
        for intake in self.intakes.values():
            intake.close()
        catalog, self.catalog = self.catalog, None
        if catalog is not None:
            catalog.close()

    @property
    def committed_rows(self) -> int:
        """Records that the last commit holds."""
        return 0 if self._replaces is not None else self.manifest.live_rows
