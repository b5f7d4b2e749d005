"""Where a pipeline begins.

Responsible for: giving the items of an epoch in their order, by position where the data allow it.

Rules:
- a position is a number in ``range(len(source))``; which record lies there is said by the order of
  (shuffle, seed, epoch) and by nothing else;
- a source is a value: it is read only when the runtime asks for items;
- positions are those of one rank, where the source is dealt out; their *numbers*, by which items
  are told apart in everything random, are positions of all ranks' sequence;
- a factory is called once an epoch, in the one process that runs it, and its iterator is closed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from splitpipe.errors import GraphError, SplitpipeError
from splitpipe.order import Order, make_order
from splitpipe.pipeline.dealing import Deal, DealtOrder, Hand, Rest
from splitpipe.pipeline.passes import FOREVER, Passes
from splitpipe.pipeline.stages.policy import Policy

if TYPE_CHECKING:
    from splitpipe.pipeline.balancing import Balanced, Balancing
    from splitpipe.pipeline.streams import Streams

__all__ = ["FactorySource", "SequenceSource", "Source", "make_source"]

_BLOCK = 4096
"""Positions that are turned into indices at once."""

_FIRST_BLOCK = 64
"""Positions whose numbers are looked up at first: whoever takes a claim needs no more."""


class _Memo:
    """The orders that were made last; where a source travels to, there are none yet."""

    def __init__(self) -> None:
        self.made: tuple[tuple[int, Order], ...] = ()

    def __reduce__(self) -> Any:
        return _Memo, ()

    def order(self, number: int, make: Callable[[int], Order]) -> Order:
        """Return the order with some number, made with `make` unless it is here."""
        for known, order in self.made:
            if known == number:
                return order
        order = make(number)
        self.made = (number, order), *self.made[:1]
        return order


@dataclass(frozen=True, slots=True)
class SequenceSource:
    """A source with random access: positions can be handed to any worker.

    Attributes:
        sequence: what is read.
        shuffle: its order.
        seed: of the order.
        window: of a binwise order.
        lanes: stretches of the rows that have such an order each.
        passes: how often it is gone through in an epoch.
        deal: which of these positions one rank has; None: all of them.
        balance: how they are ordered before they are dealt.
        rest: where an epoch goes on that other ranks have begun.
        again: how often the rank goes through its part in an epoch.
        on_error: what becomes of records that cannot be read; None: nothing was said.
        lenient: whether such records come as `Unread`, to a stage that leaves them out.
        streams: what `sequence` has end to end, where that is mixed.
    """

    sequence: Any
    shuffle: str | None = None
    seed: int = 0
    window: int = 1
    lanes: int = 1
    passes: int = 1
    deal: Deal | None = None
    balance: Balancing | None = None
    rest: Rest | None = None
    again: int = 1
    _memo: _Memo = field(default_factory=_Memo, init=False, repr=False, compare=False)
    on_error: Policy | None = None
    lenient: bool = False
    streams: Streams | None = None

    @property
    def name(self) -> str:
        return "read" if hasattr(self.sequence, "iterate") else "source"

    def repeated(self, passes: int | None) -> SequenceSource:
        """Return the source whose epochs are `passes` of this one; None: for ever."""
        if passes is None:
            passes = max(1, FOREVER // max(1, len(self)))
        if self.dealt:
            return replace(self, again=self.again * passes)
        return replace(self, passes=self.passes * passes)

    @property
    def together(self) -> int:
        """Positions that are worth asking for at once: more than one where each waits for something
        far away, which the sequence says.
        """
        parts = [self.sequence] if self.streams is None else self.streams.sources
        return max(1, *(int(getattr(part, "together", 1)) for part in parts))

    @property
    def dealt(self) -> bool:
        """Whether its positions are those of one rank, or of another order than the source's."""
        return self.deal is not None or self.balance is not None

    def hand(self, epoch: int | None = None) -> Hand:
        """Return what the rank has of all positions, in a whole epoch or in `epoch`."""
        rest = self.rest if self.rest is not None and self.rest.epoch == epoch else None
        return Hand(self.deal or Deal(), self.total, rest)

    @property
    def total(self) -> int:
        """How many positions all ranks have together, before any bound."""
        return self.size * self.passes

    @property
    def size(self) -> int:
        """How many positions one pass has."""
        return len(self.sequence if self.streams is None else self.streams)

    def __len__(self) -> int:
        return self.hand().positions * self.again if self.dealt else self.total

    def span(self, epoch: int) -> int:
        """Return how many positions there are in `epoch`: fewer where others have begun it."""
        if self.rest is None or self.rest.epoch != epoch:
            return len(self)
        return self.hand(epoch).positions

    def order(self, epoch: int) -> Order:
        """Return the order of `epoch`: position -> index of the record."""
        if not self.dealt:
            return self.whole(epoch)
        return self._memo.order(epoch, self._of_epoch)

    def numbers(self, epoch: int, start: int) -> Iterator[int]:
        """Yield the numbers of the positions from `start` on."""
        if not self.dealt:
            yield from count(start)
        order, block = self.order(epoch), _FIRST_BLOCK
        while start < len(order):
            stop = min(len(order), start + block)
            yield from self._numbers(order, start, stop)
            start, block = stop, min(_BLOCK, 2 * block)

    def _numbers(self, order: Order, start: int, stop: int) -> Iterator[int]:
        if isinstance(order, DealtOrder):
            yield from order.numbers(start, stop).tolist()
            return
        assert isinstance(order, Passes)
        for number, first, last in order.cut(start, stop):
            one = order.of(number)
            assert isinstance(one, DealtOrder)
            yield from (one.numbers(first, last) + number * one.whole).tolist()

    def balanced(self, epoch: int) -> Balanced | None:
        """Return the order in which the positions of `epoch` are dealt, where costs say it."""
        if self.balance is None:
            return None
        from splitpipe.pipeline.balancing import Balanced, balancing_key  # a source seldom is

        deal = self.deal or Deal()
        return Balanced(
            self.balance,
            self.sequence,
            self.whole(epoch),
            size=self.hand().size,
            ranks=deal.world_size,
            key=balancing_key(self.seed, epoch),
        )

    def _of_epoch(self, epoch: int) -> Order:
        if self.again == 1:
            return self._part(epoch)
        size, first = self.hand().positions, epoch * self.again
        return Passes(size, self.again, lambda number: self._part(first + number))

    def _part(self, epoch: int) -> Order:
        return DealtOrder(self.whole(epoch), self.hand(epoch), self.balanced(epoch))

    def whole(self, epoch: int) -> Order:
        """Return the order of `epoch` for all ranks together, before anything is balanced."""
        if self.passes == 1:
            return self._order(epoch)
        first = epoch * self.passes
        return Passes(self.size, self.passes, lambda number: self._order(first + number))

    def _order(self, epoch: int) -> Order:
        if self.streams is not None:
            return self.streams.order(self.shuffle, self.seed, epoch, self.window)
        how = {"seed": self.seed, "epoch": epoch, "window": self.window, "lanes": self.lanes}
        return make_order(self.sequence, self.shuffle, **how)

    def items(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """Yield the records of positions ``start:stop``; see `leniently` for a lenient source."""
        if self.lenient:
            from splitpipe.pipeline.stages.reading import leniently  # few sources are

            yield from leniently(self.sequence, order, start, stop)
            return
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
        if self.streams is not None:
            name, row = self.streams.where(index)
            return f"record {row} of stream {name!r}"
        return f"record {index} of {_short(self.sequence)}"

    def __repr__(self) -> str:
        shuffle = f", shuffle={self.shuffle!r}, seed={self.seed}" if self.shuffle else ""
        shuffle += f", {self.lanes} lanes" if self.lanes > 1 else ""
        passes = f", {self.passes} passes" if self.passes > 1 else ""
        deal = self.deal
        rank = "" if deal is None else f", rank {deal.rank} of {deal.world_size}"
        again = f", {self.again} times" if self.again > 1 else ""
        what = _short(self.sequence) if self.streams is None else repr(self.streams)
        return f"{what}{shuffle}{passes}{rank}{again}"


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


def make_source(
    source: object, *, shuffle: str | None, seed: int, window: int, lanes: int = 1
) -> Source:
    """Return the source that `source` is meant as.

    Raises:
        GraphError: it can be read only once, has no order to shuffle, or is no source at all.
    """
    if isinstance(source, (str, bytes, Mapping)):
        raise GraphError(
            f"a {type(source).__name__} is not a source; pass a Sequence of records (a dataset, "
            "a range, a list) or a function that returns an iterable"
        )
    if _is_streams(source):
        if lanes != 1:
            raise GraphError(
                "a mixture of datasets has no lanes of its own. Mix what each rank has of each: "
                'mix({"a": Pipeline(a, lanes=8).shard(), ...})'
            )
        source.check(shuffle, window)
        return SequenceSource(source.records, shuffle, seed, window, streams=source)
    if hasattr(source, "__getitem__") and isinstance(source, Sized):
        made = SequenceSource(source, shuffle, seed, window, lanes)
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
    if lanes != 1:
        raise GraphError(f"lanes={lanes} needs a source with len() and [i]; {source!r} has none")
    if callable(source):
        return FactorySource(source)
    if isinstance(source, Iterable):
        return FactorySource(source.__iter__, name=type(source).__name__)
    raise GraphError(
        f"{source!r} is not a source; pass a Sequence of records (a dataset, a range, a list) "
        "or a function that returns an iterable"
    )


def _is_streams(source: object) -> TypeGuard[Streams]:
    """Whoever has not imported it has made none: a worker need not, to know that."""
    home = sys.modules.get("splitpipe.pipeline.streams")
    return home is not None and isinstance(source, home.Streams)


def _short(sequence: Sequence[Any]) -> str:
    text = repr(sequence)
    return text if len(text) <= 60 else f"{type(sequence).__name__} of {len(sequence)}"
