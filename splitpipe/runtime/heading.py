"""What the board of a run says about its plan.

Responsible for: `heading_of`, and the numbers by which stages are known on a board: those of the
parts of a body that are no inputs, in their order.
"""

from __future__ import annotations

import os
import sys

from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.plan import Plan, RunOptions
from splitpipe.pipeline.source import SequenceSource
from splitpipe.runtime.board import Heading, StageHead, TaskHead

__all__ = ["heading_of", "program_name"]


def heading_of(plan: Plan, options: RunOptions, run: int) -> Heading:
    """Return the heading of a run of `plan`, with number `run`."""
    writers = {edge: number for number, task in enumerate(plan.tasks) for edge in task.outputs}
    tasks = [
        TaskHead(
            name=task.name,
            workers=task.workers,
            stages=_stages(task.body),
            reads=tuple(writers[edge] for edge in task.inputs),
            executor=task.executor,
            pool=task.pool,
            source=_reads_source(task.body),
            divisible=task.pool or _divisible(task.body),
        )
        for task in plan.tasks
    ]
    tasks += [
        TaskHead(
            name=" > ".join(stage.name for stage in local.stages) or "consumer",
            workers=1,
            stages=_stages(local.body),
            reads=tuple(writers[edge] for edge in local.inputs),
            executor="consumer",
            source=_reads_source(local.body),
        )
        for local in plan.locals
    ]
    return Heading(
        tasks=tuple(tasks),
        run=run,
        title=program_name(),
        pid=os.getpid(),
        options={"transport": options.transport, "prefetch": options.prefetch},
    )


def program_name() -> str:
    """Return what this program is called in lists of running pipelines."""
    return sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"


def _stages(body: Body) -> tuple[StageHead, ...]:
    return tuple(_stage(part) for part in body.parts if part.edge is None)


def _stage(part: Part) -> StageHead:
    if part.stage is not None:
        return StageHead(part.stage.name, tuple(part.stage.operation.measures))
    assert part.source is not None
    return StageHead(part.source.name)


def _reads_source(body: Body) -> bool:
    return any(part.source is not None for part in body.parts)


def _divisible(body: Body) -> bool:
    """Whether its stages may have several workers: see `splitpipe.pipeline.placing`."""
    if len(body.heads) != 1 or len(body.outputs) != 1 or not body.stages:
        return False
    counted = isinstance(body.source, SequenceSource)
    for stage in body.stages:
        counted = counted and stage.operation.ratio is not None
        if not (stage.operation.per_item or counted):
            return False
    return True
