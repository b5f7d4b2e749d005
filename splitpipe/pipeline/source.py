"""Where a pipeline begins.

Responsible for: giving the items of an epoch in their order, by position where the data allow it.

Rules:
- a position is a number in ``range(len(source))``; which record lies there is said by the order of
  (shuffle, seed, epoch) and by nothing else;
- a source is a value: it is read only when the runtime asks for items;
- a factory is called once an epoch, in the one process that runs it, and its iterator is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

from splitpipe.errors import GraphError, SplitpipeError
from splitpipe.order import Order, make_order
from splitpipe.pipeline.passes import FOREVER, Passes

__all__ = ["FactorySource", "SequenceSource", "Source", "make_source"]

_BLOCK = 4096
"""Positions that are turned into indices at once."""


@dataclass(frozen=True, slots=True)
class SequenceSource:
    """A source with random access: positions can be handed to any worker."""

    sequence: Any
    shuffle: str | None = None
    seed: int = 0
    window: int = 1
    passes: int = 1

    @property
    def name(self) -> str:
        return "read" if hasattr(self.sequence, "iterate") else "source"

    def repeated(self, passes: int | None) -> SequenceSource:
        """Return the source whose epochs are `passes` of this one; None: for ever."""
        if passes is None:
            passes = max(1, FOREVER // max(1, len(self)))
        return replace(self, passes=self.passes * passes)

    def __len__(self) -> int:
        return len(self.sequence) * self.passes

    def order(self, epoch: int) -> Order:
        """Return the order of `epoch`: position -> index of the record."""
        if self.passes == 1:
            return self._order(epoch)
        size, first = len(self.sequence), epoch * self.passes
        return Passes(size, self.passes, lambda number: self._order(first + number))

    def _order(self, epoch: int) -> Order:
        return make_order(
            self.sequence, self.shuffle, seed=self.seed, epoch=epoch, window=self.window
        )

    def items(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """Yield the records of positions ``start:stop``."""
        sequence, position = self.sequence, start
        if hasattr(sequence, "iterate"):  # a dataset: it reads ahead, in blocks
            try:
                for record in sequence.iterate(order, start, stop):
                    position += 1
                    yield record
                    del record
                return
            except SplitpipeError:
                pass  # one of a block is bad: give those before it, let it fail at its own place
        for first in range(position, stop, _BLOCK):
            for index in order.indices(first, min(first + _BLOCK, stop)).tolist():
                yield sequence[index]

    def describe(self, position: int, epoch: int) -> str:
        """Return in words which record lies at `position`."""
        index = int(self.order(epoch)[position])
        return f"record {index} of {_short(self.sequence)}"

    def __repr__(self) -> str:
        shuffle = f", shuffle={self.shuffle!r}, seed={self.seed}" if self.shuffle else ""
        passes = f", {self.passes} passes" if self.passes > 1 else ""
        return f"{_short(self.sequence)}{shuffle}{passes}"


@dataclass(frozen=True, slots=True)
class FactorySource:
    """A source without random access: called anew for every epoch, read by one process."""

    factory: Callable[[], Iterable[Any]]
    name: str = "source"
    passes: int | None = 1

    def repeated(self, passes: int | None) -> FactorySource:
        """Return the source whose epochs are `passes` of this one; None: for ever."""
        total = None if passes is None or self.passes is None else passes * self.passes
        return replace(self, passes=total)

    def open(self) -> Iterator[Any]:
        """Call the factory, for every pass anew.

        Raises:
            GraphError: what it returned cannot be iterated.
        """
        return self._open() if self.passes == 1 else self._all_passes()

    def _all_passes(self) -> Iterator[Any]:
        for _ in count() if self.passes is None else range(self.passes):
            empty = True
            for item in self._open():
                empty = False
                yield item
                del item
            if empty and self.passes is None:
                return  # nothing, for ever, is nothing

    def _open(self) -> Iterator[Any]:
        iterable = self.factory()
        try:
            return iter(iterable)
        except TypeError as error:
            raise GraphError(
                f"the source {self!r} returned {type(iterable).__name__}, which is not iterable"
            ) from error

    def __repr__(self) -> str:
        return getattr(self.factory, "__qualname__", None) or repr(self.factory)


Source: TypeAlias = SequenceSource | FactorySource


def make_source(source: object, *, shuffle: str | None, seed: int, window: int) -> Source:
    """Return the source that `source` is meant as.

    Raises:
        GraphError: it can be read only once, has no order to shuffle, or is no source at all.
    """
    if isinstance(source, (str, bytes, Mapping)):
        raise GraphError(
            f"a {type(source).__name__} is not a source; pass a Sequence of records (a dataset, "
            "a range, a list) or a function that returns an iterable"
        )
    if hasattr(source, "__getitem__") and isinstance(source, Sized):
        made = SequenceSource(source, shuffle, seed, window)
        made.order(0)  # a shuffle that this sequence cannot have is refused here, not in a worker
        return made
    if isinstance(source, Iterator):
        raise GraphError(
            f"a {type(source).__name__} can be read only once; pass the function that makes it, "
            "so that every epoch and every process can have its own"
        )
    if shuffle is not None:
        raise GraphError(
            f"shuffle={shuffle!r} needs a source with len() and [i]; {source!r} has none"
        )
    if callable(source):
        return FactorySource(source)
    if isinstance(source, Iterable):
        return FactorySource(source.__iter__, name=type(source).__name__)
    raise GraphError(
        f"{source!r} is not a source; pass a Sequence of records (a dataset, a range, a list) "
        "or a function that returns an iterable"
    )


def _short(sequence: Sequence[Any]) -> str:
    text = repr(sequence)
    return text if len(text) <= 60 else f"{type(sequence).__name__} of {len(sequence)}"
