"""What keeps a run going when its workers die.

Responsible for: `Keeper`, which has the merges of the consumer's process and, at any time, one set
of workers behind them; and which replaces a set of which one has died.

Rules:
- *recovery is resuming*: what the merges have taken says where the stream is (`Start`); all work of
  the run is ended, and begun there once more: by those who live and have let go of it, by others in
  the place of those who have not (see `splitpipe.runtime.reserve`). The merges go on with what they
  make. A stream is a function of its graph: nobody reads anything else than if nobody had died,
  nobody learns of it but from the log and the statistics;
- a death is seen wherever somebody waits for a message, at once; it is acted upon by whoever saw
  it, with the lock held that every merge of this process holds while it does anything but wait;
- work is begun anew when whoever had it is gone or has let go of it: no two do the same at a time.
  When one was killed for want of memory all are gone first: others do not find even less of it;
- when it is enough says `Record`. What ends a run ends it for every reader;
- a worker that is a thread does not die alone: what ends one in a way that nobody foresaw ends the
  run. When processes beside threads are replaced, the threads are, too;
- closing happens at the latest when the loader is collected or the interpreter ends, and only in
  the process that started the workers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from splitpipe.errors import PipelineError, WorkerDied, WorkerStalled
from splitpipe.interrupts import unlocked
from splitpipe.pipeline.plan import Plan, RunOptions, Task
from splitpipe.pipeline.resuming import Resume
from splitpipe.runtime.deaths import Death, Record
from splitpipe.runtime.forsaken import forsaken
from splitpipe.runtime.going_on import going_on
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.ledger import Ledger
from splitpipe.runtime.memory import MemoryWatch
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.reserve import Reserve
from splitpipe.runtime.supervisor import GRACE_S, Beginning, Supervisor
from splitpipe.runtime.team import Team
from splitpipe.runtime.watchdog import Stall, Ward, Watchdog, deadlines
from splitpipe.transport.base import Receiver

__all__ = ["Keeper"]

log = logging.getLogger("splitpipe")

REPLACED_GRACE_S = 0.05
"""How long workers may take to let go of their work when one of them has died: those that wait need
some 2 ms, and run the clean-up of their generators. The stream waits for it; starting another
process takes as long."""

LOOK_S = 0.005
"""How often somebody looks for deaths while messages come faster than they are read."""


class Keeper:
    """Keeps a plan running.

    Args:
        plan: what to run.
        options: how.
        observer: sees it, and is closed with it.
        replan: returns the same plan for another beginning; None: tasks always begin an epoch anew.
    """

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        observer: Observer,
        replan: Callable[[Resume], Plan] | None = None,
    ) -> None:
        self._plan = self._running = plan
        self._replan = replan
        self._options = options
        self._observer = observer
        self._lock = threading.RLock()
        self._course = Course(observer.heading.run, options.epochs, plan.whole.epoch)
        self._pickled: dict[int, bytes] = {}
        self._record = Record(options.restarts, plan.tasks)
        self._memory = MemoryWatch()
        self._heads = _heads(plan.tasks)
        self._pid = os.getpid()
        self._closed = False
        self._error: PipelineError | None = None
        self._old: list[Supervisor] = []
        self._forsaken: frozenset[int] = frozenset()
        self._looked = 0.0
        self._watchdog: Watchdog | None = None
        self.inboxes: tuple[tuple[Inbox, ...], ...] = ()
        """The merges in this process: for each of the plan's locals, one an input."""
        self._owner = Owner()
        self._reserve = Reserve(options, self._owner)
        try:
            beginning = Beginning(self._course, self._owner, self._reserve, pickled=self._pickled)
            self._workers = Supervisor(plan, options, observer, beginning)
        except BaseException:
            self._owner.close()
            observer.close()
            raise
        self.teams: dict[int, Team] = self._workers.teams
        """The workers of tasks, by the number of the task, that may be more or fewer."""
        self._ports: list[_Port] = []
        self.inboxes = tuple(
            tuple(self._inbox(number, region, receiver) for region, receiver in ends)
            for number, ends in enumerate(self._workers.ends)
        )
        observer.begin()
        self._watchdog = self._watch()

    @property
    def closed(self) -> bool:
        """Whether the run is over."""
        return self._closed

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the worker processes that there are now."""
        return self._workers.staff.pids

    def forsake(self, outputs: Collection[int]) -> None:
        """Nobody reads `outputs` any more, all that are not read together."""
        with self._lock:
            self._forsaken = forsaken(self._plan, outputs)
            self._workers.forsake(self._forsaken)

    @property
    def running(self) -> Plan:
        """What is run now: the plan, from where on the workers have begun."""
        return self._running

    @property
    def ledgers(self) -> list[Ledger]:
        """What the workers say of how far they are."""
        return self._workers.ledgers

    def close(self) -> None:
        """End everything. Safe to call twice, and in a forked child, where it does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        if self._watchdog is not None:
            self._watchdog.close()
        # Somebody may be replacing workers, in another thread; not for longer than that takes.
        held = self._lock.acquire(timeout=10 * GRACE_S)
        every = (self._workers, *self._old)
        for workers in every:
            workers.shut()
        if held:
            self._lock.release()  # whoever waits for a message leaves now, and needs it for that
        try:
            self._reserve.dismiss()
            for workers in every:
                workers.close()
        finally:
            self._reserve.close()
            self._owner.close()
            self._observer.close()

    # -- waiting

    def _inbox(self, number: int, region: Region, receiver: Receiver) -> Inbox:
        """Make a merge in the consumer's process."""
        meter = self._observer.meters[number]
        port = _Port(receiver)
        alone = sum(map(len, self._workers.ends)) == 1
        wait = partial(self._wait, port)
        intake = region.intake(receiver, self._course, meter, wait=wait, alone=alone, warn=True)
        port.renew = partial(self._renew, port, intake)
        self._ports.append(port)
        port.inbox = region.inbox(intake, self._course, self._lock)
        return port.inbox

    def _wait(self, port: _Port) -> None:
        """Wait until there may be a message, or until others make it. The lock is held, and let go
        meanwhile.

        Raises:
            WorkerDied: or what else ends the run.
        """
        self._check()
        workers = self._workers
        self._reserve.look()
        spare = self._reserve.watched
        watched = [*workers.staff.watched, *spare] if spare else workers.staff.watched
        workers.waiting += 1
        try:
            arrived = unlocked(self._lock, lambda: port.receiver.wait(watched))
        finally:
            workers.waiting -= 1
        if workers is not self._workers:
            self._bury()
            return
        self._check()
        if arrived:
            self._reserve.arrived()
        # Messages come first. Where they never stop coming, a death must be seen all the same.
        if not self._closed and (not arrived or self._due()):
            dead = workers.staff.gone(self._memory.kills)
            if dead:
                self._recover(dead)
            else:
                self._reserve.look_after()

    def _due(self) -> bool:
        """Whether nobody has looked for deaths for a while."""
        now = time.perf_counter()
        due = now - self._looked > LOOK_S
        if due:
            self._looked = now
        return due

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._workers.death is not None:
            raise WorkerDied(self._workers.death)

    # -- watching

    def _watch(self) -> Watchdog | None:
        limits = [deadlines(task, self._options) for task in self._plan.tasks]
        shortest = min((s for one in limits for s in one or () if s is not None), default=None)
        return None if shortest is None else Watchdog(self._wards, shortest, self._stop)

    def _wards(self) -> Mapping[int, Ward]:
        with self._lock:
            return dict(self._workers.staff.wards)

    def _stop(self, key: int, stall: Stall, still: Callable[[], bool]) -> None:
        """End a worker that is stuck: in the thread of the watchdog."""
        with self._lock:
            ward = self._workers.staff.wards.get(key)
            if self._closed or ward is None or not still():
                return
            log.warning("%s %s. Where it is:\n%s", ward.name, stall.text, stall.stacks)
            if not self._workers.staff.stop_stalled(key, stall):
                self._error = WorkerStalled(
                    f"{ward.name}, a thread, {stall.text}; threads cannot be replaced. Where it "
                    f"was:\n{stall.stacks}"
                )
                self._workers.shut()

    # -- replacing

    def _recover(self, dead: list[Death]) -> None:
        """Replace all workers, or raise why not."""
        since = time.perf_counter()
        self._observer.count_deaths(dead)
        self._error = self._record.note(dead, self._progress()) or self._hindrance(dead)
        if self._error is not None:
            raise self._error
        old = self._workers
        working = {number: team.working for number, team in self.teams.items()}
        # Where memory was wanting, others let go of all that they have.
        recall = 0 if any(death.memory for death in dead) else len(dead)
        old.retire(REPLACED_GRACE_S, recall=recall)
        self._old.append(old)
        self._observer.fold()
        self._running, pickled = self._planned(old)
        beginning = self._beginning(pickled)
        self._workers = Supervisor(self._running, self._options, self._observer, beginning)
        ends = [end for local in self._workers.ends for end in local]
        for port, (region, receiver) in zip(self._ports, ends, strict=True):
            port.renew(region, receiver)
        for number, team in self.teams.items():
            team.renew(self._workers.teams[number], working[number])
        self._reserve.settle()
        self._bury()
        took = 1e3 * (time.perf_counter() - since)
        for death in dead:
            log.warning("%s; replaced after %.0f ms", death.text, took)

    def _planned(self, old: Supervisor) -> tuple[Plan, dict[int, bytes]]:
        """Return what is run from now on, and what of it is pickled already."""
        resume = None
        if self._replan is not None:
            epochs = self._options.epochs
            resume = going_on(self._running, self.inboxes, old.ledgers, epochs)
        if self._replan is None or resume is None:
            return self._plan, self._pickled
        return self._replan(resume), {}

    def _beginning(self, pickled: dict[int, bytes]) -> Beginning:
        """Return from where on other workers have to begin."""
        starts = [(edge, inbox.start()) for edge, inbox in self._edges()]
        epochs = [start.epoch for _, start in starts if start.wanted]
        first = min(epochs, default=self._course.first_epoch)
        self._course = replace(
            self._course, run=int.from_bytes(os.urandom(8), "little"), first_epoch=first
        )
        return Beginning(
            self._course,
            self._owner,
            self._reserve,
            {head: start for edge, start in starts if (head := self._heads[edge]) is not None},
            items=True,
            stages=self._record.suspects,
            pickled=pickled,
            forsaken=self._forsaken,
            accused=dict(self._record.accused),
        )

    def _renew(self, port: _Port, intake: Intake, region: Region, receiver: Receiver) -> None:
        """Let a merge go on with what other workers make."""
        port.receiver = receiver
        arenas = region.readers(warn=True)
        intake.renew(receiver, arenas, run=self._course.run)
        port.inbox.renew(region.grants(self._course))

    def _bury(self) -> None:
        """Let go of what nobody waits on any more."""
        for workers in [one for one in self._old if not one.waiting]:
            self._old.remove(workers)
            workers.bury()

    def _progress(self) -> object:
        """Return how far the run has got."""
        starts = [inbox.start() for _, inbox in self._edges()]
        return tuple((start.epoch, start.covered) for start in starts)

    def _edges(self) -> list[tuple[int, Inbox]]:
        """Return the merges with the edges that they read."""
        pairs = zip(self._plan.locals, self.inboxes, strict=True)
        return [pair for one, inboxes in pairs for pair in zip(one.inputs, inboxes, strict=True)]

    def _hindrance(self, dead: list[Death]) -> PipelineError | None:
        """Return why nobody can be replaced in this graph; None where everybody can."""
        readers = {edge: task for task in self._plan.tasks for edge in task.inputs}
        for task in self._plan.tasks:
            reader = readers.get(task.outputs[0])
            while reader is not None and reader.pool:
                task, reader = reader, readers.get(reader.outputs[0])
            if task.pool and not task.ordered and reader is not None:
                return WorkerDied(
                    f"{dead[0].text}. It cannot be replaced: {reader.name!r}, which runs in a "
                    f"process of its own, reads the items of {task.name!r} as they come "
                    "(ordered=False), and would not get them in the same order again; leave "
                    "ordered=False out, or put such a stage last"
                )
        return None


class _Port:
    """A merge of this process, and where its messages come from now."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.inbox: Inbox
        self.renew: Callable[[Region, Receiver], None]


def _heads(tasks: tuple[Task, ...]) -> dict[int, int | None]:
    """Return, for each edge, the one that the head of its region writes; None where that is a
    source.
    """
    heads: dict[int, int | None] = {}
    for task in tasks:
        for edge in task.outputs:
            if not task.pool:
                heads[edge] = edge
            else:
                heads[edge] = heads[task.inputs[0]] if task.inputs else None
    return heads
