"""What a pipeline is made of: nodes of a graph without cycles.

Responsible for: `Node`, walking graphs, and the two forms in which they are handed on: `Graph`, the
whole with every stage's name settled, and `Body`, the part that one process runs.

Rules:
- a node is an immutable value that knows its inputs, never its readers: a node that several others
  read is a branch, and nothing has to be said for it;
- a source with random access costs nothing to read again: each of its readers reads it for itself,
  at its own pace, so it never is a branch;
- `take` right behind such a source is a bound on its positions, `shard` and `balance` are an order
  of them: what is not wanted is not read;
- the order of nodes, and with it every name and number that depends on it, follows from the graph
  alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

from splitpipe.errors import CycleError, GraphError
from splitpipe.pipeline.dealing import Numbering
from splitpipe.pipeline.guarding import Origin, read_by
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Repeat
from splitpipe.pipeline.stages.base import Start

if TYPE_CHECKING:
    from splitpipe.pipeline.counted import Counted

__all__ = ["Body", "Graph", "Node", "Part", "make_graph", "walk"]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A source, or a stage and what it reads.

    Attributes:
        stage: None for a source.
        source: None for a stage.
        inputs: what the stage reads, in its order.
        seed: of the pipeline, at a source.
        positions: of a source with random access that are read in an epoch.
        frozen: whether it is in its first epoch in every epoch: it lies before a cache.
        numbering: which numbers its items have, where ranks have different ones.
    """

    stage: Stage | None = None
    source: Source | None = None
    inputs: tuple[Node, ...] = ()
    seed: int = 0
    positions: int | None = None
    frozen: bool = False
    numbering: Numbering | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        if self.stage is not None:
            return self.stage.name
        assert self.source is not None
        return self.source.name

    @property
    def reads_again(self) -> bool:
        """Whether every reader of it can read it for itself."""
        return isinstance(self.source, SequenceSource)


def walk(ends: Iterable[Node]) -> list[Node]:
    """Return every node that `ends` depend on, each after its inputs.

    Raises:
        CycleError: a node depends on itself.
    """
    done: dict[Node, None] = {}
    under_way: set[Node] = set()
    todo = list(ends)[::-1]
    while todo:
        node = todo[-1]
        if node in done:
            todo.pop()
        elif node in under_way:
            todo.pop()
            under_way.remove(node)
            done[node] = None
        else:
            under_way.add(node)
            for one in reversed(node.inputs):
                if one in under_way:
                    raise CycleError(f"{one.name!r} is fed by what it feeds; a graph has no cycles")
                todo.append(one)
    return list(done)


@dataclass(frozen=True)
class Graph:
    """Outputs by name, and all the nodes that they depend on, each after its inputs.

    Every stage has a name of its own, every reader of a source with random access its own copy.

    Attributes:
        nodes: all of them.
        outputs: what is read from outside.
        seed: of everything random in it.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Node]
    seed: int

    def readers(self) -> dict[Node, list[Node | str]]:
        """Return who reads each node: other nodes, and names of outputs."""
        made: dict[Node, list[Node | str]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for one in node.inputs:
                made[one].append(node)
        for name, node in self.outputs.items():
            made[node].append(name)
        return made


def make_graph(outputs: Mapping[str, Node]) -> Graph:
    """Return the graph of `outputs`.

    Raises:
        GraphError: its sources have different seeds, or it is no graph (`CycleError`).
    """
    outputs = _freeze(outputs)
    nodes = walk(outputs.values())
    seed = common_seed(nodes)
    names = unique_names(nodes)
    taken = set(names.values())
    numbers = count(1)
    made: dict[Node, Node] = {}

    def copy(node: Node) -> Node:
        if node.reads_again:
            return read_by(replace(node), next(numbers), taken)
        return made[node]

    for node in nodes:
        if node.stage is not None:
            stage = replace(node.stage, name=names[node])
            made[node] = replace(node, stage=stage, inputs=tuple(map(copy, node.inputs)))
        elif not node.reads_again:
            made[node] = replace(node)
    ends = {name: copy(node) for name, node in outputs.items()}
    ends = _fold_takes(_fold_repeats(ends))
    ends = _number(_fold_takes(_fold_repeats(ends, dealt=True)))
    return Graph(tuple(walk(ends.values())), ends, seed)


def _number(ends: Mapping[str, Node]) -> dict[str, Node]:
    """Let what stands behind a `shard` give its items numbers that no other rank gives."""
    made: dict[Node, Node] = {}
    behind: dict[Node, Numbering | None] = {}
    for node in walk(ends.values()):
        inputs = tuple(made[one] for one in node.inputs)
        found = next((known for known in map(behind.get, node.inputs) if known), None)
        own = found if node.numbering is None and node.stage is not None else node.numbering
        if isinstance(node.source, SequenceSource) and node.source.deal is not None:
            deal = node.source.deal
            found = Numbering(deal.rank, deal.world_size, rest=node.source.rest)
        elif node.stage is not None and node.stage.operation.numbering is not None:
            own = node.stage.operation.numbering
            found = replace(own, dealt=False)
        behind[node] = found
        same = inputs == node.inputs and own is node.numbering
        made[node] = node if same else replace(node, inputs=inputs, numbering=own)
    return {name: made[node] for name, node in ends.items()}


def _freeze(ends: Mapping[str, Node]) -> Mapping[str, Node]:
    """Let what lies before a cache be in its first epoch in every epoch. What others read as well
    is there twice: for them it goes on.
    """
    nodes = walk(ends.values())
    cold: dict[Node, Node] = {}
    made: dict[Node, Node] = {}
    for node in nodes:
        stage = node.stage
        cold[node] = replace(node, frozen=True, inputs=tuple(cold[one] for one in node.inputs))
        before = cold if stage is not None and stage.operation.first_epoch else made
        made[node] = replace(node, inputs=tuple(before[one] for one in node.inputs))
    return {name: made[node] for name, node in ends.items()}


def common_seed(nodes: Iterable[Node]) -> int:
    """Return the seed of all sources among `nodes`.

    Raises:
        GraphError: they differ.
    """
    seeds: dict[int, str] = {}
    for node in nodes:
        if node.source is not None:
            seeds.setdefault(node.seed, repr(node.source))
    if len(seeds) > 1:
        (one, first), (two, second) = list(seeds.items())[:2]
        raise GraphError(
            f"the source {first} has the seed {one}, {second} has {two}; one graph has one seed: "
            "give all its sources the same"
        )
    return next(iter(seeds), 0)


def unique_names(nodes: Iterable[Node]) -> dict[Node, str]:
    """Return a name for every stage; the second `decode` is `decode-2`."""
    taken: set[str] = set()
    names: dict[Node, str] = {}
    for node in nodes:
        if node.stage is None:
            continue
        name, number = node.stage.name, 2
        while name in taken:
            name = f"{node.stage.name}-{number}"
            number += 1
        taken.add(name)
        names[node] = name
    return names


def _fed(nodes: Iterable[Node], ends: Mapping[str, Node]) -> dict[Node, int]:
    """Return how many read each node."""
    fed: dict[Node, int] = dict.fromkeys(nodes, 0)
    for node in fed:
        for one in node.inputs:
            fed[one] += 1
    for node in ends.values():
        fed[node] += 1
    return fed


def _fold_repeats(ends: Mapping[str, Node], *, dealt: bool = False) -> dict[str, Node]:
    """Let sources repeat themselves where everything before a `repeat` treats each item by itself:
    that is the same, and leaves the items of all passes to be shared out among workers.

    Args:
        ends: of the graph.
        dealt: only sources whose positions are those of one rank, all of them.
    """
    nodes = walk(ends.values())
    fed = _fed(nodes, ends)
    made: dict[Node, Node] = {}
    for node in nodes:
        operation = node.stage.operation if node.stage is not None else None
        if isinstance(operation, Repeat):
            chain = _private_chain(node.inputs[0], fed)
            if chain is not None and (not dealt or _all_of_a_rank(chain)):
                made[node] = _repeated(made[node.inputs[0]], operation.count)
                continue
        made[node] = replace(node, inputs=tuple(made[one] for one in node.inputs))
    return {name: made[node] for name, node in ends.items()}


def _private_chain(node: Node, fed: dict[Node, int]) -> Node | None:
    """Return the source at the beginning of a chain of per-item stages that ends in `node` and that
    nobody else reads; None where there is no such chain.
    """
    while fed[node] == 1:
        if node.stage is None:
            return node
        if not node.stage.operation.per_item:
            return None
        node = node.inputs[0]
    return None


def _all_of_a_rank(node: Node) -> bool:
    source = node.source
    return isinstance(source, SequenceSource) and source.dealt and node.positions == len(source)


def _repeated(node: Node, count: int | None) -> Node:
    if node.source is not None:
        return replace(node, source=node.source.repeated(count), positions=None)
    return replace(node, inputs=(_repeated(node.inputs[0], count),))


def _fold_takes(ends: Mapping[str, Node]) -> dict[str, Node]:
    """Turn every `take`, `shard` and `balance` whose input counts are known into a bound on, or an
    order of, its source's positions.
    """
    from splitpipe.pipeline.counted import begin, check_balance, check_sized  # workers do not

    nodes = walk(ends.values())
    fed = _fed(nodes, ends)
    made: dict[Node, Node] = {}
    chains: dict[Node, Counted] = {}
    for node in nodes:
        inputs = tuple(made[one] for one in node.inputs)
        counted = chains.get(node.inputs[0]) if len(inputs) == 1 else None
        if isinstance(node.source, SequenceSource):
            chains[node] = begin(node)
            made[node] = replace(node, positions=chains[node].positions)
        elif counted is not None and fed[node.inputs[0]] == 1 and counted.follow(node):
            chains[node] = counted
            made[node] = counted.rebuilt(node, inputs[0])
        else:
            check_balance(node)
            made[node] = replace(node, inputs=inputs)
    for counted in chains.values():
        check_sized(counted)
    return {name: made[node] for name, node in ends.items()}


@dataclass(frozen=True)
class Part:
    """One node as a process sees it: a source, an input from another task, or a stage.

    Attributes:
        stage: None for a source or an input.
        source: None for an input or a stage.
        edge: number of the input, among those of its body; None for a source or a stage.
        inputs: numbers of the parts that the stage reads.
        positions: of a source with random access.
        numbered: whether somebody behind it asks which number an item has.
        frozen: whether it is in its first epoch in every epoch.
        name: what it is called where it was described.
        capacity: items that one of its readers may be behind another; None: as usual.
        numbering: which numbers its items have, where ranks have different ones.
        key: of the node, in what is known of it (see `splitpipe.pipeline.resuming`).
        start: where it begins in the epoch that is resumed; of an input, the number of the first
            item that comes. None: at the beginning.
        drops: for each input, items that it has to throw away there first.
        least: how many items it has given before in the epoch that is resumed, at least.
        span: of an input that comes through pools: the key of the last of their nodes whose counts
            only running tells, and of the node that the first of the pools reads.
        origin: of a stage with a policy: what numbers its items.
    """

    stage: Stage | None = None
    source: Source | None = None
    edge: int | None = None
    inputs: tuple[int, ...] = ()
    positions: int | None = None
    numbered: bool = False
    frozen: bool = False
    name: str = "stream"
    capacity: int | None = None
    numbering: Numbering | None = None
    key: str = ""
    start: Start | None = None
    drops: tuple[int, ...] = ()
    least: int = 0
    span: tuple[str, str] | None = None

    def numbers(self, epoch: int, first: int) -> Iterator[int] | None:
        """Return the numbers of its items from the `first`-th on, where ranks have different ones;
        None: they are counted.
        """
        if isinstance(self.source, SequenceSource) and self.source.dealt:
            return self.source.numbers(epoch, first)
        return None if self.numbering is None else self.numbering.numbers(epoch, first)

    origin: Origin | None = None


@dataclass(frozen=True)
class Body:
    """The part of a graph that runs in one process; travels to it.

    Attributes:
        parts: each after its inputs.
        outputs: numbers of the parts that are read from outside.
        seed: of everything random in it.
        readers: what each output is read by, in words of the user: a stage or an output of the run.
        resumes: the epoch in which its parts begin where they say; None: they begin at the
            beginning.
        drops: for each output, items that are not sent there: its reader is a pool, which cannot
            throw them away.
        tagged: whether numbers of items leave with them, where somebody asks for them.
        recovers: whether it goes on for one that died, in the same run.
    """

    parts: tuple[Part, ...]
    outputs: tuple[int, ...] = (0,)
    seed: int = 0
    readers: tuple[str, ...] = ()
    resumes: int | None = None
    drops: tuple[int, ...] = ()
    tagged: bool = True
    recovers: bool = False

    def reader(self, output: int) -> str:
        """Return by what `output` is read."""
        return self.readers[output] if output < len(self.readers) else f"output {output}"

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(part.stage for part in self.parts if part.stage is not None)

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """Numbers of the parts that are a source or an input."""
        return tuple(number for number, part in enumerate(self.parts) if part.stage is None)

    @property
    def name(self) -> str:
        """Its stages, in order; its source where there are none."""
        names = [stage.name for stage in self.stages]
        if not names:
            names = [part.source.name for part in self.parts if part.source is not None]
        return " > ".join(names) or "relay"

    def without_last(self) -> Body:
        """Return the body that gives what the last stage of this one, which is a chain, reads."""
        return Body(self.parts[:-1], self.parts[-1].inputs, self.seed)

    @cached_property
    def source(self) -> Source | None:
        """Its source, where it has exactly one and nothing else to read."""
        if len(self.heads) != 1:
            return None
        return self.parts[self.heads[0]].source
