"""What nobody reads any more, since the readers of some outputs of a run are gone.

Responsible for: `forsaken`, a pure function of a plan; who writes to such an edge is told by the
owner of the run, directly. Word would get there from reader to writer, too, but a worker that has
much to do, or has not begun yet, passes it on late: others that share a stream with it would be
told meanwhile that it is not read.
"""

from __future__ import annotations

from collections.abc import Collection

from splitpipe.pipeline.plan import Plan

__all__ = ["forsaken"]


def forsaken(plan: Plan, outputs: Collection[int]) -> frozenset[int]:
    """Return the edges of `plan` that matter to none but `outputs`.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.pipeline.plan import RunOptions, plan
        >>> source = sp.Pipeline(lambda: iter(range(9))).map(abs, workers=1)
        >>> two = {"a": source.map(abs, workers=2), "b": source}
        >>> made = plan({name: pipe.node for name, pipe in two.items()}, RunOptions())
        >>> [sorted(forsaken(made, outputs)) for outputs in ((0,), (1,), (0, 1))]
        [[0, 1], [2], [0, 1, 2]]
    """
    edges = {edge for number in outputs for edge in plan.locals[number].inputs}
    for task in reversed(plan.tasks):
        if edges.issuperset(task.outputs):
            edges.update(task.inputs)
    return frozenset(edges)
