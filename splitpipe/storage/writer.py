"""Writing a dataset: records in, one by one or many, and changes to those that are there.

Responsible for: `DatasetWriter`: what a record is, which values a record that is refused had, and
that nothing of it was taken. When what was written counts is the business of ``session``.

Rules:
- a record is checked whole before anything of it is taken;
- memory is bounded: 8 MiB of records, or one record, are held before they are written;
- records of plain bytes without keys take a lane of their own, which costs nothing that they do
  not need.

Not for several threads at once.
"""

from __future__ import annotations

import errno
import operator
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice, repeat
from types import TracebackType
from typing import Any, Self, SupportsIndex, TypedDict, Unpack
from uuid import uuid4

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import BARE, FieldLike, Schema
from splitpipe.storage.format import MAX_BINS
from splitpipe.storage.intake import TRAINING_NBYTES, Intake
from splitpipe.storage.session import DEFAULT_BINS, Opening, Session

__all__ = ["DEFAULT_BINS", "DatasetWriter", "WriterOptions", "checked_bins"]

_PENDING_NBYTES = 8 << 20
# Records that are checked and added to the catalog together.
_CHUNK_ROWS = 512

Meta = Mapping[str, Any]
KeyOrRow = str | SupportsIndex


class WriterOptions(TypedDict, total=False):
    """What a `DatasetWriter` may be told beyond the usual.

    Attributes:
        dealing: order in which the bins take records, a permutation of ``range(bins)``.
            Default: by number.
        keys: ``None`` lets records have a key or none, ``True`` demands one of each,
            ``"auto"`` makes one for each that has none.
        metadata: names in the metadata of records that shall be typed and indexed, for quick
            questions: name -> ``int64``, ``float64``, ``str``, ``bool`` or ``json``.
        compression: ``"zstd"`` or a `Zstd` for every column that gains by it (all but
            scalars and media), or a mapping from column to one of them.
    """

    dealing: Sequence[int] | None
    keys: bool | str | None
    metadata: Mapping[str, str] | None
    compression: str | Zstd | Mapping[str, str | Zstd] | None


class DatasetWriter:
    """Writes records into a dataset; a clean exit of the ``with`` block commits them.

    Args:
        path: the dataset's directory, created when missing.
        schema: what a record is: a `Schema`, a mapping from column to type, or a single type
            for records that are plain values. Default: what the first record suggests.
        bins: how many bins share the records. Default: 64 for a new dataset; when appending,
            the bins of the last session go on being filled.
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
        path: str | os.PathLike[str],
        schema: Schema | Mapping[str, FieldLike] | FieldLike | None = None,
        *,
        bins: int | None = None,
        append: bool = False,
        overwrite: bool = False,
        **options: Unpack[WriterOptions],
    ) -> None:
        self._closed = True
        self._path = os.path.abspath(os.fspath(path))
        if append and overwrite:
            raise FormatError("say append or overwrite, not both")
        unknown = set(options) - set(WriterOptions.__annotations__)
        if unknown:
            raise TypeError(f"a DatasetWriter has no option {min(unknown)!r}")
        if bins is not None:
            bins = checked_bins(bins)
        dealing = options.get("dealing")
        if dealing is not None and sorted(dealing) != list(range(bins or DEFAULT_BINS)):
            raise FormatError("dealing must name every bin once, counted from 0")
        self._keys = _checked_keys(options.get("keys"))
        self._metadata = dict(options.get("metadata") or {})
        self._compression = options.get("compression")
        self._pending_nbytes = 0
        # 0 makes the next write call flush, which looks whether writing is allowed at all.
        self._room = 0
        self._pid = os.getpid()
        # Rows whose metadata or presence changes at the next commit.
        self._presence: dict[str, dict[int, bool]] = {}
        said = None if schema is None else self._with_compression(Schema.parse(schema))
        self._opening = Opening(bins, dealing, append, overwrite, self._zstd_of(said))
        self._session = Session(self._path, self._opening, said)
        self._closed = False
        manifest = self._session.manifest
        # Nothing was ever said about what a record is: the first one will.
        self._undecided = said is None and not manifest.rows and manifest.plain
        self._take_columns()
        if not self._undecided:
            self._begin_catalog()

    def _take_columns(self) -> None:
        """The columns as the session has them now."""
        session = self._session
        self._intakes = list(session.intakes.values())
        manifest = session.manifest
        fields = {intake.column.name: intake.field for intake in self._intakes}
        self._schema = Schema(fields[BARE]) if manifest.bare else Schema(fields)
        first = self._intakes[0]
        self._appender = first.appender
        self._pending = first.pending
        # The lane of plain bytes.
        self._fast = (
            not self._undecided
            and self._schema == Schema("bytes")
            and session.catalog is None
            and self._keys is None
        )

    def _begin_catalog(self) -> None:
        if self._metadata or self._keys is not None:
            self._session.open_catalog(self._metadata)
            self._fast = False

    def _with_compression(self, schema: Schema) -> Schema:
        """The schema with the compression that was asked for."""
        wanted = self._compression
        if wanted is None:
            return schema
        if isinstance(wanted, Mapping):
            schema.checked_names(wanted)
            chosen = list(wanted)
        else:
            kinds = ("bytes", "str", "json", "ndarray", "pickle")
            chosen = [name for name, field in schema.items() if field.kind in kinds]
        fields = {n: f.compressed() if n in chosen else f for n, f in schema.items()}
        return Schema(fields[BARE]) if schema.bare else Schema(fields)

    def _zstd_of(self, schema: Schema | None) -> dict[str, Zstd]:
        wanted = self._compression
        if isinstance(wanted, Mapping):
            return {name: _checked_zstd(said) for name, said in wanted.items()}
        zstd = Zstd() if wanted is None else _checked_zstd(wanted)
        return dict.fromkeys(schema or (), zstd)

    def _decide(self, record: Any) -> None:
        """Let the first record say what records are."""
        schema = self._with_compression(Schema.infer(record))
        self._undecided = False
        if schema != self._schema:
            self._session.use_compression(self._zstd_of(schema))
            self._session.restart(schema)
        self._take_columns()
        self._begin_catalog()

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
        if self._fast and type(record) is bytes and key is None and meta is None:
            if self._pending_nbytes >= _PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            self._pending.append(record)
            self._pending_nbytes += len(record)
            return
        self._check_usable()
        if self._undecided:
            self._decide(record)
        values = self._encoded(record, self.rows)
        self._make_room()
        self._enlist(self.rows, [self._key_of(key)], [meta], [values])
        self._hold(values)

    def _hold(self, values: list[bytes | None]) -> None:
        for intake, value in zip(self._intakes, values, strict=True):
            intake.pending.append(value)
            self._pending_nbytes += 0 if value is None else len(value)

    def _encoded(self, record: Any, row: int) -> list[bytes | None]:
        """The bytes of a record's values, in the order of the columns."""
        try:
            given = self._schema.values_of(record)
        except FormatError as error:
            raise FormatError(f"record {row}: {error}") from error
        values: list[bytes | None] = []
        for intake in self._intakes:
            name = intake.column.name
            try:
                values.append(intake.encode(given.get(name)))
            except FormatError as error:
                where = "" if self._schema.bare else f"field {name!r}: "
                raise FormatError(f"record {row}: {where}{error}") from error
        return values

    def _make_room(self) -> None:
        """Write what is held, if it is enough."""
        if self._pending_nbytes >= _PENDING_NBYTES or (
            len(self._pending) >= self._room
            and (
                self._pending_nbytes >= TRAINING_NBYTES
                or not any(intake.training for intake in self._intakes)
            )
        ):
            self.flush()

    def _key_of(self, key: str | None) -> str | None:
        if key is None and self._keys == "auto":
            return uuid4().hex
        if key is None and self._keys is True:
            raise FormatError(f"record {self.rows} has no key, which keys=True demands")
        return key

    def _enlist(
        self,
        row: int,
        keys: Sequence[str | None],
        metas: Sequence[Meta | None],
        values: Sequence[Sequence[bytes | None]],
    ) -> None:
        """Add records to the catalog, if there is one or has to be."""
        session = self._session
        if session.catalog is None:
            if not any(key is not None for key in keys) and not any(meta for meta in metas):
                return
            session.open_catalog(self._metadata)
            self._fast = False
        assert session.catalog is not None
        present = {}
        for at, intake in enumerate(self._intakes):
            there = [record[at] is not None for record in values]
            if not all(there):
                present[intake.column.name] = there
        session.catalog.add(row, keys, metas, present, count=len(values))
        session.catalog_changed = True

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
        self._check_usable()
        if self._undecided:
            source = iter(records)
            first = next(source, self)
            if first is self:
                return
            self._decide(first)
            if not isinstance(records, (list, tuple)):
                records = chain((first,), source)
        if self._fast and keys is None and metas is None:
            self._write_bytes(records)
        else:
            self._write_records(records, keys, metas)

    def _write_records(
        self,
        records: Iterable[Any],
        keys: Iterable[str | None] | None,
        metas: Iterable[Meta | None] | None,
    ) -> None:
        source = zip(
            records,
            repeat(None) if keys is None else keys,
            repeat(None) if metas is None else metas,
            strict=False,
        )
        more = True
        while more:
            self._make_room()
            chunk: list[tuple[str | None, Meta | None, list[bytes | None]]] = []
            nbytes = 0
            more = False
            failure: FormatError | None = None
            for record, key, meta in source:
                try:
                    values = self._encoded(record, self.rows + len(chunk))
                    chunk.append((self._key_of(key), meta, values))
                except FormatError as error:
                    failure = error
                    break
                nbytes += sum(len(value) for value in values if value is not None)
                if len(chunk) >= _CHUNK_ROWS or nbytes >= _PENDING_NBYTES >> 3:
                    more = True
                    break
            self._hold_chunk(chunk)
            if failure is not None:
                raise failure

    def _hold_chunk(self, chunk: list[tuple[str | None, Meta | None, list[bytes | None]]]) -> None:
        if not chunk:
            return
        keys, metas, values = map(list, zip(*chunk, strict=True))
        try:
            self._enlist(self.rows, keys, metas, values)
        except FormatError:
            # One of them is to blame: those before it are added.
            for key, meta, record in chunk:
                self._enlist(self.rows, [key], [meta], [record])
                self._hold(record)
            raise
        for record in values:
            self._hold(record)

    def _write_bytes(self, records: Iterable[Any]) -> None:
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
                        (record,) = self._encoded(record, self.rows)
                    pending.append(record)
                    nbytes += 0 if record is None else len(record)
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
        try:
            self._session.flush()
        finally:
            if len(self._intakes) == 1 and len(self._pending) == 0:
                self._pending_nbytes = 0
            else:
                self._pending_nbytes = sum(intake.held_nbytes() for intake in self._intakes)
        self._room = min(intake.appender.room() for intake in self._intakes)

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
        self._check_usable()
        schema = self._with_compression(self._schema.with_field(name, field))
        self.flush()
        self._session.use_compression(self._zstd_of(schema))
        self._session.new_column(name, schema[name])
        if self._session.catalog is not None:
            self._session.catalog.add_column(name)
            self._session.catalog_changed = True
        self._take_columns()

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
        self._check_usable()
        row = self._row_of(key_or_row)
        given = {} if values is None and not self._schema.bare else self._schema.values_of(values)
        if self._schema.bare and values is None and meta is not None:
            given = {}
        encoded: list[tuple[Intake, bytes | None]] = []
        for intake in self._intakes:
            name = intake.column.name
            if name in given:
                try:
                    encoded.append((intake, intake.encode(given[name])))
                except FormatError as error:
                    raise FormatError(f"record {key_or_row!r}: field {name!r}: {error}") from error
        if self._pending_nbytes >= _PENDING_NBYTES:
            self.flush()
        if meta is not None:
            self._session.open_catalog(self._metadata).set_meta(row, meta)
            self._session.catalog_changed = True
        for intake, value in encoded:
            intake.put_aside(row, value)
            # A header is held for every record, however short.
            self._pending_nbytes += 64 + (0 if value is None else len(value))
            self._presence.setdefault(intake.column.name, {})[row] = value is not None

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
        self._check_usable()
        self._schema.checked_names([name])
        self.flush()
        session = self._session
        before = session.intakes[name]
        intake = session.new_column(name, before.field)
        try:
            lost = _fill(intake, values, session)
        except BaseException:
            session.give_up_column(intake, before)
            raise
        session.replaced(before)
        self._take_columns()
        self._presence.pop(name, None)
        if session.catalog is not None:
            rows = range(self.rows)
            gone = set(lost)
            session.catalog.set_present(rows, name, [row not in gone for row in rows])
            session.catalog_changed = True

    def delete(self, records: KeyOrRow | Iterable[KeyOrRow]) -> None:
        """Delete records, by key or by position, as for `update`.

        Positions do not move before the commit. `compact` gives back the room they took.

        Raises:
            KeyError, IndexError: there is no such record. Nothing was deleted.
        """
        self._check_usable()
        listed: Any = records if _is_many(records) else [records]
        rows = sorted({self._row_of(one) for one in listed})
        if self._session.catalog is not None:
            self._session.catalog.delete(rows)
            self._session.catalog_changed = True
        self._session.delete(rows)

    def _row_of(self, key_or_row: KeyOrRow) -> int:
        """The row, counted with deleted ones, of a record that is written."""
        if isinstance(key_or_row, str):
            catalog = self._session.catalog
            if catalog is None:
                raise KeyError(key_or_row)
            row = catalog.row(key_or_row)
        else:
            row = self._session.physical(operator.index(key_or_row))
        if self._pending:
            self.flush()
        return row

    # -- committing ------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything written so far durable and visible to readers opened from now on.

        Raises:
            StorageError: the disk failed. The last commit stays readable, and what was
                written is kept: `commit` can be tried again.
        """
        self.flush()
        catalog = self._session.catalog
        if catalog is not None:
            for name, rows in self._presence.items():
                if name in self._session.intakes:
                    live = {r: flag for r, flag in rows.items() if self._session.is_live(r)}
                    catalog.set_present(list(live), name, list(live.values()))
                    self._session.catalog_changed = True
        self._presence.clear()
        self._session.commit()
        self._take_columns()

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
        self._session.abort()

    def _release(self) -> None:
        self._room = 0
        self._closed = True
        self._session.release()

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
        """Rows in the dataset once this session is committed, deleted ones included."""
        return self._session.rows

    @property
    def schema(self) -> Schema | None:
        """What a record is; ``None`` until the first one says it."""
        return None if self._undecided else self._schema

    @property
    def committed_rows(self) -> int:
        """Records that the last commit holds."""
        return self._session.committed_rows

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


def _is_many(records: Any) -> bool:
    # An array of no dimension has an index; one of many dimensions only seems to have.
    if isinstance(records, str):
        return False
    try:
        operator.index(records)
    except TypeError:
        return True
    return False


def _checked_keys(keys: Any) -> bool | str | None:
    if keys not in (None, True, "auto"):
        raise FormatError(f"keys must be None, True or 'auto', not {keys!r}")
    return keys  # type: ignore[no-any-return]  # it is one of the three


def _checked_zstd(said: Any) -> Zstd:
    if isinstance(said, Zstd):
        return said
    if said != "zstd":
        raise FormatError(f"compression must be 'zstd' or sp.Zstd(...), not {said!r}")
    return Zstd()


def _fill(intake: Intake, values: Iterable[Any], session: Session) -> list[int]:
    """Write a whole column; the rows in which it has no value."""
    lost: list[int] = []
    source = iter(values)
    end = object()
    row = nbytes = 0
    rows = intake.since
    intake.since = 0
    while row < rows:
        value: bytes | None = None
        if session.is_live(row):
            given = next(source, end)
            if given is end:
                raise FormatError(f"there are {rows} rows, but no value for record {row} on")
            try:
                value = intake.encode(given)
            except FormatError as error:
                raise FormatError(f"value of record {row}: {error}") from error
        if value is None:
            lost.append(row)
        else:
            nbytes += len(value)
        intake.pending.append(value)
        row += 1
        full = len(intake.pending) >= intake.appender.room() and not intake.training
        if full or nbytes >= _PENDING_NBYTES:
            intake.flush()
            nbytes = 0
    if next(source, end) is not end:
        raise FormatError(f"there are {rows} rows, and more values than that")
    intake.flush()
    return lost
