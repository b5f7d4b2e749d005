"""Rows into batches: nothing is padded, cast or dropped in silence."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.stages.collate import Stack

Point = namedtuple("Point", "x y")


def stacked(rows: list[Any], size: int | None = None) -> Any:
    stack = Stack(size or len(rows))
    for row in rows:
        stack.add(row)
    assert stack.count == len(rows)
    return stack.finish()


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">i8", "M8[s]", "S3", [("a", "i4"), ("b", "f8")]])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (4, 5)])
def test_arrays_of_one_kind_are_stacked(shape: tuple[int, ...], dtype: Any) -> None:
    rows = [np.zeros(shape, dtype) for _ in range(3)]
    made = stacked(rows)
    assert made.shape == (3, *shape)
    assert made.dtype == np.dtype(dtype)
    assert stacked(rows, size=8).shape == (3, *shape)


@pytest.mark.parametrize(
    "rows",
    [
        [np.zeros(3), np.zeros(4)],
        [np.zeros(3), np.zeros(3, "f4")],
        [np.zeros(3), [0.0, 0.0, 0.0]],
        [np.array([None, 1]), np.array([None, 1])],
        [np.ma.masked_array([1, 2], [True, False])] * 2,
        ["a", "b"],
        [b"a", b"b"],
        [None, None],
        [1, 2.0],
        [1, True],
        [2**70, 1],
        [2**63, -1],
        [[1], [2]],
        [OrderedDict(a=1)] * 2,
    ],
    ids=repr,
)
def test_anything_else_stays_a_list_of_what_it_was(rows: list[Any]) -> None:
    made = stacked(rows)
    assert type(made) is list
    assert [type(row) for row in made] == [type(row) for row in rows]
    assert all(np.array_equal(a, b) for a, b in zip(made, rows, strict=True))


@pytest.mark.parametrize("rows", [[1, 2], [1.5, 2.5], [True, False], [1j, 2j], [np.float32(1)] * 2])
def test_numbers_of_one_type_become_an_array(rows: list[Any]) -> None:
    made = stacked(rows)
    assert isinstance(made, np.ndarray)
    assert made.tolist() == rows


def test_dicts_and_tuples_are_batched_key_by_key() -> None:
    rows = [{"x": np.full(2, i), "pt": Point(i, str(i)), "t": (i, [i])} for i in range(3)]
    made = stacked(rows)
    assert list(made) == ["x", "pt", "t"]
    assert made["x"].shape == (3, 2)
    assert type(made["pt"]) is Point
    assert made["pt"].x.tolist() == [0, 1, 2]
    assert made["pt"].y == ["0", "1", "2"]
    assert made["t"][1] == [[0], [1], [2]]


@pytest.mark.parametrize(
    "rows", [[{"a": 1}, {"b": 1}], [{"a": 1}, {"a": 1, "b": 2}], [(1, 2), (1, 2, 3)]]
)
def test_rows_with_other_keys_are_refused(rows: list[Any]) -> None:
    with pytest.raises(ValueError, match="row 1 of a batch has the keys"):
        stacked(rows)


@pytest.mark.parametrize("rows", [[(1, 2), "ab"], [(1, 2), 3], [{"a": 1}, (1,)], [(1,), {0: 1}]])
def test_rows_of_another_kind_are_refused(rows: list[Any]) -> None:
    with pytest.raises(ValueError, match="row 1 of a batch is a"):
        stacked(rows)


def test_a_row_that_is_changed_later_changes_nothing() -> None:
    stack, row = Stack(2), np.zeros(3)
    stack.add(row)
    row += 1
    stack.add(row)
    assert stack.finish().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_unbatch_undoes_batch() -> None:
    rows = [{"x": np.full(2, i), "n": i, "s": str(i), "t": (i, b"b")} for i in range(7)]
    back = list(sp.Pipeline(rows).batch(3).unbatch())
    assert [(r["x"].tolist(), int(r["n"]), r["s"], int(r["t"][0])) for r in back] == [
        ([i, i], i, str(i), i) for i in range(7)
    ]


def test_unbatch_refuses_columns_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        list(sp.Pipeline([{"a": [1, 2], "b": [1]}]).unbatch())
