"""Failed items, tried again.

Responsible for: `rerun`, which makes exactly the items of a quarantine once more, and tells of each
whether it passes now.

Rules:
- an item is made as it is in a run: by the same stages, from the same records, with the same random
  numbers. Only what leads to the stage in which it failed is run;
- that happens in this process, but for items that have ended workers (`PoisonRecord`): each of them
  is made in a process of its own, of which the end is told;
- where all stages before that treat each item by itself, nothing but its record is read; elsewhere
  the epoch is read from its beginning as far as the item;
- nothing is written down: what fails again is told, and the quarantine stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from splitpipe.errors import GraphError, PoisonRecord, WorkerDied, WorkerStalled
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import Node, Part, make_graph
from splitpipe.pipeline.guarding import guarded, may_fail, with_policies
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import AsyncMap, Batch, Context, Operation
from splitpipe.pipeline.stages.failed import FailedItem, Ledger
from splitpipe.pipeline.stages.guarded import Guarded
from splitpipe.pipeline.stages.policy import LeaveOut, Policy, Retry
from splitpipe.runtime.chain import Chain
from splitpipe.runtime.heads import open_source
from splitpipe.runtime.holding import kept

__all__ = ["Rerun", "rerun"]

PASSES, FAILS, ABSENT = "passes", "fails", "absent"

ALONE_S = 60.0
"""How long a stage may take over an item that is made in a process of its own."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What became of a failed item when it was tried again.

    Attributes:
        item: as it failed.
        outcome: ``"passes"``, ``"fails"``, or ``"absent"``: it does not come to its stage any more,
            since a stage before that leaves it out, or since the data have changed.
        error: as it failed now; None where it did not.

    Example:
        >>> print(Rerun(FailedItem("decode", 0, 7), "passes"))
        decode 7: passes
    """

    item: FailedItem
    outcome: str
    error: FailedItem | None = None

    def __str__(self) -> str:
        now = f": {self.error.error}: {self.error.message}" if self.error is not None else ""
        return f"{self.item.stage} {self.item.position}: {self.outcome}{now}"


def rerun(items: Iterable[FailedItem], pipe: Pipeline | Mapping[str, Pipeline]) -> Iterator[Rerun]:
    """Make failed items once more and yield what becomes of each: in this process, but for items
    that have ended workers, each of which gets one of its own.

    Args:
        items: of one pipeline, as `read_quarantine` or `Loader.errors` gives them.
        pipe: that pipeline, or all that were run together, by name; stages may have been mended
            since, but not renamed.

    Raises:
        GraphError: it has no such stage.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(["1", "two", "3"]).map(int, on_error="skip", name="parse")
        >>> with pipe.loader(executor="inline") as loader:
        ...     items = list(loader)
        ...     failed = loader.errors()
        >>> words = {"two": "2"}
        >>> mended = sp.Pipeline(["1", "two", "3"]).map(
        ...     lambda text: int(words.get(text, text)), name="parse"
        ... )
        >>> [str(one) for one in rerun(failed, mended)]
        ['parse 1: passes']
    """
    groups: dict[tuple[str, int, int], list[FailedItem]] = defaultdict(list)
    fatal: list[FailedItem] = []
    for item in items:
        if item.error.endswith(f".{PoisonRecord.__name__}"):
            fatal.append(item)
        else:
            groups[item.stage, item.epoch, item.repeat].append(item)
    yield from _rerun(groups, pipe)
    for item in fatal:
        yield _elsewhere(item, pipe)


def _elsewhere(item: FailedItem, pipe: Pipeline | Mapping[str, Pipeline]) -> Rerun:
    """Make an item once more, in another process."""
    alone = Pipeline([item]).map(_Again(pipe), workers=1)
    try:
        with alone.loader(prefetch=1, restarts=0, deadline_s=ALONE_S) as loader:
            made: Rerun = next(loader)
            return made
    except (WorkerDied, WorkerStalled) as error:
        context = Context(item.stage, epoch=item.epoch + (item.repeat << 32))
        known = {"position": item.position, "part": item.part, "source": item.source}
        known.update(record=item.record, key=item.key)
        return Rerun(item, FAILS, FailedItem.of(error, context, **known))


class _Again:
    """Makes an item once more, in the process that calls it.

    Args:
        pipe: that it is of.
    """

    def __init__(self, pipe: Pipeline | Mapping[str, Pipeline]) -> None:
        self._pipe = pipe

    def __call__(self, item: FailedItem) -> Rerun:
        (made,) = _rerun({(item.stage, item.epoch, item.repeat): [item]}, self._pipe)
        return made


def _rerun(
    groups: Mapping[tuple[str, int, int], list[FailedItem]],
    pipe: Pipeline | Mapping[str, Pipeline],
) -> Iterator[Rerun]:
    """Make items of some stages and epochs once more, in this process."""
    outputs = pipe if isinstance(pipe, Mapping) else {"": pipe}
    nodes = {name: one.node for name, one in outputs.items()}
    graph = make_graph(with_policies(nodes, LeaveOut()))
    stages = {node.name: node for node in graph.nodes if node.stage is not None}
    for (stage, epoch, repeat), wanted in groups.items():
        trial = _Trial(_node(stage, stages), epoch + (repeat << 32))
        yield from trial.outcomes(wanted)


def _node(stage: str, stages: Mapping[str, Node]) -> Node:
    """Return the node of a stage, or of the one that it is inside of."""
    name = stage
    while name not in stages and "/" in name:
        name = name.rpartition("/")[0]
    if name not in stages:
        raise GraphError(
            f"the pipeline has no stage {stage!r}, in which items failed; it has "
            f"{', '.join(stages)}. Give the pipeline that the items are of, with the names that "
            "its stages had then"
        )
    return stages[name]


def _stage(node: Node) -> Stage:
    assert node.stage is not None
    return node.stage


class _Trial(Ledger):
    """Items of one stage and one epoch, made again. It is the ledger in which they fail.

    Args:
        node: of the stage; nothing behind it is run.
        epoch: in which; the pass of a `repeat` in its upper bits.
    """

    def __init__(self, node: Node, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch
        self._name = node.name
        self._operation = _forgiving(_stage(node).operation)
        self._probe = _Probe()
        before = Node(Stage(self._probe, "(before it)"), inputs=node.inputs[:1], frozen=node.frozen)
        stage = replace(_stage(node), operation=self._operation)
        ended = replace(node, stage=stage, inputs=(before,))
        inline = RunOptions(executor="inline")
        self._body = plan({"": ended}, inline).locals[0].body
        self._failed: dict[tuple[int, int], FailedItem] = {}

    def outcomes(self, wanted: list[FailedItem]) -> Iterator[Rerun]:
        """Yield what becomes of each."""
        wanted = sorted(wanted, key=lambda one: (one.position, one.part))
        alone = self._alone()
        if alone is None:
            self._make_all(wanted[-1].position)
        made = -1
        for item in wanted:
            if alone is not None and item.position != made:
                made = item.position
                self._make_one(alone, made)
            place = item.position, item.part
            error = self._failed.get(place)
            if error is not None:
                yield Rerun(item, FAILS, error)
            else:
                yield Rerun(item, PASSES if place in self._probe.seen else ABSENT)

    def _alone(self) -> SequenceSource | None:
        """Return the source whose records can be made one by one; None where they cannot."""
        source = self._body.source
        if isinstance(source, SequenceSource) and source.dealt:
            return None  # its positions are not the numbers of its items
        operations = [stage.operation for stage in self._body.stages[:-1]]
        operations += [] if isinstance(self._operation, AsyncMap) else [self._operation]
        each = all(operation.per_item for operation in operations)
        return source if each and isinstance(source, SequenceSource) else None

    def _make_one(self, source: SequenceSource, at: int) -> None:
        """Make what one record becomes."""
        if at >= len(source):
            return

        def record(_number: int, _part: Part, epoch: int) -> Iterator[Any]:
            return source.items(source.order(epoch), at, at + 1)

        self._run(Chain(self._body, self._epoch, first=at, ledger=self), record)

    def _make_all(self, last: int) -> None:
        """Make everything up to position `last`."""
        self._probe.last = last
        self._probe.beyond = self._operation.size if isinstance(self._operation, Batch) else 0

        def records(_number: int, part: Part, epoch: int) -> Iterator[Any]:
            return open_source(part, epoch)

        self._run(Chain(self._body, self._epoch, ledger=self), records)

    def _run(self, chain: Chain, open_head: Any) -> None:
        with closing(chain):
            (outputs,) = chain.start(open_head)
            for output in outputs:
                del output

    # -- as a ledger

    def keep(self, items: Iterator[Any]) -> Iterator[Any]:
        return kept(items)

    def enter(self, failed: FailedItem, policy: LeaveOut) -> None:
        if failed.stage == self._name or failed.stage.startswith(f"{self._name}/"):
            self._failed[failed.position, failed.part] = failed

    def judge(
        self, context: Context, policy: LeaveOut, failed: FailedItem, error: BaseException
    ) -> None:
        """Nothing is too much here."""

    def end(self, context: Context, policy: LeaveOut | None) -> None:
        """Nothing is too much here."""


def _forgiving(operation: Operation) -> Operation:
    """Return an operation that leaves out whatever fails in it, after as many tries as before."""
    inner = operation.operation if isinstance(operation, Guarded) else operation
    return guarded(inner, _forgiven(may_fail(operation)))


def _forgiven(policy: Policy | None) -> Policy:
    if isinstance(policy, Retry):
        return replace(policy, then=_forgiven(policy.then))
    return LeaveOut()


@dataclass(eq=False)
class _Probe(Operation):
    """Sees which items come to a stage, and lets no more come than are needed.

    Attributes:
        seen: the places of those that came.
        last: the position of the last that is needed; None: all.
        beyond: how many behind that are needed to make it.
    """

    seen: set[tuple[int, int]] = field(default_factory=set)
    last: int | None = None
    beyond: int = 0
    per_item: ClassVar[bool] = True

    @property
    def places(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "probe"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        place, beyond = context.place, 0
        assert place is not None
        for item in items:
            if self.last is not None and place.number > self.last:
                beyond += 1
                if beyond > self.beyond:
                    return
            self.seen.add((place.number, place.part))
            yield item
            del item
