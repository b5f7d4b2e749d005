"""A stage of a graph: an operation, its name, and how it is run.

Responsible for: the options that every stage takes, and checking counts that users give.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from splitpipe.errors import GraphError
from splitpipe.pipeline.resources import Resources, resources_of
from splitpipe.pipeline.stages.base import Operation
from splitpipe.pipeline.stages.checks import whole

__all__ = [
    "Stage",
    "StageOptions",
    "Workers",
    "check_choice",
    "check_count",
    "check_seconds",
    "settle_counts",
]

Workers: TypeAlias = int | Literal["auto"] | None
"""How many workers a user asks for: ``"auto"`` lets the run find out."""

MOST_WORKERS = 64
"""How many are found out at most."""


def check_count(what: str, value: object, *, least: int) -> Any:
    """Return `value`, which may be one of numpy's, as an int; None as it is.

    Raises:
        GraphError: it is no whole number of at least `least`.
    """
    return None if value is None else whole(what, value, least=least)


def settle_counts(options: object, **least: int) -> None:
    """Check counts among the fields of a frozen dataclass, by the least they may be; for its
    ``__post_init__``.
    """
    for name, smallest in least.items():
        value = check_count(name, getattr(options, name), least=smallest)
        object.__setattr__(options, name, value)


def check_seconds(what: str, value: object) -> None:
    """Refuse what is not None and not a number of seconds above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise GraphError(f"{what} must be a number of seconds above 0, not {value!r}")


STAGE_EXECUTORS = ("inline", "thread", "process", "ray")


@dataclass(frozen=True)
class StageOptions:
    """How a stage is run; none of it changes what comes out."""

    workers: int | None = None
    ordered: bool = True
    capacity: int | None = None
    executor: str | None = None
    auto: bool = False
    """Whether `workers` is only the most of them, and the run finds out how many pay."""
    deadline_s: float | None = None
    """Most seconds in its own code for one item; None: what the run says."""
    resources: Resources | None = None
    """What a worker of it has of a cluster; None: what the run says."""

    @classmethod
    def of(
        cls, workers: Workers, ordered: bool, capacity: int | None, executor: str | None
    ) -> StageOptions:
        """Return the options that a user gave in these words."""
        if not isinstance(workers, str) or workers != "auto":
            return cls(workers, ordered, capacity, executor)
        return cls(_worth_trying(), ordered, capacity, executor, auto=True)

    def __post_init__(self) -> None:
        settle_counts(self, workers=0, capacity=1)
        check_seconds("deadline_s", self.deadline_s)
        object.__setattr__(self, "resources", resources_of(self.resources))
        if self.executor is None:
            return
        check_choice("executor", self.executor, STAGE_EXECUTORS)
        if self.executor == "inline" and self.workers:
            raise GraphError(
                f"a stage with executor='inline' runs in the consumer's own process and cannot "
                f"have {self.workers} workers; leave workers= out, or ask for threads or processes"
            )
        if self.executor != "inline" and self.workers == 0:
            raise GraphError(
                f"workers=0 is the consumer's own process, executor={self.executor!r} asks for "
                "another; leave one of them out"
            )
        if self.executor == "inline":
            object.__setattr__(self, "workers", 0)


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of `choices`."""
    if value not in choices:
        raise GraphError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True)
class Stage:
    """A node of the graph: an operation, its name, its options."""

    operation: Operation
    name: str
    options: StageOptions = StageOptions()

    def __repr__(self) -> str:
        kind = self.operation.kind
        workers = self.options.workers
        many = "auto" if self.options.auto else workers
        policy = getattr(self.operation, "policy", None)
        told = self.name  # which says its kind, where nobody gave another: batch(4)
        if told.startswith(f"{kind}(") and told.endswith(")"):
            told = told[len(kind) + 1 : -1]
        if policy is not None:
            told += f", on_error={policy}"
        return f"{kind}({told})" + ("" if workers is None else f" x {many}")


def _worth_trying() -> int:
    """How many workers could be worth it here; two at least, so that they share their work."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 2
    return max(2, min(cpus, MOST_WORKERS))
