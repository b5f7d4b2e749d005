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
  taken when their turn comes, so that their slots go back before the batch is whole;
- what was taken is known by positions (`Start`), which say nothing of who made it: everybody before
  a merge may be replaced at any time, and the stream goes on where it was (`renew`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from operator import length_hint
from typing import Any, TypeAlias, cast

from splitpipe.errors import PipelineError
from splitpipe.runtime.budgets import Budgets
from splitpipe.runtime.failure import Failure, annotate
from splitpipe.runtime.grants import Grants
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.parts import Splitting, Whole
from splitpipe.runtime.start import Start
from splitpipe.runtime.taken import Taken
from splitpipe.runtime.watching import Seen, seen_of
from splitpipe.transport.message import NEVER, NOWHERE, End, Failed, Item, Message

__all__ = ["Inbox", "Lock"]

Lock: TypeAlias = "AbstractContextManager[Any]"


class Inbox:
    """The reading end of a region: an intake, in order.

    Args:
        grants: how the head is told to go on.
        ordered: see above.
        splitting: how batches are put together that come in parts, in order; None where none does.
        lock: held while it works, and let go by whoever waits for messages on its behalf; None
            where it is never renewed.
    """

    def __init__(
        self,
        intake: Intake,
        grants: Grants,
        *,
        ordered: bool = True,
        splitting: Splitting | None = None,
        lock: Lock | None = None,
    ) -> None:
        self._lock: Lock = nullcontext() if lock is None else lock
        self._intake = intake
        self._grants = grants
        self._ordered = ordered
        self._splitting = splitting
        self._into = 0  # the position up to which rows of a batch in parts were taken
        self._again = -1  # the sequence of a batch that is made once more, and what came of it
        self._remade: Item | Failed | None = None
        self._whole: tuple[Item | Failed, int] | None = None  # as it is asked for
        self._broken: BaseException | None = None  # what came instead of a row
        self._budgets = Budgets()
        self._arrived: dict[int, Message] = {}
        self._delivered: set[int] = set()  # above `_next`, when unordered
        self._next = 0
        self._taken = Taken(ordered=ordered)
        self._detached = False
        self._window: int | None = None
        self.taken = 0  # values of this epoch that have come, in whole messages
        self._chunk: Iterator[Any] = iter(())
        self._open = False
        self._owing: list[int | None] = []  # what to grant anew: None for a unit, or a part's size
        self._ended = False
        self._left = False
        self._brought: Seen | tuple[Message, int | None] | None = None  # see `seen`
        self._message: tuple[int, int] | None = None  # see `span`
        self.failure: tuple[BaseException, Failure] | None = None
        """What a stage before this one raised, as it was raised here, and the report of it."""

    def begin(self, epoch: int, *, position: int = 0) -> None:
        """Let `epoch` be the first, and `position` the first in it of its head's positions."""
        self._taken.begin(epoch, position)

    def begin_with(self, values: int) -> None:
        """So many values of the first epoch came before what is made now."""
        self.taken = values

    @property
    def seen(self) -> Seen | None:
        """What brought the values that were given last (the same object until others have come); of
        a batch in parts, as the first says.
        """
        if type(self._brought) is tuple:
            self._brought = seen_of(*self._brought)
        return cast("Seen | None", self._brought)

    @property
    def span(self) -> tuple[int, int] | None:
        """How many values had come in this epoch before the message that is read now, and the
        number of the first item of the region's head that went into that; None: it tells neither.
        """
        return self._message if self._ordered else None

    @property
    def current(self) -> int:
        """The epoch that is read, or that comes next."""
        return self._taken.epoch

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
            with self._lock:
                made = self._next_chunk()
            if made is None:
                return
            chunk, error = made
            del made
            yield chunk
            if error is not None:
                try:
                    raise error
                finally:
                    del error, chunk  # its traceback holds this frame

    def end_epoch(self, *, last: bool) -> None:
        """Leave the current epoch. If its end was not reached, the head is told that the rest is
        not wanted.

        What is on its way is thrown away, unless this was the `last` epoch and nobody will read on.
        """
        if self._ended:
            self._ended = False
            return
        self.skip_rest()
        with self._lock:
            if not last:
                self._throw_away()

    def _throw_away(self) -> None:
        """Take what is on its way, up to the end of the epoch."""
        drained: list[int | None] = []
        grants = self._grants
        while True:
            message = self._take()
            if isinstance(message, End):
                self._finish(message)
                self._ended = self._left = self._taken.drained = False
                for part in drained:
                    if grants is self._grants:  # others know nothing of these units
                        grants.consumed(part)
                return
            if grants is not self._grants:
                grants = self._grants
                drained.clear()
            self._intake.discard(message)
            # Granted anew at the end: a head with credits left looks for no skip.
            in_part = self._grants.batch_end(message) is not None
            drained.append(message.stop - message.start if in_part else None)

    def skip_rest(self) -> None:
        """Tell the head that the rest of the epoch is not wanted; `end_epoch` has to follow. Who
        reads several inputs tells all heads before it waits for one of them: they may wait for each
        other.
        """
        with self._lock:
            if not self._ended and not self._left:
                self._left = True
                self._grants.skip(self._taken.epoch)
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
        with self._lock:
            self._detached = True
            self._grants.detach()

    def widen(self, window: int) -> None:
        """Let so many units be under way, from the next one on that is granted."""
        self._window = window
        self._grants.widen(window)

    def start(self) -> Start:
        """Return from where on the stream has to be made if all before this merge were replaced."""
        return (
            Start(NEVER, sequence=self._next) if self._detached else self._taken.start(self._next)
        )

    def renew(self, grants: Grants) -> None:
        """Everybody before this merge was replaced by others, who begin at `start`; `grants` tells
        them to go on. The intake is renewed with it; the lock is held.
        """
        self._grants = grants
        self._arrived.clear()
        self._delivered.clear()
        self._owing.clear()
        grants.begin(self.start())
        if self._window is not None:
            grants.widen(self._window)
        if self._detached:
            grants.detach()
        elif self._open:
            if self._left and not self._ended:
                grants.skip(self._taken.epoch)
            grants.open()
            if self._whole is not None:
                grants.again(*self._whole)
            self._add_ends()

    @property
    def position(self) -> int:
        """How many values of the current epoch were taken. Costs nothing per value."""
        return self.taken - length_hint(self._chunk)

    def _next_chunk(self) -> tuple[Iterator[Any], BaseException | None] | None:
        """Return the values of the next message, and what is to be raised behind them; None at the
        end of the epoch.
        """
        message = self._take()
        over = self._budgets.judge(message)
        if over is not None:
            self.failure = over[1], Failure.of(over[1], where=())
        if isinstance(message, End):
            self._finish(message)
            return None if over is None else (iter(()), over[1])
        if over is not None:
            return islice(self._intake.each(message), over[0]), over[1]
        stop = self._grants.batch_end(message) if self._splitting is not None else None
        self._owing.append(None if stop is None else message.stop - message.start)
        if stop is not None:
            batch = self._batch(message, stop)
            if not isinstance(batch, (Item, Failed)):
                return batch, None
            message = batch
        if isinstance(message, Failed):
            # Restored now: the slots may be those of somebody who is about to be replaced.
            values, broken = self._intake.restored(message)
            return self._before(values), broken or self._rebuild(message)
        self._brought = message, None
        values, broken = self._intake.restored(message)
        if broken is not None:
            return self._before(values), broken
        self._intake.meter.items_in += len(values)
        self._message = self.taken, message.first
        self.taken += len(values)
        # A list iterator holds its list: for a batch that would be a slot held for nothing.
        if len(values) == 1:
            self._chunk = iter(())
            return _single(values), None
        self._chunk = iter(values)
        return self._chunk, None

    def _before(self, values: list[Any]) -> Iterator[Any]:
        """Yield what came before a failure; it counts as taken."""
        self.taken += len(values)
        self._chunk = iter(values)
        return self._chunk

    def _batch(self, first: Item | Failed, stop: int) -> Iterator[Any] | Item | Failed:
        """Return the batch up to position `stop` of which `first` is the first part: as an iterator
        over nothing else, or as a message, where it had to be made whole after all.
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
        self.taken += 1
        self._brought = first, stop
        return _single([batch])

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
        self._again, self._whole = first.sequence, (first, stop)
        self._grants.again(first, stop)
        while self._remade is None:
            self._admit(self._intake.receive())
        made, self._remade, self._whole = self._remade, None, None
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
        return None if sequence is None else cast(Item | End | Failed, self._pop(sequence))

    def _any(self) -> int | None:
        for sequence, message in () if self._ordered else self._arrived.items():
            if isinstance(message, Item) and message.epoch == self._taken.epoch:
                return sequence
        return None

    def _pop(self, sequence: int) -> Message:
        message = self._arrived.pop(sequence)
        if sequence == self._next:
            self._advance()
        else:
            self._delivered.add(sequence)
        if isinstance(message, (Item, Failed)):
            self._taken.cover(message)
            self._intake.meter.take()
        return message

    def _advance(self) -> None:
        self._next += 1
        while self._next in self._delivered:
            self._delivered.remove(self._next)
            self._next += 1

    def _finish(self, end: End) -> None:
        self._taken.finish(end)
        self._ended = True
        self.taken, self._chunk, self._message = 0, iter(()), None
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
