"""The workers of a run, as their owner sees them.

Responsible for: making links and arenas after a plan, starting the workers, noticing their death,
and ending everything, in whatever way it ends.

Rules:
- what cannot travel is found out before anything starts;
- an edge whose ends are all in this process carries objects; any other carries messages and slots;
- processes start before threads: what is forked holds no lock of a thread;
- a worker may leave when it has done its work or when the run was shut; any other leave is its
  death, and is told at once to whoever waits;
- `close` is quick and certain: links are shut, which wakes every worker wherever it waits; who has
  not left after `GRACE_S` is killed, a thread left to itself. No worker holds anything that its
  death could break;
- closing happens at the latest when the loader is collected or the interpreter ends, and only in
  the process that started the workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing import connection, forkserver, process
from multiprocessing.context import BaseContext
from typing import Any

from splitpipe.errors import ChannelError, NotPicklable, PipelineError, WorkerDied
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.plan import Plan, RunOptions, Task
from splitpipe.runtime.board import Board, Row
from splitpipe.runtime.capture import tells
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.ledger import Ledger
from splitpipe.runtime.metrics import Meter, finished, started
from splitpipe.runtime.observer import Observer
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.parts import splitting
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.seats import seats
from splitpipe.runtime.team import Team
from splitpipe.runtime.threads import WorkerThread, join_all, warn_of
from splitpipe.runtime.worker import ExitSpec, WorkerSpec, main, serve
from splitpipe.transport.arena import ArenaLink
from splitpipe.transport.base import Link, Receiver
from splitpipe.transport.links import make_link
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import NOWHERE, Failed, encode
from splitpipe.transport.objects import Shelf
from splitpipe.transport.pickling import dump_description
from splitpipe.transport.pipe import PipeLink
from splitpipe.transport.slot import Bounds

__all__ = ["Supervisor"]

GRACE_S = 0.4
"""How long a worker may take to leave; its generators' clean-up runs in this time."""

THREAD_GRACE_S = 1.0
"""How long a thread may take, which cannot be killed: only one in user code needs that."""


class Supervisor:
    """Starts the tasks of a plan and keeps an eye on them.

    Args:
        plan: what to run.
        options: how.
        observer: sees it, and is closed with it.
    """

    def __init__(self, plan: Plan, options: RunOptions, observer: Observer) -> None:
        self._threaded = all(task.executor == "thread" for task in plan.tasks)
        if not self._threaded:
            _refuse_import_of_main()
        self._plan = plan
        self._options = options
        self._observer = observer
        self._course = Course(observer.heading.run, options.epochs, plan.whole.epoch)
        self._links: list[Link] = []
        self._arenas: list[ArenaLink | Shelf] = []
        self._processes: list[tuple[Any, Task, int, Row]] = []
        self._threads: list[WorkerThread] = []
        self.ledgers: list[Ledger] = []
        """What the workers say of how far they are."""
        self._watched: list[int] = []
        self._seats = seats(plan.tasks)
        self._receivers: list[Receiver] = []
        self._entries: list[MemoryLink] = []
        self._closed = False
        self._pid = os.getpid()
        self._owner: Owner | None = None
        self._death: str | None = None
        self.inboxes: tuple[tuple[Inbox, ...], ...] = ()
        """The merges in this process: for each of the plan's locals, one an input."""
        self.teams: dict[int, Team] = {}
        """The workers of tasks, by the number of the task, that may be more or fewer."""
        try:
            self._owner = Owner()
            assert observer.board is not None
            self._start(self._specs(observer.board))
            observer.begin()
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the run is over."""
        return self._closed

    def close(self) -> None:
        """End everything. Safe to call twice, and in a forked child, where it does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        channels: list[Link | ArenaLink | Shelf] = [*self._links, *self._arenas]
        for channel in channels:
            channel.shut()
        left = self._join()
        for receiver in self._receivers:
            receiver.close()
        for channel in channels:
            channel.close()
        for ledger in self.ledgers:
            ledger.close()
        if self._owner is not None:
            self._owner.close()
        self._observer.close()
        warn_of(left, THREAD_GRACE_S)

    # -- building

    def _specs(self, board: Board) -> list[WorkerSpec]:
        """Return what each worker is given, and make the consumer's ends."""
        tasks, plan = self._plan.tasks, self._plan
        pickled = [self._pickled(task) for task in tasks]
        readers = {edge: task for task in tasks for edge in task.inputs}
        regions: dict[int, Region] = {}
        specs: list[WorkerSpec] = []
        producers = count()
        for task, body in zip(tasks, pickled, strict=True):
            before = tuple(regions.pop(edge) for edge in task.inputs)
            if task.pool and not before:
                before = (self._claimed(task),)
            links = [self._link(task, readers.get(edge)) for edge in task.outputs]
            gates = [None if task.pool else self._control() for _ in links]
            made: list[WorkerSpec] = []
            for index in range(task.workers):
                exits = tuple(
                    ExitSpec(next(producers), gate, link, self._arena(task, link))
                    for link, gate in zip(links, gates, strict=True)
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
                        arenas=arenas,
                    )
                )
        self.inboxes = tuple(
            tuple(self._inbox(regions[edge], meter) for edge in local.inputs)
            for local, meter in zip(plan.locals, self._observer.meters, strict=True)
        )
        return specs

    def _claimed(self, task: Task) -> Region:
        """Return the region that begins with the positions of the source of `task`."""
        claims = self._control()
        return Region(
            claims,
            claims,
            task.window,
            positions=task.positions,
            first=task.first,
            rest=task.rest,
            unit=task.unit,
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
            owner=self._owner,
            seat=self._seats[row],
            leash=self._control() if task.auto else None,
            ledger=None if task.pool or not tells(task.body) else self._ledger(),
        )

    def _ledger(self) -> Ledger:
        self.ledgers.append(Ledger())
        return self.ledgers[-1]

    def _inbox(self, region: Region, meter: Meter) -> Inbox:
        """Make a merge in the consumer's process."""
        assert region.entry is not None
        receiver = region.entry.receiver()
        self._receivers.append(receiver)
        if isinstance(region.entry, MemoryLink):
            self._entries.append(region.entry)
        intake = region.intake(
            receiver, self._course, meter, wait=partial(self._wait, receiver), warn=True
        )
        return region.inbox(intake, self._course)

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

    def _pickled(self, task: Task) -> Any:
        """Return what the workers of a task run; pickled unless they are forked, or threads."""
        stays = task.executor == "thread" or self._options.start_method == "fork"
        return task.body if stays else _pickled(task.body)

    # -- processes and threads

    def _start(self, specs: list[WorkerSpec]) -> None:
        tasks = [(task, i) for task in self._plan.tasks for i in range(task.workers)]
        rows = self._observer.rows
        every = [(spec, one, rows[spec.row]) for spec, one in zip(specs, tasks, strict=True)]
        self._start_some([one for one in every if one[0].index == 0 or one[0].leash is None])
        for number, task in enumerate(self._plan.tasks):
            mine = [one for one in every if one[1][0] is task and one[0].leash is not None]
            if mine:
                leashes = [spec.leash for spec, *_ in mine if spec.leash is not None]
                start = [partial(self._start_some, [one]) for one in mine]
                self.teams[number] = Team(start, leashes, run=self._course.run)

    def _start_some(self, some: list[tuple[WorkerSpec, tuple[Task, int], Row]]) -> None:
        processes = [one for one in some if one[1][0].executor == "process"]
        if processes:
            self._start_processes(processes)
        for spec, (task, _), _ in some:
            if task.executor == "thread":
                worker = WorkerThread(partial(serve, spec), spec.name, self._note_death(spec.name))
                self._threads.append(worker)
                worker.start()

    def _start_processes(self, every: list[tuple[WorkerSpec, tuple[Task, int], Row]]) -> None:
        context: Any = _context(self._options.start_method)
        # A worker that is being started inherits the mask: it leaves when the run is shut, without
        # a traceback of its own. The fork server would hand it on to processes that are not ours.
        deferred = {signal.SIGINT} if context.get_start_method() != "forkserver" else set()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, deferred)
        try:
            for spec, (task, index), row in every:
                worker: Any = context.Process(
                    target=main, args=(spec,), name=f"splitpipe {spec.name}"
                )
                try:
                    worker.start()
                except (EOFError, ConnectionError) as error:
                    raise PipelineError(
                        "the process that starts the workers died at its start; is the main script "
                        "guarded with `if __name__ == '__main__':`? Its own error stands above"
                    ) from error
                self._processes.append((worker, task, index, row))
                self._watched.append(worker.sentinel)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def _wait(self, receiver: Receiver) -> None:
        """Wait for a message; tell the death of a worker instead if one dies."""
        self._tell_death()
        if receiver.wait(self._watched):
            self._tell_death()
            return
        for worker, task, index, row in self._processes:
            if worker.sentinel not in self._watched or worker.exitcode is None:
                continue
            self._watched.remove(worker.sentinel)
            if not finished(row):
                self._death = _obituary(worker, task, index, began=started(row))
                self._tell_death()

    def _tell_death(self) -> None:
        if self._death is not None:
            raise WorkerDied(self._death)

    def _note_death(self, name: str) -> Callable[[BaseException], None]:
        """Return what a thread calls that ends as none should: the consumer is woken to tell it."""

        def note(error: BaseException) -> None:
            self._death = f"{name}, a thread, ended with {type(error).__qualname__}: {error}"
            report = Failure.of(WorkerDied(self._death), where=()).encode()
            message = Failed(self._course.run, 0, 0, NOWHERE, 0, 0, nbytes=len(report))
            with contextlib.suppress(ChannelError):
                for entry in self._entries:
                    entry.sender().send([encode(message), report])
            if not self._entries:  # it only feeds processes; the consumer looks when it is woken
                for link in self._links:
                    link.shut()

        return note

    def _join(self) -> list[WorkerThread]:
        """Wait for the workers to leave, and kill those that do not; return the threads left."""
        deadline = time.monotonic() + GRACE_S
        waiting = {worker.sentinel: worker for worker, *_ in self._processes}
        while waiting:
            timeout_s = max(0.0, deadline - time.monotonic())
            ready = connection.wait(list(waiting), timeout=timeout_s)
            for sentinel in ready:
                waiting.pop(sentinel)
            if not ready:
                break
        for worker in waiting.values():
            worker.kill()
        left = join_all(self._threads, THREAD_GRACE_S)
        self._threads.clear()
        for worker, *_ in self._processes:
            worker.join()
            worker.close()
        self._processes.clear()
        return left


def _pickled(body: Body) -> bytes:
    """Pickle the work of a task, or say which of its stages cannot travel."""
    try:
        return dump_description(body)
    except NotPicklable:
        for stage in body.stages:
            try:
                dump_description(stage)
            except NotPicklable as error:
                raise NotPicklable(
                    f"stage {stage.name!r} cannot travel to a worker process: {error}"
                ) from error
        raise NotPicklable(
            "the source cannot travel to a worker process; pass a function that opens it there, "
            "or start_method='fork'"
        ) from None


def _context(method: str | None) -> BaseContext:
    if method is None:
        available = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in available else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        server = getattr(forkserver, "_forkserver", None)
        wanted: list[str] = list(getattr(server, "_preload_modules", ["__main__"]))
        if main.__module__ not in wanted:
            # What every worker would import: once is enough. What is not there is passed over.
            context.set_forkserver_preload([*wanted, main.__module__, "threadpoolctl"])
    return context


def _refuse_import_of_main() -> None:
    if getattr(process.current_process(), "_inheriting", False):
        raise PipelineError(
            "a loader was started while a worker process imports the main script; put the code "
            "that runs it below `if __name__ == '__main__':`"
        )


def _obituary(worker: Any, task: Task, index: int, *, began: bool) -> str:
    code = worker.exitcode
    if code < 0:
        try:
            how = f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"was killed by signal {-code}"
        if -code == signal.SIGKILL:
            how += " (out of memory?)"
        elif -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
            how += " (a fault in native code that a stage calls)"
    else:
        how = f"left with exit status {code}"
    text = f"worker {index} of stage {task.name!r} (pid {worker.pid}) {how}"
    if not began:
        text += (
            " before it could begin; its own error stands above. Is the main script guarded with "
            "`if __name__ == '__main__':`?"
        )
    return text
