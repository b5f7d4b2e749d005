"""Rows of the database as what is told, and the checks before one is written.

Responsible for: finding datasets and column sets in a transaction; their JSON form for people and
programs; and what may not be: names, clashes of columns, a uid that is not there.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from splitpipe.errors import Conflict, FormatError, InvalidRequest, NotFound
from splitpipe.schema import Schema, checked_name
from splitpipe.server.catalog.columns import columns_of, schema_from
from splitpipe.server.catalog.examine import Found
from splitpipe.server.catalog.listing import FileEntry
from splitpipe.server.state.tables import column_sets, datasets
from splitpipe.stores import told_url

__all__ = [
    "ID",
    "all_told",
    "check_absent",
    "check_clashes",
    "check_name",
    "check_uid",
    "checked_uid",
    "dataset_row",
    "declared_columns",
    "entries_of",
    "is_same_set",
    "pinned_dataset",
    "set_row",
    "set_rows",
    "stored",
    "told",
    "told_set",
]

Json = dict[str, Any]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
ID: Final = re.compile(r"[0-9a-f]{16}")

# --- reading -------------------------------------------------------------------------------------


def dataset_row(connection: Connection, dataset: str) -> Json:
    """A dataset by its name or id.

    Raises:
        NotFound: there is none.
    """
    for column in (datasets.c.name, datasets.c.id):
        found = connection.execute(sa.select(datasets).where(column == dataset)).mappings().first()
        if found is not None:
            return dict(found)
    raise NotFound(f"there is no dataset {dataset!r:.200}")


def set_rows(connection: Connection, dataset_id: str) -> list[Json]:
    """The column sets of a dataset, the main one first."""
    wanted = (
        sa.select(column_sets)
        .where(column_sets.c.dataset_id == dataset_id)
        .order_by(column_sets.c.position)
    )
    return [dict(row) for row in connection.execute(wanted).mappings()]


def set_row(connection: Connection, column_set_id: str) -> Json:
    """A column set by its id.

    Raises:
        NotFound: there is none.
    """
    wanted = sa.select(column_sets).where(column_sets.c.id == column_set_id)
    found = connection.execute(wanted).mappings().first()
    if found is None:
        raise NotFound("the column set was removed meanwhile")
    return dict(found)


# --- telling -------------------------------------------------------------------------------------


def told(row: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> Json:
    """A dataset as JSON; its columns are those of all sets, the uid once."""
    columns: dict[str, Json] = {}
    for one in sets:
        for column in one["columns"] or ():
            columns.setdefault(column["name"], {**column, "column_set": one["name"]})
    return {
        "id": row["id"],
        "name": row["name"],
        "uid_column": row["uid_column"],
        "join": row["join_rule"],
        "created_at": row["created_at"],
        "rows": sets[0]["rows"] if sets else None,
        "columns": list(columns.values()),
        "column_sets": [told_set(one) for one in sets],
    }


def all_told(connection: Connection) -> list[Json]:
    """All datasets by name, with their column sets."""
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    wanted = sa.select(column_sets).order_by(column_sets.c.position)
    for one in connection.execute(wanted).mappings():
        by_dataset.setdefault(one["dataset_id"], []).append(dict(one))
    found = connection.execute(sa.select(datasets).order_by(datasets.c.name)).mappings()
    return [told(dict(row), by_dataset.get(row["id"], [])) for row in found]


def told_set(one: Mapping[str, Any]) -> Json:
    """A column set as JSON."""
    kept = one["files"] or {}
    return {
        "id": one["id"],
        "name": one["name"],
        "location": told_url(one["location"]),
        "format": one["format"],
        "columns": one["columns"] or [],
        "rows": one["rows"],
        "files": kept.get("count", 0),
        "nbytes": kept.get("nbytes"),
        "generation": one["generation"],
        "status": one["status"],
        "error": one["error"],
        "uploaded": bool(kept.get("uploaded")),
        "created_at": one["created_at"],
    }


def pinned_dataset(row: Mapping[str, Any]) -> Json:
    """A dataset as a snapshot has it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "uid_column": row["uid_column"],
        "join": row["join_rule"],
    }


def stored(found: Found, *, declared: Schema | None, uploaded: bool = False) -> Json:
    """What is stored of a column set that was looked at."""
    return {
        "columns": columns_of(found.schema),
        "files": {
            "packed": _packed(found.entries),
            "count": len(found.entries),
            "nbytes": sum(entry.size for entry in found.entries) if found.entries else None,
            "place": found.place,
            "declared": None if declared is None else columns_of(declared),
            "uploaded": uploaded,
        },
        "rows": found.rows,
        "generation": found.generation,
    }


def _packed(entries: Sequence[FileEntry]) -> str:
    """A list of files as one short text, which costs nothing where nobody asks what is in it."""
    text = json.dumps([entry.to_json() for entry in entries])
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"))).decode("ascii")


def entries_of(one: Mapping[str, Any]) -> list[FileEntry]:
    """The files of a column set, as the last sync saw them."""
    packed = (one["files"] or {}).get("packed")
    if packed is None:
        return []
    text = zlib.decompress(base64.b64decode(packed)).decode("utf-8", "surrogatepass")
    return [FileEntry.from_json(entry) for entry in json.loads(text)]


# --- checking ------------------------------------------------------------------------------------


def check_name(name: str, what: str) -> None:
    """Refuse a name that cannot be one of a file, too.

    Raises:
        InvalidRequest: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r:.200} is no name of a {what}: use letters, digits, '_', '-' and '.', at most "
            "100, none of the last two at the beginning"
        )


def declared_columns(columns: Any) -> Schema:
    """Columns as somebody declared them.

    Raises:
        InvalidRequest: they mean nothing, or values of theirs would be run when they are read.
    """
    try:
        schema = schema_from(columns)
    except FormatError as error:
        raise InvalidRequest(str(error)) from error
    for name, field in schema.items():
        if field.kind == "pickle":
            raise InvalidRequest(f"column {name!r}: a server reads and writes no pickled values")
    return schema


def checked_uid(name: str) -> str:
    """A name that a uid column may have.

    Raises:
        InvalidRequest: it is none of a column.
    """
    try:
        return checked_name(name)
    except FormatError as error:
        raise InvalidRequest(str(error)) from error


def check_absent(sets: Sequence[Mapping[str, Any]], name: str, dataset: str) -> None:
    """Raise `Conflict` if there is a column set of this name."""
    if any(one["name"] == name for one in sets):
        raise Conflict(
            f"dataset {dataset!r} has a column set {name!r} already: choose another name, or "
            "remove that one"
        )


def is_same_set(
    one: Mapping[str, Any], location: str, format: str, declared: Schema | None
) -> bool:
    """Whether a column set is the one that would be added like this."""
    said = None if declared is None else columns_of(declared)
    kept = one["files"] or {}
    there = (one["location"], one["format"], kept.get("declared"))
    return there == (location, format, said) and not kept.get("uploaded")


def check_uid(row: Mapping[str, Any], name: str, schema: Schema) -> None:
    """Raise ``FormatError`` if a set lacks the column by which its dataset is joined."""
    uid = row["uid_column"]
    if uid is not None and uid not in schema:
        raise FormatError(
            f"column set {name!r} has no column {uid!r}, by which dataset {row['name']!r} is "
            f"joined; its columns: {', '.join(schema)}"
        )


def check_clashes(
    row: Mapping[str, Any],
    name: str,
    columns: Sequence[Mapping[str, Any]],
    sets: Sequence[Mapping[str, Any]],
) -> None:
    """Raise ``FormatError`` if another set has a column of the same name, apart from the uid."""
    taken = {column["name"]: one["name"] for one in sets for column in one["columns"] or ()}
    for column in columns:
        other = taken.get(column["name"])
        if other is not None and column["name"] != row["uid_column"]:
            raise FormatError(
                f"column {column['name']!r} of column set {name!r} is in column set {other!r} of "
                f"dataset {row['name']!r}, too: declare the columns that are wanted, without it"
            )
