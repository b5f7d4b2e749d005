"""The workers of a run, as their owner sees them.

Responsible for: making links and arenas after a plan, having the workers started, and ending
everything, in whatever way it ends. A supervisor has one set of workers: who replaces them all by
others makes another (see `splitpipe.runtime.keeper`).

Rules:
- what cannot travel is found out before anything starts;
- an edge whose ends are all in this process carries objects; any other carries messages and slots;
- `close` is quick and certain: links are shut, which wakes every worker wherever it waits; who has
  not left after `GRACE_S` is killed, a thread left to itself;
- what another thread may still wait on is let go of when it does not any more (`bury`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from splitpipe.errors import ChannelError, WorkerDied
from splitpipe.pipeline.plan import Plan, RunOptions, Task
from splitpipe.runtime.blame import Accusations
from splitpipe.runtime.board import Board
from splitpipe.runtime.capture import tells
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.ledger import Ledger
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.parts import splitting
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.reserve import Reserve
from splitpipe.runtime.seats import seats
from splitpipe.runtime.staff import THREAD_GRACE_S, Post, Staff
from splitpipe.runtime.start import BEGINNING, Start
from splitpipe.runtime.starting import pickled_body, refuse_import_of_main
from splitpipe.runtime.team import Team
from splitpipe.runtime.threads import warn_of
from splitpipe.runtime.watchdog import Stacks, deadlines
from splitpipe.runtime.worker import ExitSpec, WorkerSpec
from splitpipe.transport.arena import ArenaLink
from splitpipe.transport.base import Link, Receiver
from splitpipe.transport.links import make_link
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import NEVER, NOWHERE, Credit, Failed, encode
from splitpipe.transport.objects import Shelf
from splitpipe.transport.pipe import PipeLink
from splitpipe.transport.slot import Bounds

__all__ = ["Beginning", "Supervisor"]

GRACE_S = 0.4
"""How long a worker may take to leave; its generators' clean-up runs in this time."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """From where on a set of workers is to go on.

    Attributes:
        course: of the run.
        owner: by whom workers know that this process is there.
        reserve: processes that need not be started.
        starts: by the number of the edge that a head writes; edges that are not there begin with
            the course.
        items: whether workers note which item they are at.
        stages: whether they note which stage runs.
        pickled: what tasks run, as it travels, by their number; kept for the next time.
        forsaken: edges that nobody reads any more.
        accused: items that have ended too many workers, and are to be left out.
    """

    course: Course
    owner: Owner
    reserve: Reserve
    starts: Mapping[int, Start] = field(default_factory=dict)
    items: bool = False
    stages: bool = False
    pickled: dict[int, bytes] = field(default_factory=dict)
    forsaken: frozenset[int] = frozenset()
    accused: Accusations = field(default_factory=dict)


class Supervisor:
    """Starts the tasks of a plan and keeps an eye on them.

    Args:
        plan: what to run.
        options: how.
        observer: sees it.
        beginning: from where on.
    """

    def __init__(
        self, plan: Plan, options: RunOptions, observer: Observer, beginning: Beginning
    ) -> None:
        self._threaded = all(task.executor == "thread" for task in plan.tasks)
        if not self._threaded:
            refuse_import_of_main()
        self._plan = plan
        self._options = options
        self._observer = observer
        self._beginning = beginning
        self._course = beginning.course
        self._links: list[Link] = []
        self._arenas: list[ArenaLink | Shelf] = []
        self.staff = Staff(options, self._note_death, beginning.reserve)
        """Its workers."""
        self.ledgers: list[Ledger] = []
        """What the workers say of how far they are."""
        self._seats = seats(plan.tasks)
        self._receivers: list[Receiver] = []
        self._entries: list[MemoryLink] = []
        self._gates: dict[int, Link] = {}  # of the edges that a task of one worker writes to
        self._files: list[Stacks] = []
        self._retired = self._buried = False
        self.death: str | None = None
        """What ended a worker that is a thread: those are not replaced."""
        self.waiting = 0
        """How many threads of this process wait for its workers now."""
        self.ends: tuple[tuple[tuple[Region, Receiver], ...], ...] = ()
        """What this process reads: for each of the plan's locals, one an input."""
        self.teams: dict[int, Team] = {}
        """The workers of tasks, by the number of the task, that may be more or fewer."""
        try:
            assert observer.board is not None
            self._start(self._specs(observer.board))
        except BaseException:
            self.close()
            raise

    def shut(self) -> None:
        """Wake everybody who waits on what joins the workers: nothing comes any more."""
        for channel in (*self._links, *self._arenas):
            channel.shut()

    def retire(self, grace_s: float = GRACE_S, *, recall: int = 0) -> None:
        """End all workers; who waits for them in this process is woken. Safe to call twice.

        Args:
            grace_s: how long they may take to leave.
            recall: how many of them are dead, where those that are not go into the reserve.
        """
        if self._retired:
            return
        self._retired = True
        if recall:
            self.staff.call_back()
        self.shut()
        if recall:
            self._beginning.reserve.prepare(recall)
        left = (self.staff.recall if recall else self.staff.join)(grace_s)
        warn_of(left, THREAD_GRACE_S)

    def bury(self) -> None:
        """Let go of what its workers were joined by. Safe to call twice."""
        if self._buried:
            return
        self._buried = True
        for receiver in self._receivers:
            receiver.close()
        for file in self._files:
            file.close()
        for channel in (*self._links, *self._arenas):
            channel.close()
        for ledger in self.ledgers:
            ledger.close()

    def close(self) -> None:
        """End everything. Safe to call twice."""
        try:
            self.retire()
        finally:
            self.bury()

    # -- building

    def _specs(self, board: Board) -> list[WorkerSpec]:
        """Return what each worker is given, and make the consumer's ends."""
        tasks, plan = self._plan.tasks, self._plan
        pickled = [self._pickled(number, task) for number, task in enumerate(tasks)]
        readers = {edge: task for task in tasks for edge in task.inputs}
        regions: dict[int, Region] = {}
        specs: list[WorkerSpec] = []
        producers = count()
        for task, body in zip(tasks, pickled, strict=True):
            before = tuple(regions.pop(edge) for edge in task.inputs)
            if task.pool and not before:
                before = (self._claimed(task),)
            links = [self._link(task, readers.get(edge)) for edge in task.outputs]
            gates = [None if task.pool else self._gate(edge) for edge in task.outputs]
            made: list[WorkerSpec] = []
            for index in range(task.workers):
                exits = tuple(
                    ExitSpec(next(producers), gate, link, self._arena(task, link), self._from(edge))
                    for edge, link, gate in zip(task.outputs, links, gates, strict=True)
                )
                made.append(self._spec(task, index, len(specs) + index, body, before, exits, board))
            specs += made
            for number, edge in enumerate(task.outputs):
                ends = [spec.exits[number] for spec in made]
                arenas = {end.producer: end.arena for end in ends}
                regions[edge] = (
                    before[0].after(task, links[number], arenas)
                    if task.pool
                    else Region(
                        links[number],
                        gates[number],
                        task.window,
                        branched=len(links) > 1 or any(region.branched for region in before),
                        first=self._first(task, number),
                        arenas=arenas,
                    )
                )
        self.ends = tuple(
            tuple(self._end(regions[edge]) for edge in local.inputs) for local in plan.locals
        )
        return specs

    def forsake(self, edges: Collection[int]) -> None:
        """Tell those who write to `edges` that nobody will read on."""
        never = encode(Credit(self._course.run, 0, NEVER, 0, 0, stop=1))
        for edge in edges:
            if edge in self._gates:
                with contextlib.suppress(ChannelError):  # the run is over
                    self._gates[edge].sender().send([never])

    def _gate(self, edge: int) -> Link:
        """Make the link on which the writer of `edge` is told to go on."""
        self._gates[edge] = self._control()
        if edge in self._beginning.forsaken:
            self.forsake((edge,))
        return self._gates[edge]

    def _from(self, edge: int) -> Start:
        """Return from where on what is written to `edge` is wanted."""
        begun = replace(BEGINNING, epoch=self._course.first_epoch)
        return self._beginning.starts.get(edge, begun)

    def _first(self, task: Task, number: int) -> int:
        """Return the number of the first value that `task` gives as its output `number`."""
        body = task.body
        if body.resumes is None or body.resumes != self._course.first_epoch:
            return 0
        start = body.parts[body.outputs[number]].start
        dropped = body.drops[number] if body.drops else 0
        return dropped + (start.first if start is not None else 0)

    def _claimed(self, task: Task) -> Region:
        """Return the region that begins with the positions of the source of `task`."""
        claims = self._control()
        return Region(
            claims,
            claims,
            task.window,
            positions=task.positions,
            rest=task.rest,
            first=task.first if self._course.first_epoch == self._plan.whole.epoch else 0,
            unit=task.unit,
            together=task.together,
            splitting=splitting(task),
        )

    def _spec(
        self,
        task: Task,
        index: int,
        row: int,
        body: Any,
        before: tuple[Region, ...],
        exits: tuple[ExitSpec, ...],
        board: Board,
    ) -> WorkerSpec:
        timed = deadlines(task, self._options) is not None
        return WorkerSpec(
            course=self._course,
            row=row,
            name=f"worker {index} of {task.name}",
            body=body,
            pool=task.pool,
            in_order=not task.pool or not task.inputs,
            index=index,
            # Who does not merge tells no head to go on.
            regions=tuple(replace(region, back=None) if task.pool else region for region in before),
            exits=exits,
            board=board,
            trace=self._observer.trace,
            owner=self._beginning.owner,
            seat=self._seats[row],
            leash=self._control() if task.auto else None,
            ledger=None if task.pool or not tells(task.body) else self._ledger(),
            items=self._beginning.items,
            stages=self._beginning.stages or timed,
            stacks=self._stacks() if timed else None,
            accused=self._beginning.accused,
        )

    def _stacks(self) -> Stacks:
        self._files.append(Stacks())
        return self._files[-1]

    def _ledger(self) -> Ledger:
        self.ledgers.append(Ledger())
        return self.ledgers[-1]

    def _end(self, region: Region) -> tuple[Region, Receiver]:
        """Return what the consumer's process needs for a merge."""
        assert region.entry is not None
        receiver = region.entry.receiver()
        self._receivers.append(receiver)
        if isinstance(region.entry, MemoryLink):
            self._entries.append(region.entry)
        return region, receiver

    def _arena(self, task: Task, link: Link) -> ArenaLink | Shelf:
        """Make the place for what one worker sends over `link`."""
        limit = self._plan.arena_limit
        arena: ArenaLink | Shelf
        if isinstance(link, MemoryLink):
            arena = Shelf(limit if task.warm_nbytes is None else min(limit, task.warm_nbytes))
        else:
            arena = ArenaLink(Bounds(limit, task.slots, task.lease_limit, task.warm_nbytes))
        self._arenas.append(arena)
        return arena

    def _control(self) -> Link:
        """Make a link for grants: a message goes to who is free first. ZeroMQ deals them out."""
        link = MemoryLink(capacity=1 << 16) if self._threaded else PipeLink()
        self._links.append(link)
        return link

    def _link(self, task: Task, reader: Task | None) -> Link:
        """Make the link of an edge from `task` to `reader`, or to the consumer."""
        here = all(one is None or one.executor == "thread" for one in (task, reader))
        transport = "memory" if here else self._options.transport
        readers = 1 if reader is None else reader.workers
        link = make_link(transport, writers=task.workers, readers=readers)
        self._links.append(link)
        return link

    def _pickled(self, number: int, task: Task) -> Any:
        """Return what the workers of a task run; pickled unless they are forked, or threads."""
        away = task.executor == "ray"
        if task.executor == "thread" or (self._options.start_method == "fork" and not away):
            return task.body
        pickled = self._beginning.pickled
        if number not in pickled:
            pickled[number] = pickled_body(task.body, by_value=away)
        return pickled[number]

    # -- starting

    def _start(self, specs: list[WorkerSpec]) -> None:
        tasks = [(n, task) for n, task in enumerate(self._plan.tasks) for _ in range(task.workers)]
        rows = self._observer.rows
        every = [
            Post(spec, task, number, rows[spec.row])
            for spec, (number, task) in zip(specs, tasks, strict=True)
        ]
        self.staff.start([one for one in every if one.spec.index == 0 or one.spec.leash is None])
        for number, _ in enumerate(self._plan.tasks):
            mine = [one for one in every if one.number == number and one.spec.leash is not None]
            if mine:
                leashes = [one.spec.leash for one in mine if one.spec.leash is not None]
                start = [partial(self.staff.start, [one]) for one in mine]
                self.teams[number] = Team(start, leashes, run=self._course.run)

    def _note_death(self, name: str, error: BaseException) -> None:
        """Called in a thread that ends as none should: the consumer is woken to tell it."""
        self.death = f"{name}, a thread, ended with {type(error).__qualname__}: {error}"
        report = Failure.of(WorkerDied(self.death), where=()).encode()
        message = Failed(self._course.run, 0, 0, NOWHERE, 0, 0, nbytes=len(report))
        with contextlib.suppress(ChannelError):
            for entry in self._entries:
                entry.sender().send([encode(message), report])
        if not self._entries:  # it only feeds processes; the consumer looks when it is woken
            for link in self._links:
                link.shut()
