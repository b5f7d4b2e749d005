"""MDS, the shards of MosaicML's streaming, read where they lie.

Responsible for: recognising a folder with an MDS ``index.json``, opening its shards (raw, or packed
by zstd, gzip or bzip2), and cutting samples into columns.

    shard:  u32 samples, u32 x (samples + 1) offsets, JSON of the writer, samples
    sample: u32 size of each column without a fixed size, then the columns

Rules:
- the layout brings its own index, so none is built; a shard's table of offsets is checked when
  the shard is opened, and a sample must have exactly the bytes that its sizes say;
- of a packed shard, the raw one beside it is taken where there is one, as streaming does; else it
  is unpacked into a bounded cache, and never grows beyond the size that the index names;
- a pickle is never opened unless ``allow_pickle=True`` was said.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.chunks import Cache, ChunkedRecords, Chunks, Values, bins_of, column_of
from splitpipe.formats.files.opened import Places, read_at_places
from splitpipe.formats.files.packed import unpack
from splitpipe.formats.files.sources import OpenFile, fingerprint
from splitpipe.formats.names import column_names
from splitpipe.formats.shards.mdscolumns import decoder_of
from splitpipe.formats.shards.mdsindex import INDEX, Shard, read_index
from splitpipe.schema import Schema
from splitpipe.storage.base import Catalog, Rows
from splitpipe.storage.layout import BinLayout

__all__ = ["FORMAT", "MdsRecords"]

_OPEN_SHARDS = 128
_CACHE_NBYTES = 256 << 20


class MdsRecords(ChunkedRecords):
    """The samples of an MDS folder; made by ``FORMAT.open``.

    Args:
        root: the folder with ``index.json``.
        allow_pickle: whether columns of pickles may be read.
        check_hashes: whether shards are compared with the hashes in the index when opened.
        cache_nbytes: how much of packed shards stays unpacked.
    """

    catalog: Catalog | None = None

    def __init__(
        self, root: str, *, allow_pickle: bool, check_hashes: bool, cache_nbytes: int
    ) -> None:
        path = os.path.join(root, INDEX)
        self._root = root
        self._options = {
            "allow_pickle": allow_pickle,
            "check_hashes": check_hashes,
            "cache_nbytes": cache_nbytes,
        }
        self._known_by = fingerprint(path)
        self._shards, columns = read_index(path)
        self._chunks = Chunks([shard.samples for shard in self._shards])
        self._names = column_names(name for name, _ in columns)
        self._decoders = {
            name: decoder_of(
                encoding, allow_pickle=allow_pickle, where=f"column {given!r} of {root}"
            )
            for name, (given, encoding) in zip(self._names, columns, strict=True)
        }
        sizes = [decoder.size for decoder in self._decoders.values()]
        self._sizes = sizes
        self._head = struct.Struct(f"<{sizes.count(None)}I")
        self._raw = Cache[_Opened](_OPEN_SHARDS)
        self._unpacked = Cache[_Opened](cache_nbytes)
        self._settle_dtypes()
        self.schema = Schema({name: d.field for name, d in self._decoders.items()})

    def __repr__(self) -> str:
        return f"MdsRecords({self._root!r}, {len(self)} samples in {len(self._shards)} shards)"

    def layout(self) -> BinLayout:
        """A shard is a bin."""
        return bins_of([shard.samples for shard in self._shards])

    def close(self) -> None:
        """Let go of all files and of what is unpacked; they are opened again when needed."""
        self._raw.clear()
        self._unpacked.clear()

    # -- reading ---------------------------------------------------------------------------

    def _values(self, chunk: int, local: Rows, columns: Sequence[str]) -> dict[str, Values]:
        opened = self._open(chunk)
        values: dict[str, list[Any]] = {name: [] for name in columns}
        for row, sample in zip(local.tolist(), opened.samples(local), strict=True):
            try:
                places = self._places(sample)
                for name in columns:
                    start, stop = places[name]
                    values[name].append(self._decoders[name].decode(sample[start:stop]))
            except SplitpipeError:
                raise
            except Exception as error:  # bytes that are no value end in whatever a decoder raises
                raise CorruptRecord(
                    f"sample {row} of {self._shards[chunk].path} is damaged: {error}"
                ) from error
        return {name: self._column(name, held, chunk, local) for name, held in values.items()}

    def _column(self, name: str, values: list[Any], chunk: int, local: Rows) -> Values:
        field = self.schema[name]
        if self._decoders[name].any_dtype:
            for value in values:
                if value.dtype.name != field.dtype:
                    raise FormatError(
                        f"column {name!r} of {self._shards[chunk].path} has arrays of dtype "
                        f"{value.dtype}, the first sample's is {field.dtype}: a column here has "
                        "one dtype; write the dataset anew with 'ndarray:DTYPE'"
                    )
        return column_of(self.schema, name, local, values, None)

    def _settle_dtypes(self) -> None:
        """A column that leaves the dtype to each array has the first one's."""
        free = [name for name, decoder in self._decoders.items() if decoder.any_dtype]
        if not free or not len(self):
            return
        chunk, row = self._chunks.locate(0)
        sample = self._open(chunk).samples(np.array([row]))[0]
        try:
            places = self._places(sample)
            for name in free:
                decoder = self._decoders[name]
                value = decoder.decode(sample[slice(*places[name])])
                field = replace(decoder.field, dtype=value.dtype.name)
                self._decoders[name] = replace(decoder, field=field)
        except Exception as error:  # bytes that are no value end in whatever a decoder raises
            raise CorruptRecord(
                f"sample {row} of {self._shards[chunk].path} is damaged: {error}"
            ) from error

    def _places(self, sample: bytes) -> dict[str, tuple[int, int]]:
        """Where each column lies in a sample."""
        told = iter(self._head.unpack_from(sample))
        sizes = [next(told) if size is None else size for size in self._sizes]
        ends = list(accumulate(sizes, initial=self._head.size))
        if ends[-1] != len(sample):
            raise ValueError(f"its columns take {ends[-1]} bytes, it has {len(sample)}")
        return dict(zip(self._names, pairwise(ends), strict=True))

    def _open(self, chunk: int) -> _Opened:
        shard = self._shards[chunk]
        if shard.packed_path and not os.path.exists(shard.path):
            return self._unpacked.get(chunk, lambda: (self._unpack(shard), shard.nbytes))
        return self._raw.get(chunk, lambda: (self._checked(shard, OpenFile(shard.path)), 1))

    def _unpack(self, shard: Shard) -> _Opened:
        bound = self._options["cache_nbytes"]
        if shard.nbytes > bound:
            raise FormatError(
                f"{shard.packed_path} unpacks to {shard.nbytes} bytes, more than cache_nbytes="
                f"{bound}: raise it, or unpack the folder"
            )
        file = OpenFile(shard.packed_path)
        if file.size != shard.packed_nbytes:
            raise FormatError(
                f"{shard.packed_path} has {file.size} bytes, the index says "
                f"{shard.packed_nbytes}: it was cut or is another; copy it again"
            )
        packed = file.read(0, file.size)
        data = unpack(packed, shard.compression, shard.nbytes, shard.packed_path)
        return self._checked(shard, data)

    def _checked(self, shard: Shard, data: OpenFile | bytes) -> _Opened:
        opened = _Opened(shard, data)
        if self._options["check_hashes"]:
            for name, digest in shard.hashes.items():
                # xxhash's are not in the standard library; all others that streaming knows are.
                if name in hashlib.algorithms_available and opened.digest(name) != digest:
                    raise CorruptRecord(
                        f"{shard.path} does not have the {name} that the index names: it is "
                        "damaged; copy it again"
                    )
        return opened

    # -- travelling ------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._root, self._known_by, self._options)


def _reopen(root: str, known_by: tuple[int, ...], options: dict[str, Any]) -> MdsRecords:
    records = MdsRecords(root, **options)
    if tuple(records._known_by) != tuple(known_by):
        raise FormatError(
            f"{os.path.join(root, INDEX)} is not what it was when the dataset was opened: open it "
            "again"
        )
    return records


class _Opened:
    """An opened shard: its table of offsets, and its bytes, in a file or in memory."""

    __slots__ = ("_data", "_file", "offsets")

    def __init__(self, shard: Shard, data: OpenFile | bytes) -> None:
        self._file = data if isinstance(data, OpenFile) else None
        self._data = data if isinstance(data, bytes) else b""
        size = data.size if isinstance(data, OpenFile) else len(data)
        if size != shard.nbytes:
            raise FormatError(
                f"{shard.path} has {size} bytes, the index says {shard.nbytes}: it was cut or is "
                "another; copy it again"
            )
        head = 4 * (shard.samples + 2)
        good = head <= size
        if good:
            table = np.frombuffer(self.read(0, head), dtype="<u4").astype(np.int64)
            self.offsets = table[1:]
            good = bool(
                table[0] == shard.samples
                and self.offsets[0] >= head
                and self.offsets[-1] == size
                and (np.diff(self.offsets) >= 0).all()
            )
        if not good:
            raise FormatError(
                f"{shard.path}: the table of samples is damaged, or is not that of "
                f"{shard.samples} samples in {size} bytes; copy the file again"
            )

    def open(self, _number: int) -> _Opened:
        """Itself: what `read_at_places` asks for."""
        return self

    def read(self, offset: int, length: int) -> bytes:
        if self._file is not None:
            return self._file.read(offset, length)
        return self._data[offset : offset + length]

    def samples(self, rows: Rows) -> list[bytes]:
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        return read_at_places(self, Places(np.zeros_like(rows), starts, lengths))

    def digest(self, name: str) -> str:
        found = hashlib.new(name)
        for piece in self._pieces():
            found.update(piece)
        return found.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        size = int(self.offsets[-1])
        for start in range(0, size, 1 << 20):
            yield self.read(start, min(1 << 20, size - start))


def _recognises(source: Source) -> bool:
    if not source.has(INDEX):
        return False
    head = source.head(os.path.join(source.root, INDEX))
    return b'"shards"' in head or b'"mds"' in head


def _open(
    source: Source,
    _indexing: Indexing,
    *,
    allow_pickle: bool = False,
    check_hashes: bool = False,
    cache_nbytes: int = _CACHE_NBYTES,
) -> MdsRecords:
    if not source.folder:
        raise FormatError(f"MDS is a folder with an {INDEX}: open the folder, not a file of it")
    return MdsRecords(
        source.root,
        allow_pickle=allow_pickle,
        check_hashes=check_hashes,
        cache_nbytes=cache_nbytes,
    )


FORMAT = Format(
    name="mds",
    looks_like="a folder with an index.json of MosaicML's streaming",
    recognises=_recognises,
    open=_open,
    marked=True,
)
