"""From a graph to tasks: who runs what, and how much may lie between.

Responsible for: `plan`, a pure function. It fuses neighbours that share a process, places them,
and bounds every edge. It knows nothing of channels or processes.

Rules:
- a stage with ``workers=n`` begins a task of n processes; a stage without rides with the one
  before it when it can, and stages before the first such stage ride with that one;
- stages that treat each item by itself may have several workers, and so may a batch whose rows are
  known
  beforehand: everything before it, back to a source with random access, keeps counts. The unit of
  work is then whole batches, which are built where they are read;
- everything else needs the stream in order and has one process;
- ``workers=0`` is the consumer's own process, which is the last place an item comes to;
- a pool lies between a *head*, which numbers the units of work, and a *merge*, which puts them in
  order again. No more than ``window`` units are between the two, whatever the workers do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from splitpipe.errors import GraphError
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage, check_count
from splitpipe.pipeline.stages import Batch, Take

__all__ = ["Plan", "RunOptions", "Task", "plan"]

EXECUTORS = ("inline", "process")
TRANSPORTS = ("pipe", "zmq")
START_METHODS = ("forkserver", "spawn", "fork")

ITEM_WINDOW = 64
"""Units between head and merge of a pool whose units are single items or small chunks: what keeps
two workers busy while a slow item holds the order back (a window of 4 loses 16 % on heavy-tailed
work, one of 64 loses 6 %)."""

WARM_NBYTES = 32 << 20
"""What a worker's slots may take before there are only a few of them: about what caches hold."""

MOST_UNITS = 256
"""Units under way at most, whatever is asked for: the grants must fit into a socket buffer."""


@dataclass(frozen=True)
class RunOptions:
    """How a pipeline is run; see `Pipeline.loader` for each. Nothing here changes what comes
    out.
    """

    executor: str = "process"
    transport: str = "pipe"
    prefetch: int = 4
    epochs: int | None = 1
    start_method: str | None = None
    arena_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_choice("executor", self.executor, EXECUTORS)
        _check_choice("transport", self.transport, TRANSPORTS)
        if self.start_method is not None:
            _check_choice("start_method", self.start_method, START_METHODS)
        check_count("prefetch", self.prefetch, least=1)
        check_count("epochs", self.epochs, least=1)
        check_count("arena_bytes", self.arena_bytes, least=0)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise GraphError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class Task:
    """Stages that share a process, and how many such processes there are.

    Attributes:
        stages: what each of them runs, in order.
        workers: how many processes; 0 is the consumer's own.
        pool: units of work are taken by whichever worker is free.
        ordered: units leave the pool's merge in their order.
        window: units that may be on their way from the head of the region to where this task's
        output is read.
        slots: most slots of shared memory that one worker may have.
        lease_limit: slots of one worker that one reader may keep.
        warm_nbytes: bytes beyond which a worker gets only a few slots; None: as many as said.
    """

    stages: tuple[Stage, ...]
    workers: int
    pool: bool = False
    ordered: bool = True
    window: int = 4
    slots: int = 8
    lease_limit: int = 4
    warm_nbytes: int | None = None

    @property
    def name(self) -> str:
        return " > ".join(stage.name for stage in self.stages) or "source"


@dataclass(frozen=True)
class Plan:
    """Tasks in the order in which an item visits them.

    Attributes:
        source: where items come from; read by the first task.
        positions: how many of the source's positions an epoch has; None when only reading tells.
        unit: positions that must stay together in the first task's work.
        tasks: the tasks in other processes.
        local: the stages in the consumer's process, after all others.
    """

    source: Source
    positions: int | None
    unit: int
    tasks: tuple[Task, ...]
    local: tuple[Stage, ...]
    arena_bytes: int

    @property
    def arena_limit(self) -> int:
        """Bytes that the arena of one worker may take."""
        workers = sum(task.workers for task in self.tasks)
        return self.arena_bytes // max(1, workers)


@dataclass(slots=True)
class _Group:
    stages: list[Stage] = field(default_factory=list)
    workers: int = 1


def plan(source: Source, stages: tuple[Stage, ...], options: RunOptions) -> Plan:
    """Return who runs what.

    Raises:
        GraphError: the stages cannot be run as they ask to be.
    """
    stages, positions = _fold_take(source, stages)
    if options.executor == "inline":
        return Plan(source, positions, 1, (), stages, options.arena_bytes)
    groups = _groups(source, stages)
    local: tuple[Stage, ...] = ()
    while groups and groups[-1].workers == 0:
        local = (*groups.pop().stages, *local)
    for number, group in enumerate(groups):
        if group.workers == 0:
            after = [*groups[number + 1 :], _Group(list(local))][0].stages[0]
            raise GraphError(
                f"stage {group.stages[-1].name!r} asks for the consumer's process (workers=0), but "
                f"{after.name!r} after it runs in another one; only the last stages can run in "
                "the consumer's process"
            )
    tasks = [_task(source, group, number == 0, options) for number, group in enumerate(groups)]
    unit = _unit(source, groups[0].stages) if tasks and tasks[0].pool else 1
    return Plan(source, positions, unit, tuple(tasks), local, options.arena_bytes)


def _fold_take(source: Source, stages: tuple[Stage, ...]) -> tuple[tuple[Stage, ...], int | None]:
    """Turn a `take` whose input counts are known into a bound on the source's positions."""
    if not isinstance(source, SequenceSource):
        return stages, None
    positions = len(source)
    unit = 1
    kept: list[Stage] = []
    for number, stage in enumerate(stages):
        if isinstance(stage.operation, Take):
            positions = min(positions, stage.operation.count * unit)
            continue
        ratio = stage.operation.ratio
        if ratio is None:
            return (*kept, *stages[number:]), positions
        if isinstance(stage.operation, Batch) and stage.operation.drop_last and unit > 1:
            # rows of a dropped batch must not be counted again by what follows
            return (*kept, *stages[number:]), positions
        unit *= ratio
        kept.append(stage)
    return tuple(kept), positions


def _groups(source: Source, stages: tuple[Stage, ...]) -> list[_Group]:
    groups = [_leading(source, stages)]
    for stage in stages[len(groups[0].stages) :]:
        workers = stage.options.workers
        if workers is None and _joins(source, groups[-1], stage, len(groups) == 1):
            groups[-1].stages.append(stage)
        else:
            groups.append(_Group([stage], 1 if workers is None else workers))
    if groups[0].workers > 1 and not isinstance(source, SequenceSource):
        groups.insert(0, _Group([], 1))  # one process reads what only one can read
    for number, group in enumerate(groups):
        _check_pool(source, group, number == 0)
    return groups


def _leading(source: Source, stages: tuple[Stage, ...]) -> _Group:
    """The first group: stages before the first one with ``workers=`` ride with it when they can."""
    asked = [n for n, stage in enumerate(stages) if stage.options.workers is not None]
    if not asked:
        return _Group(list(stages), 1)
    first = asked[0]
    workers = stages[first].options.workers
    assert workers is not None
    if first == 0:
        return _Group([stages[0]], workers)
    together = _Group([], workers)
    fits = workers == 1 or (workers > 1 and isinstance(source, SequenceSource))
    for stage in stages[: first + 1]:
        fits = fits and _joins(source, together, stage, True)
        together.stages.append(stage)
    return together if fits else _Group(list(stages[:first]), 1)


def _joins(source: Source, group: _Group, stage: Stage, first: bool) -> bool:
    if group.workers <= 1 or stage.operation.per_item:
        return True
    return _aligned(source, [*group.stages, stage], first)


def _aligned(source: Source, stages: list[Stage], first: bool) -> bool:
    """Whether the inputs of every output are known positions of the source."""
    known = all(stage.operation.ratio is not None for stage in stages)
    partial = [s for s in stages if isinstance(s.operation, Batch) and s.operation.drop_last]
    return first and known and len(partial) <= 1 and isinstance(source, SequenceSource)


def _check_pool(source: Source, group: _Group, first: bool) -> None:
    if group.workers <= 1:
        return
    for number, stage in enumerate(group.stages):
        if stage.operation.per_item or _aligned(source, group.stages[: number + 1], first):
            continue
        raise GraphError(
            f"stage {stage.name!r} needs the whole stream in order and cannot have "
            f"{group.workers} workers; give workers= to the stages before it and leave it out here"
        )


def _unit(source: Source, stages: list[Stage]) -> int:
    unit = 1
    for stage in stages:
        ratio = stage.operation.ratio
        if ratio is None:
            break
        unit *= ratio
    return unit


def _task(source: Source, group: _Group, first: bool, options: RunOptions) -> Task:
    workers = group.workers
    pool = workers > 1
    asked = [s.options.capacity for s in group.stages if s.options.capacity is not None]
    if asked:
        window = min(asked)
    elif not pool:
        window = options.prefetch
    elif first and _unit(source, group.stages) > 1:
        window = max(options.prefetch, 3 * workers)  # one made, one waiting, one at the reader
    else:
        window = max(options.prefetch, 2 * workers, ITEM_WINDOW)
    window = min(window, MOST_UNITS)
    ordered = all(stage.options.ordered for stage in group.stages)
    task = Task(tuple(group.stages), workers, pool, ordered, window)
    # One slot is being written, two may be held by whoever reads, the rest is on its way.
    slots = window + 3
    if pool and first and _unit(source, group.stages) > 1:
        # Whole batches, shared out among the workers: more slots would only be colder ones.
        slots = max(4, window // workers + 1)
    # Single items may be anything. A wide window of large ones is memory for nothing; so they get
    # fewer slots, unless the user said how many may be under way.
    warm = WARM_NBYTES if pool and first and not asked and slots > window else None
    return replace(task, slots=slots, lease_limit=max(1, slots - 2), warm_nbytes=warm)
