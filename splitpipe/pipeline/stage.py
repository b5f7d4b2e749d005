"""A stage of a graph: an operation, its name, and how it is run.

Responsible for: the options that every stage takes, and checking counts that users give.
"""

from __future__ import annotations

from dataclasses import dataclass

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Operation

__all__ = ["Stage", "StageOptions", "check_choice", "check_count"]


def check_count(what: str, value: object, *, least: int) -> None:
    """Refuse what is not None and not a whole number of at least `least`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GraphError(f"{what} must be a whole number of at least {least}, not {value!r}")


STAGE_EXECUTORS = ("inline", "thread", "process")


@dataclass(frozen=True)
class StageOptions:
    """How a stage is run; none of it changes what comes out."""

    workers: int | None = None
    ordered: bool = True
    capacity: int | None = None
    executor: str | None = None

    def __post_init__(self) -> None:
        check_count("workers", self.workers, least=0)
        check_count("capacity", self.capacity, least=1)
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
        kind = type(self.operation).__name__.lower()
        workers = self.options.workers
        return f"{kind}({self.name})" + ("" if workers is None else f" x {workers}")
