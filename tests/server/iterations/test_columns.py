"""Batches from columns are those from records, to the type of every number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.schema import Schema
from splitpipe.server.iterations.columns import stack, stacked
from splitpipe.storage.base import MemoryRecords, records_of
from tests.server.iterations.making import plain

KINDS = ("bool", "int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "float64")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int8": st.integers(-128, 127),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "uint64": st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)),
    "float16": st.sampled_from([0.0, -1.5, float("inf")]),
    "float32": st.sampled_from([0.0, 0.5, -2.25]),
    "float64": st.floats(allow_nan=False),
    "str": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
    "json": st.one_of(st.integers(), st.just({"a": 1}), st.just([1, 2]), st.none(), st.text()),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Schema, dict[str, list[Any]]]:
    count = draw(st.integers(1, 6))
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    columns = {}
    for number, kind in enumerate(kinds):
        values = VALUES[kind]
        if draw(st.booleans()):
            values = st.one_of(values, st.none())
        columns[f"{kind}{number}"] = draw(st.lists(values, min_size=count, max_size=count))
    schema = Schema({name: kind for name, kind in zip(columns, kinds, strict=True)})  # noqa: C416
    return schema, columns


@settings(max_examples=300)
@given(table=tables())
def test_is_what_batch_makes(table: tuple[Schema, dict[str, list[Any]]]) -> None:
    schema, columns = table
    records = MemoryRecords(schema, columns)
    rows = np.arange(len(records))
    names = tuple(schema)
    ones = records_of(schema, records.read(rows, names))
    try:
        (wanted,) = sp.Pipeline(ones).batch(len(ones))
    except ValueError:  # records that are not alike
        for make in (lambda: stacked(schema, records.read(rows, names)), lambda: stack(ones)):
            with pytest.raises(ValueError, match=r"row \d+ of a batch"):
                make()
        return
    assert plain(stacked(schema, records.read(rows, names))) == plain(wanted)
    assert plain(stack(ones)) == plain(wanted)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("bytes", [b"a", b"bc"]),
        ("int32", [1, 2]),
        ("datetime64[s]", [np.datetime64(1, "s"), np.datetime64(2, "s")]),
        (sp.ndarray("float32", (2,)), [np.zeros(2, "f"), np.ones(2, "f")]),
        (sp.ndarray("float32", (None,)), [np.zeros(2, "f"), np.ones(2, "f")]),
        (sp.ndarray("float32", (None,)), [np.zeros(2, "f"), np.ones(3, "f")]),
    ],
)
def test_is_what_batch_makes_of_plain_values(tmp_path: Path, field: Any, values: Any) -> None:
    with sp.DatasetWriter(tmp_path / "bare", field) as writer:
        writer.write_many(values)
    dataset = sp.open_dataset(tmp_path / "bare")
    (wanted,) = sp.Pipeline(dataset).batch(2)
    schema = dataset.schema
    made = stacked(schema, dataset.records.read(np.arange(2), tuple(schema)))
    assert plain(made) == plain(wanted)
    assert plain(stack(list(dataset))) == plain(wanted)


def test_names_records_that_are_not_alike() -> None:
    with pytest.raises(ValueError, match=r"row 1 of a batch has the keys \['b'\]"):
        stack([{"a": 1}, {"b": 1}])
