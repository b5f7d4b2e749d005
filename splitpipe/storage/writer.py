"""Writing a dataset: records in, one by one or many, and changes to those that are there.

Responsible for: `DatasetWriter`, what users see of writing. How records wait is the business of
``buffer``, how they are changed of ``editor``, when all of that counts of ``session``.

Not for several threads at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import chain
from types import TracebackType
from typing import Any, Self, Unpack

from splitpipe.errors import FormatError
from splitpipe.schema import FieldLike, Schema
from splitpipe.storage import files
from splitpipe.storage.buffer import Meta, RecordBuffer
from splitpipe.storage.editor import Editor, KeyOrRow
from splitpipe.storage.options import (
    FOR_STORES,
    Compression,
    WriterOptions,
    checked_bins,
    checked_keys,
    checked_options,
)
from splitpipe.storage.session import DEFAULT_BINS, Opening, Session
from splitpipe.stores.base import Store

__all__ = ["DEFAULT_BINS", "DatasetWriter", "WriterOptions", "checked_bins"]


class DatasetWriter:
    """Writes records into a dataset; a clean exit of the ``with`` block commits them.

    Args:
        path: the dataset's directory, created when missing; or its url (``s3://bucket/data``), or a
            `Store`: bins are uploaded as they fill, and a commit is seen when its manifest, which
            comes last, is there. Another writer that commits meanwhile wins: this one's commit is
            then refused (`DatasetChanged`). There, records can be added and the whole dataset
            replaced (``overwrite``), not more.
        schema: what a record is: a `Schema`, a mapping from column to type, or a single type
            for records that are plain values. Default: what the first record suggests.
        bins: how many bins share the records. Default: 64 for a new dataset, in a store 16 that
            are uploaded together; when appending, the bins of the last session go on being filled.
        append: add to the dataset that is there, or change it.
        overwrite: replace the dataset that is there. The old records stay readable until the
            commit, and open readers keep them until they close.
        options: see `WriterOptions`.

    Raises:
        StorageError: the directory holds a dataset already and neither ``append`` nor
            ``overwrite`` was said, or holds something else, or cannot be written.
        LockedError: another writer is at work on it.
        FormatError: an option cannot be, or the dataset there is damaged or of another schema.

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
        path: str | os.PathLike[str] | Store,
        schema: Schema | Mapping[str, FieldLike] | FieldLike | None = None,
        *,
        bins: int | None = None,
        append: bool = False,
        overwrite: bool = False,
        **options: Unpack[WriterOptions],
    ) -> None:
        self._closed = True
        if append and overwrite:
            raise FormatError("say append or overwrite, not both")
        if bins is not None:
            bins = checked_bins(bins)
        checked_options(options, bins or DEFAULT_BINS)
        keys = checked_keys(options.get("keys"))
        self._compression = Compression(options.get("compression"))
        self._pid = os.getpid()
        said = None if schema is None else self._compression.applied(Schema.parse(schema))
        how = Opening(bins, options.get("dealing"), append, overwrite, self._compression.of(said))
        self._session = _session(path, how, said, options)
        self._path = self._session.place
        try:
            manifest = self._session.manifest
            # Nothing was ever said about what a record is: the first one will.
            self._undecided = said is None and not manifest.rows and manifest.plain
            self._buffer = RecordBuffer(self._session, keys, options.get("metadata") or {})
            self._editor = Editor(self._session, self._buffer)
            if not self._undecided:
                self._buffer.begin_catalog()
        except BaseException:
            self._session.abort()
            raise
        self._closed = False

    def _decide(self, record: Any) -> None:
        """Let the first record say what records are."""
        self._session.check_usable()
        schema = self._compression.applied(Schema.infer(record))
        self._undecided = False
        if schema != self._buffer.schema:
            self._session.use_compression(self._compression.of(schema))
            self._session.restart(schema)
            self._buffer.take_columns()
        self._buffer.begin_catalog()

    # -- writing ---------------------------------------------------------------------------

    def write(self, record: Any, key: str | None = None, meta: Meta | None = None) -> None:
        """Add one record.

        Args:
            record: a dict with the columns' values, or the value itself where records are
                plain; ``None`` for a missing value. Bytes are taken now: a buffer may be used
                again at once.
            key: a name for it, unique in the dataset.
            meta: metadata about it, a dict that JSON can hold.

        Raises:
            FormatError: it does not fit the schema, or the key is there already. Nothing was
                added.
            StorageError: the disk failed while room was made in memory. This record was not
                added, earlier ones are kept: make room and write it again, or `abort`.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> with sp.DatasetWriter(path) as writer:
            ...     writer.write({"text": "a", "score": 0.5}, key="first")
            >>> sp.DatasetWriter(path, append=True).close()
        """
        if self._undecided:
            self._decide(record)
        self._buffer.add(record, key, meta)

    def write_many(
        self,
        records: Iterable[Any],
        keys: Iterable[str | None] | None = None,
        metas: Iterable[Meta | None] | None = None,
    ) -> None:
        """Add records: the same as `write` for each, and the faster way.

        Args:
            records: consumed one by one. If it raises, or holds something that does not fit,
                what came before is added.
            keys: a key for each.
            metas: metadata for each.

        Raises:
            FormatError: a record does not fit, or a key is there already.
            StorageError: the disk failed. An iterator given as ``records`` can be given again
                to go on where it stopped; with keys or metadata, go on from record `rows`.
        """
        self._session.check_usable()
        if self._undecided:
            source = iter(records)
            first = next(source, self)
            if first is self:
                return
            self._decide(first)
            if not isinstance(records, (list, tuple)):
                records = chain((first,), source)
        self._buffer.add_many(records, keys, metas)

    def flush(self) -> None:
        """Write what is held in memory to the files. It counts only after a `commit`."""
        self._buffer.flush()

    # -- changing --------------------------------------------------------------------------

    def add_column(self, name: str, field: FieldLike) -> None:
        """Add a column; its values are missing in all records that are there.

        Fill it with `update_column` for all records, or `update` for some.

        Raises:
            FormatError: the name is taken or cannot be, or records are plain values.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> with sp.DatasetWriter(path) as writer:
            ...     writer.write_many([{"n": 1}, {"n": 2}])
            >>> with sp.DatasetWriter(path, append=True) as writer:
            ...     writer.add_column("square", "int64")
            ...     writer.update_column("square", [1, 4])
        """
        self._session.check_changeable()
        schema = self._compression.applied(self._buffer.schema.with_field(name, field))
        self._session.use_compression(self._compression.of(schema))
        self._editor.add_column(name, schema[name])

    def update(self, key_or_row: KeyOrRow, values: Any = None, meta: Meta | None = None) -> None:
        """Give a record other values, or other metadata.

        Args:
            key_or_row: its key, or its position: as the last commit numbers records, and then
                those that were added since.
            values: a dict with the columns to change, ``None`` in it for a value that shall
                be missing; where records are plain, the new value itself.
            meta: its whole metadata from now on.

        Raises:
            KeyError: no record has this key.
            IndexError: there is no such record.
            FormatError: a value does not fit. Nothing was changed.

        Example:
            >>> import tempfile, splitpipe as sp
            >>> path = tempfile.mkdtemp()
            >>> with sp.DatasetWriter(path) as writer:
            ...     writer.write_many([{"n": 1}, {"n": 2}])
            >>> with sp.DatasetWriter(path, append=True) as writer:
            ...     writer.update(1, {"n": 3})
        """
        self._session.check_changeable()
        self._editor.update(key_or_row, values, meta)

    def update_many(self, changes: Iterable[tuple[Any, ...]]) -> None:
        """Update records: ``(key_or_row, values)`` or ``(key_or_row, values, meta)`` for each.

        Raises:
            KeyError, IndexError, FormatError: as `update`; what came before is changed.
        """
        for change in changes:
            self.update(*change)

    def update_column(self, name: str, values: Iterable[Any]) -> None:
        """Give a column other values, in all records.

        Args:
            name: of the column.
            values: one for every record, in order, consumed one by one.

        Raises:
            FormatError: a value does not fit, or there are more or fewer than records. The
                column is as it was.
        """
        self._session.check_changeable()
        self._editor.update_column(name, values)

    def delete(self, records: KeyOrRow | Iterable[KeyOrRow]) -> None:
        """Delete records, by key or by position, as for `update`.

        Positions do not move before the commit. `compact` gives back the room they took.

        Raises:
            KeyError, IndexError: there is no such record. Nothing was deleted.
        """
        self._session.check_changeable()
        self._editor.delete(records)

    # -- committing ------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything written so far durable and visible to readers opened from now on.

        Raises:
            StorageError: the disk failed. The last commit stays readable, and what was
                written is kept: `commit` can be tried again.
        """
        self._buffer.flush()
        self._editor.tell_catalog()
        try:
            self._session.commit()
        finally:
            # Also after a commit that only its last steps failed of.
            self._buffer.take_columns()

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
        self._buffer.refuse()
        self._closed = True
        self._session.abort()

    def _release(self) -> None:
        self._buffer.refuse()
        self._closed = True
        self._session.release()

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
        """The dataset's directory, or url."""
        return self._path

    @property
    def rows(self) -> int:
        """Rows in the dataset once this session is committed, deleted ones included."""
        return self._session.rows

    @property
    def schema(self) -> Schema | None:
        """What a record is; ``None`` until the first one says it."""
        return None if self._undecided else self._buffer.schema

    @property
    def dataset(self) -> str:
        """The id of what is written, 32 hexadecimal digits; another one for overwriting."""
        return self._session.manifest.dataset.hex()

    @property
    def generation(self) -> int:
        """How many commits there were."""
        return self._session.manifest.generation

    @property
    def committed_rows(self) -> int:
        """Records that the last commit holds."""
        return self._session.committed_rows

    @property
    def note(self) -> Mapping[str, Any] | None:
        """What the last commit says of itself, or, once it was set, what the following ones will.

        A JSON object for whoever writes: how far he is stands in the same commit as what he wrote.
        """
        session = self._session
        return session.manifest.note if session.note is None else session.note

    @note.setter
    def note(self, note: Mapping[str, Any]) -> None:
        self._session.note = dict(note)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.committed_rows} committed"
        return f"DatasetWriter({self._path!r}, {self.rows} records, {state})"


def _session(
    path: str | os.PathLike[str] | Store,
    opening: Opening,
    schema: Schema | None,
    options: Mapping[str, Any],
) -> Session:
    given = {name: options[name] for name in FOR_STORES if options.get(name) is not None}
    if not isinstance(path, str | os.PathLike) or "://" in os.fspath(path):
        # By name: a room above this one, that most programs do not need.
        upload = import_module("splitpipe.remote.upload")
        made: Session = upload.UploadingSession(path, opening, schema, **given)
        return made
    if given:
        raise TypeError(f"{path!r} is no url and no store: {min(given)} is for those")
    return Session(files.local(path), opening, schema)
