"""Items that fail: the same ones are left out, counted and told, whoever treats them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.budgets import Budgets
from splitpipe.transport.message import Claim, Failed, Item, decode, encode
from splitpipe.transport.pickling import dump
from tests.runtime.comparing import all_frozen, read
from tests.sampling import sampled

ITEMS = 90
FORK = {"start_method": "fork"}

RUNS: dict[str, dict[str, Any]] = {
    "pipe": FORK,
    "zmq, no arena": {"transport": "zmq", "arena_bytes": 0, **FORK},
    "threads": {"executor": "thread"},
}


def record(number: int) -> dict[str, Any]:
    return {"image": np.full((40, 40), number, np.float32), "number": number}


def decoded(item: dict[str, Any]) -> dict[str, Any]:
    if item["number"] % 7 == 3:
        raise ValueError(f"bad {item['number']}")
    return item


def noisy(item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    if item["number"] % 11 == 0:
        raise KeyError(item["number"])
    return {**item, "noise": rng.normal(size=3)}


def wanted(item: dict[str, Any]) -> bool:
    return bool(decoded(item)["number"] % 2)


def parts(item: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for part in range(int(rng.integers(4))):
        yield {**item, "part": part}
        if part == 2 and item["number"] % 3 == 0:
            raise OSError(item["number"])


async def awaited(item: dict[str, Any], rng: np.random.Generator) -> tuple[int, float]:
    return decoded(item)["number"], float(rng.random())


def parity(item: dict[str, Any]) -> str:
    return ("even", "odd", "neither")[item["number"] % 3]


def total(rows: list[dict[str, Any]]) -> int:
    numbers = [row["number"] for row in rows]
    if 20 in numbers:
        raise ValueError("twenty")
    return sum(numbers)


class Damaged:
    """A sequence, some records of which cannot be read."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> int:
        if index % 13 == 5:
            raise OSError(f"sector {index}")
        return index

    def __repr__(self) -> str:
        return "damaged"


Stage = Callable[[sp.Pipeline], sp.Pipeline]

STAGES: dict[str, Stage] = {
    "map": lambda p: p.map(decoded, on_error="skip"),
    "map with rng": lambda p: p.map(noisy, on_error="skip").map(decoded, on_error="skip"),
    "filter": lambda p: p.filter(wanted, on_error="skip"),
    "flat_map": lambda p: p.flat_map(parts, on_error="skip").map(noisy, on_error="skip"),
    "unbatch": lambda p: p.map(decoded, on_error="skip").batch(4).unbatch(on_error="skip"),
    "batch": lambda p: p.map(decoded, on_error="skip").batch(7),
    "batch, collated": lambda p: p.batch(4, collate=total, on_error="skip"),
    "async_map": lambda p: p.async_map(awaited, concurrency=5, on_error="skip").batch(4),
    "route": lambda p: p.route(
        parity,
        {"odd": lambda b: b.map(noisy), "even": lambda b: b.flat_map(parts)},
        on_error="skip",
    ),
    "route, inside": lambda p: p.route(
        parity, {"odd": lambda b: b.map(noisy, on_error="skip"), "even": None}, other=None
    ),
    "split_by": lambda p: sp.merge(*p.split_by(parity, ["odd", "even"], on_error="skip").values()),
    "shuffled": lambda p: p.map(decoded, on_error="skip").shuffle(16).map(noisy, on_error="skip"),
    "taken": lambda p: p.map(decoded, on_error="skip").take(11),
    "cached": lambda p: p.map(noisy, on_error="skip").cache().map(decoded, on_error="skip"),
    "repeated": lambda p: p.map(noisy, on_error="skip").repeat(2),
    "retried": lambda p: p.map(decoded, on_error=sp.retry(1, delay_s=0, then="skip")).batch(3),
}


def sequence() -> sp.Pipeline:
    return sp.Pipeline(Damaged(), shuffle="global", seed=3, on_error="skip")


def factory() -> sp.Pipeline:
    return sp.Pipeline(lambda: iter(range(ITEMS)), seed=3)


def cut(
    source: Callable[[], sp.Pipeline], stage: Stage, before: int | None, behind: int | None
) -> sp.Pipeline:
    pipe = stage(source().map(record, workers=before))
    return pipe if behind is None else pipe.map(same, workers=behind)


def same(item: Any) -> Any:
    return item


def places(told: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is known of a failed item everywhere: pass, epoch, position and message."""
    return (*told[:3], told[-1])


def outcome(pipe: sp.Pipeline, **options: Any) -> tuple[Any, Any, Any]:
    """The items of two epochs, the counts of stages, and the first failures, by stage."""
    with pipe.loader(epochs=2, **options) as loader:
        epochs = [all_frozen(epoch) for epoch in loader.by_epoch()]
        counts: dict[str, list[int]] = {}
        for task in loader.stats():
            for stage in task.stages:
                known = counts.setdefault(stage.name, [0, 0, 0])
                now = (stage.skipped, stage.retried, stage.dropped)
                counts[stage.name] = [a + b for a, b in zip(known, now, strict=True)]
        told: dict[str, list[Any]] = {}
        for failed in loader.errors():
            what = (*failed.identity[1:], failed.source, failed.record, failed.message)
            told.setdefault(failed.stage, []).append(what)
    return epochs, {name: count for name, count in counts.items() if any(count)}, told


@pytest.mark.deadline(120)
@pytest.mark.parametrize(*sampled(1, name=STAGES, source=[sequence, factory]))
def test_stage(name: str, source: Callable[[], sp.Pipeline]) -> None:
    stage = STAGES[name]
    truth = outcome(cut(source, stage, None, None), executor="inline")
    assert len(truth[0]) == 2
    assert any(skipped for skipped, *_ in truth[1].values())
    runs = RUNS if source is sequence else {"pipe": FORK}
    for run, options in runs.items():
        if run.startswith("zmq") and name not in ("map", "flat_map", "route"):
            continue
        for before, behind in [(1, 1), (2, 2)] if name == "map" else [(2, 2)]:
            made = outcome(cut(source, stage, before, behind), **options)
            assert made[0] == truth[0], (run, before, behind)
            if name not in ("taken", "cached"):  # of those more may be made than is wanted
                assert made[1] == truth[1], (run, before, behind)
                for told, failed in truth[2].items():
                    assert [places(one) for one in made[2][told]] == [places(f) for f in failed]


def test_counts_add_up() -> None:
    pipe = sequence().map(record).map(decoded, on_error="skip", workers=2).filter(wanted).batch(8)
    with pipe.loader(**FORK) as loader:
        delivered = sum(len(batch["number"]) for batch in loader)
        stages = [stage for task in loader.stats() for stage in task.stages]
    skipped, dropped = sum(s.skipped for s in stages), sum(s.dropped for s in stages)
    assert skipped == len([n for n in range(ITEMS) if n % 13 == 5 or n % 7 == 3])
    assert delivered + dropped + skipped == ITEMS
    assert sum(task.skipped for task in loader.stats()) == skipped


class TestWholeRuns:
    def test_a_default_is_for_what_says_nothing(self) -> None:
        pipe = sp.Pipeline(Damaged()).map(record).map(decoded, workers=2).batch(8)
        truth = outcome(pipe, executor="inline", on_error="skip")
        assert set(truth[1]) == {"reading", "decoded"}
        assert outcome(pipe, on_error="skip", **FORK) == truth
        with pytest.raises(ValueError, match="bad 3"):
            list(pipe)

    def test_what_a_stage_says_counts_more(self) -> None:
        pipe = sp.Pipeline(range(ITEMS)).map(record).map(decoded, on_error="raise")
        got, error = read(pipe.loader(executor="inline", on_error="skip"))
        assert len(got) == 3
        assert type(error) is ValueError
        source = sp.Pipeline(Damaged(), on_error="raise")
        got, error = read(source.loader(executor="inline", on_error="skip"))
        assert got == list(range(5))
        assert type(error) is OSError

    def test_stages_over_the_stream_end_with_their_failures(self) -> None:
        def stream(items: Iterator[int]) -> Iterator[int]:
            for item in items:
                if item == 3:
                    raise ValueError("three")
                yield item

        pipe = sp.Pipeline(range(9)).through(stream)
        got, error = read(pipe.loader(executor="inline", on_error="skip"))
        assert got == [0, 1, 2]
        assert str(error) == "three"

    def test_every_reader_of_a_source_leaves_out_for_itself(self) -> None:
        pipe = sp.Pipeline(Damaged())
        both = sp.concat(pipe, pipe.map(float))
        good = [n for n in range(ITEMS) if n % 13 != 5]
        for options in ({"executor": "inline"}, FORK):
            with both.loader(on_error="skip", **options) as loader:  # type: ignore[arg-type]
                assert list(loader) == good + good
                assert {failed.stage for failed in loader.errors()} == {"reading", "reading-2"}

    def test_outputs_that_others_read_too_are_items(self) -> None:
        shared = sp.Pipeline(range(6)).map(lambda x: x + 1, workers=1)
        outputs = {"all": shared, "some": shared.map(lambda x: 6 // (x - 3), on_error="skip")}
        for options in ({"executor": "inline"}, FORK, {"executor": "thread"}):
            loaders = sp.run(outputs, **options)  # type: ignore[arg-type]
            assert list(loaders["all"]) == [1, 2, 3, 4, 5, 6]
            assert list(loaders["some"]) == [-3, -6, 6, 3, 2]
            for loader in loaders.values():
                loader.close()

    def test_a_pool_cannot_batch_what_may_be_left_out(self) -> None:
        pipe = sp.Pipeline(range(9)).map(record, on_error="skip").batch(2, workers=2)
        with pytest.raises(sp.GraphError, match=r"'record' may leave items out \(on_error\)"):
            pipe.explain()
        retried = sp.Pipeline(range(9)).map(record, on_error=sp.retry(1)).batch(2, workers=2)
        assert "units of 2 positions" in retried.explain()

    def test_a_cache_that_lacks_items_is_another(self, tmp_path: Path) -> None:
        left = {"fails": True}

        def sometimes(x: int) -> int:
            if x == 2 and left["fails"]:
                raise OSError
            return x

        # A partial of a dict would be another function; this one is told by what it closes over.
        pipe = sp.Pipeline(range(4)).map(sometimes).cache(tmp_path)
        with pipe.loader(executor="inline", on_error="skip") as loader:
            assert list(loader) == [0, 1, 3]
        left["fails"] = False
        assert list(pipe) == [0, 1, 2, 3]

    def test_nothing_is_said_where_nothing_can_fail(self) -> None:
        with sp.Pipeline(range(3)).loader(executor="inline") as loader:
            assert list(loader) == [0, 1, 2]
            assert loader.errors() == ()

    def test_while_it_runs(self) -> None:
        pipe = sp.Pipeline(range(10_000)).map(failing(range(5)), workers=2, on_error="skip")
        with pipe.loader(**FORK) as loader:
            assert next(loader) == 5
            assert [failed.position for failed in loader.errors()] == [0, 1, 2, 3, 4]
            assert loader.errors()[0].worker.startswith("worker ")
        assert len(loader.errors()) == 5  # and after it


def failing(bad: Any) -> Callable[[int], int]:
    bad = frozenset(bad)

    def decode(x: int) -> int:
        if x in bad:
            raise ValueError(f"bad {x}")
        return x

    return decode


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(
    bad=st.sets(st.integers(0, 299), max_size=60),
    late=st.sets(st.integers(0, 299), max_size=60),
    budget=st.one_of(st.none(), st.integers(0, 40), st.floats(0, 0.2)),
    executor=st.sampled_from(["thread", "thread", "process"]),
    workers=st.sampled_from([(1, 1), (2, None), (2, 2), (3, 1)]),
    behind=st.booleans(),
)
def test_any_items_may_fail(
    bad: set[int],
    late: set[int],
    budget: Any,
    executor: str,
    workers: tuple[int, int | None],
    behind: bool,
) -> None:
    """Two stages, perhaps in pools one behind the other, perhaps behind a sequential head."""
    policy = sp.skip(budget, after=100)

    def pipe(first: int | None, second: int | None) -> sp.Pipeline:
        source = sp.Pipeline(range(300), shuffle="global", seed=1)
        source = source.through(iter) if behind else source
        made = source.map(failing(bad), workers=first, name="one", on_error=policy)
        return made.map(failing(late), workers=second, name="two", on_error=policy)

    expected, truth = read(pipe(None, None).loader(executor="inline"))
    got, error = read(pipe(*workers).loader(executor=executor, **FORK))
    assert got == expected
    assert type(error) is type(truth)
    assert str(error) == str(truth)


class TestBudgets:
    @pytest.mark.parametrize("budget", [3, 0.01])
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_the_same_place_and_words_for_any_number_of_workers(
        self, workers: int, budget: float
    ) -> None:
        bad = [40, 41, 700, 2000, 2001, 2002, 2003, 4000, *range(6000, 9000)]
        pipe = sp.Pipeline(range(20_000)).map(
            failing(bad), workers=workers, on_error=sp.skip(budget)
        )
        got, error = read(pipe.loader(**FORK))
        last = 1999 if budget == 3 else 6060  # 60 of 6061 are as many as may
        assert got == [x for x in range(20_000) if x not in bad][: len(got)]
        assert type(error) is sp.BudgetExceeded
        if budget == 3:
            assert got[-1] == last
            assert "left out 4 of the first 2,001 items of epoch 0; its budget is 3. " in str(error)
        assert "item 40: ValueError: bad 40; item 41: " in str(error)
        assert "in stage 'decode'" in "\n".join(error.__notes__)

    def test_each_epoch_has_its_own(self) -> None:
        pipe = sp.Pipeline(range(100)).map(failing([1, 2]), workers=2, on_error=sp.skip(2))
        with pipe.loader(epochs=3, **FORK) as loader:
            assert len(list(loader)) == 3 * 98

    def test_what_is_not_wanted_is_not_judged(self) -> None:
        pipe = sp.Pipeline(range(500)).map(failing([400]), workers=2, on_error=sp.skip(0))
        with pipe.loader(epochs=2, **FORK) as loader:
            for epoch in loader.by_epoch():
                assert next(epoch) == 0

    def test_of_what_is_not_in_order(self) -> None:
        pipe = sp.Pipeline(range(5000)).map(
            failing(range(0, 5000, 10)), workers=2, ordered=False, on_error=sp.skip(499)
        )
        got, error = read(pipe.loader(**FORK))
        assert type(error) is sp.BudgetExceeded
        assert "left out 500 of" in str(error)
        assert set(got) < set(range(5000))

    def test_a_failure_behind_an_exceeded_budget(self) -> None:
        def fails(x: int) -> int:
            if x == 60:
                raise KeyError("later")
            return x

        pipe = sp.Pipeline(range(100)).map(failing([50]), workers=2, on_error=sp.skip(0)).map(fails)
        got, error = read(pipe.loader(**FORK))
        assert got == list(range(50))
        assert type(error) is sp.BudgetExceeded
        pipe = sp.Pipeline(range(100)).map(failing([70]), workers=2, on_error=sp.skip(0)).map(fails)
        got, error = read(pipe.loader(**FORK))
        assert got == list(range(60))
        assert type(error) is KeyError

    def test_a_later_stage_may_catch_it(self) -> None:
        def catching(items: Iterator[int]) -> Iterator[Any]:
            try:
                yield from items
            except sp.BudgetExceeded as error:
                yield type(error).__name__

        pipe = sp.Pipeline(range(100)).map(failing([5]), workers=2, on_error=sp.skip(0))
        with pipe.through(catching, workers=1).loader(**FORK) as loader:
            assert list(loader) == [0, 1, 2, 3, 4, "BudgetExceeded"]

    def test_the_first_of_several_places_counts(self) -> None:
        report = dump(
            [
                ("one", 0, 1000, 9, [(7, 8, "a")]),
                ("two", 0, 1000, 9, [(3, 4, "b")]),
            ]
        )
        found = Budgets().take(report, epoch=4)
        assert found is not None
        assert found[0] == 3
        assert "stage 'two' left out 1 of the first 4 items of epoch 4" in str(found[1])


@pytest.mark.parametrize("kind", [Item, Failed, Claim])
def test_a_report_travels_beside_the_body(kind: type) -> None:
    message = kind(1, 2, 3, 4, 5, 6, 7, 8, 9, b"")
    assert decode(encode(message) + b"body").report == b""
    message.report = b"said"
    wire = decode(encode(message) + b"body")
    assert (bytes(wire.report), bytes(wire.body), wire.stop) == (b"said", b"body", 6)


def test_threads_that_wait_for_another_try_end_with_their_run() -> None:
    policy = sp.retry(1000, delay_s=30.0)
    pipe = sp.Pipeline(range(9)).map(failing([1]), workers=1, executor="thread", on_error=policy)
    with pipe.loader() as loader:
        assert next(loader) == 0
        # The worker waits for its next try now, or will; closing wakes it. A thread that was left
        # behind would be a warning, and that an error.


def test_with_keys(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "data") as writer:
        for n in range(20):
            writer.write({"n": n}, key=f"key {n}")
    with sp.open_dataset(tmp_path / "data") as dataset:
        pipe = sp.Pipeline(dataset, shuffle="global", seed=2)
        numbers = pipe.map(lambda record: record["n"]).map(
            failing([13]), workers=2, on_error="skip", name="check"
        )
        with numbers.loader(executor="thread") as loader:
            assert len(list(loader)) == 19
            (failed,) = loader.errors()
    assert (failed.record, failed.key) == (13, "key 13")
    assert failed.source.startswith("Dataset")
    assert json.loads(failed.to_json())["key"] == "key 13"


def test_ranks_leave_out_of_what_they_were_dealt() -> None:
    class Counting(Damaged):
        def __init__(self) -> None:
            self.reads: list[int] = []

        def __getitem__(self, index: int) -> int:
            self.reads.append(index)
            return super().__getitem__(index)

    good = {n for n in range(ITEMS) if n % 13 != 5}
    seen: list[int] = []
    for rank in range(3):
        source = Counting()
        pipe = sp.Pipeline(source, shuffle="global", seed=4).map(int).shard(rank, 3)
        with pipe.loader(executor="inline", on_error="skip") as loader:
            seen += list(loader)
            failed = loader.errors()
        assert len(source.reads) == ITEMS // 3
        assert all(one.record is not None and one.record % 13 == 5 for one in failed)
        outcomes = [(one.item.position, one.outcome) for one in sp.rerun(failed, pipe)]
        assert outcomes == [(one.position, "fails") for one in failed]
    assert sorted(seen) == sorted(good)
