"""What lies at the location of a column set.

Responsible for: `Found`, what is known of a set; `examine`, which looks at a location and, of files
that are new or changed there, counts rows and compares columns.

Rules:
- of files that were known before and did not change nothing is read;
- a file that cannot be read, or has other columns than the first one, is an error that names it;
- bins say themselves what they are: one manifest is read.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from splitpipe.errors import FormatError
from splitpipe.formats import recognise
from splitpipe.schema import Schema
from splitpipe.server.catalog.columns import header_of, inferred
from splitpipe.server.catalog.listing import (
    FORMATS,
    Changes,
    FileEntry,
    compare,
    list_files,
    root_of,
)
from splitpipe.server.catalog.locations import Locations, Place
from splitpipe.server.catalog.parts import Reading, local_path, open_file
from splitpipe.storage import files
from splitpipe.storage.committed import Manifest
from splitpipe.storage.manifest import encode
from splitpipe.storage.snapshot import read_manifest
from splitpipe.stores import open_store, told_url

__all__ = [
    "Found",
    "Wanted",
    "examine",
    "found_from",
    "found_to_json",
    "manifest_of",
    "takes_long",
]

Progress = Callable[[int, int], None]

_LOOKED_NBYTES: Final = 32 << 20
_FEW_FILES: Final = 32
_FEW_NBYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column set to be looked at.

    Attributes:
        name: of it.
        location: as it was said.
        format: one of `FORMATS`.
        declared: the columns that were said, or found before; ``None``: they are inferred.
        locations: what may be read.
        indices: the folder of indices.
    """

    name: str
    location: str
    format: str
    declared: Schema | None
    locations: Locations
    indices: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a column set.

    Attributes:
        schema: its columns.
        place: where it lies: a path without links, or a url.
        remote: whether that is a url.
        entries: its files; of bins none.
        rows: how many.
        generation: stands for all of that: another one means other rows.
        manifest: of bins, in base64.
        changes: since it was looked at last.
    """

    schema: Schema
    place: str
    remote: bool
    entries: tuple[FileEntry, ...]
    rows: int
    generation: str
    manifest: str | None = None
    changes: Changes | None = field(default=None, compare=False)


def found_to_json(found: Found) -> dict[str, Any]:
    """What was found, for another process."""
    changes = found.changes
    return {
        "schema": found.schema.to_json(),
        "place": found.place,
        "remote": found.remote,
        "entries": [entry.to_json() for entry in found.entries],
        "rows": found.rows,
        "generation": found.generation,
        "manifest": found.manifest,
        "changes": None
        if changes is None
        else [list(changes.new), list(changes.changed), list(changes.removed)],
    }


def found_from(document: Mapping[str, Any]) -> Found:
    """What `found_to_json` made."""
    entries = tuple(FileEntry.from_json(entry) for entry in document["entries"])
    changes = document["changes"]
    return Found(
        schema=Schema.from_json(document["schema"]),
        place=document["place"],
        remote=document["remote"],
        entries=entries,
        rows=document["rows"],
        generation=document["generation"],
        manifest=document["manifest"],
        changes=None if changes is None else Changes(entries, *map(tuple, changes)),
    )


def takes_long(wanted: Wanted) -> bool:
    """Whether looking at a column set is more than what a request may be held up by.

    Rows of text are counted by reading them; of bins and Parquet only the ends of files are read.

    Raises:
        NotAllowed, FormatError, StorageError: as `examine`.
    """
    if wanted.format not in FORMATS or wanted.format == "bins":
        return False
    entries = list_files(wanted.locations.place(wanted.location), wanted.format, wanted.locations)
    nbytes = 0 if wanted.format == "parquet" else sum(entry.size for entry in entries)
    return len(entries) > _FEW_FILES or nbytes > _FEW_NBYTES


def examine(
    wanted: Wanted, known: Sequence[FileEntry] = (), progress: Progress | None = None
) -> Found:
    """Look at a column set.

    Args:
        wanted: which.
        known: its files as they were.
        progress: told how many files of how many were looked at.

    Raises:
        NotAllowed: it lies where this server may not look.
        FormatError: a file is damaged, or does not fit.
        StorageError: it is not there, or cannot be read.
    """
    if wanted.format not in FORMATS:
        raise FormatError(
            f"there is no format {wanted.format!r} of column sets: say one of {', '.join(FORMATS)}"
        )
    place = wanted.locations.place(wanted.location)
    if wanted.format == "bins":
        return _bins(wanted, place)
    entries = list_files(place, wanted.format, wanted.locations)
    changes = compare(known, entries)
    reading = _reading(wanted, place, changes.entries)
    counted: list[FileEntry] = []
    for number, entry in enumerate(changes.entries):
        if entry.rows is None:
            entry = replace(entry, rows=_count(reading, entry, exact=wanted.declared is None))
        counted.append(entry)
        if progress is not None:
            progress(number + 1, len(changes.entries))
    return Found(
        schema=reading.schema,
        place=reading.place,
        remote=place.remote,
        entries=tuple(counted),
        rows=sum(entry.rows or 0 for entry in counted),
        generation=_generation(reading.schema, counted),
        changes=changes,
    )


def _reading(wanted: Wanted, place: Place, entries: Sequence[FileEntry]) -> Reading:
    """How the files are read; looks at the first one for their columns."""
    reading = Reading(
        wanted.name,
        wanted.format,
        root_of(place),
        place.remote,
        wanted.declared or Schema("bytes"),
        wanted.locations,
        wanted.indices,
    )
    if wanted.declared is not None:
        return reading
    first = next((entry for entry in entries if entry.size), entries[0])
    path = local_path(reading, first)
    if wanted.format != "parquet":
        return replace(reading, schema=inferred(path, wanted.format))
    return replace(reading, schema=_schema_of_parquet(path))


def _schema_of_parquet(path: str) -> Schema:
    records = recognise([path], format="parquet", workers=1)
    try:
        return records.schema
    finally:
        records.close()


def _count(reading: Reading, entry: FileEntry, *, exact: bool) -> int:
    """How many rows a file has; refuses one that does not fit.

    Args:
        reading: how it is read.
        entry: the file.
        exact: whether it may have no further columns: nobody said that they are not wanted.
    """
    if not entry.size:
        return 0
    records = open_file(reading, entry, decoded_nbytes=_LOOKED_NBYTES)
    try:
        names: Iterable[str] = records.schema
        if reading.format == "csv":
            names = header_of(local_path(reading, entry))[0]
        further = [name for name in names if name not in reading.schema]
        if exact and further:
            raise FormatError(
                f"{told_url(reading.path_of(entry))} of column set {reading.name!r} has a column "
                f"{further[0]!r}, which the first file has not: declare the columns that are wanted"
            )
        return len(records)
    finally:
        records.close()


def _generation(schema: Schema, entries: Sequence[FileEntry]) -> str:
    told = repr((schema.to_json(), [entry.to_json() for entry in entries]))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


# --- bins ----------------------------------------------------------------------------------------


def _bins(wanted: Wanted, place: Place) -> Found:
    if place.pattern and not os.path.isdir(place.path):
        raise FormatError(f"{told_url(place.path)}: a column set of bins is one folder, no pattern")
    manifest = manifest_of(place, wanted.locations)
    schema = _without_pickled(manifest.schema, place)
    if wanted.declared is not None:
        for name, said in wanted.declared.items():
            if name not in schema or replace(schema[name], compression=None) != replace(
                said, compression=None
            ):
                there = schema[name].description if name in schema else "not there"
                raise FormatError(
                    f"column {name!r} of column set {wanted.name!r} was declared as "
                    f"{said.description}; in {told_url(place.path)} it is {there}"
                )
        schema = Schema({name: schema[name] for name in wanted.declared})
    return Found(
        schema=schema,
        place=place.path,
        remote=place.remote,
        entries=(),
        rows=manifest.live_rows,
        generation=f"{manifest.dataset.hex()}-{manifest.generation}",
        manifest=base64.b64encode(encode(manifest)).decode("ascii"),
    )


def _without_pickled(schema: Schema, place: Place) -> Schema:
    """The columns whose values run nothing when they are read; plain values get a column."""
    fields = {name: field for name, field in schema.items() if field.kind != "pickle"}
    if not fields:
        raise FormatError(
            f"{told_url(place.path)} has nothing but pickled values, which a server does not read"
        )
    return Schema(fields)


def manifest_of(place: Place, locations: Locations) -> Manifest:
    """The last commit of bins.

    Raises:
        NotAllowed: a file there is a link to where nobody may look.
        FormatError, StorageError: there are none.
    """
    if not place.remote:
        _check_links(place.path, locations)
        return read_manifest(place.path)
    from splitpipe.remote.versions import read_manifest as read_remote

    store = open_store(place.path, storage_options=locations.options_for(place.path))
    try:
        return read_remote(store)
    finally:
        store.close()


def _check_links(folder: str, locations: Locations) -> None:
    """Refuse files of bins that are links to where nobody may look."""
    with files.translated("list the folder", folder), os.scandir(folder) as found:
        for entry in found:
            if entry.is_symlink():
                locations.inside(entry.path)
            elif not (entry.is_dir() or stat.S_ISREG(entry.stat().st_mode)):
                raise FormatError(f"{entry.path} is no file of bins: it is a pipe or a device")
