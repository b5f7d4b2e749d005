"""What a catalog file is: its name, its identity in the manifest, its one table.

Responsible for: `CatalogId`, and every name and type that the writer and the reader of a catalog
must agree on.

A catalog is one SQLite file a commit, never changed once the commit names it. Its table:

    records(row INTEGER PRIMARY KEY, key TEXT, meta TEXT, <metadata>..., <columns>...)

``row`` is the record's physical row; ``key`` is unique where it is given; ``meta`` is the whole
metadata dict as JSON; every declared metadata name is a typed, indexed column; and every column of
the dataset is 1 where a record has a value and NULL where it is missing.

Rules:
- a name goes into SQL only after it was checked to be an identifier;
- SQLite does not tell ``Text`` from ``text``: names that differ in nothing else are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import google_crc32c

from splitpipe.errors import FormatError
from splitpipe.schema import checked_name
from splitpipe.storage import files

__all__ = [
    "KEY_INDEX",
    "METADATA_TYPES",
    "OWN_NAMES",
    "CatalogId",
    "catalog_name",
    "check_names",
    "checksum_of",
    "work_name",
]

# What a declared metadata name may be, and the type of its column.
METADATA_TYPES: Final = {
    "int64": "INTEGER",
    "float64": "REAL",
    "str": "TEXT",
    "bool": "INTEGER",
    "json": "TEXT",
}
OWN_NAMES: Final = ("row", "key", "meta")
KEY_INDEX: Final = "records_key"

_CHUNK_NBYTES: Final = 4 << 20
# SQLite's own limit of columns in a table, as it is built everywhere.
_MOST_COLUMNS: Final = 2000


@dataclass(frozen=True, slots=True)
class CatalogId:
    """Which catalog belongs to a commit.

    Attributes:
        number: part of the file's name; grows with every catalog of a volume.
        size: the file's size in bytes.
        crc: CRC32C of the whole file.
        metadata: the declared metadata: name -> type.

    Example:
        >>> identity = CatalogId(5, 4096, 1, {"length": "int64"})
        >>> CatalogId.from_json(identity.to_json()) == identity
        True
    """

    number: int
    size: int
    crc: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.number, self.size, self.crc))

    def to_json(self) -> dict[str, Any]:
        """As a member of the manifest."""
        return {
            "number": self.number,
            "size": self.size,
            "crc": f"{self.crc:08x}",
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, entry: Any) -> CatalogId:
        """From a member of a manifest.

        Raises:
            ValueError: it is not what `to_json` makes. (Also TypeError and KeyError.)
        """
        number, size, crc = entry["number"], entry["size"], entry["crc"]
        metadata = entry["metadata"]
        if any(type(value) is not int or not 0 <= value < 1 << 63 for value in (number, size)):
            raise ValueError("a catalog's number and size must be integers from 0")
        if type(crc) is not str or not re.fullmatch("[0-9a-f]{8}", crc):
            raise ValueError("a catalog's crc must be 8 hexadecimal digits")
        if type(metadata) is not dict:
            raise ValueError("a catalog's metadata must be an object of names and types")
        check_names(metadata, ())
        return cls(number, size, int(crc, 16), metadata)


def catalog_name(volume: int, number: int) -> str:
    """Name of a catalog inside its dataset's directory.

    Example:
        >>> catalog_name(1, 5)
        'v0001-catalog-00005.sqlite'
    """
    return f"v{volume:04d}-catalog-{number:05d}.sqlite"


def work_name(volume: int) -> str:
    """Name of the file that a writing session works on; the next session removes it.

    Example:
        >>> work_name(1)
        'v0001-catalog.work'
    """
    return f"v{volume:04d}-catalog.work"


def check_names(metadata: Mapping[str, str], columns: Iterable[str]) -> None:
    """Raise ``FormatError`` unless these can all be columns of one table."""
    taken = {name: f"the catalog's own {name!r}" for name in OWN_NAMES}
    for name, kind in metadata.items():
        if kind not in METADATA_TYPES:
            raise FormatError(
                f"metadata {name!r} cannot be declared as {kind!r}: it is one of "
                f"{', '.join(METADATA_TYPES)}"
            )
    for names, what in ((metadata, "metadata"), (columns, "column")):
        for name in names:
            checked_name(name)
            other = taken.setdefault(name.lower(), f"{what} {name!r}")
            if other != f"{what} {name!r}":
                raise FormatError(
                    f"{what} {name!r} has the name of {other} (SQL does not tell capitals from "
                    "small letters): rename one of them, to ask for both with where()"
                )
    if len(taken) > _MOST_COLUMNS:
        raise FormatError(
            f"{len(taken)} columns and metadata names are more than the {_MOST_COLUMNS} that a "
            "catalog can hold: leave metadata undeclared, json_extract reaches it too"
        )


def checksum_of(descriptor: int, size: int, path: str) -> int:
    """CRC32C of the first ``size`` bytes of a file."""
    crc = 0
    for start in range(0, size, _CHUNK_NBYTES):
        data = files.read_at(descriptor, min(_CHUNK_NBYTES, size - start), start, path)
        crc = google_crc32c.extend(crc, data)
    return crc
