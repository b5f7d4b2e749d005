"""Writing a dataset into a store.

Responsible for: `UploadingSession`, a writing session whose files become objects.

Objects cannot be appended to, so what is written there is sealed: a *segment* (records dealt to a
few bins of their own, which the format has for this) goes on in files of a *spool*, a folder of
this machine; when its bins are full they are uploaded and removed here, and another segment begins.
A commit seals the segment that is under way, uploads index, sums and catalog whole, and then the
manifest.

Rules:
- readers see a commit when its manifest is there, which is written last, and only in place of the
  one that was there when this writer began: a writer never undoes what another one committed;
- two writers never have an object of the same name: each claims a *volume*, the number in
  all names, by an object that only one of them can make. So what a killed writer, or one that came
  too late, has uploaded lies beside everything else, and no manifest names it;
- no object is ever replaced but the manifest: readers of an earlier commit keep theirs. Index and
  sums of a later commit of the same writer have its number in their names;
- what is on the disk is bounded: the bins of one segment of each column, and as much that waits.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from splitpipe.errors import DatasetChanged, FormatError, StorageError
from splitpipe.remote.spool import Spool
from splitpipe.remote.uploads import Upload, Uploads
from splitpipe.schema import Schema
from splitpipe.storage.appender import ColumnAppender
from splitpipe.storage.catalog_file import catalog_name
from splitpipe.storage.committed import Column, Manifest, following
from splitpipe.storage.format import MANIFEST_NAME, MAX_BINS, FileId, file_header, file_name
from splitpipe.storage.intake import Intake
from splitpipe.storage.manifest import decode, encode
from splitpipe.storage.session import Session
from splitpipe.storage.volume import Opening
from splitpipe.stores.base import ABSENT, Store

__all__ = ["BINS", "BIN_NBYTES", "UploadingSession", "claim_key"]

BINS: Final = 16
BIN_NBYTES: Final = 64 << 20
_MOST_CLAIMS: Final = 1000
_MOST_OPEN: Final = 64

_log = logging.getLogger("splitpipe.remote")


def claim_key(volume: int) -> str:
    """The name of the object that says whose a volume is.

    Example:
        >>> claim_key(2)
        'v0002.writer'
    """
    return f"v{volume:04d}.writer"


class UploadingSession(Session):
    """One writer at work on one dataset in a store.

    Args:
        place: its url, or the store itself, which is not closed then.
        opening: how to begin.
        schema: of a new dataset; ``None`` is bytes, until `restart` says otherwise.
        storage_options: for the store at a url.
        bin_nbytes: about how large a bin becomes.
        spool_dir: where the folder is made in which files are until they are uploaded.

    Raises:
        StorageError: there is a dataset already, or it cannot be written to.
        LockedError: another writer of this machine is at work on it.
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | Store,
        opening: Opening,
        schema: Schema | None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        bin_nbytes: int = BIN_NBYTES,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if type(bin_nbytes) is not int or bin_nbytes < 1:
            raise FormatError(f"bin_nbytes must be a number of bytes, not {bin_nbytes!r}")
        self._ours = isinstance(place, str | os.PathLike)
        self._store = _opened(place, storage_options)
        self._bin_nbytes = bin_nbytes
        self._published: Manifest | None = None
        self._named_index = False
        self._sent: set[str] = set()
        self._tried: bytes | None = None
        self._spool: Spool | None = None
        self._uploads: Uploads | None = None
        try:
            self._spool = Spool(self._store.url, spool_dir)
            found, self._tag = self._find(opening)
            bins = opening.bins or BINS
            how = replace(
                opening,
                bins=bins,
                append=False,
                overwrite=False,
                volume=self._claim(found),
                generation=0 if found is None else found.generation,
            )
            self._uploads = Uploads(self._store, limit_nbytes=bins * bin_nbytes)
            super().__init__(self._spool.path, how, schema)
        except BaseException:
            self._let_go()
            raise

    # -- beginning -------------------------------------------------------------------------

    def _find(self, opening: Opening) -> tuple[Manifest | None, str]:
        """The dataset that is there, if any and if it may be replaced, and its version."""
        if opening.append:
            raise StorageError(
                errno.ENOTSUP,
                "a dataset in a store cannot be added to: its objects cannot grow. Write what is "
                "to be added into a dataset of its own, and read both (sp.concat), or append to a "
                "local copy and upload that",
                self.place,
            )
        try:
            stat = self._store.stat(MANIFEST_NAME)
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            return None, ABSENT
        if stat.tag is None:
            raise StorageError(errno.ENOTSUP, _NO_VERSIONS, self.place)
        found = decode(self._store.read(MANIFEST_NAME, tag=stat.tag), self.place)
        if found.rows and not opening.overwrite:
            raise StorageError(
                errno.EEXIST,
                f"a dataset of {found.live_rows} records is here already: say overwrite=True to "
                "replace it",
                self.place,
            )
        return found, stat.tag

    def _claim(self, found: Manifest | None) -> int:
        """Make a volume this writer's own: the first that is nobody's."""
        volume = 1 if found is None else following(found.volume)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())}
        for number in range(volume, volume + _MOST_CLAIMS):
            key, said = claim_key(number), json.dumps(owner).encode()
            try:
                stat = self._store.write(key, said, expected=ABSENT)
                if found is not None:  # a manifest has to be replaced: better known now than then
                    self._store.write(key, said, expected=stat.tag)
            except DatasetChanged:
                _log.warning(
                    "%s: another writer has begun volume %d and has not committed it: it is at "
                    "work, or it died and left its objects behind",
                    self.place,
                    number,
                )
                continue
            return number
        raise StorageError(
            errno.EEXIST, f"{_MOST_CLAIMS} writers have begun here and left nothing", self.place
        )

    @property
    def place(self) -> str:
        return self._store.url

    def check_changeable(self) -> None:
        super().check_changeable()
        raise StorageError(
            errno.ENOTSUP,
            "records of a dataset in a store cannot be changed: its objects are written once. "
            "Change a local copy and upload that, or write the dataset anew",
            self.place,
        )

    # -- writing ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what the columns hold, and upload bins that are full."""
        super().flush()
        for intake in self._listed():
            appender = intake.appender
            first, bins = appender.planned_bins
            sizes = appender.sizes[first : first + bins]
            # Few large records may fill one bin long before the others.
            if sum(sizes) >= bins * self._bin_nbytes or max(sizes) >= 2 * self._bin_nbytes:
                self._seal(intake)

    def _seal(self, intake: Intake) -> None:
        """Upload the bins of a segment, and begin another one."""
        before = intake.appender
        column = before.column()
        segment = column.layout.segments[-1]
        if not segment.rows:
            return
        if len(before.sizes) + segment.bins > MAX_BINS:
            raise FormatError(
                f"{self.place} has {len(before.sizes)} bins, more than {MAX_BINS} are not "
                "possible: write it anew with a larger bin_nbytes"
            )
        before.sync()  # a disk that failed says so now
        intake.appender = ColumnAppender(
            self.path,
            self.manifest.dataset,
            self.manifest.volume,
            column,
            bins=segment.bins,
            dealing=segment.dealing,
            max_open=_MOST_OPEN,
            anew=True,
        )
        before.close()
        assert self._uploads is not None
        failure: StorageError | None = None
        for number in range(segment.first_bin, segment.first_bin + segment.bins):
            if size := column.bin_sizes[number]:
                identity = self.manifest.file_id("bin", column, number)
                try:
                    self._uploads.add(self._upload(identity, size))
                except StorageError as error:  # all of them are kept, to be tried again
                    failure = error
        if failure is not None:
            raise failure

    def _upload(self, identity: FileId, size: int) -> Upload:
        name = file_name(identity)
        return Upload(name, os.path.join(self.path, name), size)

    # -- committing ------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything visible; see `DatasetWriter.commit`."""
        self.flush()
        for intake in self._listed():
            self._seal(intake)
        super().commit()
        if self.manifest is not self._published:
            self._publish()

    def _is_committed(self) -> bool:
        return self._published is not None and super()._is_committed()

    def _publish(self) -> None:
        uploads, version = self._uploads, self.manifest.generation if self._named_index else 0
        assert uploads is not None
        columns = tuple(replace(column, version=version) for column in self.manifest.columns)
        manifest = replace(self.manifest, columns=columns, stale=(), retired=())
        self._named_index = True  # whatever becomes of it: the next commit has other names
        once = self._written_once(manifest)
        pairs = zip(self.manifest.columns, columns, strict=True)
        indices = [
            one for local, column in pairs for one in self._of_column(local, manifest, column)
        ]
        try:
            for upload in [*once, *indices]:
                uploads.add(upload)
            uploads.settle()
        except StorageError:
            uploads.forget_kept()  # the next try makes them anew
            raise
        self._sent.update(upload.key for upload in once)
        self._write_manifest(encode(manifest))
        self._published = self.manifest

    def _of_column(self, local: Column, manifest: Manifest, column: Column) -> list[Upload]:
        """Index and sums, by the names that they have in the store."""
        made = []
        for kind, size in (
            ("index", manifest.index_size(column)),
            ("sums", manifest.sums_size(column)),
        ):
            identity = manifest.file_id(kind, column)
            path = os.path.join(self.path, file_name(self.manifest.file_id(kind, local)))
            head = file_header(identity)
            made.append(Upload(file_name(identity), path, size, head=head, keep=True))
        return made

    def _written_once(self, manifest: Manifest) -> list[Upload]:
        """Dictionaries and the catalog, unless they are in the store already."""
        made = []
        for column in manifest.columns:
            if column.dictionary is not None:
                identity = manifest.file_id("dictionary", column)
                size = len(file_header(identity)) + column.dictionary.nbytes
                made.append(replace(self._upload(identity, size), keep=True))
        if manifest.catalog is not None:
            name = catalog_name(manifest.volume, manifest.catalog.number)
            path = os.path.join(self.path, name)
            made.append(Upload(name, path, manifest.catalog.size, keep=True))
        return [upload for upload in made if upload.key not in self._sent]

    def _write_manifest(self, raw: bytes) -> None:
        tried, self._tried = self._tried, raw
        try:
            stat = self._store.write(MANIFEST_NAME, raw, expected=self._tag)
        except DatasetChanged as error:
            found = self._store.stat(MANIFEST_NAME)
            there = self._store.read(MANIFEST_NAME, tag=found.tag)
            if there == tried and found.tag is not None:  # it was written, the answer was lost
                found = self._store.write(MANIFEST_NAME, raw, expected=found.tag)
            elif there != raw:
                raise DatasetChanged(
                    errno.ESTALE,
                    "another writer has committed since this one began: that stays, and nothing of "
                    f"what was written here is seen (objects of volume {self.manifest.volume}); "
                    "write again, with overwrite=True to replace it",
                    self.place,
                ) from error
            stat = found
        if stat.tag is None:
            raise StorageError(errno.ENOTSUP, _NO_VERSIONS, self.place)
        self._tag = stat.tag

    # -- ending ----------------------------------------------------------------------------

    def abort(self) -> None:
        """Give up what was not committed; what was uploaded of it stays, and nothing names it."""
        try:
            self._close_files()
        finally:
            self._lock.release()
            self._let_go()

    def release(self) -> None:
        """Let go of a dataset that was committed."""
        try:
            super().release()
        finally:
            self._let_go()

    def fail(self) -> None:
        """Let go after an error."""
        try:
            super().fail()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._uploads is not None:
            self._uploads.close()
        if self._spool is not None:
            self._spool.close()
        if self._ours:
            self._store.close()


_NO_VERSIONS: Final = (
    "this store cannot tell versions of an object apart, so that two writers could undo each "
    "other's commits: write a local dataset and copy it there"
)


def _opened(
    place: str | os.PathLike[str] | Store, storage_options: Mapping[str, Any] | None
) -> Store:
    if isinstance(place, str | os.PathLike):
        from splitpipe.stores import open_store

        store: Store = open_store(os.fspath(place), storage_options=storage_options)
        return store
    if storage_options is not None:
        raise TypeError("storage_options are for a url, this is a store already")
    return place
