"""A plan in words.

Responsible for: `explain`, the text that tells a user which process does what, what may lie
between them, and how much shared memory that takes at most. It decides nothing.
"""

from __future__ import annotations

from splitpipe.pipeline.plan import Plan, RunOptions, Task
from splitpipe.pipeline.source import SequenceSource

__all__ = ["explain"]


def explain(plan: Plan, options: RunOptions) -> str:
    """Return one line a task."""
    source = plan.source
    known = "unknown" if plan.positions is None else f"{plan.positions:,}"
    lines = [f"source {source!r}: {known} positions an epoch"]
    for number, task in enumerate(plan.tasks):
        lines.append(f"{number + 1}. {_describe(plan, task, number == 0)}")
    stages = " > ".join(stage.name for stage in plan.local)
    lines.append(f"consumer's process: {stages or 'nothing but receiving'}")
    if plan.tasks:
        workers = sum(task.workers for task in plan.tasks)
        lines.append(
            f"arena: at most {_size(plan.arena_bytes)} of shared memory in all, "
            f"{_size(plan.arena_limit)} for each of {workers} worker{'s' * (workers > 1)}; "
            f"channel: {options.transport}"
        )
    return "\n".join(lines)


def _describe(plan: Plan, task: Task, first: bool) -> str:
    reads = "reads the source, " if first and isinstance(plan.source, SequenceSource) else ""
    who = "1 process" if task.workers == 1 else f"{task.workers} processes"
    how = ""
    if task.pool:
        how = ", results in order" if task.ordered else ", results as they come"
        if first and plan.unit > 1:
            how += f", units of {plan.unit} positions"
    return (
        f"{task.name}: {reads}{who}{how}; at most {task.window} units under way, "
        f"{task.slots} slots a worker"
    )


def _size(nbytes: int) -> str:
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.4g} {unit}"
