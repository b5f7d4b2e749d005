"""Adding a column set, in steps, so that looking at its files may be done elsewhere.

Responsible for: `wanted`, what has to be looked at; `same_set`, whether it is there already; and
`added`, which makes it part of its dataset.

Rules:
- said again, all of it gives the set that is there, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splitpipe.errors import Conflict
from splitpipe.server.catalog.examine import Found, Wanted
from splitpipe.server.catalog.rows import (
    check_absent,
    check_name,
    check_uid,
    dataset_row,
    declared_columns,
    is_same_set,
    set_rows,
    stored,
    told_set,
)

if TYPE_CHECKING:
    from splitpipe.server.catalog.datasets import Datasets

__all__ = ["added", "same_set", "wanted"]

Json = dict[str, Any]


def wanted(
    catalog: Datasets, dataset: str, name: str, *, location: str, format: str, columns: Any = None
) -> Wanted:
    """What `examine` needs to look at a column set that is to be added.

    Raises:
        NotFound: there is no such dataset.
        Conflict: it has another set of this name.
        InvalidRequest: a name or a type cannot be.
    """
    check_name(name, "column set")
    declared = None if columns is None else declared_columns(columns)
    made = Wanted(name, location, format, declared, catalog.locations, catalog.indices)
    if same_set(catalog, dataset, made) is None:
        row, sets = _rows(catalog, dataset)
        check_absent(sets, name, row["name"])
    return made


def same_set(catalog: Datasets, dataset: str, wanted: Wanted) -> Json | None:
    """The column set that was added like this already, if one was."""
    _, sets = _rows(catalog, dataset)
    for one in sets:
        same = is_same_set(one, wanted.location, wanted.format, wanted.declared)
        if one["name"] == wanted.name and same:
            return told_set(one)
    return None


def added(catalog: Datasets, dataset: str, wanted: Wanted, found: Found) -> Json:
    """Make a column set that was looked at part of its dataset.

    Raises:
        FormatError: it does not fit the others.
        Conflict: there is another set of this name.
    """
    row, _ = _rows(catalog, dataset)
    check_uid(row, wanted.name, found.schema)
    values = {**stored(found, declared=wanted.declared), "status": "ready", "error": None}
    try:
        return catalog.insert_set(row["id"], wanted.name, wanted.location, wanted.format, values)
    except Conflict:
        there = same_set(catalog, dataset, wanted)
        if there is None:
            raise
        return there


def _rows(catalog: Datasets, dataset: str) -> tuple[Json, list[Json]]:
    with catalog.database.read() as connection:
        row = dataset_row(connection, dataset)
        return row, set_rows(connection, row["id"])
