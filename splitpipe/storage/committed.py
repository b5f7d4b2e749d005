"""What one commit made of a dataset, as values.

Responsible for: `Manifest`, `Column` and the small values in them, and what follows from them:
which features a reader must know, what a file is called. Their JSON form is in ``manifest``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema
from splitpipe.storage.catalog_file import CatalogId
from splitpipe.storage.format import FILE_HEADER_NBYTES, FileId
from splitpipe.storage.layout import BinLayout

__all__ = ["FEATURES", "MOST_COMMITS", "Column", "Manifest", "Sealed", "Stale", "following"]

# What a reader must know beyond the first version, in the order in which it is listed.
FEATURES: Final = ("columns", "missing", "changes", "zstd", "catalog")


# Generations and volumes have 32 bits in the headers of files.
MOST_COMMITS: Final = (1 << 32) - 1


def following(number: int) -> int:
    """The generation, or the volume, after this one.

    Raises:
        FormatError: there is none.
    """
    if number >= MOST_COMMITS:
        raise FormatError(
            f"number {number} was the last that a commit of this dataset can have: write its "
            "records into a new one"
        )
    return number + 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that is written once and read whole.

    Attributes:
        number: the generation that wrote it.
        nbytes: bytes after its header.
        crc: CRC32C of these bytes.
    """

    number: int
    nbytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Stale:
    """Files that no commit names any more, but a reader may still hold.

    Attributes:
        kind: ``index`` (with its sums), ``bins``, ``deleted``, ``dictionary`` or ``catalog``.
        volume: of the files.
        column: of the files; 0 where they belong to no column.
        number: the version; of ``bins``, how many.
    """

    kind: str
    volume: int
    column: int
    number: int


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column.

    Attributes:
        name: as the user knows it.
        field: the type of its values.
        number: its number in file names and checksums.
        bin_sizes: committed size of every bin file in bytes, 0 for a bin without a file.
        layout: which rows lie in which bin.
        version: the generation that wrote index and sums anew, 0 for the ones that only grow.
        missing: how many rows have no value.
        dead_nbytes: bytes in the bins that no row leads to any more.
        dictionary: what compressed values need for being read.
    """

    name: str
    field: Field
    number: int
    bin_sizes: tuple[int, ...]
    layout: BinLayout
    version: int = 0
    missing: int = 0
    dead_nbytes: int = 0
    dictionary: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one commit made of a dataset.

    Attributes:
        dataset: 16 random bytes, new whenever the dataset is overwritten.
        generation: counts commits, from 0 (just created, nothing written).
        volume: counts overwritings, from 1; part of every file's name.
        rows: number of rows, deleted ones included.
        columns: the stored columns, at least one.
        retired: ``(volume, column, bins)`` of overwritten files that a reader may still hold.
        bare: whether records are plain values of the one column there is.
        next_column: the lowest number that no column of this volume ever had.
        deleted: the file of deleted rows.
        catalog: the file of keys and metadata.
        stale: more files that a reader may still hold.
        note: what the writer of this commit says of it, a JSON object, for itself when it comes
            again; any other commit is without it.
    """

    dataset: bytes
    generation: int
    volume: int
    rows: int
    columns: tuple[Column, ...]
    retired: tuple[tuple[int, int, int], ...] = field(default=())
    bare: bool = True
    next_column: int = 1
    deleted: Sealed | None = None
    catalog: CatalogId | None = None
    stale: tuple[Stale, ...] = field(default=())
    note: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def schema(self) -> Schema:
        """The columns as users know them."""
        if self.bare:
            return Schema(self.columns[0].field)
        return Schema({column.name: column.field for column in self.columns})

    @property
    def plain(self) -> bool:
        """Whether it is what the first version knew: bytes that were only ever appended."""
        return not self.requires

    @property
    def requires(self) -> list[str]:
        """The features that a reader must know."""
        needed = {
            "columns": not self.bare or self.columns[0].field.kind != "bytes",
            "missing": any(column.missing for column in self.columns),
            "changes": self.deleted is not None
            or any(c.version or c.dead_nbytes for c in self.columns),
            "zstd": any(column.field.compression for column in self.columns),
            "catalog": self.catalog is not None,
        }
        return [feature for feature in FEATURES if needed[feature]]

    @property
    def live_rows(self) -> int:
        """Number of records: rows that were not deleted."""
        return self.rows - (self.deleted.nbytes // 8 if self.deleted else 0)

    @property
    def following(self) -> int:
        """Number of the next commit.

        Raises:
            FormatError: there were as many as there can be.
        """
        return following(self.generation)

    def pinned(self, generation: int) -> Manifest:
        """The same files, as an earlier commit that a reader holds on to."""
        return replace(self, generation=generation)

    def file_id(self, kind: str, column: Column, number: int = 0) -> FileId:
        """Identity of one of the dataset's files."""
        if kind in ("index", "sums"):
            number = column.version
        return FileId(kind, self.dataset, self.volume, column.number, number)

    def files(self, column: Column) -> Iterator[tuple[FileId, int]]:
        """A column's index, sums and bins, and what is committed of each: 0 without a file."""
        yield self.file_id("index", column), self.index_size(column)
        yield self.file_id("sums", column), self.sums_size(column)
        for number, size in enumerate(column.bin_sizes):
            yield self.file_id("bin", column, number), size

    def deleted_id(self, number: int) -> FileId:
        """Identity of a file of deleted rows."""
        return FileId("deleted", self.dataset, self.volume, 0, number)

    def index_size(self, column: Column) -> int:
        """Committed size of a column's index file in bytes."""
        return FILE_HEADER_NBYTES + column.layout.index_nbytes()

    def sums_size(self, column: Column) -> int:
        """Committed size of a column's sums file in bytes."""
        return FILE_HEADER_NBYTES + column.layout.sums_nbytes()
