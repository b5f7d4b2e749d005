"""Resuming gives exactly the items that would have come next, wherever, and however it is run.

Here each stage is resumed at a few places. ``SPLITPIPE_RESUME=all python -m pytest
tests/runtime/test_resume.py`` resumes it at every item, with 0, 1 and 3 workers.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime import capture, engine, ledger
from tests.runtime.comparing import all_frozen, frozen
from tests.runtime.test_any_graph import graphs
from tests.runtime.test_every_stage import STAGES, cut, factory, noisy, odd, record, sequence

EVERYTHING = os.environ.get("SPLITPIPE_RESUME") == "all"
EXAMPLES = int(os.environ.get("SPLITPIPE_GRAPHS", "10"))
INLINE: dict[str, Any] = {"executor": "inline"}
FORK: dict[str, Any] = {"start_method": "fork", "prefetch": 2}
THREADS: dict[str, Any] = {"executor": "thread"}


@pytest.fixture
def _many_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything be noted whenever it can be: the runs here are short."""
    for module in (capture, engine, ledger):
        monkeypatch.setattr(module, "NOTE_S", 0.0)


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a journey as JSON."""
    text = json.dumps(state)
    assert len(text) < 10_000
    made: dict[str, Any] = json.loads(text)
    return made


def states_of(pipe: sp.Pipeline, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """Every item, and the states before it and behind the last."""
    items: list[Any] = []
    with pipe.loader(**options) as loader:
        states = [stored(loader.state_dict())]
        for item in loader:
            items.append(frozen(item))
            states.append(stored(loader.state_dict()))
            del item
        states.append(stored(loader.state_dict()))
    return items, states


def rest(pipe: sp.Pipeline, state: dict[str, Any], **options: Any) -> list[Any]:
    with pipe.loader(state=state, **options) as loader:
        return all_frozen(loader)


def assert_resumes(
    pipe: sp.Pipeline,
    saved: dict[str, Any],
    resumed: list[dict[str, Any]],
    places: int | None = None,
) -> None:
    """Resume at `places` random places, or at all."""
    truth, states = states_of(pipe, **saved)
    assert truth == all_frozen(pipe.loader(**{**saved, **INLINE}))
    every = range(len(states))
    if places is not None and not EVERYTHING:
        every = sorted({0, len(states) - 2, *random.Random(3).sample(every, places)})
    for number, at in enumerate(every):
        options = resumed[number % len(resumed)]
        assert rest(pipe, states[at], **{**saved, **options}) == truth[at:], (at, options)


@pytest.mark.usefixtures("_many_notes")
@pytest.mark.deadline(3600 if EVERYTHING else 120)
@pytest.mark.parametrize("name", STAGES)
class TestEveryStage:
    def test_inline(self, name: str) -> None:
        for source in (sequence, factory):
            pipe = cut(source, STAGES[name], None, None)
            assert_resumes(pipe, {"epochs": 2, **INLINE}, [INLINE], 8)

    def test_states_of_processes(self, name: str) -> None:
        source = (sequence, factory)[len(name) % 2]
        for before, behind in ((1, 1), (3, 3)) if EVERYTHING else ((2, 2),):
            pipe = cut(source, STAGES[name], before, behind)
            resumed = [INLINE, FORK, THREADS] if EVERYTHING else [INLINE, INLINE, FORK]
            assert_resumes(pipe, {"epochs": 2, **FORK}, resumed, 3)

    def test_processes_go_on_where_inline_stopped(self, name: str) -> None:
        source = (factory, sequence)[len(name) % 2]
        for before, behind in ((1, 1), (3, 3)) if EVERYTHING else ((2, 1),):
            pipe = cut(source, STAGES[name], before, behind)
            assert_resumes(pipe, {"epochs": 2, **INLINE}, [FORK, THREADS], 1)


class Counting:
    """A sequence that counts how often it is read."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.read = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if index >= self.length:
            raise IndexError(index)
        self.read += 1
        return index


FAR: dict[str, Callable[[sp.Pipeline], sp.Pipeline]] = {
    "map": lambda p: p.map(lambda x: x + 1),
    "batch": lambda p: p.batch(4, collate=list),
    "window": lambda p: p.window(4, 3, collate=list),
    "take": lambda p: p.batch(2, collate=list).take(1 << 34).map(str),
    "skip": lambda p: p.skip(5),
    "zip": lambda p: sp.zip(p, p.map(str)),
    "filter": lambda p: p.filter(lambda x: x % 3),
    "flat_map": lambda p: p.flat_map(lambda x: [x] * (x % 3)),
    "shuffle": lambda p: p.shuffle(100),
    "mix": lambda p: sp.mix([p, p.map(str)], [1, 3]),
    "interleave": lambda p: sp.interleave(p, p.map(str), block=2),
    "pack": lambda p: p.map(lambda x: np.zeros(x % 7 + 1)).pack(16, window=20).map(str),
    "bucket": lambda p: p.bucket(
        4, length=lambda x: x % 40, boundaries=[10, 20], collate=list, oversized="alone"
    ),
    "batch_by_cost": lambda p: p.batch_by_cost(40, length=lambda x: x % 17, collate=list),
}


class TestRestoringIsCheap:
    @pytest.mark.parametrize("name", ["map", "batch", "window", "take", "skip", "zip"])
    def test_anywhere(self, name: str) -> None:
        source = Counting(1 << 40)
        pipe = FAR[name](sp.Pipeline(source))
        with pipe.loader(**INLINE) as loader:
            loader.seek(10**9)
            assert loader.replayed == {}
            some = [next(loader) for _ in range(3)]
            state = stored(loader.state_dict())
            more = [next(loader) for _ in range(3)]
        assert source.read < 100
        with pipe.loader(**INLINE) as loader:
            loader.seek(10**9 + 1)
            assert next(loader) == some[1]
            loader.load_state_dict(state)
            assert [next(loader) for _ in range(3)] == more
        assert source.read < 100

    @pytest.mark.usefixtures("_many_notes")
    @pytest.mark.parametrize("name", FAR)
    def test_bounded(self, name: str) -> None:
        source = Counting(1 << 40)
        pipe = FAR[name](sp.Pipeline(source, seed=1))
        with pipe.loader(**INLINE) as loader:
            for _ in range(2000):
                next(loader)
            state = stored(loader.state_dict())
            truth = [frozen(next(loader)) for _ in range(20)]
        source.read = 0
        with pipe.loader(state=state, **INLINE) as loader:
            assert [frozen(next(loader)) for _ in range(20)] == truth
        assert source.read < 2000

    def test_large_buffers_are_small_when_saved(self) -> None:
        with sp.Pipeline(range(100_000), seed=1).shuffle(1000).loader(**INLINE) as loader:
            for _ in range(30_000):
                next(loader)
            state = stored(loader.state_dict())
            assert len(json.dumps(state)) < 5000
            some = [next(loader) for _ in range(100)]
            loader.load_state_dict(state)
            assert loader.replayed["shuffle(1000)"] < 30_000
            assert [next(loader) for _ in range(100)] == some

    @pytest.mark.usefixtures("_many_notes")
    @pytest.mark.parametrize("workers", [1, None])
    def test_a_shuffle_in_a_process_goes_on_from_its_notes(self, workers: int | None) -> None:
        pipe = sp.Pipeline(range(6000), shuffle="global").filter(lambda x: x % 3, workers=workers)
        pipe = pipe.shuffle(50, workers=1).map(str, workers=1)
        with pipe.loader(**FORK) as loader:
            for _ in range(3000):
                next(loader)
            state, truth = stored(loader.state_dict()), list(loader)
        assert {"shuffle(50)", "<lambda>"} <= set(state["nodes"])
        with pipe.loader(state=state, **FORK) as loader:
            assert list(loader) == truth
            assert sum(loader.replayed.values()) < 2900

    @pytest.mark.parametrize("name", ["shuffle", "mix"])
    def test_where_a_block_of_random_numbers_ends(self, name: str) -> None:
        items = sp.Pipeline(range(5000), seed=1)
        pipe = items.shuffle(50) if name == "shuffle" else sp.mix([items, items], [3, 1])
        for taken in (1023, 1024, 1025, 2048):
            with pipe.loader(**INLINE) as loader:
                for _ in range(taken):
                    next(loader)
                state, truth = stored(loader.state_dict()), list(loader)
            with pipe.loader(state=state, **INLINE) as loader:
                assert list(loader) == truth, taken

    def test_what_is_made_again_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        def free(items: Iterable[int]) -> Iterator[int]:
            yield from items

        pipe = sp.Pipeline(range(5000)).through(free).batch(10)
        with pipe.loader(**INLINE) as loader:
            for _ in range(200):
                next(loader)
            state, truth = loader.state_dict(), all_frozen(loader)
        with caplog.at_level(logging.INFO, "splitpipe"):
            loader = pipe.loader(state=state, **INLINE)
        assert loader.replayed == {"free": 2000}
        assert "'free' 2,000" in caplog.text
        assert all_frozen(loader) == truth


class Totals:
    """A free stage that can tell its state."""

    def __init__(self, items: Iterator[int], start: int = 0) -> None:
        self.items = items
        self.total = start

    def __iter__(self) -> Iterator[int]:
        for item in self.items:
            self.total += item
            yield self.total

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class TestFreeStages:
    @pytest.mark.usefixtures("_many_notes")
    @pytest.mark.parametrize("workers", [0, 1])
    def test_that_tell_their_state(self, workers: int) -> None:
        pipe = sp.Pipeline(range(300), shuffle="global").through(Totals, 5, workers=workers)
        assert_resumes(pipe, FORK, [INLINE, FORK], 6)
        with pipe.loader(**INLINE) as loader:
            for _ in range(100):
                next(loader)
            loader.load_state_dict(loader.state_dict())
            assert loader.replayed == {}

    def test_whose_state_is_forgotten(self) -> None:
        def totals(items: Iterator[int]) -> Iterator[int]:
            return iter(Totals(items))

        pipe = sp.Pipeline(range(9)).through(Totals, name="totals")
        with pipe.loader(**INLINE) as loader:
            next(loader)
            state = loader.state_dict()
        with (
            sp.Pipeline(range(9)).through(totals).loader(state=state, **INLINE) as loader,
            pytest.raises(sp.ResumeError, match=r"'totals' has told its state"),
        ):
            next(loader)

    @pytest.mark.parametrize("every", [1, 4, 100])
    def test_that_are_begun_anew_for_some_items(self, every: int) -> None:
        def marked(items: Iterator[int], rng: np.random.Generator) -> Iterator[Any]:
            for number, item in enumerate(items):
                yield number, item, int(rng.integers(100))
                if item % 10 == 7:
                    return

        pipe = sp.Pipeline(range(42)).through(marked, restart_every=every)
        got = list(pipe)
        assert [number for number, *_ in got][:every] == list(range(every))[:8]
        assert_resumes(pipe, INLINE, [INLINE])
        with pipe.loader(**INLINE) as loader:
            for _ in range(5):
                next(loader)
            loader.load_state_dict(loader.state_dict())
            assert all(count <= every for count in loader.replayed.values())

    def test_an_asynchronous_one_is_not(self) -> None:
        async def slow(items: Any) -> Any:
            async for item in items:
                yield item

        with pytest.raises(sp.GraphError, match="restart_every"):
            sp.Pipeline(range(3)).through(slow, restart_every=2)


class TestLoader:
    pipe = sp.Pipeline(range(10), shuffle="global", seed=4).map(str)

    @pytest.mark.parametrize("options", [INLINE, FORK])
    def test_epochs(self, options: dict[str, Any]) -> None:
        with self.pipe.loader(epochs=3, **options) as loader:
            truth = [list(epoch) for epoch in loader.by_epoch()]
            over = loader.state_dict()
        with self.pipe.loader(epochs=3, state=over, **options) as loader:
            assert list(loader) == []
        with self.pipe.loader(epochs=4, state=over, **options) as loader:
            assert len(list(loader)) == 10  # one epoch more, of a run that is made longer
        with self.pipe.loader(epochs=3, **options) as loader:
            for items in loader.by_epoch():
                next(items)
                if loader.epoch == 1:
                    break
            state = loader.state_dict()
            assert (state["epoch"], state["items"]) == (1, 1)
        with self.pipe.loader(epochs=3, state=state, **options) as loader:
            assert [list(epoch) for epoch in loader.by_epoch()] == [truth[1][1:], truth[2]]

    def test_an_epoch_that_was_left(self) -> None:
        with self.pipe.loader(epochs=2, **INLINE) as loader:
            epochs = loader.by_epoch()
            next(next(epochs))
            second = next(epochs)
            state = loader.state_dict()
            assert (state["epoch"], state["items"]) == (1, 0)
            truth = list(second)
        assert rest(self.pipe, state, epochs=2, **INLINE) == all_frozen(truth)

    def test_without_end(self) -> None:
        with self.pipe.loader(epochs=None, **FORK) as loader:
            for _ in range(25):
                next(loader)
            state = loader.state_dict()
            truth = [next(loader) for _ in range(25)]
        with self.pipe.loader(epochs=None, state=state, **INLINE) as loader:
            assert [next(loader) for _ in range(25)] == truth

    @pytest.mark.parametrize("options", [INLINE, FORK])
    def test_going_back_in_a_running_loader(self, options: dict[str, Any]) -> None:
        with self.pipe.loader(**options) as loader:
            some = [next(loader) for _ in range(3)]
            state = loader.state_dict()
            assert [*some, *loader] == list(self.pipe)
            loader.load_state_dict(state)
            assert [*some, *loader] == list(self.pipe)
            assert loader.epoch == 0

    @pytest.mark.parametrize("options", [INLINE, FORK])
    def test_seeking(self, options: dict[str, Any]) -> None:
        truth = list(self.pipe)
        with self.pipe.loader(epochs=2, **options) as loader:
            for step in (4, 9, 0, 10):
                loader.seek(step)
                assert next(loader) == [*truth, *self.pipe][step] if step < 10 else True
            loader.seek(2, epoch=1)
            assert len(list(loader)) == 8
        with pytest.raises(sp.GraphError, match="step"):
            loader.seek(-1)

    @pytest.mark.parametrize("options", [INLINE, FORK])
    def test_steps_that_are_left_out(self, options: dict[str, Any]) -> None:
        truth = list(self.pipe)
        with self.pipe.loader(epochs=2, **options) as loader:
            loader.skip_steps(6, 8)
            got = [next(loader) for _ in range(2)]
            loader.skip_steps(1, 4)  # what was given stays given
            loader.skip_steps(5, 6)
            got += [next(loader) for _ in range(3)]
            assert got == [*truth[:2], truth[4], *truth[8:]]
            assert loader.state_dict()["items"] == 10
            assert len(list(loader)) == 10
            loader.skip_steps(0, 0)
        with pytest.raises(sp.GraphError, match="stop"):
            loader.skip_steps(3, 2)

    def test_steps_to_the_end(self) -> None:
        with self.pipe.loader(epochs=2, **INLINE) as loader:
            loader.skip_steps(1, 10)
            assert len(list(loader)) == 11

    @pytest.mark.parametrize("options", [INLINE, FORK])
    @pytest.mark.parametrize("workers", [None, 1, 2])
    def test_after_an_error(self, options: dict[str, Any], workers: int | None) -> None:
        broken = [True]

        def fragile(x: int) -> int:
            if x == 70 and broken[0]:
                raise ValueError(x)
            return x

        pipe = sp.Pipeline(range(100)).map(fragile, workers=workers)
        got: list[int] = []
        with pipe.loader(**options) as loader:
            with pytest.raises(ValueError, match="70"):
                got.extend(iter(loader.__next__, None))
            state = loader.state_dict()
        assert got == list(range(70))
        broken[0] = False  # a stage may be mended
        assert rest(pipe, state, **options) == all_frozen(range(70, 100))

    def test_what_comes_in_no_order_has_no_state(self) -> None:
        pipe = sp.Pipeline(range(10)).map(str, workers=2, ordered=False)
        with (
            pipe.loader(**FORK) as loader,
            pytest.raises(sp.ResumeError, match=r"'str' is run with ordered=False"),
        ):
            loader.state_dict()

    def test_a_state_takes_nothing_from_anybody(self) -> None:
        source = Counting(1000)
        pipe = sp.Pipeline(source, seed=1).map(str).filter(len).shuffle(10).batch(4, collate=list)
        truth = all_frozen(pipe.loader(**INLINE))
        with pipe.loader(**INLINE) as loader:
            got = []
            for item in loader:
                got.append(frozen(item))
                read = source.read
                assert loader.state_dict() == loader.state_dict()
                assert source.read == read
        assert got == truth


class TestChangedGraphs:
    def test_what_changed_is_named(self) -> None:
        def pipe(n: int = 20, *, size: int = 4, seed: int = 1, more: bool = False) -> sp.Pipeline:
            made = sp.Pipeline(range(n), shuffle="global", seed=seed).map(str, name="text")
            made = made.filter(len) if more else made
            return made.batch(size, collate=list)

        state = pipe().loader(**INLINE).state_dict()
        pipe().loader(state=state, **INLINE).close()
        cases = [
            (pipe(21), r"length of the source 'source' \(sequence\) was 20 and is 21 now"),
            (pipe(seed=2), "seed of the source 'source' .* was 1 and is 2 now"),
            (pipe(size=5), r"where the stage 'batch\(4\)' \(batch\) was, the stage 'batch\(5\)'"),
            (pipe(more=True), r"'batch\(4\)' .* was, the stage 'len' \(filter\) is now"),
            (pipe().map(len), "of a graph of 3 sources and stages, this one has 4|outputs"),
        ]
        for changed, message in cases:
            with pytest.raises(sp.ResumeError, match=message):
                changed.loader(state=state, **INLINE)

    def test_what_a_function_does_may_change(self) -> None:
        state = sp.Pipeline(range(3)).map(lambda x: x).loader(**INLINE).state_dict()
        sp.Pipeline(range(3)).map(lambda x: x + 1).loader(state=state, **INLINE).close()

    def test_what_is_no_state(self) -> None:
        pipe = sp.Pipeline(range(3))
        state = pipe.loader(**INLINE).state_dict()
        for wrong, message in [
            ({}, "no state of a loader"),
            ({**state, "version": 99}, "layout 99"),
            ({**state, "epoch": "x"}, "damaged"),
            ({**state, "items": -1}, "damaged"),
            ({**state, "items": 1, "nodes": {"source": [1]}}, "damaged"),
        ]:
            with pytest.raises(sp.ResumeError, match=message):
                pipe.loader(state=wrong, **INLINE)


class TestSeveralOutputs:
    def graph(self, workers: int | None = None) -> dict[str, sp.Pipeline]:
        shared = sp.Pipeline(lambda: iter(range(400)), seed=1).map(lambda x: x * 3, workers=workers)
        return {
            "train": shared.shuffle(20).batch(4, collate=list),
            "seen": shared.filter(odd_number),
        }

    def consumed(
        self, loaders: dict[str, sp.Loader], seed: int, most: int
    ) -> tuple[dict[str, list[Any]], dict[str, dict[str, Any]]]:
        """Read some items in a random order; return them and the states."""
        turns = random.Random(seed)
        got: dict[str, list[Any]] = {name: [] for name in loaders}
        left = sorted(loaders)
        for _ in range(most):
            if not left:
                break
            name = turns.choice(left)
            try:
                got[name].append((loaders[name].epoch, frozen(next(loaders[name]))))
            except StopIteration:
                left.remove(name)
        return got, {name: stored(loader.state_dict()) for name, loader in loaders.items()}

    @pytest.mark.parametrize("workers", [None, 2])
    @pytest.mark.parametrize("options", [INLINE, FORK])
    def test_go_on_together(self, options: dict[str, Any], workers: int | None) -> None:
        graph = self.graph(workers)
        for most in (0, 1, 50, 150, 400):
            loaders = sp.run(graph, epochs=2, **options)
            _, states = self.consumed(loaders, 7, most)
            truth, _ = self.consumed(loaders, 8, 10**6)
            again = sp.run(graph, epochs=2, states=states, **options)
            got, _ = self.consumed(again, 9, 10**6)
            for name in graph:
                assert [item for _, item in got[name]] == [item for _, item in truth[name]]
            for loader in (*loaders.values(), *again.values()):
                loader.close()

    def test_one_of_them_alone(self) -> None:
        loaders = sp.run(self.graph(), **INLINE)
        for _ in range(5):
            next(loaders["train"])
            next(loaders["seen"])
        state = loaders["train"].state_dict()
        truth = [next(loaders["train"]) for _ in range(5)]
        loaders["train"].load_state_dict(state)
        assert [next(loaders["train"]) for _ in range(5)] == truth
        assert next(loaders["seen"]) == 33
        for loader in loaders.values():
            loader.close()

    def test_states_belong_together(self) -> None:
        loaders = sp.run(self.graph(), epochs=3, **INLINE)
        states = {name: loader.state_dict() for name, loader in loaders.items()}
        with pytest.raises(sp.ResumeError, match="give one"):
            sp.run(self.graph(), states={"train": states["train"]}, **INLINE)
        states["train"]["epoch"] = 2
        with pytest.raises(sp.ResumeError, match="one epoch apart"):
            sp.run(self.graph(), states=states, **INLINE)


def odd_number(x: int) -> bool:
    return x % 2 == 1


@pytest.mark.long
@pytest.mark.deadline(900)
@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(
    graph=graphs(),
    saved=st.sampled_from([INLINE, FORK, THREADS]),
    resumed=st.sampled_from([INLINE, FORK, THREADS]),
    epochs=st.integers(1, 2),
    part=st.floats(0, 1),
    often=st.booleans(),
)
def test_any_graph(
    graph: dict[str, sp.Pipeline],
    saved: dict[str, Any],
    resumed: dict[str, Any],
    epochs: int,
    part: float,
    often: bool,
) -> None:
    pipe = graph["output 0"]
    with pytest.MonkeyPatch.context() as patch:
        for module in (capture, engine, ledger):
            patch.setattr(module, "NOTE_S", 0.0 if often else module.NOTE_S)
        try:
            with pipe.loader(epochs=epochs, **saved) as loader:
                truth = all_frozen(pipe.loader(epochs=epochs, **INLINE))
                count = int(part * len(truth))
                for _ in range(count):
                    next(loader)
                state = json.loads(json.dumps(loader.state_dict()))
            with pipe.loader(epochs=epochs, state=state, **resumed) as loader:
                assert all_frozen(loader) == truth[count:]
        except sp.GraphError as error:
            if "begins its input anew" not in str(error):
                raise
            hypothesis.reject()
        except sp.BranchStalled:
            hypothesis.reject()


def fails_at_some(x: int) -> int:
    if x % 7 == 3:
        raise ValueError(x)
    return x


def sum_but_of_some(rows: list[int]) -> int:
    if rows[0] % 5 == 1:
        raise ValueError(rows)
    return sum(rows)


async def awaited_but_some(x: int) -> int:
    return fails_at_some(x)


class TestItemsThatFail:
    @pytest.mark.usefixtures("_many_notes")
    @pytest.mark.parametrize("workers", [None, 2])
    def test_are_left_out_as_before(self, workers: int | None) -> None:
        pipe = sp.Pipeline(range(90), shuffle="global").map(
            fails_at_some, workers=workers, on_error="skip"
        )
        ends = [
            pipe.flat_map(lambda x: [x] * (x % 3)),
            pipe.batch(2, collate=sum_but_of_some, on_error="skip"),
            pipe.map(lambda x: x + 1).async_map(awaited_but_some, on_error="skip"),
        ]
        for end in ends:
            assert_resumes(end.map(str), {"epochs": 2, **INLINE}, [INLINE, FORK], 5)
            assert_resumes(end.map(str), {"epochs": 2, **FORK}, [INLINE], 5)

    def test_may_be_left_out_from_now_on(self) -> None:
        pipe = sp.Pipeline(range(20))
        with pipe.map(fails_at_some).loader(**INLINE) as loader:
            with pytest.raises(ValueError, match="3"):
                list(loader)
            state = loader.state_dict()
        skipping = pipe.map(fails_at_some, on_error="skip")
        assert rest(skipping, state, **INLINE) == all_frozen(x for x in range(4, 20) if x % 7 != 3)


def test_records_keep_their_numbers() -> None:
    """What is random in a stage behind one that changes counts is the same as without a cut."""
    pipe = sp.Pipeline(range(60), seed=5).map(record).filter(odd).batch(3, collate=list)
    pipe = pipe.flat_map(lambda rows: rows).map(noisy)
    assert_resumes(pipe, {"epochs": 2, **INLINE}, [INLINE, FORK], 10)
