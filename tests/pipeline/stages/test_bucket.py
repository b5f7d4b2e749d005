"""`bucket` and `batch_by_cost`: every item in one batch, like with like, nothing too dear."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.batch_by_cost import BatchByCost
from splitpipe.pipeline.stages.bucket import Bucket, Buckets
from splitpipe.pipeline.stages.filling import Limits
from splitpipe.pipeline.stages.padding import Pad, padding_waste
from tests.pipeline.stages.driving import Watched, context_of, drive

lengths_of = st.lists(st.integers(0, 30), max_size=60)


def strings(lengths: list[int]) -> list[str]:
    return [chr(33 + i) * n for i, n in enumerate(lengths)]


@given(lengths_of, st.integers(1, 9), st.booleans())
def test_every_item_is_in_one_batch_of_its_bucket(
    lengths: list[int], size: int, drop_last: bool
) -> None:
    bucket = Bucket(Buckets((5, 10, 20)), Limits(size), drop_last=drop_last, collate=list)
    context = context_of(bucket)
    batches = drive(bucket, strings(lengths), context=context)
    for batch in batches:
        assert len({bisect_right((5, 10, 20), len(item)) for item in batch}) == 1
        assert len(batch) == size or not drop_last
    flat = [item for batch in batches for item in batch]
    assert len(flat) + context.dropped == len(lengths)
    if not drop_last:
        assert Counter(flat) == Counter(strings(lengths))
    assert context.measured["tokens"] == sum(map(len, flat))
    assert context.measured["padded"] == sum(len(b) * max(map(len, b)) for b in batches)
    order = [strings(lengths).index(item) for batch in batches for item in batch if item]
    for low, high in ((1, 5), (5, 10), (10, 20), (20, 99)):
        own = [i for i in order if low <= lengths[i] < high]
        assert own == sorted(own)


@given(lengths_of, st.integers(1, 5), st.integers(1, 40), st.sampled_from(("padding", "quantiles")))
def test_boundaries_are_learned_from_the_first_items(
    lengths: list[int], learn: int, sample: int, by: str
) -> None:
    bucket = Bucket(Buckets(learn=learn, by=by, sample=sample), Limits(4), collate=list)
    batches = drive(bucket, strings(lengths))
    assert Counter(i for b in batches for i in b) == Counter(strings(lengths))
    assert batches == drive(bucket, strings(lengths))


def test_quantiles_give_every_bucket_as_many() -> None:
    boundaries = Buckets(learn=4, by="quantiles").learned([float(n) for n in range(100)])
    assert boundaries == (25, 50, 75)
    assert Buckets(learn=3, by="quantiles").learned([7.0] * 9) == (7, 7)  # all in the last one


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 4))
def test_learned_boundaries_are_the_best_ones(lengths: list[int], groups: int) -> None:
    def takes(boundaries: tuple[float, ...]) -> float:
        parts: dict[int, list[int]] = {}
        for n in lengths:
            parts.setdefault(bisect_right(boundaries, n), []).append(n)
        return sum(len(part) * max(part) for part in parts.values())

    learned = Buckets(learn=groups).learned([float(n) for n in lengths])
    assert list(learned) == sorted(learned)
    assert len(learned) == groups - 1
    tried = combinations(sorted({*lengths, 0}), min(groups - 1, len({*lengths, 0})))
    assert takes(learned) == min(map(takes, tried))


def test_more_lengths_than_are_compared_are_thinned_out() -> None:
    lengths = [10.0] * 3000 + [500.0] * 2000
    assert Buckets(learn=2).learned(lengths) == (500.0,)


def test_each_bucket_may_have_a_size_of_its_own() -> None:
    bucket = Bucket(Buckets((3,), sizes=(4, 2)), Limits(4), collate=list)
    made = drive(bucket, strings([1, 5, 1, 5, 1, 5, 1, 5]))
    assert [[len(item) for item in batch] for batch in made] == [[5, 5], [1] * 4, [5, 5]]


def test_what_is_held_is_bounded() -> None:
    rng = np.random.default_rng(0)
    items = Watched(strings(rng.integers(0, 30, 500).tolist()))
    bucket = Bucket(Buckets((5, 10, 20)), Limits(4), collate=list)
    given = 0
    for batch in bucket.run([items], context_of(bucket)):
        given += len(batch)
        assert items.taken - given <= 4 * 4


def test_bucketing_halves_the_padding() -> None:
    lengths = np.random.default_rng(1).lognormal(4, 1, 4000).astype(int).tolist()
    wastes = []
    for buckets in (Buckets(learn=1), Buckets(learn=8)):
        bucket = Bucket(buckets, Limits(32), collate=len)
        context = context_of(bucket)
        assert sum(drive(bucket, map(range, lengths), context=context)) == len(lengths)
        wastes.append(padding_waste(context.measured))
    assert wastes[1] < wastes[0] / 2


def greedy(lengths: list[int], limits: Limits) -> list[list[int]]:
    """Batches by their definition: the longest run that is within the limits."""
    batches: list[list[int]] = []
    for n in lengths:
        batch = [*(batches[-1] if batches else []), n]
        cost = len(batch) * max(batch) if limits.padded else sum(batch)
        fits = (limits.tokens is None or cost <= limits.tokens) and (
            limits.size is None or len(batch) <= limits.size
        )
        if batches and fits:
            batches[-1] = batch
        else:
            batches.append([n])
    return batches


@given(
    lengths_of,
    st.one_of(st.none(), st.integers(1, 5)),
    st.one_of(st.none(), st.integers(1, 80)),
    st.booleans(),
)
def test_a_batch_has_as_many_items_as_it_may_cost(
    lengths: list[int], size: int | None, tokens: int | None, padded: bool
) -> None:
    if size is None and tokens is None:
        tokens = 10
    limits = Limits(size, tokens, padded, "alone")
    batching = BatchByCost(limits, collate=list)
    context = context_of(batching)
    batches = drive(batching, strings(lengths), context=context)
    assert [i for b in batches for i in b] == strings(lengths)
    assert context.measured["tokens"] == sum(lengths)
    made = [[len(item) for item in batch] for batch in batches]
    wanted = greedy(lengths, limits)
    # Where only empty items could follow, a batch may end before them.
    assert [[n for n in b if n] for b in made if any(b)] == [
        [n for n in b if n] for b in wanted if any(b)
    ]
    assert all(
        len(b) == 1 or tokens is None or limits.padded is False or len(b) * max(b) <= tokens
        for b in made
    )


def test_a_batch_comes_as_soon_as_it_is_full() -> None:
    items = Watched(strings([5, 5, 5]))
    stream = BatchByCost(Limits(tokens=10)).run([items], context_of(BatchByCost(Limits(tokens=10))))
    assert len(next(stream)) == 2
    assert items.taken == 2


def test_an_item_that_is_too_dear_is_told() -> None:
    batching = BatchByCost(Limits(tokens=10), collate=list)
    with pytest.raises(ValueError, match=r"an item of length 11 does not fit .* at most 10 tokens"):
        drive(batching, strings([3, 11]))
    alone = BatchByCost(Limits(tokens=10, oversized="alone"), collate=list)
    assert [list(map(len, b)) for b in drive(alone, strings([3, 11, 3, 3]))] == [[3], [11], [3, 3]]
    bucket = Bucket(Buckets((100,)), Limits(tokens=10), collate=list)
    with pytest.raises(ValueError, match="does not fit"):
        drive(bucket, strings([11]))


def test_buckets_may_be_limited_by_cost() -> None:
    bucket = Bucket(Buckets((5,)), Limits(tokens=12), collate=list)
    made = drive(bucket, strings([3, 6, 3, 6, 3, 3, 6]))
    assert [[len(i) for i in b] for b in made] == [[6, 6], [3, 3, 3, 3], [6]]


def test_lengths_come_from_a_column_or_a_function_and_batches_are_collated() -> None:
    rows = [{"ids": np.arange(n), "cost": n / 2} for n in (1, 2, 3)]
    (batch,) = drive(BatchByCost(Limits(3), "ids", ragged={"ids": Pad(value=-1)}), rows)
    assert batch["ids"].tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]
    made = drive(BatchByCost(Limits(tokens=2.5, padded=False), lambda row: row["cost"]), rows)
    assert [batch["cost"].tolist() for batch in made] == [[0.5, 1.0], [1.5]]
    (one,) = drive(Bucket(Buckets((9,)), Limits(3), "ids", ragged="pad"), rows)
    assert one["ids"].shape == (3, 3)


@pytest.mark.parametrize("length", [-1, math.nan, math.inf, None, "3", [1]])
def test_what_is_no_length_is_told(length: Any) -> None:
    with pytest.raises(ValueError, match="length of an item must be a number of at least 0"):
        drive(BatchByCost(Limits(3), lambda item: length), [1])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Limits(), "a batch needs an end"),
        (lambda: Limits(0), "size must be a whole number"),
        (lambda: Limits(tokens=0), "max_tokens must be a finite number above 0"),
        (lambda: Limits(tokens=math.nan), "max_tokens must be"),
        (lambda: Limits(1, oversized="drop"), "oversized must be one of raise, alone"),
        (lambda: Buckets(), "either boundaries, or how many"),
        (lambda: Buckets((1,), 2), "either boundaries, or how many"),
        (lambda: Buckets(learn=2, by="luck"), "by must be one of padding, quantiles"),
        (lambda: Buckets((2, 2)), "must grow"),
        (lambda: Buckets((math.nan,)), "a boundary must be a finite number"),
        (lambda: Buckets(learn=0), "the number of buckets must be"),
        (lambda: Buckets((1,), sample=0), "sample must be"),
        (lambda: Buckets((1,), sizes=(1,)), "1 sizes for 2 buckets"),
        (lambda: Buckets((1,), sizes=(1, 0)), "each of sizes must be"),
        (lambda: BatchByCost(Limits(1), length=3), "length must be a function"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        make()
