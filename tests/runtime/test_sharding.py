"""Ranks: who gets which item, in which order, with which random numbers, however it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.pipeline.graph import make_graph
from splitpipe.pipeline.source import SequenceSource
from tests.pipeline.test_dealing import dealt
from tests.runtime.comparing import frozen

ENDS = ("drop", "pad", "uneven")


def double(x: Any) -> Any:
    return x * 2


def drawn(x: Any, rng: np.random.Generator) -> tuple[Any, int]:
    return x, int(rng.integers(1 << 40))


def keep(x: Any) -> bool:
    return hash(str(x)) % 3 != 0 if isinstance(x, str) else x % 3 != 0


def twice(x: Any) -> Iterator[Any]:
    yield x
    yield -x


def pairs(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        yield item, item


def all_of(pipe: sp.Pipeline) -> list[Any]:
    return [frozen(item) for item in pipe]


def sources(pipe: sp.Pipeline) -> list[SequenceSource]:
    nodes = make_graph({"": pipe.node}).nodes
    return [node.source for node in nodes if isinstance(node.source, SequenceSource)]


def folded(pipe: sp.Pipeline) -> bool:
    """Whether a rank reads its own part alone."""
    return any(source.deal is not None for source in sources(pipe))


N = 23
BEFORE: dict[str, Callable[[], sp.Pipeline]] = {
    "sequence": lambda: sp.Pipeline(range(N)),
    "shuffled": lambda: sp.Pipeline(range(N), shuffle="global", seed=4),
    "mapped": lambda: sp.Pipeline(range(N), seed=4).map(double).map(drawn),
    "taken": lambda: sp.Pipeline(range(99), shuffle="global").take(N),
    "repeated": lambda: sp.Pipeline(range(5), shuffle="global").repeat(4),
    "batched": lambda: sp.Pipeline(range(N), shuffle="global").batch(3),
    "whole batches": lambda: sp.Pipeline(range(N)).batch(3, drop_last=True),
    "batches of batches": lambda: sp.Pipeline(range(N)).batch(2).batch(3, collate=list),
    "random batches": lambda: sp.Pipeline(range(N), seed=3).batch(3, collate=tuple).map(drawn),
    "empty": lambda: sp.Pipeline([]),
}
STREAMS: dict[str, Callable[[], sp.Pipeline]] = {
    "factory": lambda: sp.Pipeline(lambda: iter(range(N))),
    "filtered": lambda: sp.Pipeline(range(N)).filter(keep),
    "multiplied": lambda: sp.Pipeline(range(N), seed=1).flat_map(twice).map(drawn),
    "free": lambda: sp.Pipeline(range(N)).through(pairs),
    "buffered": lambda: sp.Pipeline(range(N)).shuffle(7),
    "mixed": lambda: sp.mix([sp.Pipeline(range(9)), sp.Pipeline(range(20, 30))]),
    "nothing": lambda: sp.Pipeline(lambda: iter(())),
}


class TestEveryRank:
    @pytest.mark.parametrize("ends", ENDS)
    @pytest.mark.parametrize("kind", [*BEFORE, *STREAMS])
    def test_has_what_dealing_by_hand_gives(self, kind: str, ends: str) -> None:
        begin = (BEFORE | STREAMS)[kind]
        every = all_of(begin())
        for world in (1, 2, 3, 8, 40):
            for rank in {0, 1, world // 2, world - 1} & set(range(world)):
                pipe = begin().shard(rank, world, ends=ends)
                assert folded(pipe) == (kind in BEFORE)
                got = all_of(pipe)
                assert got == dealt(every, rank, world, ends)

    @pytest.mark.parametrize("ends", ENDS)
    @pytest.mark.parametrize("kind", BEFORE)
    def test_knows_how_much_it_has(self, kind: str, ends: str) -> None:
        for world in (1, 3, 8, 40):
            for rank in range(world):
                pipe = BEFORE[kind]().shard(rank, world, ends=ends)
                if kind in ("repeated", "mapped", "batched"):
                    pipe = pipe.batch(2, collate=list)
                assert len(pipe) == len(list(pipe))

    @pytest.mark.parametrize("ends", ["drop", "pad"])
    @pytest.mark.parametrize("kind", [*BEFORE, *STREAMS])
    def test_has_as_many_as_the_others(self, kind: str, ends: str) -> None:
        begin = (BEFORE | STREAMS)[kind]
        for world in (2, 5):
            counts = {len(list(begin().shard(rank, world, ends=ends))) for rank in range(world)}
            assert len(counts) == 1

    def test_is_another_every_epoch(self) -> None:
        pipe = sp.Pipeline(range(N), shuffle="global", seed=4)
        every = [list(epoch) for epoch in pipe.loader(executor="inline", epochs=3).by_epoch()]
        for rank in range(3):
            part = pipe.shard(rank, 3, ends="uneven").loader(executor="inline", epochs=3)
            assert [list(epoch) for epoch in part.by_epoch()] == [one[rank::3] for one in every]

    def test_goes_on_behind_it(self) -> None:
        pipe = sp.Pipeline(range(N), shuffle="global", seed=4)
        every = list(pipe)
        for rank in range(3):
            mine = every[rank::3][: N // 3]
            part = pipe.shard(rank, 3)
            assert list(part.take(4)) == mine[:4]
            assert list(part.skip(4)) == mine[4:]
            assert list(part.map(double).batch(2, collate=list).take(2)) == [
                [double(x) for x in mine[:2]],
                [double(x) for x in mine[2:4]],
            ]
            assert list(part.shard(1, 2)) == mine[1:6:2]
            assert list(sp.zip(part, part.map(double))) == [(x, 2 * x) for x in mine]

    def test_may_go_through_its_part_again(self) -> None:
        pipe = sp.Pipeline(range(N), shuffle="global", seed=4)
        for rank in range(2):
            part = pipe.shard(rank, 2).repeat(3)
            assert sources(part)[0].again == 3
            passes = [list(pipe.loader(executor="inline", epochs=3).by_epoch().__next__())]
            epochs = [list(one) for one in pipe.loader(executor="inline", epochs=3).by_epoch()]
            assert epochs[0] == passes[0]
            expected = [x for one in epochs for x in one[: N // 2 * 2][rank::2]]
            assert list(part) == expected
            assert len(part) == len(expected)
            assert list(part.take(15)) == expected[:15]
            assert list(part.map(double).repeat(2))[: len(expected)] == list(part.map(double))

    def test_reads_its_own_part_alone(self) -> None:
        class Noting(list[int]):
            def __getitem__(self, at: Any) -> Any:
                read.append(at)
                return super().__getitem__(at)

        read: list[int] = []
        assert list(sp.Pipeline(Noting(range(N))).map(double).shard(1, 4)) == [2, 10, 18, 26, 34]
        assert read == [1, 5, 9, 13, 17]

    def test_of_a_dataset(self, tmp_path: Path) -> None:
        sp.write_split_data(tmp_path, [b"%d" % n for n in range(500)], splits=5)
        with sp.open_dataset(tmp_path) as ds:
            for shuffle in (None, "global", "binwise"):
                pipe = sp.Pipeline(ds, shuffle=shuffle, seed=2, window=2)
                every = list(pipe)
                for rank in range(3):
                    assert list(pipe.shard(rank, 3, ends="uneven")) == every[rank::3]


class TestRandomNumbers:
    def test_do_not_depend_on_the_number_of_ranks(self) -> None:
        for kind in ("mapped", "random batches", "multiplied"):
            begin = (BEFORE | STREAMS)[kind]
            every = all_of(begin())
            for world in (2, 3):
                ranks = [all_of(begin().shard(rank, world, ends="uneven")) for rank in range(world)]
                assert [ranks[n % world][n // world] for n in range(len(every))] == every

    def test_behind_shard_neither(self) -> None:
        def pipe(rank: int, world: int) -> sp.Pipeline:
            return sp.Pipeline(range(24), shuffle="global", seed=3).shard(rank, world).map(drawn)

        every = list(pipe(0, 1))
        for world in (2, 3, 8):
            ranks = [list(pipe(rank, world)) for rank in range(world)]
            assert [ranks[n % world][n // world] for n in range(24)] == every

    def test_of_batches_of_different_ranks_differ(self) -> None:
        seen = set()
        for rank in range(4):
            for begin in (sp.Pipeline(range(48), seed=3), STREAMS["factory"]()):
                pipe = begin.shard(rank, 4).batch(3, collate=len).map(drawn)
                seen |= {(type(begin.source), number) for _, number in pipe}
        assert len(seen) == 4 * (4 + 2)

    def test_of_repeated_items_are_those_they_had(self) -> None:
        pipe = sp.Pipeline(range(7), seed=3).map(drawn)
        ranks = [list(pipe.shard(rank, 4, ends="pad")) for rank in range(4)]
        assert ranks[3][1] == ranks[0][0]

    def test_in_passes_over_its_part(self) -> None:
        pipe = sp.Pipeline(range(6), seed=3)
        every = list(pipe.shard(0, 1).map(drawn).repeat(2))
        assert len({number for _, number in every}) == 12
        ranks = [list(pipe.shard(rank, 2).map(drawn).repeat(2)) for rank in range(2)]
        assert [ranks[n % 2][n // 2] for n in range(12)] == every


class TestGlobalBatches:
    @pytest.mark.parametrize("balanced", [False, True])
    def test_have_the_same_samples_for_any_number_of_ranks(self, balanced: bool) -> None:
        costs = np.random.default_rng(1).lognormal(5, 1, size=200)
        pipe = sp.Pipeline(range(200), shuffle="global", seed=1)
        batches: list[list[set[int]]] = []
        for world in (1, 2, 4, 8):
            ranks = []
            for rank in range(world):
                part = pipe.shard(rank, world)
                part = part.balance(costs, window=3) if balanced else part
                ranks.append(list(part.batch(24 // world)))
            assert len({len(rank) for rank in ranks}) == 1
            batches.append(
                [set(np.concatenate(step).tolist()) for step in zip(*ranks, strict=True)]
            )
        full = 200 // 24
        assert all(one[:full] == batches[0][:full] for one in batches)
        assert set().union(*batches[0]) == set(range(200))


class TestHowItIsRun:
    @pytest.mark.deadline(120)
    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_changes_nothing(self, executor: str) -> None:
        costs = np.random.default_rng(1).lognormal(5, 1, size=300)
        begin = sp.Pipeline(range(300), shuffle="global", seed=2)
        pipes = {
            "source": begin.shard(1, 3).map(drawn, workers=2, name="a").batch(4, collate=list),
            "padded": begin.batch(7, collate=tuple).shard(2, 4, ends="pad").map(drawn, name="b"),
            "again": begin.shard(1, 3, ends="uneven").map(drawn, workers=2, name="c").repeat(2),
            "stream": begin.filter(keep, workers=2).shard(1, 4, ends="pad").map(drawn, name="d"),
            "balanced": begin.shard(1, 4).balance(costs, window=2).map(drawn, name="e").batch(8),
        }
        for name in ("padded", "balanced"):
            pipes[name] = pipes[name].map(frozen, workers=2, name=f"frozen {name}")
        expected = {
            name: [frozen(x) for x in pipe.loader(executor="inline", epochs=2)]
            for name, pipe in pipes.items()
        }
        loaders = sp.run(pipes, executor=executor, epochs=2)
        got = {name: [frozen(x) for x in loader] for name, loader in loaders.items()}
        assert got == expected

    @settings(max_examples=40)
    @given(data=st.data())
    def test_any_chain(self, data: Any) -> None:
        draw = data.draw
        pipe = sp.Pipeline(range(draw(st.integers(0, 40))), shuffle="global", seed=5)
        stages = {
            "map": lambda p: p.map(str),
            "drawn": lambda p: p.map(drawn),
            "batch": lambda p: p.batch(draw(st.integers(1, 4)), collate=tuple),
            "take": lambda p: p.take(draw(st.integers(0, 30))),
            "skip": lambda p: p.skip(draw(st.integers(0, 5))),
            "filter": lambda p: p.filter(lambda x: len(str(x)) % 2),
            "repeat": lambda p: p.repeat(draw(st.integers(1, 2))),
        }
        for _ in range(draw(st.integers(0, 4))):
            pipe = stages[draw(st.sampled_from(sorted(stages)))](pipe)
        world = draw(st.integers(1, 5))
        ends = draw(st.sampled_from(ENDS))
        every = all_of(pipe)
        for rank in range(world):
            assert all_of(pipe.shard(rank, world, ends=ends)) == dealt(every, rank, world, ends)


class TestTelling:
    def test_ends(self) -> None:
        pipe = sp.Pipeline(range(103))
        text = pipe.shard(1, 4).map(double).explain()
        assert "rank 1 of 4: 25 positions; the last 3 of all are left out" in text
        text = pipe.batch(10).shard(3, 4, ends="pad").explain()
        assert "rank 3 of 4: 30 positions; the last 10 of them repeat the beginning" in text
        assert "rank 1 of 4: 26 positions\n" in pipe.shard(1, 4, ends="uneven").explain() + "\n"

    def test_whole_streams(self) -> None:
        text = sp.Pipeline(range(9)).filter(keep).shard(1, 4).explain()
        assert "shard: rank 1 of 4, ends 'drop'; it takes its items out of the whole stream" in text

    def test_steps_that_nobody_knows(self) -> None:
        pipe = sp.Pipeline(range(100)).shard(0, 2).shuffle(5).filter(keep).batch(4)
        assert "filter(keep)" in repr(pipe)
        assert "keep: behind shard it may give ranks different numbers of items" in pipe.explain()
        with pytest.raises(TypeError, match="'keep' changes counts, and may give ranks different"):
            len(pipe)
        steady = sp.Pipeline(range(100)).filter(keep).shard(0, 2).batch(4)
        assert "different numbers" not in steady.explain()

    def test_in_statistics(self) -> None:
        with sp.Pipeline(range(7)).shard(1, 3, ends="pad").loader(executor="inline") as loader:
            assert list(loader) == [1, 4, 0]
            ranks = loader.stats()[-1].stages[0].ranks
        assert ranks is not None
        assert (ranks.rank, ranks.world_size, ranks.positions) == (1, 3, 3)
        assert (ranks.left_out, ranks.repeated, ranks.imbalance) == (0, 1, None)

    def test_in_statistics_of_streams(self) -> None:
        for ends, expected in (("drop", (1, 0)), ("pad", (0, 1)), ("uneven", (0, 0))):
            pipe = STREAMS["factory"]().take(7).shard(1, 3, ends=ends)
            with pipe.loader(executor="inline") as loader:
                given = len(list(loader))
                (stage,) = [one for one in loader.stats()[-1].stages if one.name == "shard"]
            counted = (stage.measured["left out"], stage.measured["repeated"])
            assert counted == expected
            assert given + stage.dropped == 7 + counted[1]

    def test_nothing_without_ranks(self) -> None:
        with sp.Pipeline(range(7)).loader(executor="inline") as loader:
            assert all(stage.ranks is None for stage in loader.stats()[-1].stages)


class TestRepeatedItems:
    def test_are_copies(self) -> None:
        def spoilt(x: np.ndarray) -> float:
            total = float(x.sum())
            x[:] = -1
            return total

        pipe = sp.Pipeline(lambda: (np.full(3, n) for n in range(1, 4)))
        ranks = [list(pipe.shard(rank, 2, ends="pad").map(spoilt)) for rank in range(2)]
        assert ranks == [[3.0, 9.0], [6.0, 3.0]]


class TestGolden:
    """Who gets what, for ever: a run goes on with a version that deals in the same way."""

    def test_order(self) -> None:
        pipe = sp.Pipeline(range(20), shuffle="global", seed=11)
        got = [list(pipe.shard(rank, 3, ends="pad")) for rank in range(3)]
        assert got == GOLDEN


GOLDEN = [
    [18, 0, 12, 4, 19, 6, 1],
    [16, 5, 9, 8, 14, 13, 11],
    [7, 10, 15, 17, 2, 3, 18],
]
