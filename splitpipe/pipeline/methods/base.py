"""What the methods of a `Pipeline` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self, TypedDict

from splitpipe.errors import GraphError
from splitpipe.pipeline.stage import StageOptions
from splitpipe.pipeline.stages import Operation

__all__ = ["Methods", "PoolOptions", "StreamOptions", "function_of", "stage_options"]


class StreamOptions(TypedDict, total=False):
    """How a stage over a whole stream is run; none of it changes what comes out.

    Attributes:
        workers: 1 for a process of its own, 0 for the consumer's; None to ride along.
        capacity: most messages under way to its reader.
        executor: ``"process"``, ``"thread"`` or ``"inline"``; None: as the loader says.
        deadline_s: most seconds that its own code may take over one item in a worker process, which
            is replaced after that; None: what the loader says.
        name: how the stage is called in messages and statistics.
    """

    workers: int | None
    capacity: int | None
    executor: str | None
    deadline_s: float | None
    name: str | None


class Methods(ABC):
    """A mixin of `Pipeline`: every method describes one stage more and returns a new value."""

    @abstractmethod
    def _with(
        self,
        operation: Operation,
        name: str | None = None,
        options: StageOptions = StageOptions(),  # noqa: B008  a frozen value
        others: Iterable[Any] = (),
    ) -> Self:
        """Return the pipeline with a stage more, which reads this one and `others`."""

    @abstractmethod
    def _branch(self, label: Any, begin: Any) -> tuple[Operation, ...]:
        """Return the operations that the function `begin` puts behind a pipeline."""

    @abstractmethod
    def _fingerprint(self) -> str:
        """Return what stands for the whole graph up to here."""

    def _stream(self, operation: Operation, options: StreamOptions | PoolOptions) -> Self:
        """Return the pipeline with a stage over the whole stream more."""
        return self._with(operation, options.get("name"), stage_options(options))


class PoolOptions(StreamOptions, total=False):
    """How a stage is run that treats each item by itself, and may have any number of workers.

    Attributes:
        ordered: False lets items overtake one another between workers.
    """

    ordered: bool


def stage_options(options: StreamOptions | PoolOptions) -> StageOptions:
    """Return what `options` say of running a stage."""
    return StageOptions(
        options.get("workers"),
        bool(options.get("ordered", True)),
        options.get("capacity"),
        options.get("executor"),
        deadline_s=options.get("deadline_s"),
    )


def function_of(stage: str, function: Any) -> Any:
    """Return `function`, or refuse what cannot be called."""
    if not callable(function):
        raise GraphError(f"{stage} needs a function, not {function!r}")
    return function
