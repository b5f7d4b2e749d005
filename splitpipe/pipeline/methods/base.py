"""What the methods of a `Pipeline` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self, TypedDict

from splitpipe.errors import GraphError
from splitpipe.pipeline.resources import resources_of
from splitpipe.pipeline.stage import StageOptions, Workers
from splitpipe.pipeline.stages import Operation

__all__ = [
    "Methods",
    "PoolOptions",
    "StreamOptions",
    "function_of",
    "pool_options",
    "stage_options",
]


class _Options(TypedDict, total=False):
    capacity: int | None
    executor: str | None
    deadline_s: float | None
    resources: Mapping[str, float] | None
    name: str | None


class StreamOptions(_Options, total=False):
    """How a stage over a whole stream is run; none of it changes what comes out.

    Attributes:
        workers: 1 for a process of its own, 0 for the consumer's; None to ride along.
        capacity: most messages under way to its reader.
        executor: ``"process"``, ``"thread"``, ``"ray"`` or ``"inline"``; None: as the loader says.
        deadline_s: most seconds that its own code may take over one item in a worker process, which
            is replaced after that; None: what the loader says.
        resources: what each worker has of a Ray cluster, ``{"CPU": 1, "GPU": 0.5}`` say; a stage
            that asks for some has workers of its own. None: what the loader says.
        name: how the stage is called in messages and statistics.
    """

    workers: int | None


class PoolOptions(_Options, total=False):
    """How a stage is run that treats each item by itself, and may have any number of workers.

    Attributes:
        workers: how many run this stage and the ones that ride with it; 0 is the consumer's own
            process, None lets the stage ride with its neighbour, ``"auto"`` begins with one and
            adds more while that pays, up to the CPUs and the memory there are.
        ordered: False lets items overtake one another between workers.
        capacity: most units of work under way at a time; bounds memory, changes nothing else.
        executor: what the workers are: ``"process"``, ``"thread"``, ``"ray"`` (actors of a
            cluster), or ``"inline"`` for the consumer's own process; None: as for the whole run
            (see `Pipeline.loader`).
        deadline_s: as for `StreamOptions`.
        resources: as for `StreamOptions`.
        name: how the stage is called in messages and statistics.
    """

    workers: Workers
    ordered: bool


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

    def _stream(self, operation: Operation, options: StreamOptions) -> Self:
        """Return the pipeline with a stage over the whole stream more."""
        return self._with(operation, options.get("name"), stage_options(options))

    def _pooled(self, operation: Operation, options: PoolOptions) -> Self:
        """Return the pipeline with a stage more that may have any number of workers."""
        return self._with(operation, options.get("name"), pool_options(options))


def stage_options(options: StreamOptions) -> StageOptions:
    """Return what `options` say of running a stage.

    Raises:
        TypeError: there is no such option.
    """
    _check_names(options, StreamOptions)
    workers, executor = options.get("workers"), options.get("executor")
    made = StageOptions(workers, True, options.get("capacity"), executor)
    return _with_more(made, options)


def pool_options(options: PoolOptions) -> StageOptions:
    """As `stage_options`, for a stage that may have any number of workers."""
    _check_names(options, PoolOptions)
    workers, executor = options.get("workers"), options.get("executor")
    ordered = bool(options.get("ordered", True))
    made = StageOptions.of(workers, ordered, options.get("capacity"), executor)
    return _with_more(made, options)


def _with_more(made: StageOptions, options: StreamOptions | PoolOptions) -> StageOptions:
    resources = resources_of(options.get("resources"))
    return replace(made, deadline_s=options.get("deadline_s"), resources=resources)


def _check_names(options: Mapping[str, Any], known: Any) -> None:
    for name in options:
        if name not in known.__optional_keys__:
            raise TypeError(
                f"there is no option {name!r}; this stage takes "
                f"{', '.join(sorted(known.__optional_keys__))}"
            )


def function_of(stage: str, function: Any) -> Any:
    """Return `function`, or refuse what cannot be called."""
    if not callable(function):
        raise GraphError(f"{stage} needs a function, not {function!r}")
    return function
