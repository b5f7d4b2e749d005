"""Where worker processes sit: their CPUs, and how many threads numeric libraries have there.

Responsible for: `seats`, which gives every worker process its own, and saying so.

Rules:
- worker processes together have no more threads of numeric libraries than there are CPUs, unless
  the user has decided otherwise (see `splitpipe.runtime.maththreads`);
- on a machine with several NUMA nodes the workers of a task are spread over them, and stay;
- where there is nothing to divide nothing is touched; threads of the consumer's process never are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from splitpipe.runtime.allowance import Allowance, allowance, lay_out, threads_each
from splitpipe.runtime.maththreads import can_tell, decided
from splitpipe.runtime.seat import Seat

if TYPE_CHECKING:
    from splitpipe.pipeline.plan import Plan, RunOptions, Task

__all__ = ["explain_seats", "seats", "tell"]


def seats(tasks: Sequence[Task], allowed: Allowance | None = None) -> list[Seat]:
    """Return the seat of every worker of `tasks`, in their order.

    Args:
        tasks: of a plan.
        allowed: what there is to divide; this machine unless given.
    """
    allowed = allowed or allowance()
    threads = _threads(tasks, allowed)
    made: list[Seat] = []
    for task in tasks:
        if task.executor == "process":
            made += [Seat(cpus, threads) for cpus in lay_out(allowed, task.workers)]
        else:
            made += [Seat()] * task.workers
    return made


def explain_seats(plan: Plan, allowed: Allowance | None = None) -> str:
    """Return a line on what worker processes share, an empty text where there are none.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.pipeline.plan import RunOptions, plan
        >>> made = plan({"": sp.Pipeline(range(9)).map(abs, workers=4).node}, RunOptions())
        >>> machine = Allowance(frozenset(range(8)))
        >>> print(explain_seats(made, machine))  # doctest: +SKIP
        numeric libraries: 2 threads in each worker process (8 CPUs)
    """
    if not any(task.executor == "process" for task in plan.tasks):
        return ""
    allowed = allowed or allowance()
    name = decided()
    if name is not None:
        text = f"numeric libraries: as {name} says"
    else:
        count = _threads(plan.tasks, allowed)
        each = "as many threads as they like" if count is None else _plural(count, "thread")
        text = f"numeric libraries: {each} in each worker process ({allowed.cores:g} CPUs)"
        if count is not None and not can_tell():
            text += "; those that are loaded with numpy stay as they are without threadpoolctl"
    if len(allowed.nodes) > 1:
        text += f"; workers spread over {len(allowed.nodes)} NUMA nodes"
    return text


def _threads(tasks: Sequence[Task], allowed: Allowance) -> int | None:
    processes = sum(task.workers for task in tasks if task.executor == "process")
    if decided() is not None or processes < 2:
        return None
    return threads_each(allowed, processes)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def tell(plan: Plan, options: RunOptions) -> str:
    """Return a plan in words, and what its workers share of this machine."""
    from splitpipe.pipeline.explain import explain  # workers do not

    return "\n".join(filter(None, (explain(plan, options), explain_seats(plan))))
