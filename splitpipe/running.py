"""Between describing and running: what is imported, and started, when a pipeline is first run.

Responsible for: loading `splitpipe.outputs` when it is needed and not before: a program that only
describes pipelines, or imports those of others, pays nothing for it.

Rules:
- where processes will be needed, their server begins first, and imports what it needs while this
  process does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splitpipe.pipeline.builder import Pipeline, set_runner
from splitpipe.pipeline.plan import Plan, RunOptions, plan
from splitpipe.runtime.forking import warm_up

if TYPE_CHECKING:
    from splitpipe.loader import Loader

__all__ = ["Pipeline"]


def _start(
    outputs: Mapping[str, Pipeline],
    options: RunOptions,
    states: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Loader]:
    """Start one run that makes all `outputs`."""
    if _wants_processes(outputs, options):
        warm_up(options.start_method)
    from splitpipe.outputs import start  # from now on it is what runs pipelines

    return start(outputs, options, states)


def _tell(plan: Plan, options: RunOptions) -> str:
    from splitpipe.runtime.seats import tell

    return tell(plan, options)


def _wants_processes(outputs: Mapping[str, Pipeline], options: RunOptions) -> bool:
    """Whether a stage will lie in a process of its own."""
    made = plan({name: pipeline.node for name, pipeline in outputs.items()}, options)
    return any(task.executor == "process" for task in made.tasks)


set_runner(_start, _tell)
