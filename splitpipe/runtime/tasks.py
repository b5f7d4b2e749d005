"""What a worker process does: the loops of a sequential task and of a pool's worker.

Responsible for: reading an input, running the stages over it, sending what comes out, at its place
in the order, and the failures at theirs. They are given channels and know nothing of processes: a
test drives them with lists.

Rules:
- a sequential task goes through its epochs once; its generators start anew in each of them;
- a worker of a pool takes one unit after the other and keeps nothing between two of them;
- a failure is sent and does not end the task: a later stage may catch it, as it could in one
  process;
- a shut channel ends the task at once and quietly: whoever shut it knows why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from splitpipe.errors import ChannelError
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.runtime.chain import Chain, Cursor, one_to_one, open_source
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.inbox import Inbox, Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import CHUNK_ITEMS, Chunker, EpochSkipped, Outbox
from splitpipe.transport.base import Receiver
from splitpipe.transport.envelope import ATOMS
from splitpipe.transport.message import Claim, Credit, End, Failed, Item, decode

__all__ = ["Gate", "PoolWorker", "SequentialTask"]


class Gate:
    """The credits of a sequential head: how many messages it may still send."""

    def __init__(self, receiver: Receiver, meter: Meter) -> None:
        self._receiver = receiver
        self._meter = meter
        self._credits = 0
        self._skipped = -1
        self.most = CHUNK_ITEMS
        """Values that a message may hold."""

    def open(self) -> bool:
        """Whether a message may be sent now."""
        self._collect()
        return self._credits > 0

    def enter(self, epoch: int) -> None:
        """Use up one credit, waiting for it.

        Raises:
            EpochSkipped: nobody wants more of `epoch`.
        """
        if self._credits == 0:
            self._collect()
        if self._credits == 0 and self._skipped < epoch:
            since = time.perf_counter()
            while self._credits == 0 and self._skipped < epoch:
                self._note(self._receiver.receive())
            self._meter.wait_output_s += time.perf_counter() - since
        if self._skipped >= epoch:
            raise EpochSkipped
        self._credits -= 1

    def _collect(self) -> None:
        while (wire := self._receiver.receive(block=False)) is not None:
            self._note(wire)

    def _note(self, wire: Any) -> None:
        credit = decode(wire)
        assert isinstance(credit, Credit)
        if credit.stop:
            self._skipped = max(self._skipped, credit.epoch)
        else:
            self._credits += credit.count
            self.most = credit.start or CHUNK_ITEMS


class SequentialTask:
    """One process, the whole stream, in order.

    Args:
        stages: what to run.
        source: read when there is no inbox.
        positions: of the source in one epoch; None for a factory.
        inbox: read otherwise.
        gate: when messages may leave.
        epochs: how many; None for ever.
        worker: how it is called in notes.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        outbox: Outbox,
        gate: Gate,
        *,
        source: Source | None,
        positions: int | None,
        inbox: Inbox | None,
        epochs: int | None,
        worker: str,
        meter: Meter,
    ) -> None:
        self._stages = stages
        self._outbox = outbox
        self._gate = gate
        self._source = source
        self._positions = positions
        self._inbox = inbox
        self._epochs = epochs
        self._worker = worker
        self._meter = meter
        self._one_to_one = one_to_one(stages)
        self._cursor = Cursor()
        self._sequence = 0
        self._sent = 0  # the position up to which messages of this epoch cover the input
        self._count = 0
        self._chunker = Chunker(outbox, self._send, gate.open, lambda: gate.most)

    def run(self) -> None:
        """Go through all epochs."""
        try:
            for epoch in count() if self._epochs is None else range(self._epochs):
                self._run_epoch(epoch, last=epoch + 1 == self._epochs)
        finally:
            self._chunker.close()

    def _run_epoch(self, epoch: int, *, last: bool) -> None:
        self._cursor = Cursor(epoch, counted=self._inbox is None and not self._one_to_one)
        self._sent = self._count = 0
        before = self._meter.items_in
        chain = Chain(self._stages, self._cursor)
        try:
            try:
                self._chunker.drain(chain.start(self._input(epoch)))
            finally:
                chain.close()
            self._chunker.flush()
        except EpochSkipped:
            self._chunker.discard()
        except ChannelError:
            raise
        except BaseException as error:
            self._fail(error, chain)
        if self._inbox is None:
            self._meter.items_in = before + self._cursor.position
        else:
            self._inbox.end_epoch(last=last)
        self._meter.dropped += chain.dropped
        self._end(epoch)

    def _input(self, epoch: int) -> Iterator[Any]:
        if self._inbox is not None:
            return self._inbox.epoch()
        assert self._source is not None
        return open_source(self._source, epoch, self._positions)

    def _send(self, values: list[Any]) -> int:
        self._gate.enter(self._cursor.epoch)
        count = len(values) or len(self._outbox.packer)
        if self._inbox is not None:
            self._cursor.position = self._inbox.position
        elif self._one_to_one:
            self._cursor.position += count
        start, self._sent = self._sent, self._cursor.position
        self._count += count
        if self._inbox is None:
            self._meter.items_in += self._sent - start
        sequence = self._sequence
        self._sequence += 1
        return self._outbox.item(
            values, epoch=self._cursor.epoch, sequence=sequence, start=start, stop=self._sent
        )

    def _fail(self, error: BaseException, chain: Chain) -> None:
        try:
            self._chunker.flush()
            self._gate.enter(self._cursor.epoch)  # a failure is a message like any other
        except EpochSkipped:
            self._chunker.discard()
            return
        if self._inbox is not None:
            self._cursor.position = max(0, self._inbox.position - 1)
        passed_on = self._inbox.failure if self._inbox is not None else None
        if passed_on is not None and passed_on[0] is error:
            failure = passed_on[1]
        else:
            failure = Failure.of(error, where=chain.where(error, self._source, self._worker))
        sequence = self._sequence
        self._sequence += 1
        position = self._sent
        self._outbox.failed(
            failure, epoch=self._cursor.epoch, sequence=sequence, start=position, stop=position
        )

    def _end(self, epoch: int) -> None:
        sequence = self._sequence
        self._sequence += 1
        self._outbox.end(epoch=epoch, sequence=sequence, stop=self._sent, count=self._count)


class _PassedOn(BaseException):
    """The failure of an earlier stage, after what came before it. No stage may swallow it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class PoolWorker:
    """One of several processes that share the units of a region.

    Args:
        stages: what to run on each unit.
        source: read for claims.
        intake: gives claims, or the messages of the head before.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        intake: Intake,
        outbox: Outbox,
        *,
        source: Source | None,
        worker: str,
        meter: Meter,
    ) -> None:
        self._stages = stages
        self._intake = intake
        self._outbox = outbox
        self._source = source
        self._worker = worker
        self._meter = meter
        self._order: tuple[int, Any] = (-1, None)

    def run(self) -> None:
        """Take units until the channel is shut."""
        while True:
            message = self._intake.receive()
            if isinstance(message, End) or (isinstance(message, Failed) and not message.count):
                self._outbox.forward(message)
            elif isinstance(message, (Claim, Item, Failed)):
                self._unit(message)

    def _unit(self, unit: Claim | Item | Failed) -> None:
        since = time.perf_counter()
        waited = self._meter.wait_output_s
        chain = Chain(self._stages, Cursor(unit.epoch, self._first(unit)))
        values: list[Any] = []
        try:
            try:
                self._collect(chain.start(self._input(unit)), values)
            finally:
                chain.close()
        except ChannelError:
            raise
        except BaseException as error:
            self._fail(error, chain, unit, values)
            return
        finally:
            self._meter.items_in += chain.cursor.position - self._first(unit)
            self._meter.dropped += chain.dropped
        elapsed = time.perf_counter() - since - (self._meter.wait_output_s - waited)
        self._outbox.item(
            values,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            elapsed_s=elapsed,
        )

    @staticmethod
    def _first(unit: Claim | Item | Failed) -> int:
        return unit.start if isinstance(unit, Claim) else 0

    def _input(self, unit: Claim | Item | Failed) -> Iterator[Any]:
        if not isinstance(unit, Claim):
            return self._values(unit)
        source = self._source
        assert isinstance(source, SequenceSource)
        if self._order[0] != unit.epoch:
            self._order = unit.epoch, source.order(unit.epoch)
        return source.items(self._order[1], unit.start, unit.stop)

    def _values(self, unit: Item | Failed) -> Iterator[Any]:
        yield from self._intake.each(unit)
        if isinstance(unit, Failed):
            raise _PassedOn(Failure.decode(unit.body[: unit.nbytes]))

    def _collect(self, items: Iterator[Any], values: list[Any]) -> None:
        """Keep unchangeable items in `values` while there are no others; serialise everything else
        at once.
        """
        packer = self._outbox.packer
        for item in items:
            if len(packer) == 0 and _unchangeable(item):
                values.append(item)
            else:
                for earlier in values:
                    packer.add(earlier)
                values.clear()
                packer.add(item)
            del item

    def _fail(
        self, error: BaseException, chain: Chain, unit: Claim | Item | Failed, values: list[Any]
    ) -> None:
        if isinstance(error, _PassedOn):
            failure = error.failure
        else:
            where = chain.where(error, self._source, self._worker)
            failure = Failure.of(error, where=where)
        self._outbox.failed(
            failure,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            values=values,
        )


def _unchangeable(item: Any) -> bool:
    kind = type(item)
    return kind in ATOMS or (kind is tuple and all(type(part) in ATOMS for part in item))
