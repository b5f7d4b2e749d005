"""`pack`: no token lost, no pack too full, hardly any padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.pack import Layout, Pack, Packing
from splitpipe.pipeline.stages.packing import STRATEGIES, plan_packs
from splitpipe.pipeline.stages.padding import padding_waste
from tests.pipeline.stages.driving import Watched, context_of, drive

CAPACITY = 16
lengths_of = st.lists(st.integers(0, CAPACITY), max_size=60)
strategies = st.sampled_from(tuple(STRATEGIES))


def fit(lengths: list[int], *, best: bool) -> list[int]:
    """First fit, or best fit, by the book: the rooms of the packs."""
    rooms: list[int] = []
    for length in lengths:
        enough = [i for i, room in enumerate(rooms) if room >= length]
        if not enough:
            rooms.append(CAPACITY - length)
        else:
            rooms[min(enough, key=lambda i: rooms[i]) if best else enough[0]] -= length
    return rooms


@given(lengths_of, strategies)
def test_every_sequence_is_in_a_pack_that_is_not_too_full(lengths: list[int], how: str) -> None:
    packs = plan_packs(lengths, CAPACITY, how)
    assert packs.shape == (len(lengths),)
    if lengths:
        assert np.bincount(packs, lengths).max() <= CAPACITY
        assert list(dict.fromkeys(packs.tolist())) == list(range(packs.max() + 1))


@given(lengths_of, strategies)
def test_packs_are_those_of_the_book(lengths: list[int], how: str) -> None:
    ordered = sorted(lengths, reverse=True) if how == "best_fit_decreasing" else lengths
    rooms = fit(ordered, best=how != "first_fit")
    packs = plan_packs(lengths, CAPACITY, how)
    made = (CAPACITY - np.bincount(packs, lengths)).tolist() if lengths else []
    # Where an empty sequence lies, does not matter; that it needs no pack of its own, does.
    rooms = [room for room in rooms if room < CAPACITY or not any(lengths)]
    assert sorted(made) == sorted(rooms)


@given(st.integers(0, 2**32), st.sampled_from((10, 1000, 3000)), st.sampled_from((64, 2048)))
def test_placing_alike_sequences_together_is_placing_them_one_by_one(
    seed: int, count: int, capacity: int
) -> None:
    lengths = np.random.default_rng(seed).integers(1, capacity + 1, count)
    rooms: list[int] = []
    packs = 0
    for length in sorted(lengths.tolist(), reverse=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            packs += 1
            insort(rooms, capacity - length)
        else:
            insort(rooms, rooms.pop(at) - length)
    assert plan_packs(lengths, capacity).max() + 1 == packs


@pytest.mark.parametrize(
    ("lengths", "capacity", "error", "match"),
    [
        ([1, 17], 16, ValueError, "sequence 1 has a length of 17; a pack takes from 0 to 16"),
        ([-1], 16, ValueError, "sequence 0 has a length of -1"),
        ([0.5], 16, ValueError, "whole numbers, not float64"),
        ([[1]], 16, ValueError, r"of shape \(1, 1\)"),
        ([1], 0, GraphError, "capacity must be"),
    ],
)
def test_what_cannot_be_planned_is_told(
    lengths: Any, capacity: int, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        plan_packs(lengths, capacity)


def sequences(lengths: list[int]) -> list[Any]:
    ends = np.cumsum(lengths).tolist()
    return [np.arange(1 + end - n, 1 + end) for n, end in zip(lengths, ends, strict=True)]


@given(
    st.lists(st.integers(0, 40), max_size=40),
    st.sampled_from((*STRATEGIES, "concat")),
    st.integers(1, 50),
)
def test_no_token_is_lost(lengths: list[int], how: str, window: int) -> None:
    pack = Pack(Packing(CAPACITY, how, window, "split"), Layout(pad=-1))
    context = context_of(pack)
    packs = drive(pack, sequences(lengths), context=context)
    tokens: list[int] = []
    for made in packs:
        total = int(made["lengths"].sum())
        assert made["tokens"].shape == made["segment_ids"].shape == (CAPACITY,)
        assert made["tokens"][total:].tolist() == [-1] * (CAPACITY - total)
        parts = np.split(made["tokens"][:total], np.cumsum(made["lengths"])[:-1])
        assert made["segment_ids"].tolist() == [
            i for i, part in enumerate(parts, 1) for _ in part
        ] + [0] * (CAPACITY - total)
        assert made["position_ids"].tolist() == [k for part in parts for k in range(len(part))] + [
            0
        ] * (CAPACITY - total)
        for part in parts:
            assert part.tolist() == list(range(part[0], part[0] + len(part))) if len(part) else True
        tokens += made["tokens"][:total].tolist()
    assert sorted(tokens) == list(range(1, sum(lengths) + 1))
    if how == "concat":
        assert tokens == sorted(tokens)
        assert len(packs) == max(-(-sum(lengths) // CAPACITY), bool(lengths))
    assert context.measured == {
        "sequences": len(lengths),
        "packs": len(packs),
        "tokens": sum(lengths),
        "padded": len(packs) * CAPACITY,
    }


def test_padding_is_that_of_the_plan_of_each_window() -> None:
    lengths = np.random.default_rng(0).integers(1, 129, 2000)
    pack = Pack(Packing(128, window=500))
    context = context_of(pack)
    packs = drive(pack, sequences(lengths.tolist()), context=context)
    planned = sum(int(plan_packs(lengths[i : i + 500], 128).max()) + 1 for i in range(0, 2000, 500))
    assert len(packs) == planned
    assert padding_waste(context.measured) == pytest.approx(1 - lengths.sum() / planned / 128)
    assert padding_waste(context.measured) < 0.05


def test_columns_go_together_and_the_rest_stays_with_its_sequence() -> None:
    items = [
        {"ids": [1, 2, 3], "labels": np.array([0.5, 1, 2], "f4"), "name": "a"},
        {"ids": [4], "labels": np.array([7], "f4"), "name": "b"},
    ]
    layout = Layout(("ids", "labels"), pad={"ids": 0, "labels": -1}, separator=None)
    (made,) = drive(Pack(Packing(6), layout), items)
    assert made["ids"].tolist() == [1, 2, 3, 4, 0, 0]
    assert made["labels"].tolist() == [0.5, 1, 2, 7, -1, -1]
    assert made["labels"].dtype == np.float32
    assert made["name"] == ["a", "b"]
    assert list(made) == ["ids", "labels", "segment_ids", "position_ids", "lengths", "name"]
    (made,) = drive(Pack(Packing(6), Layout("ids")), items)
    assert [labels.tolist() for labels in made["labels"]] == [[0.5, 1, 2], [7]]


def test_a_separator_is_put_behind_every_sequence() -> None:
    layout = Layout(separator=99)
    (made,) = drive(Pack(Packing(6), layout), [[1, 2], [3]])
    assert made["tokens"].tolist() == [1, 2, 99, 3, 99, 0]
    packs = drive(Pack(Packing(3, "concat"), layout), [[1, 2, 3], [], [4]])
    assert [made["tokens"].tolist() for made in packs] == [[1, 2, 3], [99, 99, 4], [99, 0, 0]]
    assert [made["lengths"].tolist() for made in packs] == [[3], [1, 1, 1], [1]]


def test_what_is_too_long_is_an_error_or_dropped_or_cut() -> None:
    items = sequences([3, 9])
    with pytest.raises(ValueError, match=r"sequence 1 has a length of 9 .* a pack of 4"):
        drive(Pack(Packing(4)), items)
    drop = Pack(Packing(4, too_long="drop"))
    context = context_of(drop)
    assert len(drive(drop, items, context=context)) == 1
    assert (context.dropped, context.measured["sequences"]) == (1, 2)
    cut = drive(Pack(Packing(4, too_long="split")), items)
    assert sorted(len(made["lengths"]) for made in cut) == [1, 1, 2]


@given(lengths_of, strategies, st.integers(1, 70))
def test_anything_with_a_measure_can_be_packed(lengths: list[int], how: str, window: int) -> None:
    items = [(i, n) for i, n in enumerate(lengths)]
    packs = drive(Pack(Packing(CAPACITY, how, window), measure=lambda item: item[1]), items)
    assert sorted(item for pack in packs for item in pack) == items
    assert all(sum(n for _, n in pack) <= CAPACITY for pack in packs)
    assert all(pack == sorted(pack) for pack in packs)


def test_a_window_is_held_and_no_more() -> None:
    items = Watched(sequences([4] * 100))
    stream = Pack(Packing(8, window=10)).run([items], context_of(Pack(Packing(8))))
    next(stream)
    assert items.taken == 10


def test_arrays_may_have_more_axes() -> None:
    (made,) = drive(Pack(Packing(4)), [np.ones((2, 3), "f2"), np.ones((1, 3), "f2")])
    assert made["tokens"].shape == (4, 3)
    assert made["tokens"].sum() == 9


@pytest.mark.parametrize(
    ("items", "layout", "match"),
    [
        ([np.ones(2, "i4"), np.ones(2, "i8")], Layout(), "int32 of shape .* make them alike"),
        ([3], Layout(), "tokens must be an array or a list of numbers: 3"),
        ([np.array([None])], Layout(), "must be an array"),
        ([[1]], Layout(("a",)), r"no columns \['a'\]"),
        ([{"b": [1]}], Layout(("a",)), r"no columns \['a'\]"),
        ([{"a": [1], "b": [1, 2]}], Layout(("a", "b")), "different lengths: {'a': 1, 'b': 2}"),
        ([{"a": [1], "lengths": 3}], Layout(("a",)), "makes a column 'lengths' itself"),
        ([[1]], Layout(pad=0.5), "cannot be padded with 0.5"),
        ([np.ones(1, "u1")], Layout(separator=-1), "cannot be padded with -1"),
    ],
)
def test_items_that_do_not_fit_together_are_told(
    items: list[Any], layout: Layout, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        drive(Pack(Packing(8), layout), items)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Packing(0), "length must be"),
        (lambda: Packing(1, "worst_fit"), "strategy must be one of best_fit_decreasing"),
        (lambda: Packing(1, window=0), "window must be"),
        (lambda: Packing(1, too_long="cut"), "too_long must be one of"),
        (lambda: Layout(()), "names of different columns"),
        (lambda: Layout(("a", "a")), "names of different columns"),
        (lambda: Layout(("lengths",)), "makes columns segment_ids"),
        (lambda: Layout(("a", "b"), pad={"a": 0}), "pad must have one value for each"),
        (lambda: Pack(Packing(1), measure=3), "measure must be a function"),
        (lambda: Pack(Packing(1, "concat"), measure=len), "can be cut"),
        (lambda: Pack(Packing(1, too_long="split"), measure=len), "can be cut"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        make()
