"""The loop of a sequential task: one process, whole streams.

Responsible for: reading inputs, running the stages over them, sending what comes out, at its place
in the order, and the failures at theirs. It is given channels and knows nothing of processes: a
test drives it with lists.

Rules:
- a sequential task goes through its epochs once; its generators start anew in each of them;
- each output has an `Exit` of its own: credits, messages, order. With several, each is served by a
  thread, so that one whose reader is busy holds up no other for longer than `Branches` allows;
- an output may be one epoch ahead of another one, no more;
- a failure is sent and does not end the task: a later stage may catch it, as it could in one
  process;
- a shut channel ends the task at once and quietly: whoever shut it knows why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

from splitpipe.errors import BranchStalled, ChannelError
from splitpipe.pipeline.allocate import use_allocator
from splitpipe.pipeline.graph import Body, Part
from splitpipe.runtime.chain import Chain, one_to_one, open_source
from splitpipe.runtime.exit import Exit
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import EpochSkipped
from splitpipe.runtime.turns import Waits
from splitpipe.transport.message import NOWHERE

__all__ = ["Exit", "SequentialTask"]


class SequentialTask:
    """One process, whole streams, in order.

    Args:
        body: what to run.
        exits: one for each of its outputs.
        inboxes: one for each of its inputs.
        epochs: how many; None for ever.
        worker: how it is called in notes.
        meter: counts what is read.
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
    ) -> None:
        self.body = body
        self.exits = exits
        self.inboxes = inboxes
        self.epochs = epochs
        self.worker = worker
        self.meter = meter
        self.kept: dict[str, dict[str, Any]] = {}
        """What stages keep from one epoch to the next."""
        self.one_to_one = len(body.heads) == len(body.outputs) == 1 and one_to_one(body.stages)
        self._runs: dict[int, _EpochRun] = {}
        self._waits = Waits([one.hungry for one in exits], [one.left for one in exits])
        self._alone: int | None = None  # the output that is between two epochs of the inputs

    def run(self) -> None:
        """Go through all epochs."""
        branched = [inbox for inbox in self.inboxes if inbox.branched]
        if branched or len(self.exits) > 1:
            for one in self.exits:
                one.watch(self._waits)
        for inbox in branched:
            inbox.announce_waits(partial(self._hunger, inbox), self._waits.end)
        if len(self.exits) == 1:
            self._waits.serve(0)
            self._drive(0)
        else:
            self._drive_all()
        if all(one.gate.detached for one in self.exits):
            for inbox in self.inboxes:
                inbox.detach()

    def _drive_all(self) -> None:
        """Serve each output by a thread."""
        threads = [
            threading.Thread(target=self._thread, args=(n,), name=f"splitpipe-output-{n}")
            for n in range(len(self.exits))
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()

    def _thread(self, number: int) -> None:
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

    def _hunger(self, inbox: Inbox, announce: Callable[[], None]) -> None:
        self._waits.begin(lambda: True, announce)

    def _drive(self, number: int) -> None:
        one = self.exits[number]
        try:
            for epoch in count() if self.epochs is None else range(self.epochs):
                run = self._enter(number, epoch)
                if run is None:
                    self._detach(number)
                    return
                try:
                    try:
                        one.drain(run, run.outputs[number])
                    finally:
                        self._leave(number, run)
                    one.flush()
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
        while not gate.detached:
            with self._waits.changed:
                run = self._runs.get(epoch)
                if run is not None:
                    return run
                held = next((r for r in self._runs.values() if r.holds(epoch)), None)
                other = min(held.left) if held is not None else 0
            if held is None:
                self._between(lambda: self._begin(epoch))
            elif self._waits.stuck_between(
                other,
                lambda held=held: held.holds(epoch) and not gate.detached,  # type: ignore[misc]
            ):
                raise BranchStalled(
                    f"the branch {self.body.reader(other)!r} is not read: it is still in epoch "
                    f"{held.epoch} when {self.body.reader(number)!r} would begin epoch {epoch}; "
                    "read the branches in step"
                )
        return None

    def _begin(self, epoch: int) -> None:
        """Begin `epoch`, at the inputs, too."""
        if epoch not in self._runs:
            for earlier in list(self._runs.values()):
                earlier.finish_reading()
            self._runs[epoch] = _EpochRun(self, epoch)

    def _between(self, act: Callable[[], None]) -> None:
        """Do what only one thread may do at a time, and what may wait for input."""
        waits = self._waits
        with waits.changed:
            while self._alone is not None:
                waits.wait(lambda: self._alone is not None, (self._alone,))
            self._alone = waits.output()
        try:
            act()
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
            self._between(run.finish_reading)
            with self._waits.changed:
                self._runs.pop(run.epoch, None)
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
        self._chain = Chain(
            task.body,
            epoch,
            counted=not task.inboxes and not task.one_to_one,
            turns=task.waits if len(task.exits) > 1 else None,
            kept=task.kept,
        )
        self._edges = {
            number: task.inboxes[part.edge]
            for number, part in enumerate(task.body.parts)
            if part.edge is not None
        }
        self._reading = set(self._edges)
        self._read = 0
        self.outputs = self._chain.start(self._input)
        task.meter.enter(self._chain.running)
        for number, one in enumerate(task.exits):
            if one.gate.detached:
                self.leave(number)

    def holds(self, epoch: int) -> bool:
        """Whether nobody can begin `epoch` before this one is done with."""
        return bool(self.left) and (bool(self._reading) or self.epoch < epoch - 1)

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
            chain.cursor.position += count
        read = chain.position
        self._task.meter.items_in += read - self._read
        self._read = read
        return read

    def report(self, error: BaseException) -> Failure:
        """Return the report of `error`, which a stage of this chain or one before it raised."""
        for number, inbox in self._edges.items():
            if inbox.failure is not None and inbox.failure[0] is error:
                return inbox.failure[1]
            if number in self._reading:
                self._chain.cursors[number].position = max(0, inbox.position - 1)
        return Failure.of(error, where=self._chain.where(error, self._task.worker))

    def leave(self, output: int) -> None:
        """Output `output` wants no more of this epoch; with the last one, all generators end."""
        if output not in self.left:
            return
        self.left.discard(output)
        if self.left:
            self._chain.leave(output)
        else:
            self._chain.close()

    def finish_reading(self) -> None:
        """Be done with the epoch at every input. Safe to call twice."""
        self._reading = set()
        last = self.epoch + 1 == self._task.epochs
        inboxes = [] if self._ended else [self._edges[number] for number in sorted(self._edges)]
        for inbox in inboxes:
            inbox.skip_rest()
        for inbox in inboxes:
            inbox.end_epoch(last=last)
        if not self._ended and not self._edges:
            self.advance(0)
        self._ended = True
        if not self.left and not self._counted:
            self._counted = True
            self._task.meter.leave(self._chain.running)

    _ended = False
    _counted = False

    def _input(self, number: int, part: Part, epoch: int) -> Iterator[Any]:
        if part.edge is None:
            assert part.source is not None
            return open_source(part.source, epoch, part.positions)
        inbox = self._edges[number]
        return inbox.epoch() if len(self.left) == 1 else self._follow(number, inbox)

    def _follow(self, number: int, inbox: Inbox) -> Iterator[Any]:
        yield from inbox.epoch()
        self._chain.cursors[number].position = inbox.position
        self._reading.discard(number)
        self._task.waits.tell()
