"""The tables of the server's database.

Responsible for: names, types and keys. Nothing here opens anything.

Rules:
- ids are sixteen hexadecimal digits from the system's random source;
- times are seconds since 1970, UTC;
- what only its own room understands is one JSON column, never pickled;
- a change of this file is a change of `SCHEMA_VERSION`, with a step in `versions.py`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "SCHEMA_VERSION",
    "checkpoints",
    "column_sets",
    "cursors",
    "datasets",
    "iterations",
    "meta",
    "metadata",
    "statistics",
    "tasks",
    "tokens",
    "uploads",
]

SCHEMA_VERSION = 1
"""Raised with every change of a table."""

ID_LENGTH = 16
NAME_LENGTH = 200

metadata = MetaData()
_JSON = JSON(none_as_null=True)


def _id() -> Column[str]:
    return Column("id", String(ID_LENGTH), primary_key=True)


def _belongs_to(table: str, *, primary_key: bool = False) -> Column[str]:
    """The id of a row of another table, with which this row goes."""
    return Column(
        f"{table.removesuffix('s')}_id",
        String(ID_LENGTH),
        ForeignKey(f"{table}.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


meta = Table(
    "meta",
    metadata,
    Column("key", String(NAME_LENGTH), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts of the database itself: ``schema_version``."""

datasets = Table(
    "datasets",
    metadata,
    _id(),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("uid_column", Text),
    Column("join_rule", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
)

column_sets = Table(
    "column_sets",
    metadata,
    _id(),
    _belongs_to("datasets"),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("location", Text, nullable=False),
    Column("format", String(16), nullable=False),
    Column("position", Integer, nullable=False),
    Column("columns", _JSON),
    Column("files", _JSON),
    Column("rows", BigInteger),
    Column("generation", Text),
    Column("status", String(16), nullable=False),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("dataset_id", "name"),
)
"""``position`` orders the column sets of a dataset; ``generation`` names the state of its files."""

uploads = Table(
    "uploads",
    metadata,
    _id(),
    _belongs_to("column_sets"),
    Column("next_sequence", BigInteger, nullable=False),
    Column("state", _JSON),
)

statistics = Table(
    "statistics",
    metadata,
    _belongs_to("datasets", primary_key=True),
    Column("generation", String(NAME_LENGTH), primary_key=True),
    Column("result", _JSON),
)

iterations = Table(
    "iterations",
    metadata,
    _id(),
    Column("name", String(NAME_LENGTH), unique=True),
    Column("dataset", String(NAME_LENGTH), nullable=False),
    Column("spec", _JSON, nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("snapshot", _JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("total", BigInteger),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
"""``name`` is the id that a client chose; ``dataset`` outlives the dataset's own row."""

cursors = Table(
    "cursors",
    metadata,
    _belongs_to("iterations", primary_key=True),
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("state", _JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
)
"""The journal of the feed: one row for each position that is followed."""

checkpoints = Table(
    "checkpoints",
    metadata,
    _belongs_to("iterations", primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("state", _JSON),
)

tasks = Table(
    "tasks",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    Column("params", _JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("progress", _JSON),
    Column("result", _JSON),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index("tasks_by_time", "created_at"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("role", String(16), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
)
"""``hash`` is the SHA-256 of the token in hexadecimal digits; the token itself is nowhere."""
