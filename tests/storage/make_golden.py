"""Writes the golden datasets: ``python -m tests.storage.make_golden DIRECTORY``.

``golden`` was made by this and must never change: it stands for the datasets that people have.
``v1`` is plain bytes, ``changes`` has columns of every type, missing values, updates, deletions and
a column that was added, ``packed`` has compression and a catalog, whose bytes are the business of
zstd and SQLite. A later format version gets golden datasets of its own beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from splitpipe.codecs import Zstd
from splitpipe.schema import ndarray
from splitpipe.storage import DatasetWriter

__all__ = [
    "CHANGES",
    "GOLDEN",
    "PACKED",
    "changed_records",
    "first_session",
    "make_changes",
    "make_golden",
    "make_packed",
    "packed_records",
    "second_session",
]

GOLDEN = Path(__file__).parent / "golden" / "v1"
CHANGES = GOLDEN.parent / "changes"
PACKED = GOLDEN.parent / "packed"
DATASET = bytes(range(16))


def first_session() -> list[bytes]:
    """140 records: one complete stripe of 2 bins, and 12 more."""
    return [(b"record %d\n" % n) * (n % 4) for n in range(140)]


def second_session() -> list[bytes]:
    """5 records for 3 bins that take turns in another order."""
    return [bytes([n]) * 10 for n in range(5)]


def make_golden(path: Path) -> None:
    """Write the dataset as this version writes it."""
    with mock.patch("secrets.token_bytes", return_value=DATASET):
        with DatasetWriter(path, bins=2) as writer:
            writer.write_many(first_session())
        with DatasetWriter(path, append=True, bins=3, dealing=[2, 0, 1]) as writer:
            writer.write_many(second_session())
    (path / "writer.lock").unlink()


def columns_of(count: int) -> list[dict[str, Any]]:
    """Records with a value of every type; every fifth of most columns is missing."""
    values: list[dict[str, Any]] = []
    for n in range(count):
        record = {
            "bytes": bytes([n]) * (n % 3),
            "text": f"\u00fc{n}",
            "json": {"n": [n, None]},
            "flag": n % 2 == 0,
            "small": n - 100,
            "half": n / 8,
            "day": np.datetime64("2020-01-01", "D") + n,
            "fixed": np.arange(n, n + 6, dtype=np.uint16).reshape(2, 3),
            "partly": np.full((n % 3, 2), n, dtype=np.float32),
            "free": np.full((2,) * (n % 3), n, dtype=np.int64),
        }
        missing = list(record)[n % len(record)] if n % 5 == 0 else None
        values.append({name: None if name == missing else v for name, v in record.items()})
    return values


def make_changes(path: Path) -> None:
    """Write the dataset of columns and changes as this version writes it."""
    schema = {
        "bytes": "bytes",
        "text": "str",
        "json": "json",
        "flag": "bool",
        "small": "int8",
        "half": "float16",
        "day": "datetime64[D]",
        "fixed": ndarray("uint16", (2, 3)),
        "partly": ndarray("float32", (None, 2)),
        "free": ndarray("int64"),
    }
    with mock.patch("secrets.token_bytes", return_value=DATASET):
        with DatasetWriter(path, schema, bins=2) as writer:
            writer.write_many(columns_of(135))
        with DatasetWriter(path, append=True) as writer:
            writer.update(3, {"text": "updated", "small": None})
            writer.update(130, {"fixed": np.ones((2, 3), dtype=np.uint16)})
            writer.delete([0, 7])
        with DatasetWriter(path, append=True, bins=1) as writer:
            writer.add_column("late", "str")
            writer.write({"text": "appended", "late": "late"})
            writer.update(3, {"text": "updated again"})
            writer.update_column("half", [0.5] * 134)
    (path / "writer.lock").unlink()


def changed_records() -> list[dict[str, Any]]:
    """What `make_changes` leaves."""
    records = columns_of(135)
    records[3] = {**records[3], "text": "updated", "small": None}
    records[130] = {**records[130], "fixed": np.ones((2, 3), dtype=np.uint16)}
    records = [record for at, record in enumerate(records) if at not in (0, 7)]
    records = [{**record, "late": None} for record in records]
    records.append({**dict.fromkeys(records[0]), "text": "appended", "late": "late"})
    records[3]["text"] = "updated again"
    return [{**record, "half": 0.5} for record in records]


def packed_records() -> list[dict[str, Any]]:
    """Texts that are worth a dictionary."""
    return [
        {"text": f"{n}: some words that come again and again" if n % 9 else None, "n": n}
        for n in range(300)
    ]


def make_packed(path: Path) -> None:
    """Write the dataset with compression and a catalog."""
    records = packed_records()
    keys = [f"key {record['n']}" for record in records]
    metas = [{"size": record["n"] % 7} for record in records]
    with (
        mock.patch("secrets.token_bytes", return_value=DATASET),
        DatasetWriter(
            path,
            {"text": "str", "n": "int64"},
            bins=2,
            metadata={"size": "int64"},
            compression=Zstd(dictionary=True),
        ) as writer,
    ):
        writer.write_many(records, keys, metas)
    (path / "writer.lock").unlink()


if __name__ == "__main__":
    make_golden(Path(sys.argv[1]) / "v1")
    make_changes(Path(sys.argv[1]) / "changes")
    make_packed(Path(sys.argv[1]) / "packed")
