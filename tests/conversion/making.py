"""What the tests of conversions share: a source with every kind of column, and exact equality."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp
from splitpipe.conversion import target

PNG = b"\x89PNG\r\n\x1a\n and the rest of it"
METADATA = {"lang": "str", "n": "int64"}


def every_kind() -> sp.Schema:
    return sp.Schema(
        {
            "raw": "bytes",
            "text": "str",
            "info": "json",
            "flag": "bool",
            "small": "uint8",
            "x": "float64",
            "z": "complex128",
            "when": "datetime64[ms]",
            "fixed": sp.ndarray("float32", (2, 3)),
            "pairs": sp.ndarray("int16", (None, 2)),
            "free": sp.ndarray("uint16"),
            "picture": sp.image(),
        }
    )


def record(n: int) -> dict[str, Any]:
    """A record with NaN, -0.0, empty arrays, tuples and missing values here and there."""
    value: dict[str, Any] = {
        "raw": bytes([n % 256]) * (n % 40),
        "text": f"größer {n} " * (n % 4),
        "info": {"tags": (n, None, -0.0), "deep": [{"x": 1.0, "y": 1, "z": True}, float("nan")]},
        "flag": n % 2 == 0,
        "small": n % 256,
        "x": (float("nan"), -0.0, 0.0, n / 7)[n % 4],
        "z": complex(n, -0.0),
        "when": np.datetime64(n * 1000, "ms"),
        "fixed": np.full((2, 3), (-0.0, np.nan, n)[n % 3], np.float32),
        "pairs": np.arange(2 * (n % 3), dtype=np.int16).reshape(-1, 2),
        "free": np.zeros((0, n % 3), np.uint16) if n % 2 else np.full((1, 2, n % 3), n, np.uint16),
        "picture": PNG + bytes([n % 256]),
    }
    names = list(value)
    if n % 5 == 0:
        value[names[n // 5 % len(names)]] = None
    return value


def write_every_kind(path: Path, count: int, **options: Any) -> Path:
    """A dataset of all kinds of columns, with keys, metadata and declared metadata."""
    with sp.DatasetWriter(path, every_kind(), bins=3, metadata=METADATA, **options) as writer:
        for n in range(count):
            key = None if n % 7 == 3 else f"key {n}"
            meta = None if n % 6 == 1 else {"lang": "en", "n": n, "more": [1.0, n]}
            writer.write(record(n), key=key, meta=meta)
    return path


def told(path: Any, **options: Any) -> list[str]:
    """Every bit of every record, with key and metadata, as text."""
    with sp.open_dataset(path, **options) as dataset:
        return told_of(dataset)


def told_of(dataset: sp.Dataset) -> list[str]:
    records = [_text(record) for record in dataset]
    if dataset.records.catalog is not None:
        keys, metas = dataset.keys(), dataset.metas()
        records = [
            f"{key!r} {json.dumps(meta)} {record}"
            for key, meta, record in zip(keys, metas, records, strict=True)
        ]
    return records


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(one)}" for name, one in value.items()) + "}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, list | tuple):
        return json.dumps(value)
    return repr(value)


def small_commits(monkeypatch: Any, nbytes: int = 1) -> None:
    """Commit after every block, and make blocks small."""
    monkeypatch.setattr(target, "COMMIT_NBYTES", nbytes)
    monkeypatch.setattr("splitpipe.conversion.blocks.BLOCK_NBYTES", 250)


def unpickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
