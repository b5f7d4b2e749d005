"""How a merge lets its head work: credits and claims.

Responsible for: the two ways of granting work backwards, and for how many positions one unit of
work has.

Rules:
- at most ``window`` units are between head and merge; the next one is granted when the reader is
  done with one;
- a sequential head numbers its own messages and is given *credits*; a source with random access
  has no head but its positions, and is given out as *claims*, each taken by whichever worker is
  free: a slow unit holds nobody's neighbours;
- the number of positions in a claim follows the time and the bytes that units took. It never shows
  in the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count

from splitpipe.transport.base import Sender
from splitpipe.transport.message import Claim, Credit, End, Item, encode

__all__ = ["Claims", "Credits", "Grants", "UnitSize", "make_grants"]

UNIT_TIME_NS = 1_500_000
"""Work in one message: long against the 20 µs that a message costs, short against a human or a
GPU."""

UNIT_BYTES = 256 << 10
CHUNKS = 16


class UnitSize:
    """How many positions to put into one unit: doubled while units are cheap, cut when they are
    not.

    Args:
        step: positions that must stay together.
    """

    __slots__ = ("positions", "step")

    def __init__(self, step: int) -> None:
        self.step = step
        self.positions = step

    def learn(self, positions: int, elapsed_ns: int, nbytes: int) -> None:
        """Take note of what a unit of `positions` cost."""
        if positions <= 0:
            return
        by_time = UNIT_TIME_NS * positions // max(1, elapsed_ns)
        by_bytes = UNIT_BYTES * positions // max(1, nbytes)
        fitting = min(by_time, by_bytes, 2 * self.positions, 1 << 14)
        if positions < self.positions and fitting > self.positions:
            return  # a unit of an earlier, smaller size says nothing new
        self.positions = max(self.step, fitting // self.step * self.step)


class Grants(ABC):
    """What a merge tells its head."""

    @abstractmethod
    def open(self) -> None:
        """Grant the first window."""

    @abstractmethod
    def consumed(self) -> None:
        """The reader is done with one unit."""

    @abstractmethod
    def skip(self, epoch: int) -> None:
        """The rest of `epoch` is not wanted."""

    def ends(self) -> Iterator[End]:
        """Yield the ends of epochs that this side knows of by itself."""
        return iter(())

    def learn(self, item: Item) -> None:
        """Take note of what a unit cost."""
        del item


class Credits(Grants):
    """For a sequential head: so many messages more.

    Args:
        window: messages under way. Chunks of small items may be `CHUNKS` at least: they cost next
            to no memory, and with fewer of them processes that share a core wake each other too
            often.
        pooled: whether each message becomes a unit of work of a pool. Its head cannot know what
            that costs: it is told how many values a message may hold.
    """

    def __init__(self, sender: Sender, *, run: int, window: int, pooled: bool = False) -> None:
        self._sender = sender
        self._size = UnitSize(1) if pooled else None
        self._run = run
        self._window = window
        self._target = window
        self._under_way = 0

    def open(self) -> None:
        self._grant()

    def consumed(self) -> None:
        self._under_way -= 1
        if 2 * (self._target - self._under_way) >= self._target:
            self._grant()

    def learn(self, item: Item) -> None:
        self._target = max(self._window, CHUNKS) if item.count > 1 else self._window
        if self._size is not None:
            self._size.learn(max(1, item.stop - item.start), item.elapsed_ns, item.nbytes)

    def skip(self, epoch: int) -> None:
        self._send(0, epoch=epoch, skip=True)

    def _grant(self) -> None:
        credits = self._target - self._under_way
        if credits > 0:
            self._under_way += credits
            self._send(credits)

    def _send(self, credits: int, *, epoch: int = 0, skip: bool = False) -> None:
        most = self._size.positions if self._size is not None else 0
        message = Credit(self._run, 0, epoch, 0, start=most, stop=int(skip), count=credits)
        self._sender.send([encode(message)])


class Claims(Grants):
    """For a source with random access: positions to whoever is free.

    Args:
        positions: of one epoch.
        epochs: how many, None for ever.
        size: positions of a unit.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        run: int,
        window: int,
        positions: int,
        epochs: int | None,
        size: UnitSize,
    ) -> None:
        self._sender = sender
        self._run = run
        self._window = window
        self._positions = positions
        self._size = size
        self._epochs = iter(count() if epochs is None else range(epochs))
        self._epoch: int | None = next(self._epochs)
        self._next = 0
        self._sequence = 0
        self._issued = 0
        self._under_way = 0
        self._ends: list[End] = []

    def open(self) -> None:
        while self._under_way < self._window and self._grant():
            pass

    def consumed(self) -> None:
        self._under_way -= 1
        self._grant()

    def skip(self, epoch: int) -> None:
        if self._epoch == epoch:
            self._end_epoch()
            self.open()

    def ends(self) -> Iterator[End]:
        if not self._ends:
            self.open()  # epochs without positions are never consumed: go on when their ends were
        while self._ends:
            yield self._ends.pop(0)

    def learn(self, item: Item) -> None:
        self._size.learn(item.stop - item.start, item.elapsed_ns, item.nbytes)

    def _grant(self) -> bool:
        while self._epoch is not None and self._next >= self._positions:
            if len(self._ends) >= self._window:
                return False  # an endless run over an empty source: one epoch at a time
            self._end_epoch()
        if self._epoch is None:
            return False
        stop = min(self._next + self._size.positions, self._positions)
        message = Claim(self._run, 0, self._epoch, self._sequence, self._next, stop)
        self._sender.send([encode(message)])
        self._sequence += 1
        self._issued += 1
        self._under_way += 1
        self._next = stop
        return True

    def _end_epoch(self) -> None:
        assert self._epoch is not None
        end = End(self._run, 0, self._epoch, self._sequence, 0, self._next, self._issued)
        self._ends.append(end)
        self._sequence += 1
        self._issued = 0
        self._epoch = next(self._epochs, None)
        self._next = 0


def make_grants(
    sender: Sender,
    *,
    run: int,
    window: int,
    positions: int | None,
    epochs: int | None,
    unit: int,
    pooled: bool,
) -> Grants:
    """Return claims on `positions` of a source, or, where they are None, credits for a sequential
    head.
    """
    if positions is None:
        return Credits(sender, run=run, window=window, pooled=pooled)
    return Claims(
        sender, run=run, window=window, positions=positions, epochs=epochs, size=UnitSize(unit)
    )
