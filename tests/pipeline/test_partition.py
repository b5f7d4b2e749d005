"""Groups of equal number and nearly equal cost."""

from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.pipeline.partition import METHODS, divided, imbalance


def best(costs: list[int]) -> int:
    """The smallest possible larger sum of two groups of equal number."""
    total = sum(costs)
    halves = combinations(costs, len(costs) // 2)
    return min(max(sum(half), total - sum(half)) for half in halves)


@pytest.mark.parametrize("method", METHODS)
class TestDivided:
    @settings(max_examples=40)
    @given(
        groups=st.integers(1, 6),
        size=st.integers(0, 6),
        seed=st.integers(0, 99),
        kind=st.sampled_from(["int", "float", "equal"]),
    )
    def test_every_sample_is_in_one_group(
        self, method: str, groups: int, size: int, seed: int, kind: str
    ) -> None:
        rng = np.random.default_rng(seed)
        costs = rng.integers(1000, size=groups * size)
        if kind != "int":
            costs = rng.random(groups * size) if kind == "float" else np.ones(groups * size)
        table = divided(costs, groups, method)
        assert table.shape == (groups, size)
        assert sorted(table.ravel().tolist()) == list(range(groups * size))
        assert all(row == sorted(row) for row in table.tolist())
        first = [row[0] for row in table.tolist() if row]
        assert first == sorted(first)

    def test_is_close_to_the_best(self, method: str) -> None:
        rng = np.random.default_rng(2)
        for _ in range(40):
            costs = rng.lognormal(5, 1, size=10).astype(np.int64)
            worst = int(costs[divided(costs, 2, method)].sum(axis=1).max())
            assert worst <= 1.2 * best(costs.tolist())

    def test_is_much_more_even_than_chance(self, method: str) -> None:
        rng = np.random.default_rng(3)
        costs = rng.lognormal(6, 1, size=(50, 8 * 16))
        plain = imbalance(costs.reshape(50, 16, 8).sum(axis=1))
        even = [imbalance(one[divided(one, 8, method)].sum(axis=1)) for one in costs]
        assert plain.mean() > 1.4
        assert np.mean(even) < 1.05

    def test_numbers_are_told_apart_by_their_place(self, method: str) -> None:
        table = divided(np.ones(12), 3, method)
        assert table.tolist() == divided(np.full(12, 7), 3, method).tolist()


class TestGolden:
    """What the methods give, for ever: ranks with different versions would not fit together."""

    COSTS = np.array([17, 3, 29, 4, 11, 90, 2, 8, 41, 5, 7, 23])

    def test_differencing(self) -> None:
        assert divided(self.COSTS, 3, "differencing").tolist() == GOLDEN["differencing"]

    def test_largest_first(self) -> None:
        assert divided(self.COSTS, 3, "largest-first").tolist() == GOLDEN["largest-first"]


GOLDEN = {
    "differencing": [[0, 8, 9, 10], [1, 3, 5, 6], [2, 4, 7, 11]],
    "largest-first": [[0, 7, 8, 9], [1, 3, 5, 6], [2, 4, 10, 11]],
}


class TestImbalance:
    def test_of_ranks(self) -> None:
        assert imbalance([1, 1, 1, 1]) == 1.0
        assert imbalance([4, 0, 0, 0]) == 4.0
        assert imbalance([0, 0]) == 1.0
        assert isinstance(imbalance([1, 2]), float)

    def test_of_steps(self) -> None:
        table = np.array([[[2, 2], [3, 1]], [[0, 0], [0, 5]]])
        assert sp.imbalance(table).tolist() == [[1.0, 1.5], [1.0, 2.0]]
