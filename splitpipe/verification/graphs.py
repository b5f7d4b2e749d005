"""The user's graph, and others like it.

Responsible for: `settled`, a graph whose stages keep their names wherever it is cut; `varied`, the
same graph run in another way; and `prefixes`, the graphs that end at each of its nodes.

Rules:
- a varied graph has the same nodes, operations and names: its stream must be the same;
- a stage keeps what it was called in the whole graph, since its random numbers depend on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from splitpipe.pipeline.builder import Pipeline, pipeline_of
from splitpipe.pipeline.graph import Node, unique_names, walk
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stage import Stage, StageOptions

__all__ = ["prefixes", "settled", "unordered", "varied", "with_seed"]


def settled(pipeline: Pipeline) -> Pipeline:
    """Return the graph with the names that its stages have in it, as their own.

    Example:
        >>> import splitpipe as sp
        >>> [stage.name for stage in settled(sp.Pipeline([1]).map(abs).map(abs)).stages]
        ['abs', 'abs-2']
    """
    names = unique_names(walk([pipeline.node]))

    def named(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.stage is None:
            return replace(node, inputs=inputs)
        return replace(node, stage=replace(node.stage, name=names[node]), inputs=inputs)

    return _rebuilt(pipeline, named)


def varied(pipeline: Pipeline, workers: int | None) -> Pipeline:
    """Return the graph with other workers.

    Args:
        pipeline: a settled one.
        workers: 0: every stage runs in the consumer's process; n: every stage that treats each item
            by itself has n workers of its own; None: as the user said.
    """
    if workers is None:
        return pipeline

    def run_otherwise(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.stage is None:
            return replace(node, inputs=inputs)
        return replace(node, stage=_with_workers(node.stage, workers), inputs=inputs)

    return _rebuilt(pipeline, run_otherwise)


def with_seed(pipeline: Pipeline, seed: int) -> Pipeline:
    """Return the graph with another seed.

    Example:
        >>> import splitpipe as sp
        >>> one, two = (sp.Pipeline(range(9), shuffle="global", seed=seed) for seed in (1, 2))
        >>> list(with_seed(one, 2)) == list(two) != list(one)
        True
    """

    def seeded(node: Node, inputs: tuple[Node, ...]) -> Node:
        source = node.source
        if isinstance(source, SequenceSource):
            source = replace(source, seed=seed)
        return replace(node, inputs=inputs, source=source, seed=seed if source is not None else 0)

    return _rebuilt(pipeline, seeded)


def prefixes(pipeline: Pipeline) -> list[tuple[str, Pipeline]]:
    """Return what each node is called, and the graph that ends there, sources first."""
    return [(node.name, pipeline_of(node)) for node in walk([pipeline.node])]


def unordered(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names of stages that give up the order (``ordered=False``)."""
    return tuple(stage.name for stage in pipeline.stages if not stage.options.ordered)


def _with_workers(stage: Stage, workers: int) -> Stage:
    capacity = stage.options.capacity
    if workers == 0:
        return replace(stage, options=StageOptions(workers=0, capacity=capacity))
    many = workers if stage.operation.per_item else None
    return replace(stage, options=StageOptions(workers=many, capacity=capacity))


def _rebuilt(pipeline: Pipeline, make: Callable[[Node, tuple[Node, ...]], Node]) -> Pipeline:
    """Return the same graph of nodes that `make` made; what was a branch still is one."""
    made: dict[Node, Node] = {}
    for node in walk([pipeline.node]):
        made[node] = make(node, tuple(made[one] for one in node.inputs))
    return pipeline_of(made[pipeline.node])
