"""The part of a graph that one process runs, and where it begins.

Responsible for: `Whole`, a graph with the place where each node begins; and `Parts`, which cuts the
bodies of processes out of it.

Rules:
- where items are made again only to be thrown away, whoever makes them throws them away, and not
  whoever reads them from it: nothing waits for anybody then. A pool cannot, since each of its
  workers sees a part of the stream only; nor can one leave items out between two of its stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from splitpipe.pipeline.graph import Body, Graph, Node, Part
from splitpipe.pipeline.guarding import origin_of
from splitpipe.pipeline.placing import Group
from splitpipe.pipeline.resuming import Resume, Settled, dropped, inconsistent, settle
from splitpipe.pipeline.stages.base import Start

__all__ = ["Parts", "Whole", "settled_whole", "upstream"]


@dataclass(frozen=True)
class Whole:
    """A graph as it is run.

    Attributes:
        graph: all of it.
        keys: of its nodes.
        epoch: the first that is run.
        settled: where its nodes begin in that.
        outputs: by name, the number of the first item that is wanted of an output in it.
        recovers: whether it goes on in the same run, for workers that died.
    """

    graph: Graph
    keys: Mapping[Node, str]
    epoch: int = 0
    settled: Settled = field(default_factory=Settled)
    outputs: Mapping[str, int] = field(default_factory=dict)
    recovers: bool = False

    @property
    def resumes(self) -> int | None:
        """The epoch in which nodes begin elsewhere than at the beginning, or make again what they
        have given; None: they never do.
        """
        proves = any(count > self.settled.first(node) for node, count in self.settled.least.items())
        return self.epoch if proves or self.settled.starts else None


def settled_whole(
    graph: Graph, keys: Mapping[Node, str], resume: Resume, groups: Iterable[Group]
) -> Whole:
    """Return the graph with where each node begins, so that no pool has to throw items away."""
    pooled = {node: group for group in groups if group.workers > 1 for node in group.nodes}
    blocked: frozenset[Node] = frozenset()
    wanted = upstream(graph, keys, resume.nodes) if resume.nodes else graph
    while True:
        settled = settle(wanted, keys, resume, blocked)
        wrong = {pooled[node] for node in inconsistent(pooled, settled)}
        more = {node for group in wrong for node in group.nodes} - blocked
        if not more:
            recovers = bool(resume.nodes)
            return Whole(graph, keys, resume.epoch, settled, resume.outputs, recovers)
        blocked |= more


def upstream(graph: Graph, keys: Mapping[Node, str], wanted: Iterable[str]) -> Graph:
    """Return the part of `graph` that the nodes with the keys `wanted` depend on, themselves
    included; without outputs.
    """
    names = set(wanted)
    own = {node for node in graph.nodes if keys[node] in names}
    for node in reversed(graph.nodes):
        if node in own:
            own.update(node.inputs)
    return Graph(tuple(node for node in graph.nodes if node in own), {}, graph.seed)


class Parts:
    """Makes the bodies of processes.

    Args:
        whole: the graph, and where its nodes begin.
        groups: who runs the nodes.
    """

    def __init__(self, whole: Whole, groups: Iterable[Group]) -> None:
        self.whole = whole
        self._groups = {node: group for group in groups for node in group.nodes}
        self._relayed = {group.relays for group in groups if group.relays is not None}
        self._numbered = _numbered(whole.graph)

    def body(
        self,
        nodes: Iterable[Node],
        ends: Iterable[Node],
        readers: tuple[str, ...],
        unsent: Mapping[Node, int] | None = None,
    ) -> tuple[Body, list[Node]]:
        """Return the body that makes `ends` out of `nodes`, and the nodes of others that it
        reads; `unsent` of their first items do not come.
        """
        nodes, ends = list(nodes), list(ends)
        own = set(nodes)
        outside = [i for node in nodes for i in node.inputs if i not in own]
        outside += [end for end in ends if end not in own]
        read = list(dict.fromkeys(outside))
        unsent = unsent or {}
        parts = [self._edge(number, node, unsent.get(node, 0)) for number, node in enumerate(read)]
        numbers = {node: number for number, node in enumerate(read)}
        for node in nodes:
            numbers[node] = len(parts)
            inputs = tuple(numbers[i] for i in node.inputs)
            part = replace(self._part(node, unsent), stage=node.stage, source=node.source)
            part = replace(part, origin=origin_of(node, own))
            parts.append(replace(part, inputs=inputs, positions=node.positions))
        outputs = tuple(numbers[end] for end in ends)
        return Body(tuple(parts), outputs, self.whole.graph.seed, readers), read

    def unsent(self, node: Node, reading: Group, output: str | None = None) -> int:
        """Return how many of the items of `node` nobody wants of those that read it from another
        task. Who sends them throws them away, unless it is a pool.

        Args:
            node: what is read.
            reading: who reads it.
            output: the output of the run that `reading` makes, if it does.
        """
        group = self._groups.get(node)
        pooled = group is not None and group.workers > 1 and node not in self._relayed
        if pooled or reading.relays is not None:
            return 0
        settled = self.whole.settled
        wants = [
            dropped(reader, number, settled)
            for reader in reading.nodes
            for number, one in enumerate(reader.inputs)
            if one is node
        ]
        if output is not None and self.whole.graph.outputs[output] is node:
            wants.append(max(0, self.whole.outputs.get(output, 0) - settled.first(node)))
        return min(wants, default=0)

    def _part(self, node: Node, unsent: Mapping[Node, int]) -> Part:
        settled = self.whole.settled
        drops = tuple(
            dropped(node, number, settled) - unsent.get(one, 0)
            for number, one in enumerate(node.inputs)
        )
        return Part(
            numbered=node in self._numbered,
            frozen=node.frozen,
            name=node.name,
            capacity=node.stage.options.capacity if node.stage is not None else None,
            numbering=node.numbering,
            key=self.whole.keys[node],
            start=settled.starts.get(node),
            drops=drops if any(drops) else (),
            least=settled.least.get(node, 0),
        )

    def _edge(self, number: int, node: Node, unsent: int) -> Part:
        """Return what another task gives, as an input."""
        first = self.whole.settled.first(node) + unsent
        part = replace(self._part(node, {}), edge=number, drops=(), span=self._span(node))
        return replace(part, start=Start(first) if first else None)

    def _span(self, node: Node) -> tuple[str, str] | None:
        """Return between which nodes counts are known to the reader of `node` only."""
        last: Node | None = None
        while (group := self._groups.get(node)) is not None and group.workers > 1:
            if node.stage is None:
                break
            if last is None and node.stage.operation.ratio is None:
                last = node
            (node,) = node.inputs
        if last is None:
            return None
        return self.whole.keys[last], self.whole.keys[node]


def _numbered(graph: Graph) -> set[Node]:
    """Return the nodes behind which somebody asks for the number of an item."""
    asked: set[Node] = set()
    for node in reversed(graph.nodes):
        if node.stage is None:
            continue
        operation = node.stage.operation
        if operation.places or (operation.per_item and node in asked):
            asked.update(node.inputs)
    return asked
