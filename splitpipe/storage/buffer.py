"""Records on their way into a session.

Responsible for: `RecordBuffer`: a record becomes the encoded values of its columns, which wait in
memory until a block of them is worth writing, and an entry in the catalog.

Rules:
- a record is checked whole, its key too, before anything of it is taken;
- memory is bounded: `PENDING_NBYTES` of records, or one record, are held before they are written;
- room is made before a record is taken, never after: a disk that fails loses none;
- plain bytes are taken many at a time, without a look at each, and without the catalog where they
  have no keys and no metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Any
from uuid import uuid4

from splitpipe.errors import FormatError
from splitpipe.schema import BARE, Schema
from splitpipe.storage.intake import TRAINING_NBYTES
from splitpipe.storage.session import Session

__all__ = ["PENDING_NBYTES", "Meta", "RecordBuffer"]

PENDING_NBYTES = 8 << 20
# Records that are checked and added to the catalog together, one by one and as plain bytes.
_CHUNK_ROWS = 512
_BLOCK_ROWS = 8192

Meta = Mapping[str, Any]
Values = Sequence[bytes | None]
Keys = Iterable[str | None] | None
Metas = Iterable[Meta | None] | None
# A record as it waits: its key, its metadata, and the values of its columns.
_Taken = tuple[str | None, Meta | None, list[bytes | None]]


class RecordBuffer:
    """Takes records for a session.

    Args:
        session: where they go.
        keys: what is wanted of keys, see `WriterOptions`.
        metadata: names and types of declared metadata.

    Attributes:
        schema: of the records.
    """

    def __init__(
        self, session: Session, keys: bool | str | None, metadata: Mapping[str, str]
    ) -> None:
        self._session = session
        self._keys = keys
        self._metadata = metadata
        self._pending_nbytes = 0
        # 0 makes the next call flush, which looks whether writing is allowed at all.
        self._room = 0
        self.take_columns()

    def take_columns(self) -> None:
        """Look at the columns that the session has now."""
        session = self._session
        self._intakes = list(session.intakes.values())
        fields = {intake.column.name: intake.field for intake in self._intakes}
        self.schema = Schema(fields[BARE]) if session.manifest.bare else Schema(fields)
        self._pending = self._intakes[0].pending
        self._plain = self.schema == Schema("bytes")
        self._fast = self._plain and session.catalog is None and self._keys is None

    def begin_catalog(self, *, needed: bool = False) -> None:
        """Begin the catalog if it is needed: for keys or metadata that were asked for."""
        if needed or self._metadata or self._keys is not None:
            self._session.open_catalog(self._metadata)
            self._fast = False

    # -- one record ------------------------------------------------------------------------

    def add(self, record: Any, key: str | None, meta: Meta | None) -> None:
        """See `DatasetWriter.write`."""
        if self._fast and type(record) is bytes and key is None and meta is None:
            if self._pending_nbytes >= PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            self._pending.append(record)
            self._pending_nbytes += len(record)
            return
        rows = self._session.rows
        values = self._encoded(record, rows)
        self._make_room()
        columns = [[value] for value in values]
        self._enlist(rows, [self._key_of(key, rows)], [meta], columns)
        self._hold(columns)

    def _encoded(self, record: Any, row: int) -> list[bytes | None]:
        """The bytes of a record's values, in the order of the columns."""
        try:
            given = self.schema.values_of(record)
        except FormatError as error:
            raise FormatError(f"record {row}: {error}") from error
        values: list[bytes | None] = []
        for intake in self._intakes:
            name = intake.column.name
            try:
                values.append(intake.encode(given.get(name)))
            except FormatError as error:
                where = "" if self.schema.bare else f"field {name!r}: "
                raise FormatError(f"record {row}: {where}{error}") from error
        return values

    def _key_of(self, key: str | None, row: int) -> str | None:
        if key is None and self._keys == "auto":
            return uuid4().hex
        if key is None and self._keys is True:
            raise FormatError(f"record {row} has no key, which keys=True demands")
        return key

    def _make_room(self) -> None:
        """Write what is held, if it is enough."""
        many = len(self._pending) >= self._room
        if many and any(intake.training for intake in self._intakes):
            many = self._pending_nbytes >= TRAINING_NBYTES
        if many or self._pending_nbytes >= PENDING_NBYTES:
            self.flush()

    def _enlist(
        self,
        row: int,
        keys: Sequence[str | None],
        metas: Sequence[Meta | None],
        columns: Sequence[Values],
    ) -> None:
        """Add records to the catalog, if there is one or has to be."""
        session = self._session
        if session.catalog is None:
            if not any(key is not None for key in keys) and not any(metas):
                return
            self.begin_catalog(needed=True)
        assert session.catalog is not None
        present = {
            intake.column.name: [value is not None for value in values]
            for intake, values in zip(self._intakes, columns, strict=True)
            if None in values
        }
        session.catalog.add(row, keys, metas, present, count=len(keys))
        session.catalog_changed = True

    def _hold(self, columns: Sequence[Values]) -> None:
        for intake, values in zip(self._intakes, columns, strict=True):
            intake.pending.extend(values)
            self._pending_nbytes += sum(len(value) for value in values if value is not None)

    # -- many ------------------------------------------------------------------------------

    def add_many(self, records: Iterable[Any], keys: Keys, metas: Metas) -> None:
        """See `DatasetWriter.write_many`."""
        done = 0
        given = [part for part in (records, keys, metas) if part is not None]
        if all(isinstance(part, (list, tuple)) for part in given):
            if len({len(part) for part in given}) > 1:  # type: ignore[arg-type]
                raise _uneven()
            done = self._add_blocks(records, keys, metas) if self._plain else 0
            records = islice(records, done, None)
        if self._fast and keys is None and metas is None:
            self._add_bytes(iter(records))
            return
        keys = None if keys is None else islice(keys, done, None)
        metas = None if metas is None else islice(metas, done, None)
        self._add_each(_together(records, keys, metas))

    def _add_each(self, source: Iterator[tuple[Any, str | None, Meta | None]]) -> None:
        """Add records one by one, and to the catalog a chunk at a time."""
        more = True
        while more:
            self._make_room()
            chunk: list[_Taken] = []
            first, nbytes, more = self._session.rows, 0, False
            try:
                for record, key, meta in source:
                    row = first + len(chunk)
                    values = self._encoded(record, row)
                    chunk.append((self._key_of(key, row), meta, values))
                    nbytes += sum(len(value) for value in values if value is not None)
                    if len(chunk) >= _CHUNK_ROWS or nbytes >= PENDING_NBYTES >> 3:
                        more = True
                        break
            finally:
                # What came before an error is added.
                self._add_chunk(chunk)

    def _add_chunk(self, chunk: list[_Taken]) -> None:
        if not chunk:
            return
        keys, metas, values = map(list, zip(*chunk, strict=True))
        columns = list(zip(*values, strict=True))
        try:
            self._enlist(self._session.rows, keys, metas, columns)
        except FormatError:
            # One of them is to blame: those before it are added.
            for key, meta, record in chunk:
                alone = [[value] for value in record]
                self._enlist(self._session.rows, [key], [meta], alone)
                self._hold(alone)
            raise
        self._hold(columns)

    def _add_bytes(self, source: Iterator[Any]) -> None:
        """Add plain records without keys one by one."""
        more = True
        while more:
            if self._pending_nbytes >= PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            pending, nbytes = self._pending, self._pending_nbytes
            room = self._room - len(pending)
            more = False
            try:
                for record in source:
                    if type(record) is not bytes:
                        (record,) = self._encoded(record, self._session.rows)
                    pending.append(record)
                    nbytes += 0 if record is None else len(record)
                    room -= 1
                    if room <= 0 or nbytes >= PENDING_NBYTES:
                        more = True
                        break
            finally:
                self._pending_nbytes = nbytes

    def _add_blocks(self, records: Any, keys: Any, metas: Any) -> int:
        """Add records from the front, many at a time, while they are plain bytes and small.

        Returns:
            How many were added; the others need a look at each of them.
        """
        done = 0
        while done < len(records):
            if self._pending_nbytes >= PENDING_NBYTES or len(self._pending) >= self._room:
                self.flush()
            part = slice(done, done + min(self._room - len(self._pending), _BLOCK_ROWS))
            block = records[part]
            if set(map(type, block)) != {bytes}:
                break
            nbytes = self._pending_nbytes + sum(map(len, block))
            if nbytes > PENDING_NBYTES:
                break
            if not self._fast or keys is not None or metas is not None:
                try:
                    their_keys = None if keys is None else keys[part]
                    self._enlist_block(block, their_keys, None if metas is None else metas[part])
                except FormatError:
                    # One of them is to blame, and nothing was added.
                    break
            self._pending.extend(block)
            self._pending_nbytes = nbytes
            done += len(block)
        return done

    def _enlist_block(
        self,
        block: Sequence[bytes],
        keys: Sequence[str | None] | None,
        metas: Sequence[Meta | None] | None,
    ) -> None:
        first, nothing = self._session.rows, [None] * len(block)
        keys = nothing if keys is None else keys
        if self._keys:
            keys = [self._key_of(key, row) for row, key in enumerate(keys, first)]
        self._enlist(first, keys, nothing if metas is None else metas, [block])

    # -- writing ---------------------------------------------------------------------------

    def held(self, nbytes: int) -> None:
        """Count bytes that are held for updates, and write what is held if it is enough."""
        self._pending_nbytes += nbytes
        if self._pending_nbytes >= PENDING_NBYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        self._session.check_usable()
        try:
            self._session.flush()
        finally:
            self._pending_nbytes = sum(intake.held_nbytes() for intake in self._intakes)
        self._room = min(intake.appender.room() for intake in self._intakes)

    def refuse(self) -> None:
        """Let the next record find out that writing is over."""
        for intake in self._intakes:
            intake.pending.clear()
        self._room = 0


def _together(
    records: Iterable[Any], keys: Keys, metas: Metas
) -> Iterator[tuple[Any, str | None, Meta | None]]:
    """Records with their keys and metadata; an error where one of them ends before another."""
    end: Any = object()
    nothing = repeat(None)
    their_keys = nothing if keys is None else chain(keys, repeat(end))
    their_metas = nothing if metas is None else chain(metas, repeat(end))
    for record, key, meta in zip(records, their_keys, their_metas, strict=False):
        if key is end or meta is end:
            raise _uneven()
        yield record, key, meta
    ends = [
        next(part)
        for part, given in ((their_keys, keys), (their_metas, metas))
        if given is not None
    ]
    if any(found is not end for found in ends):
        raise _uneven()


def _uneven() -> FormatError:
    return FormatError(
        "keys and metadata must be as many as records, with None for a record without; one of "
        "them ended before another"
    )
