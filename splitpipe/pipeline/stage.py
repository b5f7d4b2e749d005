"""A stage of a graph: an operation, its name, and how it is run.

Responsible for: the options that every stage takes, and checking counts that users give.
"""

from __future__ import annotations

from dataclasses import dataclass

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Operation

__all__ = ["Stage", "StageOptions", "check_count"]


def check_count(what: str, value: object, *, least: int) -> None:
    """Refuse what is not None and not a whole number of at least `least`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GraphError(f"{what} must be a whole number of at least {least}, not {value!r}")


@dataclass(frozen=True)
class StageOptions:
    """How a stage is run; none of it changes what comes out."""

    workers: int | None = None
    ordered: bool = True
    capacity: int | None = None

    def __post_init__(self) -> None:
        check_count("workers", self.workers, least=0)
        check_count("capacity", self.capacity, least=1)


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
