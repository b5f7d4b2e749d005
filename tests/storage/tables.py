"""Datasets of columns for tests, and what must be true of any."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from splitpipe.schema import Schema, ndarray
from splitpipe.storage import check_dataset
from splitpipe.storage.table import TableRecords, open_table

__all__ = ["SCHEMA", "Record", "assert_table", "made", "same"]

Record = dict[str, Any]

SCHEMA = Schema(
    {
        "text": "str",
        "trio": ndarray("int16", (3,)),
        "n": "int64",
        "score": "float32",
        "any": ndarray("float64"),
        "more": "json",
    }
)


def made(count: int, start: int = 0) -> list[Record]:
    """Records of `SCHEMA`, each telling its number; here and there a value is missing."""
    return [
        {
            "text": None if n % 11 == 3 else f"{n}," * (n % 5),
            "trio": np.array([n, n + 1, -n], dtype=np.int16),
            "n": n,
            "score": None if n % 7 == 2 else n / 4,
            "any": np.full((n % 3,) * (n % 4), n, dtype=np.float64),
            "more": {"n": [n]} if n % 2 else [],
        }
        for n in range(start, start + count)
    ]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, in type and in everything."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and bool(left == right)


def assert_same(left: Sequence[Any], right: Sequence[Any]) -> None:
    """Two sequences of records are equal."""
    assert len(left) == len(right)
    for at, (one, other) in enumerate(zip(left, right, strict=True)):
        assert same(one, other), f"record {at}: {one!r} is not {other!r}"


class Backwards:
    """An order: from the last row to the first."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def indices(self, start: int, stop: int) -> Any:
        """See `Order.indices`."""
        return self._rows - 1 - np.arange(start, stop, dtype=np.int64)


def assert_table(path: str | os.PathLike[str], records: Sequence[Any]) -> None:
    """The dataset holds exactly these records, by every way of reading, and is intact."""
    expected = list(records)
    table = open_table(path)
    try:
        assert_reads(table, expected)
        again = pickle.loads(pickle.dumps(table))
        assert_same([again.get(row) for row in range(len(again))], expected)
        again.close()
    finally:
        table.close()
    report = check_dataset(path)
    assert report.ok, report.findings
    assert report.checked == report.rows


def assert_reads(table: TableRecords, expected: Sequence[Any]) -> None:
    """An open dataset holds exactly these records."""
    count = len(table)
    assert count == len(expected)
    assert_same([table.get(row) for row in range(count)], expected)
    assert_same(list(table.iterate_rows(0, count)), expected)
    assert_same(list(table.iterate(Backwards(count), 0, count)), expected[::-1])
    rows = np.arange(count, dtype=np.int64)[::3]
    for name, values in table.read(rows, list(table.schema)).items():
        wanted = [r if table.schema.bare else r[name] for r in expected[::3]]
        field = table.schema[name]
        if field.stackable and all(value is not None for value in wanted):
            assert isinstance(values, np.ndarray)
            assert values.dtype == field.numpy_dtype
            assert values.shape == (len(rows), *field.fixed_shape)
            assert np.array_equal(values, np.array(wanted).reshape(values.shape))
        else:
            assert isinstance(values, list)
            assert_same(values, wanted)
