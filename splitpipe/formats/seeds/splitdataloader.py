"""The layout of split-data-loader, read where it lies.

Responsible for: a folder with ``index.dat`` and ``bin%08d.dat`` files, as ``write_split_data`` of
splitdataloader 0.0.1 writes it. All numbers are little-endian and of four bytes:

    index.dat       bin, position, length: an entry a record, in order
    bin%08d.dat     length, payload: a record; the entry's position is that of the length

Rules:
- the layout brings its own index, so none is built: opening costs one look at its size;
- the length in the index and the one before the payload must agree; there is no checksum, so a
  payload that changed is not noticed;
- an index that ends inside of an entry is refused: its writer was killed. ``incomplete="ignore"``
  reads the records before, as the original does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.files.opened import NamedFiles, read_at_places, read_entries
from splitpipe.formats.files.sources import Fingerprint, Places, fingerprint
from splitpipe.schema import BARE, Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Rows,
    consecutive_layout,
    given_array,
    iterate_blocks,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["FORMAT", "SplitDataRecords"]

INDEX = "index.dat"
_FIRST_BIN = "bin00000000.dat"
_ENTRY_NBYTES = 12
_PREFIX_NBYTES = 4
_PIECE_ROWS = 1 << 18
# More sessions of a writer than this are not told apart for binwise orders.
_MOST_SEGMENTS = 4096


class SplitDataRecords:
    """The records of a folder of split-data-loader; made by ``FORMAT.open``.

    Args:
        root: the folder.
        incomplete: ``"raise"`` or ``"ignore"``, for an index that ends inside of an entry.
    """

    schema = Schema("bytes")
    catalog: Catalog | None = None

    def __init__(self, root: str, *, incomplete: str = "raise") -> None:
        if incomplete not in ("raise", "ignore"):
            raise FormatError(f"incomplete= is 'raise' or 'ignore', not {incomplete!r}")
        self._given = (root, incomplete)
        path = os.path.join(root, INDEX)
        self._index = NamedFiles(lambda _: path, "it is the index of the folder")
        file = self._index.open(0)
        self._known_by = fingerprint(path, file.descriptor)
        self._rows, rest = divmod(file.size, _ENTRY_NBYTES)
        if rest and incomplete == "raise":
            raise FormatError(
                f"{path} ends inside of an entry ({self._rows} records are before it): "
                "its writer was killed, and may have written more; open it with "
                "incomplete='ignore' to read the records before, or write the data anew"
            )
        self._bins = NamedFiles(
            lambda number: os.path.join(root, f"bin{number:08d}.dat"),
            "index.dat names this file: restore it from a copy",
        )

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"SplitDataRecords({self._given[0]!r}, {len(self)} records)"

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch of records; see ``Records.read``."""
        for name in columns:
            given_array(self.schema, name, len(rows), out)
        return {BARE: self._records(rows)} if columns else {}

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See ``Records.iterate``."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """The bins, as the writer dealt records to them. Reads the index through."""
        pieces = [
            self._entries(np.arange(at, min(at + _PIECE_ROWS, self._rows)))[:, 0]
            for at in range(0, self._rows, _PIECE_ROWS)
        ]
        bins = np.concatenate([np.empty(0, dtype="<u4"), *pieces])
        segments = _dealt(bins)
        return consecutive_layout(self._rows) if segments is None else BinLayout(segments)

    def close(self) -> None:
        """Let go of all files; they are opened again when needed."""
        self._bins.close()
        self._index.close()

    def _records(self, rows: Rows) -> list[bytes]:
        entries = self._entries(rows).astype(np.int64)
        places = Places(entries[:, 0], entries[:, 1], entries[:, 2] + _PREFIX_NBYTES)
        records: list[bytes] = []
        for stored in read_at_places(self._bins, places):
            length = int(entries[len(records), 2])
            if int.from_bytes(stored[:_PREFIX_NBYTES], "little") != length:
                self._refuse(int(rows[len(records)]), entries[len(records)].tolist(), stored)
            records.append(stored[_PREFIX_NBYTES:])
        return records

    def _refuse(self, row: int, entry: list[int], stored: bytes) -> None:
        number, position, length = entry
        raise CorruptRecord(
            f"record {row} of {self._given[0]}: the index says {length} bytes at position "
            f"{position} of bin{number:08d}.dat, there it says "
            f"{int.from_bytes(stored[:_PREFIX_NBYTES], 'little')}: one of the two is damaged; "
            "restore the folder from a copy"
        )

    def _entries(self, rows: Rows) -> npt.NDArray[np.uint32]:
        table = read_entries(self._index.open(0), rows, _ENTRY_NBYTES)
        return np.frombuffer(table, dtype="<u4").reshape(-1, 3)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (*self._given, self._known_by)


def _reopen(root: str, incomplete: str, known_by: Fingerprint) -> SplitDataRecords:
    records = SplitDataRecords(root, incomplete=incomplete)
    if tuple(records._known_by) != tuple(known_by):
        raise FormatError(
            f"{os.path.join(root, INDEX)} is not what it was when the dataset was opened: open it "
            "again"
        )
    return records


def _dealt(bins: npt.NDArray[np.uint32]) -> list[Segment] | None:
    """The sessions of the writer: each dealt its records to some bins in turn.

    ``None`` where too many sessions, or none, explain the index.
    """
    segments: list[Segment] = []
    first = bin_count = 0
    while first < len(bins):
        if len(segments) == _MOST_SEGMENTS:
            return None
        rest = bins[first:]
        again = np.flatnonzero(rest[1:] == rest[0])
        turn = int(again[0]) + 1 if len(again) else len(rest)
        if len(np.unique(rest[:turn])) != turn:
            return None
        differs = np.flatnonzero(rest[turn:] != rest[: len(rest) - turn])
        rows = turn + int(differs[0]) if len(differs) else len(rest)
        segments.append(Segment(first, rows, bin_count, min(turn, rows)))
        first += rows
        bin_count += min(turn, rows)
    return segments


def _recognises(source: Source) -> bool:
    if not source.has(INDEX):
        return False
    size = os.path.getsize(os.path.join(source.root, INDEX))
    if source.has(_FIRST_BIN):
        return True
    head = source.head(os.path.join(source.root, INDEX), _ENTRY_NBYTES)
    return size >= _ENTRY_NBYTES and source.has(f"bin{int.from_bytes(head[:4], 'little'):08d}.dat")


def _open(source: Source, _indexing: Indexing, *, incomplete: str = "raise") -> SplitDataRecords:
    if not source.folder:
        raise FormatError(f"split-data-loader writes a folder with an {INDEX}: open the folder")
    return SplitDataRecords(source.root, incomplete=incomplete)


FORMAT = Format(
    name="splitdataloader",
    looks_like="a folder with index.dat and bin00000000.dat, of split-data-loader",
    recognises=_recognises,
    open=_open,
    marked=True,
)
