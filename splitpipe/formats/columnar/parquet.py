"""Parquet files, read by row group.

Responsible for: recognising one file or a folder of them, and `ParquetRecords`: which row group
holds a row, decoding the columns that are asked for, and keeping a bounded part of what is decoded.

Rules:
- only the columns that are read are touched; a row group of a column is decoded whole (the format
  allows no less) and kept while ``cache_nbytes`` allow. Orders that stay in a row group for a while
  (binwise: a row group is a bin) read each of them once;
- page checksums are verified where the file has them;
- pyarrow is imported when a file is opened; nothing of it is shared between threads but a file's
  metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.chunks import Cache, ChunkedRecords, Chunks, Values, bins_of
from splitpipe.formats.files.sources import Fingerprint, fingerprint
from splitpipe.formats.names import column_names, needs
from splitpipe.storage.base import Catalog, Rows
from splitpipe.storage.layout import BinLayout

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["FORMAT", "ParquetRecords"]

_SUFFIXES = (".parquet", ".pq", ".parq")
_MAGIC = b"PAR1"
_CACHE_NBYTES = 256 << 20


class ParquetRecords(ChunkedRecords):
    """The rows of Parquet files, one after the other; made by ``FORMAT.open``.

    Args:
        paths: the files, in order; all have the same columns.
        cache_nbytes: how much of decoded columns is kept.
    """

    catalog: Catalog | None = None

    def __init__(self, paths: Sequence[str], *, cache_nbytes: int) -> None:
        from splitpipe.formats.columnar.arrowfields import readings_of, schema_of

        self._paths = tuple(paths)
        self._cache_nbytes = cache_nbytes
        self._known_by = tuple(fingerprint(path) for path in paths)
        self._metadata, kinds = _opened(paths)
        self._groups = [
            (number, group)
            for number, metadata in enumerate(self._metadata)
            for group in range(metadata.num_row_groups)
        ]
        self._counts = [self._rows_of(number, group) for number, group in self._groups]
        self._chunks = Chunks(self._counts)
        names = column_names(kinds.names)
        self._readings = readings_of(kinds, names)
        self._leaves = dict(zip(names, _leaves(kinds), strict=True))
        self.schema = schema_of(kinds, self._readings)
        self._cache = Cache["pa.ChunkedArray"](cache_nbytes)

    def __repr__(self) -> str:
        return (
            f"ParquetRecords({len(self)} rows in {len(self._chunks)} row groups of "
            f"{len(self._paths)} files)"
        )

    def layout(self) -> BinLayout:
        """A row group is a bin."""
        return bins_of(self._counts)

    def close(self) -> None:
        """Let go of what is decoded. No file stays open between reads."""
        self._cache.clear()

    def _values(self, chunk: int, local: Rows, columns: Sequence[str]) -> dict[str, Values]:
        from splitpipe.formats.columnar.arrowtypes import refused

        decoded = {
            name: self._cache.get((chunk, name), partial(self._decode, chunk, name))
            for name in columns
        }
        with refused(self._where(chunk)):
            return {
                name: self._readings[name].values(column, local) for name, column in decoded.items()
            }

    def _decode(self, chunk: int, name: str) -> tuple[pa.ChunkedArray, int]:
        import pyarrow.parquet as pq

        from splitpipe.formats.columnar.arrowtypes import refused

        number, group = self._groups[chunk]
        with refused(f"column {name!r} in {self._where(chunk)}"):
            # With the metadata at hand a file opens in no time, and threads share nothing.
            with pq.ParquetFile(
                self._paths[number],
                metadata=self._metadata[number],
                page_checksum_verification=True,
                pre_buffer=False,
            ) as file:
                # By number: names of nested columns and names with a dot cannot be told apart.
                leaves = list(self._leaves[name])
                table = file.reader.read_row_group(group, column_indices=leaves, use_threads=False)
            if table.num_columns != 1 or table.num_rows != self._rows_of(number, group):
                raise CorruptRecord(f"{self._where(chunk)} does not hold the rows it says")
            column = table.column(0)
            column.validate(full=True)
            if column.num_chunks == 1:
                column = column.chunk(0)
        return column, column.nbytes

    def _rows_of(self, number: int, group: int) -> int:
        return int(self._metadata[number].row_group(group).num_rows)

    def _where(self, chunk: int) -> str:
        number, group = self._groups[chunk]
        return f"row group {group} of {self._paths[number]}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._paths, self._known_by, self._cache_nbytes)


def _reopen(
    paths: Sequence[str], known_by: Sequence[Fingerprint], cache_nbytes: int
) -> ParquetRecords:
    records = ParquetRecords(paths, cache_nbytes=cache_nbytes)
    for path, then, now in zip(paths, known_by, records._known_by, strict=True):
        if tuple(then) != tuple(now):
            raise FormatError(
                f"{path} is not what it was when the dataset was opened: open it again"
            )
    return records


def _opened(paths: Sequence[str]) -> tuple[list[pq.FileMetaData], pa.Schema]:
    """The footers of all files, and the columns that all of them have."""
    import pyarrow.parquet as pq

    from splitpipe.formats.columnar.arrowtypes import refused

    footers: list[pq.FileMetaData] = []
    first: pa.Schema | None = None
    for path in paths:
        with refused(path, FormatError), pq.ParquetFile(path, pre_buffer=False) as file:
            footers.append(file.metadata)
            kinds = file.schema_arrow
        first = first or kinds
        if not kinds.equals(first):
            raise FormatError(
                f"{path} has other columns than {paths[0]}: {kinds.names} of types "
                f"{[str(t) for t in kinds.types]}, not {first.names} of types "
                f"{[str(t) for t in first.types]}; open them one by one"
            )
        if sum(1 for _ in _leaves(kinds)) == 0:
            raise FormatError(f"{path} has no columns")
        _check_groups(footers[-1], kinds, path)
    assert first is not None
    return footers, first


def _check_groups(footer: pq.FileMetaData, kinds: pa.Schema, path: str) -> None:
    """A footer that contradicts itself is damaged: rows that add up, columns that are all there."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    rows = [group.num_rows for group in groups]
    leaves = [place for places in _leaves(kinds) for place in places]
    if min(rows, default=0) < 0 or sum(rows) != footer.num_rows:
        raise FormatError(f"{path}: row groups of {rows} rows do not make {footer.num_rows}")
    if len(leaves) != footer.num_columns or any(g.num_columns != len(leaves) for g in groups):
        raise FormatError(f"{path}: columns are missing in a row group; it is damaged")


def _leaves(kinds: pa.Schema) -> Iterator[range]:
    """Numbers of the stored columns that each column is made of."""
    first = 0
    for kind in kinds.types:
        count = _leaves_of(kind)
        yield range(first, first + count)
        first += count


def _leaves_of(kind: pa.DataType) -> int:
    kind = getattr(kind, "storage_type", kind)
    if not kind.num_fields:
        return 1
    return sum(_leaves_of(kind.field(number).type) for number in range(kind.num_fields))


def _recognises(source: Source) -> bool:
    if source.folder or len(source.paths) > 1:
        return bool(source.suffixes() & set(_SUFFIXES))
    return bool(source.suffixes() & set(_SUFFIXES)) or source.head(source.paths[0], 4) == _MAGIC


def _open(
    source: Source, _indexing: Indexing, *, cache_nbytes: int = _CACHE_NBYTES
) -> ParquetRecords:
    paths = source.files(*_SUFFIXES)
    if not paths:
        raise FormatError(f"{source.root} has no file that ends in {', '.join(_SUFFIXES)}")
    with needs("pyarrow", "table", "Parquet files"):
        return ParquetRecords(paths, cache_nbytes=cache_nbytes)


FORMAT = Format(
    name="parquet",
    looks_like="Parquet files (.parquet, .pq)",
    recognises=_recognises,
    open=_open,
)
