"""`shuffle`: a permutation within a buffer, and the number that says how good it is."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.order import global_order, sequential_order
from splitpipe.pipeline.stages.mixing import MEASURES, Neighbours, mixing, order_mixing
from splitpipe.pipeline.stages.shuffle import Shuffle
from tests.pipeline.stages.driving import Watched, context_of, drive


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 3))
def test_every_item_comes_once_and_not_too_early(count: int, buffer: int, epoch: int) -> None:
    shuffle = Shuffle(buffer)
    made, again = (
        drive(shuffle, range(count), context=context_of(shuffle, epoch=epoch)) for _ in range(2)
    )
    assert made == again
    assert sorted(made) == list(range(count))
    assert all(item - place < buffer for place, item in enumerate(made))


def test_epochs_seeds_and_names_differ() -> None:
    shuffle = Shuffle(50)
    orders = [
        tuple(drive(shuffle, range(200), context=context_of(shuffle, seed=seed, epoch=epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_a_buffer_that_holds_everything_is_uniform() -> None:
    shuffle = Shuffle(4)
    counts = Counter(
        tuple(drive(shuffle, range(4), context=context_of(shuffle, epoch=epoch)))
        for epoch in range(2400)
    )
    assert len(counts) == 24
    # Chi-square with 23 degrees of freedom: 60 is beyond one in ten thousand.
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 60


def test_it_takes_a_buffer_and_then_one_for_one() -> None:
    items, shuffle = Watched(range(99)), Shuffle(10)
    stream = shuffle.run([items], context_of(shuffle))
    next(stream)
    assert items.taken == 11
    next(stream)
    assert items.taken == 12


def test_an_item_that_left_is_not_held() -> None:
    alive = [0]

    class Item:
        def __init__(self) -> None:
            alive[0] += 1

        def __del__(self) -> None:
            alive[0] -= 1

    most = 0
    for item in Shuffle(5).run([(Item() for _ in range(50))], context_of(Shuffle(5))):
        del item
        most = max(most, alive[0])
    assert most <= 6
    assert alive[0] == 0


def measured_of(numbers: Any) -> dict[str, float]:
    measured = dict.fromkeys(MEASURES, 0.0)
    neighbours = Neighbours(measured)
    for number in numbers:
        neighbours.add(int(number))
    neighbours.flush()
    return measured


@given(st.permutations(list(range(12))))
def test_the_number_is_the_ratio_of_the_paper(numbers: list[int]) -> None:
    n = len(numbers)
    # Bartels: the sum of squared successive differences of ranks, over that of squared deviations;
    # its mean is 2 but for a term of order 1/n.
    squares = sum((a - b) ** 2 for a, b in pairwise(numbers))
    expected = n * (n * n - 1) / 6
    measured = measured_of(numbers)
    assert measured[MEASURES[0]] == squares - (n - 1)
    assert measured[MEASURES[1]] == pytest.approx(expected - (n - 1))
    deviations = sum((a - (n - 1) / 2) ** 2 for a in numbers)
    assert squares / deviations / 2 == pytest.approx(squares / expected)


@pytest.mark.parametrize("n", [10, 1000])
def test_an_order_that_is_kept_or_reversed_is_0(n: int) -> None:
    assert mixing(measured_of(range(n))) == 0
    assert mixing(measured_of(reversed(range(n)))) == 0


def test_uniform_orders_are_1_but_for_chance() -> None:
    rng = np.random.default_rng(5)
    found = [mixing(measured_of(rng.permutation(2000))) for _ in range(20)]
    assert min(found) > 0.95


def test_what_is_systematically_far_apart_is_not_random() -> None:
    n = 1000
    zigzag = np.stack([np.arange(n // 2), np.arange(n - 1, n // 2 - 1, -1)], 1).reshape(-1)
    assert mixing(measured_of(zigzag)) < 0.9


def test_it_grows_with_the_buffer() -> None:
    found = []
    for buffer in (1, 100, 500, 1000, 5000):
        shuffle = Shuffle(buffer)
        context = context_of(shuffle)
        drive(shuffle, range(5000), context=context)
        found.append(mixing(context.measured))
    assert found[0] == 0
    assert found[-1] > 0.95
    assert found == sorted(found)
    assert 0.1 < found[2] < 0.4  # a tenth of the data


def test_epochs_are_summed() -> None:
    one, other = measured_of([2, 0, 1, 3]), measured_of(range(50))
    both = {name: one[name] + other[name] for name in MEASURES}
    assert mixing(other) <= mixing(both) <= mixing(one)


def test_of_nothing_nothing_is_said() -> None:
    for numbers in ([], [0], [0, 1]):
        assert math.isnan(mixing(measured_of(numbers)))
    assert math.isnan(mixing({}))


@pytest.mark.parametrize("size", [3, 100, 4160, 4161, 1_000_000])
def test_orders_of_sources_have_the_same_number(size: int) -> None:
    assert order_mixing(sequential_order(size)) == 0
    shuffled = [order_mixing(global_order(size, seed=1, epoch=epoch)) for epoch in range(5)]
    if size >= 4160:
        assert min(shuffled) > 0.95
    if size == 4160:
        order = global_order(size, seed=1, epoch=0)
        assert order_mixing(order) == pytest.approx(mixing(measured_of(order)))


@pytest.mark.parametrize("buffer", [0, -1, 2.0, None])
def test_what_is_no_buffer_is_refused(buffer: Any) -> None:
    with pytest.raises(GraphError, match="buffer must be a whole number of at least 1"):
        Shuffle(buffer)
