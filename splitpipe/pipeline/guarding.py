"""Which stages of a graph may leave items out.

Responsible for: giving operations and sources their policies: `guarded`, what a user says of one
stage, and `with_policies`, what he says of a whole run.

Rules:
- a policy is a part of what a stage does: it decides what comes out;
- what is said of a stage counts more than what is said of the run;
- the policy of a run is for stages that treat each item by itself, and for sources with random
  access. A stage over a whole stream, and a source that can only be read from its beginning, end
  with what they raise;
- records that cannot be read are left out by a stage of its own right behind each copy of their
  source (`read_by`): so all that is true of stages is true of reading, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from splitpipe.errors import GraphError
from splitpipe.pipeline import stages as operations  # each is imported when it is first named
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages.base import Operation
from splitpipe.pipeline.stages.guarded import Guarded
from splitpipe.pipeline.stages.policy import RAISE, Policy, policy_of

if TYPE_CHECKING:
    from splitpipe.pipeline.graph import Node

__all__ = [
    "Origin",
    "guarded",
    "guarded_source",
    "may_fail",
    "origin_of",
    "policies",
    "read_by",
    "with_policies",
]

READING = "reading"
"""What the stage is called that reads a source whose records may fail."""


def guarded(operation: Operation, on_error: object) -> Operation:
    """Return `operation` with what a user says about its failures; None: nothing.

    Raises:
        GraphError: that is no policy.
    """
    policy = policy_of(on_error)
    if policy is None:
        return operation
    if isinstance(operation, (operations.AsyncMap, operations.Batch)):
        return replace(operation, policy=policy)
    return Guarded(operation, policy)


def guarded_source(source: Source, on_error: object) -> Source:
    """Return `source` with what a user says about records that cannot be read.

    Raises:
        GraphError: it is no policy, or the source ends with its first failure.
    """
    policy = policy_of(on_error)
    if policy is None:
        return source
    if not isinstance(source, SequenceSource):
        raise GraphError(
            f"the source {source!r} takes no on_error: it can only be read from its beginning, and "
            "ends where it fails. Give a Sequence (len() and [i]), or let it yield what is to be "
            "read and read that in a map(..., on_error=...)"
        )
    return replace(source, on_error=policy)


def may_fail(operation: Operation) -> Policy | None:
    """Return the policy of an operation that has one."""
    policy: Policy | None = getattr(operation, "policy", None)
    return policy


def policies(stages: Iterable[Stage]) -> Iterator[Policy]:
    """Yield the policies of stages, and of what is done inside of them."""
    todo = [stage.operation for stage in stages]
    while todo:
        operation = todo.pop()
        policy = may_fail(operation)
        if policy is not None:
            yield policy
        if isinstance(operation, Guarded):
            todo.append(operation.operation)
        for branch in getattr(operation, "branches", {}).values():
            todo += branch


def with_policies(outputs: Mapping[str, Node], default: Policy | None) -> dict[str, Node]:
    """Return `outputs`, where every stage and source that says nothing has the policy `default`."""
    from splitpipe.pipeline.graph import walk  # it needs `read_by` of this module

    made: dict[Node, Node] = {}
    left_out: set[Node] = set()  # what may lack items because of the default
    for node in walk(outputs.values()):
        inputs = tuple(made[one] for one in node.inputs)
        lacks = any(one in left_out for one in node.inputs)
        if node.stage is not None:
            operation = _settled(node.stage.operation, default, lacks=lacks)
            changed = operation is not node.stage.operation
            stage = replace(node.stage, operation=operation) if changed else node.stage
            made[node] = replace(node, stage=stage, inputs=inputs)
        else:
            source = node.source
            if default is not None and isinstance(source, SequenceSource):
                source = replace(source, on_error=source.on_error or default)
            changed = source is not node.source
            made[node] = replace(node, source=source) if changed else node
        if lacks or (changed and default is not None and default.leaves_out):
            left_out.add(node)
    return {name: made[node] for name, node in outputs.items()}


def _settled(operation: Operation, default: Policy | None, *, lacks: bool) -> Operation:
    """Return what a stage does in this run."""
    if isinstance(operation, Guarded):
        return operation.operation if operation.policy == RAISE else operation
    if lacks and isinstance(operation, operations.Cache) and operation.fingerprint is not None:
        # Its file would lack items without anybody having said so of this graph.
        from splitpipe.pipeline.stages.fingerprint import fingerprint

        mark = fingerprint(operation.fingerprint, "left out", default)
        return replace(operation, fingerprint=mark)
    if default is None or default == RAISE:
        return operation
    if isinstance(operation, operations.AsyncMap):
        return operation if operation.policy is not None else replace(operation, policy=default)
    cannot_fail = (operations.Tee, operations.Pick, operations.Reading)
    if operation.per_item and not isinstance(operation, cannot_fail):
        return Guarded(operation, default)
    return operation


def read_by(node: Node, reader: int, taken: set[str]) -> Node:
    """Return what one reader of a source with random access reads: the source, or the stage that
    leaves out what cannot be read of it.

    Args:
        node: the source, this reader's own.
        reader: its number among all of the graph: its name does not depend on who may fail.
        taken: names of stages; what is added here has another, and is put in.
    """
    source = node.source
    if not isinstance(source, SequenceSource) or source.on_error is None:
        return node
    policy = source.on_error
    if policy == RAISE:
        return replace(node, source=replace(source, on_error=None))
    name = READING if reader == 1 else f"{READING}-{reader}"
    while name in taken:
        name += "'"
    taken.add(name)
    lenient = replace(node, source=replace(source, on_error=None, lenient=True))
    stage = Stage(Guarded(operations.Reading(), policy), name)
    return replace(node, stage=stage, source=None, inputs=(lenient,), seed=0)


@dataclass(frozen=True)
class Origin:
    """What gives the items of a stage their numbers.

    Attributes:
        name: it in words.
        source: that it is, where it is one and whoever runs the stage has it.
        frozen: whether that is in its first epoch in every epoch.
    """

    name: str
    source: SequenceSource | None = None
    frozen: bool = False


def origin_of(node: Node, own: set[Any]) -> Origin | None:
    """Return what numbers the items of a stage with a policy; None where it has none.

    Args:
        node: of the stage.
        own: the nodes that run in the same process.
    """
    if node.stage is None or may_fail(node.stage.operation) is None:
        return None
    before = node.inputs[0]
    while before.stage is not None and before.stage.operation.per_item:
        before = before.inputs[0]
    source = before.source
    if not isinstance(source, SequenceSource):
        return Origin(before.name)
    # A dataset travels as its path; another sequence may be anything.
    here = before in own or hasattr(source.sequence, "iterate")
    return Origin(repr(source), source if here else None, before.frozen)
