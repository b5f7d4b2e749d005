"""A worker process, from its first line to its last.

Responsible for: `main`, what a child process runs; taking its ends of the channels; its death with
its owner.

Rules:
- it ignores Ctrl-C: the owner gets it too, and says what is to happen;
- it does not outlive its owner: a thread waits on the owner's pidfd, whatever user code is doing
  meanwhile;
- whatever goes wrong before the first item is reported like any other failure of a stage;
- importing this module imports no more than a worker needs: the forkserver has it loaded
  beforehand.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from dataclasses import dataclass
from multiprocessing import process
from typing import Any

from splitpipe.errors import BrokenChannel, ChannelError, ClosedChannel
from splitpipe.pipeline.allocate import use_allocator
from splitpipe.pipeline.source import Source
from splitpipe.pipeline.stage import Stage
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.metrics import Board, Meter
from splitpipe.runtime.outbox import Outbox
from splitpipe.runtime.pool import PoolWorker
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.tasks import Gate, SequentialTask
from splitpipe.transport.anonymous import Descriptor
from splitpipe.transport.arena import ArenaLink
from splitpipe.transport.base import Link, Receiver
from splitpipe.transport.envelope import Packer
from splitpipe.transport.message import NOWHERE
from splitpipe.transport.pickling import load

__all__ = ["Work", "WorkerSpec", "main"]

ORPHANED = 70
"""Exit status of a worker whose owner is gone."""


@dataclass(frozen=True, slots=True)
class Work:
    """What travels pickled: the user's part of a task."""

    stages: tuple[Stage, ...]
    source: Source | None


@dataclass(slots=True)
class WorkerSpec:
    """Everything that a worker is given at its start.

    Attributes:
        course: what everybody in the run knows of it.
        producer: number of this worker in the run; names its arena in messages.
        name: how it is called.
        work: a `Work`, pickled unless the process is forked.
        pool: whether it shares its units with others.
        in_order: whether its units come in their order. A worker that gets them out of order may
            hold the very one that the merge needs before it can give slots back: it must not wait.
        index: its number among the workers of its task.
        region: what it reads, and merges unless it is one of a pool.
        gate: link on which it is given credits.
        output: link to write to.
        arena: its own.
        board: counters; its row is `producer`.
        owner: pidfd of the owner, where there are such.
    """

    course: Course
    producer: int
    name: str
    work: Any
    pool: bool
    in_order: bool
    index: int
    region: Region
    gate: Link | None
    output: Link
    arena: ArenaLink
    board: Board
    owner: Descriptor | None


def main(spec: WorkerSpec) -> None:
    """Run one worker to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back while it was started
    _die_with_owner(spec.owner)
    meter = Meter(spec.board.row(spec.producer))
    arena = spec.arena.writer()
    packer = Packer(arena, wait=spec.in_order)
    sender = spec.output.sender(spec.index)
    outbox = Outbox(sender, packer, run=spec.course.run, producer=spec.producer, meter=meter)
    entry = spec.region.entry
    receiver = entry.receiver(spec.index) if entry is not None else None
    use_allocator(outbox.allocate)
    try:
        try:
            task = _task(spec, receiver, outbox, meter)
        except BaseException as error:
            where = (f"while worker {spec.name} started",)
            failure = Failure.of(error, where=where)
            outbox.failed(failure, epoch=0, sequence=NOWHERE, start=0, stop=0)
        else:
            task.run()
        meter.finish()
        if spec.output.lingers:
            arena.wait_for_shut()
    except (BrokenChannel, ClosedChannel):
        pass  # the owner shut it: this is how a run ends
    except Exception as error:
        # Not a stage's doing: a message without room, say. It has no place in the order.
        failure = Failure.of(error, where=(f"in worker {spec.name}, outside of its stages",))
        with contextlib.suppress(ChannelError):
            outbox.packer.discard()
            outbox.failed(failure, epoch=0, sequence=NOWHERE, start=0, stop=0)
        meter.finish()
    finally:
        use_allocator(None)
        if receiver is not None:
            receiver.close()
        sender.close()


def _task(
    spec: WorkerSpec, receiver: Receiver | None, outbox: Outbox, meter: Meter
) -> SequentialTask | PoolWorker:
    work: Work = load(spec.work) if isinstance(spec.work, bytes) else spec.work
    intake = None
    if receiver is not None:
        intake = spec.region.intake(receiver, spec.course, meter)
    if spec.pool:
        assert intake is not None
        return PoolWorker(
            work.stages, intake, outbox, source=work.source, worker=spec.name, meter=meter
        )
    inbox = spec.region.inbox(intake, spec.course) if intake is not None else None
    assert spec.gate is not None
    return SequentialTask(
        work.stages,
        outbox,
        Gate(spec.gate.receiver(), meter),
        source=work.source,
        positions=spec.course.positions,
        inbox=inbox,
        epochs=spec.course.epochs,
        worker=spec.name,
        meter=meter,
    )


def _die_with_owner(owner: Descriptor | None) -> None:
    """Leave at once when the owner is gone. What it held in shared memory goes with the last who
    maps it.
    """
    if owner is not None:
        sentinel = owner.fd
    else:  # no pidfd on this system; multiprocessing has a pipe for it
        parent = process.parent_process()
        if parent is None:
            return
        sentinel = parent.sentinel

    def watch() -> None:
        poll = select.poll()
        poll.register(sentinel, select.POLLIN)
        poll.poll()
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="splitpipe-owner-watch", daemon=True).start()
