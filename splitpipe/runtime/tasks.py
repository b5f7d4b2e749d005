"""The loop of a sequential task: one process, the whole stream.

Responsible for: reading an input, running the stages over it, sending what comes out, at its place
in the order, and the failures at theirs. They are given channels and know nothing of processes: a
test drives them with lists.

Rules:
- a sequential task goes through its epochs once; its generators start anew in each of them;
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
from splitpipe.pipeline.source import Source
from splitpipe.pipeline.stage import Stage
from splitpipe.runtime.chain import Chain, Cursor, one_to_one, open_source
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import CHUNK_ITEMS, Chunker, EpochSkipped, Outbox
from splitpipe.transport.base import Receiver
from splitpipe.transport.message import Credit, decode

__all__ = ["Gate", "SequentialTask"]


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
