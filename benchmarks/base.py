"""The seams of the benchmarks: what a case asks of a system, and what it gives back.

Responsible for: the interfaces of storage and pipeline systems, the description of a case, and the
context in which one runs. Does not do: measuring (``cases/``), running processes (``harness.py``).

Rules:
- an adapter uses its system the way that system's own guide recommends, with the options that make
  it fastest; what it cannot do it refuses with `Unsupported`, and the report shows a gap;
- a case is a generator: its first value, the facts, comes after the correctness check; every
  further value holds the metrics of one round; closing the generator cleans up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "BatchWork",
    "BatchesAlone",
    "Case",
    "Context",
    "Metric",
    "PipelineSystem",
    "Run",
    "StorageReader",
    "StorageSystem",
    "Unsupported",
    "WrongResult",
]

T = TypeVar("T")
Batch = Any
Metrics = Mapping[str, float]
Indices = npt.NDArray[np.int64]


class Unsupported(Exception):
    """The system has no way to do this; the report shows a gap, not a zero."""


class WrongResult(Exception):
    """The system delivered something other than what was stored or produced."""


class StorageReader(Protocol):
    """An open dataset of one bytes column."""

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        """Records one at a time, as a loop over ``[i]`` reads them."""
        ...

    def get_batch(self, indices: Sequence[int]) -> Sequence[Any]:
        """Many records in one call, in the order asked for."""
        ...

    def sequential(self) -> Iterator[Any]:
        """Every record once, in the order that is cheapest for the system."""
        ...

    def shuffled(self, seed: int) -> Iterator[Any]:
        """Every record once, in the system's own shuffled order."""
        ...

    def close(self) -> None:
        """Release files and maps."""
        ...


class StorageSystem(Protocol):
    """Writes a dataset and opens it again."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """Write everything into an empty directory; durable when it returns, where it can be."""
        ...

    def open(self, directory: Path) -> StorageReader:
        """Open what `write` wrote."""
        ...


class Run(Protocol):
    """A pipeline that runs or is about to: every ``iter()`` is one epoch, in order."""

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None:
        """End every process of the run."""
        ...


class BatchWork(Protocol):
    """How to make batch number i; picklable, and cheap to make beyond one memory copy."""

    @property
    def rows(self) -> int | None:
        """Rows in a batch; None when batches are better made whole."""
        ...

    @property
    def max_nbytes(self) -> int:
        """Bytes of the largest batch."""
        ...

    def row(self, number: int) -> Any:
        """Row `number` of the whole stream; `rows` of them make a batch."""
        ...

    def make(self, number: int) -> Batch:
        """Batch `number` in memory of the producer, which is used again for a later batch."""
        ...

    def fill(self, number: int, empty: Callable[..., npt.NDArray[Any]]) -> Batch:
        """Batch `number` in arrays taken from ``empty(shape, dtype)``."""
        ...

    def reusing(self, count: int) -> BatchWork:
        """The same work, but `make` takes turns of `count` arrays; 0 for a new one each time."""
        ...


class PipelineSystem(Protocol):
    """Runs a producer in other processes and hands its items to this one."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        """Batches 0 .. count-1 of `work`, made in `workers` processes; iterated `epochs` times."""
        ...

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        """``function(0) .. function(count-1)`` in this order, computed in `workers` processes."""
        ...

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        """The items of the generator ``generate(count)``, which runs in one other process."""
        ...

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        """As `stream`, then `hops` times through `middle`, each in a process of its own."""
        ...


class BatchesAlone:
    """The rest of a `PipelineSystem`, for a bound: it moves batches, and computes nothing."""

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        raise Unsupported("it computes nothing")

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        raise Unsupported("it computes nothing")

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("it computes nothing")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a case: its key, its unit, and which direction is better."""

    name: str
    unit: str
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Context:
    """What a case may know of the run that it is part of.

    Attributes:
        scale: ``full`` for real figures, ``quick`` for a look, ``tiny`` for tests.
        directory: A folder of this (case, system) alone, on the disk to be measured.
        seed: Seeds every random choice of the case.
        workers: Processes that the system may use.
    """

    scale: str
    directory: Path
    seed: int
    workers: int

    def pick(self, *, full: T, quick: T, tiny: T) -> T:
        """The value that belongs to the scale of this run."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.scale]


@dataclass(frozen=True, slots=True)
class Case:
    """A thing to measure.

    Attributes:
        name: Key on the command line and in the results.
        title: One line for the report.
        kind: ``storage``, ``pipeline``, ``lines`` or ``tokens``: which seam `function` asks for.
        function: The generator described in the rules above.
        metrics: What a round reports, in the order of the report.
        baseline: The system that the report's ratios refer to.
        bars: The systems that the bars name, in the order of their turns.
        others: Further systems of the full suite.
        rounds: Rounds at full scale.
        fresh: Each round in a process of its own, for cases about starting.
    """

    name: str
    title: str
    kind: str
    function: Callable[[Any, Context], Iterator[Metrics]]
    metrics: tuple[Metric, ...]
    baseline: str
    bars: tuple[str, ...]
    others: tuple[str, ...] = ()
    rounds: int = 7
    fresh: bool = False
