"""Orders: bijections, the same for ever, and well shuffled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.order import (
    BinwiseOrder,
    Order,
    binwise_order,
    global_order,
    make_order,
    sequential_order,
)
from splitpipe.permutation import SMALL, KeyedPermutation, derive_key
from splitpipe.storage.layout import BinLayout, Segment

SIZES = st.integers(0, 70) | st.sampled_from([SMALL - 1, SMALL, SMALL + 1, 2048, 2049, 5000])
INTEGERS = st.integers(-(1 << 70), 1 << 70)


def layout_of(*segments: tuple[int, int], dealing: tuple[int, ...] | None = None) -> BinLayout:
    made: list[Segment] = []
    row = number = 0
    for rows, bins in segments:
        made.append(Segment(row, rows, number, bins, dealing))
        row += rows
        number += bins
    return BinLayout(made)


LAYOUTS = st.lists(st.tuples(st.integers(0, 2500), st.integers(1, 12)), max_size=3).map(
    lambda segments: layout_of(*segments)
)


def assert_is_order(order: Order, rows: int) -> None:
    assert len(order) == rows
    whole = order.indices(0, rows)
    assert whole.dtype == np.int64
    assert sorted(whole.tolist()) == list(range(rows))
    assert list(order) == whole.tolist()
    for position in {0, 1, rows // 2, rows - 1} & set(range(rows)):
        assert order[position] == whole[position]
        assert order[position - rows] == whole[position]
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    assert hash(again) == hash(order)
    assert np.array_equal(again.indices(rows // 3, rows), whole[rows // 3 :])
    for start in range(0, rows, 611):
        stop = min(rows, start + 611)
        assert np.array_equal(order.indices(start, stop), whole[start:stop])


class TestBijections:
    @given(rows=SIZES)
    def test_sequential(self, rows: int) -> None:
        assert_is_order(sequential_order(rows), rows)
        assert list(sequential_order(rows)) == list(range(rows))

    @given(rows=SIZES, seed=INTEGERS, epoch=INTEGERS)
    def test_global(self, rows: int, seed: int, epoch: int) -> None:
        assert_is_order(global_order(rows, seed, epoch), rows)

    @given(
        layout=LAYOUTS,
        seed=st.none() | INTEGERS,
        epoch=INTEGERS,
        window=st.integers(1, 40),
    )
    @settings(max_examples=60)
    def test_binwise(self, layout: BinLayout, seed: int | None, epoch: int, window: int) -> None:
        assert_is_order(binwise_order(layout, seed, epoch, window), layout.rows)

    @given(size=st.integers(1, 1 << 62), key=st.integers(0, (1 << 64) - 1), data=st.data())
    def test_one_by_one_is_the_same_as_many_at_once(
        self, size: int, key: int, data: st.DataObject
    ) -> None:
        shuffle = KeyedPermutation(size, key)
        start = data.draw(st.integers(0, size - 1))
        stop = min(size, start + 50)
        many = shuffle.between(start, stop).tolist()
        assert many == [shuffle[position] for position in range(start, stop)]
        assert len(set(many)) == len(many)
        assert all(0 <= number < size for number in many)

    def test_blocks_do_not_change_the_order(self) -> None:
        order = global_order(100_000, 3, 0)
        whole = order.indices(0, 100_000)
        fresh = global_order(100_000, 3, 0)
        for start, stop in (
            (5, 9),
            (16_380, 16_390),
            (99_990, 100_000),
            (0, 100_000),
            (16_384, 32_768),
        ):
            assert np.array_equal(fresh.indices(start, stop), whole[start:stop])
        rows = order.indices(10, 20)
        rows[:] = 0
        assert np.array_equal(order.indices(10, 20), whole[10:20])

    @pytest.mark.parametrize(
        "order",
        [sequential_order(10), global_order(10, 0, 0), binwise_order(layout_of((10, 3)), 0, 0)],
    )
    def test_positions_outside(self, order: Order) -> None:
        for bounds in ((-1, 5), (0, 11), (6, 5)):
            with pytest.raises(IndexError):
                order.indices(*bounds)
        for position in (10, -11):
            with pytest.raises(IndexError):
                order[position]


class TestForEver:
    """Golden values: a change here breaks every training run that was interrupted."""

    def test_global(self) -> None:
        assert global_order(10, 0, 0).indices(0, 10).tolist() == GOLDEN["global 10"]
        assert (
            global_order(1_000_000, 42, 3).indices(500_000, 500_008).tolist() == GOLDEN["global 1M"]
        )
        assert global_order(1 << 40, -1, 1 << 65).indices(7, 12).tolist() == GOLDEN["global 2**40"]

    def test_binwise(self) -> None:
        small = layout_of((20, 4), (7, 2))
        assert list(binwise_order(small, 7, 1)) == GOLDEN["binwise 27"]
        assert list(binwise_order(small, 7, 1, 3)) == GOLDEN["binwise 27, window 3"]
        large = layout_of((1_000_000, 64))
        assert (
            binwise_order(large, 42, 3).indices(500_000, 500_008).tolist() == GOLDEN["binwise 1M"]
        )
        assert (
            binwise_order(large, 42, 3, 4).indices(500_000, 500_008).tolist()
            == GOLDEN["binwise 1M, window 4"]
        )

    def test_keys(self) -> None:
        assert [derive_key(), derive_key(0), derive_key(-1, 2**64)] == GOLDEN["keys"]


class TestShuffling:
    """How good the shuffle is, judged by statistics with fixed keys."""

    def test_other_seeds_and_epochs_are_other_orders(self) -> None:
        orders = {
            tuple(global_order(1500, seed, epoch).indices(0, 1500).tolist())
            for seed in range(-3, 4)
            for epoch in range(5)
        }
        assert len(orders) == 35

    @pytest.mark.parametrize("size", [3, 4])
    def test_every_permutation_of_few_comes_equally_often(self, size: int) -> None:
        counts: dict[tuple[int, ...], int] = {}
        for seed in range(6000):
            found = tuple(global_order(size, seed, 0).indices(0, size).tolist())
            counts[found] = counts.get(found, 0) + 1
        kinds = {3: 6, 4: 24}[size]
        assert len(counts) == kinds
        expected = 6000 / kinds
        chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
        assert chi_square < kinds - 1 + 4 * (2 * (kinds - 1)) ** 0.5

    @pytest.mark.parametrize("size", [1500, 4096, 4097, 100_000])
    def test_where_a_row_lands_is_uniform(self, size: int) -> None:
        """Positions in 50 classes against rows in 50 classes, over 20 seeds."""
        table = np.zeros((50, 50))
        for seed in range(20):
            rows = global_order(size, seed, 0).indices(0, size)
            np.add.at(table, (np.arange(size) * 50 // size, rows * 50 // size), 1)
        expected = table.sum() / 2500
        chi_square = ((table - expected) ** 2 / expected).sum()
        assert abs(chi_square - 2401) < 5 * (2 * 2401) ** 0.5

    @pytest.mark.parametrize("size", [1500, 100_000])
    def test_neighbours_are_torn_apart(self, size: int) -> None:
        steps = []
        kept = fixed = 0
        for seed in range(20):
            rows = global_order(size, seed, 0).indices(0, size)
            difference = np.diff(rows)
            kept += int((difference == 1).sum())
            fixed += int((rows == np.arange(size)).sum())
            steps.append(float(np.abs(difference).mean()) / size)
            assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 5 / size**0.5
        # On average, a true shuffle leaves one row behind its neighbour and one at its place.
        assert kept < 60
        assert fixed < 60
        assert abs(np.mean(steps) - 1 / 3) < 0.01

    def test_epochs_are_independent(self) -> None:
        orders = [global_order(50_000, 0, epoch).indices(0, 50_000) for epoch in range(6)]
        for one, other in pairwise(orders):
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / 50_000**0.5
            assert int((one == other).sum()) < 12

    def test_every_bit_of_the_row_is_shuffled(self) -> None:
        """The lowest bit of a row follows from no bit of its position."""
        rows = global_order(1 << 17, 5, 0).indices(0, 1 << 17)
        positions = np.arange(1 << 17)
        for mine in range(17):
            for theirs in range(17):
                equal = ((rows >> mine) & 1) == ((positions >> theirs) & 1)
                assert abs(int(equal.sum()) - (1 << 16)) < 5 * (1 << 17) ** 0.5 / 2

    def test_records_of_two_bins_are_not_shuffled_alike(self) -> None:
        layout = layout_of((4000, 2))
        rows = binwise_order(layout, 1, 0).indices(0, 4000)
        assert int((rows[:2000] // 2 == rows[2000:] // 2).sum()) < 12


class TestBinwise:
    def test_bins_follow_each_other_whole(self) -> None:
        layout = layout_of((100, 7), (33, 4))
        order = binwise_order(layout, 3, 0)
        remaining = order.indices(0, 133).tolist()
        expected = {frozenset(rows) for rows in layout.bins()}
        seen = set()
        for group in order.bin_groups(0, 133):
            taken, remaining = (
                remaining[: group.stop - group.start],
                remaining[group.stop - group.start :],
            )
            seen.add(frozenset(taken))
            assert taken != sorted(taken)
        assert seen == expected

    def test_a_window_mixes_its_bins(self) -> None:
        layout = layout_of((10_000, 10))
        rows = binwise_order(layout, 3, 0, window=5).indices(0, 5000)
        bins = rows % 10
        assert len(set(bins.tolist())) == 5
        assert len(set(bins[:50].tolist())) == 5

    def test_bins_are_in_shuffled_order(self) -> None:
        layout = layout_of((640, 64))
        firsts = {
            tuple((binwise_order(layout, 0, epoch).indices(0, 640)[::10] % 64).tolist())
            for epoch in range(5)
        }
        assert len(firsts) == 5

    def test_the_numbers_of_the_files_decide_without_a_shuffle(self) -> None:
        layout = layout_of((6, 3), dealing=(2, 0, 1))
        assert list(binwise_order(layout, None, 0)) == [1, 4, 2, 5, 0, 3]

    def test_memory_grows_with_bins_alone(self) -> None:
        layout = layout_of((1 << 45, 100))
        order = binwise_order(layout, 1, 0)
        assert len(order) == 1 << 45
        assert 0 <= order[1 << 44] < 1 << 45
        assert len(pickle.dumps(order)) < 500


class TestMakeOrder:
    def test_kinds(self) -> None:
        class Bins(list[int]):
            def bin_layout(self) -> BinLayout:
                return layout_of((10, 2))

        assert make_order(range(10), None, 0, 0) == sequential_order(10)
        assert make_order(range(10), "global", 5, 6) == global_order(10, 5, 6)
        assert make_order(Bins(range(10)), "binwise", 5, 6, 2) == binwise_order(
            layout_of((10, 2)), 5, 6, 2
        )

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: make_order([1], "binwise", 0, 0), 'a list has no bins.*"global"'),
            (lambda: make_order([1], "random", 0, 0), "shuffle must be None"),
            (lambda: global_order(-1, 0, 0), "rows must be from 0"),
            (lambda: binwise_order(layout_of((1, 1)), 0, 0, 0), "window must be at least 1"),
        ],
    )
    def test_what_cannot_be(self, call: Callable[[], Order], text: str) -> None:
        with pytest.raises(GraphError, match=text):
            call()

    def test_repr_is_one_line_of_truth(self) -> None:
        order = binwise_order(layout_of((10, 2)), 5, 6, 2)
        assert isinstance(order, BinwiseOrder)
        assert repr(order) == (
            "BinwiseOrder(BinLayout(rows=10, bins=2), seed=5, epoch=6, window=2)"
        )
        assert repr(sequential_order(3)) == "SequentialOrder(rows=3)"
        assert repr(global_order(3, 0, 0)).startswith("GlobalOrder(KeyedPermutation(size=3")


GOLDEN: dict[str, list[int]] = {
    "global 10": [7, 6, 2, 9, 3, 4, 5, 8, 1, 0],
    "global 1M": [504842, 924700, 557820, 398528, 853824, 820465, 922425, 439935],
    "global 2**40": [392783214925, 575065245410, 204684084929, 887324036645, 1048252099644],
    "binwise 27": [
        18,
        6,
        10,
        2,
        14,
        25,
        21,
        23,
        20,
        24,
        22,
        26,
        17,
        13,
        9,
        1,
        5,
        8,
        16,
        0,
        12,
        4,
        15,
        3,
        11,
        19,
        7,
    ],
    "binwise 27, window 3": [
        26,
        18,
        6,
        10,
        24,
        22,
        20,
        25,
        2,
        14,
        21,
        23,
        19,
        16,
        8,
        11,
        0,
        12,
        17,
        7,
        13,
        3,
        15,
        9,
        1,
        5,
        4,
    ],
    "binwise 1M": [951725, 110445, 7981, 21485, 274925, 467885, 333165, 659501],
    "binwise 1M, window 4": [787349, 826873, 879277, 536057, 953133, 757229, 152877, 264557],
    "keys": [0, 5921299931535981825, 11575409182059091098],
}
