"""The version of the database's schema, and the way from one to the next.

Responsible for: making the tables of a new database, bringing those of an older version up to date,
refusing what is newer or somebody else's.

Rules:
- everything happens in the one transaction that is given: a step that fails leaves nothing;
- a step says what changes in SQL, once, and is never edited after it was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, inspect, select, update

from splitpipe.errors import FormatError, UnsupportedVersion
from splitpipe.server.state.tables import SCHEMA_VERSION, meta, metadata

__all__ = ["bring_up_to_date"]

_VERSION = "schema_version"
_LOCK = 0x73706C6974706970  # the name of PostgreSQL's advisory lock: "splitpip"

_STEPS: Mapping[int, Callable[[Connection], None]] = {}
"""By the version that it begins with: what makes the next one of it."""


def bring_up_to_date(connection: Connection, *, name: str) -> None:
    """Make the tables, or see that those which are there are ours and of this version.

    Args:
        connection: a transaction that may write.
        name: what an error calls the database.

    Raises:
        UnsupportedVersion: a newer splitpipe made it.
        FormatError: the tables are somebody else's.
    """
    if connection.dialect.name == "postgresql":
        # Two servers that begin at once would both find no tables.
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_LOCK})")
    there = set(inspect(connection).get_table_names())
    if not there & {table.name for table in metadata.tables.values()}:
        metadata.create_all(connection)
        connection.execute(meta.insert().values(key=_VERSION, value=str(SCHEMA_VERSION)))
        return
    found = _version(connection, there, name=name)
    if found > SCHEMA_VERSION:
        raise UnsupportedVersion(
            f"{name} has version {found} of the schema, and this splitpipe knows only "
            f"{SCHEMA_VERSION}. Start the newer splitpipe that made it, or choose another database"
        )
    for version in range(found, SCHEMA_VERSION):
        _STEPS[version](connection)
    if found < SCHEMA_VERSION:
        values = {"value": str(SCHEMA_VERSION)}
        connection.execute(update(meta).where(meta.c.key == _VERSION).values(values))


def _version(connection: Connection, there: set[str], *, name: str) -> int:
    text = None
    if meta.name in there:
        columns = {column["name"] for column in inspect(connection).get_columns(meta.name)}
        if columns >= {"key", "value"}:
            text = connection.scalar(select(meta.c.value).where(meta.c.key == _VERSION))
    if text is None or not str(text).isdigit():
        raise FormatError(
            f"{name} has tables of ours by name, and no version: it belongs to another program. "
            "Choose another database"
        )
    return int(text)
