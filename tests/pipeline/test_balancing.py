"""Steps that cost every rank about the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.order import global_order
from splitpipe.pipeline.balancing import STEPS, Balanced, Balancing, told
from splitpipe.pipeline.costs import costs_of
from splitpipe.pipeline.partition import METHODS
from tests.pipeline.test_dealing import dealt

RANKS = 8
LONGEST_NBYTES = 256 << 10


def lognormal(count: int, sigma: float = 1.0) -> Any:
    return np.random.default_rng(7).lognormal(6, sigma, size=count).astype(np.int64)


def file_sizes() -> Any:
    """Sizes of the files of Python's own library: a real distribution with a long tail, cut at a
    length as those of sequences are: a step cannot be evener than its longest sample.
    """
    library = Path(os.__file__).parent
    files = [one for one in library.rglob("*.py") if "site-packages" not in one.parts]
    sizes = np.minimum([file.stat().st_size for file in sorted(files)], LONGEST_NBYTES)
    return np.random.default_rng(0).choice(sizes, 2048)  # some libraries have fewer files


def balanced(costs: Any, ranks: int = RANKS, **options: Any) -> Balanced:
    order = global_order(len(costs), seed=1, epoch=0)
    made = Balancing(costs, **{"size": 8 * RANKS, **options})
    return Balanced(made, range(len(costs)), order, size=len(costs), ranks=ranks, key=5)


class TestPlan:
    @settings(max_examples=60)
    @given(
        ranks=st.integers(1, 4),
        size=st.integers(1, 4),
        count=st.integers(1, 4),
        steps=st.sampled_from(STEPS),
        method=st.sampled_from(METHODS),
        key=st.sampled_from([None, 1, 2]),
    )
    def test_gives_every_sample_once(
        self, ranks: int, size: int, count: int, steps: str, method: str, key: int | None
    ) -> None:
        costs = np.random.default_rng(count).integers(100, size=ranks * size * count)
        plan = sp.balance_plan(costs, ranks, size=size, steps=steps, method=method, key=key)
        assert plan.shape == (count, ranks, size)
        assert sorted(plan.ravel().tolist()) == list(range(len(costs)))

    @pytest.mark.parametrize("steps", STEPS)
    def test_steps_do_not_depend_on_the_number_of_ranks(self, steps: str) -> None:
        costs = lognormal(24 * 5)
        made = []
        for ranks in (1, 2, 3, 4, 6, 8, 12, 24):
            plan = sp.balance_plan(costs, ranks, size=24 // ranks, steps=steps, key=3)
            made.append([sorted(step.ravel().tolist()) for step in plan])
        assert all(one == made[0] for one in made)

    def test_is_the_same_for_ever(self) -> None:
        costs = [67, 80, 3, 80, 47, 52, 63, 29, 97, 6, 28, 38, 57, 41, 13, 5, 1, 5, 15, 99, 19, 65]
        plan = sp.balance_plan([*costs, 75, 24], 2, size=3, key=1)
        assert plan.tolist() == [
            [[7, 10, 20], [11, 18, 23]],
            [[1, 2, 8], [3, 16, 19]],
            [[0, 15, 21], [6, 17, 22]],
            [[4, 9, 12], [5, 13, 14]],
        ]

    def test_of_half_a_step_is_refused(self) -> None:
        for costs in ([1, 2, 3], [[1, 2], [3, 4]]):
            with pytest.raises(sp.GraphError, match="not those of whole steps of 2 ranks"):
                sp.balance_plan(costs, 2, size=2)

    @pytest.mark.parametrize("options", [{"steps": "odd"}, {"method": "luck"}, {"window": 0}])
    def test_nonsense_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(sp.GraphError, match="must be"):
            sp.Pipeline(range(3)).balance([1, 2, 3], **options)


class TestSequence:
    @settings(max_examples=60)
    @given(
        count=st.integers(0, 90),
        ranks=st.integers(1, 4),
        each=st.integers(1, 3),
        window=st.integers(1, 3),
        steps=st.sampled_from(STEPS),
    )
    def test_is_the_same_positions_in_another_order(
        self, count: int, ranks: int, each: int, window: int, steps: str
    ) -> None:
        size = ranks * each
        made = balanced(lognormal(count), ranks, size=size, window=window, steps=steps)
        found = made.at(np.arange(count)).tolist()
        assert sorted(found) == list(range(count))
        for first in range(0, count, window * size):  # and each stays in its window
            mine = found[first : first + window * size]
            assert sorted(mine) == list(range(first, first + len(mine)))
        assert made.at(np.arange(count)[::-1]).tolist() == found[::-1]

    def test_with_one_step_a_window_keeps_steps(self) -> None:
        made = balanced(lognormal(100), 4, size=12, window=1)
        found = made.at(np.arange(100))
        for first in range(0, 96, 12):
            assert sorted(found[first : first + 12]) == list(range(first, first + 12))


class TestEvenness:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(
        ("costs", "options"),
        [
            (lognormal(8192), {"window": 8, "size": 128}),
            (lognormal(8192, 1.5), {"window": 32, "size": 128}),
            (file_sizes(), {"window": 8, "size": 128}),
        ],
        ids=["lognormal", "wide", "files"],
    )
    def test_on_long_tails(self, costs: Any, options: dict[str, Any], method: str) -> None:
        mean, worst, plain = told(balanced(costs, method=method, **options))
        assert plain >= 1.5
        assert mean <= worst <= 1.05

    def test_of_steps_that_are_left_as_they_are(self) -> None:
        mean, _, plain = told(balanced(lognormal(8192), size=128))
        assert mean <= 1.05 < 1.5 <= plain

    def test_of_even_steps(self) -> None:
        made = balanced(lognormal(8192, 0.5), size=128, window=8, steps="even")
        totals = np.concatenate([made.steps(window).sum(axis=1) for window in range(8)])
        windows = totals.reshape(8, 8)
        assert (windows.max(axis=1) / windows.min(axis=1)).max() < 1.01
        assert told(made)[1] <= 1.05


class TestPipelines:
    @pytest.mark.parametrize("ends", ["drop", "pad", "uneven"])
    def test_give_every_rank_as_many_samples_as_without_it(self, ends: str) -> None:
        costs = lognormal(50)
        for world in (1, 3, 4):
            seen: list[int] = []
            for rank in range(world):
                plain = sp.Pipeline(range(50)).shard(rank, world, ends=ends)
                even = plain.balance(costs, window=2).batch(4, collate=list)
                assert len(even) == len(list(even)) == len(plain.batch(4))
                got = [x for batch in even for x in batch]
                assert len(got) == len(dealt(list(range(50)), rank, world, ends))
                seen += got
            if ends != "drop":
                assert set(seen) == set(range(50))
            assert len(set(seen)) == len(seen) - (-50 % world if ends == "pad" else 0)

    def test_are_the_same_wherever_balance_stands(self) -> None:
        costs = lognormal(64)
        pipe = sp.Pipeline(range(64), shuffle="global", seed=2)
        for rank in range(4):
            made = [
                pipe.balance(costs).shard(rank, 4).batch(4),
                pipe.shard(rank, 4).balance(costs).batch(4),
                pipe.shard(rank, 4).balance(costs, size=4).batch(4),
                pipe.balance(costs, size=4).shard(rank, 4).map(abs).batch(4),
            ]
            first, *others = [np.stack(list(one)).tolist() for one in made]
            assert all(other == first for other in others)

    def test_tell_how_even_they_are(self) -> None:
        costs = lognormal(1024)
        pipe = sp.Pipeline(range(1024)).shard(0, 8).balance(costs, window=4).batch(16)
        assert "steps of 128 samples are balanced by cost, 4 at a time" in pipe.explain()
        with pipe.loader(executor="inline") as loader:
            next(loader)
            ranks = loader.stats()[-1].stages[0].ranks
        assert ranks is not None
        assert ranks.imbalance is not None
        assert ranks.worst is not None
        assert ranks.plain is not None
        assert 1 <= ranks.imbalance <= ranks.worst < 1.1 < 1.3 < ranks.plain
        ordered = costs.reshape(-1, 16, 8).sum(axis=1)
        assert ranks.plain == pytest.approx(sp.imbalance(ordered).mean())

    @pytest.mark.parametrize(
        ("pipe", "message"),
        [
            (sp.Pipeline(lambda: iter("ab")).balance().batch(2), "'balance' orders a source"),
            (sp.Pipeline(range(4)).filter(abs).balance([1] * 4).batch(2), "'balance' orders"),
            (sp.Pipeline(range(4)).batch(2).balance([1] * 4), "'balance' orders a source"),
            (sp.Pipeline(range(4)).balance([1] * 4), "how many samples a rank has"),
            (sp.Pipeline(range(4)).balance([1] * 4).filter(abs).batch(2), "how many samples"),
            (sp.Pipeline(range(4)).balance([1] * 4).batch(2).shard(0, 2), "put shard.. before"),
            (sp.Pipeline(range(4)).balance([1], size=1).balance([1], size=1), "balanced once"),
        ],
        ids=repr,
    )
    def test_that_cannot_be_balanced_are_refused(self, pipe: sp.Pipeline, message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            pipe.explain()


class TestCosts:
    def test_of_a_dataset(self, tmp_path: Path) -> None:
        schema = sp.Schema({"text": "str", "ids": sp.ndarray("int64", (None,)), "tokens": "int64"})
        with sp.DatasetWriter(tmp_path, schema=schema) as writer:
            writer.write_many(
                [{"text": "x" * n, "ids": np.arange(n), "tokens": 10 * n} for n in range(20)]
            )
        rows = np.array([7, 3, 19])
        with sp.open_dataset(tmp_path) as ds:
            assert costs_of(ds, "tokens", rows).tolist() == [70, 30, 190]
            assert costs_of(ds, "text", rows).tolist() == [7, 3, 19]
            whole = costs_of(ds, None, rows)
            assert (np.diff(whole[[1, 0, 2]]) > 0).all()
            view = ds.subset([19, 3, 7]).select(["text", "tokens"])
            assert costs_of(view, "text", np.arange(3)).tolist() == [19, 3, 7]
            assert costs_of(view, None, np.arange(3)).tolist() == [19 + 8, 3 + 8, 7 + 8]
            assert costs_of(ds.concat(ds), "text", rows + 20).tolist() == [7, 3, 19]
            with pytest.raises(
                sp.GraphError, match=r"no such column .there are: text, ids, tokens"
            ):
                costs_of(ds, "words", rows)
            pipe = sp.Pipeline(ds).shard(0, 2).balance("text").map(len).batch(4)
            assert len(list(pipe)) == 3

    def test_of_a_function_and_of_an_array(self) -> None:
        rows = np.array([2, 0])
        assert costs_of(range(3), lambda row: row + 1.5, rows).tolist() == [3.5, 1.5]
        assert costs_of(range(3), np.array([4, 5, 6], np.int8), rows).tolist() == [6, 4]

    @pytest.mark.parametrize(
        ("cost", "message"),
        [
            ([1, 2], "2 costs for 3 records"),
            ([1.0, -1.0, 2.0], "record 1 costs -1.0"),
            ([1.0, 1.0, float("nan")], "record 2 costs nan"),
            (lambda row: "much", "must be as many numbers"),
            ("tokens", "there is no such column"),
            (None, "cannot tell the lengths of the records of a range"),
        ],
        ids=["few", "negative", "nan", "words", "column", "length"],
    )
    def test_that_make_no_sense_are_refused(self, cost: Any, message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            list(sp.Pipeline(range(3)).balance(cost, size=1))

    @pytest.mark.parametrize("cost", [3, [[1, 2]], ["a"], object()], ids=repr)
    def test_that_are_none_are_refused_at_once(self, cost: Any) -> None:
        with pytest.raises(sp.GraphError, match="cost must be None"):
            sp.Pipeline(range(3)).balance(cost)

    def test_missing_ones_are_named(self, tmp_path: Path) -> None:
        with sp.DatasetWriter(tmp_path, schema=sp.Schema({"n": "int64"})) as writer:
            writer.write_many([{"n": 1}, {"n": None}])
        with sp.open_dataset(tmp_path) as ds, pytest.raises(sp.GraphError, match="record 1 has no"):
            costs_of(ds, "n", np.arange(2))
