"""Changing the records that are there: updates, deletions, columns.

Responsible for: `Editor`: which row is meant by a key or a position, that a change is checked whole
before any of it is made, and what the catalog has to know of it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex

from splitpipe.errors import FormatError
from splitpipe.schema import Field
from splitpipe.storage.buffer import Meta, RecordBuffer
from splitpipe.storage.intake import Intake
from splitpipe.storage.session import Session

__all__ = ["Editor", "KeyOrRow"]

KeyOrRow = str | SupportsIndex

# What an update takes in memory beside its bytes.
_UPDATE_NBYTES = 128
_BLOCK_NBYTES = 8 << 20


class Editor:
    """Changes records of a session.

    Args:
        session: whose.
        buffer: of the records that were added to it.
    """

    def __init__(self, session: Session, buffer: RecordBuffer) -> None:
        self._session = session
        self._buffer = buffer
        # Rows whose values came or went: column -> row -> whether there is one.
        self._presence: dict[str, dict[int, bool]] = {}

    def add_column(self, name: str, field: Field) -> None:
        """See `DatasetWriter.add_column`."""
        self._buffer.flush()
        intake = self._session.new_column(name, field)
        catalog = self._session.catalog
        if catalog is not None:
            try:
                catalog.add_column(name)
            except BaseException:
                self._session.give_up_column(intake, None)
                raise
            self._session.catalog_changed = True
        self._buffer.take_columns()

    def update(self, key_or_row: KeyOrRow, values: Any, meta: Meta | None) -> None:
        """See `DatasetWriter.update`."""
        row = self._row_of(key_or_row)
        schema, given = self._buffer.schema, {}
        if values is not None or (schema.bare and meta is None):
            given = dict(schema.values_of(values))
        encoded: list[tuple[Intake, bytes | None]] = []
        for name, value in given.items():
            intake = self._session.intakes[name]
            try:
                encoded.append((intake, intake.encode(value)))
            except FormatError as error:
                raise FormatError(f"record {key_or_row!r}: field {name!r}: {error}") from error
        self._buffer.held(0)
        if meta is not None:
            self._buffer.begin_catalog(needed=True)
            assert self._session.catalog is not None
            self._session.catalog.set_meta(row, meta)
            self._session.catalog_changed = True
        for intake, packed in encoded:
            self._presence.setdefault(intake.column.name, {})[row] = packed is not None
            intake.put_aside(row, packed)
        self._buffer.held(sum(_UPDATE_NBYTES + len(packed or b"") for _, packed in encoded))

    def update_column(self, name: str, values: Iterable[Any]) -> None:
        """See `DatasetWriter.update_column`."""
        session = self._session
        self._buffer.schema.checked_names([name])
        self._buffer.flush()
        before = session.intakes[name]
        intake = session.new_column(name, before.field)
        try:
            lost = self._fill(intake, values)
        except BaseException:
            session.give_up_column(intake, before)
            raise
        session.replaced(before)
        self._buffer.take_columns()
        self._presence.pop(name, None)
        if session.catalog is not None:
            rows = range(session.rows)
            session.catalog.set_present(rows, name, [row not in lost for row in rows])
            session.catalog_changed = True

    def _fill(self, intake: Intake, values: Iterable[Any]) -> set[int]:
        """Write a whole column; the rows in which it has no value."""
        lost: set[int] = set()
        source, end = iter(values), object()
        rows, intake.since = intake.since, 0
        nbytes = 0
        for row in range(rows):
            value: bytes | None = None
            if self._session.deleted.is_live(row):
                given = next(source, end)
                if given is end:
                    raise FormatError(f"there is no value for row {row} and those after it")
                try:
                    value = intake.encode(given)
                except FormatError as error:
                    raise FormatError(f"the value of row {row}: {error}") from error
            if value is None:
                lost.add(row)
            intake.pending.append(value)
            nbytes += len(value or b"")
            full = len(intake.pending) >= intake.appender.room() and not intake.training
            if full or nbytes >= _BLOCK_NBYTES:
                intake.flush()
                nbytes = 0
        if next(source, end) is not end:
            raise FormatError("there are more values than records")
        intake.flush()
        return lost

    def delete(self, records: KeyOrRow | Iterable[KeyOrRow]) -> None:
        """See `DatasetWriter.delete`."""
        listed: Any = records if _is_many(records) else [records]
        rows = sorted({self._row_of(one) for one in listed})
        if self._session.catalog is not None:
            self._session.catalog.delete(rows)
            self._session.catalog_changed = True
        self._session.deleted.add(rows)

    def _row_of(self, key_or_row: KeyOrRow) -> int:
        """The row, counted with deleted ones, of a record; it is written by now."""
        if isinstance(key_or_row, str):
            if self._session.catalog is None:
                raise KeyError(key_or_row)
            row = self._session.catalog.row(key_or_row)
        else:
            row = self._session.physical(operator.index(key_or_row))
        if any(intake.pending for intake in self._session.intakes.values()):
            self._buffer.flush()
        return row

    def tell_catalog(self) -> None:
        """Tell the catalog, before a commit, which values came and went."""
        session = self._session
        if session.catalog is not None:
            for name, rows in self._presence.items():
                live = {row: there for row, there in rows.items() if session.deleted.is_live(row)}
                session.catalog.set_present(list(live), name, list(live.values()))
                session.catalog_changed = True
        self._presence.clear()


def _is_many(records: Any) -> bool:
    if isinstance(records, str):
        return False
    try:
        operator.index(records)
    except TypeError:
        return True
    return False
