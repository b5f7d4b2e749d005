"""Who gets which position: the arithmetic of ranks.

Responsible for: `Deal`, how one global sequence is dealt out; `Hand`, what one rank has of it;
`Rest`, what is left of a sequence of which ranks have had a part already; `Numbering`, which number
an item has among those of all ranks.

Rules:
- positions are dealt round-robin, one *block* at a time: a block is as many positions as make one
  of the items that are dealt (a batch, where whole batches are), else one position;
- uneven ends: ``drop`` gives every rank as many blocks as the one with fewest, ``pad`` as many as
  the one with most, the missing ones repeat the beginning of the sequence, ``uneven`` gives out
  what there is;
- a short last block is the last of the rank that has it;
- everything is O(1) for a position, or O(ranks) where ranks were not in step: no list of positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import ResumeError
from splitpipe.order import Order, Rows

__all__ = [
    "ENDS",
    "Deal",
    "DealtOrder",
    "Hand",
    "Layer",
    "Numbering",
    "Rest",
    "share",
    "simplified",
]

ENDS = ("drop", "pad", "uneven")

_AGAIN = 40
"""Bits of the numbers of what a rank makes in one epoch."""

_MANY = 1 << 60
"""Items of a stream: more than any has."""


def share(items: int, rank: int, world_size: int, ends: str) -> int:
    """Return how many of `items` a rank has.

    Example:
        >>> [share(7, rank, 3, ends) for ends in ENDS for rank in range(3)]
        [2, 2, 2, 3, 3, 3, 3, 2, 2]
    """
    if ends == "drop":
        return items // world_size
    if ends == "pad":
        return -(-items // world_size)
    return max(0, -(-(items - rank) // world_size))


@dataclass(frozen=True, slots=True)
class Deal:
    """How the positions of a source are dealt out, and to whom these go.

    Attributes:
        rank: from 0.
        world_size: how many ranks.
        ends: ``"drop"``, ``"pad"`` or ``"uneven"``.
        unit: positions of a block.
        bound: how many positions are dealt at most; None: all.
        whole: a last block that is not full is not dealt.
        name: of the stage that said so.
    """

    rank: int = 0
    world_size: int = 1
    ends: str = "drop"
    unit: int = 1
    bound: int | None = None
    whole: bool = False
    name: str = "shard"


@dataclass(frozen=True, slots=True)
class Layer:
    """What ranks had of a sequence, in step or not.

    Attributes:
        world_size: how many they were.
        at: how many each of them had of its own part.
    """

    world_size: int
    at: tuple[int, ...]

    def taken(self, size: int) -> list[int]:
        """Return how many of a sequence of `size` each rank had; repeated ones do not count."""
        world = self.world_size
        return [min(at, share(size, rank, world, "uneven")) for rank, at in enumerate(self.at)]

    def left(self, size: int) -> int:
        """Return how many of a sequence of `size` no rank had."""
        return size - sum(self.taken(size))

    def had(self, number: int) -> bool:
        """Whether a rank had item `number`."""
        turn, rank = divmod(number, self.world_size)
        return turn < self.at[rank]

    def find(self, numbers: Rows, size: int) -> Rows:
        """Return which of a sequence of `size` the `numbers`-th are of those that no rank had."""
        taken = self.taken(size)
        levels = sorted(set(taken))
        starts, first = [], 0
        ranks = []
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            starts.append(first)
            ranks.append(np.array([r for r, had in enumerate(taken) if had <= level], np.int64))
            if following is not None:
                first += (following - level) * len(ranks[-1])
        made = np.empty(len(numbers), np.int64)
        part = np.searchsorted(np.array(starts), numbers, side="right") - 1
        for one in distinct(part).tolist():
            mine = np.flatnonzero(part == one)
            rounds, place = np.divmod(numbers[mine] - starts[one], len(ranks[one]))
            made[mine] = (levels[one] + rounds) * self.world_size + ranks[one][place]
        return made


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of an epoch's sequence, to be dealt out as if it were all.

    Attributes:
        epoch: of which epoch; others are whole.
        layers: what was had of it: the first of the sequence, each following one of what the
            one before left.
    """

    epoch: int
    layers: tuple[Layer, ...]

    def left(self, blocks: int) -> int:
        """Return how many of `blocks` are left."""
        for layer in self.layers:
            blocks = layer.left(blocks)
        return blocks

    def find(self, numbers: Rows, blocks: int) -> Rows:
        """Return which of `blocks` the `numbers`-th are of those that are left."""
        sizes = [blocks]
        for layer in self.layers:
            sizes.append(layer.left(sizes[-1]))
        for layer, size in zip(reversed(self.layers), reversed(sizes[:-1]), strict=True):
            numbers = layer.find(numbers, size)
        return numbers

    def over(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield those of a stream's items that are left; the others are let go of."""
        numbers = [0] * len(self.layers)
        for item in items:
            for at, layer in enumerate(self.layers):
                numbers[at] += 1
                if layer.had(numbers[at] - 1):
                    break
            else:
                yield item
            del item


class Hand:
    """What a rank has of a sequence of positions.

    Args:
        deal: how it is dealt.
        size: positions of the whole sequence, before the bound of the deal.
        rest: where only a part of it is left; None: all of it.

    Attributes:
        positions: how many it has.
        left_out: positions that no rank has.
        repeated: positions that this rank has although another one has them too.

    Example:
        >>> hand = Hand(Deal(1, 3, "pad"), 7)
        >>> hand.find(0, hand.positions).tolist(), hand.repeated
        ([1, 4, 0], 1)
    """

    def __init__(self, deal: Deal, size: int, rest: Rest | None = None) -> None:
        self._deal = deal
        self._rest = rest
        whole = size if deal.bound is None else min(size, deal.bound)
        unit = deal.unit
        self.blocks = whole // unit if deal.whole else -(-whole // unit)
        self._size = min(whole, self.blocks * unit)  # positions that are dealt
        self._left = self.blocks if rest is None else rest.left(self.blocks)
        turns = share(self._left, deal.rank, deal.world_size, deal.ends)
        self.positions = turns * unit
        self.repeated = 0
        if turns:
            ((block, repeated),) = self._blocks(np.array([turns - 1]))
            missing = (block + 1) * unit - self._size
            self.positions -= max(0, missing)
            self.repeated = (unit - max(0, missing)) if repeated else 0
        dealt = self._size
        if deal.ends == "drop" and self._left % deal.world_size:
            over = self._left % deal.world_size * unit
            dealt -= over - (self.blocks * unit - self._size)
        self.left_out = whole - dealt

    @property
    def size(self) -> int:
        """Positions that are dealt to all ranks together, or left out at the end."""
        return self._size

    def _blocks(self, own: Rows) -> list[tuple[int, bool]]:
        blocks, repeated = self._find(own)
        return list(zip(blocks.tolist(), repeated.tolist(), strict=True))

    def _find(self, own: Rows) -> tuple[Rows, Any]:
        """Return which blocks of the sequence those of a rank are, and which come twice."""
        deal, rest = self._deal, self._rest
        numbers = own * deal.world_size + deal.rank
        over = numbers >= self._left
        there = np.where(over, 0, numbers)
        if rest is not None and self._left:
            there = rest.find(there, self.blocks)
        return np.where(over, (numbers - self._left) % max(1, self.blocks), there), over

    def find(self, start: int, stop: int) -> Rows:
        """Return which positions of the sequence its positions ``start:stop`` are."""
        own, unit = np.arange(start, stop, dtype=np.int64), self._deal.unit
        if unit == 1:
            return self._find(own)[0]
        return self._find(own // unit)[0] * unit + own % unit


class DealtOrder(Order):
    """The part of an order that one rank has; no bijection: position -> row, for a rank's own.

    Args:
        base: the order of all of them.
        hand: what the rank has of it.
        sequence: what is dealt: positions of `base`, in another order; None: they as they are.

    Example:
        >>> from splitpipe.order import sequential_order
        >>> DealtOrder(sequential_order(8), Hand(Deal(1, 2), 8)).indices(0, 4).tolist()
        [1, 3, 5, 7]
    """

    __slots__ = ("_base", "_hand", "_sequence")

    def __init__(self, base: Order, hand: Hand, sequence: Any = None) -> None:
        super().__init__()
        self._base, self._hand, self._sequence = base, hand, sequence

    def __len__(self) -> int:
        return self._hand.positions

    @property
    def apart(self) -> bool:
        """See `Order.apart`."""
        return self._base.apart

    @property
    def whole(self) -> int:
        """How many positions `numbers` counts."""
        return self._hand.size

    def numbers(self, start: int, stop: int) -> Rows:
        """Return which positions of all ranks' sequence the positions ``start:stop`` are."""
        found = self._hand.find(start, stop)
        return found if self._sequence is None else np.asarray(self._sequence.at(found))

    def indices(self, start: int, stop: int) -> Rows:
        """See `Order`; where costs are looked up, only those of the windows that are asked for."""
        if self._sequence is None:
            return super().indices(start, stop)
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"positions {start} to {stop} of an order of {len(self)}")
        return self._between(start, stop)

    def at(self, positions: Rows) -> Rows:
        parts = [self.numbers(at, at + 1) for at in positions.tolist()]
        return self._base.at(np.concatenate([np.empty(0, np.int64), *parts]))

    def _between(self, start: int, stop: int) -> Rows:
        return self._base.at(self.numbers(start, stop))

    def _row(self, position: int) -> int:
        return int(self._between(position, position + 1)[0])


@dataclass(frozen=True, slots=True)
class Numbering:
    """Which number an item has among those of all ranks.

    Attributes:
        rank: whose item.
        world_size: of how many.
        block: consecutive items that one rank has.
        total: how many there are, where repeated ones are to have the number they had first.
        rest: where an epoch goes on that other ranks have begun.
        dealt: whether these are the items that are dealt; else what a rank makes of them.

    Example:
        >>> [Numbering(1, 3).of(ordinal) for ordinal in range(3)]
        [1, 4, 7]
    """

    rank: int
    world_size: int
    block: int = 1
    total: int | None = None
    rest: Rest | None = None
    dealt: bool = False

    def numbers(self, epoch: int, first: int) -> Iterator[int]:
        """Yield the numbers of the rank's items in `epoch`, from the `first`-th on."""
        if self.rest is None or self.rest.epoch != epoch:
            yield from map(self.of, count(first))
        elif self.dealt:
            yield from map(self._left, count(first))
        else:  # others than those that items of this epoch had before
            base = len(self.rest.layers) << _AGAIN
            yield from (base + self.of(ordinal) for ordinal in count(first))

    def of(self, ordinal: int) -> int:
        """Return the number of the rank's `ordinal`-th item in an epoch that it has begun."""
        turn, place = divmod(ordinal, self.block)
        number = (turn * self.world_size + self.rank) * self.block + place
        return number if self.total is None else number % max(1, self.total)

    def _left(self, ordinal: int) -> int:
        assert self.rest is not None
        turn, place = divmod(ordinal, self.block)
        number = turn * self.world_size + self.rank
        blocks = _MANY if self.total is None else self.total // self.block
        left = self.rest.left(blocks)
        if number < left:
            number = int(self.rest.find(np.array([number]), blocks)[0])
        else:
            number = (number - left) % max(1, blocks)
        return number * self.block + place


def simplified(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the same layers, with one number for ranks that were in step.

    Example:
        >>> simplified([Layer(2, (3, 3)), Layer(4, (1, 1, 1, 1)), Layer(2, (1, 0))])
        (Layer(world_size=1, at=(10,)), Layer(world_size=2, at=(1, 0)))
    """
    made: list[Layer] = []
    for layer in layers:
        if len(layer.at) != layer.world_size or min(layer.at) < 0:
            raise ResumeError(
                f"the state says what {len(layer.at)} of {layer.world_size} ranks had: {layer.at}"
            )
        if len(set(layer.at)) == 1:
            layer = Layer(1, (layer.at[0] * layer.world_size,))
            if layer.at == (0,):
                continue
            if made and made[-1].world_size == 1:
                layer = Layer(1, (made.pop().at[0] + layer.at[0],))
        made.append(layer)
    return tuple(made)
