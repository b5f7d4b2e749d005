"""Writing a dataset: sessions, commits, and what happens when one fails.

Responsible for: `DatasetWriter`: who may write (one, by a lock), into what (nothing, a dataset
of ours, never anything else), and when it counts (at a commit, all or nothing).

Rules:
- the order of a commit: bins, index and sums are made durable, then the manifest is replaced
  by rename, then the directory is made durable. The rename is the commit;
- no byte of what was committed is changed: appending only adds, overwriting writes new files
  and removes the old ones after the commit, once no reader holds them;
- what a killed writer left is cut or removed by the next one, by number, never by listing the
  directory: the lock file says which bins the dead writer may have made;
- memory is bounded: 8 MiB of records, or one record, are held before they are written.

Not for several threads at once.
"""

from __future__ import annotations

import errno
import operator
import os
import secrets
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Self, SupportsIndex

from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import BARE, Field
from splitpipe.storage import files, retire
from splitpipe.storage.appender import ColumnAppender
from splitpipe.storage.format import LOCK_NAME, MANIFEST_NAME, MAX_BINS
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.lock import WriterLock
from splitpipe.storage.manifest import Column, Manifest, encode
from splitpipe.storage.snapshot import read_manifest

__all__ = ["DEFAULT_BINS", "DatasetWriter", "checked_bins"]

DEFAULT_BINS = 64
_PENDING_NBYTES = 8 << 20


class DatasetWriter:
    """Writes records into a dataset; a clean exit of the ``with`` block commits them.

    Args:
        path: the dataset's directory, created when missing.
        bins: how many bins share the records. Default: 64 for a new dataset; when appending,
            the bins of the last session go on being filled.
        append: add to the dataset that is there.
        overwrite: replace the dataset that is there. The old records stay readable until the
            commit, and open readers keep them until they close.
        dealing: order in which the bins take records, a permutation of ``range(bins)``.
            Default: by number.

    Raises:
        StorageError: the directory holds a dataset already and neither ``append`` nor
            ``overwrite`` was said, or holds something else, or cannot be written.
        LockedError: another writer is at work on it.
        FormatError: ``bins`` is not from 1 to 65536, or the dataset there is damaged.

    Example:
        >>> import tempfile, os, splitpipe as sp
        >>> path = os.path.join(tempfile.mkdtemp(), "numbers")
        >>> with sp.DatasetWriter(path, bins=4) as writer:
        ...     writer.write(b"zero")
        ...     writer.write_many(str(n).encode() for n in range(1, 1000))
        >>> len(sp.open_dataset(path))
        1000
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bins: int | None = None,
        append: bool = False,
        overwrite: bool = False,
        dealing: Sequence[int] | None = None,
    ) -> None:
        self._closed = True
        self._path = os.path.abspath(os.fspath(path))
        self._manifest_path = os.path.join(self._path, MANIFEST_NAME)
        if append and overwrite:
            raise FormatError("say append or overwrite, not both")
        if bins is not None:
            bins = checked_bins(bins)
        if dealing is not None and sorted(dealing) != list(range(bins or DEFAULT_BINS)):
            raise FormatError("dealing must name every bin once, counted from 0")
        self._pending: list[bytes] = []
        self._pending_nbytes = 0
        # 0 makes the next write call flush, which looks whether writing is allowed at all.
        self._room = 0
        self._pid = os.getpid()
        self._settled = True
        self._writing: ColumnAppender | None = None
        found = self._look(append=append, overwrite=overwrite)
        self._created = files.make_directory(self._path)
        self._lock = WriterLock(os.path.join(self._path, LOCK_NAME))
        try:
            # Again, now that nobody else can change it.
            found = self._look(append=append, overwrite=overwrite)
            retire.cut_leftovers(self._path, found, self._lock.previous)
            self._begin(found, bins, dealing, overwrite=overwrite and found is not None)
        except BaseException:
            self._fail()
            raise
        self._closed = False

    def _fail(self) -> None:
        """Leave after an error; the lock's note lets the next writer tidy up."""
        if self._writing is not None:
            self._writing.close()
        self._lock.release(tidy=False)

    # -- what is there ---------------------------------------------------------------------

    def _look(self, *, append: bool, overwrite: bool) -> Manifest | None:
        """The dataset that is there, if any and if it may be written to."""
        if not os.path.lexists(self._manifest_path):
            retire.refuse_foreign(self._path)
            return None
        found = read_manifest(self._path)
        if found.rows and not (append or overwrite):
            raise StorageError(
                errno.EEXIST,
                f"a dataset of {found.rows} records is here already: say append=True to add to "
                "it or overwrite=True to replace it",
                self._path,
            )
        return found

    def _begin(
        self,
        found: Manifest | None,
        bins: int | None,
        dealing: Sequence[int] | None,
        *,
        overwrite: bool,
    ) -> None:
        if found is None or overwrite:
            manifest = _empty(bins or DEFAULT_BINS, replaces=found)
        else:
            manifest = found
        self._replaces = found if overwrite else None
        self._manifest = manifest
        self._appender = self._writing = ColumnAppender(
            self._path,
            manifest.dataset,
            manifest.volume,
            manifest.columns[0],
            bins=bins,
            dealing=dealing,
        )
        first_bin, count = self._appender.planned_bins
        self._lock.announce(manifest.volume, first_bin, count)
        if manifest is not found:
            self._appender.create()
            self._appender.sync()
            if not overwrite:
                # From here on the directory is a dataset, an empty one, whatever happens.
                files.replace(self._manifest_path, encode(manifest))
                files.sync_directory(self._path)

    # -- writing ---------------------------------------------------------------------------

    def write(self, record: bytes | bytearray | memoryview) -> None:
        """Add one record.

        Args:
            record: any bytes-like object, of any length, also none. Its bytes are taken now:
                a buffer may be used again at once.

        Raises:
            FormatError: it is not bytes-like. Nothing was added.
            StorageError: the disk failed while room was made in memory. This record was not
                added, earlier ones are kept: make room and write it again, or `abort`.
        """
        data = record if type(record) is bytes else _as_bytes(record, self.rows)
        if self._pending_nbytes >= _PENDING_NBYTES or len(self._pending) >= self._room:
            self.flush()
        self._pending.append(data)
        self._pending_nbytes += len(data)

    def write_many(self, records: Iterable[bytes | bytearray | memoryview]) -> None:
        """Add records: the same as `write` for each, and the faster way.

        Args:
            records: consumed one by one. If it raises, or holds something that is not
                bytes-like, what came before is added.

        Raises:
            FormatError: a record is not bytes-like.
            StorageError: the disk failed. An iterator given as ``records`` can be given again
                to go on where it stopped.
        """
        source = iter(records)
        if isinstance(records, (list, tuple)):
            source = islice(records, self._add_blocks(records), None)
        more = True
        while more:
            if self._pending_nbytes >= _PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            pending, nbytes = self._pending, self._pending_nbytes
            room = self._room - len(pending)
            more = False
            try:
                for record in source:
                    if type(record) is not bytes:
                        record = _as_bytes(record, self.rows)
                    pending.append(record)
                    nbytes += len(record)
                    room -= 1
                    if room <= 0 or nbytes >= _PENDING_NBYTES:
                        more = True
                        break
            finally:
                self._pending_nbytes = nbytes

    def _add_blocks(self, records: Sequence[Any]) -> int:
        """Add records from the front, many at a time, while they are plain bytes and small.

        Returns:
            How many were added; the others need a look at each of them.
        """
        done = 0
        while done < len(records):
            if self._pending_nbytes >= _PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            block = records[done : done + self._room - len(self._pending)]
            if set(map(type, block)) != {bytes}:
                break
            nbytes = self._pending_nbytes + sum(map(len, block))
            if nbytes > _PENDING_NBYTES:
                break
            self._pending.extend(block)
            self._pending_nbytes = nbytes
            done += len(block)
        return done

    def flush(self) -> None:
        """Write what is held in memory to the files. It counts only after a `commit`."""
        self._check_usable()
        if self._pending:
            before = self._appender.rows
            try:
                self._appender.append(self._pending)
            finally:
                written = self._appender.rows - before
                if written:
                    del self._pending[:written]
                    self._pending_nbytes = sum(map(len, self._pending))
        self._room = self._appender.room()

    def commit(self) -> None:
        """Make everything written so far durable and visible to readers opened from now on.

        Raises:
            StorageError: the disk failed. The last commit stays readable, and what was
                written is kept: `commit` can be tried again.
        """
        self.flush()
        manifest = self._manifest
        if self._appender.rows == manifest.rows and self._replaces is None:
            self._settle()
            return
        self._appender.sync()
        column = self._appender.column()
        manifest = replace(
            manifest,
            generation=manifest.generation + 1,
            rows=self._appender.rows,
            columns=(column,),
            retired=retire.still_there(self._path, manifest.retired),
        )
        files.replace(self._manifest_path, encode(manifest))
        # Readers see it from here on: whatever fails now, there is no way back.
        self._manifest, self._replaces, self._settled = manifest, None, False
        self._settle()

    def _settle(self) -> None:
        """Make the commit's name durable, and only then remove what it replaced."""
        if not self._settled:
            files.sync_directory(self._path)
            retire.remove_retired(self._path, self._manifest.retired)
            self._settled = True

    # -- ending ----------------------------------------------------------------------------

    def close(self) -> None:
        """Commit and let go of the dataset; a second call does nothing.

        If the commit fails the writer stays open, so that it can be tried again.
        """
        if not self._closed:
            self.commit()
            self._release()

    def abort(self) -> None:
        """Give up what was written since the last commit and let go of the dataset."""
        if self._closed:
            return
        self._pending.clear()
        self._room = 0
        self._closed = True
        self._appender.close()
        planned = self._appender.planned_bins
        try:
            if self._replaces is not None:
                retire.remove_volume(self._path, self._manifest, planned)
            elif self._created and not self._manifest.generation:
                retire.remove_dataset(self._path, self._manifest, planned)
            else:
                retire.cut_leftovers(self._path, self._manifest, self._lock.announced)
        except BaseException:
            self._fail()
            raise
        self._lock.release()

    def _release(self) -> None:
        self._room = 0
        self._closed = True
        self._appender.close()
        self._lock.release()

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageError(errno.EBADF, "the writer is closed", self._path)
        if os.getpid() != self._pid:
            raise StorageError(errno.EBADF, "the writer belongs to the parent process", self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and os.getpid() == self._pid:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self._release()

    # -- telling ---------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The dataset's directory."""
        return self._path

    @property
    def rows(self) -> int:
        """Records in the dataset once this session is committed."""
        return self._appender.rows + len(self._pending)

    @property
    def committed_rows(self) -> int:
        """Records that the last commit holds."""
        return 0 if self._replaces is not None else self._manifest.rows

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.committed_rows} committed"
        return f"DatasetWriter({self._path!r}, {self.rows} records, {state})"


def checked_bins(value: SupportsIndex, name: str = "bins") -> int:
    """A number of bins, or ``FormatError``."""
    try:
        bins = operator.index(value)
    except TypeError:
        bins = 0
    if isinstance(value, bool) or not 1 <= bins <= MAX_BINS:
        raise FormatError(f"{name} must be an integer from 1 to {MAX_BINS}, not {value!r}")
    return bins


def _empty(bins: int, *, replaces: Manifest | None) -> Manifest:
    column = Column(BARE, Field("bytes"), 0, (0,) * bins, BinLayout([Segment(0, 0, 0, bins)]))
    if replaces is None:
        return Manifest(secrets.token_bytes(16), 0, 1, 0, (column,))
    return Manifest(
        dataset=secrets.token_bytes(16),
        generation=replaces.generation,
        volume=replaces.volume + 1,
        rows=0,
        columns=(column,),
        retired=(*replaces.retired, *retire.volumes(replaces)),
    )


def _as_bytes(record: Any, row: int) -> bytes:
    """The bytes of any bytes-like object, copied."""
    try:
        view = memoryview(record)
        if "O" in view.format:
            raise TypeError("it holds Python objects")
        return view.tobytes()
    except (TypeError, ValueError, BufferError) as error:
        raise FormatError(
            f"record {row} is not bytes-like: {type(record).__name__} ({error}); "
            "encode it first, for example text.encode()"
        ) from error
