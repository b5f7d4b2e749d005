"""What rows of a board say, as records.

Responsible for: `TaskStatistics` and `StageStatistics`, making them from rows, and the difference
of two of them.

Rules:
- times are seconds, summed over a task's workers; a wait that is still going on counts up to now;
- a record is a value: reading it costs the pipeline nothing, and it stays as it is;
- numbers that nobody measured are None, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from splitpipe.pipeline.stages.mixing import mixing
from splitpipe.pipeline.stages.padding import padding_waste
from splitpipe.runtime import board as b
from splitpipe.runtime.board import Heading, Row, TaskHead

if TYPE_CHECKING:
    from splitpipe.pipeline.telling import RankStatistics

__all__ = ["StageStatistics", "TaskStatistics", "read", "running_s", "since", "summarise"]


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """What one stage of a task did so far.

    Attributes:
        name: of the stage; ``source`` and ``read`` are where items come from.
        busy_s: time in its own code, from samples; 0 where nobody samples.
        share: of the task's busy time, from samples; None before there are any.
        dropped: items that it left out on purpose.
        skipped: items that it left out because they failed (``on_error``), those among them that
            were quarantined.
        retried: how often it tried an item again.
        quarantined: items that it wrote down in a quarantine.
        measured: what else its operation counts, by name; sums.
        ranks: of a source that is dealt out to ranks, what this one has; else None.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(9)).shuffle(9).loader(executor="inline") as loader:
        ...     items = list(loader)
        ...     stages = {stage.name: stage for stage in loader.stats()[-1].stages}
        >>> 0 < stages["shuffle(9)"].mixing <= 1
        True
    """

    name: str
    busy_s: float = 0.0
    share: float | None = None
    dropped: int = 0
    measured: Mapping[str, float] = field(default_factory=dict)
    ranks: RankStatistics | None = None
    skipped: int = 0
    retried: int = 0
    quarantined: int = 0

    @property
    def mixing(self) -> float | None:
        """How well a `shuffle` stage shuffles, from 0 (the order was kept) to 1 (as good as
        uniform); None for other stages, and before there is anything to go by. Method and source:
        `splitpipe.pipeline.stages.mixing`.
        """
        made = mixing(self.measured)
        return None if math.isnan(made) else made

    @property
    def padding_waste(self) -> float | None:
        """Which part of the batches of `bucket`, `batch_by_cost` or `pack` is padding; None for
        other stages.
        """
        if not self.measured.get("padded"):
            return None
        return padding_waste(self.measured)


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """What one task did so far, all its workers together; times are in seconds, summed over the
    workers.

    Attributes:
        name: the stages, in order.
        workers: processes; 0 is the consumer's own.
        items_in, items_out: what it took and what it gave on.
        dropped: what its stages left out on purpose (`filter`, ``drop_last``).
        running_s: since its workers started.
        wait_input_s: with nothing to do.
        wait_output_s: with nowhere to put what it had made.
        nbytes: what it sent, messages and payloads.
        messages: how many messages that took.
        wait_memory_s: the part of `wait_output_s` in which no slot of shared memory was free.
        elapsed_s: since the run began, or the length of the interval.
        cpu_s: CPU time of its workers; of the whole process, the consumer's too.
        starved_s: for which its workers could have run and had no CPU; 0 where the system (not
            Linux) or the executor (threads) does not tell.
        rss_nbytes: resident memory of its workers now, the shared memory that they have touched
            included; None where it was not asked for.
        queued: units of work (messages) that it has sent and that their reader has not yet taken.
        arena_slots, arena_nbytes, arena_limit: shared memory that its workers have, and may have.
        arena_refused: how often something travelled without a slot because there was none.
        copies: payloads that were copied for this task because it kept too many.
        start_s: from the beginning of the run until all its workers were at work; None before.
        first_s: until it had its first unit of work; None before, and for a task that reads a
            source alone.
        stages: what its stages did, the source first where the task reads one.
        executor: ``process``, ``thread``, or ``consumer``.
        reads: numbers of the tasks whose output it reads, counted as they stand in
            `Loader.stats`.
        divisible: whether it could have more workers than it has.
        deaths: workers of it that died; all were replaced. What was then made once more counts once
            more.

    Example:
        >>> import splitpipe as sp
        >>> odd = sp.Pipeline(range(10)).filter(lambda x: x % 2)
        >>> with odd.loader(executor="inline") as loader:
        ...     items = list(loader)
        ...     consumer = loader.stats()[-1]
        >>> consumer.items_in, consumer.dropped
        (10, 5)
    """

    name: str
    workers: int
    items_in: int
    items_out: int
    dropped: int
    running_s: float
    wait_input_s: float
    wait_output_s: float
    nbytes: int
    messages: int
    wait_memory_s: float = 0.0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    starved_s: float = 0.0
    rss_nbytes: int | None = None
    queued: int = 0
    arena_slots: int = 0
    arena_nbytes: int = 0
    arena_limit: int = 0
    arena_refused: int = 0
    copies: int = 0
    start_s: float | None = None
    first_s: float | None = None
    stages: tuple[StageStatistics, ...] = field(default=())
    executor: str = "process"
    reads: tuple[int, ...] = ()
    divisible: bool = False
    deaths: int = 0

    @property
    def skipped(self) -> int:
        """Items that its stages left out because they failed (``on_error``)."""
        return sum(stage.skipped for stage in self.stages)

    @property
    def busy_s(self) -> float:
        """Time that went into the work itself."""
        return max(0.0, self.running_s - self.wait_input_s - self.wait_output_s)

    @property
    def rate(self) -> float:
        """Items a second that it gave on."""
        return self.items_out / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def cpu_s_per_gb(self) -> float | None:
        """What 10^9 bytes cost in seconds of CPU; None where no bytes were sent."""
        return self.cpu_s / (self.nbytes / 1e9) if self.nbytes else None

    @property
    def utilisation(self) -> float:
        """The share of its workers' time that was work; 1 is a task that holds the others back."""
        return self.busy_s / self.running_s if self.running_s > 0 else 0.0

    @property
    def overhead(self) -> float | None:
        """The share of its busy time in none of its stages: packing, sending, receiving."""
        shares = [stage.share for stage in self.stages if stage.share is not None]
        return max(0.0, 1.0 - sum(shares)) if shares else None


def summarise(
    head: TaskHead,
    rows: Sequence[Row],
    *,
    now: float,
    began: float = 0.0,
    rss_nbytes: int | None = None,
    past: Sequence[Row] = (),
) -> TaskStatistics:
    """Return what the workers of one task did together until `now`, of a run that `began`, with the
    `past` of those that they replaced.
    """
    total = [sum(column) for column in zip(*rows, *past, strict=True)]
    started = [row for row in rows if row[b.STARTED_AT] > 0]
    running = running_s(rows, now) + sum(row[b.RUNNING] for row in past)
    waits = [_waiting(rows, state, now) for state in range(4)]
    first = [row[b.FIRST_AT] for row in (*rows, *past) if row[b.FIRST_AT] > 0]
    last = max(row[b.STARTED_AT] for row in rows)
    consumer = head.executor == "consumer"
    return TaskStatistics(
        name=head.name,
        workers=0 if consumer else head.workers,
        items_in=int(total[b.ITEMS_IN]),
        items_out=int(total[b.ITEMS_IN if consumer else b.ITEMS_OUT]),
        dropped=int(total[b.DROPPED]),
        running_s=max(0.0, running),
        wait_input_s=total[b.WAIT_INPUT] + waits[b.WAITS_FOR_INPUT],
        wait_output_s=total[b.WAIT_OUTPUT] + waits[b.WAITS_FOR_OUTPUT] + waits[b.WAITS_FOR_MEMORY],
        nbytes=int(total[b.NBYTES]),
        messages=int(total[b.MESSAGES]),
        wait_memory_s=total[b.WAIT_MEMORY] + waits[b.WAITS_FOR_MEMORY],
        elapsed_s=max(0.0, now - began),
        cpu_s=total[b.CPU],
        starved_s=total[b.STARVED],
        rss_nbytes=rss_nbytes,
        queued=int(total[b.UNITS_OUT]),
        arena_slots=int(total[b.ARENA_SLOTS]),
        arena_nbytes=int(total[b.ARENA_NBYTES]),
        arena_limit=int(total[b.ARENA_LIMIT]),
        arena_refused=int(total[b.ARENA_REFUSED]),
        copies=int(total[b.COPIES]),
        start_s=last - began if len(started) == len(rows) else None,
        first_s=min(first) - began if first else None,
        stages=_stages(head, total),
        executor=head.executor,
        reads=head.reads,
        divisible=head.divisible,
    )


def read(
    heading: Heading,
    rows: Sequence[Row],
    *,
    now: float,
    rss: Mapping[int, int] | None = None,
    past: Mapping[int, Row] | None = None,
) -> tuple[TaskStatistics, ...]:
    """Return what every task of a board did until `now`.

    Args:
        heading: of the board.
        rows: all of them.
        now: on the clock of the rows.
        rss: resident bytes by process id, where they were asked for.
        past: what workers counted that were replaced, by the number of their row.
    """
    past = past or {}
    tasks = []
    taken: dict[int, float] = {}
    for head, numbers in heading.split():
        mine = [rows[number] for number in numbers]
        resident = None if rss is None else sum(rss.get(int(row[b.PID]), 0) for row in mine)
        earlier = [past[number] for number in numbers if number in past]
        made = summarise(
            head, mine, now=now, began=heading.started_at, rss_nbytes=resident, past=earlier
        )
        tasks.append(made)
        units = sum(row[b.UNITS_IN] for row in (*mine, *earlier))
        for writer in head.reads:
            # Who reads several cannot say which of them a unit came from: they share alike.
            alone = len(head.reads) == 1
            taken[writer] = taken.get(writer, 0.0) + (units if alone else tasks[writer].queued)
    # The process of the consumer is that of its threads too.
    in_threads = sum(task.cpu_s for task in tasks if task.executor == "thread")
    return tuple(
        replace(
            task,
            queued=max(0, int(task.queued - taken.get(number, task.queued))),
            cpu_s=task.cpu_s if task.workers else max(0.0, task.cpu_s - in_threads),
        )
        for number, task in enumerate(tasks)
    )


_SUMS = (
    *("items_in", "items_out", "dropped", "running_s", "wait_input_s", "wait_output_s", "nbytes"),
    *("messages", "wait_memory_s", "elapsed_s", "cpu_s", "starved_s", "arena_refused", "copies"),
    "deaths",
)


def since(
    later: Iterable[TaskStatistics], earlier: Iterable[TaskStatistics]
) -> tuple[TaskStatistics, ...]:
    """Return what the same tasks did between two looks at them.

    Never less than nothing: workers that took the places of others have begun to count anew.

    Example:
        >>> before = TaskStatistics("f", 1, 10, 10, 0, 1.0, 0.5, 0.0, 0, 1, elapsed_s=1.0)
        >>> after = TaskStatistics("f", 1, 40, 40, 0, 3.0, 0.5, 0.0, 0, 4, elapsed_s=3.0)
        >>> (task,) = since([after], [before])
        >>> task.items_out, task.rate, task.busy_s
        (30, 15.0, 2.0)
    """
    return tuple(_difference(new, old) for new, old in zip(later, earlier, strict=True))


def _difference(later: TaskStatistics, earlier: TaskStatistics) -> TaskStatistics:
    changed = {name: max(0, getattr(later, name) - getattr(earlier, name)) for name in _SUMS}
    busy = [
        max(0.0, new.busy_s - old.busy_s)
        for new, old in zip(later.stages, earlier.stages, strict=True)
    ]
    overhead = max(0.0, _overhead_s(later) - _overhead_s(earlier))
    whole = sum(busy) + overhead
    stages = tuple(
        replace(
            new,
            busy_s=busy_s,
            share=busy_s / whole if whole > 0 else None,
            dropped=new.dropped - old.dropped,
            skipped=new.skipped - old.skipped,
            retried=new.retried - old.retried,
            quarantined=new.quarantined - old.quarantined,
            measured={
                name: value - old.measured.get(name, 0.0) for name, value in new.measured.items()
            },
        )
        for new, old, busy_s in zip(later.stages, earlier.stages, busy, strict=True)
    )
    return replace(later, stages=stages, **changed)


def _overhead_s(task: TaskStatistics) -> float:
    """Sampled seconds in none of the stages."""
    shares = sum(stage.share or 0.0 for stage in task.stages)
    inside = sum(stage.busy_s for stage in task.stages)
    return inside / shares - inside if shares > 0 else 0.0


def running_s(rows: Iterable[Row], now: float) -> float:
    """Return for how long the workers of `rows` have been running, together."""
    started = (row for row in rows if row[b.STARTED_AT] > 0)
    return sum((row[b.FINISHED_AT] or now) - row[b.STARTED_AT] for row in started)


def _waiting(rows: Sequence[Row], state: int, now: float) -> float:
    """How long the workers that wait in `state` have been doing so."""
    waiting = [row for row in rows if row[b.STATE] == state and row[b.FINISHED_AT] == 0]
    return sum(max(0.0, now - row[b.STATE_SINCE]) for row in waiting)


def _stages(head: TaskHead, total: Sequence[float]) -> tuple[StageStatistics, ...]:
    first = [b.FIELDS + number * b.STAGE_FIELDS for number in range(len(head.stages))]
    seconds = [total[start + b.STAGE_SECONDS] for start in first]
    whole = sum(seconds) + total[b.OVERHEAD]
    return tuple(
        StageStatistics(
            name=stage.name,
            busy_s=busy_s,
            share=busy_s / whole if whole > 0 else None,
            dropped=int(total[start + b.STAGE_DROPPED]),
            skipped=int(total[start + b.STAGE_SKIPPED]),
            retried=int(total[start + b.STAGE_RETRIED]),
            quarantined=int(total[start + b.STAGE_QUARANTINED]),
            measured={
                name: total[start + b.STAGE_MEASURES + place]
                for place, name in enumerate(stage.measures[: b.MEASURES])
            },
        )
        for stage, start, busy_s in zip(head.stages, first, seconds, strict=True)
    )
