"""Rows of different lengths: padded as was said, and never otherwise; and taken apart again."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages import Batch, Unbatch
from splitpipe.pipeline.stages.padding import Pad, pad_rows, padding_waste
from tests.pipeline.stages.driving import drive

Pair = namedtuple("Pair", "left right")

token_rows = st.lists(st.lists(st.integers(-9, 9), max_size=6), min_size=1, max_size=7)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    name: str = ""


@dataclass
class Checked:
    n: int
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert isinstance(self.n, int), "called with a batch"


@dataclass
class Single:
    n: int


def batched(rows: list[Any], **options: Any) -> Any:
    (batch,) = drive(Batch(len(rows), **options), rows)
    return batch


@given(token_rows, st.integers(1, 4))
def test_padding_fills_up_and_nothing_else(rows: list[list[int]], multiple: int) -> None:
    arrays = [np.array(row, np.int32) for row in rows]
    made = batched(arrays, ragged=Pad(value=-99, multiple_of=multiple, lengths=True, mask=True))
    longest = -(-max(map(len, rows)) // multiple) * multiple
    assert made["values"].tolist() == [row + [-99] * (longest - len(row)) for row in rows]
    assert made["values"].dtype == np.int32
    assert made["lengths"].tolist() == list(map(len, rows))
    assert made["mask"].tolist() == [[i < len(row) for i in range(longest)] for row in rows]


@given(token_rows, st.booleans(), st.booleans(), st.integers(1, 3))
def test_unbatch_undoes_padding(
    rows: list[list[int]], lengths: bool, named: bool, size: int
) -> None:
    pad = Pad(lengths=lengths, mask=True)
    arrays: list[Any] = [np.array(row, int) for row in rows]
    if named:
        arrays = [{"n": i, "ids": row, "deep": {"ids": row}} for i, row in enumerate(arrays)]
    back = drive(Unbatch(unpad=True), drive(Batch(size, ragged=pad), arrays))
    if named:
        assert [list(row) for row in back] == [["n", "ids", "deep"]] * len(rows)
        assert [row["deep"]["ids"].tolist() for row in back] == rows
        back = [row["ids"] for row in back]
    assert [row.tolist() for row in back] == rows


def test_lists_of_numbers_are_padded_too() -> None:
    rows = [[1, 2], [], [3]]
    assert batched(rows) == rows
    made = batched(rows, ragged="pad")
    assert made.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert made.dtype == np.int64  # an empty list says nothing of its type
    assert batched([["a"], ["b", "c"]], ragged="pad") == [["a"], ["b", "c"]]
    assert batched(["ab", "c"], ragged="pad") == ["ab", "c"]


def test_only_named_columns_are_padded() -> None:
    rows = [{"a": np.arange(i), "b": np.arange(i), "n": i} for i in range(3)]
    made = batched(rows, ragged={"a": Pad(value=7, lengths=True)})
    assert made["a"].tolist() == [[7, 7], [0, 7], [0, 1]]
    assert list(made) == ["a", "a_lengths", "b", "n"]
    assert isinstance(made["b"], list)
    with pytest.raises(ValueError, match=r"no columns \['c'\]"):
        batched(rows, ragged={"c": Pad()})


def test_a_given_length_makes_every_batch_alike() -> None:
    rows = [np.arange(2), np.arange(3)]
    assert batched(rows, ragged=Pad(length=5)).shape == (2, 5)
    with pytest.raises(ValueError, match="row 1 of a batch has a length of 3, more than the 2"):
        batched(rows, ragged=Pad(length=2))


def test_every_axis_is_padded_but_lengths_are_of_the_first() -> None:
    rows = [np.ones((1, 3)), np.ones((2, 2))]
    made = batched(rows, ragged="pad")
    assert made.shape == (2, 2, 3)
    assert made.sum() == 7
    with pytest.raises(ValueError, match="more than their first axis"):
        batched(rows, ragged=Pad(lengths=True))


@pytest.mark.parametrize(
    ("rows", "pad", "match"),
    [
        ([np.arange(2), np.arange(2.0)], Pad(), "row 1 of a batch cannot be padded: it is float64"),
        ([np.arange(2), np.ones((2, 2))], Pad(), "row 1 of a batch cannot be padded"),
        ([[1], [[2]]], Pad(), "row 1 of a batch cannot be padded"),
        ([[1], [[2], 3]], Pad(), "row 1 of a batch cannot be padded"),
        ([np.arange(2), np.arange(3)], Pad(value=0.5), "of int64 cannot be padded with 0.5"),
        ([np.zeros(2, "u1"), np.zeros(3, "u1")], Pad(value=-1), "of uint8 cannot be padded"),
        ([np.zeros(2, "u1"), np.zeros(3, "u1")], Pad(value=float("nan")), "cannot be padded"),
        ([np.zeros(2, "f2"), np.zeros(3, "f2")], Pad(value=1e30), "of float16 cannot be padded"),
        ([np.zeros(2, "S1"), np.zeros(3, "S1")], Pad(value="x"), "cannot be padded"),
        ([np.zeros(2, "?"), np.zeros(3, "?")], Pad(value=2), "of bool cannot be padded"),
        ([np.zeros(2, "M8[s]"), np.zeros(3, "M8[s]")], Pad(), "cannot be padded"),
    ],
)
def test_what_would_have_to_be_changed_is_refused(rows: list[Any], pad: Pad, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        pad_rows(rows, pad)


@pytest.mark.parametrize("value", [0.1, float("nan"), float("-inf"), 3])
def test_floats_take_any_number(value: float) -> None:
    made = pad_rows([np.zeros(1, "f4"), np.zeros(2, "f4")], Pad(value=value)).values
    np.testing.assert_equal(made[0, 1], np.float32(value))


def test_bytes_are_padded_with_bytes() -> None:
    made = pad_rows([np.array([b"x"]), np.array([b"y", b"z"])], Pad(value=b"-")).values
    assert made.tolist() == [[b"x", b"-"], [b"y", b"z"]]


def test_a_column_that_would_be_covered_is_told() -> None:
    rows = [{"a": np.arange(2), "a_lengths": 3}]
    with pytest.raises(ValueError, match="there is such a column already"):
        batched(rows, ragged=Pad(lengths=True))


def test_dataclasses_are_batched_field_by_field() -> None:
    rows = [Frozen(np.full(2, i), str(i)) for i in range(3)]
    made = batched(rows)
    assert type(made) is Frozen
    assert made.x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert made.name == ["0", "1", "2"]
    back = drive(Unbatch(), [made])
    assert [(type(row), row.x.tolist(), row.name) for row in back] == [
        (Frozen, [i, i], str(i)) for i in range(3)
    ]


def test_a_batch_of_dataclasses_is_not_checked_as_a_row() -> None:
    made = batched([Checked(1, [1]), Checked(2)])
    assert made.n.tolist() == [1, 2]
    assert made.made == [[1], []]
    assert [row.n for row in drive(Unbatch(), [made])] == [1, 2]
    assert batched([Single(1), Single(2)]).n.tolist() == [1, 2]


def test_everything_nests() -> None:
    rows = [{"p": Pair((i, [i] * i), Frozen({"x": np.arange(i)}))} for i in range(3)]
    made = batched(rows, ragged="pad")
    assert made["p"].left[0].tolist() == [0, 1, 2]
    assert made["p"].left[1].tolist() == [[0, 0], [1, 0], [2, 2]]
    assert made["p"].right.x["x"].tolist() == [[0, 0], [0, 0], [0, 1]]
    plain = drive(Unbatch(), [batched(rows)])
    assert [
        (type(row["p"]), row["p"].left[1], row["p"].right.x["x"].tolist()) for row in plain
    ] == [(Pair, [i] * i, list(range(i))) for i in range(3)]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"a": 1}, {"a": 1, "b": 2}], r"row 1 .*too many: \['b'\]\); make the rows alike"),
        ([{"a": 1, "b": 1}, {"a": 1}], r"row 1 .*missing: \['b'\]"),
        (
            [{"m": {"a": 1}}, {"m": {"b": 1}}],
            r"missing: \['a'\]; too many: \['b'\]\), column \['m'\]",
        ),
        ([{"m": (1,)}, {"m": 1}], r"is a int, the ones before it are tuples, column \['m'\]"),
        ([Frozen(1), Checked(1)], "is a Checked, the ones before it are Frozens"),
        ([Frozen(1), (1, "")], "is a tuple, the ones before it are Frozens"),
    ],
)
def test_rows_that_differ_are_told_apart(rows: list[Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        batched(rows)


@pytest.mark.parametrize("columns", [{"a": [1, 2], "b": [1]}, ([1, 2], [1]), Frozen([1, 2], "a")])
def test_columns_of_different_lengths_cannot_be_unbatched(columns: Any) -> None:
    with pytest.raises(ValueError, match="different lengths"):
        drive(Unbatch(), [columns])
    with pytest.raises(ValueError, match="2 rows of a batch have 1 lengths"):
        drive(Unbatch(unpad=True), [{"values": [[1], [2]], "lengths": np.array([1])}])


def test_batches_are_refused_that_cannot_be_meant() -> None:
    refused: list[tuple[Any, str]] = [
        (lambda: Batch(0), "size must be a whole number of at least 1"),
        (lambda: Batch(2, collate=3), "collate must be a function"),  # type: ignore[arg-type]
        (lambda: Batch(2, collate=list, ragged="pad"), "collate= does that instead"),
        (lambda: Batch(2, ragged="cut"), "ragged must be"),
        (lambda: Batch(2, ragged={"a": 0}), "ragged must be"),  # type: ignore[dict-item]
        (lambda: Pad(multiple_of=0), "multiple_of must be"),
        (lambda: Pad(length=0), "length must be"),
        (lambda: Pad(length=8, multiple_of=8), "leave out multiple_of"),
    ]
    for make, match in refused:
        with pytest.raises(GraphError, match=match):
            make()


def test_waste_is_the_part_that_is_padding() -> None:
    assert padding_waste({"tokens": 30, "padded": 40}) == 0.25
    assert padding_waste({}) == 0
