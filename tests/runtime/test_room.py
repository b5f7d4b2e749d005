"""Waiting for room in a channel where others see it, driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from splitpipe.errors import BrokenChannel
from splitpipe.runtime.exit import Exit
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.gate import Gate
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import EpochSkipped, Outbox
from splitpipe.runtime.turns import Waits
from splitpipe.transport.envelope import Packer
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import NEVER, Credit, End, Item, Message, decode, encode

PATIENCE_S = 120.0


class Reading:
    """The pass over the inputs that values come from."""

    epoch = 0

    def advance(self, count: int) -> int:
        return count

    def report(self, error: BaseException) -> Failure:
        return Failure.of(error, where=())


class Bench:
    """An output whose channel holds two messages, and a thread that serves it."""

    def __init__(self) -> None:
        self.out, self.back = MemoryLink(capacity=2), MemoryLink()
        self._sender = self.out.sender()
        meter = Meter()
        gate = Gate(self.back.receiver(), meter)
        self.exit = Exit(Outbox(self._sender, Packer(None), run=1, producer=0, meter=meter), gate)
        self.waits = Waits([self.exit.hungry], [self.exit.left], [gate.look])
        self.exit.watch(self.waits)
        self._reader, self._says = self.out.receiver(), self.back.sender()
        self._thread: threading.Thread | None = None

    def say(self, *, credits: int = 0, epoch: int = 0, skip: bool = False) -> None:
        message = Credit(1, 0, epoch, 0, start=1, stop=int(skip), count=credits)
        self._says.send([encode(message)])

    def serve(self, act: Callable[[Exit], Any]) -> Future[Any]:
        made: Future[Any] = Future()

        def run() -> None:
            self.waits.serve(0)
            try:
                made.set_result(act(self.exit))
            except BaseException as error:
                made.set_exception(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        return made

    def wait_for_the_wait(self) -> None:
        """Wait until the output waits, for a reason: not for credits that it has not seen yet."""
        waits = self.waits

        def waiting() -> bool:
            return self._sender.full() and any(wait.still() for wait in waits._waiting.values())

        with waits.changed:
            assert waits.changed.wait_for(waiting, PATIENCE_S)

    def take(self) -> Message:
        wire = self._reader.receive()
        assert wire is not None
        return decode(wire)

    def close(self) -> None:
        self.back.shut()
        self.out.shut()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
        self.exit.close()
        self.out.close()
        self.back.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def drain(one: Exit) -> None:
    one.drain(Reading(), iter(["x" * 100_000] * 5))
    one.flush()


def test_a_message_that_finds_no_room_is_a_wait_and_goes_when_there_is(bench: Bench) -> None:
    bench.say(credits=10)
    sending = bench.serve(drain)
    bench.wait_for_the_wait()
    assert not sending.done()
    assert [type(bench.take()) for _ in range(5)] == [Item] * 5
    assert sending.result(PATIENCE_S) is None
    assert not bench.waits._waiting


def test_who_is_left_does_not_wait_from_that_moment_on(bench: Bench) -> None:
    """Not only once its thread has run: somebody else may ask before that."""
    bench.say(credits=10)
    sending = bench.serve(drain)
    bench.wait_for_the_wait()
    (wait,) = bench.waits._waiting.values()
    with bench.waits.changed:  # its own thread cannot go on
        assert wait.still()
        bench.say(epoch=0, skip=True)
        assert bench.exit.gate.look()
        assert not wait.still()
    with pytest.raises(EpochSkipped):
        sending.result(PATIENCE_S)
    bench.exit.discard()
    assert [bench.take().sequence for _ in range(2)] == [0, 1]


def test_the_end_of_an_epoch_waits_too(bench: Bench) -> None:
    bench.say(credits=2)

    def act(one: Exit) -> None:
        one.drain(Reading(), iter(["x" * 100_000] * 2))
        one.flush()
        one.end(0)

    sending = bench.serve(act)
    bench.wait_for_the_wait()
    bench.say(epoch=0, skip=True)  # the end of what is left is waited for all the same
    assert not sending.done()
    assert [type(bench.take()) for _ in range(3)] == [Item, Item, End]
    assert sending.result(PATIENCE_S) is None


def test_not_where_nobody_will_ever_read_it(bench: Bench) -> None:
    bench.say(credits=2)

    def act(one: Exit) -> None:
        one.drain(Reading(), iter(["x" * 100_000] * 2))
        one.flush()
        one.end(0)

    sending = bench.serve(act)
    bench.wait_for_the_wait()
    bench.say(epoch=NEVER, skip=True)
    assert sending.result(PATIENCE_S) is None
    assert [type(bench.take()) for _ in range(2)] == [Item, Item]


def test_a_run_that_is_shut_ends_it(bench: Bench) -> None:
    bench.say(credits=10)
    sending = bench.serve(drain)
    bench.wait_for_the_wait()
    bench.out.shut()
    with pytest.raises(BrokenChannel):
        sending.result(PATIENCE_S)


def test_waking_one_that_was_closed_is_harmless(bench: Bench) -> None:
    bench.exit.close()
    bench.exit.close()
    bench.say(epoch=0, skip=True)
    bench.exit.gate.look()
    assert not bench.exit.left()
