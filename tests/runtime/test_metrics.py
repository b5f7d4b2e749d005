"""A worker's counters, its row of the board, and what others read there."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from splitpipe.pipeline.stages import Context
from splitpipe.runtime import board as b
from splitpipe.runtime.board import Board, BoardView, Heading, StageHead, TaskHead, boards
from splitpipe.runtime.metrics import Layer, Meter, SharedMeter, finished, started
from splitpipe.runtime.statistics import TaskStatistics, read, since
from splitpipe.transport.arena import ArenaStatistics

HEADING = Heading(
    tasks=(
        TaskHead("decode", 2, (StageHead("read"), StageHead("decode", ("bad",))), source=True),
        TaskHead("consumer", 1, (), (0,), executor="consumer"),
    ),
    run=7,
    title="train.py",
    pid=os.getpid(),
    started=100.0,
    options={"prefetch": 4},
)


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board(HEADING)
    yield made
    made.close()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class TestBoard:
    def test_heading_survives_json(self) -> None:
        assert Heading.of_json(HEADING.to_json()) == HEADING

    def test_heading_of_any_length(self) -> None:
        many = Heading(tuple(TaskHead(f"task {n}" * 100, 1) for n in range(50)), pid=os.getpid())
        made = Board(many)
        try:
            (view,) = mine()
            with view:
                assert view.heading == many
                assert len(view.rows()) == 50
        finally:
            made.close()

    def test_rows_do_not_share_cache_lines(self, board: Board) -> None:
        rows = [board.row(n) for n in range(3)]
        for number, row in enumerate(rows):
            assert len(row) % 8 == 0
            row[:] = memoryview(bytes(row)).cast("d")
            for place in range(len(row)):
                row[place] = number
        assert [set(row) for row in rows] == [{0.0}, {1.0}, {2.0}]

    def test_is_found_and_gone(self, board: Board) -> None:
        board.row(1)[b.ITEMS_OUT] = 5.0
        (view,) = mine()
        with view:
            assert view.heading == HEADING
            assert [row[b.ITEMS_OUT] for row in view.rows()] == [0.0, 5.0, 0.0]
        board.close()
        assert mine() == []

    def test_one_that_a_worker_holds_after_its_owner_is_not_shown(self) -> None:
        made = Board(Heading(HEADING.tasks, pid=1))
        try:
            assert mine() == []
        finally:
            made.close()

    def test_what_is_no_board_is_refused(self) -> None:
        memory = os.memfd_create(b.LABEL)
        try:
            os.write(memory, b"not a board" * 1000)
            with pytest.raises(ValueError, match="no board"):
                BoardView(os.getpid(), memory)
            assert mine() == []
        finally:
            os.close(memory)


class TestMeter:
    def test_tells_what_it_counted(self, board: Board) -> None:
        meter = Meter(board.row(0))
        meter.items_in, meter.items_out, meter.messages, meter.nbytes = 10, 9, 3, 4096
        meter.take()
        meter.units_out = 3
        meter.publish()
        task, consumer = read(HEADING, rows(board), now=time.perf_counter())
        assert (task.items_in, task.items_out, task.messages, task.nbytes) == (10, 9, 3, 4096)
        assert (task.queued, consumer.items_in) == (3, 0)
        assert task.first_s is not None
        assert task.start_s is None  # one of the two workers has not begun

    def test_without_a_row_it_still_counts(self) -> None:
        meter = Meter()
        meter.take()
        meter.wait(b.WAITS_FOR_INPUT)
        meter.resume()
        meter.publish()
        meter.finish()
        assert meter.units_in == 1
        assert meter.wait_input_s > 0

    def test_life_of_a_row(self, board: Board) -> None:
        row = board.row(0)
        assert not started(row)
        meter = Meter(row)
        assert started(row)
        assert not finished(row)
        meter.finish()
        assert finished(row)
        assert row[b.PID] == os.getpid()

    @pytest.mark.parametrize(
        ("state", "times"),
        [
            (b.WAITS_FOR_INPUT, (3.0, 0.0, 0.0)),
            (b.WAITS_FOR_OUTPUT, (0.0, 3.0, 0.0)),
            (b.WAITS_FOR_MEMORY, (0.0, 3.0, 3.0)),
        ],
    )
    def test_waits_count_while_they_last(
        self, board: Board, clock: Clock, state: int, times: tuple[float, ...]
    ) -> None:
        meter = Meter(board.row(0))
        clock.now += 1.0
        meter.wait(state)
        clock.now += 3.0
        for _ in range(2):
            task, _ = read(HEADING, rows(board), now=clock.now)
            assert (task.wait_input_s, task.wait_output_s, task.wait_memory_s) == times
            assert (task.running_s, task.busy_s, task.utilisation) == (4.0, 1.0, 0.25)
            meter.resume()

    def test_a_finished_worker_no_longer_runs(self, board: Board, clock: Clock) -> None:
        meter = Meter(board.row(0))
        clock.now += 2.0
        meter.finish()
        clock.now += 50.0
        assert read(HEADING, rows(board), now=clock.now)[0].running_s == 2.0

    def test_stages_add_up(self, board: Board) -> None:
        meter = Meter(board.row(0))
        for dropped in (2, 3):
            context = Context("decode", measures=("bad",))
            context.dropped = dropped
            context.measured["bad"] += 0.5
            layers = [Layer(1, context, iter(()))]
            meter.enter(layers)
            meter.leave(layers)
        meter.publish()
        task, _ = read(HEADING, rows(board), now=time.perf_counter())
        assert task.dropped == 5
        assert [stage.dropped for stage in task.stages] == [0, 5]
        assert [dict(stage.measured) for stage in task.stages] == [{}, {"bad": 1.0}]

    def test_stages_are_seen_while_they_run(self, board: Board, clock: Clock) -> None:
        meter = Meter(board.row(0))
        context = Context("decode", measures=("bad",))
        layers = [Layer(0, None, iter(())), Layer(1, context, iter(()))]
        for epoch in (1, 2):
            meter.enter(layers)
            context.dropped, context.measured["bad"] = 3, 0.5
            clock.now += 1.0
            meter.publish()
            task, _ = read(HEADING, rows(board), now=clock.now)
            assert (task.dropped, task.stages[1].dropped) == (3 * epoch, 3 * epoch)
            assert task.stages[1].measured == {"bad": 0.5 * epoch}
            meter.leave(layers)
        meter.leave(layers, counted=False)
        meter.finish()
        assert read(HEADING, rows(board), now=clock.now)[0].dropped == 6

    def test_threads_that_share_a_worker_share_its_time(self, board: Board, clock: Clock) -> None:
        meter = SharedMeter(board.row(0), threads=2)
        begun, go_on = threading.Event(), threading.Event()

        def other() -> None:
            meter.wait(b.WAITS_FOR_OUTPUT)
            begun.set()
            go_on.wait()
            meter.resume()

        thread = threading.Thread(target=other)
        thread.start()
        begun.wait()
        meter.wait(b.WAITS_FOR_INPUT)
        clock.now += 2.0
        meter.resume()
        clock.now += 2.0
        go_on.set()
        thread.join()
        meter.finish()
        task, _ = read(HEADING, rows(board), now=clock.now)
        assert (task.running_s, task.wait_input_s, task.wait_output_s) == (4.0, 1.0, 2.0)

    def test_more_measures_than_there_is_room_for(self, board: Board) -> None:
        row = board.row(0)
        meter = Meter(row)
        context = Context("decode", measures=tuple("abcdefgh"))
        context.measured = dict.fromkeys("abcdefgh", 1.0)
        meter.leave([Layer(1, context, iter(())), Layer(9, context, iter(()))])
        assert sum(row[b.FIELDS :]) == b.MEASURES

    def test_samples_go_to_the_innermost_stage(self, board: Board) -> None:
        def source() -> Iterator[Any]:
            yield frame()
            yield frame()

        def stage(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                yield item
                yield frame()

        meter = Meter(board.row(0))
        read_ = source()
        decode = stage(read_)
        meter.enter([Layer(0, None, read_), Layer(1, None, decode)])
        for seconds in (3.0, 1.0, 2.0, 1.0):
            meter.sample(next(decode), seconds)
        task, _ = read(HEADING, rows(board), now=time.perf_counter())
        # A generator's frame is found also when it does not run: what `frame` returned is one.
        assert [stage.busy_s for stage in task.stages] == [5.0, 2.0]
        meter.sample(frame(), 7.0)
        task, _ = read(HEADING, rows(board), now=time.perf_counter())
        assert [stage.share for stage in task.stages] == [5 / 14, 2 / 14]
        assert task.overhead == pytest.approx(0.5)

    def test_says_now_and_then_what_is_dear(self, board: Board, clock: Clock) -> None:
        class Shelf:
            asked = copies = 0

            def statistics(self) -> ArenaStatistics:
                self.asked += 1
                return ArenaStatistics(4, 1 << 20, 1 << 22, 1)

        cpu, shelf = [5.0], Shelf()
        meter = Meter(board.row(0), clock=lambda: cpu[0])
        meter.arenas = meter.intakes = [shelf]
        for _ in range(100):
            clock.now += 0.001
            cpu[0] += 0.0005
            meter.publish()
        assert 3 <= shelf.asked <= 6
        meter.finish()
        task, _ = read(HEADING, rows(board), now=clock.now)
        assert task.cpu_s == pytest.approx(0.05)
        assert (task.arena_slots, task.arena_nbytes, task.arena_limit) == (4, 1 << 20, 1 << 22)
        assert task.arena_refused == 1


class TestStatistics:
    def test_rates_and_costs(self, board: Board, clock: Clock) -> None:
        cpu = [0.0]
        meter = Meter(board.row(0), clock=lambda: cpu[0])
        first = read(HEADING, rows(board), now=clock.now)
        clock.now += 2.0
        cpu[0] = 1.5
        meter.items_out, meter.nbytes = 100, 3_000_000_000
        meter.finish()
        (task, _), _ = since(read(HEADING, rows(board), now=clock.now), first), None
        assert (task.rate, task.cpu_s_per_gb) == (50.0, 0.5)
        assert first[0].cpu_s_per_gb is None
        assert first[0].overhead is None

    def test_of_an_interval(self, board: Board) -> None:
        meter = Meter(board.row(0))
        meter.items_out = 10
        meter.publish()
        earlier = read(HEADING, rows(board), now=time.perf_counter())
        assert earlier[0].stages[1].share is None
        meter.items_out = 25
        meter.publish()
        row = board.row(0)
        row[b.FIELDS + b.STAGE_SECONDS], row[b.OVERHEAD] = 3.0, 1.0
        (task, _) = since(read(HEADING, rows(board), now=time.perf_counter()), earlier)
        assert task.items_out == 15
        assert [stage.share for stage in task.stages] == [0.75, 0.0]

    def test_memory_of_the_workers(self, board: Board) -> None:
        Meter(board.row(0)), Meter(board.row(1))
        whole = rows(board)
        whole[1][b.PID] = 12345.0
        sizes = {os.getpid(): 100, 12345: 23}
        task, consumer = read(HEADING, whole, now=time.perf_counter(), rss=sizes)
        assert (task.rss_nbytes, consumer.rss_nbytes) == (123, 0)


def mine() -> list[BoardView]:
    """The boards of this process; others of this user may be running too."""
    found = boards()
    for view in found:
        if view.heading.pid not in (1, os.getpid()):
            view.close()
    return [view for view in found if view.heading.pid in (1, os.getpid())]


def rows(board: Board) -> list[Any]:
    return [board.row(number) for number in range(HEADING.rows)]


def frame() -> Any:
    """The frame that calls this one."""
    return sys._getframe(1)


def test_who_begins_to_count_anew_did_not_do_less_than_nothing() -> None:
    before = TaskStatistics("f", 2, 90, 80, 0, 9.0, 5.0, 1.0, 700, 9, elapsed_s=5.0)
    after = TaskStatistics("f", 2, 3, 2, 0, 0.1, 0.0, 0.0, 20, 1, elapsed_s=6.0)
    (task,) = since([after], [before])
    assert (task.items_in, task.items_out, task.running_s, task.nbytes) == (0, 0, 0, 0)
    assert task.elapsed_s == 1.0
