"""Workers that come, wait and go on while a run lasts: nobody sees it in the stream."""

from __future__ import annotations

import random
import threading
from itertools import islice
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.runtime import metrics, tuning
from splitpipe.runtime.board import WAITS_FOR_INPUT
from splitpipe.runtime.grants import Claims, Credits, UnitSize
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.team import Leash, Team
from splitpipe.runtime.tuner import Decision, Sample, Tuner
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import decode
from tests.runtime.comparing import all_frozen, counted

RUN = 5


class TestTeam:
    def team(self, count: int) -> tuple[Team, list[MemoryLink], list[int]]:
        leashes = [MemoryLink() for _ in range(count)]
        started = [0]
        start = [lambda n=n: started.append(n) for n in range(count)]
        return Team(start, leashes, run=RUN), leashes, started

    def told(self, link: MemoryLink) -> list[int]:
        found, receiver = [], link.receiver()
        while (wire := receiver.receive(block=False)) is not None:
            found.append(decode(wire).count)
        return found

    def test_starts_one_after_the_other_and_parks_from_the_end(self) -> None:
        team, leashes, started = self.team(4)
        team.work(3)
        assert (team.working, started) == (3, [0, 1, 2])
        team.work(1)
        assert team.working == 1
        team.work(2)
        assert (team.working, started) == (2, [0, 1, 2])
        assert [self.told(link) for link in leashes] == [[], [0, 1], [0], []]
        team.work(9)
        assert (team.working, started) == (4, [0, 1, 2, 3])
        team.work(0)
        assert team.working == 1
        for link in leashes:
            link.close()


class TestLeash:
    def test_only_the_last_word_counts(self) -> None:
        team, (_, link), _ = TestTeam().team(2)
        for count in (2, 1, 2, 1, 2):
            team.work(count)
        Leash(link.receiver(), Meter()).heed()
        link.close()

    def test_waits_until_it_may_go_on(self) -> None:
        team, (_, link), _ = TestTeam().team(2)
        meter, went = Meter(), threading.Event()
        team.work(2)
        team.work(1)
        leash = Leash(link.receiver(), meter)

        def worker() -> None:
            leash.heed()
            went.set()

        thread = threading.Thread(target=worker)
        thread.start()
        assert not went.is_set() or team.working == 1
        team.work(2)
        assert went.wait(120)
        thread.join()
        assert meter.state != WAITS_FOR_INPUT
        link.close()

    def test_a_shut_run_wakes_it(self) -> None:
        team, (_, link), _ = TestTeam().team(2)
        team.work(2)
        team.work(1)
        link.shut()
        leash = Leash(link.receiver(), Meter())
        with pytest.raises(sp.BrokenChannel):
            leash.heed()
        link.close()


class Wild(Tuner):
    """Decides at random, all the time."""

    draw = random.Random(4)
    decided = 0

    def observe(self, sample: Sample) -> Decision:
        Wild.decided += 1
        values = tuple(self.draw.randint(1, knob.most) for knob in self._knobs)
        self.decision = Decision(values)
        return self.decision


@pytest.fixture
def wild(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "Tuner", Wild)
    monkeypatch.setattr(metrics, "SELDOM_S", 0.0)
    monkeypatch.setattr("splitpipe.pipeline.stage._worth_trying", lambda: 4)
    Wild.decided = 0


def array(x: int) -> Any:
    return np.full((30, 40), x, np.int32)


def keep(x: Any) -> bool:
    return int(np.asarray(x).ravel()[0]) % 3 != 0


def spread(x: Any) -> Any:
    yield x
    yield x


def running(items: Any) -> Any:
    yield from enumerate(items)


SEQUENCE = sp.Pipeline(range(400), shuffle="global", seed=1)
NAMES = ("batches", "items", "numbers", "behind a head", "two pools", "before a task")


def pipe_of(name: str) -> sp.Pipeline:
    """Described when it is asked for: how many workers there may be is said then."""
    return {
        "batches": SEQUENCE.map(array, workers="auto").batch(8),
        "items": SEQUENCE.map(array, workers="auto").filter(keep),
        "numbers": SEQUENCE.filter(keep, workers="auto"),
        "behind a head": sp.Pipeline(lambda: iter(range(400))).map(array, workers="auto"),
        "two pools": SEQUENCE.map(array, workers="auto").flat_map(spread, workers="auto"),
        "before a task": SEQUENCE.map(array, workers="auto").through(running, workers=1),
    }[name]


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_decided_the_stream_is_that_of_inline(
    name: str, executor: str, wild: None
) -> None:
    pipe = pipe_of(name)
    expected = all_frozen(pipe.loader(executor="inline", epochs=2))
    start = "fork" if executor == "process" else None
    with pipe.loader(executor=executor, start_method=start, epochs=2, prefetch="auto") as loader:
        assert all_frozen(loader) == expected
    assert Wild.decided > 3


def test_unordered_and_left_early(wild: None) -> None:
    pipe = sp.Pipeline(range(400)).map(array, workers="auto", ordered=False).batch(8)
    whole = counted(all_frozen(pipe))
    with pipe.loader(start_method="fork", epochs=6, prefetch="auto") as loader:
        for number, epoch in enumerate(loader.by_epoch()):
            got = all_frozen(islice(epoch, 9 * number))  # and none of them is kept
            assert not counted(got) - whole


def test_over_zeromq(wild: None) -> None:
    for name in ("batches", "behind a head"):
        pipe = pipe_of(name)
        with pipe.loader(start_method="fork", transport="zmq") as loader:
            assert all_frozen(loader) == all_frozen(pipe)


def fails(x: int) -> Any:
    if x == 77:
        raise KeyError(x)
    return array(x)


def test_failures_come_at_their_place(wild: None) -> None:
    pipe = SEQUENCE.map(fails, workers="auto").batch(4)
    before: list[Any] = []
    with pytest.raises(KeyError):
        before.extend(pipe.loader(executor="inline"))
    got: list[Any] = []
    with pipe.loader(start_method="fork", prefetch="auto") as loader, pytest.raises(KeyError):
        got.extend(loader)
    assert all_frozen(got) == all_frozen(before)


def test_nothing_is_tuned_that_was_said() -> None:
    with sp.Pipeline(range(9)).map(array, workers=2).loader(start_method="fork") as loader:
        assert loader._run.tuning is None
        assert len(list(loader)) == 9


class TestPlan:
    def test_what_auto_says(self) -> None:
        pipe = sp.Pipeline(range(9)).map(array, workers="auto").batch(3)
        (task,) = plan({"": pipe.node}, RunOptions()).tasks
        assert task.auto
        assert task.pool
        assert task.workers >= 2
        assert "as many as pay" in pipe.explain()
        assert "x auto" in repr(pipe)

    def test_zeromq_keeps_all_workers_behind_a_head(self) -> None:
        pipe = sp.Pipeline(lambda: iter(())).map(array, workers="auto")
        tasks = plan({"": pipe.node}, RunOptions(transport="zmq")).tasks
        assert [task.auto for task in tasks] == [False, False]

    def test_what_cannot_be_shared(self) -> None:
        pipe = sp.Pipeline(range(9)).filter(keep).batch(3, workers="auto")
        with pytest.raises(sp.GraphError, match="needs the whole stream in order"):
            pipe.loader()

    def test_other_words(self) -> None:
        with pytest.raises(sp.GraphError, match="workers must be a whole number"):
            sp.Pipeline(range(9)).map(array, workers="many")  # type: ignore[arg-type]
        with pytest.raises(sp.GraphError, match="prefetch must be a whole number"):
            sp.Pipeline(range(9)).loader(prefetch="much")  # type: ignore[arg-type]


class TestWidening:
    def drained(self, link: MemoryLink) -> list[Any]:
        found, receiver = [], link.receiver()
        while (wire := receiver.receive(block=False)) is not None:
            found.append(decode(wire))
        return found

    def test_claims(self) -> None:
        link = MemoryLink(capacity=1000)
        claims = Claims(link.sender(), run=RUN, window=2, positions=99, epochs=1, size=UnitSize(1))
        claims.open()
        assert len(self.drained(link)) == 2
        claims.widen(5)
        claims.consumed()
        assert len(self.drained(link)) == 4
        claims.widen(1)  # never fewer than were meant at first
        for _ in range(3):
            claims.consumed()
        assert len(self.drained(link)) == 0
        claims.consumed()
        assert len(self.drained(link)) == 1
        link.close()

    def test_credits(self) -> None:
        link = MemoryLink(capacity=1000)
        credits = Credits(link.sender(), run=RUN, window=2)
        credits.open()
        credits.widen(6)
        credits.consumed()
        assert sum(one.count for one in self.drained(link)) == 7
        link.close()

    def test_no_more_claims_than_a_socket_holds(self) -> None:
        link = MemoryLink(capacity=10_000)
        claims = Claims(
            link.sender(), run=RUN, window=2, positions=9999, epochs=1, size=UnitSize(1)
        )
        claims.widen(5000)
        claims.open()
        assert len(self.drained(link)) == 256
        link.close()
