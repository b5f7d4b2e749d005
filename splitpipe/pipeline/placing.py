"""Which stages share a process.

Responsible for: `place`, which divides the nodes of a graph into groups. It decides who rides with
whom; what a group costs and how much lies between two is said in `plan`.

Rules:
- a stage with ``workers=n`` or ``executor=`` begins a group of n workers, processes or threads; a
  stage without rides with the one before it when it can, and stages before the first such stage
  ride with that one. What asks for another executor never rides;
- stages that treat each item by itself may have several workers, and so may a batch whose rows are
  known beforehand: everything before it, back to a source with random access, keeps counts;
- everything else needs the stream in order and has one process;
- where streams join or part, groups that nobody asked a process for run together, and a join rides
  with the only one that was asked for, unless that made a circle of processes that wait for each
  other;
- ``workers=0`` is the consumer's own process, which is the last place an item comes to;
- a pool has one reader: where several read what it makes, a process in between hands it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from splitpipe.errors import GraphError
from splitpipe.pipeline.graph import Graph, Node, walk
from splitpipe.pipeline.guarding import may_fail
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Batch

__all__ = ["Group", "place", "unit_of"]


@dataclass(eq=False, slots=True)
class Group:
    """Nodes that share a process, each after its inputs.

    Attributes:
        workers: how many such processes; 0 is the consumer's own.
        asked: whether the user asked for them.
        executor: what its workers are.
        relays: a node of another group that it only hands on.
    """

    nodes: list[Node] = field(default_factory=list)
    workers: int = 1
    asked: bool = False
    executor: str = "process"
    relays: Node | None = None

    @property
    def stages(self) -> list[Stage]:
        return [node.stage for node in self.nodes if node.stage is not None]

    @property
    def claims(self) -> bool:
        """Whether its workers take positions of a source."""
        return self.workers > 1 and bool(self.nodes) and self.nodes[0].reads_again

    def inputs(self) -> list[Node]:
        """Return the nodes of other groups that it reads, each once."""
        if self.relays is not None:
            return [self.relays]
        own = set(self.nodes)
        return list(dict.fromkeys(i for node in self.nodes for i in node.inputs if i not in own))


def place(graph: Graph, executor: str = "process") -> list[Group]:
    """Return groups, each after those that it reads.

    Args:
        graph: what to divide.
        executor: of groups for which nobody asked for one.

    Raises:
        GraphError: the stages cannot be run as they ask to be.
    """
    readers = graph.readers()
    groups: list[Group] = []
    begins: list[Group] = []
    for chain in _chains(graph, readers):
        made = _groups(chain, executor)
        if chain[0].source is None:
            begins.append(made[0])
        groups += made
    for group in begins:
        _merge(group, groups, readers)
    for group in list(groups):
        _relay(group, groups, graph)
    groups = _sorted(groups, graph)
    _check_reopened(groups, readers)
    _check_local(groups, graph)
    return groups


def unit_of(stages: Iterable[Stage]) -> int:
    """Return how many positions make one output, for as long as that is known."""
    unit = 1
    for stage in stages:
        ratio = stage.operation.ratio
        if ratio is None:
            break
        unit *= ratio
    return unit


def _chains(graph: Graph, readers: dict[Node, list[Node | str]]) -> list[list[Node]]:
    """Cut the graph where streams join and where they part."""
    chains: list[list[Node]] = []
    ends: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        before = node.inputs[0] if len(node.inputs) == 1 else None
        if before is not None and len(readers[before]) == 1:
            chain = ends.pop(before)
        else:
            chain = []
            chains.append(chain)
        chain.append(node)
        ends[node] = chain
    return chains


def _groups(chain: Sequence[Node], executor: str) -> list[Group]:
    source = chain[0].source
    nodes = list(chain[1:] if source is not None else chain)
    groups = [_leading(source, nodes, executor)]
    for node in nodes[len(groups[0].nodes) :]:
        options = _stage(node).options
        alone = options.workers is not None or options.resources is not None
        if not alone and _joins(source, groups[-1], node, len(groups) == 1):
            groups[-1].nodes.append(node)
        else:
            groups.append(_begun([node], node, executor))
    if source is not None:
        if groups[0].workers > 1 and not chain[0].reads_again:
            # One worker reads what only one can read.
            groups.insert(0, Group(executor=groups[0].executor))
        groups[0].nodes.insert(0, chain[0])
    before: list[Stage] = []
    for number, group in enumerate(groups):
        _check_pool(source, group, number == 0, before)
        before += group.stages
    return groups


def _leading(source: Source | None, nodes: list[Node], executor: str) -> Group:
    """The first group: stages before the first one that asks for workers ride with it when they
    can.
    """
    asked = [n for n, node in enumerate(nodes) if _asks(node)]
    if not asked:
        return Group(list(nodes), executor=executor)
    first = asked[0]
    together = _begun([], nodes[first], executor)
    if first == 0:
        together.nodes.append(nodes[0])
        return together
    workers = together.workers
    fits = workers == 1 or (workers > 1 and isinstance(source, SequenceSource))
    for node in nodes[: first + 1]:
        fits = fits and _joins(source, together, node, True)
        together.nodes.append(node)
    return together if fits else Group(list(nodes[:first]), executor=executor)


def _asks(node: Node) -> bool:
    """Whether the user said who is to run a stage."""
    options = _stage(node).options
    return any(one is not None for one in (options.workers, options.executor, options.resources))


def _begun(nodes: list[Node], node: Node, executor: str) -> Group:
    """A group as the stage of `node` asks for it."""
    options = _stage(node).options
    workers = 1 if options.workers is None else options.workers
    return Group(nodes, workers, _asks(node), options.executor or executor)


def _stage(node: Node) -> Stage:
    assert node.stage is not None
    return node.stage


def _joins(source: Source | None, group: Group, node: Node, first: bool) -> bool:
    if _stage(node).options.executor not in (None, group.executor):
        return False
    if group.workers <= 1 or _stage(node).operation.per_item:
        return True
    return _aligned(source, [*group.stages, _stage(node)], first)


def _aligned(source: Source | None, stages: list[Stage], first: bool) -> bool:
    """Whether the inputs of every output are known positions of the source."""
    known = all(stage.operation.ratio is not None for stage in stages)
    partial = [s for s in stages if isinstance(s.operation, Batch) and s.operation.drop_last]
    return first and known and len(partial) <= 1 and isinstance(source, SequenceSource)


def _check_pool(source: Source | None, group: Group, first: bool, before: list[Stage]) -> None:
    if group.workers <= 1:
        return
    for number, stage in enumerate(group.stages):
        if stage.operation.per_item or _aligned(source, group.stages[: number + 1], first):
            continue
        left_out = [one.name for one in before + group.stages[:number] if _leaves_out(one)]
        reason = f", since {left_out[0]!r} may leave items out (on_error)" if left_out else ""
        raise GraphError(
            f"stage {stage.name!r} needs the whole stream in order{reason} and cannot have "
            f"{group.workers} workers; give workers= to the stages before it and leave it out here"
        )


def _leaves_out(stage: Stage) -> bool:
    policy = may_fail(stage.operation)
    return policy is not None and policy.leaves_out


def _merge(group: Group, groups: list[Group], readers: dict[Node, list[Node | str]]) -> None:
    """Let `group`, which begins where streams join or part, run with those that it reads, where
    they can.
    """
    if group.workers != 1:
        return
    before = [_holding(groups, node) for node in group.inputs()]
    asked = {id(one) for one in before if one.asked and one.workers == 1}
    for one in dict.fromkeys(before):
        rides = one.workers == 1 and (not one.asked or (not group.asked and len(asked) == 1))
        if rides and group.asked:
            rides = _read_only_by(one, group, readers)
        if rides and one is not group and not _circle(one, group, groups):
            own = {*one.nodes, *group.nodes}
            order = {node: n for n, node in enumerate(_known(groups)) if node in own}
            group.nodes = sorted(own, key=order.__getitem__)
            group.executor = one.executor if one.asked else group.executor
            group.asked = group.asked or one.asked
            groups.remove(one)


def _known(groups: list[Group]) -> list[Node]:
    """All nodes, each after its inputs."""
    return walk(node for group in groups for node in group.nodes)


def _holding(groups: list[Group], node: Node) -> Group:
    return next(group for group in groups if node in group.nodes)


def _read_only_by(one: Group, group: Group, readers: dict[Node, list[Node | str]]) -> bool:
    own = {*one.nodes, *group.nodes}
    return all(reader in own for node in one.nodes for reader in readers[node])


def _circle(one: Group, other: Group, groups: list[Group]) -> bool:
    """Whether a path leads from `one` through a third group to `other`: together they would wait
    for themselves.
    """
    reached: set[Group] = set()
    todo = [group for group in _after(one, groups) if group is not other]
    while todo:
        group = todo.pop()
        if group is other:
            return True
        if group not in reached:
            reached.add(group)
            todo += _after(group, groups)
    return False


def _after(one: Group, groups: list[Group]) -> list[Group]:
    return [g for g in groups if g is not one and any(i in one.nodes for i in g.inputs())]


def _relay(group: Group, groups: list[Group], graph: Graph) -> None:
    """Give a pool that several read a process behind it that hands on what it makes."""
    if group.workers <= 1:
        return
    end = group.nodes[-1]
    reading = _after(group, groups)
    outside = [name for name, node in graph.outputs.items() if node is end]
    if len(reading) + len(outside) > 1:
        groups.append(Group(relays=end, executor=group.executor))


def _sorted(groups: list[Group], graph: Graph) -> list[Group]:
    order = {node: number for number, node in enumerate(graph.nodes)}

    def last(group: Group) -> float:
        if group.relays is not None:
            return order[group.relays] + 0.5
        return max(order[node] for node in group.nodes)

    made: list[Group] = []
    left = sorted(groups, key=last)
    relayed = {group.relays for group in groups if group.relays is not None}
    have: set[Node] = set()  # what may be read
    by_pools: set[Node] = set()  # what a relay may read
    while left:
        ready = next(
            group
            for group in left
            if group.relays in by_pools
            or (group.relays is None and all(node in have for node in group.inputs()))
        )
        left.remove(ready)
        made.append(ready)
        by_pools.update(ready.nodes)
        have.update(node for node in ready.nodes if node not in relayed)
        if ready.relays is not None:
            have.add(ready.relays)
    return made


def _check_reopened(groups: list[Group], readers: dict[Node, list[Node | str]]) -> None:
    """What is begun anew runs where it is asked for, and for nobody else."""
    for group in groups:
        for node in group.nodes:
            if node.stage is None or not node.stage.operation.reopens:
                continue
            before = walk(node.inputs)
            for one in reversed(before):
                if one not in group.nodes:
                    raise GraphError(
                        f"{node.name!r} begins its input anew, and {one.name!r} runs in another "
                        f"process; give workers= to stages behind {node.name!r} instead"
                    )
                if any(reader is not node and reader not in before for reader in readers[one]):
                    raise GraphError(
                        f"{node.name!r} begins its input anew, and {one.name!r} is read by another "
                        "branch too; let that branch read the source for itself"
                    )


def _check_local(groups: list[Group], graph: Graph) -> None:
    """The consumer's process is the last place an item comes to, and each output has it for
    itself.
    """
    local = {node for group in groups if group.workers == 0 for node in group.nodes}
    for node, who in graph.readers().items():
        if node not in local:
            continue
        for reader in who:
            if isinstance(reader, Node) and reader not in local:
                raise GraphError(
                    f"stage {node.name!r} asks for the consumer's process (workers=0), but "
                    f"{reader.name!r} after it runs in another one; only the last stages can run "
                    "in the consumer's process"
                )
    seen: dict[Node, str] = {}
    for name, end in graph.outputs.items():
        todo = [end]
        while todo:
            node = todo.pop()
            if node in local:
                if seen.setdefault(node, name) != name:
                    raise GraphError(
                        f"stage {node.name!r} asks for the consumer's process (workers=0), but "
                        f"the outputs {seen[node]!r} and {name!r} both read it; give it a process "
                        "of its own (workers=1)"
                    )
                todo += node.inputs
