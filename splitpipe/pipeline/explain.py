"""A plan in words.

Responsible for: `explain`, the text that tells a user which process does what, what may lie
between them, and how much shared memory that takes at most. It decides nothing.
"""

from __future__ import annotations

from splitpipe.pipeline.plan import Local, Plan, RunOptions, Task
from splitpipe.pipeline.telling import rank_notes

__all__ = ["explain"]


def explain(plan: Plan, options: RunOptions) -> str:
    """Return one line a source, one a task, and one for the consumer's process."""
    lines: list[str] = []
    bodies = [task.body for task in plan.tasks] + [local.body for local in plan.locals]
    for body in bodies:
        for part in body.parts:
            if part.source is not None:
                known = "unknown" if part.positions is None else f"{part.positions:,}"
                lines.append(f"source {part.source!r}: {known} positions an epoch")
    lines += rank_notes(bodies)
    origin: dict[int, int] = {}
    for number, task in enumerate(plan.tasks, 1):
        lines.append(f"{number}. {_describe(plan, task, number, origin)}")
        origin.update(dict.fromkeys(task.outputs, number))
    lines += [_consumer(plan, local, origin) for local in plan.locals]
    if plan.tasks:
        workers = sum(task.workers for task in plan.tasks)
        lines.append(
            f"arena: at most {_size(plan.arena_bytes)} of shared memory in all, "
            f"{_size(plan.arena_limit)} for each of {workers} worker{'s' * (workers > 1)}; "
            f"channel: {options.transport}"
        )
    return "\n".join(lines)


def _describe(plan: Plan, task: Task, number: int, origin: dict[int, int]) -> str:
    reads = "reads the source, " if any(p.positions is not None for p in task.body.parts) else ""
    before = sorted({origin[edge] for edge in task.inputs})
    if before and before != [number - 1]:
        reads += f"reads {_numbers(before)}, "
    one = "actor" if task.executor == "ray" else task.executor
    many = "processes" if one == "process" else f"{one}s"
    who = f"1 {one}" if task.workers == 1 else f"{task.workers} {many}"
    if task.auto:
        who = f"1 to {who}, as many as pay"
    how = ""
    if task.pool:
        how = ", results in order" if task.ordered else ", results as they come"
        if task.unit > 1:
            how += f", units of {task.unit} positions"
        if task.splits:
            how += ", or in parts of a batch where one costs long"
    if len(task.outputs) > 1:
        how += f", {len(task.outputs)} outputs"
    return (
        f"{task.name}: {reads}{who}{how}; at most {task.window} units under way, "
        f"{task.slots} slots a worker"
    )


def _consumer(plan: Plan, local: Local, origin: dict[int, int]) -> str:
    stages = " > ".join(stage.name for stage in local.stages) or "nothing but receiving"
    before = sorted({origin[edge] for edge in local.inputs})
    reads = ""
    if before and (len(plan.locals) > 1 or before != [len(plan.tasks)]):
        reads = f"reads {_numbers(before)}, "
    name = ", ".join(name for name in local.names if name)
    return f"consumer's process{f' ({name})' if name else ''}: {reads}{stages}"


def _numbers(tasks: list[int]) -> str:
    return " and ".join(f"{number}." for number in tasks)


def _size(nbytes: int) -> str:
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.4g} {unit}"
