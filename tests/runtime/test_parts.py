"""Batches that are made in parts: whatever the parts were and in whichever order they came, what
inline gives.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions, Task, plan
from splitpipe.runtime.grants import Claims, PartSize
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import Outbox
from splitpipe.runtime.parts import Splitting, splitting, travels
from splitpipe.runtime.pool import PoolWorker
from splitpipe.transport.base import Buffer
from splitpipe.transport.envelope import Packer
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import Message, decode
from tests.runtime.comparing import Point, all_frozen

RUN = 3


class Sizes(PartSize):
    """Parts of sizes that were drawn, whatever they cost."""

    def __init__(self, split: Splitting, window: int, draw: random.Random) -> None:
        super().__init__(split, window)
        self._draw = draw
        self._choose()

    def learn(self, positions: int, elapsed_ns: int, nbytes: int) -> None:
        if self.splits is not None:
            self._choose()

    def _choose(self) -> None:
        self.splits = True
        rows = self.step // self._row
        # Now and then whole batches, or several at once, as if they had become cheap.
        whole = [self.step, 2 * self.step]
        self.positions = self._draw.choice([*(self._row * n for n in range(1, rows)), *whole])


def task_of(pipe: sp.Pipeline) -> Task:
    """What other processes run of `pipe`: its first task."""
    return plan({"": pipe.node}, RunOptions()).tasks[0]


class One(MemoryLink):
    """A link that holds one message, and is shut when that was taken."""

    def __init__(self, wire: Buffer) -> None:
        super().__init__()
        self.sender().send([wire])

    def give(self) -> Intake:
        receiver = self.receiver()
        take = receiver.receive

        def once(*, block: bool = True) -> Buffer | None:
            wire = take(block=False)
            if wire is None:
                raise sp.BrokenChannel("one was enough")
            return wire

        receiver.receive = once  # type: ignore[method-assign]
        return Intake(receiver, {}, run=RUN, meter=Meter())


class Pool:
    """A region without processes: whenever its reader waits, one of the claims under way is met,
    whichever the dice say.
    """

    def __init__(
        self,
        pipe: sp.Pipeline,
        *,
        window: int = 3,
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        self.draw = random.Random(seed)
        self.body = task_of(pipe).body
        split = splitting(task_of(pipe))
        assert split is not None
        assert self.body.source is not None
        self.positions = len(self.body.source)  # type: ignore[arg-type]
        self.size = Sizes(split, window, self.draw)
        self.meter, self.epochs = Meter(), epochs
        self.work, self.out = MemoryLink(capacity=10_000), MemoryLink(capacity=10_000)
        self._claims, self._sender = self.work.receiver(), self.out.sender()
        self.pending: list[Buffer] = []
        self.claims: list[Message] = []
        self.most = 0
        grants = Claims(
            self.work.sender(),
            run=RUN,
            window=window,
            positions=self.positions,
            epochs=epochs,
            size=self.size,
        )
        intake = Intake(self.out.receiver(), {}, run=RUN, meter=Meter(), wait=self.step)
        self.inbox = Inbox(intake, grants, splitting=split)

    def step(self) -> None:
        while (wire := self._claims.receive(block=False)) is not None:
            self.pending.append(wire)
            self.claims.append(decode(wire))
        under_way = [decode(wire) for wire in self.pending]
        self.most = max(self.most, sum(claim.stop - claim.start for claim in under_way))
        link = One(self.pending.pop(self.draw.randrange(len(self.pending))))
        packer = Packer(None)
        outbox = Outbox(self._sender, packer, run=RUN, producer=0, meter=self.meter)
        worker = self.worker(link.give(), outbox)
        with pytest.raises(sp.BrokenChannel):
            worker.run()
        link.close()

    def worker(self, intake: Intake, outbox: Outbox) -> PoolWorker:
        return PoolWorker(self.body, intake, outbox, worker="w", meter=self.meter)

    def epoch(self, number: int, stop: int | None = None) -> Iterator[Any]:
        """Yield the items of an epoch, or the first `stop` of them, and leave it."""
        for count, item in enumerate(self.inbox.epoch()):
            if count == stop:
                break
            yield item
        self.inbox.end_epoch(last=number + 1 == self.epochs)

    def close(self) -> None:
        self.work.close()
        self.out.close()


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


def array(x: int) -> Any:
    return np.full((3, 4), x, np.int32)


def ragged(x: int) -> Any:
    return np.arange(x % 4)


def late(x: int) -> Any:
    return np.zeros(2 if x % 7 == 5 else 3)


def nested(x: int) -> Any:
    return {"a": array(x), "b": (x, float(x)), "c": [str(x)] * (x % 3), "d": Point(x, "p")}


def changing(x: int) -> Any:
    return x if x % 5 else np.float32(x)


def huge(x: int) -> Any:
    return 2**70 if x % 11 == 3 else x


def local(x: int) -> Any:
    class Here(enum.IntEnum):
        ONE = 1
        TWO = 2

    return Here(1 + x % 2)


def stays(x: int) -> Any:
    return {"x": x} if x % 9 else type("Other", (dict,), {})(x=x)


def colours(x: int) -> Any:
    return Colour(1 + x % 2)


FUNCTIONS = [array, ragged, late, nested, changing, huge, local, stays, colours, str]


@st.composite
def pipelines(draw: st.DrawFn) -> sp.Pipeline:
    shuffle = draw(st.sampled_from([None, "global"]))
    pipe = sp.Pipeline(
        range(draw(st.integers(0, 50))), shuffle=shuffle, seed=draw(st.integers(0, 2))
    )
    inner = draw(st.sampled_from([None, None, 1, 2, 3]))
    drop = draw(st.booleans())
    pipe = pipe.map(draw(st.sampled_from(FUNCTIONS)), workers=2)
    if inner is not None:
        pipe = pipe.batch(inner, collate=list, drop_last=drop)
    return pipe.batch(draw(st.integers(2, 9)), drop_last=not drop and draw(st.booleans()))


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    pipe=pipelines(),
    window=st.integers(1, 5),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_any_parts_in_any_order_make_what_inline_makes(
    pipe: sp.Pipeline, window: int, epochs: int, seed: int
) -> None:
    pool = Pool(pipe, window=window, epochs=epochs, seed=seed)
    inline = pipe.loader(executor="inline", epochs=epochs)
    taken = made = 0
    for number, expected in enumerate(inline.by_epoch()):
        want = list(expected)
        got = list(pool.epoch(number))
        assert all_frozen(got) == all_frozen(want)
        taken += pool.positions
        made += len(want)
    assert not pool.pending
    assert (pool.meter.items_in, pool.meter.items_out) == (taken, made)
    assert pool.most <= (window + 1) * 2 * pool.size.step
    pool.close()


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    n=st.integers(1, 60),
    size=st.integers(2, 8),
    window=st.integers(1, 4),
    stops=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
)
def test_epochs_that_are_left_early_leave_nothing_for_their_successors(
    n: int, size: int, window: int, stops: list[int], seed: int
) -> None:
    pipe = sp.Pipeline(range(n)).map(array, workers=2).batch(size)
    whole = all_frozen(pipe)
    pool = Pool(pipe, window=window, epochs=len(stops) + 1, seed=seed)
    for number, stop in enumerate(stops):
        assert all_frozen(pool.epoch(number, stop)) == whole[:stop]
    assert all_frozen(pool.epoch(len(stops))) == whole
    pool.close()


@dataclass(frozen=True)
class Failing:
    """Raises at some numbers."""

    at: Sequence[int]
    kind: type[Exception] = KeyError

    def __call__(self, x: int) -> Any:
        if x in self.at:
            raise self.kind(x)
        return array(x)


def outcome(items: Iterator[Any]) -> tuple[list[Any], BaseException | None]:
    got: list[Any] = []
    try:
        for item in items:
            got.append(item)  # noqa: PERF402  what came before an error counts
    except Exception as error:
        return all_frozen(got), error
    return all_frozen(got), None


@hypothesis.settings(max_examples=80)
@hypothesis.given(
    n=st.integers(1, 40),
    size=st.integers(2, 8),
    at=st.lists(st.integers(0, 39), max_size=3),
    kind=st.sampled_from([KeyError, StopIteration, ValueError]),
    window=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_failures_come_at_their_place_and_the_run_goes_on_with_the_next_epoch(
    n: int, size: int, at: list[int], kind: type[Exception], window: int, seed: int
) -> None:
    pipe = sp.Pipeline(range(n)).map(Failing(at, kind), workers=2, name="work").batch(size)
    want, expected = outcome(iter(pipe))
    pool = Pool(pipe, window=window, epochs=3, seed=seed)
    for number in range(3):
        got, error = outcome(pool.epoch(number))
        assert got == want
        assert (error is None) == (expected is None)
        if error is not None:
            assert pool.inbox.failure is not None
            assert pool.inbox.failure[0] is error
            assert type(error) is type(expected)
            first = min(x for x in at if x < n)
            assert f"epoch {number}, input item {first}" in error.__notes__[0]
            assert "in stage 'work'" in error.__notes__[0]
            pool.inbox.end_epoch(last=number == 2)
    pool.close()


def drawn(x: Any, rng: np.random.Generator) -> Any:
    return x, float(rng.random())


def unlike(x: int) -> Any:
    return {"a": x} if x < 13 else [x]


def test_rows_that_do_not_fit_together_fail_as_inline_and_say_where() -> None:
    pipe = sp.Pipeline(range(20)).map(unlike, workers=2).batch(5)
    want, expected = outcome(iter(pipe))
    for seed in range(20):
        pool = Pool(pipe, seed=seed)
        got, error = outcome(pool.epoch(0))
        assert got == want
        assert (type(error), str(error)) == (type(expected), str(expected))
        assert error is not None
        assert pool.inbox.failure is not None
        assert pool.inbox.failure[0] is error
        assert error.__notes__[0].startswith("in stage 'batch(5)'")
        assert error.__notes__[0].endswith("epoch 0, input item 13")
        pool.close()


def test_a_row_error_before_a_failing_one_wins_as_inline() -> None:
    def two(x: int) -> Any:
        if x == 7:
            raise KeyError(x)
        return {"a": x} if x != 6 else (x,)

    pipe = sp.Pipeline(range(10)).map(two, workers=2).batch(5)
    expected = outcome(iter(pipe))[1]
    for seed in range(20):
        pool = Pool(pipe, seed=seed)
        error = outcome(pool.epoch(0))[1]
        assert (type(error), str(error)) == (type(expected), str(expected))
        pool.close()


def test_a_row_that_cannot_travel_makes_batches_whole_from_then_on() -> None:
    pipe = sp.Pipeline(range(40)).map(stays, workers=2).batch(4)
    pool = Pool(pipe, seed=1, epochs=2)
    assert all_frozen(pool.epoch(0)) == all_frozen(pipe)
    assert pool.size.splits is None
    assert all_frozen(pool.epoch(1)) == all_frozen(pipe)
    pool.close()


class TestTravels:
    @pytest.mark.parametrize(
        "row",
        [1, "s", None, np.float32(1), array(1), nested(1), (1, [2, {"x": b""}]), Point(1, 2)],
        ids=repr,
    )
    def test_what_is_the_same_afterwards(self, row: Any) -> None:
        assert travels(row)

    @pytest.mark.parametrize("row", [local(1), [local(1)], {"x": (local(1),)}, {local(1): 1}])
    def test_not_what_is_of_a_class_that_has_no_name_elsewhere(self, row: Any) -> None:
        assert not travels(row)


class TestSplitting:
    def test_what_must_be_whole(self) -> None:
        pipe = sp.Pipeline(range(9)).map(array, workers=2)
        assert splitting(task_of(pipe.batch(3))) is not None
        for whole in (
            pipe,
            pipe.batch(3).map(len),
            pipe.batch(3, collate=list),
            pipe.batch(1),
            pipe.batch(3).map(drawn),
            sp.Pipeline(range(9)).map(array, workers=2, ordered=False).batch(3),
            sp.Pipeline(range(9)).map(array, workers=1).batch(3),
            sp.Pipeline(lambda: iter(range(9))).map(array, workers=2).batch(3),
        ):
            assert splitting(task_of(whole)) is None

    def test_rows_of_batches(self) -> None:
        pipe = sp.Pipeline(range(9)).map(array, workers=2).batch(3).map(len).batch(4)
        made = splitting(task_of(pipe))
        assert made is not None
        assert (made.row, made.unit) == (3, 12)

    def test_rows_of_functions_that_draw(self) -> None:
        pipe = sp.Pipeline(range(50), seed=3).map(drawn, workers=2).batch(7)
        pool = Pool(pipe, seed=2)
        assert all_frozen(pool.epoch(0)) == all_frozen(pipe)
        pool.close()


class TestPartSize:
    MS = 1_000_000

    def size(self, rows: int = 16, row: int = 1, window: int = 6) -> PartSize:
        pipe = sp.Pipeline(range(1)).batch(row, workers=2).batch(rows)
        split = splitting(task_of(pipe))
        assert split is not None
        return PartSize(split, window)

    def test_cheap_batches_stay_whole_and_grow(self) -> None:
        size = self.size()
        for _ in range(50):
            size.learn(size.positions, 20_000 * size.positions // 16, 1000)
        assert not size.splits
        assert size.positions % 16 == 0
        assert size.positions > 16

    def test_costly_ones_are_split_into_parts_of_milliseconds(self) -> None:
        size = self.size()
        size.learn(16, 32 * self.MS, 1000)
        assert size.splits
        assert size.positions == 2
        for _ in range(1000):
            size.learn(size.positions, size.positions * self.MS, 100)
        assert size.positions == 3

    def test_parts_are_whole_rows(self) -> None:
        size = self.size(rows=4, row=5)
        size.learn(20, 12 * self.MS, 1000)
        assert size.positions == 5

    def test_large_or_tiny_rows_are_never_split(self) -> None:
        size = self.size()
        size.learn(16, 32 * self.MS, 10_000_000)
        assert not size.splits
        many = self.size(rows=4096)
        many.learn(4096, 80 * self.MS, 1000)
        assert not many.splits

    def test_a_cheap_stretch_between_costly_ones_changes_nothing(self) -> None:
        size = self.size()
        for _ in range(5):
            size.learn(16, 300 * self.MS, 1000)
            for _ in range(9):
                size.learn(16, 16 * self.MS, 1000)
                assert size.splits

    def test_what_has_become_cheap_is_made_whole_again(self) -> None:
        size = self.size()
        size.learn(16, 32 * self.MS, 1000)
        for _ in range(400):
            size.learn(size.positions, 20_000 * size.positions // 16, 100)
        assert not size.splits
        assert size.positions % 16 == 0

    def test_no_more_parts_under_way_than_a_socket_holds(self) -> None:
        size = self.size(rows=64, window=40)
        size.learn(64, 6_400 * self.MS, 1000)
        assert 40 * 64 / size.positions <= 128


def test_what_of_a_batch_was_claimed_is_answered_once_and_in_one_piece() -> None:
    """The parts of a batch never cross its end, and cover it."""
    pipe = sp.Pipeline(range(41)).map(array, workers=2).batch(8)
    pool = Pool(pipe, seed=5)
    list(pool.epoch(0))
    seen = pool.claims
    assert [claim.start for claim in seen] == [0, *(claim.stop for claim in seen[:-1])]
    assert seen[-1].stop == 41
    for claim in seen:
        inside = claim.start // 8 == (claim.stop - 1) // 8
        assert inside or (claim.start % 8 == 0 and claim.stop % 8 == 0)
    assert any(claim.count for claim in seen)
    pool.close()


def costly(x: int) -> Any:
    """Half a millisecond of work, and one in ten ten times as much."""
    until = time.thread_time() + (0.005 if x % 10 == 0 else 0.0005)
    while time.thread_time() < until:
        pass
    return array(x)


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("workers", [2, "auto"])
def test_a_run_whose_batches_cost_long_splits_them_and_nobody_sees(
    executor: str, workers: Any
) -> None:
    pipe = sp.Pipeline(range(320), shuffle="global").map(costly, workers=workers).batch(16)
    cheap = sp.Pipeline(range(320), shuffle="global").map(array).batch(16)
    expected = all_frozen(cheap.loader(executor="inline", epochs=2))
    start_method = "fork" if executor == "process" else None
    with pipe.loader(executor=executor, start_method=start_method, epochs=2) as loader:
        assert all_frozen(loader) == expected
        pool, consumer = loader.stats()[0], loader.stats()[-1]
    assert (pool.items_in, pool.items_out, consumer.items_in) == (640, 40, 40)
    assert pool.messages > 2 * 40


@dataclass(frozen=True)
class Spending:
    """Each number costs what a list says, in tenths of a millisecond."""

    costs: Sequence[int]

    def __call__(self, x: int) -> Any:
        until = time.thread_time() + 1e-4 * self.costs[x % len(self.costs)]
        while time.thread_time() < until:
            pass
        return array(x), x


@pytest.mark.long
@hypothesis.settings(max_examples=15)
@hypothesis.given(
    n=st.integers(0, 120),
    size=st.integers(2, 24),
    costs=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    workers=st.integers(2, 4),
    capacity=st.sampled_from([None, None, 1, 2]),
    executor=st.sampled_from(["process", "thread"]),
)
def test_any_costs_make_what_inline_makes(
    n: int, size: int, costs: list[int], workers: int, capacity: int | None, executor: str
) -> None:
    spend = Spending(tuple(costs))
    source = sp.Pipeline(range(n), shuffle="global", seed=2)
    pipe = source.map(spend, workers=workers, capacity=capacity).batch(size)
    expected = all_frozen(source.map(Spending((0,))).batch(size).loader(executor="inline"))
    start_method = "fork" if executor == "process" else None
    with pipe.loader(executor=executor, start_method=start_method) as loader:
        assert all_frozen(loader) == expected
