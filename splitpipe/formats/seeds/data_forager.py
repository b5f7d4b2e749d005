"""The index of data-forager, read where it lies.

Responsible for: a folder with ``index/``, as data-forager 0.2.0 writes it (all numbers are
little-endian and of eight bytes):

    index/sample_locations.bin    file, offset, length: an entry a sample
    index/file_location.txt       a path a line, relative to the folder or absolute
    index/sample_schema.json      optional: sample_size, arrays of name, dtype and offset,
                                  total_bytes_per_sample

A sample is what its files are made of: JSON of ``.jsonl`` files, the arrays of a schema, arrays of
a ``dtype`` that the reader names, else bytes.

Rules:
- the layout brings its own index, so none is built; places are compared with the files;
- paths are taken as they stand, also ``..`` and absolute ones, as the original does: whoever
  writes the index chooses which regular files of this machine are read. Open an index of somebody
  you do not trust where there is nothing else to be read;
- an index that ends inside of an entry is refused, unless ``incomplete="ignore"``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.chunks import column_of
from splitpipe.formats.files.opened import NamedFiles, read_at_places, read_entries
from splitpipe.formats.files.sources import Fingerprint, Places, fingerprint
from splitpipe.formats.names import column_names
from splitpipe.schema import BARE, Field, Schema
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

__all__ = ["FORMAT", "ForagerRecords", "Options"]

FOLDER = "index"
LOCATIONS = "sample_locations.bin"
PATHS = "file_location.txt"
SCHEMA = "sample_schema.json"
_ENTRY_NBYTES = 24
_PIECE_ROWS = 1 << 17
_TEXT_NBYTES_LIMIT = 1 << 30
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_KINDS = ("bytes", "str", "json")

# Where an array lies in a sample: first byte, number of bytes, stored dtype.
_Part = tuple[int, int, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the reader may say about the samples.

    Attributes:
        index_folder: name of the folder with the index.
        kind: ``"bytes"``, ``"str"`` or ``"json"``; else it follows from the files' names.
        dtype: samples are arrays of it.
        incomplete: ``"raise"`` or ``"ignore"``, for an index that ends inside of an entry.
    """

    index_folder: str = FOLDER
    kind: str | None = None
    dtype: str | None = None
    incomplete: str = "raise"


class ForagerRecords:
    """The samples that an index of data-forager names; made by ``FORMAT.open``.

    Args:
        root: the folder with the index's folder.
        options: what the reader said.
    """

    catalog: Catalog | None = None

    def __init__(self, root: str, options: Options) -> None:
        self._given = (root, options)
        folder = os.path.join(root, options.index_folder)
        self._path = path = os.path.join(folder, LOCATIONS)
        self._index = NamedFiles(lambda _: path, "it is the index of the folder")
        file = self._index.open(0)
        self._known_by = fingerprint(path, file.descriptor)
        self._rows, rest = divmod(file.size, _ENTRY_NBYTES)
        if rest and options.incomplete == "raise":
            raise FormatError(
                f"{self._path} ends inside of an entry ({self._rows} samples are before it): "
                "it is still being written, or its writer was killed; index the data anew, or open "
                "it with incomplete='ignore' to read what is there"
            )
        self._paths = _read_paths(os.path.join(folder, PATHS), root)
        self._files = NamedFiles(
            lambda number: self._paths[number], f"{PATHS} names it: has the data been moved?"
        )
        self.schema, self._decode = self._content(os.path.join(folder, SCHEMA))

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"ForagerRecords({self._given[0]!r}, {len(self)} samples)"

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch, column by column; see ``Records.read``."""
        given = {name: given_array(self.schema, name, len(rows), out) for name in columns}
        values: dict[str, list[Any]] = {name: [] for name in columns}
        for row, data in zip(rows.tolist(), self._samples(rows), strict=True):
            for name in columns:
                try:
                    values[name].append(self._decode[name](data))
                except (ValueError, RecursionError) as error:
                    raise CorruptRecord(
                        f"sample {row} of {self._given[0]} is not what it should be: {error}; were "
                        "its files changed after they were indexed?"
                    ) from error
        return {
            name: column_of(self.schema, name, rows, values[name], given[name]) for name in columns
        }

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See ``Records.iterate``."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """Consecutive samples, which lie together in their files."""
        return consecutive_layout(self._rows)

    def close(self) -> None:
        """Let go of the files; they are opened again when needed."""
        self._files.close()
        self._index.close()

    # -- reading ---------------------------------------------------------------------------

    def _samples(self, rows: Rows) -> list[bytes]:
        entries = self._entries(rows)
        if len(rows) and int(entries.max()) >= 1 << 62:
            raise CorruptRecord(f"{self._path} names places beyond 2^62: it is damaged")
        places = entries.astype(np.int64)
        wrong = np.flatnonzero(places[:, 0] >= len(self._paths))
        if len(wrong):
            raise CorruptRecord(
                f"sample {rows[wrong[0]]} of {self._given[0]} lies in file "
                f"{places[wrong[0], 0]}, {PATHS} names {len(self._paths)}: one of them is damaged"
            )
        return read_at_places(self._files, Places(places[:, 0], places[:, 1], places[:, 2]))

    def _entries(self, rows: Rows) -> npt.NDArray[np.uint64]:
        table = read_entries(self._index.open(0), rows, _ENTRY_NBYTES)
        return np.frombuffer(table, dtype="<u8").reshape(-1, 3)

    # -- what a sample is ------------------------------------------------------------------

    def _content(self, path: str) -> tuple[Schema, dict[str, Callable[[bytes], Any]]]:
        options = self._given[1]
        if options.dtype is not None:
            dtype = _dtype(options.dtype, "dtype=")
            field = Field("ndarray", dtype.name, (self._common_length(dtype.itemsize),))
            return Schema(field), {BARE: lambda data: np.frombuffer(data, dtype=dtype).copy()}
        if options.kind is None and os.path.exists(path):
            return _arrays(path)
        kind = options.kind
        if kind is None:
            named = self._paths[0].lower() if self._paths else ""
            kind = "json" if named.endswith(_JSON_SUFFIXES) else "bytes"
        if kind not in _KINDS:
            raise FormatError(f"kind= is one of {', '.join(_KINDS)}, not {kind!r}")
        decode: dict[str, Callable[[bytes], Any]] = {
            "json": json.loads,
            "str": lambda data: data.decode("utf-8"),
            "bytes": bytes,
        }
        return Schema(kind), {BARE: decode[kind]}

    def _common_length(self, itemsize: int) -> int | None:
        """How many elements every sample has, if all have as many. Reads the index through."""
        common: int | None = None
        for at in range(0, self._rows, _PIECE_ROWS):
            rows = np.arange(at, min(at + _PIECE_ROWS, self._rows))
            lengths = self._entries(rows)[:, 2]
            first = int(lengths[0]) if common is None else common
            if (lengths != first).any() or first % itemsize or first >= 1 << 40:
                return None
            common = first
        return None if common is None else common // itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (*self._given, self._known_by)


def _reopen(root: str, options: Options, known_by: Fingerprint) -> ForagerRecords:
    records = ForagerRecords(root, options)
    if tuple(records._known_by) != tuple(known_by):
        raise FormatError(
            f"{records._path} is not what it was when the dataset was opened: open it again"
        )
    return records


def _read_paths(path: str, root: str) -> list[str]:
    data = files.read_whole(path, limit=_TEXT_NBYTES_LIMIT)
    lines = os.fsdecode(data).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines):
        if not line or "\0" in line:
            raise FormatError(f"{path}: line {number + 1} is no path: {line!r:.100}")
    return [os.path.join(root, line) for line in lines]


def _arrays(path: str) -> tuple[Schema, dict[str, Callable[[bytes], Any]]]:
    """The columns that a sample schema describes."""
    try:
        told = json.loads(files.read_whole(path, limit=1 << 24))
        count, total = told["sample_size"], told["total_bytes_per_sample"]
        listed = [(one["name"], one["dtype"], one["offset"]) for one in told["arrays"]]
        good = (
            bool(listed)
            and all(type(n) is int and 0 < n < 1 << 40 for n in (count, total))
            and all(type(at) is int and at >= 0 for _, _, at in listed)
            and all(isinstance(name, str) for name, _, _ in listed)
            and len({name for name, _, _ in listed}) == len(listed)
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{path} describes no samples ({error!r}): it is damaged") from error
    if not good:
        raise FormatError(f"{path} describes no samples: it is damaged; index the data anew")
    fields: dict[str, Field] = {}
    decode: dict[str, Callable[[bytes], Any]] = {}
    names = column_names(name for name, _, _ in listed)
    for column, (name, given, offset) in zip(names, listed, strict=True):
        dtype = _dtype(given, f"array {name!r} of {path}:")
        stop = offset + count * dtype.itemsize
        if stop > total:
            raise FormatError(f"{path}: array {name!r} ends at byte {stop} of {total}")
        fields[column] = Field("ndarray", dtype.name, (count,))
        decode[column] = _part((offset, stop, dtype), total)
    return Schema(fields), decode


def _part(part: _Part, total: int) -> Callable[[bytes], npt.NDArray[Any]]:
    start, stop, dtype = part

    def decode(data: bytes) -> npt.NDArray[Any]:
        if len(data) != total:
            raise ValueError(f"{len(data)} bytes, the schema says {total}")
        return np.frombuffer(data[start:stop], dtype=dtype)

    return decode


def _dtype(given: Any, where: str) -> np.dtype[Any]:
    try:
        if not isinstance(given, str | type | np.dtype):
            raise TypeError(f"{given!r:.100} is no dtype")
        dtype = np.dtype(given)
        Field("scalar", dtype.name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise FormatError(f"{where} {error}") from error
    return dtype if dtype.byteorder == ">" else dtype.newbyteorder("<")


def _recognises(source: Source) -> bool:
    return source.has(os.path.join(FOLDER, LOCATIONS)) and source.has(os.path.join(FOLDER, PATHS))


def _open(
    source: Source,
    _indexing: Indexing,
    *,
    index_folder: str = FOLDER,
    kind: str | None = None,
    dtype: Any = None,
    incomplete: str = "raise",
) -> ForagerRecords:
    if not source.folder:
        raise FormatError(
            f"data-forager keeps {FOLDER}/{LOCATIONS} in the folder of the data: open the folder"
        )
    if incomplete not in ("raise", "ignore"):
        raise FormatError(f"incomplete= is 'raise' or 'ignore', not {incomplete!r}")
    text = None if dtype is None else _dtype(dtype, "dtype=").str
    return ForagerRecords(source.root, Options(index_folder, kind, text, incomplete))


FORMAT = Format(
    name="data_forager",
    looks_like="a folder with index/sample_locations.bin, of data-forager",
    recognises=_recognises,
    open=_open,
    marked=True,
)
