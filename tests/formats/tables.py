"""One table with a column of every Arrow type, for the tests of Parquet and Arrow files."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa

ROWS = 60
DAY = datetime.datetime(2024, 2, 29, 12, 30)


def _maybe(n: int, value: Any) -> Any:
    return None if n % 7 == 3 else value


COLUMNS: dict[str, Any] = {
    "int32": pa.array(range(ROWS), pa.int32()),
    "some": pa.array([_maybe(n, n) for n in range(ROWS)], pa.int64()),
    "flag": pa.array([n % 2 == 0 for n in range(ROWS)]),
    "half": pa.array(np.arange(ROWS, dtype=np.float16)),
    "text": [_maybe(n, "é" * (n % 5)) for n in range(ROWS)],
    "large_text": pa.array([str(n) for n in range(ROWS)], pa.large_string()),
    "raw": [bytes([n]) * (n % 4) for n in range(ROWS)],
    "digest": pa.array([bytes([n] * 4) for n in range(ROWS)], pa.binary(4)),
    "point": pa.array([[n, n + 0.5, -n] for n in range(ROWS)], pa.list_(pa.float32(), 3)),
    "grid": pa.array(
        [_maybe(n, [[n, 1], [2, n]]) for n in range(ROWS)], pa.list_(pa.list_(pa.int16(), 2), 2)
    ),
    "tokens": pa.array([_maybe(n, list(range(n % 6))) for n in range(ROWS)], pa.list_(pa.uint16())),
    "words": [["a"] * (n % 3) for n in range(ROWS)],
    "ragged": [[[n], []] for n in range(ROWS)],
    "info": [{"n": n, "tags": [str(n)]} for n in range(ROWS)],
    "pairs": pa.array([[("k", n)] for n in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    "moment": pa.array([DAY] * ROWS, pa.timestamp("us")),
    "day": [DAY.date()] * ROWS,
    "price": [decimal.Decimal("1.50")] * ROWS,
    "took": pa.array(range(ROWS), pa.duration("ms")),
    "nothing": pa.nulls(ROWS),
    "a.b c": list(range(ROWS)),
}


def table(*without: str) -> pa.Table:
    """The table, without some of its columns."""
    return pa.table({name: values for name, values in COLUMNS.items() if name not in without})


def expected(*without: str) -> list[dict[str, Any]]:
    """Its rows as records."""
    rows = table(*without).to_pylist()
    for n, row in enumerate(rows):
        row["point"] = np.array(row["point"], np.float32)
        row["grid"] = None if row["grid"] is None else np.array(row["grid"], np.int16)
        row["tokens"] = None if row["tokens"] is None else np.array(row["tokens"], np.uint16)
        row["half"] = float(row["half"])
        row["pairs"] = [["k", n]]
        row["moment"] = "2024-02-29 12:30:00.000000"
        row["day"], row["price"], row["took"] = "2024-02-29", "1.50", n
        row["a_b_c"] = row.pop("a.b c")
    return rows
