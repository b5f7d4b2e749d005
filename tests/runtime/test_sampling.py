"""Which stage the time goes into: on the CPU, off it, with and without the interpreter."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from splitpipe.runtime import board as b
from splitpipe.runtime import sampling
from splitpipe.runtime.board import Board, Heading, StageHead, TaskHead
from splitpipe.runtime.metrics import Layer, Meter
from splitpipe.runtime.sampling import Sampler
from splitpipe.runtime.statistics import read

HEADING = Heading((TaskHead("task", 1, tuple(map(StageHead, "abc"))),), pid=os.getpid())
PACKED = zlib.compress(bytes(1 << 20))
ENOUGH_S = 1.2
ENOUGH_CPU_S = 0.6
"""Of work that computes: on a busy machine that takes longer."""


@pytest.fixture(autouse=True)
def _many_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many as usual, so that a short run tells as much as a long one."""
    monkeypatch.setattr(sampling, "CPU_S", 0.004)
    monkeypatch.setattr(sampling, "LOOK_S", 0.01)
    monkeypatch.setattr(sampling, "RARE_LOOK_S", 0.02)


def python() -> None:
    for _ in range(30_000):
        pass


def native() -> None:
    """A call that lets go of the interpreter, as decoders do."""
    zlib.decompress(PACKED)


def sleep() -> None:
    threading.Event().wait(0.0005)


def layers(works: list[tuple[Callable[[], None], int]]) -> list[Layer]:
    """Stages, each of which calls a function so many times an item."""

    def stage(items: Iterator[Any], work: Callable[[], None], times: int) -> Iterator[Any]:
        for item in items:
            for _ in range(times):
                work()
            yield item

    made: list[Layer] = []
    items: Iterator[Any] = iter(range(10**9))
    for number, (work, times) in enumerate(works):
        items = stage(items, work, times)
        made.append(Layer(number, None, items))
    return made


def shares(works: list[tuple[Callable[[], None], int]]) -> list[float]:
    """Run the stages; return what was sampled."""
    board = Board(HEADING)
    row = board.row(0)
    meter = Meter(row)
    sampler = Sampler(meter)
    made = layers(works)
    meter.enter(made)
    end, cpu_s = time.perf_counter() + ENOUGH_S, time.thread_time()
    computes = max(works, key=lambda work: work[1])[0] is not sleep
    for _ in made[-1].items:
        enough = not computes or time.thread_time() - cpu_s > ENOUGH_CPU_S
        if enough and time.perf_counter() > end:
            break
    sampler.close()
    meter.finish()
    (task,) = read(HEADING, [row], now=time.perf_counter())
    board.close()
    return [stage.share or 0.0 for stage in task.stages]


@pytest.mark.parametrize(
    ("works", "most"),
    [
        ([(python, 8), (python, 1)], 0),
        ([(python, 40), (native, 1)], 0),
        ([(python, 1), (native, 8)], 1),
        ([(native, 1), (python, 1), (native, 8)], 2),
        ([(python, 100), (sleep, 1)], 0),
        ([(native, 1), (sleep, 40)], 1),
        ([(sleep, 40), (native, 1), (sleep, 2)], 0),
    ],
)
def test_finds_what_takes_most(works: list[tuple[Callable[[], None], int]], most: int) -> None:
    """By far the most: what a busy machine does to each of them must not matter."""
    sampled = shares(works)
    assert sampled.index(max(sampled)) == most


def test_a_long_call_counts_as_long_as_it_takes() -> None:
    def long() -> None:
        zlib.compress(bytes(range(256)) * 40_000, 6)  # some 100 ms that nothing interrupts

    assert shares([(python, 1), (long, 1)])[1] > 0.7


class TestLife:
    @pytest.fixture
    def meter(self) -> Iterator[Meter]:
        board = Board(HEADING)
        made = Meter(board.row(0))
        yield made
        made.detach()
        board.close()

    def test_gives_the_timer_back(self, meter: Meter) -> None:
        sampler = Sampler(meter)
        assert signal.getitimer(signal.ITIMER_PROF)[1] > 0
        sampler.close()
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL

    def test_leaves_a_timer_that_is_in_use(self, meter: Meter) -> None:
        def mine(_number: int, _frame: Any) -> None:
            pass

        signal.signal(signal.SIGPROF, mine)
        try:
            sampler = Sampler(meter)
            assert not sampler.active
            assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
            sampler.close()
            assert signal.getsignal(signal.SIGPROF) is mine
        finally:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def test_guesses_nothing_of_a_worker_that_is_a_thread(self) -> None:
        board = Board(HEADING)
        active: list[bool] = []

        def run() -> None:
            sampler = Sampler(Meter(board.row(0)))
            active.append(sampler.active)
            sampler.close()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        board.close()
        assert active == [False]

    def test_sleeps_while_its_worker_waits(self, meter: Meter) -> None:
        sampler = Sampler(meter)
        meter.wait(b.WAITS_FOR_INPUT)
        asleep = threading.Event()
        end = time.monotonic() + 20
        while meter.awake is None and time.monotonic() < end:
            asleep.wait(0.01)
        assert meter.awake is not None
        meter.resume()
        assert meter.awake is None
        sampler.close()

    def test_holds_no_item(self, meter: Meter) -> None:
        class Item:
            pass

        held = [Item()]
        gone = weakref.ref(held[0])

        def stage(held: list[Item]) -> Iterator[None]:
            it = held.pop()
            end = time.perf_counter() + 0.2
            while time.perf_counter() < end:
                yield
            del it
            yield

        sampler = Sampler(meter)
        running = stage(held)
        meter.enter([Layer(0, None, running)])
        for _ in running:
            alive = gone() is not None
        assert not alive
        sampler.close()
