"""Orders in lanes: each rank reads a stretch of the rows, and nothing of the others'.

Responsible for: `LaneOrder`, which puts orders of stretches side by side.

Ranks are dealt positions round-robin, so that with an order of all rows every one of them reads a
little of everything: each machine of a run fetches most of the dataset. In lanes the rows are cut
into as many stretches of one length; each has an order of its own, and positions go round over
them. Where the number of ranks divides that of the lanes, rank r reads lanes r, r + ranks, ...,
whole and alone: their records, and their pages of the index. The sequence does not know of ranks:
it is the same for any number of them. MosaicML Streaming's canonical nodes are the same idea.

Rules:
- a lane has the same rows in every epoch, so that what a machine keeps of it is of use again;
- lanes have the same number of positions; those that have a row more give their last one to the end
  of the epoch, which is another one in every epoch where anything is shuffled;
- what is not asked for is not made: a rank makes the orders of its own lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import GraphError
from splitpipe.order.base import Order, Rows, check_rows, global_order, sequential_order
from splitpipe.order.binwise import binwise_order
from splitpipe.permutation import derive_key
from splitpipe.storage.layout import BinLayout

__all__ = ["BinwiseLanes", "GlobalLanes", "LaneOrder", "Lanes", "SequentialLanes"]

_LANE: Final = 4


class Lanes(Protocol):
    """What is read in lanes: all rows, and an order for any stretch of them."""

    @property
    def rows(self) -> int:
        """How many there are."""

    def order(self, lane: int, first: int, stop: int) -> tuple[Order, int]:
        """The order of a lane, and the number that is its row 0."""


@dataclass(frozen=True, slots=True)
class SequentialLanes:
    """Rows in their own order."""

    rows: int

    def order(self, lane: int, first: int, stop: int) -> tuple[Order, int]:
        """See `Lanes.order`."""
        return sequential_order(stop - first), first


@dataclass(frozen=True, slots=True)
class GlobalLanes:
    """All rows of a lane shuffled."""

    rows: int
    seed: int
    epoch: int

    def order(self, lane: int, first: int, stop: int) -> tuple[Order, int]:
        """See `Lanes.order`."""
        return global_order(stop - first, derive_key(self.seed, _LANE, lane), self.epoch), first


@dataclass(frozen=True, slots=True)
class BinwiseLanes:
    """What a lane has of every bin, bin after bin."""

    layout: BinLayout
    seed: int
    epoch: int
    window: int = 1

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.layout.rows

    def order(self, lane: int, first: int, stop: int) -> tuple[Order, int]:
        """See `Lanes.order`."""
        part = self.layout.stretch(first, stop)
        seed = derive_key(self.seed, _LANE, lane)
        return binwise_order(part, seed=seed, epoch=self.epoch, window=self.window), 0


class LaneOrder(Order):
    """Lanes side by side: position p is the one of lane ``p % lanes`` that is next.

    Args:
        of: what is read in lanes.
        lanes: how many.

    Raises:
        GraphError: there are fewer than one.

    Example:
        >>> order = LaneOrder(SequentialLanes(rows=11), 3)
        >>> order.indices(0, 11).tolist()
        [0, 3, 7, 1, 4, 8, 2, 5, 9, 6, 10]
        >>> order.at(np.arange(0, 9, 3)).tolist()
        [0, 1, 2]
    """

    __slots__ = ("_made", "_more", "_rounds", "lanes", "of")

    def __init__(self, of: Lanes, lanes: int) -> None:
        super().__init__()
        if check_rows(lanes, "lanes") < 1:
            raise GraphError(f"lanes must be at least 1, not {lanes}")
        self.of = of
        self.lanes = lanes
        self._rounds = of.rows // lanes
        # Lanes that have a row more: where what is over rounds up, without large products.
        over = np.arange(lanes + 1, dtype=np.int64) * (of.rows % lanes) // lanes
        self._more = np.flatnonzero(np.diff(over))
        self._made: dict[int, tuple[Order, int]] = {}

    def __len__(self) -> int:
        return self.of.rows

    @property
    def apart(self) -> bool:
        """See `Order.apart`."""
        return True

    def stretch(self, lane: int) -> tuple[int, int]:
        """The first row of a lane, and the one after its last."""
        return lane * self.of.rows // self.lanes, (lane + 1) * self.of.rows // self.lanes

    def at(self, positions: Rows) -> Rows:
        within, lane = np.divmod(positions, self.lanes)
        last = np.flatnonzero(within >= self._rounds)
        if len(last):
            lane[last] = self._more[positions[last] - self._rounds * self.lanes]
            within[last] = self._rounds
        made = np.empty(len(positions), dtype=np.int64)
        for number in distinct(lane).tolist():
            mine = np.flatnonzero(lane == number)
            order, first = self._lane(number)
            made[mine] = order.at(within[mine]) + first
        return made

    def _between(self, start: int, stop: int) -> Rows:
        whole = min(stop, max(start, self._rounds * self.lanes))  # behind it: what is over
        made = np.empty(stop - start, dtype=np.int64)
        made[whole - start :] = self.at(np.arange(whole, stop, dtype=np.int64))
        for at in range(start, min(whole, start + self.lanes)):
            within, lane = divmod(at, self.lanes)
            order, first = self._lane(lane)
            rounds = -(-(whole - at) // self.lanes)
            made[at - start : whole - start : self.lanes] = (
                order._between(within, within + rounds) + first
            )
        return made

    def _row(self, position: int) -> int:
        within, lane = divmod(position, self.lanes)
        if within >= self._rounds:
            lane = int(self._more[position - self._rounds * self.lanes])
            within = self._rounds
        order, first = self._lane(lane)
        return order[within] + first

    def _lane(self, number: int) -> tuple[Order, int]:
        made = self._made.get(number)
        if made is None:
            first, stop = self.stretch(number)
            made = self._made[number] = self.of.order(number, first, stop)
        return made

    def __reduce__(self) -> Any:
        return LaneOrder, (self.of, self.lanes)

    def __repr__(self) -> str:
        return f"LaneOrder({self.of!r}, lanes={self.lanes})"
