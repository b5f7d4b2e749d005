"""Where a task reads: the merge at the end of a region.

Responsible for: putting messages back into their order, proving that none is missing or repeated,
and granting the next work. What a message holds is told by an `Intake`.

Rules:
- ordered: messages come out by sequence number; unordered: as they arrive, but never across the
  end of an epoch;
- the positions that the messages of an epoch cover must join without a gap; anything else is an
  error, not a short epoch;
- a unit is granted anew only when the reader comes back for the next one: what it holds counts;
- a batch that was made in parts is put together here (see `splitpipe.runtime.parts`): its rows are
  taken when their turn comes, so that their slots go back before the batch is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from operator import length_hint
from typing import Any

from splitpipe.errors import PipelineError
from splitpipe.runtime.failure import Failure, annotate
from splitpipe.runtime.grants import Grants
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.parts import Splitting, Whole
from splitpipe.runtime.watching import Seen, seen_of
from splitpipe.transport.message import NOWHERE, End, Failed, Item, Message

__all__ = ["Inbox"]


class Inbox:
    """The reading end of a region: an intake, in order.

    Args:
        grants: how the head is told to go on.
        ordered: see above.
        splitting: how batches are put together that come in parts, in order; None where none does.
    """

    def __init__(
        self,
        intake: Intake,
        grants: Grants,
        *,
        ordered: bool = True,
        splitting: Splitting | None = None,
    ) -> None:
        self._intake = intake
        self._grants = grants
        self._ordered = ordered
        self._splitting = splitting
        self._into = 0  # the position up to which rows of a batch in parts were taken
        self._again = -1  # the sequence of a batch that is made once more, and what came of it
        self._remade: Item | Failed | None = None
        self._broken: BaseException | None = None  # what came instead of a row
        self._arrived: dict[int, Message] = {}
        self._delivered: set[int] = set()  # above `_next`, when unordered
        self._next = 0
        self._epoch = 0
        self._position = 0
        self._covered = 0
        self._before = 0
        self._chunk: Iterator[Any] = iter(())
        self._open = False
        self._owing: list[int | None] = []  # what to grant anew: None for a unit, or a part's size
        self._ended = False
        self._left = False
        self.seen: Seen | None = None
        """What brought the values that were given last; of a batch in parts, as the first says."""
        self._message: tuple[int, int] | None = None  # see `span`
        self.failure: tuple[BaseException, Failure] | None = None
        """What a stage before this one raised, as it was raised here, and the report of it."""

    def begin(self, epoch: int, *, position: int = 0) -> None:
        """Say what comes first, where that is not the beginning of everything.

        Args:
            epoch: the first one.
            position: the first of its head's positions that is made.
        """
        self._epoch = epoch
        self._position = self._covered = position

    def begin_with(self, values: int) -> None:
        """So many values of the first epoch came before what is made now."""
        self._before = values

    @property
    def span(self) -> tuple[int, int] | None:
        """How many values had come in this epoch before the message that is read now, and the
        number of the first item of the region's head that went into that; None: it tells neither.
        """
        return self._message if self._ordered else None

    @property
    def current(self) -> int:
        """The epoch that is read, or that comes next."""
        return self._epoch

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
            stop = self._grants.batch_end(message) if self._splitting is not None else None
            self._owing.append(None if stop is None else message.stop - message.start)
            if stop is not None:
                whole = yield from self._batch(message, stop)
                if whole is None:
                    continue
                message = whole
            if isinstance(message, Failed):
                values, broken = self._intake.restored(message)
                yield self._counted(values)
                raise broken or self._rebuild(message)
            yield from self._values(message)

    def end_epoch(self, *, last: bool) -> None:
        """Leave the current epoch. If its end was not reached, the head is told that the rest is
        not wanted.

        What is on its way is thrown away, unless this was the `last` epoch and nobody will read on.
        """
        if self._ended:
            self._ended = False
            return
        self.skip_rest()
        drained: list[int | None] = []
        while not last:
            message = self._take()
            if isinstance(message, End):
                self._finish(message)
                self._ended = self._left = False
                for part in drained:
                    self._grants.consumed(part)
                return
            self._intake.discard(message)
            # Granted anew at the end: a head with credits left looks for no skip.
            in_part = self._grants.batch_end(message) is not None
            drained.append(message.stop - message.start if in_part else None)

    def skip_rest(self) -> None:
        """Tell the head that the rest of the epoch is not wanted; `end_epoch` has to follow. Who
        reads several inputs tells all heads before it waits for one of them: they may wait for each
        other.
        """
        if not self._ended and not self._left:
            self._left = True
            self._grants.skip(self._epoch)
            self._add_ends()

    @property
    def branched(self) -> bool:
        """Whether what it reads comes from where a stream parts."""
        return self._intake.on_wait is not None

    def announce_waits(
        self,
        begin: Callable[[Callable[[], None]], None] | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        """Tell the head, which has other readers too, when this one waits, and for what.

        Args:
            begin: called when it begins to wait, with what tells the head; None: that is told at
                once.
            end: called when it waits no longer.
        """

        def tell() -> None:
            self._grants.hungry(self._next)

        self._intake.on_wait = tell if begin is None else lambda: begin(tell)
        self._intake.on_resume = end

    def detach(self) -> None:
        """Nobody will read on: let the head stop, and hold up nobody else."""
        self._grants.detach()

    def widen(self, window: int) -> None:
        """Let so many units be under way, from the next one on that is granted."""
        self._grants.widen(window)

    @property
    def position(self) -> int:
        """How many values of the current epoch were taken. Costs nothing per value."""
        return self._before - length_hint(self._chunk)

    def _values(self, message: Item) -> Iterator[Iterator[Any]]:
        self.seen = seen_of(message)
        values, broken = self._intake.restored(message)
        if broken is not None:
            yield self._counted(values)
            raise broken
        self._intake.meter.items_in += len(values)
        self._message = self._before, message.first
        self._before += len(values)
        # A list iterator holds its list: for a batch that would be a slot held for nothing.
        if len(values) == 1:
            self._chunk = iter(())
            yield _single(values)
        else:
            self._chunk = iter(values)
            del values
            yield self._chunk

    def _counted(self, values: list[Any]) -> Iterator[Any]:
        """Return what came before a failure."""
        self._before += len(values)
        self._chunk = iter(values)
        return self._chunk

    def _batch(
        self, first: Item | Failed, stop: int
    ) -> Generator[Iterator[Any], None, Item | Failed | None]:
        """Yield the batch up to position `stop` of which `first` is the first part.

        Returns:
            The batch as one message, where it had to be made whole after all; else None.
        """
        splitting, epoch = self._splitting, first.epoch
        assert splitting is not None
        self._chunk, self._into = iter(()), first.start
        rows = self._rows(first, stop)
        try:
            batch = splitting.finish(rows, epoch)
        except Whole as reason:
            return self._made_whole(first, reason.part, stop)
        except BaseException as error:
            if error is not self._broken:
                where = splitting.where(epoch, self._into - 1)
                annotate(error, where)
                self.failure = error, Failure.of(error, where=where)
            raise
        self._intake.meter.items_in += 1
        self._before += 1
        self.seen = seen_of(first, stop)
        values = [batch]
        del batch
        yield _single(values)
        return None

    def _rows(self, part: Item | Failed, stop: int) -> Generator[Any, None, None]:
        """Yield the rows of a batch, part by part, and raise what a part failed with."""
        assert self._splitting is not None
        positions = self._splitting.row
        try:
            while True:
                if isinstance(part, Item) and not part.count:
                    self._intake.discard(part)
                    raise Whole(part)
                for row in self._intake.each(part):
                    self._into += positions
                    yield row
                    del row
                if isinstance(part, Failed):
                    raise self._rebuild(part)
                if part.stop == stop:
                    return
                part = self._next_part(part)
        except BaseException as error:
            self._broken = error
            raise

    def _next_part(self, part: Item | Failed) -> Item | Failed:
        """Return the part behind `part`, waiting for it."""
        sequence = part.sequence + 1
        while sequence not in self._arrived:
            self._admit(self._intake.receive())
        after = self._pop(sequence)
        if not isinstance(after, (Item, Failed)) or after.start != part.stop:
            raise PipelineError(
                f"after position {part.stop} of epoch {part.epoch} came position {after.start} of "
                f"epoch {after.epoch}: a fault of splitpipe"
            )
        self._owing.append(after.stop - after.start)
        return after

    def _made_whole(self, first: Item | Failed, part: Item | Failed, stop: int) -> Item | Failed:
        """Have a batch made once more, whole, and return it; the parts behind `part` are not
        wanted.
        """
        while part.stop != stop:
            part = self._next_part(part)
            self._intake.discard(part)
        self._grants.again(first, stop)
        self._again = first.sequence
        while self._remade is None:
            self._admit(self._intake.receive())
        made, self._remade = self._remade, None
        return made

    def _take(self) -> Item | End | Failed:
        """Return the next message of the stream, waiting for it."""
        if not self._open:
            self._open = True
            self._grants.open()
            self._add_ends()
        if self._owing:
            for part in self._owing:
                self._grants.consumed(part)
            self._owing.clear()
            self._add_ends()
        while True:
            message = self._choose()
            if message is not None:
                return message
            self._admit(self._intake.receive())

    def _choose(self) -> Item | End | Failed | None:
        sequence = self._next if self._next in self._arrived else self._any()
        if sequence is None:
            return None
        first = self._pop(sequence)
        assert isinstance(first, (Item, End, Failed))
        return first

    def _any(self) -> int | None:
        if not self._ordered:
            for sequence, message in self._arrived.items():
                if isinstance(message, Item) and message.epoch == self._epoch:
                    return sequence
        return None

    def _pop(self, sequence: int) -> Message:
        message = self._arrived.pop(sequence)
        if sequence == self._next:
            self._advance()
        else:
            self._delivered.add(sequence)
        if isinstance(message, (Item, Failed)):
            self._cover(message)
            self._intake.meter.take()
        return message

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
        self._before, self._chunk, self._message = 0, iter(()), None
        self._position = self._covered = 0
        self._add_ends()

    def _admit(self, message: Message) -> None:
        if isinstance(message, Failed) and message.sequence == NOWHERE:
            raise self._rebuild(message)
        sequence = message.sequence
        if sequence == self._again and isinstance(message, (Item, Failed)):
            self._remade, self._again = message, -1
            return
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
