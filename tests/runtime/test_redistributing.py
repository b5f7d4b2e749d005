"""Runs that go on with another number of ranks: nothing lost, nothing twice, in the same order."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.pipeline.redistribution import redistributed

N = 48


def drawn(x: Any, rng: np.random.Generator) -> tuple[Any, int]:
    return int(x), int(rng.integers(1 << 40))


def keep(x: int) -> bool:
    return x % 3 != 0


Make = Callable[[int, int], sp.Pipeline]
ENDS = ("drop", "pad", "uneven")


def begun(make: Make, world: int, counts: Any, **options: Any) -> tuple[list[Any], list[Any]]:
    """Let each rank give so many items; return all of them, and the states, through JSON."""
    given: list[Any] = []
    states = []
    for rank in range(world):
        with make(rank, world).loader(**{"executor": "inline", **options}) as loader:
            given += [next(loader) for _ in range(counts[rank])]
            states.append(json.loads(json.dumps(loader.state_dict())))
    return given, states


def finished(make: Make, states: Any, **options: Any) -> list[list[Any]]:
    ranks = []
    for rank, state in enumerate(states):
        pipe = make(rank, len(states))
        with pipe.loader(**{"executor": "inline", **options}, state=state) as loader:
            ranks.append(list(loader))
    return ranks


def dealt_in_turn(ranks: list[list[Any]]) -> list[Any]:
    return [rank[n] for n in range(max(map(len, ranks))) for rank in ranks if n < len(rank)]


def items(rank: int, world: int) -> sp.Pipeline:
    return sp.Pipeline(range(N), shuffle="global", seed=2).shard(rank, world).map(drawn)


def stream(rank: int, world: int) -> sp.Pipeline:
    begin = sp.Pipeline(range(72), shuffle="global", seed=2).filter(keep)
    return begin.shard(rank, world).map(drawn)


def blocks(rank: int, world: int) -> sp.Pipeline:
    return sp.Pipeline(range(N * 3), seed=2).batch(3, collate=sum).map(drawn).shard(rank, world)


class TestInStep:
    @pytest.mark.parametrize("make", [items, stream, blocks], ids=lambda make: make.__name__)
    @pytest.mark.parametrize(("old", "new"), [(4, 2), (2, 4), (4, 3), (1, 2), (3, 1), (2, 2)])
    def test_goes_on_where_the_sequence_was(self, make: Make, old: int, new: int) -> None:
        every = list(make(0, 1))
        for steps in (0, 1, 3, N // old - 1):
            given, states = begun(make, old, [steps] * old)
            assert sorted(given) == sorted(every[: old * steps])
            ranks = finished(make, sp.redistribute(states, new))
            left = every[old * steps :]
            assert dealt_in_turn(ranks) == left[: len(left) // new * new]

    @pytest.mark.parametrize("balanced", [False, True])
    def test_keeps_global_batches(self, balanced: bool) -> None:
        costs = np.random.default_rng(1).lognormal(5, 1, size=96).astype(int)

        def make(rank: int, world: int) -> sp.Pipeline:
            pipe = sp.Pipeline(range(96), shuffle="global", seed=2).shard(rank, world)
            pipe = pipe.balance(costs, window=2) if balanced else pipe
            return pipe.batch(24 // world)

        def steps(ranks: list[list[Any]]) -> list[set[int]]:
            return [set(np.concatenate(step).tolist()) for step in zip(*ranks, strict=True)]

        whole = steps([list(make(rank, 8)) for rank in range(8)])
        for done, new in product((1, 3), (1, 2, 4)):
            _, states = begun(make, 8, [done] * 8)
            assert steps(finished(make, sp.redistribute(states, new))) == whole[done:]

    def test_again_and_again(self) -> None:
        every, made = list(items(0, 1)), []
        states: Any = None
        for world, count in ((4, 2), (3, 2), (2, 3), (5, 1)):
            if states is not None:
                states = sp.redistribute(states, world)
            given: list[list[Any]] = []
            after = []
            for rank in range(world):
                state = None if states is None else states[rank]
                with items(rank, world).loader(executor="inline", state=state) as loader:
                    given.append([next(loader) for _ in range(count)])
                    after.append(loader.state_dict())
            made += dealt_in_turn(given)
            states = after
        made += dealt_in_turn(finished(items, sp.redistribute(states, 1)))
        assert made == every

    def test_later_epochs_are_whole(self) -> None:
        _, states = begun(items, 4, [3] * 4, epochs=3)
        for rank, state in enumerate(sp.redistribute(states, 2)):
            with items(rank, 2).loader(executor="inline", epochs=3, state=state) as loader:
                epochs = [list(one) for one in loader.by_epoch()]
            with items(rank, 2).loader(executor="inline", epochs=3) as loader:
                whole = [list(one) for one in loader.by_epoch()]
            assert epochs[0] == whole[0][6:]
            assert epochs[1:] == whole[1:]

    def test_between_epochs_of_any_graph(self) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            return items(rank, world).shuffle(10).filter(lambda x: x[0] % 5).batch(2, collate=list)

        states = []
        for rank in range(4):
            with make(rank, 4).loader(executor="inline", epochs=2) as loader:
                assert list(next(loader.by_epoch()))
                states.append(loader.state_dict())
        got = finished(make, sp.redistribute(states, 2), epochs=2)
        for rank in range(2):
            with make(rank, 2).loader(executor="inline", epochs=2) as loader:
                assert [list(one) for one in loader.by_epoch()][1] == got[rank]


class TestOutOfStep:
    @settings(max_examples=30)
    @given(
        counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
        new=st.integers(1, 5),
        ends=st.sampled_from(ENDS),
        kind=st.sampled_from(["source", "stream"]),
    )
    def test_loses_nothing(self, counts: list[int], new: int, ends: str, kind: str) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            if kind == "source":
                return sp.Pipeline(range(N), shuffle="global", seed=2).shard(rank, world, ends=ends)
            return sp.Pipeline(lambda: iter(range(N))).shard(rank, world, ends=ends)

        given, states = begun(make, len(counts), counts)
        if new == len(counts):
            ranks = finished(make, sp.redistribute(states, new))
            assert set(given) | {x for rank in ranks for x in rank} >= set(range(N // new * new))
            return
        ranks = finished(make, sp.redistribute(states[::-1], new))
        left = [x for x in make(0, 1) if x not in given]
        expected = {"drop": left[: len(left) // new * new]}.get(ends, left)
        got = dealt_in_turn(ranks)
        assert got[: len(expected)] == expected
        assert len(got) == len(expected) + (-len(left) % new if ends == "pad" and left else 0)

    def test_behind_a_filter(self) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            return sp.Pipeline(range(N), shuffle="global", seed=2).shard(rank, world).filter(keep)

        every = list(make(0, 1))
        given, states = begun(make, 3, [4, 1, 6])
        ranks = finished(make, sp.redistribute(states, 2))
        rest = [x for rank in ranks for x in rank]
        assert sorted(given + rest) == sorted(every)


class TestHowItIsRun:
    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_changes_nothing(self, executor: str) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            pipe = sp.Pipeline(range(96), shuffle="global", seed=2).shard(rank, world)
            return pipe.map(drawn, workers=2).batch(12 // world, collate=list)

        _, states = begun(make, 3, [2, 2, 2], executor=executor)
        _, inline = begun(make, 3, [2, 2, 2])
        assert [one["ranks"] for one in states] == [one["ranks"] for one in inline]
        made = sp.redistribute(states, 2)
        assert finished(make, made, executor=executor) == finished(make, made)


class TestRefusals:
    def test_of_other_ranks(self) -> None:
        _, states = begun(items, 2, [1, 1])
        with pytest.raises(sp.ResumeError, match=r"rank 0 of 2, and 'shard' is rank 1 of 2 now"):
            items(1, 2).loader(executor="inline", state=states[0])
        with pytest.raises(sp.ResumeError, match=r"sp.redistribute\(states, 4\)"):
            items(1, 4).loader(executor="inline", state=states[1])

    def test_of_ranks_that_are_missing_or_differ(self) -> None:
        _, states = begun(items, 3, [1, 1, 1])
        with pytest.raises(sp.ResumeError, match="states of ranks 1 are missing"):
            sp.redistribute([states[0], states[2]], 2)
        _, later = begun(items, 3, [2, 2, 2])
        with pytest.raises(sp.ResumeError, match="two states of rank 1 differ"):
            sp.redistribute([*states, later[1]], 2)
        with pytest.raises(sp.ResumeError, match="there is no state"):
            sp.redistribute([], 2)
        with pytest.raises(sp.ResumeError, match="no state of a loader"):
            sp.redistribute([{}], 2)
        with sp.Pipeline(range(3)).loader(executor="inline") as loader:
            state = loader.state_dict()
        with pytest.raises(sp.ResumeError, match="says nothing of ranks"):
            sp.redistribute([state], 2)

    def test_replicas_may_be_there(self) -> None:
        _, states = begun(items, 2, [1, 1])
        assert sp.redistribute([*states, *states], 3) == sp.redistribute(states, 3)

    def test_of_what_is_held_back(self) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            return items(rank, world).shuffle(10)

        _, states = begun(make, 2, [3, 3])
        with pytest.raises(sp.ResumeError, match=r"since 'shuffle\(10\)' holds items back; save"):
            sp.redistribute(states, 3)
        assert finished(make, sp.redistribute(states, 2)) == finished(make, states)

    def test_of_balanced_steps_in_the_middle(self) -> None:
        def make(rank: int, world: int) -> sp.Pipeline:
            costs = list(range(96))
            return sp.Pipeline(range(96)).shard(rank, world).balance(costs, size=12 // world)

        _, states = begun(make, 2, [7, 7])
        with pytest.raises(sp.ResumeError, match="behind a full step alone"):
            sp.redistribute(states, 3)
        with pytest.raises(sp.ResumeError, match="12 samples for all ranks, which 5 ranks cannot"):
            sp.redistribute(begun(make, 2, [6, 6])[1], 5)


class TestEntries:
    def test_of_many_are_small(self) -> None:
        ranks = [{"at": 10**9 + rank, "rank": rank, "world": 512} for rank in range(512)]
        assert len(json.dumps(redistributed(ranks, 511)[0])) < 10_000
        even = [{"at": 10**9, "rank": rank, "world": 512} for rank in range(512)]
        assert redistributed(even, 2)[1] == {
            "at": 0,
            "rank": 1,
            "world": 2,
            "done": [[1, [512 * 10**9]]],
        }

    def test_that_are_damaged_are_refused(self) -> None:
        with pytest.raises(sp.ResumeError, match="it is damaged"):
            redistributed([{"at": 1, "rank": 0, "world": 1, "done": [["x"]]}], 2)
