"""Workers in threads: the stream is that of `inline`, and nothing of them hangs or stays behind."""

from __future__ import annotations

import gc
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline import plan
from splitpipe.runtime import staff
from splitpipe.runtime.threads import WorkerThread, join_all
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.ownership import COUNTED
from tests.runtime.comparing import all_frozen, counted, frozen, read
from tests.runtime.test_any_pipeline import pipelines
from tests.runtime.test_exactness import PIPELINES, copies, double, kind, pairs, row


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", PIPELINES)
def test_threads_give_the_stream_of_inline(name: str, workers: int) -> None:
    pipe = PIPELINES[name](workers)
    for epochs, prefetch in ((1, 1), (3, 2)):
        expected = all_frozen(pipe.loader(executor="inline", epochs=epochs))
        with pipe.loader(executor="thread", prefetch=prefetch, epochs=epochs) as loader:
            assert all_frozen(loader) == expected


EXECUTORS = ("thread", "process", "inline")
MIXTURES = [(a, b, c) for a in EXECUTORS[:2] for b in EXECUTORS[:2] for c in EXECUTORS]


@pytest.mark.parametrize("transport", ["pipe", "zmq", "zmq+tcp"])
@pytest.mark.parametrize("mixture", MIXTURES, ids="-".join)
def test_mixtures_give_the_stream_of_inline(mixture: tuple[str, ...], transport: str) -> None:
    first, second, third = mixture
    pipe = (
        sp.Pipeline(range(60))
        .map(kind, workers=2, executor=first)
        .through(pairs, workers=1, executor=second)
        .map(lambda pair: pair, workers=None if third == "inline" else 2, executor=third)
    )
    expected = all_frozen(pipe.loader(executor="inline", epochs=2))
    with pipe.loader(start_method="fork", transport=transport, epochs=2) as loader:
        assert all_frozen(loader) == expected


@pytest.mark.parametrize("default", ["thread", "process"])
def test_graphs_of_both(default: str) -> None:
    base = sp.Pipeline(range(40)).map(row, workers=2, executor="thread")
    joined = sp.zip(
        base.map(lambda r: r["n"], workers=1, executor="process"),
        base.map(lambda r: r["x"], workers=1, executor="thread"),
        base.flat_map(lambda r: [r["name"]]),
    )
    expected = all_frozen(joined.loader(executor="inline", epochs=2))
    with joined.loader(executor=default, start_method="fork", epochs=2) as loader:
        assert all_frozen(loader) == expected


def test_several_outputs() -> None:
    base = sp.Pipeline(range(40)).map(row, workers=2)
    outputs = {"x": base.map(lambda r: r["x"]).batch(3), "n": base.map(lambda r: r["n"])}
    expected = {name: all_frozen(pipe) for name, pipe in outputs.items()}
    loaders = sp.run(outputs, executor="thread")
    got: dict[str, list[Any]] = {name: [] for name in outputs}
    for _ in range(40):
        for name, loader in loaders.items():
            got[name] += [frozen(item) for _, item in zip(range(1), loader, strict=False)]
    for loader in loaders.values():
        loader.close()
    assert got == expected


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    pipe=pipelines(),
    executor=st.sampled_from(["thread", "process"]),
    prefetch=st.integers(1, 5),
    epochs=st.integers(1, 3),
)
def test_any_pipeline(pipe: sp.Pipeline, executor: str, prefetch: int, epochs: int) -> None:
    expected = all_frozen(pipe.loader(executor="inline", epochs=epochs))
    with pipe.loader(
        executor=executor, start_method="fork", prefetch=prefetch, epochs=epochs
    ) as loader:
        assert all_frozen(loader) == expected


def test_unordered_gives_the_same_items_in_each_epoch() -> None:
    pipe = sp.Pipeline(range(900)).flat_map(copies, workers=3, ordered=False)
    expected = counted(pipe)
    with pipe.loader(executor="thread", epochs=3) as loader:
        assert [counted(epoch) for epoch in loader.by_epoch()] == [expected] * 3


@pytest.mark.parametrize("arena_bytes", [0, 1 << 20, 1 << 30])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_room_for_what_waits_changes_nothing(arena_bytes: int, workers: int) -> None:
    pipe = sp.Pipeline(range(12)).map(lambda x: np.full(1 << 20, x, np.uint8), workers=workers)
    expected = all_frozen(pipe)
    with pipe.loader(executor="thread", arena_bytes=arena_bytes, prefetch=2) as loader:
        assert all_frozen(loader) == expected


def test_what_waits_is_bounded_in_bytes() -> None:
    made = 0

    def large(x: int) -> Any:
        nonlocal made
        made += 1
        return np.full(4 << 20, x, np.uint8)

    pipe = sp.Pipeline(range(200)).map(large, workers=2)
    with pipe.loader(executor="thread") as loader:
        assert next(loader)[0] == 0
        quiet = threading.Event()
        while True:  # until nobody makes more
            before = made
            quiet.wait(0.2)
            if made == before:
                break
        assert made <= 30  # and not the 64 units of a window
        assert sum(int(item[0]) for item in loader) == sum(x % 256 for x in range(1, 200))


# --- what their makers do afterwards ----------------------------------------------------------


def same_buffer(items: Iterator[int]) -> Iterator[Any]:
    buffer = np.zeros((4, 1000), np.float32)
    for item in items:
        buffer[:] = item
        yield buffer


def same_parts(items: Iterator[int]) -> Iterator[Any]:
    state: dict[str, Any] = {"n": 0, "seen": []}
    for item in items:
        state["n"] = item
        state["seen"].append(item)
        yield {"state": state, "view": np.array([item] * 9)[::2]}
        state["seen"] = state["seen"][-3:]


def in_place(array: Any) -> Any:
    array += 1
    return array


@pytest.mark.parametrize("maker", [same_buffer, same_parts])
@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_makers_do_afterwards_changes_nothing(maker: Any, executor: str) -> None:
    made: list[Any] = []

    def noted(items: Iterator[int]) -> Iterator[Any]:
        for item in maker(items):
            made.append(frozen(item))
            yield item
            del item

    pipe = sp.Pipeline(range(50)).through(noted, workers=1)
    items = list(pipe.loader(executor="thread"))
    assert all_frozen(items) == made
    through = sp.Pipeline(range(50)).through(maker, workers=1).map(lambda x: x, workers=1)
    with through.loader(executor=executor, start_method="fork") as loader:
        assert all_frozen(loader) == made


def test_readers_may_change_what_they_got() -> None:
    pipe = (
        sp.Pipeline(range(30))
        .map(lambda x: np.full(1000, x), workers=2)
        .map(in_place, workers=2)
        .through(lambda items: (in_place(item) for item in items), workers=1)
    )
    assert [int(item[0]) for item in pipe.loader(executor="thread")] == list(range(2, 32))


def test_a_list_of_the_user_is_not_the_readers() -> None:
    rows = [{"x": [n]} for n in range(20)]
    with sp.Pipeline(rows).map(lambda row: row, workers=2).loader(executor="thread") as loader:
        for item in loader:
            item["x"].append("changed")
    assert rows == [{"x": [n]} for n in range(20)]


@pytest.mark.skipif(not COUNTED, reason="without counting, everything is copied")
def test_what_nobody_else_holds_is_not_copied() -> None:
    made: set[int] = set()
    lock = threading.Lock()

    def big(x: int) -> Any:
        array = np.full((50, 1000), x)
        with lock:
            made.add(array.__array_interface__["data"][0])
        return array

    def batches(items: Iterator[int]) -> Iterator[Any]:
        for item in items:
            batch = sp.empty((50, 1000), "int64")
            batch[:] = item
            made.add(batch.__array_interface__["data"][0])
            yield batch

    kept = []
    for pipe in (
        sp.Pipeline(range(20)).map(big, workers=2),
        sp.Pipeline(range(20)).through(batches, workers=1),
    ):
        with pipe.loader(executor="thread") as loader:
            for number, item in enumerate(loader):
                assert item.flags.writeable
                assert (item == number).all()
                assert item.__array_interface__["data"][0] in made
                kept.append(item)


def test_batches_are_stacked_once() -> None:
    pipe = sp.Pipeline(range(64)).map(row, workers=2).batch(8)
    with pipe.loader(executor="thread") as loader:
        for batch in loader:
            assert batch["x"].flags.writeable
            batch["x"] += 1


def test_nothing_has_to_be_picklable() -> None:
    lock = threading.Lock()
    file = open(__file__, encoding="utf-8")  # noqa: SIM115  closed below

    def opened(x: int) -> Any:
        with lock:
            return open(__file__, encoding="utf-8")

    with file:
        pipe = sp.Pipeline(range(5)).map(opened, workers=2)
        for handle in pipe.loader(executor="thread"):
            with handle:
                assert handle.readline() == file.readline()
                file.seek(0)


def test_what_somebody_holds_and_cannot_be_copied_names_its_stage() -> None:
    lock = threading.Lock()
    pipe = sp.Pipeline(range(5)).map(lambda x: {"lock": lock}, workers=2, name="locking")
    items, error = read(pipe.loader(executor="thread"))
    assert items == []
    assert isinstance(error, sp.NotPicklable)
    assert "may still be held by its maker" in str(error)
    assert any("in stage 'locking'" in note for note in error.__notes__)


# --- failures ---------------------------------------------------------------------------------


class Own(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_comes_at_its_place_as_what_it_is(workers: int) -> None:
    def fails(x: int) -> int:
        if x == 7:
            raise Own(x, 8)
        return x

    items, error = read(
        sp.Pipeline(range(20)).map(fails, workers=workers).loader(executor="thread")
    )
    assert items == list(range(7))
    assert type(error) is Own
    assert any("in stage 'fails'" in note and "input item 7" in note for note in error.__notes__)


def test_an_exception_that_cannot_travel_is_still_the_users_own() -> None:
    class Local(Exception):
        def __init__(self, lock: Any) -> None:
            super().__init__("with a lock")
            self.lock = lock

    lock = threading.Lock()

    def fails(x: int) -> int:
        raise Local(lock)

    items, error = read(sp.Pipeline(range(3)).map(fails, workers=2).loader(executor="thread"))
    assert items == []
    assert type(error) is Local
    assert error.lock is lock


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_ends_a_thread_silently(kind: type[BaseException], workers: int) -> None:
    def leaves(x: int) -> int:
        if x == 3:
            raise kind
        return x

    pipe = sp.Pipeline(range(9)).map(leaves, workers=workers)
    items, error = read(pipe.loader(executor="thread"))
    assert items == [0, 1, 2]
    assert isinstance(error, (sp.StageFailed, RuntimeError))
    assert kind.__name__ in str(error) or "StopIteration" in str(error)


def test_a_thread_that_dies_outside_of_its_stages_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(spec: Any) -> None:
        raise MemoryError("no memory to say so")

    monkeypatch.setattr(staff, "serve", dies)
    items, error = read(sp.Pipeline(range(9)).map(double, workers=2).loader(executor="thread"))
    assert items == []
    assert isinstance(error, sp.WorkerDied)
    assert "no memory to say so" in str(error)


# --- the end ----------------------------------------------------------------------------------


def endless(items: Iterator[Any]) -> Iterator[Any]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize("how", ["close", "break", "collect", "skip"])
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_go_however_a_run_ends(how: str, workers: int) -> None:
    ended = threading.Event()

    def noting(items: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from items
        finally:
            ended.set()

    pipe = sp.Pipeline(range(10**9)).map(double, workers=workers).through(noting, workers=1)
    loader = pipe.loader(executor="thread", epochs=2)
    if how == "close":
        next(loader)
        loader.close()
    elif how == "break":
        with loader:
            for item in loader:
                if item > 100:
                    break
    elif how == "collect":
        next(loader)
        loader.leave_quietly()
        gone = weakref.ref(loader)
        del loader
        gc.collect()
        assert gone() is None
    else:
        with loader:
            for epoch in loader.by_epoch():
                assert next(epoch) == 0
    assert ended.wait(120)
    assert not [t for t in threading.enumerate() if t.name.startswith("splitpipe")]


def test_a_thread_in_user_code_is_waited_for_and_left_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staff, "THREAD_GRACE_S", 0.05)
    begun, go, gone = threading.Event(), threading.Event(), threading.Event()

    def stuck(x: int) -> int:
        begun.set()
        go.wait(30)
        gone.set()
        return x

    loader = sp.Pipeline(range(5)).map(stuck, workers=1, name="sticky").loader(executor="thread")
    assert begun.wait(120)
    with pytest.warns(RuntimeWarning, match="still in a call of user code.*sticky") as caught:
        loader.close()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader.close()
    go.set()
    assert gone.wait(120)
    for thread in threading.enumerate():  # and then it goes
        if thread.name.startswith("splitpipe"):
            thread.join(120)
            assert not thread.is_alive()


def test_generators_of_stages_are_closed_in_their_thread() -> None:
    threads: list[str] = []

    def noting(items: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from items
        finally:
            threads.append(threading.current_thread().name)

    pipe = sp.Pipeline(range(10**9)).through(noting, workers=1, name="noting")
    with pipe.loader(executor="thread") as loader:
        next(loader)
    assert threads == ["splitpipe worker 0 of noting"]


def test_statistics_have_rows_for_threads() -> None:
    pipe = sp.Pipeline(range(100)).map(double, workers=2).through(pairs, workers=1)
    with pipe.loader(executor="thread") as loader:
        assert sum(1 for _ in loader) == 100
        first, second, consumer = loader.stats()
    assert (first.workers, first.items_in, first.items_out) == (2, 100, 100)
    assert (second.workers, second.items_in, second.items_out) == (1, 100, 100)
    assert (first.executor, second.executor, consumer.executor) == ("thread", "thread", "consumer")
    assert consumer.items_in == 100


def test_the_plan_says_what_are_threads() -> None:
    pipe = (
        sp.Pipeline(range(9))
        .map(double, workers=2, executor="thread")
        .map(double, workers=1)
        .map(double, executor="inline")
    )
    text = pipe.explain()
    assert "2 threads" in text
    assert "1 process" in text
    assert "consumer's process: double-3" in text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"executor": "inline", "workers": 2}, "cannot have 2 workers"),
        ({"executor": "thread", "workers": 0}, "consumer's own process"),
        ({"executor": "fibre"}, "must be one of inline, thread, process"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(sp.GraphError, match=match):
        sp.Pipeline(range(3)).map(double, **options)


@pytest.mark.parametrize(("locked", "executor"), [(True, "process"), (False, "thread")])
def test_threads_are_the_workers_where_they_run_side_by_side(
    locked: bool, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    assert plan.RunOptions().executor == executor
    assert plan.RunOptions.of(executor=None).executor == executor
    assert plan.RunOptions.of(executor="inline").executor == "inline"
    assert f"2 {executor}" in sp.Pipeline(range(9)).map(double, workers=2).explain()


class TestPlaces:
    """Who rides with whom."""

    @staticmethod
    def tasks(pipe: sp.Pipeline, **options: Any) -> list[tuple[str, str, int]]:
        made = plan.plan({"": pipe.node}, plan.RunOptions(**options))
        return [(task.name, task.executor, task.workers) for task in made.tasks]

    def test_neighbours_of_another_executor_do_not_ride(self) -> None:
        pipe = (
            sp.Pipeline(range(9))
            .map(double, name="a")
            .map(double, name="b", executor="thread")
            .map(double, name="c")
            .map(double, name="d", executor="process")
            .map(double, name="e", executor="process")
            .map(double, name="f", workers=2)
            .map(double, name="g", executor="thread")
        )
        assert self.tasks(pipe) == [
            ("a > b > c", "thread", 1),
            ("d > e", "process", 1),
            ("f", "process", 2),
            ("g", "thread", 1),
        ]
        assert self.tasks(pipe, executor="thread")[2:] == [
            ("f", "thread", 2),
            ("g", "thread", 1),
        ] or (self.tasks(pipe, executor="thread")[2:] == [("f > g", "thread", 2)])

    def test_what_reads_a_source_for_a_pool_is_what_the_pool_is(self) -> None:
        pipe = sp.Pipeline(lambda: iter(range(9))).map(double, workers=2, executor="thread")
        assert [executor for _, executor, _ in self.tasks(pipe)] == ["thread", "thread"]


def test_two_runs_in_threads_do_not_meet() -> None:
    pipes = [
        sp.Pipeline(range(300)).map(lambda x, k=k: np.full(700, x * k), workers=2).batch(4)
        for k in (1, 3)
    ]
    expected = [all_frozen(pipe) for pipe in pipes]
    loaders = [pipe.loader(executor="thread") for pipe in pipes]
    got: list[list[Any]] = [[], []]
    turns = random.Random(1)
    left = {0, 1}
    while left:
        number = turns.choice(sorted(left))
        item = next(loaders[number], None)
        if item is None:
            left.discard(number)
        else:
            got[number].append(frozen(item))
    assert got == expected


def test_a_loader_inside_of_a_thread() -> None:
    """Nothing of one run leads into another, `sp.empty` least of all."""

    def inner(x: int) -> Any:
        with sp.Pipeline(range(4)).map(double, workers=1).batch(4).loader(executor="thread") as one:
            (batch,) = one
            return batch + x

    pipe = sp.Pipeline(range(6)).map(inner, workers=2)
    assert all_frozen(pipe.loader(executor="thread")) == all_frozen(pipe)


class TestLeaving:
    """Who is waited for when a run was closed, and for how long."""

    def worker(self, work: Callable[[], None]) -> WorkerThread:
        made = WorkerThread(work, "worker 0 of work", lambda error: None)
        made.start()
        return made

    def test_one_that_is_not_in_user_code_is_waited_for(self) -> None:
        """It needs a CPU and no more; here it gets none in the time that user code may take."""
        link = MemoryLink()
        receiver = link.receiver()
        worker = self.worker(lambda: link.close() if receiver.wait() else None)
        timer = threading.Timer(0.3, link.sender().send, ([b"go"],))
        timer.start()
        assert join_all([worker], 0.0) == []
        timer.join()

    def test_one_in_user_code_is_not(self) -> None:
        inside, over = threading.Event(), threading.Event()

        def work() -> None:
            inside.set()
            over.wait(120)

        worker = self.worker(work)
        assert inside.wait(120)
        assert join_all([worker], 0.0) == [worker]
        over.set()
        assert join_all([worker], 20.0) == []
