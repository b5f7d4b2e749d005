"""Many streams as one source: counted exactly, and like any other source however it is run."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import splitpipe as sp
from splitpipe.errors import GraphError, ResumeError
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.streams.schedules import SCHEDULES, WITH_BATCH
from tests.runtime.comparing import all_frozen, frozen

EXECUTORS: list[dict[str, Any]] = [{"start_method": "fork"}, {"executor": "thread"}]


def tagged(name: str, size: int) -> list[tuple[str, int]]:
    return [(name, number) for number in range(size)]


def web(**more: Any) -> sp.Streams:
    parts = {
        "web": sp.Stream(tagged("web", 30), proportion=6),
        "books": sp.Stream(tagged("books", 9), proportion=3),
        "code": sp.Stream(tagged("code", 4), proportion=1),
    }
    return sp.Streams(parts, **{"epoch_size": 45, **more})


def every(name: str) -> sp.Streams:
    return web(schedule=name, batch=5 if name in WITH_BATCH else None)


def names_of(items: Any) -> list[str]:
    return [name for name, _ in items]


def drawn(item: Any, rng: np.random.Generator) -> tuple[Any, int]:
    return item, int(rng.integers(1 << 40))


class TestSaying:
    def test_counts(self) -> None:
        ten, four = range(10), range(4)
        assert sp.Streams([ten, four]).counts == (10, 4)
        assert sp.Streams([sp.Stream(ten, repeat=2.5), sp.Stream(four, choose=3)]).counts == (25, 3)
        assert sp.Streams([sp.Stream(ten, repeat=0.25), four]).counts == (3, 4)
        halves = [sp.Stream(ten, proportion=1), sp.Stream(four, proportion=1)]
        assert sp.Streams(halves).counts == (7, 7)
        assert sp.Streams(halves, epoch_size=101).counts == (51, 50)
        assert len(sp.Streams(halves, epoch_size=101)) == 101

    def test_batches_of_one_stream_are_whole(self) -> None:
        streams = [sp.Stream(range(10)), sp.Stream(range(23))]
        assert sp.Streams(streams, schedule="per-stream", batch=4).counts == (8, 20)
        shares = [sp.Stream(range(10), proportion=1), sp.Stream(range(9), proportion=2)]
        made = sp.Streams(shares, schedule="per-stream", batch=4, epoch_size=30)
        assert made.counts == (8, 20)  # 2 and 5 of 7 batches

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: sp.Stream(range(3), repeat=1, choose=2), "one of repeat and choose"),
            (lambda: sp.Stream(range(3), proportion=-1), "proportion must be"),
            (lambda: sp.Stream(range(3), repeat=float("nan")), "repeat must be"),
            (lambda: sp.Stream(range(3), choose=2.5), "choose must be"),  # type: ignore[arg-type]
            (lambda: sp.Stream(range(3), shuffle="all"), "shuffle must be one of"),
            (lambda: sp.Stream(range(3), window=0), "window must be"),
            (lambda: sp.Stream(sp.Pipeline(range(3))), "mixed by sp.mix"),
            (lambda: sp.Stream(iter([])), "a stream is of a sequence"),
            (lambda: sp.Stream("abc"), "a stream is of a sequence"),
            (lambda: sp.Streams([]), "from 1 to"),
            (lambda: sp.Streams(range(3)), "a stream is of a sequence"),
            (lambda: sp.Streams(7), "streams are a list"),
            (lambda: sp.Streams([range(3)], schedule="any"), "schedule must be one of"),
            (lambda: sp.Streams([range(3)], schedule="stratified"), "needs to know batch="),
            (lambda: sp.Streams([range(3)], batch=3), "knows no batches"),
            (lambda: sp.Streams([range(3)], epoch_size=3), "shares an epoch out by proportions"),
            (lambda: sp.Streams([sp.Stream(range(3), proportion=0)]), "are all 0"),
            (lambda: sp.Streams([sp.Stream(range(3), choose=0)]), "has no sample"),
            (lambda: sp.Streams([sp.Stream([], choose=2)]), "has no records"),
            (
                lambda: sp.Streams({"a": sp.Stream(range(3), proportion=1), "b": range(3)}),
                "stream 'b' says none",
            ),
            (
                lambda: sp.Streams([range(3)], schedule="per-stream", batch=4),
                "has no sample",
            ),
            (lambda: sp.Streams([sp.Stream(range(3), choose=1 << 40)]), "too long"),
            (
                lambda: sp.Pipeline(sp.Streams({"a": range(3)}), shuffle="binwise"),
                "stream 'a': a range has no bins",
            ),
        ],
    )
    def test_what_cannot_be_meant(self, make: Callable[[], Any], words: str) -> None:
        with pytest.raises(GraphError, match=words):
            make()

    def test_it_says_what_it_is(self) -> None:
        streams = web()
        assert repr(streams) == "Streams(random, web: 27, books: 14, code: 4)"
        assert "Streams(random, web: 27" in repr(sp.Pipeline(streams, shuffle="global"))
        source = sp.Pipeline(web(schedule="sequential")).source
        assert isinstance(source, SequenceSource)
        assert source.describe(30, 0) == "record 3 of stream 'books'"
        assert streams.where(31) == ("books", 1)
        with pytest.raises(IndexError):
            streams.where(43)
        assert repr(sp.Stream(range(3), choose=2)) == "Stream(range(0, 3), choose=2)"


class Slow(list[Any]):
    together = 16


def test_how_many_are_worth_asking_for_is_what_the_most_patient_says() -> None:
    source = sp.Pipeline(sp.Streams([range(9), Slow([1, 2, 3])])).source
    assert isinstance(source, SequenceSource)
    assert source.together == 16
    source = sp.Pipeline(sp.Streams([range(9)])).source
    assert isinstance(source, SequenceSource)
    assert source.together == 1


class TestStream:
    @pytest.mark.parametrize("name", SCHEDULES)
    @pytest.mark.parametrize("shuffle", [None, "global"])
    def test_an_epoch_has_what_was_said(self, name: str, shuffle: str | None) -> None:
        streams = every(name)
        pipe = sp.Pipeline(streams, shuffle=shuffle, seed=3)
        items = list(pipe)
        assert len(items) == len(pipe) == sum(streams.counts)
        often = Counter(names_of(items))
        assert [often[one] for one in streams.names] == list(streams.counts)
        for number, (one, size) in enumerate((("web", 30), ("books", 9), ("code", 4))):
            each = Counter(item for item in items if item[0] == one)
            count = streams.counts[number]
            assert set(each.values()) <= {count // size, -(-count // size)} - {0}
            if shuffle is None:  # in the stream's own order
                mine = [item for item in items if item[0] == one]
                assert mine == (tagged(one, size) * 9)[:count]

    def test_every_batch_has_its_shares(self) -> None:
        pipe = sp.Pipeline(web(schedule="stratified", batch=10), shuffle="global")
        for epoch in (0, 1):
            del epoch
            for batch in pipe.batch(10, collate=list, drop_last=True):
                often = Counter(names_of(batch))
                assert often["web"] == 6
                assert often["books"] in (3, 4)
                assert often["code"] in (0, 1)

    def test_every_batch_is_of_one_stream(self) -> None:
        batches = list(sp.Pipeline(every("per-stream"), shuffle="global").batch(5, collate=list))
        assert all(len(set(names_of(batch))) == 1 for batch in batches)
        assert Counter(batch[0][0] for batch in batches) == {"web": 5, "books": 3, "code": 1}

    def test_epochs_differ_and_repeat_themselves(self) -> None:
        pipe = sp.Pipeline(web(), shuffle="global", seed=5)
        with pipe.loader(executor="inline", epochs=3) as loader:
            items = list(loader)
        assert items[:45] == list(pipe)
        assert items[:45] != items[45:90] != items[90:]
        with sp.Pipeline(web(), shuffle="global", seed=6).loader(executor="inline") as loader:
            assert list(loader) != items[:45]

    def test_a_chosen_part_is_another_one_in_every_epoch(self) -> None:
        streams = sp.Streams([sp.Stream(range(100), choose=20)])
        with sp.Pipeline(streams, shuffle="global").loader(executor="inline", epochs=5) as loader:
            items = list(loader)
        assert sorted(items) == list(range(100))

    def test_an_order_of_its_own(self) -> None:
        parts = [sp.Stream(range(50), shuffle=False), sp.Stream(range(50, 100))]
        items = list(sp.Pipeline(sp.Streams(parts), shuffle="global"))
        assert [item for item in items if item < 50] == list(range(50))
        later = [item for item in items if item >= 50]
        assert later != sorted(later)
        assert sorted(later) == list(range(50, 100))

    def test_repeating_and_taking(self) -> None:
        pipe = sp.Pipeline(web(), shuffle="global").repeat(2)
        assert len(pipe) == 90
        assert names_of(pipe).count("code") == 8
        assert list(pipe.take(50)) == list(pipe)[:50]

    def test_balancing(self) -> None:
        costs = [number % 7 for number in range(43)]
        streams = web(schedule="stratified", batch=6)
        ranks = [
            list(sp.Pipeline(streams, shuffle="global").shard(r, 2).balance(cost=costs, size=3))
            for r in range(2)
        ]
        both = Counter(ranks[0]) + Counter(ranks[1])
        assert both == Counter(list(sp.Pipeline(streams, shuffle="global"))[:44])


class TestDatasets:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> Iterator[list[Any]]:
        made = []
        for name, size in (("a", 40), ("b", 25)):
            path = tmp_path / name
            with sp.DatasetWriter(path, schema={"name": "str", "n": "int64"}, bins=4) as writer:
                writer.write_many([{"name": name, "n": n} for n in range(size)])
            made.append(sp.open_dataset(path))
        yield made
        for one in made:
            one.close()

    @pytest.mark.parametrize("shuffle", [None, "global", "binwise"])
    def test_of_the_same_columns(self, parts: list[Any], shuffle: str | None) -> None:
        streams = sp.Streams([sp.Stream(parts[0], choose=20), sp.Stream(parts[1], repeat=2)])
        assert isinstance(streams.records, sp.Dataset)
        pipe = sp.Pipeline(streams, shuffle=shuffle)
        items = list(pipe)
        assert Counter(item["name"] for item in items) == {"a": 20, "b": 50}
        order = pipe.source.order(0)
        assert items == [streams.records[row] for row in order]
        if shuffle == "binwise":  # half a dataset is half its bins
            assert len({item["n"] % 4 for item in items if item["name"] == "a"}) == 2
        with (
            pickle.loads(pickle.dumps(pipe))
            .map(frozen, workers=2)
            .loader(start_method="fork") as loader
        ):
            assert list(loader) == [frozen(item) for item in items]

    def test_of_other_columns(self, parts: list[Any]) -> None:
        streams = sp.Streams([parts[0], parts[1].select(["n"]), range(1000, 1010)])
        pipe = sp.Pipeline(streams, shuffle="global")
        items = list(pipe)
        assert items == [streams.records[row] for row in pipe.source.order(0)]
        assert sum(isinstance(item, int) for item in items) == 10
        assert sum(set(item) == {"n"} for item in items if isinstance(item, dict)) == 25

    def test_a_job_writes_what_it_says(self, parts: list[Any], tmp_path: Path) -> None:
        streams = sp.Streams([sp.Stream(parts[0], repeat=1.5), parts[1]], schedule="round-robin")
        pipe = sp.Pipeline(streams, shuffle="global", seed=3)
        assert sp.Job(pipe, tmp_path / "out").run(workers=0).total.written == 85
        with sp.open_dataset(tmp_path / "out") as made:
            assert list(made) == list(pipe)
        other = sp.Pipeline(sp.Streams([sp.Stream(parts[0], repeat=1.5), parts[1]]), seed=3)
        with pytest.raises(sp.SplitpipeError):
            sp.Job(other, tmp_path / "out").run(workers=0)

    def test_a_state_is_of_these_datasets(self, parts: list[Any], tmp_path: Path) -> None:
        with sp.Pipeline(sp.Streams(parts)).loader(executor="inline") as loader:
            next(loader)
            state = loader.state_dict()
        with pytest.raises(ResumeError, match="streams"):
            sp.Pipeline(sp.Streams(parts[::-1])).loader(executor="inline", state=state)
        other = sp.Streams(parts, schedule="sequential")
        with pytest.raises(ResumeError, match="streams"):
            sp.Pipeline(other).loader(executor="inline", state=state)


class TestRunning:
    @pytest.mark.parametrize("name", SCHEDULES)
    @pytest.mark.parametrize("options", EXECUTORS, ids=["process", "thread"])
    @pytest.mark.parametrize("workers", [1, 3])
    def test_workers_change_nothing(self, name: str, options: dict[str, Any], workers: int) -> None:
        pipe = sp.Pipeline(every(name), shuffle="global", seed=1)
        truth = list(pipe.map(drawn).batch(4, collate=list))
        with pipe.map(drawn, workers=workers).batch(4, collate=list).loader(**options) as loader:
            assert list(loader) == truth

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_resuming_at_every_item(self, name: str) -> None:
        pipe = sp.Pipeline(every(name), shuffle="global", seed=1).map(drawn)
        with pipe.loader(executor="inline", epochs=2) as loader:
            states, items = [loader.state_dict()], []
            for item in loader:
                items.append(item)
                states.append(loader.state_dict())
        for at, state in enumerate(states):
            with pipe.loader(executor="inline", epochs=2, state=state) as loader:
                assert list(loader) == items[at:]

    def test_resuming_with_workers(self) -> None:
        pipe = sp.Pipeline(web(), shuffle="global", seed=1).map(drawn, workers=2)
        truth = list(pipe)
        for at in (0, 1, 17, 44, 45):
            with pipe.loader(start_method="fork") as loader:
                for _ in range(at):
                    next(loader)
                state = loader.state_dict()
            with pipe.loader(start_method="fork", state=state) as loader:
                assert list(loader) == truth[at:]

    @given(st.sampled_from(SCHEDULES), st.integers(1, 7), st.sampled_from(["drop", "uneven"]))
    @settings(max_examples=25)
    def test_ranks_join_to_the_whole(self, name: str, world: int, ends: str) -> None:
        pipe = sp.Pipeline(every(name), shuffle="global", seed=2).map(drawn)
        whole = list(pipe)
        if ends == "drop":
            whole = whole[: len(whole) // world * world]
        ranks = [list(pipe.shard(rank, world, ends=ends)) for rank in range(world)]
        assert all(ranks[at % world][at // world] == item for at, item in enumerate(whole))
        assert sum(map(len, ranks)) == len(whole)
        assert pipe.shard(0, world).explain()

    def test_ranks_have_their_shares_of_every_batch(self) -> None:
        pipe = sp.Pipeline(web(schedule="stratified", batch=20, epoch_size=100), shuffle="global")
        for rank in range(2):
            for batch in pipe.shard(rank, 2).batch(10, collate=list):
                often = Counter(names_of(batch))
                assert abs(often["web"] - 6) <= 1
                assert abs(often["books"] - 3) <= 1
                assert often["code"] in (0, 1, 2)

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_going_on_with_other_ranks(self, name: str) -> None:
        pipe = sp.Pipeline(every(name), shuffle="global", seed=2).map(drawn)
        whole, states, had = list(pipe), [], []
        for rank in range(3):
            with pipe.shard(rank, 3).loader(executor="inline") as loader:
                had += [next(loader) for _ in range(4)]
                states.append(loader.state_dict())
        assert sorted(had) == sorted(whole[:12])
        left = []
        for rank, state in enumerate(sp.redistribute(states, 2)):
            with pipe.shard(rank, 2).loader(executor="inline", state=state) as loader:
                left.append(all_frozen(loader))
        rest = whole[12:]
        rest = rest[: len(rest) // 2 * 2]
        assert [left[at % 2][at // 2] for at in range(len(rest))] == [frozen(one) for one in rest]

    def test_verify_knows_what_may_come_twice(self) -> None:
        pipe = sp.Pipeline(every("random"), shuffle="global").map(drawn)
        assert sp.verify(pipe, checks=["once", "repeat"]).ok
