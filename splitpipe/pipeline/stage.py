"""What one stage is and does.

Responsible for: the operations, each a frozen value with an `apply` that turns an iterator into an
iterator, and the options that every stage takes.

Rules:
- `apply` is lazy: it takes from its input only what it needs for the next output, keeps nothing it
  need not keep, and never reorders;
- an operation says what the planner must know: whether each item stands for itself (`per_item`),
  and whether counts are known beforehand (`ratio`: how many inputs make one output, None when
  nobody can tell);
- a StopIteration that user code lets slip is an error, never an end (PEP 479 sees to that: every
  `apply` is a generator);
- no item is dropped unless the user said so: what `filter` and ``drop_last`` remove is counted in
  `Dropped`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from splitpipe.errors import GraphError
from splitpipe.pipeline.collate import Rows, Stack

__all__ = [
    "Batch",
    "Dropped",
    "Filter",
    "FlatMap",
    "Map",
    "Operation",
    "Stage",
    "StageOptions",
    "Take",
    "Through",
    "Unbatch",
]


def check_count(what: str, value: object, *, least: int) -> None:
    """Refuse what is not None and not a whole number of at least `least`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GraphError(f"{what} must be a whole number of at least {least}, not {value!r}")


class Dropped:
    """A counter of what stages left out on purpose."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Operation(ABC):
    """What a stage does."""

    per_item: ClassVar[bool] = False
    """Each input item is treated by itself: several workers may share the stage."""

    @property
    def ratio(self) -> int | None:
        """How many input items make one output item; None when only running it tells."""
        return None

    @property
    @abstractmethod
    def label(self) -> str:
        """The name of the stage unless the user gives one."""

    @abstractmethod
    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        """Yield the outputs for `items`."""


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


@dataclass(frozen=True)
class Map(Operation):
    """One item in, one item out."""

    function: Callable[[Any], Any]
    per_item: ClassVar[bool] = True

    @property
    def ratio(self) -> int | None:
        return 1

    @property
    def label(self) -> str:
        return _name(self.function)

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        function = self.function
        for item in items:
            yield function(item)
            del item  # an item that lies in a slot must not keep it while the next one is made


@dataclass(frozen=True)
class Filter(Operation):
    """Items for which the function says yes."""

    function: Callable[[Any], Any]
    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return _name(self.function)

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        function = self.function
        for item in items:
            if function(item):
                yield item
            else:
                dropped.count += 1
            del item


@dataclass(frozen=True)
class FlatMap(Operation):
    """One item in, any number out."""

    function: Callable[[Any], Iterable[Any]]
    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return _name(self.function)

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        function = self.function
        for item in items:
            yield from function(item)
            del item


@dataclass(frozen=True)
class Unbatch(Operation):
    """An item that is a batch in, its rows out."""

    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "unbatch"

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        for item in items:
            yield from _rows(item)
            del item


def _rows(batch: Any) -> Iterator[Any]:
    if isinstance(batch, dict):
        keys = list(batch)
        columns = [list(_rows(batch[key])) for key in keys]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns of a batch have different lengths")
        for row in zip(*columns, strict=True):
            yield dict(zip(keys, row, strict=True))
    elif isinstance(batch, tuple):
        columns = [list(_rows(column)) for column in batch]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns of a batch have different lengths")
        make = getattr(type(batch), "_make", tuple)
        for row in zip(*columns, strict=True):
            yield make(row)
    else:
        yield from batch


@dataclass(frozen=True)
class Through(Operation):
    """A free generator over the whole stream."""

    function: Callable[..., Iterable[Any]]
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return _name(self.function)

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        yield from self.function(items, *self.arguments, **self.keywords)


@dataclass(frozen=True)
class Batch(Operation):
    """Several items in, one out: stacked straight into the place where the consumer reads them."""

    size: int
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None

    @property
    def ratio(self) -> int | None:
        return self.size

    @property
    def label(self) -> str:
        return f"batch({self.size})"

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        size, finish = self.size, self.collate
        while True:
            stack = Stack(size) if finish is None else Rows(finish)
            for item in islice(items, size):
                stack.add(item)
                del item
            count = stack.count
            if count == 0:
                return
            if count < size and self.drop_last:
                dropped.count += count
                return
            yield stack.finish()
            if count < size:
                return


@dataclass(frozen=True)
class Take(Operation):
    """The first items of every epoch."""

    count: int

    @property
    def label(self) -> str:
        return f"take({self.count})"

    def apply(self, items: Iterator[Any], dropped: Dropped) -> Iterator[Any]:
        yield from islice(items, self.count)


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
