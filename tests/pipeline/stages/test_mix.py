"""`mix` chooses by weight, deterministically, and loses nothing."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.mix import Mix
from splitpipe.pipeline.stages.weights import Weights
from tests.pipeline.stages.driving import Again, Watched, context_of, drive

METHODS = ("random", "even", "stratified", "per-stream")


def mixed(inputs: int, weights: Any = None, **more: Any) -> Mix:
    """A mix, of batches of 5 where there are batches."""
    batch = 5 if more.get("method") in ("stratified", "per-stream") else None
    return Mix(inputs, weights, batch=batch, **more)


weights_of = st.lists(st.floats(0.01, 10), min_size=1, max_size=5)


def tagged(lengths: list[int]) -> list[list[tuple[int, int]]]:
    return [[(i, k) for k in range(length)] for i, length in enumerate(lengths)]


@given(weights_of, st.data(), st.sampled_from(METHODS))
def test_all_gives_every_item_of_every_input_in_its_order(
    weights: list[float], data: Any, method: str
) -> None:
    lengths = [data.draw(st.integers(0, 12)) for _ in weights]
    mix = mixed(len(weights), weights, method=method)
    context = context_of(mix)
    made = drive(mix, *tagged(lengths), context=context)
    for i, items in enumerate(tagged(lengths)):
        assert [item for item in made if item[0] == i] == items
    assert [context.measured[name] for name in mix.measures] == lengths
    assert mix.length(lengths) == len(made)


@given(weights_of, st.data(), st.sampled_from(METHODS))
def test_first_ends_with_the_first_that_has_nothing_left(
    weights: list[float], data: Any, method: str
) -> None:
    lengths = [data.draw(st.integers(0, 12)) for _ in weights]
    made = drive(mixed(len(weights), weights, stop="first", method=method), *tagged(lengths))
    counts = Counter(i for i, _ in made)
    assert any(counts[i] == length for i, length in enumerate(lengths))
    whole = drive(mixed(len(weights), weights, method=method), *tagged(lengths))
    assert made == whole[: len(made)]


@given(weights_of, st.data(), st.sampled_from(METHODS))
def test_repeat_begins_anew_until_all_were_read(
    weights: list[float], data: Any, method: str
) -> None:
    lengths = [data.draw(st.integers(1, 9)) for _ in weights]
    inputs = [Again(items) for items in tagged(lengths)]
    made = drive(mixed(len(weights), weights, stop="repeat", method=method), *inputs)
    for i, items in enumerate(tagged(lengths)):
        own = [item for item in made if item[0] == i]
        passes = -(-len(own) // len(items))
        assert own == (items * passes)[: len(own)]
        assert len(own) >= len(items)
        assert inputs[i].passes - passes in (0, 1)


def test_repeating_needs_inputs_that_can_be_repeated() -> None:
    mix = Mix(2, stop="repeat")
    with pytest.raises(GraphError, match="cannot be begun anew"):
        drive(mix, [1], range(9))
    with pytest.raises(ValueError, match="input 1 has no items to repeat"):
        drive(mix, Again(range(9)), Again([]))


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=8))
def test_even_keeps_to_the_shares(weights: list[float]) -> None:
    mix = Mix(len(weights), weights, method="even", stop="first")
    made = drive(mix, *tagged([400] * len(weights)))
    counts = [0] * len(weights)
    shares = [weight / sum(weights) for weight in weights]
    most = sum(1 / k for k in range(1, len(weights) + 1))
    for step, (i, _) in enumerate(made, 1):
        counts[i] += 1
        assert all(c < s * step + 1.001 for c, s in zip(counts, shares, strict=True))
        assert all(c > s * step - most - 0.001 for c, s in zip(counts, shares, strict=True))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(1, 30))
def test_every_batch_has_its_shares(weights: list[float], batch: int) -> None:
    mix = Mix(len(weights), weights, method="stratified", batch=batch, stop="first")
    made = [i for i, _ in drive(mix, *tagged([400] * len(weights)))]
    had = Counter[int]()
    for first in range(0, len(made) - batch + 1, batch):
        inside = made[first : first + batch]
        assert inside == sorted(inside)
        had.update(inside)
        for i, weight in enumerate(weights):
            share = batch * weight / sum(weights)
            assert math.floor(share + 1e-9) <= inside.count(i) <= math.ceil(share - 1e-9)
            # The greedy rule: see `Even`.
            assert abs(had[i] - (first // batch + 1) * share) < len(weights)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_every_batch_is_of_one_input(weights: list[float], batch: int, data: Any) -> None:
    lengths = [data.draw(st.integers(0, 9)) * batch for _ in weights]
    mix = Mix(len(weights), weights, method="per-stream", batch=batch)
    made = [i for i, _ in drive(mix, *tagged(lengths))]
    assert all(len(set(made[first : first + batch])) == 1 for first in range(0, len(made), batch))
    assert [made.count(i) for i in range(len(weights))] == lengths


def test_a_batch_in_which_an_input_ends_is_filled_by_the_others() -> None:
    mix = Mix(3, (2, 1, 1), method="stratified", batch=4)
    made = [i for i, _ in drive(mix, *tagged([3, 9, 9]))]
    assert made[:8] == [0, 0, 1, 2, 0, 1, 1, 2]
    assert made[8:] == [1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 2]
    mix = Mix(2, method="per-stream", batch=4)
    made = [i for i, _ in drive(mix, *tagged([6, 8]))]
    assert sorted(made) == [0] * 6 + [1] * 8


def test_random_keeps_to_the_shares_too() -> None:
    made = drive(Mix(3, (1, 2, 5), stop="first"), *tagged([20_000] * 3))
    counts = Counter(i for i, _ in made)
    for i, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        # Six standard deviations of a binomial count.
        assert abs(counts[i] - share * len(made)) < 6 * math.sqrt(share * (1 - share) * len(made))


def test_it_is_the_same_every_time_and_another_in_every_epoch() -> None:
    mix, inputs = Mix(2), tagged([50, 50])
    first, again, later = (
        drive(mix, *inputs, context=context_of(mix, seed=1, epoch=epoch)) for epoch in (0, 0, 1)
    )
    assert first == again != later


def test_weights_follow_a_schedule() -> None:
    schedule = [(0, (1, 0)), (5, (0, 1))]
    made = drive(Mix(2, schedule, method="even"), *tagged([9, 9]))
    assert [i for i, _ in made] == [0] * 5 + [1] * 9 + [0] * 4  # then what is left
    made = drive(Mix(2, lambda step: (3, 0) if step < 3 else (0, 1)), *tagged([5, 5]))
    assert [i for i, _ in made] == [0] * 3 + [1] * 5 + [0] * 2


def test_an_input_of_weight_0_is_never_read() -> None:
    unread = Watched(range(3))
    assert drive(Mix(2, (0, 1)), unread, [1, 2, 3]) == [1, 2, 3]
    assert unread.taken == 0
    assert Mix(2, (0, 1)).length([3, 3]) is None


def test_temperature_makes_weights_more_equal() -> None:
    at = [Weights((100, 1), 2, temperature).at(0)[1] for temperature in (0.5, 1, 2, 1e6)]
    assert at == pytest.approx([1 / 10001, 1 / 101, 1 / 11, 0.5], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"weights": (1, -1)}, "a weight must be a finite number of at least 0, not -1"),
        ({"weights": (1, math.nan)}, "finite number"),
        ({"weights": (1, math.inf)}, "finite number"),
        ({"weights": (1, "x")}, "finite number"),
        ({"weights": (0, 0)}, "all 0"),
        ({"weights": (1, 2, 3)}, "3 weights for 2 inputs"),
        ({"weights": 3}, "must be numbers, one for each input"),
        ({"weights": [(0, (1, 1)), (5, (0, 0))]}, "at step 5 are all 0"),
        ({"weights": [(1, (1, 1))]}, "must begin with 0"),
        ({"weights": [(0, (1, 1)), (0, (1, 2))]}, "must begin with 0 and grow"),
        ({"weights": [(0, (1, 1)), (2.5, (1, 2))]}, "a step must be a whole number"),
        ({"temperature": 0}, "temperature must be a finite number above 0"),
        ({"temperature": math.nan}, "temperature"),
        ({"weights": (1, 1e9), "temperature": 1e-3}, "too uneven for this temperature"),
        ({"stop": "never"}, "stop must be one of first, all, repeat"),
        ({"method": "best"}, "method must be one of random, even"),
        ({"method": "stratified"}, "batch must be a whole number of at least 1, not None"),
        ({"method": "per-stream", "batch": 0}, "batch must be a whole number"),
        ({"batch": 3}, "knows no batches"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_described(
    arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(GraphError, match=match):
        Mix(2, **arguments)


@pytest.mark.parametrize("weights", [(1, -1), (0, 0), (1,), 5, (math.nan, 1)])
def test_what_a_function_returns_is_checked_when_it_is_used(weights: Any) -> None:
    mix = Mix(2, lambda step: weights if step == 2 else (1, 1))
    with pytest.raises(GraphError, match="at step 2"):
        drive(mix, range(9), range(9))


def test_weights_may_come_from_numpy() -> None:
    assert Mix(np.int64(2), np.array([1, 3])) == Mix(2, (1.0, 3.0))


def test_the_number_of_inputs_must_be_the_one_described() -> None:
    with pytest.raises(GraphError, match="described with 2 inputs, and has 3"):
        drive(Mix(2), [1], [2], [3])
