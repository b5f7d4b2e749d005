"""What a run's statistics say of ranks.

Responsible for: `Ranks`, which puts what a rank has of each source beside what its stages did.

Rules:
- it is worked out when somebody asks, in the process that asks, and once an epoch: a plan of costs
  is made for it where there is one, which takes time and reads no payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.plan import Plan
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.telling import RankStatistics, rank_statistics
from splitpipe.runtime.statistics import TaskStatistics

__all__ = ["Ranks"]


class Ranks:
    """What this rank has of the sources of a plan.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._known: dict[int, tuple[int, RankStatistics | None]] = {}

    def added(
        self, tasks: Sequence[TaskStatistics], consumer: int, epoch: int
    ) -> tuple[TaskStatistics, ...]:
        """Return `tasks`, the last of which is a `consumer`, with what is known of ranks."""
        bodies = [task.body for task in self._plan.tasks] + [self._plan.locals[consumer].body]
        return tuple(
            self._task(task, body, epoch) for task, body in zip(tasks, bodies, strict=True)
        )

    def _task(self, task: TaskStatistics, body: Body, epoch: int) -> TaskStatistics:
        parts = [part for part in body.parts if part.edge is None]
        if not any(isinstance(p.source, SequenceSource) and p.source.deal for p in parts):
            return task
        stages = tuple(
            replace(stage, ranks=self._of(part, epoch))
            for stage, part in zip(task.stages, parts, strict=True)
        )
        return replace(task, stages=stages)

    def _of(self, part: Part, epoch: int) -> RankStatistics | None:
        if not isinstance(part.source, SequenceSource):
            return None
        epoch = 0 if part.frozen else epoch
        known = self._known.get(id(part))
        if known is None or known[0] != epoch:
            known = self._known[id(part)] = epoch, rank_statistics(part.source, epoch)
        return known[1]
