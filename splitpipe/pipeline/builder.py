"""`Pipeline`: the description of a graph, built one stage at a time.

Responsible for: the methods that a user calls to describe his work, and for refusing early what
can never run.

Rules:
- a pipeline is an immutable value: every method returns a new one and leaves the old one usable;
- describing opens nothing, starts nothing and calls no user code;
- running belongs to `splitpipe.outputs`, which registers itself here with `set_runner`, so that
  this room needs to know nothing of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, Unpack, cast

from splitpipe.errors import GraphError
from splitpipe.pipeline.dealing import share
from splitpipe.pipeline.explain import explain
from splitpipe.pipeline.graph import Node, common_seed, unique_names, walk
from splitpipe.pipeline.guarding import guarded_source
from splitpipe.pipeline.loading import LoaderOptions
from splitpipe.pipeline.methods import FlowMethods, GroupMethods, ItemMethods, RankMethods
from splitpipe.pipeline.plan import Plan, RunOptions, plan
from splitpipe.pipeline.source import FactorySource, SequenceSource, Source, make_source
from splitpipe.pipeline.stage import Stage, StageOptions, check_count
from splitpipe.pipeline.stages import (
    Batch,
    Cache,
    Join,
    Operation,
    Repeat,
    Shard,
    Shuffle,
    Skip,
    Take,
)
from splitpipe.pipeline.stages.fingerprint import fingerprint
from splitpipe.pipeline.stages.policy import Policy
from splitpipe.pipeline.trace_file import TraceFile

if TYPE_CHECKING:
    from splitpipe.loader import Loader

__all__ = ["Pipeline", "set_runner"]


class _Runner(Protocol):
    def __call__(
        self,
        outputs: Mapping[str, Pipeline],
        options: RunOptions,
        states: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Loader]: ...


class _Teller(Protocol):
    def __call__(self, plan: Plan, options: RunOptions) -> str: ...


_runner: _Runner | None = None
_teller: _Teller = explain


def set_runner(runner: _Runner, teller: _Teller = explain) -> None:
    """Say what turns a description into a running loader, and what tells a plan, with all that is
    known where it is run. For `splitpipe.outputs`.
    """
    global _runner, _teller
    _runner, _teller = runner, teller


@dataclass(frozen=True, init=False, repr=False)
class Pipeline(ItemMethods, GroupMethods, FlowMethods, RankMethods):
    """A lazy description of where items come from and what happens to them.

    Args:
        source: a Sequence (a dataset, a range, a list): random access, any order; or a function
            without arguments that returns an iterable, called anew for every epoch; or an object
            that can be iterated repeatedly.
        shuffle: None for the order of the source, ``"global"`` for a permutation of everything in
            O(1) memory, ``"binwise"`` for bins in random order and records in random order inside
            each (datasets only).
        seed: the stream is a pure function of the data, the stages, `seed` and the epoch.
        window: how many bins a binwise order mixes at a time.
        lanes: into how many stretches the records are cut, each with an order of its own, which are
            read side by side. Where the number of ranks divides it, a rank reads its own lanes
            alone, in every epoch: what many machines fetch from afar. See ``docs/ranks.md``.
        on_error: what becomes of records that cannot be read, of a source with random access:
            ``"raise"``, ``"skip"``, or a policy (`splitpipe.skip`, `splitpipe.retry`,
            `splitpipe.quarantine`); None: as the source says that was opened with one, or else as
            the loader says.

    Raises:
        GraphError: the source cannot be used, or cannot be shuffled as asked.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(10)).map(lambda x: x * x).filter(lambda x: x % 2).batch(2)
        >>> [batch.tolist() for batch in pipe]
        [[1, 9], [25, 49], [81]]
        >>> pipe
        Pipeline(range(0, 10)) > map(<lambda>) > filter(<lambda>-2) > batch(2)
    """

    node: Node

    def __init__(
        self,
        source: object,
        *,
        shuffle: str | None = None,
        seed: int = 0,
        window: int = 1,
        lanes: int = 1,
        on_error: Policy | str | None = None,
    ) -> None:
        seed = check_count("seed", seed, least=0)
        window = check_count("window", window, least=1)
        lanes = check_count("lanes", lanes, least=1)
        made = make_source(source, shuffle=shuffle, seed=seed, window=window, lanes=lanes)
        # What was opened with a policy of its own (``open_raw``) has it here, too.
        policy = getattr(source, "on_error", None) if on_error is None else on_error
        made = guarded_source(made, policy)
        object.__setattr__(self, "node", Node(source=made, seed=seed))

    @property
    def source(self) -> Source:
        """Where items come from; the first such place where there are several."""
        return next(node.source for node in walk([self.node]) if node.source is not None)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, each after those that it reads, by the names that they have in this graph."""
        nodes = walk([self.node])
        names = unique_names(nodes)
        stages = ((node.stage, names.get(node)) for node in nodes)
        return tuple(replace(stage, name=name) for stage, name in stages if stage and name)

    def loader(
        self,
        *,
        executor: str | None = None,
        transport: str = "pipe",
        prefetch: int | Literal["auto"] = 4,
        epochs: int | None = 1,
        start_method: str | None = None,
        arena_bytes: int = 1 << 30,
        trace: str | os.PathLike[str] | TraceFile | None = None,
        state: Mapping[str, Any] | None = None,
        **more: Unpack[LoaderOptions],
    ) -> Loader:
        """Run the pipeline: return an iterator and context manager over its items.

        Args:
            executor: what workers are, for the stages that do not say it themselves; None:
                processes, or threads on a Python without the interpreter lock.
                ``"process"``: each has an interpreter of its own. ``"thread"``: they share this
                one: for work that lets the interpreter lock go while it lasts (decoding, reading,
                numpy on large arrays). Nothing is pickled, a run starts at once, without a main
                guard. ``"ray"``: they are actors of a Ray cluster, on any of its nodes (see
                docs/ray.md). ``"inline"`` (for all stages, whatever they say): everything here, one
                item at a time: the meaning of the pipeline, and the place for a debugger.
            transport: what carries messages between processes: ``"pipe"`` (Unix socket pairs),
                ``"zmq"`` or ``"zmq+tcp"`` (ZeroMQ); payloads lie in shared memory either way.
            prefetch: batches, or chunks of small items, that may lie ready ahead of the consumer;
                ``"auto"`` begins with 4 and makes it more while that pays.
            epochs: how many times to go through the source; None for ever.
            start_method: ``"forkserver"`` (default where it exists), ``"spawn"`` or ``"fork"``.
            arena_bytes: most shared memory that the payloads of all workers may take together.
            trace: a file, or a `TraceFile`, to draw the run into, for ui.perfetto.dev.
            state: what `Loader.state_dict` returned, of a loader of this graph: go on from there.
            more: what guards and records the run: see `LoaderOptions`.

        Raises:
            GraphError: the options or the stages cannot be run.
            ResumeError: the state is of another graph. NotPicklable: a stage cannot travel.
        """
        options = RunOptions.of(
            executor=executor,
            transport=transport,
            prefetch=prefetch,
            epochs=epochs,
            start_method=start_method,
            arena_bytes=arena_bytes,
            trace=trace,
            **more,
        )
        return start({"": self}, options, None if state is None else {"": state})[""]

    def explain(self, **options: Any) -> str:
        """Return the plan in words, for the same options that `loader` takes."""
        made = RunOptions.of(**options)
        return _teller(plan({"": self.node}, made), made)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader(executor="inline"))

    def __len__(self) -> int:
        """Return the items of one epoch, where they can be known without running.

        Raises:
            TypeError: only running the pipeline tells.
        """
        lengths: dict[Node, int] = {}
        for node in walk([self.node]):
            lengths[node] = _length(node, [lengths[one] for one in node.inputs])
        return lengths[self.node]

    def __repr__(self) -> str:
        nodes = walk([self.node])
        names = unique_names(nodes)
        texts: dict[Node, str] = {}
        for node in nodes:
            inputs: list[str] = []
            for one in node.inputs:
                inputs.append(texts[one])
                texts[one] = names.get(one, texts[one])  # when it is read once more, by its name
            texts[node] = _text(node, names.get(node, ""), inputs)
        return texts[self.node]

    def _with(
        self,
        operation: Operation,
        name: str | None = None,
        options: StageOptions = StageOptions(),  # noqa: B008  a frozen value
        others: Iterable[Any] = (),
    ) -> Self:
        stage = Stage(operation, name or operation.label, options)
        return cast(Self, joined(stage, [self, *others]))

    def _fingerprint(self) -> str:
        nodes = walk([self.node])
        numbers = {node: number for number, node in enumerate(nodes)}
        names = unique_names(nodes)
        return fingerprint(
            [
                (
                    names.get(node),
                    node.source if node.stage is None else node.stage.operation,
                    [numbers[one] for one in node.inputs],
                )
                for node in nodes  # what decides the items, not how stages are run
            ],
            common_seed(nodes),
        )

    def _branch(self, label: Any, begin: Any) -> tuple[Operation, ...]:
        if begin is None:
            return ()
        first = pipeline_of(Node(source=FactorySource(_nothing, f"branch {label!r}")))
        made = begin(first) if callable(begin) else begin
        if not isinstance(made, Pipeline):
            raise GraphError(
                f"branch {label!r} of a route must be a function that takes a pipeline and returns "
                f"one, or None; not {begin!r}"
            )
        nodes = walk([made.node])
        chain = all(len(node.inputs) == 1 for node in nodes if node is not first.node)
        if first.node not in nodes or not chain:
            raise GraphError(
                f"branch {label!r} of a route must add stages to the pipeline that it is given, "
                "one after the other"
            )
        return tuple(node.stage.operation for node in nodes if node.stage is not None)


def _nothing() -> Iterator[Any]:
    return iter(())


def joined(stage: Stage, inputs: Iterable[Pipeline]) -> Pipeline:
    """Return the pipeline of `stage` over `inputs`.

    Raises:
        GraphError: an input is no pipeline, or their sources have different seeds.
    """
    nodes = []
    for one in inputs:
        if not isinstance(one, Pipeline):
            raise GraphError(
                f"{stage.name!r} reads pipelines, not a {type(one).__name__}; wrap a source in "
                "sp.Pipeline(...) first"
            )
        nodes.append(one.node)
    if len(nodes) > 1:
        common_seed(walk(nodes))
    return pipeline_of(Node(stage, inputs=tuple(nodes)))


def pipeline_of(node: Node) -> Pipeline:
    """Return the pipeline whose items are those of `node`."""
    made = object.__new__(Pipeline)
    object.__setattr__(made, "node", node)
    return made


def from_factory(factory: Callable[[], Iterable[Any]], name: str) -> Pipeline:
    """Return a pipeline over ``factory()``, called `name` in messages."""
    return pipeline_of(Node(source=FactorySource(factory, name)))


def start(
    outputs: Mapping[str, Pipeline],
    options: RunOptions,
    states: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Loader]:
    """Start one run that makes all `outputs`; see `splitpipe.run`."""
    if _runner is None:
        # By name: a room far above, which registers itself. Who imports parts of splitpipe alone
        # comes here.
        import_module("splitpipe.running")
    assert _runner is not None
    return _runner(outputs, options, states)


def _length(node: Node, inputs: list[int]) -> int:
    if node.source is not None:
        if not isinstance(node.source, SequenceSource):
            raise TypeError("the length of this pipeline is not known: its source has no length")
        if node.source.on_error is not None and node.source.on_error.leaves_out:
            raise TypeError("the length is not known: records that cannot be read are left out")
        return len(node.source)
    assert node.stage is not None
    operation = node.stage.operation
    if isinstance(operation, Join):
        length = operation.length(inputs)
        if length is not None:
            return length
    elif isinstance(operation, Take):
        return min(inputs[0], operation.count)
    elif isinstance(operation, Shard):
        return share(inputs[0], operation.rank, operation.world_size, operation.ends)
    elif isinstance(operation, Repeat) and operation.count is not None:
        return inputs[0] * operation.count
    elif isinstance(operation, Skip):
        return max(0, inputs[0] - operation.count)
    elif isinstance(operation, Shuffle | Cache):
        return inputs[0]
    elif isinstance(operation, Batch) and not operation.drop_last:
        return -(-inputs[0] // operation.size)
    elif operation.ratio is not None:
        return inputs[0] // operation.ratio
    advice = ""
    if any(one.stage and isinstance(one.stage.operation, Shard) for one in walk(node.inputs)):
        advice = (
            ", and may give ranks different numbers of items; where they must end together put "
            "shard() behind it, or end every epoch by .repeat().take(n)"
        )
    raise TypeError(f"the length is not known: stage {node.stage.name!r} changes counts{advice}")


def _text(node: Node, name: str, inputs: list[str]) -> str:
    if node.source is not None:
        kind = "" if isinstance(node.source, SequenceSource) else "factory "
        return f"Pipeline({kind}{node.source!r})"
    assert node.stage is not None
    stage = repr(replace(node.stage, name=name))
    if len(inputs) == 1:
        return f"{inputs[0]} > {stage}"
    return f"[{', '.join(inputs)}] > {stage}"
