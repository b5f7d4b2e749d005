"""How the endless output of a task is cut into messages, driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.source import FactorySource
from splitpipe.runtime.gate import Gate
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import Chunker, Outbox
from splitpipe.runtime.tasks import Exit, SequentialTask
from splitpipe.transport.envelope import Packer, unpack
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import Credit, End, Failed, Item, decode, encode


class Bench:
    """A chunker whose messages are at once unpacked into `chunks`."""

    def __init__(self, ready: Callable[[], bool] = lambda: True) -> None:
        self.chunks: list[list[Any]] = []
        self.arrived = threading.Condition()
        self.link = MemoryLink()
        sender, packer = self.link.sender(), Packer(None)
        self._receiver = self.link.receiver()
        self.outbox = Outbox(sender, packer, run=1, producer=0, meter=Meter())
        self.chunker = Chunker(self.outbox, self._send, ready)

    def _send(self, values: list[Any]) -> int:
        nbytes = self.outbox.item(values, epoch=0, sequence=0, start=0, stop=0)
        wire = self._receiver.receive()
        assert wire is not None
        message = decode(wire)
        with self.arrived:
            self.chunks.append(unpack(message.body, None))
            assert message.count == len(self.chunks[-1])
            self.arrived.notify_all()
        return nbytes

    @property
    def values(self) -> list[Any]:
        return [value for chunk in self.chunks for value in chunk]

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.values) >= count, 10)

    def close(self) -> None:
        self.chunker.close()
        self.link.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize(
    "make", [lambda i: i, lambda i: (i, "s"), lambda i: [i], lambda i: i if i % 3 else [i]]
)
def test_small_items_travel_together_and_in_order(bench: Bench, make: Any) -> None:
    made = [make(i) for i in range(20_000)]
    bench.chunker.drain(iter(made))
    bench.chunker.flush()
    assert bench.values == made
    assert len(bench.chunks[0]) == 1  # the first waits for nothing
    assert len(bench.chunks) < 10_000


def test_large_items_travel_alone(bench: Bench) -> None:
    bench.chunker.drain(iter([np.zeros(300_000, np.uint8) for _ in range(20)]))
    bench.chunker.flush()
    assert [len(chunk) for chunk in bench.chunks] == [1] * 20


def test_chunks_stay_small_in_bytes(bench: Bench) -> None:
    bench.chunker.drain("x" * 20_000 for _ in range(300))
    bench.chunker.flush()
    assert len(bench.values) == 300
    assert max(map(len, bench.chunks)) <= 64


def test_an_item_is_not_held_back_for_a_successor_that_does_not_come(bench: Bench) -> None:
    """The maker goes on only when what it made before has arrived: asked or not."""
    checked = []

    def slow() -> Iterator[int]:
        yield from range(5000)  # chunks have grown by now
        for n in range(5000, 5005):
            bench.wait_for(n)
            checked.append(n)
            yield n
        bench.wait_for(5005)

    bench.chunker.drain(slow())
    assert checked == list(range(5000, 5005))
    assert bench.values == list(range(5005))


def test_nor_is_one_that_can_be_changed(bench: Bench) -> None:
    def slow() -> Iterator[list[int]]:
        item = [0]
        for n in range(3000):
            item[0] = n
            yield item
        bench.wait_for(3000)

    bench.chunker.drain(slow())
    assert bench.values == [[n] for n in range(3000)]


def test_nothing_is_sent_behind_the_back_of_a_reader_who_is_not_ready() -> None:
    ready = threading.Event()
    bench = Bench(ready.is_set)
    asked = threading.Event()

    def slow() -> Iterator[int]:
        yield from range(5000)
        asked.set()
        sent = len(bench.values)
        assert sent <= 5000
        ready.set()
        bench.wait_for(5000)

    bench.chunker.drain(slow())
    assert bench.values == list(range(5000))
    bench.close()


def test_discarded_values_are_gone(bench: Bench) -> None:
    bench.chunker.drain(iter(range(10)))
    sent = len(bench.values)
    bench.chunker.discard()
    bench.chunker.flush()
    assert len(bench.values) == sent


class TestSequentialTask:
    """A whole task between lists: what it sends for what it is allowed to."""

    def run(
        self,
        factory: Callable[[], Any],
        credits: int,
        *,
        epochs: int = 1,
        skip: int | None = None,
        most: int = 0,
    ) -> list[Any]:
        out, back = MemoryLink(), MemoryLink()
        grant = back.sender()
        if skip is not None:
            grant.send([encode(Credit(1, 0, skip, 0, 0, 1, 0))])
        grant.send([encode(Credit(1, 0, 0, 0, most, 0, credits))])
        meter = Meter()
        gate = Gate(back.receiver(), meter)
        task = SequentialTask(
            Body((Part(source=FactorySource(factory)),)),
            [Exit(Outbox(out.sender(), Packer(None), run=1, producer=0, meter=meter), gate)],
            epochs=epochs,
            worker="worker 0 of x",
            meter=meter,
        )
        task.run()
        receiver, found = out.receiver(), []
        while (wire := receiver.receive(block=False)) is not None:
            found.append(decode(wire))
        out.close()
        back.close()
        return found

    def values(self, messages: list[Any], epoch: int) -> list[Any]:
        bodies = [m.body for m in messages if isinstance(m, Item) and m.epoch == epoch]
        return [value for body in bodies for value in unpack(body, None)]

    def test_numbers_its_messages_and_covers_its_input(self) -> None:
        messages = self.run(lambda: iter(range(1000)), 10_000, epochs=3)
        assert [m.sequence for m in messages] == list(range(len(messages)))
        for epoch in range(3):
            *items, end = [m for m in messages if m.epoch == epoch]
            assert isinstance(end, End)
            assert (end.stop, end.count) == (1000, 1000)
            assert [m.start for m in items] == [0, *(m.stop for m in items[:-1])]
            assert self.values(messages, epoch) == list(range(1000))

    def test_a_pool_behind_it_says_how_much_a_unit_may_hold(self) -> None:
        messages = self.run(lambda: iter(range(1000)), 10_000, most=3)
        assert max(m.count for m in messages if isinstance(m, Item)) == 3
        assert self.values(messages, 0) == list(range(1000))

    def test_a_failure_comes_after_what_was_made(self) -> None:
        def source() -> Iterator[int]:
            yield from range(700)
            raise LookupError("no more")

        messages = self.run(source, 10_000)
        assert self.values(messages, 0) == list(range(700))
        failure, end = messages[-2:]
        assert isinstance(failure, Failed)
        assert isinstance(end, End)
        assert (failure.start, failure.stop, end.stop) == (700, 700, 700)

    def test_an_epoch_that_nobody_wants_leaves_nothing_for_the_next(self) -> None:
        messages = self.run(lambda: iter(range(50)), 10_000, epochs=2, skip=0)
        assert self.values(messages, 0) == []
        assert self.values(messages, 1) == list(range(50))

    def test_a_shut_run_ends_it(self) -> None:
        out, back = MemoryLink(), MemoryLink()
        meter = Meter()
        gate = Gate(back.receiver(), meter)
        task = SequentialTask(
            Body((Part(source=FactorySource(lambda: iter(range(9)))),)),
            [Exit(Outbox(out.sender(), Packer(None), run=1, producer=0, meter=meter), gate)],
            epochs=1,
            worker="w",
            meter=meter,
        )
        back.shut()
        with pytest.raises(sp.BrokenChannel):
            task.run()
        out.close()
        back.close()
