"""WebDataset's tar shards, read at random.

Responsible for: recognising ``.tar`` files, indexing which samples they hold (`TarScanner`), and
`TarRecords`: a column for every extension and ``__key__``, of bytes, or typed on request.

Samples are grouped as the webdataset library does: the key is a member's path up to the first dot
of its last part, the extension is the rest in lower case; neighbours with one key are one sample;
names that begin with a dot, or are like ``__meta__``, belong to none.

Rules:
- an entry of the index is where a sample begins and how long it is; what lies in between is told by
  the tar headers themselves, checked by their sums at every read;
- of a large sample only the headers and the columns asked for are read;
- what webdataset would hand out in pieces, a key that comes back later in a shard, is refused,
  and so is an extension that comes twice in a sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.chunks import bins_of, column_of
from splitpipe.formats.files.sources import OpenFile, SourceFiles
from splitpipe.formats.indexing.build import Stretch
from splitpipe.formats.indexing.kept import open_index
from splitpipe.formats.indexing.parts import Scanned
from splitpipe.formats.names import column_names
from splitpipe.formats.shards.members import FileBytes, Member, members
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import Batch, Catalog, Order, Rows, given_array, iterate_blocks
from splitpipe.storage.layout import BinLayout

__all__ = ["FORMAT", "TarRecords", "TarScanner", "split_name"]

KEY = "__key__"
_SUFFIXES = (".tar", ".tgz")  # the second, and .tar.gz, to be refused with a reason
# A sample up to this size is read by one call, of a larger one only what is asked for.
_WHOLE_NBYTES = 128 << 10
_HEADERS_NBYTES = 1536  # with a pax header in front, as Python's tarfile writes long names
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a member, or ``None`` for one that belongs to no sample.

    Example:
        >>> split_name("a/b.c/0001.seg.PNG"), split_name(".hidden"), split_name("__meta__/x.y")
        (('a/b.c/0001', 'seg.png'), None, None)
    """
    found = None if _META.match(name) else _NAME.fullmatch(name)
    return None if found is None else (found[1], found[2].lower())


@dataclass(frozen=True, slots=True)
class TarScanner:
    """Entries of two words, first byte and length of a sample; extensions are noted by file."""

    format: str = "tar"
    words: int = 2
    counts: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """None changes the entries."""
        return {}

    def splittable(self, file: OpenFile) -> bool:
        """Headers are found one from the other: never."""
        return False

    def count(self, stretch: Stretch) -> int:
        """Nothing to be known."""
        return 0

    def scan(self, stretch: Stretch) -> Scanned:
        """The samples of an archive."""
        path = stretch.file.path
        entries: list[tuple[int, int]] = []
        extensions: dict[str, None] = {}
        seen: set[str] = set()
        for key, parts in _samples(members(FileBytes(stretch.file), path), path):
            if key in seen:
                raise FormatError(
                    f"{path}: the members of sample {key!r} do not lie together, or two samples "
                    "have this name: pack the archive sorted by name (tar --sort=name)"
                )
            seen.add(key)
            extensions |= dict.fromkeys(parts)
            placed = list(parts.values())
            entries.append((placed[0].header, placed[-1].end - placed[0].header))
            if stretch.stopped.is_set():
                break
        array = np.array(entries, dtype=np.uint64).reshape(-1, 2)
        return Scanned(array, notes={"extensions": list(extensions)})


def _samples(found: Iterator[Member], path: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Key, and extension -> member, of neighbours with the same key."""
    key: str | None = None
    parts: dict[str, Member] = {}
    for member in found:
        named = split_name(member.name)
        if named is None:
            continue
        if named[0] != key:
            if key is not None:
                yield key, parts
            key, parts = named[0], {}
        if named[1] in parts:
            raise FormatError(
                f"{path}: sample {key!r} has two members with the extension {named[1]!r}"
            )
        parts[named[1]] = member
    if key is not None:
        yield key, parts


class TarRecords:
    """The samples of tar shards; made by ``FORMAT.open``.

    Args:
        source: the shards.
        indexing: where their index is kept.
        typed: whether columns of known extensions are read as what they hold.

    Attributes:
        extensions: column -> extension, where the extension is no name of a column.
    """

    catalog: Catalog | None = None

    def __init__(self, source: Source, indexing: Indexing, *, typed: bool) -> None:
        paths = source.files(*_SUFFIXES)
        if not paths:
            raise FormatError(f"{source.root} has no file that ends in .tar")
        index = open_index(TarScanner(), source, paths, indexing)
        self._given = (source.paths, source.folder, indexing.index_dir, typed)
        self._files = SourceFiles(paths, [file.known_by for file in index.files])
        self._index = index
        found: dict[str, None] = {}
        for file in index.files:
            found |= dict.fromkeys(map(str, file.notes.get("extensions", ())))
        # An order that does not depend on which shard comes first.
        self.extensions = column_names([KEY, *sorted(found.keys() - {KEY})])
        self._decoders = {
            name: _decoder(extension) if typed else _BYTES
            for name, extension in self.extensions.items()
            if name != KEY
        }
        fields = {name: field for name, (field, _) in self._decoders.items()}
        self.schema = Schema({KEY: Field("str"), **fields})

    def __len__(self) -> int:
        rows: int = self._index.rows
        return rows

    def __repr__(self) -> str:
        return f"TarRecords({len(self)} samples in {len(self._index.files)} shards)"

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """A batch, column by column; see ``Records.read``."""
        given = {name: given_array(self.schema, name, len(rows), out) for name in columns}
        values: dict[str, list[Any]] = {name: [] for name in columns}
        numbers, offsets, lengths = (part.tolist() for part in self._index.extents(rows))
        for place, row in enumerate(rows.tolist()):
            sample = self._sample(numbers[place], offsets[place], lengths[place])
            for name in columns:
                values[name].append(self._value(name, sample, row))
        return {
            name: column_of(self.schema, name, rows, values[name], given[name]) for name in columns
        }

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See ``Records.iterate``."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """A shard is a bin."""
        return bins_of([file.rows for file in self._index.files])

    def close(self) -> None:
        """Let go of the files; they are opened again when needed."""
        self._files.close()

    def _sample(self, number: int, offset: int, length: int) -> _Sample:
        file = self._files.open(number)
        # Nothing is between these files and their bytes.
        assert isinstance(file, OpenFile)
        data: bytes | FileBytes
        if length <= _WHOLE_NBYTES:
            data = file.read(offset, length)
        else:
            data = FileBytes(file, offset, offset + length, ahead=_HEADERS_NBYTES)
        found = list(_samples(members(data, file.path, must_end=False), file.path))
        if len(found) != 1 or len(data) != length:
            raise CorruptRecord(
                f"{file.path} has {len(found)} samples at bytes {offset} to {offset + length}, "
                "where one was indexed: it was written to since; open the dataset again"
            )
        return _Sample(data, found[0][0], found[0][1], file.path)

    def _value(self, name: str, sample: _Sample, row: int) -> Any:
        if name == KEY:
            return sample.key
        member = sample.parts.get(self.extensions[name])
        if member is None:
            return None
        data = sample.data[member.offset : member.offset + member.size]
        try:
            return self._decoders[name][1](data)
        except (ValueError, RecursionError) as error:
            raise CorruptRecord(
                f"{member.name} in {sample.path} (record {row}) is not what its extension says: "
                f"{error}; read it as bytes with typed=False"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (*self._given, self._index.identity)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sample whose headers were read."""

    data: bytes | FileBytes
    key: str
    parts: Mapping[str, Member]
    path: str


def _reopen(
    paths: tuple[str, ...], folder: bool, index_dir: str | None, typed: bool, identity: bytes
) -> TarRecords:
    records = TarRecords(Source(paths, folder), Indexing(index_dir), typed=typed)
    if records._index.identity != identity:
        raise FormatError(
            f"the shards of {records._index.path} are not what they were when the dataset was "
            "opened: open it again"
        )
    return records


# --- decoding ------------------------------------------------------------------------------------

_Decoder = tuple[Field, Callable[[bytes], Any]]
_BYTES: _Decoder = (Field("bytes"), bytes)
# By the last part of the extension, as webdataset's default decoders go by it. Media stay encoded:
# their kind says what they are.
_DECODERS: tuple[tuple[str, _Decoder], ...] = (
    ("txt text transcript", (Field("str"), lambda data: data.decode("utf-8"))),
    ("json jsn", (Field("json"), json.loads)),
    ("cls cls2 class count index inx id", (Field("scalar", "int64"), lambda data: _int64(data))),
    ("jpg jpeg png ppm pgm pbm pnm gif webp bmp tif tiff", (Field("image"), bytes)),
    ("flac mp3 wav ogg opus m4a sox", (Field("audio"), bytes)),
    ("mp4 avi mov webm mkv mjpeg mpg mpeg wmv h264 ogv", (Field("video"), bytes)),
)


def _decoder(extension: str) -> _Decoder:
    last = extension.rpartition(".")[2]
    return next((found for names, found in _DECODERS if last in names.split()), _BYTES)


def _int64(data: bytes) -> int:
    number = int(data)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} has more than 64 bits")
    return number


def _recognises(source: Source) -> bool:
    if ".tar" in source.suffixes() or ".tgz" in source.suffixes():
        return True
    return not source.folder and source.head(source.paths[0], 262)[257:262] == b"ustar"


def _open(source: Source, indexing: Indexing, *, typed: bool = False) -> TarRecords:
    return TarRecords(source, indexing, typed=typed)


FORMAT = Format(
    name="tar",
    looks_like="tar shards as webdataset writes them (.tar)",
    recognises=_recognises,
    open=_open,
)
