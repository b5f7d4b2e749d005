"""What a writing session begins with: the dataset that is there, or an empty volume.

Responsible for: deciding whether a directory may be written to, and the columns and the manifest
of a dataset without records, also in place of another.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError, StorageError
from splitpipe.schema import BARE, Field, Schema
from splitpipe.storage import files, retire
from splitpipe.storage.committed import Column, Manifest, following
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.snapshot import read_manifest

__all__ = [
    "Opening",
    "empty_columns",
    "empty_manifest",
    "find",
    "named",
    "of_other_schema",
    "of_schema",
]


def find(directory: str, *, change: bool) -> Manifest | None:
    """The dataset that is there, if any and if it may be written to.

    Args:
        directory: where.
        change: whether the caller said that a dataset with records shall be changed.
    """
    if not files.is_there(os.path.join(directory, MANIFEST_NAME)):
        retire.refuse_foreign(directory)
        return None
    found = read_manifest(directory)
    if found.rows and not change:
        raise StorageError(
            errno.EEXIST,
            f"a dataset of {found.live_rows} records is here already: say append=True to add to "
            "it or overwrite=True to replace it",
            directory,
        )
    return found


def of_other_schema(directory: str, found: Manifest, schema: Schema | None, bins: int) -> Manifest:
    """A dataset that is there; for records of another schema, if it never had any.

    Compression is no difference: a column keeps the one it has.
    """
    if schema is None or _uncompressed(schema) == _uncompressed(found.schema):
        return found
    if found.rows or found.generation:
        raise FormatError(
            f"{directory} has records of {found.schema!r}, not of {schema!r}: leave the schema "
            "out to append, add_column adds a column"
        )
    return of_schema(found, schema, bins)


def _uncompressed(schema: Schema) -> list[tuple[str | None, Field]]:
    names = [None] if schema.bare else list(schema)
    fields = [field.compressed(None) for field in schema.values()]
    return list(zip(names, fields, strict=True))


@dataclass(frozen=True, slots=True)
class Opening:
    """How a session begins.

    Attributes:
        bins: how many bins share the records of a new segment.
        dealing: the order in which they take records.
        append: add to the dataset that is there.
        overwrite: replace it.
        compression: of each column that is compressed.
        name: what a new dataset, or the one that replaces another, is named after, so that the
            same records make the same files; ``None`` names it by chance.
        volume: of a new dataset, which counts from 1 unless others are elsewhere already.
        generation: the last commit of those.
    """

    bins: int | None = None
    dealing: Sequence[int] | None = None
    append: bool = False
    overwrite: bool = False
    compression: Mapping[str, Zstd] | None = None
    name: bytes | None = None
    volume: int = 1
    generation: int = 0


def empty_columns(schema: Schema, bins: int) -> tuple[Column, ...]:
    """The columns of a schema, without rows."""
    layout = BinLayout([Segment(0, 0, 0, bins)])
    names = [BARE] if schema.bare else list(schema)
    return tuple(
        Column(name, schema[name], number, (0,) * bins, layout) for number, name in enumerate(names)
    )


def of_schema(manifest: Manifest, schema: Schema, bins: int) -> Manifest:
    """A manifest without rows, for records of another schema."""
    columns = empty_columns(schema, bins)
    return replace(manifest, columns=columns, bare=schema.bare, next_column=len(columns))


def empty_manifest(bins: int, schema: Schema, *, replaces: Manifest | None) -> Manifest:
    """What a dataset is before its first commit, or before it replaces another volume."""
    dataset = secrets.token_bytes(16)
    columns = empty_columns(schema, bins)
    if replaces is None:
        manifest = Manifest(dataset, 0, 1, 0, columns)
    else:
        retired, stale = retire.overwritten(replaces)
        manifest = Manifest(
            dataset,
            replaces.generation,
            following(replaces.volume),
            0,
            columns,
            retired=retired,
            stale=stale,
        )
    return replace(manifest, bare=schema.bare, next_column=len(columns))


def named(manifest: Manifest, name: bytes | None) -> Manifest:
    """A manifest without rows, of a dataset that is named after something.

    Each volume has a name of its own: what was overwritten is never taken for what replaced it.
    """
    if name is None:
        return manifest
    digest = hashlib.blake2b(name + manifest.volume.to_bytes(4, "little"), digest_size=16).digest()
    return manifest if digest == manifest.dataset else replace(manifest, dataset=digest)
