"""Datasets as Arrow tables: every type, what is missing, streams, and what Arrow cannot have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema, ndarray
from splitpipe.storage.base import MemoryRecords

pa = pytest.importorskip("pyarrow")

from splitpipe.integrations.arrow import record_batches, to_arrow  # noqa: E402  needs pyarrow


def of(field: Any, values: list[Any]) -> Dataset:
    return dataset_of(MemoryRecords(Schema({"x": field}), {"x": values}))


@pytest.mark.parametrize(
    ("field", "values", "kind"),
    [
        ("int64", [1, 2, -3], "int64"),
        ("uint8", [1, None, 255], "uint8"),
        ("bool", [True, False, True], "bool"),
        ("float16", [0.5, 1.5], "halffloat"),
        ("str", ["a", None, "é"], "large_string"),
        ("bytes", [b"", None, b"\0"], "large_binary"),
        ("json", [{"a": [1]}, None, 5], "large_string"),
        (ndarray("int16", (2,)), [[1, 2], [3, 4]], "fixed_size_list<item: int16>[2]"),
        (ndarray("int16", (2,)), [[1, 2], None], "fixed_size_list<item: int16>[2]"),
        (ndarray("float32", (None,)), [[1.0], [], None], "large_list<item: float>"),
        (
            ndarray("float64", (2, 3)),
            [[[1.0, 2, 3], [4, 5, 6]], [[0.0] * 3] * 2],
            "fixed_size_list<item: fixed_size_list<item: double>[3]>[2]",
        ),
        (
            ndarray("float64", (None, 2)),
            [[[1.0, 2]], [], None],
            "large_list<item: fixed_size_list<item: double>[2]>",
        ),
    ],
)
def test_columns(field: Any, values: list[Any], kind: str) -> None:
    parsed = Field.parse(field)
    given = [
        np.array(v, dtype=parsed.dtype).reshape([-1 if n is None else n for n in parsed.shape])
        if parsed.kind == "ndarray" and v is not None and parsed.shape is not None
        else v
        for v in values
    ]
    table = to_arrow(of(field, given))
    assert str(table.schema.field("x").type).replace("element", "item") == kind
    found = table.column("x").to_pylist()
    if parsed.kind == "json":
        found = [None if text is None else json.loads(text) for text in found]
    assert found == values
    table.validate(full=True)


def test_arrays_of_any_shape_and_dates() -> None:
    arrays = [np.arange(6).reshape(2, 3), None, np.zeros((0, 4), dtype=np.int64)]
    found = to_arrow(of(ndarray("int64"), arrays)).column("x").to_pylist()
    assert found[0] == {"shape": [2, 3], "data": [0, 1, 2, 3, 4, 5]}
    assert found[1] is None
    assert found[2] == {"shape": [0, 4], "data": []}
    for unit in ("D", "s", "ns"):
        days = [np.datetime64("2024-02-29", unit), np.datetime64("1969-12-31", unit)]
        column = to_arrow(of(f"datetime64[{unit}]", list(days))).column("x")
        assert [np.datetime64(value.as_py(), unit) for value in column] == days


def test_streams_views_and_metadata(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "ds", metadata={"length": "int64"}) as writer:
        for n in range(50):
            writer.write({"n": n, "text": "t" * n}, key=f"k{n}", meta={"length": n, "odd": n % 2})
    with sp.open_dataset(tmp_path / "ds") as ds:
        view = ds.where("length >= ?", [40]).select(["n"])
        table = view.to_arrow(metadata=True)
        assert table.column_names == ["n", "key", "meta"]
        assert table.column("key").to_pylist() == [f"k{n}" for n in range(40, 50)]
        assert json.loads(table.column("meta")[3].as_py()) == {"length": 43, "odd": 1}
        stream = record_batches(ds, ["text", "n"], rows=20)
        assert [batch.num_rows for batch in stream] == [20, 20, 10]
        assert ds.to_arrow(["n"]).column("n").to_pylist() == list(range(50))
        assert ds.subset([]).to_arrow().num_rows == 0
        with pytest.raises(FormatError, match="no column 'x'"):
            ds.to_arrow(["x"])


def test_json_with_half_a_surrogate_pair() -> None:
    values = ["\ud800", ["\u00fc"], None]
    found = to_arrow(of("json", values))["x"].to_pylist()
    assert found == ['"\\ud800"', '["\u00fc"]', None]


def test_what_arrow_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="'x' is of complex128"):
        to_arrow(of("complex128", [1j]))
    with pytest.raises(FormatError, match="no catalog"):
        to_arrow(of("int64", [1]), metadata=True)
    named = dataset_of(MemoryRecords(Schema({"key": "str"}), {"key": ["a"]}))
    with pytest.raises(FormatError, match="'key' has the name"):
        to_arrow(named, metadata=True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"splitpipe\[table\]"):
        of("int64", [1]).to_arrow()
