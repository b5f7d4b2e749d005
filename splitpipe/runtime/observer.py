"""What the owner of a run sees of it, and tells.

Responsible for: the `Observer` of a run: its board, its statistics and diagnosis, its trace, its
lines in the log, and the warning about random numbers that come twice.

Rules:
- looking changes nothing: whatever goes wrong here is no reason for a run to end;
- statistics stay as they were when the run ended;
- it runs in the consumer's thread, a few times a second, when an item arrives; nothing ticks.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import psutil

from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.pipeline.stages.globals import advice
from splitpipe.pipeline.trace_file import TraceFile
from splitpipe.runtime import board as b
from splitpipe.runtime.allowance import allowance
from splitpipe.runtime.board import Board, Heading, Row, TaskHead, row_of
from splitpipe.runtime.book import ErrorLog
from splitpipe.runtime.deaths import Death
from splitpipe.runtime.doctor import Diagnosis, Observation, diagnose
from splitpipe.runtime.machine import CpuTimes, copying_nbytes_s
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.past import Past, fold
from splitpipe.runtime.statistics import TaskStatistics, read, since
from splitpipe.runtime.trace import Recorder, Trace, TraceLink

__all__ = ["Observer", "OwnerMeter", "resident"]

log = logging.getLogger("splitpipe")
log.addHandler(logging.NullHandler())

SLOW_START_S = 5.0
"""A first item that takes longer is worth a warning in the log."""
LOOK_S = 0.05
"""How often counters are drawn and states of generators are compared."""
FAST_NBYTES_S = 5e8
"""From here on the speed of memory may matter, and is measured."""


class OwnerMeter(Meter):
    """The consumer's counters: it has nothing to send, so it tells what it takes."""

    __slots__ = ()

    def take(self) -> None:
        super().take()
        self.publish()


class Observer:
    """Sees a run from its beginning to its end.

    Args:
        heading: of its board; the last tasks are the consumers, one an output, of one row each.
        shared: whether other processes are to write there, and may look.
        trace: where to draw the run; None: nowhere.
        errors: whether items may fail that are left out: their workers tell the first of them.
    """

    def __init__(
        self,
        heading: Heading,
        *,
        shared: bool = True,
        trace: TraceFile | None = None,
        errors: bool = False,
    ) -> None:
        self.heading = replace(heading, started=time.time(), started_at=time.perf_counter())
        self._trace = None if trace is None else Trace.of(trace, self.heading.rows)
        self.board: Board | None = None
        self.log: ErrorLog | None = None
        try:
            self.log = ErrorLog(shared=shared, run=heading.run) if errors else None
            self.board = Board(self.heading) if shared else None
            if self.board is not None:
                self.board.log = self.log
            self.rows = [self._row(number) for number in range(heading.rows)]
        except BaseException:
            for closable in (self.board, self._trace, self.log):
                if closable is not None:
                    closable.close()
            raise
        self._consumers = [
            number for number, task in enumerate(heading.tasks) if task.executor == "consumer"
        ]
        self.meters = [OwnerMeter(row) for row in self.rows[-len(self._consumers) :]]
        self._recorder: Recorder | None = None
        for number, meter in enumerate(self.meters, heading.rows - len(self.meters)):
            meter.on_publish = self._look
            if self._trace is not None:
                meter.recorder = self._recorder = self._trace.link.recorder("consumer", number)
        self._idle = CpuTimes.now()
        self._first: tuple[TaskStatistics, ...] | None = None
        self._looked = 0.0
        self._warned: set[tuple[int, int]] = set()
        self._past: Past = {}
        self._deaths: Counter[int] = Counter()
        self._ended: float | None = None
        self._idle_at_end: float | None = None
        log.info("run %s: %s", self._name, _plan_line(self.heading))

    @property
    def trace(self) -> TraceLink | None:
        """What the workers draw with."""
        return None if self._trace is None else self._trace.link

    def task_rows(self) -> list[list[Row]]:
        """Return the rows of each task, the consumer's last."""
        return [[self.rows[n] for n in numbers] for _, numbers in self.heading.split()]

    def begin(self) -> None:
        """All workers were started: from now on the consumer can do something."""
        for meter in self.meters:
            meter.begin()

    def count_deaths(self, dead: Iterable[Death]) -> None:
        """Take note of workers that died."""
        for death in dead:
            self._deaths[death.task] += 1

    def fold(self) -> None:
        """All workers are to be replaced: keep what they counted, and let their rows be as new."""
        self._past = fold(self.heading, self.rows, self._past, now=time.perf_counter())

    def statistics(self, output: int = 0, *, rss: bool = True) -> tuple[TaskStatistics, ...]:
        """Return what every task did so far, the consumer of an output last.

        Args:
            output: which.
            rss: whether to ask the system for the memory of each worker.
        """
        tasks = self._read(rss=rss)
        return (*tasks[: self._consumers[0]], tasks[self._consumers[output]])

    def doctor(
        self, output: int = 0, *, earlier: Sequence[TaskStatistics] | None = None
    ) -> Diagnosis:
        """Return what holds an output back: since `earlier`, or since the first item came."""
        tasks = self.statistics(output, rss=False)
        startup = 0.0
        if earlier is None:
            startup = self._startup_s(tasks)
            earlier = self._at_first(output)
        if earlier is not None:
            tasks = since(tasks, earlier)
        elapsed = tasks[-1].elapsed_s - (startup if earlier is None else 0.0)
        nbytes = max(task.nbytes for task in tasks)
        fast = elapsed > 0 and nbytes / elapsed > FAST_NBYTES_S
        return self._with_deaths(
            diagnose(
                Observation(
                    tasks=tasks,
                    elapsed_s=max(0.0, elapsed),
                    startup_s=startup,
                    cpus=allowance().cores,
                    idle_cpus=self._idle_cpus,
                    copied_nbytes_s=copying_nbytes_s() if fast else None,
                )
            )
        )

    def _with_deaths(self, diagnosis: Diagnosis) -> Diagnosis:
        """Add to the evidence that workers died: each costs what is made again."""
        count = sum(self._deaths.values())
        if not count:
            return diagnosis
        said = "1 worker died and was" if count == 1 else f"{count} workers died and were"
        return replace(diagnosis, evidence=f"{diagnosis.evidence} ({said} replaced: see the log.)")

    def errors(self) -> tuple[FailedItem, ...]:
        """Return the first items of every stage that failed and were left out."""
        return () if self.log is None else self.log.read()

    def close(self) -> None:
        """The run is over: keep the numbers, give the memory back. Safe to call twice, and when
        making it failed.
        """
        if self._ended is not None:
            return
        for meter in self.meters:
            meter.finish()
        self._idle_at_end = self._idle_cpus
        self._ended = time.perf_counter()
        # A mapping holds a descriptor: keep the numbers, not the memory.
        self.rows = [memoryview(bytes(row)).cast("d") for row in self.rows]
        for meter in self.meters:
            meter.detach()
        if self.board is not None:
            self.board.close()
        if self._trace is not None:
            self._trace.close()
        if self.log is not None:
            self.log.close()
        log.info("run %s: %s", self._name, _totals_line(self._read(rss=False)))
        self._compare_draws()

    # -- now and then

    def _look(self, now: float) -> None:
        if self._first is None and any(meter.units_in for meter in self.meters):
            self._first = self._read(rss=False)
            self._idle = CpuTimes.now()
            self._log_first()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if self._recorder is not None:
            for task in self._read(rss=False)[: self._consumers[0]]:
                self._recorder.counter(f"queued: {task.name}", now, {"messages": task.queued})
        self._compare_draws()

    def _row(self, number: int) -> Row:
        if self.board is not None:
            return self.board.row(number)
        return row_of(self.heading)

    def _read(self, *, rss: bool) -> tuple[TaskStatistics, ...]:
        """Return what every task did so far, all consumers included."""
        for meter in self.meters:
            meter.write()
        now = self._ended or time.perf_counter()
        memory = resident(self.rows) if rss and self._ended is None else None
        tasks = read(self.heading, self.rows, now=now, rss=memory, past=self._past)
        if not self._deaths:
            return tasks
        deaths = self._deaths
        return tuple(replace(task, deaths=deaths[number]) for number, task in enumerate(tasks))

    def _at_first(self, output: int) -> tuple[TaskStatistics, ...] | None:
        """Return what every task had done when the first item came."""
        if self._first is None:
            return None
        return (*self._first[: self._consumers[0]], self._first[self._consumers[output]])

    def _log_first(self) -> None:
        tasks = self._first or ()
        first = self._startup_s(tasks)
        starts = [task.start_s for task in tasks if task.start_s is not None]
        text = "run %s: first item after %.2f s, workers at work after %.2f s"
        level = logging.WARNING if first > SLOW_START_S else logging.INFO
        if first > SLOW_START_S:
            text += ": a slow start; they import what the main script imports"
        log.log(level, text, self._name, first, min(max(starts, default=0.0), first))

    def _startup_s(self, tasks: Sequence[TaskStatistics]) -> float:
        """Seconds until the first item; until now before it has come."""
        if self._first is not None:
            return self._first[-1].elapsed_s
        return tasks[-1].elapsed_s

    @property
    def _idle_cpus(self) -> float | None:
        if self._ended is not None:
            return self._idle_at_end
        return CpuTimes.now().idle_since(self._idle)

    @property
    def _name(self) -> str:
        return f"{self.heading.run & 0xFFFFFFFF:08x}"

    def _compare_draws(self) -> None:
        """Warn where two workers drew the same numbers from a process-wide generator."""
        for number, (task, rows) in enumerate(self.heading.split()):
            for place, generator in enumerate(b.GENERATORS, b.DRAWN):
                if len(rows) < 2 or (number, place) in self._warned:
                    continue
                workers: dict[float, list[int]] = {}
                for worker, row in enumerate(rows):
                    workers.setdefault(self.rows[row][place], []).append(worker)
                workers.pop(0.0, None)
                same = next((found for found in workers.values() if len(found) > 1), None)
                if same is not None:
                    self._warned.add((number, place))
                    text = advice(task.name, generator, same)
                    warnings.warn(text, RuntimeWarning, stacklevel=2)


def resident(rows: Iterable[Row]) -> dict[int, int]:
    """Return how many bytes the workers of `rows` have in memory, by process id."""
    found = {}
    for pid in {int(row[b.PID]) for row in rows if row[b.PID] > 0}:
        with contextlib.suppress(psutil.Error):
            found[pid] = int(psutil.Process(pid).memory_info().rss)
    return found


def _plan_line(heading: Heading) -> str:
    tasks = ", ".join(f"{task.name} ({_who(task)})" for task in heading.tasks)
    options = ", ".join(f"{name}={value}" for name, value in heading.options.items())
    return tasks + (f"; {options}" if options else "")


def _who(task: TaskHead) -> str:
    if task.executor == "consumer":
        return "this process"
    kind = "actor" if task.executor == "ray" else task.executor
    plural = "es" if kind == "process" else "s"
    return f"{task.workers} {kind}{plural if task.workers > 1 else ''}"


def _totals_line(tasks: Sequence[TaskStatistics]) -> str:
    consumers = [task for task in tasks if task.workers == 0]
    workers = [task for task in tasks if task.workers > 0]
    items = sum(task.items_in for task in consumers)
    nbytes = sum(tasks[number].nbytes for task in consumers for number in task.reads)
    dropped = sum(task.dropped for task in tasks)
    cpu = sum(task.cpu_s for task in workers)
    waited = sum(task.wait_input_s for task in consumers)
    skipped = sum(task.skipped for task in tasks)
    left_out = f" {skipped:,} failed and left out;" if skipped else ""
    return (
        f"ended after {tasks[-1].elapsed_s:.2f} s with {items:,} items, {nbytes / 1e6:,.1f} MB; "
        f"{dropped:,} dropped;{left_out} {cpu:.2f} s of CPU in workers; the loop waited "
        f"{waited:.2f} s for items"
    )
