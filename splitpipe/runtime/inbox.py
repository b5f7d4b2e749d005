"""Where a task reads: the merge at the end of a region.

Responsible for: putting messages back into their order, proving that none is missing or repeated,
turning bodies into values, and granting the next work.

Rules:
- ordered: messages come out by sequence number; unordered: as they arrive, but never across the
  end of an epoch;
- the positions that the messages of an epoch cover must join without a gap; anything else is an
  error, not a short epoch;
- a unit is granted anew only when the reader comes back for the next one: what it holds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.grants import Grants
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.arena import ArenaView
from splitpipe.transport.base import Receiver
from splitpipe.transport.envelope import UnpackError, release, unpack
from splitpipe.transport.message import NOWHERE, End, Failed, Item, Message, decode

__all__ = ["Inbox", "Intake"]


class Intake:
    """Messages as they arrive, and the values in them.

    Args:
        receiver: where messages come from.
        arenas: of the producers, by their number.
        run: number of this run; a message of another is refused.
        meter: told about waiting.
        wait: called when there is no message; returns when there may be one. None blocks in the
        receiver.
    """

    def __init__(
        self,
        receiver: Receiver,
        arenas: dict[int, ArenaView],
        *,
        run: int,
        meter: Meter,
        wait: Callable[[], None] | None = None,
    ) -> None:
        self._receiver = receiver
        self._arenas = arenas
        self._run = run
        self._wait = wait
        self.meter = meter

    def receive(self) -> Message:
        """Return the next message, waiting for it."""
        wire = self._receiver.receive(block=False)
        if wire is None:
            since = time.perf_counter()
            for arena in self._arenas.values():
                arena.keep()
            while wire is None:
                if self._wait is None:
                    wire = self._receiver.receive()
                else:
                    self._wait()
                    wire = self._receiver.receive(block=False)
            self.meter.wait_input_s += time.perf_counter() - since
        message = decode(wire)
        if message.run != self._run:
            raise PipelineError(f"a message of run {message.run:x} came into run {self._run:x}")
        return message

    def restored(self, message: Item | Failed) -> tuple[list[Any], BaseException | None]:
        """Return the values of `message` up to one that cannot be restored, and what it raised."""
        try:
            if isinstance(message, Failed):
                return self._before(message), None
            return self._values(message), None
        except UnpackError as error:
            return error.values, error.__cause__ or error

    def _values(self, message: Item) -> list[Any]:
        """Return the values of `message` and let go of its bytes."""
        values = unpack(message.body, self._arenas.get(message.producer))
        if len(values) != message.count:
            raise PipelineError(
                f"a message of {message.count} values held {len(values)}: a fault of splitpipe"
            )
        message.body = b""
        return values

    def _before(self, failed: Failed) -> list[Any]:
        """Return the values that the failing unit of work gave before it failed."""
        if not failed.count:
            return []
        return unpack(failed.body[failed.nbytes :], self._arenas.get(failed.producer))

    def each(self, message: Item | Failed) -> Iterator[Any]:
        """Yield the values of `message`, and then raise what kept the next from being restored.

        A value is let go of when the next is asked for: a slot must not be held by its successors.
        """
        values, broken = self.restored(message)
        values.reverse()
        while values:
            yield values.pop()
        if broken is not None:
            raise broken

    def discard(self, message: Item | Failed) -> None:
        """Give back the slots of a message that nobody will read."""
        report = message.nbytes if isinstance(message, Failed) else 0
        if message.count or isinstance(message, Item):
            release(message.body[report:], self._arenas.get(message.producer))

    @property
    def copies(self) -> int:
        """How many payloads were copied because the reader kept too many."""
        return sum(arena.copies for arena in self._arenas.values())


class Inbox:
    """The reading end of a region: an intake, in order.

    Args:
        grants: how the head is told to go on.
        ordered: see above.
    """

    def __init__(self, intake: Intake, grants: Grants, *, ordered: bool = True) -> None:
        self._intake = intake
        self._grants = grants
        self._ordered = ordered
        self._arrived: dict[int, Message] = {}
        self._delivered: set[int] = set()  # above `_next`, when unordered
        self._next = 0
        self._epoch = 0
        self._position = 0
        self._covered = 0
        self._before = 0
        self._chunk: Iterator[Any] = iter(())
        self._open = False
        self._owing = False
        self._ended = False
        self.failure: tuple[BaseException, Failure] | None = None
        """What a stage before this one raised, as it was raised here, and the report of it."""

    def epoch(self) -> Iterator[Any]:
        """Yield the values of the current epoch; see `chunks`."""
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[Iterator[Any]]:
        """Yield the current epoch, message by message; `end_epoch` has to follow.

        Raises:
            BaseException: what a stage before this one raised, at its place in the stream; see
                `failure`.
        """
        while True:
            message = self._take()
            if isinstance(message, End):
                self._finish(message)
                return
            if isinstance(message, Failed):
                self._owing = True
                yield self._intake.each(message)
                raise self._rebuild(message)
            yield from self._values(message)

    def end_epoch(self, *, last: bool) -> None:
        """Leave the current epoch. If its end was not reached, the head is told that the rest is
        not wanted.

        What is on its way is thrown away, unless this was the `last` epoch and nobody will read on.
        """
        if self._ended:
            self._ended = False
            return
        self._grants.skip(self._epoch)
        self._add_ends()
        drained = 0
        while not last:
            message = self._take()
            if isinstance(message, End):
                self._finish(message)
                self._ended = False
                for _ in range(drained):
                    self._grants.consumed()
                return
            self._intake.discard(message)
            drained += 1  # granted anew at the end: a head with credits left looks for no skip

    @property
    def position(self) -> int:
        """How many values of the current epoch were taken. Costs nothing per value."""
        return self._before - length_hint(self._chunk)

    def _values(self, message: Item) -> Iterator[Iterator[Any]]:
        self._owing = True
        values, broken = self._intake.restored(message)
        if broken is not None:
            yield iter(values)
            raise broken
        self._intake.meter.items_in += len(values)
        self._before += len(values)
        # A list iterator holds its list: for a batch that would be a slot held for nothing.
        if len(values) == 1:
            self._chunk = iter(())
            yield _single(values)
        else:
            self._chunk = iter(values)
            del values
            yield self._chunk

    def _take(self) -> Item | End | Failed:
        """Return the next message of the stream, waiting for it."""
        if not self._open:
            self._open = True
            self._grants.open()
            self._add_ends()
        if self._owing:
            self._owing = False
            self._grants.consumed()
            self._add_ends()
        while True:
            message = self._choose()
            if message is not None:
                return message
            self._admit(self._intake.receive())

    def _choose(self) -> Item | End | Failed | None:
        first = self._arrived.get(self._next)
        if first is not None:
            del self._arrived[self._next]
            self._advance()
        elif not self._ordered:
            first = self._any()
        if first is None:
            return None
        assert isinstance(first, (Item, End, Failed))
        if isinstance(first, (Item, Failed)):
            self._cover(first)
        return first

    def _any(self) -> Message | None:
        for sequence, message in self._arrived.items():
            if isinstance(message, Item) and message.epoch == self._epoch:
                del self._arrived[sequence]
                self._delivered.add(sequence)
                return message
        return None

    def _advance(self) -> None:
        self._next += 1
        while self._next in self._delivered:
            self._delivered.remove(self._next)
            self._next += 1

    def _cover(self, item: Item | Failed) -> None:
        if item.epoch != self._epoch or (self._ordered and item.start != self._position):
            raise PipelineError(
                f"after position {self._position} of epoch {self._epoch} came position "
                f"{item.start} of epoch {item.epoch}: a fault of splitpipe"
            )
        self._position = item.stop
        self._covered += item.stop - item.start

    def _finish(self, end: End) -> None:
        if end.epoch != self._epoch or end.stop != self._covered:
            raise PipelineError(
                f"epoch {end.epoch} ended at position {end.stop}, but {self._covered} positions "
                f"of epoch {self._epoch} were delivered: a fault of splitpipe"
            )
        self._ended = True
        self._epoch += 1
        self._before, self._chunk = 0, iter(())
        self._position = self._covered = 0
        self._add_ends()

    def _admit(self, message: Message) -> None:
        if isinstance(message, Failed) and message.sequence == NOWHERE:
            raise self._rebuild(message)
        sequence = message.sequence
        if sequence < self._next or sequence in self._arrived or sequence in self._delivered:
            raise PipelineError(f"message {sequence} came twice: a fault of splitpipe")
        if isinstance(message, Item):
            self._grants.learn(message)
        self._arrived[sequence] = message

    def _add_ends(self) -> None:
        for end in self._grants.ends():
            self._arrived[end.sequence] = end

    def _rebuild(self, failed: Failed) -> BaseException:
        report = Failure.decode(failed.body[: failed.nbytes])
        error = report.rebuild()
        self.failure = error, report
        return error


def _single(values: list[Any]) -> Iterator[Any]:
    yield values.pop()
