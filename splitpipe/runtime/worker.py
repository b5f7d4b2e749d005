"""A worker, from its first line to its last.

Responsible for: `main`, what a child process runs, `stand_by`, what one runs that has nothing to do
yet, and `serve`, what a thread runs; taking its ends of the channels.

Rules:
- a process and a thread do the same, between the same two ends;
- a process ignores Ctrl-C: the owner gets it too, and says what is to happen;
- it does not outlive its owner (see `splitpipe.runtime.owner`);
- whatever goes wrong before the first item is reported like any other failure of a stage;
- importing this module imports no more than a worker needs: the forkserver has it loaded
  beforehand.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import process
from typing import Any

from splitpipe.errors import BrokenChannel, ChannelError, ClosedChannel
from splitpipe.pipeline.allocate import use_allocator
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.stages.globals import Watch
from splitpipe.runtime.blame import Accusations
from splitpipe.runtime.board import Board
from splitpipe.runtime.book import Book, waiting
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.gate import Gate
from splitpipe.runtime.ledger import Ledger
from splitpipe.runtime.metrics import Meter, SharedMeter
from splitpipe.runtime.notes import Notes, Pausing, SharedNotes
from splitpipe.runtime.outbox import Outbox
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.pool import PoolWorker
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.sampling import Sampler
from splitpipe.runtime.seat import Seat
from splitpipe.runtime.standby import Standby
from splitpipe.runtime.start import BEGINNING, Start
from splitpipe.runtime.tasks import Exit, SequentialTask
from splitpipe.runtime.team import Leash
from splitpipe.runtime.trace import TraceLink
from splitpipe.runtime.watchdog import Stacks
from splitpipe.transport.arena import Arena, ArenaLink
from splitpipe.transport.base import Link, Receiver
from splitpipe.transport.envelope import make_packer
from splitpipe.transport.message import NOWHERE
from splitpipe.transport.objects import Shelf
from splitpipe.transport.pickling import load

__all__ = ["ExitSpec", "WorkerSpec", "main", "run_spec", "serve", "stand_by"]


@dataclass(frozen=True, slots=True)
class ExitSpec:
    """One output of a worker.

    Attributes:
        producer: its number in the run; names its arena in messages.
        gate: link on which it is given credits.
        output: link to write to.
        arena: its own; a shelf where its readers are in the same process.
        start: from where on it is wanted.
    """

    producer: int
    gate: Link | None
    output: Link
    arena: ArenaLink | Shelf
    start: Start = BEGINNING


@dataclass(slots=True)
class WorkerSpec:
    """Everything that a worker is given at its start.

    Attributes:
        course: what everybody in the run knows of it.
        row: of the board.
        name: how it is called.
        body: a `Body`, the user's part of it all; pickled for a process that is not forked.
        pool: whether it shares its units with others.
        in_order: whether its units come in their order. A worker that gets them out of order may
            hold the very one that the merge needs before it can give slots back: it must not wait.
        index: its number among the workers of its task.
        regions: what it reads, and merges unless it is one of a pool.
        exits: what it writes.
        board: counters.
        trace: where to draw what it does; None: nowhere.
        owner: the process that it does not outlive.
        seat: what it has of the machine.
        leash: link on which it is told to wait, and to go on; None where it never is.
        ledger: where it lays open how far it is; None where that follows from counts.
        items: whether it notes which item it is at.
        stages: whether it notes which stage runs.
        stacks: where it says where it is, when it is asked; None where nobody asks.
        accused: items that have ended too many workers.
    """

    course: Course
    row: int
    name: str
    body: Any
    pool: bool
    in_order: bool
    index: int
    regions: tuple[Region, ...]
    exits: tuple[ExitSpec, ...]
    board: Board
    trace: TraceLink | None
    owner: Owner | None
    seat: Seat
    leash: Link | None = None
    ledger: Ledger | None = None
    items: bool = False
    stages: bool = False
    stacks: Stacks | None = None
    accused: Accusations = field(default_factory=dict)

    def let_go(self) -> None:
        """Close what came with it, but for `stacks`; in a process that is done with it."""
        for end in self.exits:
            for one in (end.gate, end.output, end.arena):
                if one is not None:
                    one.close()
        for region in self.regions:
            for link in (region.entry, region.back, *region.arenas.values()):
                if link is not None:
                    link.close()
        for other in (self.board, self.board.log, self.trace, self.leash, self.ledger):
            if other is not None:
                other.close()


def main(spec: WorkerSpec, standby: Standby | None = None) -> None:
    """Run one worker to its end, as a process; and then whatever else it is given to do."""
    _begin(spec.owner)
    if standby is None:
        run_spec(spec)
        return
    standby.begin()
    _attend(spec, standby)


def stand_by(owner: Owner, seat: Seat, standby: Standby) -> None:
    """Be a process that is given something to do later."""
    _begin(owner)
    seat.take()
    standby.begin()
    spec = standby.next()
    if spec is not None:
        _attend(spec, standby)


def _begin(owner: Owner | None) -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back while it was started
    if owner is not None:
        owner.die_with()


def _attend(spec: WorkerSpec | None, standby: Standby) -> None:
    """Run one worker after the other, for as long as this process is called back."""
    stacks: Stacks | None = None
    while spec is not None:
        process.current_process().name = f"splitpipe {spec.name}"
        shut = run_spec(spec)
        if stacks is not None:
            stacks.close()
        if not shut or not standby.called():
            return
        # Somebody may still ask where it is: that file stays until there is another.
        stacks = spec.stacks
        spec.let_go()
        spec = None
        if not standby.clean():
            return
        standby.ready()
        spec = standby.next()


def run_spec(spec: WorkerSpec) -> bool:
    """Do one piece of work; returns whether it was broken off, because its channels were shut."""
    if spec.stacks is not None:
        spec.stacks.listen()
    spec.seat.take()
    meter = _meter(spec)
    sampler = Sampler(meter) if len(spec.exits) == 1 else None
    try:
        return _work(spec, meter)
    finally:
        if sampler is not None:
            sampler.close()


def serve(spec: WorkerSpec) -> None:
    """Run one worker to its end, in this thread."""
    meter = _meter(spec, threaded=True)
    try:
        _work(spec, meter)
    finally:
        meter.detach()  # whoever still holds the meter does not hold the board


def _meter(spec: WorkerSpec, *, threaded: bool = False) -> Meter:
    clock = _thread_clock() if threaded else time.process_time
    row, outputs = spec.board.row(spec.row), len(spec.exits)
    meter = Meter(row, clock=clock) if outputs == 1 else SharedMeter(row, threads=outputs)
    if spec.pool and not threaded:
        meter.watch = Watch()  # threads share their generators: none draws what another has drawn
    if not threaded or spec.stages:
        kind = Notes if outputs == 1 else SharedNotes
        meter.notes = kind(row, items=spec.items, stages=spec.stages)
    if spec.trace is not None:
        meter.recorder = spec.trace.recorder(spec.name, spec.row)
    return meter


def _thread_clock() -> Callable[[], float]:
    """Return what tells the CPU seconds of this thread, whichever thread asks."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.thread_time  # macOS
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))


def _work(spec: WorkerSpec, meter: Meter) -> bool:
    """Take the ends of the channels and do it; returns whether that was broken off."""
    doors = [_Door(one, spec, meter) for one in spec.exits]
    receivers = [r.entry.receiver(spec.index) for r in spec.regions if r.entry is not None]
    first = doors[0].outbox
    meter.arenas = [door.arena for door in doors]
    use_allocator(first.allocate)
    shut = False
    try:
        try:
            task = _task(spec, receivers, doors, meter)
        except BaseException as error:
            where = (f"while {spec.name} started",)
            failure = Failure.of(error, where=where)
            first.failed(failure, epoch=0, sequence=NOWHERE, start=0, stop=0)
        else:
            task.run()
        meter.finish()
        for door in doors:
            door.linger()
    except (BrokenChannel, ClosedChannel):
        meter.flush()  # the owner shut it: this is how a run ends
        shut = True
    except Exception as error:
        # Not a stage's doing: a message without room, say. It has no place in the order.
        failure = Failure.of(error, where=(f"in {spec.name}, outside of its stages",))
        with contextlib.suppress(ChannelError):
            first.packer.discard()
            first.failed(failure, epoch=0, sequence=NOWHERE, start=0, stop=0)
        meter.finish()
    finally:
        use_allocator(None)
        for receiver in receivers:
            receiver.close()
        for door in doors:
            door.close()
    return shut


class _Door:
    """This process's ends of one output."""

    def __init__(self, one: ExitSpec, spec: WorkerSpec, meter: Meter) -> None:
        self._one = one
        self._meter = meter
        self.arena: Arena | Shelf = one.arena.writer()
        self._sender = one.output.sender(spec.index)
        packer = make_packer(self.arena, wait=spec.in_order)
        if meter.notes is not None and meter.notes.stages:
            packer.watch(Pausing(meter.notes))
        self.outbox = Outbox(
            self._sender, packer, run=spec.course.run, producer=one.producer, meter=meter
        )

    def exit(self) -> Exit:
        assert self._one.gate is not None
        return Exit(self.outbox, Gate(self._one.gate.receiver(), self._meter), self._one.start)

    def linger(self) -> None:
        """Stay until the run is shut, where leaving earlier would take messages away."""
        if self._one.output.lingers:
            self.arena.wait_for_shut()

    def close(self) -> None:
        self._sender.close()


def _task(
    spec: WorkerSpec, receivers: list[Receiver], doors: list[_Door], meter: Meter
) -> SequentialTask | PoolWorker:
    body: Body = load(spec.body) if isinstance(spec.body, bytes) else spec.body
    intakes = [
        region.intake(receiver, spec.course, meter)
        for region, receiver in zip(spec.regions, receivers, strict=True)
    ]
    meter.intakes = intakes
    book = _book(spec, doors[0].arena, meter)
    if spec.pool:
        leash = None if spec.leash is None else Leash(spec.leash.receiver(), meter)
        outbox = doors[0].outbox
        return PoolWorker(
            body, intakes[0], outbox, worker=spec.name, meter=meter, leash=leash, book=book
        )
    inboxes = [
        region.inbox(intake, spec.course)
        for region, intake in zip(spec.regions, intakes, strict=True)
    ]
    return SequentialTask(
        body,
        [door.exit() for door in doors],
        inboxes,
        epochs=spec.course.epochs,
        worker=spec.name,
        meter=meter,
        first=spec.course.first_epoch,
        ledger=spec.ledger,
        book=book,
    )


def _book(spec: WorkerSpec, arena: Arena | Shelf, meter: Meter) -> Book:
    """Return what the worker writes down; a thread does not wait for another try for longer than
    its run.
    """
    pause = arena.wait_for_shut if isinstance(arena, Shelf) else time.sleep
    noting = spec.items and spec.stages and type(meter.notes) is Notes
    return Book(
        spec.board.log,
        worker=spec.name,
        pause=waiting(meter, pause),
        notes=meter.notes if noting else None,
        accused=spec.accused,
    )
