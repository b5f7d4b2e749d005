"""From a graph to tasks: who runs what, and how much may lie between.

Responsible for: `plan`, a pure function: it lets `placing` divide the graph, gives each process its
`Body`, and bounds every edge. It knows nothing of channels or processes.

Rules:
- an edge leads from one task to one reader; a task may have several, and a *pool* has one;
- a pool lies between a *head*, which numbers the units of work, and a *merge*, which puts them in
  order again. No more than ``window`` units are between the two, whatever the workers do;
- a pool over a source with random access takes whole batches where it makes them: they are built
  where they are read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.bodies import Parts, Whole, settled_whole
from splitpipe.pipeline.graph import Body, Graph, Node, make_graph
from splitpipe.pipeline.guarding import with_policies
from splitpipe.pipeline.placing import Group, place, unit_of
from splitpipe.pipeline.resources import DEFAULT, Resources, joined, resources_of
from splitpipe.pipeline.resuming import Resume, bounded, keys_of
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stage import Stage, check_choice, check_seconds, settle_counts
from splitpipe.pipeline.stages import Batch
from splitpipe.pipeline.stages.policy import Policy, policy_of
from splitpipe.pipeline.trace_file import TraceFile

__all__ = ["Local", "Plan", "RunOptions", "Task", "Whole", "plan"]

EXECUTORS = ("inline", "thread", "process", "ray")
TRANSPORTS = ("pipe", "zmq", "zmq+tcp")
START_METHODS = ("forkserver", "spawn", "fork")

ITEM_WINDOW = 64
"""Units between head and merge of a pool whose units are single items or small chunks: what keeps
two workers busy while a slow item holds the order back (a window of 4 loses 16 % on heavy-tailed
work, one of 64 loses 6 %)."""

WARM_NBYTES = 32 << 20
"""What a worker's slots may take before there are only a few of them: about what caches hold."""

PART_SLOTS = 64
"""Slots of a worker whose batches may be made in parts: those are small, and wait for their turn.
Whole batches are few (`WARM_NBYTES`), and no more of them are made ahead than the window says."""

MOST_AHEAD = 64
"""Units that a run may try to have ready ahead of its consumer when it is to find out how many."""

MOST_UNITS = 256
"""Units under way at most, whatever is asked for: the grants must fit into a socket buffer."""


def default_executor() -> str:
    """Return what workers are unless somebody says it: threads where Python runs them side by side
    (a build without the interpreter lock), processes elsewhere.
    """
    locked: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return "process" if locked else "thread"


@dataclass(frozen=True)
class RunOptions:
    """How a pipeline is run; see `Pipeline.loader` for each. Nothing here but `on_error` changes
    what comes out.
    """

    executor: str = field(default_factory=default_executor)
    transport: str = "pipe"
    prefetch: int = 4
    epochs: int | None = 1
    start_method: str | None = None
    arena_bytes: int = 1 << 30
    record: Any = None
    """Where what is delivered is recorded: a folder, or a `splitpipe.recording.Record`."""
    trace: TraceFile | None = None
    on_error: Policy | None = None
    auto_prefetch: bool = False
    """Whether `prefetch` is only where to begin, and the run finds out what pays."""
    restarts: int | None = 3
    deadline_s: float | None = None
    resources: Resources | None = None

    @classmethod
    def of(cls, **options: Any) -> RunOptions:
        """Return the options that a user gave in these words."""
        if options.get("executor", "") is None:
            options = {**options, "executor": default_executor()}
        prefetch = options.get("prefetch")
        if isinstance(prefetch, str) and prefetch == "auto":
            options = {**options, "prefetch": cls.prefetch, "auto_prefetch": True}
        if "on_error" in options:
            options = {**options, "on_error": policy_of(options["on_error"])}
        return cls(**options)

    def __post_init__(self) -> None:
        check_choice("executor", self.executor, EXECUTORS)
        check_choice("transport", self.transport, TRANSPORTS)
        if self.start_method is not None:
            check_choice("start_method", self.start_method, START_METHODS)
        settle_counts(self, prefetch=1, epochs=1, arena_bytes=0, restarts=0)
        check_seconds("deadline_s", self.deadline_s)
        object.__setattr__(self, "resources", resources_of(self.resources))
        object.__setattr__(self, "trace", TraceFile.of(self.trace))


@dataclass(frozen=True)
class Task:
    """What one kind of worker runs, and how many such workers there are.

    Attributes:
        body: the part of the graph that each of them runs.
        inputs: numbers of the edges it reads, in the order of its body's inputs.
        outputs: numbers of the edges it writes, in the order of its body's outputs.
        workers: how many.
        pool: units of work are taken by whichever worker is free.
        ordered: units leave the pool's merge in their order.
        window: units that may be on their way from the head of the region to where this task's
        output is read.
        slots: most slots of shared memory that one worker may have for one output.
        lease_limit: slots of one worker that one reader may keep.
        warm_nbytes: bytes beyond which a worker gets only a few slots; None: as many as said.
        unit: positions that must stay together in the work of a pool that reads its source.
        auto: whether `workers` is the most there may be, and the run finds out how many pay.
        executor: whether the workers are processes, threads of the consumer's process, or actors.
        first: the position with which it begins in the first epoch of the run.
        resources: what each worker has of a cluster, where they are actors.
    """

    body: Body
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    workers: int
    pool: bool = False
    ordered: bool = True
    window: int = 4
    slots: int = 8
    lease_limit: int = 4
    warm_nbytes: int | None = None
    unit: int = 1
    auto: bool = False
    executor: str = "process"
    first: int = 0
    resources: Resources = DEFAULT

    @property
    def name(self) -> str:
        return self.body.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.body.stages

    @property
    def splits(self) -> bool:
        """Whether its batches may be made in parts, which their reader puts together.

        Not where a function of the user's makes the batch, and not where stages of this task come
        behind it: those run in workers, whatever a batch costs. Nor where batches may overtake one
        another: there a slow one holds up nobody.
        """
        last = self.body.parts[self.body.outputs[0]]
        if not self.pool or not self.ordered or self.inputs:
            return False
        if last.stage is None or last.numbered:
            return False
        batch = last.stage.operation
        if not isinstance(batch, Batch) or batch.policy is not None:
            return False
        made = batch.collate is None and batch.size > 1
        return made and not self.body.parts[last.inputs[0]].numbered

    @property
    def positions(self) -> int | None:
        """Of the source it reads; None where it reads none, or only reading tells."""
        heads = self.body.heads
        return self.body.parts[heads[0]].positions if heads else None

    @property
    def together(self) -> int:
        """Positions that a worker should be given at once, of the source that it reads."""
        source = self.body.source
        return source.together if isinstance(source, SequenceSource) and not self.inputs else 1

    @property
    def rest(self) -> tuple[int, int] | None:
        """An epoch in which the source that it reads has fewer positions, and how many: one that
        other ranks have begun. None: there is none.
        """
        source, most = self.body.source, self.positions
        if not isinstance(source, SequenceSource) or source.rest is None or most is None:
            return None
        epoch = source.rest.epoch
        return epoch, min(most, source.span(epoch))


@dataclass(frozen=True)
class Local:
    """What the consumer's process runs for one or several outputs.

    Attributes:
        body: the part of the graph.
        names: of the outputs, in the order of the body's outputs.
        inputs: numbers of the edges it reads, in the order of its body's inputs.
    """

    body: Body
    names: tuple[str, ...]
    inputs: tuple[int, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.body.stages

    @property
    def passes_on(self) -> bool:
        """Whether it gives what it reads to the consumer as it comes."""
        return (
            len(self.body.parts) == 1
            and self.body.parts[0].edge is not None
            and not (self.body.parts[0].numbered)
        )


@dataclass(frozen=True)
class Plan:
    """Tasks, each after those whose output it reads.

    Attributes:
        tasks: in other processes.
        locals: in the consumer's process, after all others.
        edges: how many there are.
        arena_bytes: for all payloads together.
        whole: the graph that it is of, and where its nodes begin.
    """

    tasks: tuple[Task, ...]
    locals: tuple[Local, ...]
    edges: int
    arena_bytes: int
    whole: Whole

    @property
    def arena_limit(self) -> int:
        """Bytes that the arena of one worker may take for one output."""
        return self.arena_bytes // max(1, sum(t.workers * len(t.outputs) for t in self.tasks))


def plan(outputs: Mapping[str, Node], options: RunOptions, resume: Resume | None = None) -> Plan:
    """Return who runs what.

    Args:
        outputs: what to run.
        options: how.
        resume: where to go on; None: the run begins with the first epoch.

    Raises:
        GraphError: the stages cannot be run as they ask to be.
    """
    graph = make_graph(with_policies(outputs, options.on_error))
    keys = keys_of(graph)
    resume = bounded(resume or Resume(), options.epochs)
    inline = options.executor == "inline"
    groups = [] if inline else place(graph, options.executor)
    whole = settled_whole(graph, keys, resume, groups)
    parts = Parts(whole, groups)
    if inline:
        body, _ = parts.body(graph.nodes, graph.outputs.values(), tuple(graph.outputs))
        body = replace(body, resumes=whole.resumes, tagged=False)
        local = Local(body, tuple(graph.outputs))
        return Plan((), (local,), 0, options.arena_bytes, whole)
    made = _Plans(graph, parts, options)
    _check_transport(groups, options)
    for group in groups:
        made.add(group)
    made.finish()
    return Plan(tuple(made.tasks), tuple(made.locals), made.edges, options.arena_bytes, whole)


def _check_transport(groups: list[Group], options: RunOptions) -> None:
    """Actors are joined to their owner's channels, which are those of one machine."""
    if options.transport != "pipe" and any(group.executor == "ray" for group in groups):
        raise GraphError(
            f"transport={options.transport!r} joins processes of one machine; actors "
            "(executor='ray') have a channel of their own between machines: leave transport= out"
        )


class _Plans:
    """Tasks in the making; edges are numbered as they are needed."""

    def __init__(self, graph: Graph, parts: Parts, options: RunOptions) -> None:
        self._graph = graph
        self._parts = parts
        self._options = options
        self._local = Group(workers=0)
        self._writing: dict[Node, int] = {}  # which task a node's readers read it from
        self._outputs: list[list[tuple[int, Node, str]]] = []
        self._groups: list[tuple[Group, dict[Node, int], tuple[int, ...]]] = []
        self._unsent: dict[int, int] = {}
        self.edges = 0
        self.tasks: list[Task] = []
        self.locals: list[Local] = []

    def add(self, group: Group) -> None:
        """Take over one group; those that it reads are here already."""
        if group.workers == 0:
            self._local.nodes += group.nodes
            return
        unsent = {node: self._parts.unsent(node, group) for node in group.inputs()}
        inputs = [self._edge(node, _reading(group, node), unsent[node]) for node in unsent]
        number = len(self._groups)
        for node in group.nodes:
            self._writing[node] = number
        if group.relays is not None:
            self._writing[group.relays] = number
        self._outputs.append([])
        self._groups.append((group, unsent, tuple(inputs)))

    def finish(self) -> None:
        """Give each output what it needs in the consumer's process, and each task its body."""
        for name, end in self._graph.outputs.items():
            nodes = self._upstream(end)
            group = Group(nodes, workers=0)
            outside = group.inputs() if nodes else [end]
            unsent = {node: self._parts.unsent(node, group, name) for node in outside}
            body, read = self._parts.body(nodes, [end], (name,), unsent)
            body = replace(body, resumes=self._parts.whole.resumes, tagged=False)
            edges = tuple(self._edge(node, name, unsent[node]) for node in read)
            self.locals.append(Local(body, (name,), edges))
        for (group, unsent, inputs), written in zip(self._groups, self._outputs, strict=True):
            ends = [node for _, node, _ in written]
            readers = tuple(reader for *_, reader in written)
            body, _ = self._parts.body(group.nodes, ends, readers, unsent)
            outputs = tuple(edge for edge, *_ in written)
            first = 0
            if group.workers == 1:
                drops = tuple(self._unsent[edge] for edge in outputs)
                whole = self._parts.whole
                body = replace(body, resumes=whole.resumes, drops=drops, recovers=whole.recovers)
            else:  # what it begins with is told by what it is given
                parts = (replace(part, start=None, drops=(), least=0) for part in body.parts)
                body = replace(body, parts=tuple(parts))
                first = self._parts.whole.settled.first(group.nodes[0]) if group.claims else 0
            task = _task(group, body, inputs, outputs, self._options)
            self.tasks.append(replace(task, first=first))

    def _edge(self, node: Node, reader: str, unsent: int) -> int:
        """Return the number of a new edge from the task that gives `node` to `reader`, which wants
        nothing of the first `unsent` items.
        """
        number = self.edges
        self.edges += 1
        self._unsent[number] = unsent
        self._outputs[self._writing[node]].append((number, node, reader))
        return number

    def _upstream(self, end: Node) -> list[Node]:
        """The nodes of the consumer's process that `end` depends on, each after its inputs."""
        local = set(self._local.nodes)
        wanted = {end} & local
        for node in reversed(self._local.nodes):
            if node in wanted:
                wanted.update(i for i in node.inputs if i in local)
        return [node for node in self._local.nodes if node in wanted]


def _reading(group: Group, node: Node) -> str:
    """Return which stage of `group` reads `node`."""
    return next((one.name for one in group.nodes if node in one.inputs), node.name)


def _task(
    group: Group,
    body: Body,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    options: RunOptions,
) -> Task:
    workers = group.workers
    pool = workers > 1
    stages = group.stages
    unit = unit_of(stages) if group.claims else 1
    asked = [s.options.capacity for s in stages if s.options.capacity is not None]
    if asked:
        window = min(asked)
    elif not pool:
        window = options.prefetch
    elif unit > 1:
        window = max(options.prefetch, 3 * workers)  # one made, one waiting, one at the reader
    else:
        window = max(options.prefetch, 2 * workers, ITEM_WINDOW)
    if pool and group.claims and not asked and body.source is not None:
        # Units of many positions: fewer of them are as much.
        together = getattr(body.source, "together", 1)
        window = max(options.prefetch, 3 * workers, window // together)
    window = min(window, MOST_UNITS)
    ordered = all(stage.options.ordered for stage in stages)
    # One slot is being written, two may be held by whoever reads, the rest is on its way.
    ahead = max(window, MOST_AHEAD) if options.auto_prefetch and not asked else window
    slots = ahead + 3
    if pool and unit > 1:
        # Whole batches, shared out among the workers: more slots would only be colder ones.
        slots = max(4, ahead // workers + 1)
    # Single items may be anything. A wide window of large ones is memory for nothing; so they get
    # fewer slots, unless the user said how many may be under way.
    warm = WARM_NBYTES if pool and group.claims and not asked and slots > window else None
    task = Task(
        body, inputs, outputs, workers, pool, ordered, window, unit=unit, executor=group.executor
    )
    if pool and group.executor != "ray" and any(stage.options.auto for stage in stages):
        # ZeroMQ deals a head's messages out in turn, also to who has been told to wait.
        task = replace(task, auto=group.claims or not options.transport.startswith("zmq"))
    if group.executor == "ray":
        asked_for = [stage.options.resources for stage in stages]
        task = replace(task, resources=joined(asked_for, options.resources))
    if task.splits:
        slots, warm = PART_SLOTS, WARM_NBYTES
    return replace(task, slots=slots, lease_limit=max(1, slots - 2), warm_nbytes=warm)
