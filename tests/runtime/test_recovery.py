"""Workers die, wherever and however: the stream is the same, and nobody waits for ever.

``SPLITPIPE_RECOVERY=20 python -m pytest tests/runtime/test_recovery.py`` kills in more places.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.parts import splitting
from tests.runtime.comparing import all_frozen, frozen
from tests.runtime.dying import Deaths, deaths_of, joined, kill_one, read_killing
from tests.runtime.test_every_stage import STAGES, cut, factory, sequence
from tests.sampling import seldom

ROUNDS = int(os.environ.get("SPLITPIPE_RECOVERY", "0"))
SOME = [
    *("map with rng", "filter with rng", "flat_map", "through", "batch, padded", "shuffle"),
    *("bucket", "pack", "cache", "repeat", "route", "tee and zip", "mix", "async_map"),
]
FORK: dict[str, Any] = {"start_method": "fork"}
TRANSPORTS = ["pipe", "zmq", "zmq+tcp"]


def read(loader: sp.Loader) -> list[list[Any]]:
    with loader:
        return [all_frozen(epoch) for epoch in loader.by_epoch()]


def square(x: int) -> int:
    return x * x


def grown(x: int) -> Any:
    return np.full(3000, x), x


def signed(x: Any) -> Any:
    return x, os.getpid()


def even(x: int) -> bool:
    return x % 2 == 0


def several(x: int) -> Iterator[int]:
    for number in range(x % 3):
        yield x * 10 + number


def sums(items: Iterator[int]) -> Iterator[int]:
    total = 0
    for item in items:
        total += item
        yield total


# --- every stage, every graph -----------------------------------------------------------------


@pytest.mark.deadline(120)
@pytest.mark.parametrize("name", STAGES if ROUNDS else seldom(SOME, keep=SOME[::2]))
def test_every_stage_goes_on_where_it_was(name: str) -> None:
    stage = STAGES[name]
    truth = read(cut(sequence, stage, None, None).loader(executor="inline", epochs=2))
    total = sum(map(len, truth))
    for offset in range(ROUNDS or 1):
        at = [1 + offset, total // 3 + offset, total // 2 + 1 + offset]
        pipe = cut((sequence, factory)[offset % 2], stage, 2, 2)
        expected = truth
        if offset % 2:
            expected = read(cut(factory, stage, None, None).loader(executor="inline", epochs=2))
        loader = pipe.loader(epochs=2, prefetch=1, restarts=None, **FORK)
        assert read_killing(loader, at) == expected


GRAPHS: dict[str, Callable[[], sp.Pipeline]] = {
    "a pool": lambda: sp.Pipeline(range(400), shuffle="global", seed=2).map(grown, workers=2),
    "batches": lambda: sp.Pipeline(range(900)).map(grown, workers=2).batch(8),
    "two pools": lambda: (
        sp.Pipeline(range(300)).flat_map(several, workers=2).map(grown, workers=2, ordered=True)
    ),
    "a task between": lambda: (
        sp.Pipeline(range(400))
        .map(square, workers=2)
        .through(sums, workers=1)
        .map(grown, workers=2)
    ),
    "a factory": lambda: (
        sp.Pipeline(lambda: iter(range(400))).map(square, workers=1).map(grown, workers=2)
    ),
    "a diamond": lambda: sp.zip(
        *[p.map(grown, workers=1) for p in sp.Pipeline(lambda: iter(range(300))).map(square).tee()],
        workers=1,
    ),
    "a local end": lambda: (
        sp.Pipeline(range(400))
        .map(grown, workers=2)
        .through(_numbered, workers=0)
        .batch(3, collate=list)
    ),
}


def _numbered(items: Iterator[Any]) -> Iterator[Any]:
    yield from enumerate(items)


@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    ("name", "transport"),
    [
        (name, transport)
        for number, name in enumerate(GRAPHS)
        for transport in TRANSPORTS
        if ROUNDS or transport == "pipe" or number in (1, 3)
    ],
)
def test_every_worker_of_every_graph(name: str, transport: str) -> None:
    pipe = GRAPHS[name]()
    truth = read(pipe.loader(executor="inline", epochs=2))
    total = sum(map(len, truth))
    at = [total * part // 7 + 1 for part in range(7)]
    loader = pipe.loader(epochs=2, prefetch=2, transport=transport, restarts=None, **FORK)
    assert read_killing(loader, at) == truth
    assert deaths_of(loader) >= 2


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_however_workers_start(method: str) -> None:
    """Each worker that is killed has begun: it made the item that was read last."""
    pipe = sp.Pipeline(range(20_000)).map(grown, workers=2).map(signed)
    loader = pipe.loader(start_method=method, prefetch=1)
    killed: set[int] = set()
    with loader:
        for number, (item, pid) in enumerate(loader):
            assert frozen(item) == frozen(grown(number))
            if pid not in killed and number >= (5, 700, 20_000)[len(killed)]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    assert number == 20_000 - 1
    assert deaths_of(loader) == len(killed) == 2


def test_threads_beside_processes_are_replaced_with_them() -> None:
    pipe = (
        sp.Pipeline(range(600))
        .map(square, workers=2, executor="thread")
        .through(sums, workers=1, executor="thread")
        .map(grown, workers=2)
    )
    truth = read(pipe.loader(executor="inline", epochs=2))
    loader = pipe.loader(epochs=2, prefetch=1, **FORK)
    assert read_killing(loader, [3, 500, 900]) == truth
    assert deaths_of(loader) >= 1


@pytest.mark.parametrize("source", ["claims", "head"])
def test_items_that_may_come_in_any_order_come_once(source: str) -> None:
    begin = (
        sp.Pipeline(range(3000)) if source == "claims" else sp.Pipeline(lambda: iter(range(3000)))
    )
    pipe = begin.map(grown, workers=3, ordered=False, capacity=9)
    loader = pipe.loader(epochs=2, restarts=None, **FORK)
    epochs = read_killing(loader, [4, 900, 1000, 2000, 3500, 5000])
    truth = Counter(all_frozen(map(grown, range(3000))))
    assert [Counter(epoch) for epoch in epochs] == [truth, truth]
    assert deaths_of(loader) >= 2


def test_what_cannot_be_exact_is_refused() -> None:
    pipe = sp.Pipeline(range(10**6)).map(square, workers=2, ordered=False).through(sums, workers=1)
    with pipe.loader(**FORK) as loader:
        next(loader)
        kill_one(loader, 0)
        with pytest.raises(sp.WorkerDied, match=r"cannot be replaced.*ordered=False"):
            for _ in loader:
                pass


@pytest.mark.deadline(60)
def test_in_the_middle_of_a_batch_in_parts(tmp_path: Path) -> None:
    """Rows that were taken already are not made again, or not twice."""
    deaths = Deaths(tmp_path, [37, 90, 131])

    def slow(x: int) -> np.ndarray:
        deaths.strike(x)
        threading.Event().wait(0.004)
        return np.full(10, x)

    pipe = sp.Pipeline(range(160)).map(slow, workers=2).batch(16)
    with pipe.loader(**FORK) as loader:
        task = loader._run.plan.tasks[0]
        assert splitting(task) is not None
        got = [batch[:, 0].tolist() for batch in loader]
    assert got == [list(range(first, first + 16)) for first in range(0, 160, 16)]
    assert deaths.count == 3
    assert deaths_of(loader) >= 2


def blocks(items: Iterator[int]) -> Iterator[int]:
    yield from sums(items)


def test_what_is_made_again_is_bounded() -> None:
    """Stages over the stream go on near where they were, not at the beginning of the epoch."""
    total = 30_000
    pipe = (
        sp.Pipeline(range(total), shuffle="global", seed=1)
        .map(square, workers=2)
        .filter(even)
        .through(blocks, workers=1, restart_every=50, name="blocks")
        .map(square)
        .batch(16)
    )
    truth = read(pipe.loader(executor="inline"))
    loader = pipe.loader(prefetch=2, restarts=None, **FORK)
    keeper = loader._run.supervisor
    assert keeper is not None
    first, begun, got = keeper.running, 0, []
    with loader:
        for number, item in enumerate(loader):
            got.append(frozen(item))
            if number < 300 and number % 20 == 0:
                threading.Event().wait(0.01)  # notes are taken some times a second
            if number == 300:
                kill_one(loader, 2)  # the task, which has the rest still to make
            if keeper.running is not first:
                settled = keeper.running.whole.settled
                begun = max(start.first for node, start in settled.starts.items() if node.source)
    assert [got] == truth
    assert deaths_of(loader) == 1
    assert begun > 0


# --- where, and how ---------------------------------------------------------------------------


@pytest.mark.deadline(30)
@pytest.mark.parametrize(
    ("where", "how"),
    [
        (where, how)
        for where in ("first", "pool", "middle", "last")
        for how in ("kill", "segv", "exit-0", "exit-3")
        if ROUNDS or how == "kill" or where == "pool"
    ],
)
def test_in_the_middle_of_an_item(where: str, how: str, tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, [0, 60, 150, 299], how)

    def stage(name: str) -> Callable[[int], int]:
        return deaths.strike if name == where else abs

    pipe = (
        sp.Pipeline(lambda: iter(range(300)))
        .map(stage("first"), name="first", workers=1)
        .map(stage("pool"), name="pool", workers=2)
        .map(stage("middle"), name="middle", workers=1)
        .map(stage("last"), name="last", workers=1)
    )
    with pipe.loader(restarts=4, **FORK) as loader:
        assert list(loader) == list(range(300))
    assert deaths.count == 4
    assert 2 <= deaths_of(loader) <= 4  # of two that die at a time one may be replaced unseen


class Explosive:
    """Ends the process that pickles, or unpickles, it."""

    def __init__(self, number: int, deaths: Deaths) -> None:
        self.number = number
        self.deaths = deaths

    def __reduce__(self) -> Any:
        self.deaths.strike(self.number)
        return Explosive, (self.number, self.deaths)


def test_while_an_item_is_serialised(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, [3, 17])
    pipe = sp.Pipeline(range(40)).map(lambda x: Explosive(x, deaths), workers=2)
    with pipe.loader(**FORK) as loader:
        assert [item.number for item in loader] == list(range(40))
    assert deaths.count == 2


def test_between_epochs_and_in_an_endless_run() -> None:
    pipe = sp.Pipeline(range(5)).map(grown, workers=2).through(_numbered, workers=1)
    truth = read(pipe.loader(executor="inline", epochs=1))[0]
    with pipe.loader(epochs=None, prefetch=1, restarts=None, **FORK) as loader:
        for number, items in enumerate(loader.by_epoch()):
            assert [frozen(item) for item in items] == truth
            kill_one(loader, number)
            if number == 12:
                break
    assert deaths_of(loader) >= 3


def test_an_epoch_that_was_left() -> None:
    pipe = sp.Pipeline(lambda: iter(range(500))).map(square, workers=1).map(grown, workers=2)
    whole = read(pipe.loader(executor="inline"))[0]
    with pipe.loader(epochs=6, prefetch=1, restarts=None, **FORK) as loader:
        for number, items in enumerate(loader.by_epoch()):
            got = [frozen(item) for item, _ in zip(items, range(20), strict=False)]
            assert got == whole[:20]
            kill_one(loader, number)
    assert deaths_of(loader) >= 1


# --- several outputs --------------------------------------------------------------------------


def outputs(workers: int) -> dict[str, sp.Pipeline]:
    shared = sp.Pipeline(lambda: iter(range(700))).map(square)
    return {
        "raw": shared,
        "grown": shared.map(grown, workers=workers),
        "sums": shared.through(sums, workers=1),
        "own": sp.Pipeline(range(500), shuffle="global").map(grown, workers=workers),
    }


def in_turn(loaders: dict[str, sp.Loader], kill_at: tuple[int, ...] = ()) -> dict[str, list[Any]]:
    """Read one item of each after the other; kill workers meanwhile."""
    got: dict[str, list[Any]] = {name: [] for name in loaders}
    left, rounds = dict(loaders), 0
    while left:
        rounds += 1
        for name, loader in list(left.items()):
            try:
                got[name].append(frozen(next(loader)))
            except StopIteration:
                del left[name]
        if rounds in kill_at and left:
            kill_one(next(iter(left.values())), rounds)
    return got


@pytest.mark.deadline(60)
@pytest.mark.parametrize("transport", ["pipe", "zmq"])
def test_outputs_that_one_thread_reads_in_step(transport: str) -> None:
    truth = in_turn(sp.run(outputs(1), executor="inline", epochs=2))
    loaders = sp.run(outputs(2), epochs=2, transport=transport, restarts=None, **FORK)
    assert in_turn(loaders, kill_at=(1, 90, 300, 690, 710, 1100)) == truth
    assert deaths_of(loaders["raw"]) >= 1


@pytest.mark.deadline(60)
def test_outputs_that_several_threads_read(tmp_path: Path) -> None:
    truth = in_turn(sp.run(outputs(1), executor="inline", epochs=2))
    loaders = sp.run(outputs(2), epochs=2, prefetch=1, restarts=None, **FORK)
    got: dict[str, Any] = {}

    def follow(name: str) -> None:
        try:
            got[name] = []
            for number, item in enumerate(loaders[name]):
                got[name].append(frozen(item))
                if name == "sums" and number % 211 == 5:
                    kill_one(loaders[name], number)
        except BaseException as error:
            got[name] = error

    threads = [threading.Thread(target=follow, args=(name,)) for name in loaders]
    for thread in threads:
        thread.start()
    assert joined(threads)
    assert got == truth
    assert deaths_of(loaders["raw"]) >= 1


def test_an_output_that_was_closed_stays_so() -> None:
    truth = in_turn(sp.run(outputs(1), executor="inline"))
    loaders = sp.run(outputs(2), prefetch=1, restarts=None, **FORK)
    for loader in loaders.values():
        next(loader)
    loaders.pop("raw").close()
    kill_one(loaders["own"], 0)
    got = in_turn(loaders, kill_at=(100, 200))
    assert got == {name: truth[name][1:] for name in loaders}


# --- what others notice -----------------------------------------------------------------------


def test_arrays_that_are_kept_stay_what_they_are() -> None:
    pipe = sp.Pipeline(range(60)).map(lambda x: np.full(20_000, x), workers=2)
    kept = []
    with pipe.loader(prefetch=2, restarts=None, **FORK) as loader:
        for number, array in enumerate(loader):
            kept.append(array)
            if number % 20 == 3:
                kill_one(loader, number)
            if len(kept) > 3:
                kept.pop(0)
            assert [int(one[0]) for one in kept] == list(range(number + 1))[-len(kept) :]
            assert all((one == one[0]).all() for one in kept)


def test_it_is_logged_and_counted(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, [7])
    pipe = sp.Pipeline(range(30)).map(deaths.strike, workers=2, name="decode")
    with caplog.at_level(logging.WARNING, "splitpipe"), pipe.loader(**FORK) as loader:
        assert list(loader) == list(range(30))
        task, consumer = loader.stats()
        diagnosis = loader.doctor()
    assert (task.deaths, consumer.deaths) == (1, 0)
    assert consumer.items_in == 30
    assert task.items_out >= 30
    assert task.queued == 0
    (record,) = [r for r in caplog.records if "replaced" in r.getMessage()]
    assert "of stage 'decode'" in record.getMessage()
    assert "killed by SIGKILL" in record.getMessage()
    assert "1 worker died" in diagnosis.text


def test_workers_that_were_added_are_added_again() -> None:
    pipe = sp.Pipeline(range(500)).map(grown, workers="auto")
    with pipe.loader(**FORK) as loader:
        keeper = loader._run.supervisor
        assert keeper is not None
        (team,) = keeper.teams.values()
        next(loader)
        team.work(2)
        before = keeper.pids
        kill_one(loader, 0)
        got = [item[1] for item in loader]
        assert got == list(range(1, 500))
        assert not set(before) & set(keeper.pids)


def test_a_stage_that_gives_other_items_each_time_is_told(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    def shorter() -> Iterator[int]:
        again = mark.exists()
        mark.touch()
        yield from range(5 if again else 10**6)

    with sp.Pipeline(shorter).map(grown, workers=1).loader(prefetch=1, **FORK) as loader:
        for _ in range(50):
            next(loader)
        kill_one(loader, 0)
        with pytest.raises(sp.PipelineError, match="does not give the same items each time"):
            for _ in loader:
                pass


@pytest.mark.parametrize("read", [1, 700])
def test_a_program_that_waits_for_its_children_itself(read: int) -> None:
    """Whoever waits for a process is told how it ended, and nobody after him."""
    with sp.Pipeline(range(2000)).map(str, workers=1).loader(start_method="fork") as loader:
        got = [next(loader) for _ in range(read)]
        supervisor = loader._run.supervisor
        assert supervisor is not None
        (pid,) = supervisor.pids
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        got += loader
    assert got == [str(x) for x in range(2000)]
