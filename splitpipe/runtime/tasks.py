"""The loop of a sequential task: one process, whole streams.

Responsible for: reading inputs, running the stages over them, sending what comes out, at its place
in the order, and the failures at theirs. It is given channels and knows nothing of processes: a
test drives it with lists.

Rules:
- a sequential task goes through its epochs once; its generators start anew in each of them;
- each output has an `Exit` of its own: credits, messages, order. With several, each is served by a
  thread, so that one whose reader is busy holds up no other for longer than `Branches` allows;
- an output may be one epoch ahead of another one, no more. An input goes on to the next epoch with
  the first output that wants it there, when none needs it in this one any more; what those that are
  behind have still to come is read ahead and kept, as far as `Branches` keep anything;
- a failure is sent and does not end the task: a later stage may catch it, as it could in one
  process;
- a shut channel ends the task at once and quietly: whoever shut it knows why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

from splitpipe.errors import BranchStalled, ChannelError
from splitpipe.pipeline.allocate import use_allocator
from splitpipe.pipeline.graph import Body, Part
from splitpipe.runtime.balance import Balance
from splitpipe.runtime.book import Book
from splitpipe.runtime.chain import Chain
from splitpipe.runtime.exit import Exit
from splitpipe.runtime.failure import Failure, Reports, keep_exceptions, keeps_exceptions
from splitpipe.runtime.heads import one_to_one, open_source
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.ledger import Ladder, Ledger
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.needs import forks, inputs_of, needed
from splitpipe.runtime.notes import begun
from splitpipe.runtime.outbox import EpochSkipped
from splitpipe.runtime.turns import Waits
from splitpipe.transport.message import NOWHERE

__all__ = ["Exit", "SequentialTask"]

_Made = TypeVar("_Made")


class SequentialTask:
    """One process, whole streams, in order.

    Args:
        body: what to run.
        exits: one for each of its outputs.
        inboxes: one for each of its inputs.
        epochs: how many; None for ever.
        worker: how it is called in notes.
        meter: counts what is read.
        first: the first epoch.
        ledger: where to lay open how far it is; None: nowhere.
        book: what it writes down of items that fail.
    """

    def __init__(
        self,
        body: Body,
        exits: Sequence[Exit],
        inboxes: Sequence[Inbox] = (),
        *,
        epochs: int | None,
        worker: str,
        meter: Meter,
        first: int = 0,
        ledger: Ledger | None = None,
        book: Book | None = None,
    ) -> None:
        self.body, self.exits, self.inboxes = body, exits, inboxes
        self.book = Book(worker=worker) if book is None else book
        self.balance = Balance.of(body)
        self._first = first
        self.epochs = epochs
        self.worker = worker
        self.meter = meter
        self.kept: dict[str, dict[str, Any]] = {}
        """What stages keep from one epoch to the next."""
        self.one_to_one = len(body.heads) == len(body.outputs) == 1 and one_to_one(body.stages)
        self._runs: dict[int, _EpochRun] = {}
        self._edges = {number: inboxes[edge] for number, edge in _edges(body)}
        self._at: dict[int, int] = {}  # the epoch that each input is in, once anybody has read it
        self._inputs = [inputs_of(body, output) for output in range(len(exits))]
        self._waits = Waits(
            [one.hungry for one in exits],
            [one.left for one in exits],
            [one.gate.look for one in exits],
        )
        self._alone: int | None = None  # the output that is between two epochs of the inputs
        self.ladder = Ladder(ledger) if ledger is not None else None
        for part in body.parts:
            if part.edge is not None:
                values = part.start.first if part.start is not None else 0
                inboxes[part.edge].begin_with(values)

    def run(self) -> None:
        """Go through all epochs."""
        branched = [inbox for inbox in self.inboxes if inbox.branched]
        if branched or len(self.exits) > 1:
            for one in self.exits:
                one.watch(self._waits)
        for inbox in branched:
            inbox.announce_waits(partial(self._waits.begin, lambda: True), self._waits.end)
        try:
            if len(self.exits) == 1:
                self._waits.serve(0)
                self._drive(0)
            else:
                self._drive_all()
        finally:
            if self.ladder is not None:
                self.ladder.close()
        if all(one.gate.detached for one in self.exits):
            for inbox in self.inboxes:
                inbox.detach()

    def _drive_all(self) -> None:
        """Serve each output by a thread."""
        threads = [
            threading.Thread(
                target=self._thread, args=(n, keeps_exceptions()), name=f"splitpipe-output-{n}"
            )
            for n in range(len(self.exits))
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()

    def _thread(self, number: int, keeps: bool) -> None:
        if keeps:
            keep_exceptions()
        self._waits.serve(number)
        outbox = self.exits[number].outbox
        use_allocator(outbox.allocate)
        try:
            self._drive(number)
        except ChannelError:
            pass  # the run was shut
        except BaseException as error:
            outbox.packer.discard()
            failure = Failure.of(error, where=(f"in {self.worker}, outside of its stages",))
            outbox.failed(failure, epoch=0, sequence=NOWHERE, start=0, stop=0)
        finally:
            use_allocator(None)
            self._waits.leave()

    def _drive(self, number: int) -> None:
        one, first = self.exits[number], self._first
        try:
            for epoch in count(first) if self.epochs is None else range(first, self.epochs):
                run = self._enter(number, epoch)
                if run is None:
                    self._detach(number)
                    return
                if one.pass_over(epoch, run.outputs[number]):
                    self._leave(number, run)
                    self._finish(run)
                    continue
                try:
                    try:
                        if self.ladder is not None:
                            one.note(partial(run.note, number))
                        one.drain(run, run.outputs[number], run.first(number))
                    finally:
                        self._leave(number, run)
                    one.flush()
                    run.check(one.count)
                except EpochSkipped:
                    one.discard()
                except ChannelError:
                    raise
                except BaseException as error:
                    one.fail(run, error)
                self._finish(run)
                if one.gate.detached:
                    self._detach(number)
                    return
                one.end(epoch)
        finally:
            one.close()

    # -- epochs of several outputs

    @property
    def waits(self) -> Waits:
        """What its outputs wait for."""
        return self._waits

    def _enter(self, number: int, epoch: int) -> _EpochRun | None:
        """Return the run of `epoch`, when output `number` may begin with it; None when nobody will
        ever read it.
        """
        gate = self.exits[number].gate

        def in_the_way() -> tuple[_EpochRun, int] | None:
            return None if gate.detached else self._in_the_way(number, epoch)

        while not gate.detached:
            with self._waits.changed:
                found = in_the_way()
            if found is None:
                return self._between(lambda: self._begin(number, epoch))
            held, other = found
            if self._waits.stuck_between(other, lambda: in_the_way() is not None):
                if held.epoch == epoch - 1 and held.read_ahead(self._inputs[number]):
                    continue
                raise BranchStalled(
                    f"the branch {self.body.reader(other)!r} is not read: it is still in epoch "
                    f"{held.epoch} when {self.body.reader(number)!r} would begin epoch {epoch}; "
                    "read the branches in step"
                )
        return None

    def _in_the_way(self, number: int, epoch: int) -> tuple[_EpochRun, int] | None:
        """Return an earlier run because of which output `number` cannot begin `epoch` yet, and the
        output that has to go on in it first.
        """
        for run in self._runs.values():
            others: Collection[int] = ()
            if run.epoch < epoch - 1:
                others = run.left
            elif run.epoch < epoch:
                others = run.needing(self._inputs[number])
            if others:
                return run, min(others)
        return None

    def _begin(self, number: int, epoch: int) -> _EpochRun:
        """Begin `epoch` for an output, at the inputs that it depends on, too; return its run."""
        inputs = self._inputs[number]
        self._turn([one for one in sorted(inputs) if self._at.setdefault(one, epoch) < epoch])
        run = self._runs.get(epoch)
        if run is None:
            run = _EpochRun(self, epoch)
            with self._waits.changed:
                self._runs[epoch] = run
        run.begin_reading(inputs)
        return run

    def _turn(self, inputs: Sequence[int]) -> None:
        """Be done with the epoch that `inputs` are in: who reads several of them tells all before
        waiting for one.
        """
        for number in inputs:
            run = self._runs.get(self._at[number])
            if run is not None:
                run.end_reading(number)
            self._edges[number].skip_rest()
        for number in inputs:
            self._edges[number].end_epoch(last=self._at[number] + 1 == self.epochs)
            self._at[number] += 1

    def _between(self, act: Callable[[], _Made]) -> _Made:
        """Do what only one thread may do at a time, and what may wait for input."""
        waits = self._waits
        with waits.changed:
            while self._alone is not None:
                waits.wait(lambda: self._alone is not None, (self._alone,))
            self._alone = waits.output()
        try:
            return act()
        finally:
            with waits.changed:
                self._alone = None
                waits.tell()

    def _leave(self, number: int, run: _EpochRun) -> None:
        with self._waits.changed:
            try:
                run.leave(number)
            finally:
                self._waits.tell()

    def _finish(self, run: _EpochRun) -> None:
        if not run.left:
            self._between(lambda: self._end(run))

    def _end(self, run: _EpochRun) -> None:
        """All outputs are done with `run`: so are all inputs with its epoch."""
        if self._runs.get(run.epoch) is not run:
            return  # another output was quicker
        at, epoch = self._at, run.epoch
        while behind := [one for one in self._edges if at.setdefault(one, epoch) <= epoch]:
            self._turn(behind)
        run.finish()
        with self._waits.changed:
            del self._runs[run.epoch]
            self._waits.tell()

    def _detach(self, number: int) -> None:
        """Nobody reads output `number` any more: nobody waits for it."""
        for run in list(self._runs.values()):
            self._leave(number, run)
            self._finish(run)


class _EpochRun:
    """One pass of a task over its inputs.

    Attributes:
        epoch: which.
        outputs: an iterator each.
        left: outputs that are not done with it.
    """

    def __init__(self, task: SequentialTask, epoch: int) -> None:
        self._task = task
        self.epoch = epoch
        self.left = set(range(len(task.exits)))
        self._reports = Reports(len(task.exits))
        self._chain = Chain(
            task.body,
            epoch,
            counted=not task.inboxes and not task.one_to_one,
            turns=task.waits if len(task.exits) > 1 else None,
            kept=task.kept,
            asked=task.ladder is not None,
            ledger=task.book.ledger(task.body),
        )
        self._edges = {number: task.inboxes[edge] for number, edge in _edges(task.body)}
        self._begun: frozenset[int] = frozenset()
        self._reading: frozenset[int] = frozenset()  # the inputs that are in this epoch, not ended
        self._read = self._chain.position if not self._edges else 0
        self._chain.notes = begun(task.meter.notes, epoch)
        self.outputs = self._chain.start(self._input)
        task.meter.enter(self._chain.running)
        for number, one in enumerate(task.exits):
            if one.gate.detached:
                self.leave(number)

    def needing(self, inputs: frozenset[int]) -> list[int]:
        """Return the outputs for which some of `inputs` are still read in this epoch."""
        inputs = inputs & self._reading
        body, chain = self._task.body, self._chain
        return [one for one in self.left if inputs and inputs & needed(body, chain, one)]

    def read_ahead(self, inputs: frozenset[int]) -> bool:
        """Read `inputs` on for the outputs that are behind, as far as may be kept; return whether
        there was anything to do.
        """
        shared = forks(self._task.body, self._chain, inputs & self._reading)
        return max([one.read_ahead() for one in shared], default=False)

    def begin_reading(self, inputs: frozenset[int]) -> None:
        """From now on `inputs` are in this epoch."""
        with self._task.waits.changed:
            self._reading |= inputs - self._begun
            self._begun |= inputs

    def end_reading(self, number: int) -> None:
        """An input is in this epoch no longer, or has ended in it."""
        with self._task.waits.changed:
            self._reading -= {number}
            self._task.waits.tell()

    def first(self, output: int) -> int:
        """Return the number of the first item that comes out."""
        body = self._task.body
        start = body.parts[body.outputs[output]].start if body.resumes == self.epoch else None
        dropped = body.drops[output] if body.resumes == self.epoch and body.drops else 0
        return dropped + (start.first if start is not None else 0)

    def note(self, output: int) -> None:
        """Take note of how far an output is, from time to time. Its stages wait."""
        ladder = self._task.ladder
        if ladder is not None and ladder.due():
            given = {output: self._task.exits[output].given}
            with self._task.waits.changed:  # nobody begins to make what several read
                ladder.add(self.epoch, self._chain.facts(given, self._span))

    def _span(self, part: Part) -> tuple[int, int] | None:
        assert part.edge is not None
        inbox = self._task.inboxes[part.edge]
        return inbox.span if inbox.current == self.epoch else None

    def advance(self, count: int) -> int:
        """Take note of `count` values that are sent; return up to which position of the inputs
        they reach.
        """
        chain = self._chain
        if self._edges:
            for number in self._reading:
                chain.cursors[number].position = self._edges[number].position
            return chain.position
        if self._task.one_to_one:
            cursor = chain.cursor  # the only one
            read = cursor.position = cursor.position + count
        else:
            read = chain.position
        self._task.meter.items_in += read - self._read
        self._read = read
        return read

    def check(self, given: int) -> None:
        """All was read and sent: see that nothing is missing. Merges prove it of inputs."""
        if self._task.balance is not None and not (self._edges or self._chain.resumed):
            self._task.balance.check(self._chain.contexts, taken=self.advance(0), given=given)

    def report(self, error: BaseException) -> Failure:
        """Return the report of `error`, which a stage of this chain or one before it raised."""
        for number, inbox in self._edges.items():
            if inbox.failure is not None and inbox.failure[0] is error:
                return inbox.failure[1]
            if number in self._reading:
                self._chain.cursors[number].position = max(0, inbox.position - 1)
        return self._reports.of(error, lambda: self._chain.where(error, self._task.worker))

    def leave(self, output: int) -> None:
        """Output `output` wants no more of this epoch; with the last one, all generators end."""
        if output not in self.left:
            return
        self.left.discard(output)
        if self.left:
            self._chain.leave(output)
        else:
            self._chain.close()

    def finish(self) -> None:
        """All outputs are done with it. Once."""
        if not self._edges:
            self.advance(0)
        self._task.meter.leave(self._chain.running)

    def _input(self, number: int, part: Part, epoch: int) -> Iterator[Any]:
        if part.edge is None:
            return open_source(part, epoch)
        inbox = self._edges[number]
        return inbox.epoch() if len(self.left) == 1 else self._follow(number, inbox)

    def _follow(self, number: int, inbox: Inbox) -> Iterator[Any]:
        yield from inbox.epoch()
        self._chain.cursors[number].position = inbox.position
        self.end_reading(number)


def _edges(body: Body) -> list[tuple[int, int]]:
    """Return the inputs of `body`: the number of each as a part, and as an input."""
    return [(n, part.edge) for n, part in enumerate(body.parts) if part.edge is not None]
