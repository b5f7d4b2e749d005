"""Giving back the room that updates and deletions left.

Responsible for: `compact`: the live records of a dataset, copied as they are stored into a new
volume that replaces the old one. Nothing is decoded; a record that is damaged stops it, and the
dataset stays as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitpipe.storage import files
from splitpipe.storage.base import Rows
from splitpipe.storage.check import describe
from splitpipe.storage.session import Opening, Session
from splitpipe.storage.snapshot import open_all, read_sealed
from splitpipe.storage.table import OpenOptions, TableRecords

__all__ = ["Compacted", "compact"]

_BLOCK_NBYTES = 8 << 20
_BLOCK_ROWS = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did.

    Attributes:
        path: the dataset's directory.
        rows: number of records.
        nbytes_before: bytes of the dataset's files before.
        nbytes_after: and after; the old files go once no reader holds them.
    """

    path: str
    rows: int
    nbytes_before: int
    nbytes_after: int


def compact(
    path: str | os.PathLike[str], *, bins: int | None = None, progress: Progress | None = None
) -> Compacted:
    """Write the live records of a dataset anew, and leave behind what is dead.

    Rows are numbered anew, without those that were deleted; keys and metadata stay. Readers that
    are open keep their snapshot until they close.

    Args:
        path: the dataset's directory.
        bins: how many bins share the records. Default: as many as before.
        progress: called now and then with (records done, records in all).

    Raises:
        LockedError: a writer is at work on it.
        FormatError: it is not a dataset, or a record is damaged. Nothing was changed.
        StorageError: the disk failed. Nothing was changed.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write_many([b"a", b"b", b"c"])
        >>> with sp.DatasetWriter(path, append=True) as writer:
        ...     writer.delete([0, 1])
        >>> compact(path).rows
        1
    """
    directory = files.local(path)
    before = describe(directory)
    wanted = bins or max(segment[3] for segment in before.segments)
    # The lock is taken first, so that nothing is committed between reading and replacing.
    session = Session(directory, Opening(bins=wanted, overwrite=True), None)
    try:
        records = TableRecords(directory, open_all(directory), OpenOptions())
        try:
            _restore_schema(session, records)
            _copy(session, records, progress)
        finally:
            records.close()
        session.commit()
    except BaseException:
        session.abort()
        raise
    session.release()
    after = describe(directory)
    return Compacted(directory, after.rows, before.disk_nbytes, after.disk_nbytes)


def _restore_schema(session: Session, records: TableRecords) -> None:
    """Give the new volume the old one's columns, with their dictionaries."""
    manifest = records.manifest
    dictionaries: dict[str, bytes] = {}
    for column in manifest.columns:
        if column.dictionary is not None:
            identity = manifest.file_id("dictionary", column)
            dictionaries[column.name] = read_sealed(records.path, identity, column.dictionary)
    session.restart(records.schema)
    for name, dictionary in dictionaries.items():
        session.intakes[name].keep_dictionary(dictionary)


def _copy(session: Session, records: TableRecords, progress: Progress | None) -> None:
    manifest = records.manifest
    if manifest.catalog is not None:
        session.open_catalog(manifest.catalog.metadata)
    total = len(records)
    done = 0
    while done < total:
        block = _block(records, done)
        physical = records.physical(block)
        present: dict[str, list[bool]] = {}
        for name, intake in session.intakes.items():
            values = records.values(name).encoded(physical)
            intake.pending.extend(values)
            if records.values(name).missing:
                present[name] = [value is not None for value in values]
        if session.catalog is not None and records.catalog is not None:
            session.catalog.add(
                done,
                records.catalog.keys(block),
                _metas(records, block),
                present,
                count=len(block),
            )
        session.flush()
        done += len(block)
        if progress is not None:
            progress(done, total)


def _metas(records: TableRecords, block: Rows) -> list[Mapping[str, Any] | None]:
    assert records.catalog is not None
    return [meta or None for meta in records.catalog.meta(block)]


def _block(records: TableRecords, start: int) -> Rows:
    """Positions from ``start`` on that together have about `_BLOCK_NBYTES`, or one."""
    block = np.arange(start, min(len(records), start + _BLOCK_ROWS), dtype=np.int64)
    physical = records.physical(block)
    nbytes = sum(records.values(name).reader.raw_lengths(physical) for name in records.schema)
    upto = int(np.searchsorted(np.cumsum(nbytes), _BLOCK_NBYTES, side="right"))
    return block[: max(1, upto)]
