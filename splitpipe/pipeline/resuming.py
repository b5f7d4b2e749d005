"""Where every node of a graph has to begin so that its outputs go on in the middle of an epoch.

Responsible for: `Fact`, something that is known of one node; `settle`, which works out, from the
outputs back to the sources, where each node begins; and `Resume`, what a run is told of it. All of
it is arithmetic on values: nothing here runs or opens anything.

How it works. The stream is a pure function of the graph, the seed and the epoch, so that an output
can always be brought to item n: by making n items and throwing them away. Everything else is to
make it cheaper. Beginning with its readers, which say from which item on they want a node:

- a node that gives one item for one, or for a known number, begins there (`Operation.needs`);
- of any other something has to be known: that it gives its items from number `first` on if it is
  given items from `reads` on, and what it said of itself there. Of all such facts the one is taken
  that is nearest before what is wanted; what comes between is made, and thrown away by whoever
  reads it;
- of which nothing is known begins at the beginning of the epoch, and so does all that it reads.

Rules:
- a fact is true by itself: facts that were noted at different moments, or by different processes,
  may be put together in any way;
- what was given once has to come again, and so has what was read for it: how many items that are of
  each node at least is worked out, too (`Settled.least`), so that whoever gives fewer is found out;
- a fact says nothing of workers, executors or channels: they may be others when it is used;
- numbers of items count from the beginning of the epoch. Inside of a stretch of per-item stages
  whose counts nobody knew (`Fact.head`) they count from 1 in the run that is resumed, and mean
  something among its own facts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.pipeline.graph import Graph, Node
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import Operation
from splitpipe.pipeline.stages.base import Start

__all__ = [
    "Fact",
    "Facts",
    "Resume",
    "Settled",
    "as_facts",
    "bounded",
    "dropped",
    "had",
    "inconsistent",
    "keys_of",
    "opaque",
    "read_fact",
    "remade",
    "settle",
]

INSIDE = 1
"""The number of the first item of a node whose true number nobody knows. Not 0: that would be the
beginning of the epoch."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One way to have a node go on in the middle of an epoch.

    Attributes:
        first: number of the first item that it gives then.
        reads: for each input, the number of the first item that it is given then.
        state: what the stage said of itself.
        head: key of the node that the first of the per-item stages reads that end with this one:
            `reads` is of that one. None: of the node's own inputs.
    """

    first: int
    reads: tuple[int, ...]
    state: Any = None
    head: str | None = None

    def to_json(self) -> list[Any]:
        """Return it in values of JSON."""
        made = [self.first, list(self.reads), self.state, self.head]
        while made[-1] is None:
            made.pop()
        return made

    @classmethod
    def of_json(cls, values: Any) -> Fact:
        """The inverse of `to_json`.

        Raises:
            ResumeError: it is none.
        """
        try:
            first, reads, state, head = (*values, None, None)[:4]
            return cls(int(first), tuple(int(one) for one in reads), state, head)
        except (TypeError, ValueError) as error:
            raise ResumeError(
                f"a saved state holds {values!r} of a stage: it is damaged"
            ) from error


class Facts:
    """What is known of the nodes of a graph in one epoch, by their keys.

    Example:
        >>> facts = Facts({"keep": [Fact(0, (0,)), Fact(7, (20,)), Fact(9, (31,))]})
        >>> facts.before("keep", 8)
        Fact(first=7, reads=(20,), state=None, head=None)
    """

    def __init__(self, facts: Mapping[str, Iterable[Fact]] | None = None) -> None:
        self._facts: dict[str, list[Fact]] = {}
        for key, some in (facts or {}).items():
            self._facts[key] = list(some)

    def add(self, key: str, fact: Fact) -> None:
        """One more thing is known."""
        self._facts.setdefault(key, []).append(fact)

    def items(self) -> Iterator[tuple[str, Fact]]:
        """Yield them all, with their keys."""
        for key, some in self._facts.items():
            for fact in some:
                yield key, fact

    def read(self, key: str) -> Fact | None:
        """Return the one that says that most items of a source were read (`read_fact`)."""
        said = [fact for fact in self._facts.get(key, ()) if had(fact)]
        return max(said, key=had, default=None)

    def before(self, key: str, wanted: int) -> Fact | None:
        """Return the one from which item `wanted` is nearest."""
        fitting = [fact for fact in self._facts.get(key, ()) if fact.first <= wanted]
        return max(fitting, key=lambda fact: fact.first, default=None)


def read_fact(count: int) -> Fact:
    """Return what is known of a source without random access of which `count` items were read."""
    return Fact(0, (), {"read": count})


def had(fact: Fact) -> int:
    """Return how many items a source had given where `fact` says that of one, else 0."""
    known = fact.state.get("read") if isinstance(fact.state, dict) else None
    return known if isinstance(known, int) else 0


@dataclass(frozen=True)
class Settled:
    """Where the nodes of a graph begin.

    Attributes:
        starts: of those that do not begin at the beginning.
        used: the facts that this rests on, by key.
        wanted: for each node, the number of the first of its items that anybody wants.
        least: for each node, how many items it has given before, at least.
    """

    starts: dict[Node, Start] = field(default_factory=dict)
    used: dict[str, Fact] = field(default_factory=dict)
    wanted: dict[Node, int] = field(default_factory=dict)
    least: dict[Node, int] = field(default_factory=dict)

    def first(self, node: Node) -> int:
        """Return the number of the first item that `node` gives."""
        start = self.starts.get(node)
        return 0 if start is None else start.first


@dataclass(frozen=True)
class Resume:
    """What a run is told when it is to go on in the middle of an epoch.

    Attributes:
        epoch: the first that is run.
        outputs: by name, the number of the first item that is wanted of an output in that epoch;
            one that is not named is not wanted in it.
        facts: what is known.
        nodes: by key, the number of the first item that is wanted of a node, as if it were an
            output.
        sought: names of outputs that nobody has read so far: their numbers were only named.
    """

    epoch: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    nodes: Mapping[str, int] = field(default_factory=dict)
    sought: frozenset[str] = frozenset()


def keys_of(graph: Graph) -> dict[Node, str]:
    """Return a key for every node: the name of a stage; sources are numbered."""
    made: dict[Node, str] = {}
    sources = 0
    for node in graph.nodes:
        if node.stage is not None:
            made[node] = node.stage.name
        else:
            made[node] = f"source {sources}"
            sources += 1
    return made


def settle(
    graph: Graph,
    keys: Mapping[Node, str],
    resume: Resume,
    blocked: frozenset[Node] = frozenset(),
) -> Settled:
    """Return where each node begins.

    Args:
        graph: what is to be run.
        keys: of its nodes.
        resume: what is wanted, and what is known.
        blocked: nodes that have to begin at the beginning.
    """
    made = Settled()
    inside: set[Node] = set()
    for node in graph.nodes:
        if (count := resume.nodes.get(keys[node])) is not None:
            _want(made, node, count, count)
    for name, node in graph.outputs.items():
        if (count := resume.outputs.get(name)) is not None:
            _want(made, node, count, 0 if name in resume.sought else count)
    for node in reversed(graph.nodes):
        if node not in inside:
            inside.update(_settle(node, graph, keys, resume.facts, made, node in blocked))
    return made


def _want(made: Settled, node: Node, count: int, least: int) -> None:
    made.wanted[node] = min(count, made.wanted.get(node, count))
    made.least[node] = max(least, made.least.get(node, 0))


def _settle(
    node: Node,
    graph: Graph,
    keys: Mapping[Node, str],
    facts: Facts,
    made: Settled,
    blocked: bool,
) -> list[Node]:
    """Settle one node, whose readers are; return the nodes that are settled with it."""
    count = made.wanted.get(node, 0)
    if node.stage is None:
        if count > 0:
            most = node.positions if isinstance(node.source, SequenceSource) else None
            made.starts[node] = Start(count if most is None else min(count, most))
        if (read := facts.read(keys[node])) is not None and not node.frozen:
            made.used[keys[node]] = read
            made.least[node] = max(had(read), made.least.get(node, 0))
        return []
    operation = node.stage.operation
    needs = None if opaque(operation) or blocked else operation.needs(count)
    fact: Fact | None = None
    if count > 0 and needs is None and not opaque(operation) and not blocked:
        fact = facts.before(keys[node], count)
    if fact is not None and fact.head is not None:
        found = _stretch(node, fact, keys, made)
        if found:
            made.used[keys[node]] = fact
            return found
        fact = None
    if count > 0 and needs is not None:
        start = Start(count, (needs,) * len(node.inputs))
    elif fact is not None and len(fact.reads) == len(node.inputs):
        start = Start(fact.first, fact.reads, fact.state)
        made.used[keys[node]] = fact
    else:
        start = Start(0, (0,) * len(node.inputs))
    if start.first > 0 or any(start.reads):
        made.starts[node] = start
    first = None
    if fact is not None and (start.first, start.reads) == (fact.first, fact.reads):
        first = fact.first
    for one, number in zip(node.inputs, start.reads, strict=True):
        _want(made, one, number, _least(node, made, first, number, start.state))
    return []


def _least(node: Node, made: Settled, first: int | None, reads: int, state: Any) -> int:
    """Return how many items an input of `node` had at least.

    Args:
        node: whose readers are settled.
        made: so far.
        first: the number of an item before which it had read `reads` of them; None: not known.
        reads: see `first`.
        state: what it said of itself there.
    """
    assert node.stage is not None
    operation, given = node.stage.operation, made.least.get(node, 0)
    if opaque(operation):
        return 0
    if first is None:
        return operation.least(given)
    # Numbers of its inputs may begin anew with the fact (`INSIDE`): only what came since is added.
    # And it may never have given all before `first`: who reads it asks for full batches of it.
    since = given - first
    if isinstance(state, dict):  # what it held is read again, up to what it had read last
        reads = max(reads, state.get("taken", 0))
    return max(0, reads + (since if operation.leaves_out else min(0, since)))


def opaque(operation: Operation) -> bool:
    """Whether nothing can be known of an operation: it asks for several passes over its inputs, or
    for another epoch of them.
    """
    return operation.reopens or operation.first_epoch


def _stretch(node: Node, fact: Fact, keys: Mapping[Node, str], made: Settled) -> list[Node]:
    """Settle the per-item stages that end with `node` and begin behind the head of `fact`; return
    those before `node`, or nothing where there is no such head.
    """
    line = [node]
    while len(line[-1].inputs) == 1 and keys[line[-1].inputs[0]] != fact.head:
        line.append(line[-1].inputs[0])
        if line[-1].stage is None:
            return []
    if len(line[-1].inputs) != 1 or len(fact.reads) != 1:
        return []
    (number,) = fact.reads
    least = number - max(0, fact.first - made.least.get(node, 0))
    _want(made, line[-1].inputs[0], number, max(0, least))
    known = True
    for one in reversed(line):
        assert one.stage is not None
        ratio = one.stage.operation.ratio
        known = known and ratio is not None
        behind = number // (ratio or 1) if known else INSIDE
        if one is node:
            behind = fact.first
        made.starts[one] = Start(behind, (number,))
        made.wanted.setdefault(one, behind)
        number = behind
    return [one for one in line if one is not node] or [node]


def as_facts(settled: Settled, keys: Mapping[Node, str]) -> Facts:
    """Return what is known of a run that began as settled: that it began so."""
    made = Facts()
    for node, start in settled.starts.items():
        if node.stage is not None:
            made.add(keys[node], Fact(start.first, start.reads, start.state))
    for key, fact in settled.used.items():
        if had(fact):
            made.add(key, fact)
    return made


def inconsistent(nodes: Iterable[Node], settled: Settled) -> list[Node]:
    """Return those of `nodes` that would have to throw away items of others of them: workers of a
    pool cannot, since each of them sees a part of the stream only.
    """
    own = set(nodes)
    return [
        node
        for node in own
        for number, one in enumerate(node.inputs)
        if one in own and one.stage is not None
        if _read(node, number, settled) != settled.first(one)
    ]


def _read(node: Node, number: int, settled: Settled) -> int:
    start = settled.starts.get(node)
    return start.reads[number] if start is not None and start.reads else 0


def dropped(node: Node, number: int, settled: Settled) -> int:
    """Return how many items of input `number` `node` has to throw away at its beginning."""
    return max(0, _read(node, number, settled) - settled.first(node.inputs[number]))


def remade(graph: Graph, settled: Settled) -> dict[str, int]:
    """Return how many items each node makes, or reads, again, by its name; those that do none are
    left out.
    """
    made: dict[str, int] = {}
    for node in graph.nodes:
        again = settled.wanted.get(node, 0) - settled.first(node)
        if node.source is not None and not isinstance(node.source, SequenceSource):
            again = settled.first(node)  # it can only be read from its beginning
        start = settled.starts.get(node)
        if again <= 0 and start is not None and isinstance(start.state, dict):
            again = start.state.get("taken", 0) - start.reads[0]  # what it held is read again
        if again > 0:
            made[node.name] = max(again, made.get(node.name, 0))
    return made


def bounded(resume: Resume, epochs: int | None) -> Resume:
    """Return `resume`, not beyond the last epoch."""
    if epochs is None or resume.epoch < epochs:
        return resume
    return replace(resume, epoch=epochs, outputs={}, nodes={})
