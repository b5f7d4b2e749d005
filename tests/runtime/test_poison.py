"""An item that ends its workers is left out where its stage says so, exactly that one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.runtime.deaths import Death, Record
from splitpipe.runtime.notes import Accused, Site
from tests.runtime.comparing import all_frozen, read
from tests.runtime.dying import WAYS, kill_one
from tests.sampling import sampled

FORK: dict[str, Any] = {"start_method": "fork"}
TRANSPORTS = ("pipe", "zmq")
COUNT = 60
BAD = (7, 8, 31, 55)


class Poison:
    """A function that ends its process at some items, every time, or raises in this one.

    Args:
        at: items.
        how: one of `WAYS`; None: it raises.
    """

    def __init__(self, at: Iterable[int] = BAD, how: str | None = "kill") -> None:
        self.at, self.how = frozenset(at), how

    def map(self, x: int) -> int:
        if x in self.at:
            if self.how is None:
                raise ValueError(x)
            WAYS[self.how]()
        return x

    def map_rng(self, x: int, rng: Any) -> tuple[int, int]:
        drawn = int(rng.integers(1000))
        return self.map(x), drawn

    def keep(self, x: int) -> bool:
        return self.map(x) % 3 != 0

    def several(self, x: int) -> Iterator[int]:
        for part in range(x % 4):
            yield self.map(x) * 10 + part

    def of_parts(self, x: int) -> int:
        """Bad at one part of some items only."""
        if x // 10 in self.at and x % 10 == 2:
            self.map(x // 10)
        return x

    def rows(self, rows: list[int]) -> list[int]:
        return [self.map(row) for row in rows]


def same(x: Any) -> Any:
    return x


def pairs(items: Iterable[Any]) -> Iterator[Any]:
    before = None
    for item in items:
        yield before, item
        before = item


Shape = Callable[[sp.Pipeline, Poison, Any, "int | None"], sp.Pipeline]

SHAPES: dict[str, Shape] = {
    "map": lambda p, f, on_error, w: p.map(f.map, workers=w, on_error=on_error),
    "rng": lambda p, f, on_error, w: p.map(f.map_rng, workers=w, on_error=on_error),
    "filter": lambda p, f, on_error, w: p.filter(f.keep, workers=w, on_error=on_error).batch(
        4, collate=list
    ),
    "flat_map": lambda p, f, on_error, w: p.flat_map(f.several, workers=w, on_error=on_error),
    "a part": lambda p, f, on_error, w: p.flat_map(Poison(()).several, workers=w).map(
        f.of_parts, workers=w, on_error=on_error
    ),
    "behind": lambda p, f, on_error, w: (
        p.map(same, workers=w).map(f.map, workers=w, on_error=on_error).map(same, workers=w)
    ),
    "behind a head": lambda p, f, on_error, w: p.through(same, workers=1).map(
        f.map, workers=w, on_error=on_error
    ),
    "shuffled": lambda p, f, on_error, w: (
        p.shuffle(9, workers=1).map(f.map, workers=w, on_error=on_error).through(pairs, workers=1)
    ),
    "route": lambda p, f, on_error, w: p.route(
        lambda x: x % 2,
        {0: lambda b: b, 1: lambda b: b.map(f.map, on_error=on_error)},
        workers=w,
    ),
    "whole route": lambda p, f, on_error, w: p.route(
        lambda x: x % 2, {0: lambda b: b.map(f.map), 1: lambda b: b.map(f.map)},
        workers=w, on_error=on_error,
    ),
    "batch": lambda p, f, on_error, w: p.batch(
        3, collate=f.rows, workers=w and 1, on_error=on_error
    ),
    "twice": lambda p, f, on_error, w: p.repeat(2).map(f.map, workers=w, on_error=on_error),
}  # fmt: skip


def sequence() -> sp.Pipeline:
    return sp.Pipeline(range(COUNT), shuffle="global", seed=2)


def factory() -> sp.Pipeline:
    return sp.Pipeline(lambda: iter(range(COUNT)), seed=2)


def left_out(path: Path) -> list[sp.FailedItem]:
    return sorted(sp.read_quarantine(path), key=lambda one: one.identity)


@pytest.mark.deadline(180)
@pytest.mark.parametrize(*sampled(1, shape=SHAPES, workers=[1, 3]))
def test_exactly_that_item(shape: str, workers: int, tmp_path: Path) -> None:
    """What comes is what comes inline where these items raise, and so is what is written down."""
    make, files = SHAPES[shape], (tmp_path / "raised.jsonl", tmp_path / "died.jsonl")
    source = factory if len(shape) % 2 else sequence
    raising = make(source(), Poison(how=None), sp.quarantine(files[0]), None)
    truth = all_frozen(raising.loader(executor="inline"))
    expected = left_out(files[0])
    assert len(expected) >= 3
    pipe = make(source(), Poison(), sp.quarantine(files[1]), workers)
    with pipe.loader(prefetch=2, **FORK) as loader:
        assert all_frozen(loader) == truth
        assert any(stage.skipped for task in loader.stats() for stage in task.stages)
        assert sum(task.deaths for task in loader.stats()) >= 3
        assert {one.identity for one in loader.errors()} <= {one.identity for one in expected}
    found = left_out(files[1])
    assert [one.identity for one in found] == [one.identity for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.source == other.source
        assert one.record in (other.record, None)  # not every sequence travels
        assert one.error == "splitpipe.errors.PoisonRecord"
        assert "has ended 3 workers" in one.message
        assert "was killed by SIGKILL" in one.traceback
        assert one.action == "quarantined"


@pytest.mark.parametrize(
    ("how", "said"),
    [("segv", "SIGSEGV"), ("exit-3", "left with exit status 3"), ("exit-0", "exit status 0")],
)
def test_however_it_ends_them(how: str, said: str, tmp_path: Path) -> None:
    pipe = sp.Pipeline(range(20)).map(Poison([4], how).map, workers=2, on_error="skip")
    with pipe.loader(**FORK) as loader:
        assert list(loader) == [*range(4), *range(5, 20)]
        (failed,) = loader.errors()
    assert said in failed.message
    assert failed.position == failed.record == 4


@pytest.mark.deadline(120)
@pytest.mark.parametrize("how", ["loop", "lock"])
def test_also_where_they_are_stuck(how: str) -> None:
    pipe = sp.Pipeline(range(9)).map(
        Poison([4], how).map, workers=2, on_error="skip", deadline_s=0.3
    )
    with pipe.loader(**FORK) as loader:
        assert list(loader) == [*range(4), *range(5, 9)]
        (failed,) = loader.errors()
    assert "made no progress in stage" in failed.message


@pytest.mark.deadline(180)
@pytest.mark.parametrize(*sampled(1, workers=[1, 3], transport=TRANSPORTS))
def test_in_every_epoch_and_any_order(workers: int, transport: str) -> None:
    poison = Poison([3, 4, 5])
    pipe = sequence().map(poison.map, workers=workers, on_error="skip", ordered=workers == 1)
    with pipe.loader(epochs=2, transport=transport, **FORK) as loader:
        for items in loader.by_epoch():
            assert sorted(items) == [x for x in range(COUNT) if x not in poison.at]


class TestBudgets:
    @pytest.mark.deadline(120)
    @pytest.mark.parametrize(*sampled(1, workers=[1, 3], budget=[0, 2, 0.05]))
    def test_are_judged_in_the_order_of_the_stream(self, workers: int, budget: float) -> None:
        got: dict[str, Any] = {}
        for how in (None, "kill"):
            pipe = sequence().map(
                Poison(how=how).map,
                workers=workers if how else None,
                on_error=sp.skip(budget=budget, after=10),
            )
            options = {"executor": "inline"} if how is None else FORK
            items, error = read(pipe.loader(**options))
            assert isinstance(error, sp.BudgetExceeded)
            got[str(how)] = items, str(error).partition(" items of epoch")[0]
        assert got["kill"] == got["None"]

    def test_that_are_kept(self) -> None:
        pipe = sequence().map(Poison().map, workers=2, on_error=sp.skip(budget=len(BAD)))
        with pipe.loader(**FORK) as loader:
            assert len(list(loader)) == COUNT - len(BAD)


class TestGoingOn:
    @pytest.mark.deadline(180)
    @pytest.mark.parametrize(*sampled(1, shape=["map", "shuffled", "flat_map"], workers=[1, 3]))
    def test_is_exact(self, shape: str, workers: int) -> None:
        truth = all_frozen(SHAPES[shape](sequence(), Poison(how=None), "skip", None))
        pipe = SHAPES[shape](sequence(), Poison(), "skip", workers)
        state: dict[str, Any] | None = None
        got: list[Any] = []
        while len(got) < len(truth):
            with pipe.loader(state=state, prefetch=1, **FORK) as loader:
                for item, _ in zip(loader, range(17), strict=False):
                    got += all_frozen([item])
                    state = loader.state_dict()
        assert got == truth

    @pytest.mark.deadline(120)
    def test_beside_workers_that_are_killed(self) -> None:
        pipe = sequence().map(Poison([9, 40]).map, workers=2, on_error="skip")
        truth = [x for x in list(sequence()) if x not in (9, 40)]
        with pipe.loader(prefetch=1, restarts=None, **FORK) as loader:
            got = []
            for item in loader:
                got.append(item)
                if len(got) in (5, 20, 50):
                    kill_one(loader, len(got))
        assert got == truth


class TestWhatIsAnErrorStill:
    def expect(self, pipe: sp.Pipeline, error: type[Exception], match: str, **options: Any) -> None:
        with pipe.loader(**FORK, **options) as loader, pytest.raises(error, match=match):
            list(loader)

    def test_without_a_policy(self) -> None:
        pipe = sequence().map(Poison([4]).map, workers=2).map(same, on_error="skip")
        self.expect(pipe, sp.PoisonRecord, "record 4 of range.* has ended 3 workers")

    def test_of_which_the_policy_does_not_speak(self) -> None:
        policy = sp.skip(errors=(ValueError, OSError))
        pipe = sequence().map(Poison([4]).map, workers=2, on_error=policy)
        self.expect(pipe, sp.PoisonRecord, "record 4 of range.* has ended 3 workers")
        pipe = sequence().map(
            Poison([4]).map, workers=2, on_error=sp.skip(errors=(ValueError, sp.PoisonRecord))
        )
        with pipe.loader(**FORK) as loader:
            assert len(list(loader)) == COUNT - 1

    def test_retries_are_the_deaths(self) -> None:
        pipe = sequence().map(Poison([4]).map, workers=2, on_error=sp.retry(5, delay_s=0))
        self.expect(pipe, sp.PoisonRecord, "has ended 3 workers")
        policy = sp.retry(5, delay_s=0, then="skip")
        with sequence().map(Poison([4]).map, workers=2, on_error=policy).loader(**FORK) as loader:
            assert len(list(loader)) == COUNT - 1

    def test_in_a_stage_behind_one_that_may_leave_it_out(self) -> None:
        """What a stage has given is its reader's."""
        pipe = sequence().map(same, workers=2, on_error="skip").map(Poison([4]).map, workers=2)
        self.expect(pipe, sp.PoisonRecord, "has ended 3 workers in stage 'map'")

    def test_where_several_items_are_under_way(self) -> None:
        async def awaited(x: int) -> int:
            return Poison([4]).map(x)

        pipe = sequence().async_map(awaited, workers=1, on_error="skip")
        self.expect(pipe, sp.PipelineError, "ended 3 workers|death number")

    def test_no_restarts(self) -> None:
        pipe = sequence().map(Poison([4]).map, workers=2, on_error="skip")
        self.expect(pipe, sp.WorkerDied, "SIGKILL", restarts=0)
        with pipe.loader(restarts=1, **FORK) as loader:  # the second one is known
            assert len(list(loader)) == COUNT - 1


def still_bad(x: int) -> int:
    return Poison([4, 6]).map(x)


def mended(x: int) -> int:
    return Poison([6]).map(x)


@pytest.mark.deadline(120)
def test_making_them_once_more_tells_of_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"

    def pipe(function: Any) -> sp.Pipeline:
        return sequence().map(function, workers=2, on_error=sp.quarantine(path), name="bad")

    with pipe(still_bad).loader(**FORK) as loader:
        assert len(list(loader)) == COUNT - 2
    found = left_out(path)
    for function, expected in ((still_bad, ["fails", "fails"]), (mended, ["passes", "fails"])):
        outcomes = sorted(sp.rerun(found, pipe(function)), key=lambda one: one.item.record or 0)
        assert [one.outcome for one in outcomes] == expected
        error = outcomes[-1].error
        assert error is not None
        assert error.record == 6
        assert "was killed by SIGKILL" in error.message
    assert left_out(path) == found


def test_want_of_memory_is_no_fault_of_an_item() -> None:
    task = plan({"": sequence().map(same, workers=2, on_error="skip").node}, RunOptions()).tasks[0]
    record = Record(9, (task,))
    item = Accused(7, 0, 4, 0)
    site = Site(0, 0, 0, 8, position=4, stage=1, item=item)
    dead = Death(0, "same", 0, 4711, -9, site=site, memory="memory.max counts 1 more")
    assert record.suspects
    assert record.note([dead], 0) is record.note([dead], 0) is None
    error = record.note([dead], 0)
    assert isinstance(error, sp.PoisonRecord)
    assert not record.accused
    record = Record(0 + 1, (task,))
    found = [record.note([replace(dead, memory="")], 0) for _ in range(7)]
    assert found == [None] * 7
    assert list(record.accused) == [item]
