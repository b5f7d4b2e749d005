"""The arithmetic of ranks, against lists that are dealt out by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.order import Order, binwise_order, global_order, sequential_order
from splitpipe.permutation import SMALL, KeyedPermutation, derive_key
from splitpipe.pipeline.dealing import (
    ENDS,
    Deal,
    DealtOrder,
    Hand,
    Layer,
    Numbering,
    Rest,
    share,
    simplified,
)
from splitpipe.pipeline.passes import Passes
from splitpipe.storage.layout import BinLayout, Segment


def dealt(items: list[Any], rank: int, world: int, ends: str) -> list[Any]:
    """What a rank gets, by dealing one item after the other."""
    hands: list[list[Any]] = [[] for _ in range(world)]
    rounds = len(items) // world
    whole = items[: rounds * world] if ends == "drop" else list(items)
    if ends == "pad" and items:
        while len(whole) % world:
            whole.append(items[(len(whole) - len(items)) % len(items)])
    for number, item in enumerate(whole):
        hands[number % world].append(item)
    return hands[rank]


def blocks(size: int, unit: int, *, whole: bool = False) -> list[list[int]]:
    made = [list(range(at, min(size, at + unit))) for at in range(0, size, unit)]
    return [block for block in made if len(block) == unit] if whole else made


def flat(made: list[list[int]]) -> list[int]:
    return [one for block in made for one in block]


class TestHand:
    @pytest.mark.parametrize("ends", ENDS)
    @pytest.mark.parametrize("unit", [1, 2, 3, 5])
    def test_is_what_dealing_by_hand_gives(self, ends: str, unit: int) -> None:
        for size, world, whole in product(range(14), range(1, 7), [False, True]):
            items = blocks(size, unit, whole=whole)
            given: list[int] = []
            repeated = 0
            for rank in range(world):
                hand = Hand(Deal(rank, world, ends, unit, None, whole), size)
                expected = flat(dealt(items, rank, world, ends))
                assert hand.positions == len(expected)
                assert hand.find(0, hand.positions).tolist() == expected
                assert len(dealt(items, rank, world, ends)) == share(len(items), rank, world, ends)
                given += expected
                repeated += hand.repeated
            assert hand.left_out == size - len(set(given))
            assert repeated == len(given) - len(set(given))

    def test_of_a_part_of_it(self) -> None:
        hand = Hand(Deal(1, 3, "pad", 2), 17)
        every = hand.find(0, hand.positions).tolist()
        for start in range(len(every) + 1):
            for stop in range(start, len(every) + 1):
                assert hand.find(start, stop).tolist() == every[start:stop]

    def test_of_a_bound_sequence(self) -> None:
        for bound in range(9):
            hand = Hand(Deal(0, 2, "uneven", 1, bound), 6)
            assert hand.find(0, hand.positions).tolist() == list(range(0, min(bound, 6), 2))

    def test_of_many_costs_nothing(self) -> None:
        hand = Hand(Deal(7, 64), 2**40)
        assert hand.find(10**9, 10**9 + 2).tolist() == [64 * 10**9 + 7, 64 * 10**9 + 71]


class TestLayer:
    def test_leaves_what_no_rank_had(self) -> None:
        for size, world in product(range(9), range(1, 4)):
            for at in product(range(4), repeat=world):
                layer = Layer(world, at)
                taken = {
                    one
                    for rank in range(world)
                    for one in list(range(rank, size, world))[: at[rank]]
                }
                left = [one for one in range(size) if one not in taken]
                assert layer.left(size) == len(left)
                assert layer.find(np.arange(len(left)), size).tolist() == left

    def test_of_many_costs_nothing(self) -> None:
        layer = Layer(4, (10**9, 10**9 + 10**6, 10**9, 10**9))
        found = layer.find(np.array([0, 1, 2, 3, 3 * 10**6, 2**38]), 2**40).tolist()
        first = 4 * 10**9
        assert found[:4] == [first, first + 2, first + 3, first + 4]
        assert found[4] == first + 4 * 10**6
        assert found[5] == 2**38 + first + 10**6

    @settings(max_examples=60)
    @given(data=st.data(), size=st.integers(0, 40))
    def test_layers_follow_each_other(self, data: Any, size: int) -> None:
        left, layers = list(range(size)), []
        for _ in range(data.draw(st.integers(1, 3))):
            world = data.draw(st.integers(1, 4))
            at = tuple(data.draw(st.integers(0, 6)) for _ in range(world))
            layers.append(Layer(world, at))
            had = {one for rank in range(world) for one in left[rank::world][: at[rank]]}
            left = [one for one in left if one not in had]
        for made in (tuple(layers), simplified(layers)):
            rest = Rest(0, made)
            assert rest.left(size) == len(left)
            assert rest.find(np.arange(len(left)), size).tolist() == left

    def test_that_says_nonsense_is_refused(self) -> None:
        for layer in (Layer(2, (1,)), Layer(1, (-1,))):
            with pytest.raises(sp.ResumeError, match="ranks had"):
                simplified([layer])


class TestRest:
    @pytest.mark.parametrize("ends", ENDS)
    def test_is_dealt_anew(self, ends: str) -> None:
        for size, old, at, world in product([0, 1, 5, 12], [1, 2, 3], [0, 1, 3], [1, 2, 5]):
            layer = Layer(old, tuple(at + rank % 2 for rank in range(old)))
            size_left = layer.left(size)
            left = layer.find(np.arange(size_left), size).tolist()
            for rank in range(world):
                hand = Hand(Deal(rank, world, ends), size, Rest(0, (layer,)))
                expected = dealt(left, rank, world, ends)
                if ends == "pad" and len(left) % world:  # the whole sequence is begun again
                    beyond = [n % size for n in range(world)] if size else []
                    padded = left + beyond[: -len(left) % world]
                    expected = padded[rank::world] if left else []
                assert hand.positions == len(expected)
                assert hand.find(0, hand.positions).tolist() == expected

    def test_of_a_stream(self) -> None:
        for at in product(range(4), repeat=3):
            layers = (Layer(3, at), Layer(1, (2,)))
            rest = Rest(0, layers)
            left = rest.find(np.arange(rest.left(20)), 20).tolist()
            assert list(rest.over(iter(range(20)))) == left


ORDERS: dict[str, Order] = {
    "sequential": sequential_order(50),
    "small": global_order(50, seed=3, epoch=2),
    "large": global_order(SMALL + 777, seed=3, epoch=2),
    "binwise": binwise_order(BinLayout([Segment(0, 37, 0, 4), Segment(37, 5, 4, 2)]), 5, 1),
    "mixed": binwise_order(BinLayout([Segment(0, 37, 0, 4), Segment(37, 5, 4, 2)]), 5, 1, window=3),
    "unshuffled": binwise_order(BinLayout([Segment(0, 37, 0, 4)]), None, 1),
    "passes": Passes(7, 4, lambda number: global_order(7, seed=1, epoch=number)),
}


class TestOrders:
    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
    def test_are_looked_up_anywhere(self, order: Order) -> None:
        every = list(order)
        rng = np.random.default_rng(1)
        for positions in (rng.integers(len(order), size=99), np.arange(3, 20, 4), np.arange(0)):
            assert order.at(positions).tolist() == [every[at] for at in positions.tolist()]

    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
    @pytest.mark.parametrize("ends", ENDS)
    def test_are_dealt_out(self, order: Order, ends: str) -> None:
        every = list(order)
        for world in (1, 3, 8):
            for rank in range(world):
                part = DealtOrder(order, Hand(Deal(rank, world, ends), len(order)))
                expected = dealt(every, rank, world, ends)
                assert list(part) == expected
                assert len(part) == len(expected)
                assert part.at(np.arange(len(part))[::-1]).tolist() == expected[::-1]
                assert [part[at] for at in range(len(part))] == expected

    def test_a_permutation_is_looked_up_anywhere(self) -> None:
        for size in (5, SMALL, SMALL + 1, 100_000):
            shuffle = KeyedPermutation(size, derive_key(size))
            positions = np.arange(0, size, 7)
            assert shuffle.at(positions).tolist() == shuffle.between(0, size)[::7].tolist()
        assert KeyedPermutation(5, None).at(np.array([4, 2])).tolist() == [4, 2]


class TestNumbering:
    def test_tells_the_items_of_all_ranks_apart(self) -> None:
        for world, block in product(range(1, 4), range(1, 4)):
            numbers = [
                Numbering(rank, world, block).of(ordinal)
                for rank in range(world)
                for ordinal in range(4 * block)
            ]
            assert sorted(numbers) == list(range(4 * block * world))

    def test_repeated_ones_have_the_number_they_had(self) -> None:
        assert [Numbering(1, 2, 1, 3).of(ordinal) for ordinal in range(2)] == [1, 0]
