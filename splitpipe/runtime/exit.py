"""One output of a sequential task.

Responsible for: `Exit`, its messages in their order: values, failures, ends of epochs.

Rules:
- its positions are the numbers of the values that it gives in an epoch: they follow from the stream
  alone, whenever a message is cut;
- what its reader has already (`Start`) is made, since nobody knows what it costs not to, and left
  out here, where that takes nobody's credits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from splitpipe.errors import BranchStalled, ChannelError, PipelineError
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.gate import Gate
from splitpipe.runtime.outbox import Chunker, EpochSkipped, Outbox
from splitpipe.runtime.room import Room
from splitpipe.runtime.start import BEGINNING, Start
from splitpipe.runtime.turns import Waits

__all__ = ["Exit", "Reading"]


class Reading(Protocol):
    """The pass over the inputs that values come from."""

    @property
    def epoch(self) -> int:
        """Which."""

    def advance(self, count: int) -> int:
        """Take note of `count` values that are sent; return up to which position of the inputs
        they reach.
        """

    def report(self, error: BaseException) -> Failure:
        """Return the report of `error`, which a stage raised."""


class Exit:
    """One output of a sequential task: its messages, in their order.

    Args:
        outbox: where they go.
        gate: when they may.
        start: from where on its reader wants it.
    """

    def __init__(self, outbox: Outbox, gate: Gate, start: Start = BEGINNING) -> None:
        self.outbox = outbox
        self.gate = gate
        self._start = start
        self._sequence = start.sequence
        self._sent = 0  # values of this epoch that were sent, or left out
        self._covered = 0  # values of it that its reader has, or will have
        if not start.wanted:
            gate.leave()
        self._run: Reading | None = None
        self._waits: Waits | None = None
        self._paused: float | None = None  # the stage in which it waits for memory
        self._room: Room | None = None
        self._chunker = Chunker(outbox, self._send, self._ready, lambda: gate.most)

    @property
    def given(self) -> int:
        """How many items of the epoch were sent, or need not be."""
        return self._sent

    def note(self, on_sent: Callable[[], None]) -> None:
        """Call `on_sent` whenever everything was sent and the stages wait, in their thread."""
        self._chunker.on_sent = on_sent

    def drain(self, run: Reading, items: Iterator[Any], first: int = 0) -> None:
        """Send all that `items` gives, in the epoch of `run`; the last of it waits for `flush`.

        Args:
            run: the pass over the inputs that they come from.
            items: what to send.
            first: number of the first of them in the epoch.

        Raises:
            EpochSkipped: the reader does not want the rest.
        """
        self._run = run
        self._sent = self._covered = first
        if run.epoch == self._start.epoch:
            gaps = [(max(begin, first), stop) for begin, stop in self._start.left_out]
            gaps = [(begin, stop) for begin, stop in gaps if begin < stop]
            self._covered += sum(stop - begin for begin, stop in gaps)
            for begin, stop in gaps:
                self._chunker.drain(islice(items, begin - self._sent))
                self._chunker.flush()
                self._leave_out(run, items, stop - begin)
        self._chunker.drain(items)

    @property
    def count(self) -> int:
        """Values of the epoch that were sent, or need not be."""
        return self._sent

    def pass_over(self, epoch: int, items: Iterator[Any]) -> bool:
        """Whether the reader has had the whole of `epoch`. What it read is made: others that read
        the same may need it.
        """
        start = self._start
        if epoch >= start.epoch:
            return False
        if epoch + 1 < start.epoch or start.drained:
            try:
                for _ in items:
                    pass
            except (ChannelError, BranchStalled):
                raise
            except Exception:  # it was raised when it was read, and the reader went on
                return True
        return True

    def _leave_out(self, run: Reading, items: Iterator[Any], number: int) -> None:
        """Make the next `number` values and send none of them."""
        left = sum(1 for _ in islice(items, number))
        if left < number:
            raise PipelineError(
                f"epoch {run.epoch} was made once more and ended after {self._sent + left} values; "
                f"{self._sent + number} of it were delivered before. A stage before this place "
                "does not give the same items each time: it must depend on its input, its epoch "
                "and `rng` alone"
            )
        self._sent += left
        run.advance(left)

    def flush(self) -> None:
        """Send what there is; raises as `drain` does."""
        self._chunker.flush()

    def hungry(self) -> bool:
        """Whether the reader has read everything and waits for more."""
        waits = self.gate.wanted == self._sequence
        return waits and (self.left() or not self._chunker.pending)

    def left(self) -> bool:
        """Whether the reader wants no more of the epoch that is being sent."""
        return self._run is not None and self.gate.skipped >= self._run.epoch

    def watch(self, waits: Waits) -> None:
        """Let `waits` know of everything that this output waits for."""
        self._waits = waits
        self._room = self.outbox.room(self)
        self.gate.listen(waits, self._wake)
        self.outbox.packer.watch(self)
        self._chunker.on_flush = waits.tell

    def begin_wait(self, still: Callable[[], bool]) -> None:
        """See `Watcher`."""
        assert self._waits is not None
        gate = self.gate  # who has been left goes on, whatever it waits for
        self._waits.begin(lambda: not (self.left() or gate.detached) and still())
        notes = self.outbox.meter.notes
        self._paused = notes.pause() if notes is not None and notes.stages else None

    def end_wait(self) -> None:
        """See `Watcher`."""
        assert self._waits is not None
        self._waits.end()
        notes = self.outbox.meter.notes
        if notes is not None and self._paused is not None:
            notes.resume(self._paused)

    def unwanted(self) -> bool:
        """See `Watcher`."""
        return self.left()

    def discard(self) -> None:
        """Forget what was not sent."""
        self._chunker.discard()

    def fail(self, run: Reading, error: BaseException) -> None:
        """Send what there is, and then the failure."""
        try:
            self._chunker.flush()
            self._enter(run.epoch)  # a failure is a message like any other
        except EpochSkipped:
            self._chunker.discard()
            return
        # It may have failed before the place where it was.
        at = max(self._sent, self._start.position if run.epoch == self._start.epoch else 0)
        self.outbox.failed(
            run.report(error),
            epoch=run.epoch,
            sequence=self._next(),
            start=at,
            stop=at,
        )

    def end(self, epoch: int) -> None:
        """Send the end of an epoch, unless nobody will ever read it."""
        self._run = None  # until the next one begins, there is nothing to leave
        if self._room is not None and not self._room.enter(lambda: self.gate.detached):
            return
        sequence = self._next()
        self.outbox.end(epoch=epoch, sequence=sequence, stop=self._covered, count=self._sent)

    def close(self) -> None:
        """Stop the thread that sends what is late."""
        self._chunker.close()
        if self._room is not None:
            self._room.close()

    def _ready(self) -> bool:
        """Whether a message could be sent without waiting."""
        return self.gate.open() and (self._room is None or self._room.there())

    def _enter(self, epoch: int) -> None:
        """Wait until a message may be sent.

        Raises:
            EpochSkipped: nobody wants more of `epoch`.
        """
        if self._room is not None and not self._room.enter(self.left):
            raise EpochSkipped
        self.gate.enter(epoch)

    def _wake(self) -> None:
        """An epoch is not wanted any more: whoever waits for it need not."""
        self.outbox.packer.wake()
        if self._room is not None:
            self._room.wake()

    def _send(self, values: list[Any]) -> int:
        run = self._run
        assert run is not None
        self._enter(run.epoch)
        number = len(values) or self.outbox.packer.count
        run.advance(number)
        start = self._sent
        self._sent += number
        self._covered += number
        return self.outbox.item(
            values,
            epoch=run.epoch,
            sequence=self._next(),
            start=start,
            stop=self._sent,
            first=start,
        )

    def _next(self) -> int:
        sequence = self._sequence
        self._sequence += 1
        return sequence
