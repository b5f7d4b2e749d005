"""An epoch that goes on over a source that has become shorter is an error, never a short epoch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.runtime import capture, engine, ledger
from tests.runtime.comparing import all_frozen

INLINE: dict[str, Any] = {"executor": "inline"}
FORK: dict[str, Any] = {"start_method": "fork", "prefetch": 2}
THREADS: dict[str, Any] = {"executor": "thread"}
EXECUTORS = {"inline": INLINE, "process": FORK, "thread": THREADS}


@pytest.fixture(autouse=True)
def _many_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (capture, engine, ledger):
        monkeypatch.setattr(module, "NOTE_S", 0.0)


def same(x: Any) -> Any:
    return x


def odd(x: int) -> bool:
    return x % 2 == 1


def free(items: Iterable[Any]) -> Iterator[Any]:
    yield from items


def in_threes(items: Iterable[Any]) -> Iterator[Any]:
    held = []
    for item in items:
        held.append(item)
        if len(held) == 3:
            yield from held
            held = []


def source(count: int) -> sp.Pipeline:
    return sp.Pipeline(lambda: iter(range(count)), seed=1)


SHAPES: dict[str, Callable[[sp.Pipeline, int | None], sp.Pipeline]] = {
    "source": lambda p, w: p,
    "map": lambda p, w: p.map(same, workers=w),
    "filter": lambda p, w: p.filter(odd, workers=w),
    "batch": lambda p, w: p.batch(4, collate=list),
    "window": lambda p, w: p.map(same, workers=w).window(4, 1, collate=list),
    "free": lambda p, w: p.through(free, workers=w and 1),
    "free behind": lambda p, w: p.map(same, workers=w).through(in_threes, workers=w and 1).map(str),
    "shuffle": lambda p, w: p.map(same, workers=w).shuffle(8),
    "zip": lambda p, w: sp.zip(p, p.map(same, workers=w)),
    "mix": lambda p, w: sp.mix([p, p.map(same, workers=w)]),
    "twice": lambda p, w: p.repeat(2).map(same, workers=w),
}


def state_after(pipe: sp.Pipeline, count: int, **options: Any) -> dict[str, Any]:
    with pipe.loader(**options) as loader:
        for _ in range(count):
            next(loader)
        made: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
        return made


@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    ("executor", "workers"),
    [("inline", None), *((one, workers) for one in ("process", "thread") for workers in (1, 2))],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_an_error(shape: str, workers: int | None, executor: str) -> None:
    make, options = SHAPES[shape], EXECUTORS[executor]
    whole = make(source(40), workers)
    truth = all_frozen(whole.loader(**INLINE))
    count = len(truth) * 3 // 4
    for saved in (INLINE, options):
        state = state_after(whole, count, **saved)
        with whole.loader(state=state, **options) as loader:
            assert all_frozen(loader) == truth[count:]
        with (
            make(source(5), workers).loader(state=state, **options) as loader,
            pytest.raises(sp.ResumeError, match=r"ended epoch 0 after \d+ items; \d+ ") as raised,
        ):
            list(loader)
        assert "shorter" in str(raised.value)


@pytest.mark.parametrize("executor", EXECUTORS)
class TestTheSource:
    def test_is_named_with_what_it_gave_and_what_was_wanted(self, executor: str) -> None:
        options = EXECUTORS[executor]
        state = state_after(source(40).map(same, workers=1), 30, **options)
        wanted = r"the source 'source' ended epoch 0 after 12 items; 30 of them were read"
        with (
            source(12).map(same, workers=1).loader(state=state, **options) as loader,
            pytest.raises(sp.ResumeError, match=wanted),
        ):
            next(loader)

    def test_that_a_free_stage_reads_again(self, executor: str) -> None:
        """It makes enough of what is left: that it had read more is known all the same."""
        options = EXECUTORS[executor]

        def sums(items: Iterable[int]) -> Iterator[int]:
            held = list(items)
            yield from held[:3]
            yield from held

        state = state_after(source(40).through(sums), 5, **options)
        with (
            source(12).through(sums).loader(state=state, **options) as loader,
            pytest.raises(
                sp.ResumeError,
                match=r"the source 'source' ended epoch 0 after 12 items; 40 of them were read",
            ),
        ):
            list(loader)

    def test_may_have_ended_with_a_batch_that_is_not_full(self, executor: str) -> None:
        options = EXECUTORS[executor]
        for make in (
            lambda p: p.batch(4, collate=list),
            lambda p: p.window(2, 4, collate=list),
            lambda p: p.filter(odd).batch(3, collate=list).map(len, workers=1),
            lambda p: p.shard(1, 3, ends="uneven").batch(2, collate=list),
            lambda p: sp.zip(p, p.take(4), uneven="shortest"),
            lambda p: p.take(10),
        ):
            pipe = make(source(10))
            count = len(all_frozen(pipe.loader(**INLINE)))
            state = state_after(pipe, count, **options)
            assert state["items"] == count
            with pipe.loader(state=state, **options) as loader:
                assert list(loader) == []

    def test_may_be_longer(self, executor: str) -> None:
        options = EXECUTORS[executor]
        state = state_after(source(10).map(same, workers=2), 7, **options)
        with source(12).map(same, workers=2).loader(state=state, **options) as loader:
            assert list(loader) == list(range(7, 12))

    def test_that_ends_just_there_is_none(self, executor: str) -> None:
        options = EXECUTORS[executor]
        state = state_after(source(10).map(same, workers=1), 7, **options)
        with source(7).map(same, workers=1).loader(state=state, **options) as loader:
            assert list(loader) == []

    def test_in_a_later_epoch(self, executor: str) -> None:
        options = {**EXECUTORS[executor], "epochs": 3}
        state = state_after(source(10).map(same, workers=1), 18, **options)
        with (
            source(5).map(same, workers=1).loader(state=state, **options) as loader,
            pytest.raises(sp.ResumeError, match=r"ended epoch 1 after 5 items; 8 of them"),
        ):
            list(loader)

    def test_behind_what_was_sought_nothing_is_known(self, executor: str) -> None:
        options = EXECUTORS[executor]
        pipe = source(10).map(same, workers=1).filter(odd)
        with pipe.loader(epochs=2, **options) as loader:
            loader.seek(100)
            state = json.loads(json.dumps(loader.state_dict()))
            assert list(loader) == [1, 3, 5, 7, 9]  # of the next epoch
        with pipe.loader(epochs=2, state=state, **options) as loader:
            assert loader.state_dict() == state
            assert len(list(loader)) == 5
        with pipe.loader(**options) as loader:
            loader.skip_steps(3, 50)
            assert list(loader) == [1, 3, 5]
        with pipe.loader(**options) as loader:
            loader.seek(3)
            next(loader)  # now it is known
            state = loader.state_dict()
        with (
            source(6).map(same, workers=1).filter(odd).loader(state=state, **options) as loader,
            pytest.raises(sp.ResumeError, match=r"after \d items"),
        ):
            list(loader)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stage_that_makes_fewer_items_is_named(executor: str) -> None:
    options = EXECUTORS[executor]
    pipe = sp.Pipeline(range(40)).through(free, workers=1)
    state = state_after(pipe, 30, **options)

    def some(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if item % 4 == 0:
                yield item

    mended = sp.Pipeline(range(40)).through(some, name="free", workers=1)
    with (
        mended.loader(state=state, **options) as loader,
        pytest.raises(sp.ResumeError, match="'free' ended epoch 0 after 10 items; 30 had come"),
    ):
        list(loader)


def test_a_sequence_is_refused_at_once() -> None:
    state = state_after(sp.Pipeline(range(40)).through(free), 30, **INLINE)
    wanted = re.escape("length of the source 'source' (sequence) was 40 and is 39 now")
    with pytest.raises(sp.ResumeError, match=wanted):
        sp.Pipeline(range(39)).through(free).loader(state=state, **INLINE)
