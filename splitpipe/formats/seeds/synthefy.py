"""The sharded folders of synthefy-dataset-utils, read where they lie.

Responsible for: a folder as ``ShardedDatasetWriter`` writes it:

    index.sqlite                     samples(id, meta_json, <f>_offset, <f>_shard, ...), fields
    <f>_shards/shard_%04d.tar        members <id>.npy

`SynthefyScanner` finds every array once, by shard and member's name; `SynthefyRecords` reads them
as columns, in the order of ``rowid``, with ids as keys and ``meta_json`` as metadata.

Rules:
- ``<f>_offset`` only says whether a sample has the field: it counts the bytes of arrays, not of
  the tar, and starts anew with every session of a writer, so nothing is read at it;
- of members with one name the last wins, as with Python's tarfile;
- a field's folder is the last part of ``base_dir`` under the folder that is opened: datasets move;
- arrays of Python objects are refused; nothing is ever unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source, natural_key
from splitpipe.formats.chunks import column_of
from splitpipe.formats.files.sources import OpenFile, Places, SourceFiles, read_places
from splitpipe.formats.indexing.build import Stretch
from splitpipe.formats.indexing.kept import open_index
from splitpipe.formats.indexing.parts import Scanned
from splitpipe.formats.names import column_names
from splitpipe.formats.seeds.npy import HEADER_NBYTES, read_header
from splitpipe.formats.seeds.synthefydb import INDEX, TABLE, SamplesCatalog, SamplesFile, quoted
from splitpipe.formats.shards.members import FileBytes, Member, members
from splitpipe.schema import Field, Schema
from splitpipe.storage import files
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Rows,
    consecutive_layout,
    given_array,
    iterate_blocks,
)
from splitpipe.storage.layout import BinLayout

__all__ = ["FORMAT", "SynthefyRecords", "SynthefyScanner"]

_SHARD = re.compile(r"shard_(\d{4,})\.tar")
# An entry: rowid, one word without meaning, then file number, offset and length for each field;
# the file with number 0 is index.sqlite, and means that the sample lacks the field.
_HEAD_WORDS = 2
_FIELD_WORDS = 3


@dataclass(frozen=True, slots=True)
class SynthefyScanner:
    """Entries of ``2 + 3 x fields`` words, all of them of the first file, ``index.sqlite``.

    Attributes:
        database: of the folder.
        fields: their names.
        shards: (field, shard number) -> number of the file.
        paths: of all files.
    """

    database: SamplesFile
    fields: Sequence[str]
    shards: Mapping[tuple[str, int], int]
    paths: Sequence[str]
    format: str = "synthefy"
    counts: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The fields."""
        return {"fields": list(self.fields)}

    @property
    def words(self) -> int:
        """Words of an entry."""
        return _HEAD_WORDS + _FIELD_WORDS * len(self.fields)

    def splittable(self, file: OpenFile) -> bool:
        """Never."""
        return False

    def count(self, stretch: Stretch) -> int:
        """Nothing to be known."""
        return 0

    def scan(self, stretch: Stretch) -> Scanned:
        """All samples with ``index.sqlite``, none with the other files."""
        if stretch.file.path != self.paths[0]:
            return Scanned(np.empty((0, self.words), dtype=np.uint64))
        with self.database.connected() as connection:
            rowids = connection.execute(f"SELECT rowid FROM {TABLE} ORDER BY rowid").fetchall()
            ids = np.array(rowids, dtype=np.int64).reshape(-1)
            entries = np.zeros((len(ids), self.words), dtype=np.uint64)
            entries[:, 0] = ids.view(np.uint64)
            kinds: dict[str, Any] = {}
            for place, name in enumerate(self.fields):
                kind = _Kind()
                at = _HEAD_WORDS + _FIELD_WORDS * place
                for number, found in self._field(connection, name):
                    lines = self._arrays(number, found, kind, stretch)
                    rows = np.searchsorted(ids, np.array(list(lines), dtype=np.int64))
                    entries[rows, at : at + _FIELD_WORDS] = list(lines.values())
                kinds[name] = kind.told()
        return Scanned(entries, notes={"fields": kinds, "dense": _dense(ids)})

    def _field(self, connection: Any, name: str) -> Iterator[tuple[int, dict[str, int]]]:
        """File number, and member -> rowid, of every shard in which samples have a field."""
        shard, offset = quoted(f"{name}_shard"), quoted(f"{name}_offset")
        rows = connection.execute(
            f"SELECT {shard}, id, rowid FROM {TABLE} WHERE {offset} IS NOT NULL ORDER BY {shard}"
        )
        current: Any = None
        found: dict[str, int] = {}
        for number, key, rowid in rows:
            if type(number) is not int or not isinstance(key, str):
                raise FormatError(
                    f"{self.paths[0]}: sample {key!r:.100} has field {name!r} in shard "
                    f"{number!r:.100}"
                )
            if number != current:
                if found:
                    yield self._number(name, current), found
                current, found = number, {}
            found[f"{key}.npy"] = rowid
        if found:
            yield self._number(name, current), found

    def _number(self, name: str, shard: int) -> int:
        number = self.shards.get((name, shard))
        if number is None:
            raise FormatError(
                f"{self.paths[0]} names shard {shard} of field {name!r}, which is missing: "
                f"shard_{shard:04d}.tar is not in the field's folder; restore it from a copy"
            )
        return number

    def _arrays(
        self, number: int, found: Mapping[str, int], kind: _Kind, stretch: Stretch
    ) -> dict[int, tuple[int, int, int]]:
        """Rowid -> file number, offset and length, of what lies in a shard."""
        file = OpenFile(self.paths[number])
        data = FileBytes(file)
        lines: dict[int, tuple[int, int, int]] = {}
        last: dict[int, Member] = {}
        # A writer that appends leaves no end mark; what is missing is noticed by its name.
        for member in members(data, file.path, must_end=False):
            rowid = found.get(member.name)
            if rowid is not None:
                last[rowid] = member
            if stretch.stopped.is_set():
                break
        for rowid, member in last.items():
            head = data[member.offset : member.offset + min(member.size, HEADER_NBYTES)]
            header = read_header(head, member.size, f"{member.name} in {file.path}")
            kind.add(header.dtype, header.shape)
            lines[rowid] = (number, member.offset, member.size)
        lost = next((name for name, rowid in found.items() if rowid not in lines), None)
        if lost is not None and not stretch.stopped.is_set():
            raise FormatError(
                f"{file.path} has no member {lost!r}, which {INDEX} says it has: it was cut, or "
                "its writer was killed; restore it from a copy"
            )
        return lines


@dataclass(slots=True)
class _Kind:
    """What all arrays of a field have in common."""

    dtypes: set[str] = field(default_factory=set)
    shape: list[int | None] | None = None
    same_axes: bool = True

    def add(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtypes.add(dtype.str)
        if self.shape is None:
            self.shape = list(shape)
        elif len(self.shape) != len(shape):
            self.same_axes = False
        elif self.same_axes:
            self.shape = [a if a == b else None for a, b in zip(self.shape, shape, strict=True)]

    def told(self) -> dict[str, Any]:
        return {
            "dtypes": sorted(self.dtypes),
            "shape": self.shape if self.same_axes else None,
        }


def _dense(rowids: Rows) -> int | None:
    """The first rowid, if all others follow without a gap."""
    if len(rowids) and int(rowids[-1]) - int(rowids[0]) == len(rowids) - 1:
        return int(rowids[0])
    return None


class SynthefyRecords:
    """The samples of a synthefy folder; made by ``FORMAT.open``.

    Args:
        root: the folder.
        indexing: where the index of its tar members is kept.
    """

    def __init__(self, root: str, indexing: Indexing) -> None:
        self._given = (root, indexing.index_dir)
        database = SamplesFile(os.path.join(root, INDEX))
        fields = database.fields()
        paths = [database.path]
        if database.wal is not None:
            paths.append(database.wal)
        shards: dict[tuple[str, int], int] = {}
        for name, folder in fields.items():
            for number, path in _shards(os.path.join(root, folder)):
                shards[name, number] = len(paths)
                paths.append(path)
        scanner = SynthefyScanner(database, list(fields), shards, paths)
        self._index = open_index(scanner, Source((root,), True), paths, indexing)
        self._files = SourceFiles(paths, [file.known_by for file in self._index.files])
        notes = self._index.files[0].notes
        self._first_rowid = notes.get("dense")
        names = column_names(fields)
        self._words = {name: _HEAD_WORDS + _FIELD_WORDS * place for place, name in enumerate(names)}
        self.schema = Schema(
            {name: _field(given, notes["fields"][given], root) for name, given in names.items()}
        )
        self.catalog: Catalog | None = SamplesCatalog(database, self._rowids, self._rows_of)

    def __len__(self) -> int:
        rows: int = self._index.rows
        return rows

    def __repr__(self) -> str:
        return f"SynthefyRecords({self._given[0]!r}, {len(self)} samples of {list(self.schema)})"

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch, column by column; see ``Records.read``."""
        given = {name: given_array(self.schema, name, len(rows), out) for name in columns}
        entries = self._index.entries(rows).astype(np.int64)
        return {
            name: column_of(self.schema, name, rows, self._arrays(name, rows, entries), given[name])
            for name in columns
        }

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See ``Records.iterate``."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """Consecutive samples: neighbours were written to the same shards."""
        return consecutive_layout(len(self))

    def close(self) -> None:
        """Let go of the files; they are opened again when needed."""
        self._files.close()

    def _arrays(self, name: str, rows: Rows, entries: Rows) -> list[Any]:
        at = self._words[name]
        there = np.flatnonzero(entries[:, at])
        places = Places(*(entries[there, at + word] for word in range(_FIELD_WORDS)))
        wanted = self.schema[name]
        values: list[Any] = [None] * len(rows)
        stored = read_places(self._files, places) if len(there) else []
        for place, data in zip(there.tolist(), stored, strict=True):
            where = f"field {name!r} of record {rows[place]} of {self._given[0]}"
            header = read_header(data, len(data), where)
            array = header.array(memoryview(data)[header.nbytes :])
            if wanted.kind == "json":
                values[place] = array.tolist()
                continue
            if not np.can_cast(array.dtype, wanted.numpy_dtype, "safe"):
                raise CorruptRecord(f"{where} is of {array.dtype}, it was of {wanted.dtype}")
            values[place] = np.array(array, dtype=wanted.numpy_dtype, order="C")
        return values

    def _rowids(self, rows: Rows) -> Rows:
        rowids: Rows
        if self._first_rowid is not None:
            rowids = rows + int(self._first_rowid)
        else:
            rowids = self._index.entries(rows)[:, 0].astype(np.int64)
        return rowids

    def _rows_of(self, rowids: Rows) -> Rows:
        if self._first_rowid is not None:
            rows = rowids - self._first_rowid
            inside = (rows >= 0) & (rows < len(self))
        else:
            known = self._rowids(np.arange(len(self)))
            rows = np.searchsorted(known, rowids)
            inside = rows < len(known)
            inside[inside] = known[rows[inside]] == rowids[inside]
        return np.where(inside, rows, -1)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (*self._given, self._index.identity)


def _reopen(root: str, index_dir: str | None, identity: bytes) -> SynthefyRecords:
    records = SynthefyRecords(root, Indexing(index_dir))
    if records._index.identity != identity:
        raise FormatError(f"{root} is not what it was when the dataset was opened: open it again")
    return records


def _shards(folder: str) -> list[tuple[int, str]]:
    """Number and path of every shard in a field's folder."""
    if not os.path.isdir(folder):
        return []
    with files.translated("list the folder", folder):
        names = sorted(os.listdir(folder), key=natural_key)
    matched = [(found, name) for name in names if (found := _SHARD.fullmatch(name))]
    return [(int(found[1]), os.path.join(folder, name)) for found, name in matched]


def _field(name: str, told: Mapping[str, Any], root: str) -> Field:
    """The column that all arrays of a field fit into."""
    dtypes = [np.dtype(text) for text in told["dtypes"]]
    if not dtypes:
        return Field("ndarray", "float64")
    if all(dtype.kind == "U" for dtype in dtypes):
        return Field("json")
    common = dtypes[0] if len(dtypes) == 1 else np.result_type(*dtypes)
    shape = told["shape"]
    try:
        if not all(np.can_cast(dtype, common, "safe") for dtype in dtypes):
            raise FormatError("no dtype holds all of them")
        return Field("ndarray", common.name, None if shape is None else tuple(shape))
    except FormatError as error:
        raise FormatError(
            f"field {name!r} of {root} has arrays of {', '.join(map(str, dtypes))}: {error}"
        ) from error


def _recognises(source: Source) -> bool:
    if not source.has(INDEX):
        return False
    return source.head(os.path.join(source.root, INDEX), 16) == b"SQLite format 3\0"


def _open(source: Source, indexing: Indexing) -> SynthefyRecords:
    if not source.folder:
        raise FormatError(
            f"synthefy-dataset-utils writes a folder with an {INDEX}: open the folder"
        )
    return SynthefyRecords(source.root, indexing)


FORMAT = Format(
    name="synthefy",
    looks_like="a folder with index.sqlite, of synthefy-dataset-utils",
    recognises=_recognises,
    open=_open,
    marked=True,
)
