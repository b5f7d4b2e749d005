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
  in the stream;
- where the unit is a batch that costs long, a claim is a part of one: one slow item then holds
  neither its batch nor, with a full window, the other workers. A part never crosses the end of
  its batch, and a window counts whole batches, in parts or not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count

from splitpipe.errors import PipelineError
from splitpipe.runtime.parts import AGAIN, LAST, PART, Splitting
from splitpipe.runtime.start import Start
from splitpipe.transport.base import Sender
from splitpipe.transport.message import NEVER, Credit, End, Failed, Item, claim, encode

__all__ = ["Claims", "Credits", "Grants", "PartSize", "UnitSize", "make_grants"]

UNIT_TIME_NS = 4_000_000
"""Work in one message: long against the 100 to 200 µs that one costs all processes together, which
share their caches and have to be woken for it; short against a human or a GPU."""

SUDDEN_NS = 16 * UNIT_TIME_NS
"""A unit that took longer says that items cost more than before; a shorter one, perhaps, that one
of them did."""

UNIT_BYTES = 256 << 10
CHUNKS = 16

SPLIT_NS = 10_000_000
"""What a batch costs at least before it is made in parts: a twentieth of it is lost to messages."""

PART_NS = 3_000_000
"""Work in one part."""

SPLIT_ROW_NS = 200_000
"""What one row costs at least: packing it alone and unpacking it takes up to 15 µs."""

SPLIT_BYTES_S = 64e6
"""Bytes that one worker makes in a second at most: the reader copies all of them once more."""

MEMORY = 24
"""Batches over which their cost is averaged: costly ones that come in clusters are remembered."""

MOST_CLAIMS = 256
"""Claims that may be under way: they must fit into a socket's buffer."""

MOST_PARTS = 128
"""Parts that a window is divided into."""


class UnitSize:
    """How many positions to put into one unit: doubled while units are cheap, halved when one is
    not, and cut to what fits when one is out of all proportion: of costs with a long tail a single
    costly item says little of those behind it.

    Args:
        step: positions that must stay together.
        together: positions that are worth giving out at once: a worker waits for all of them at a
            time, so that the time they take says nothing of the work in one.
    """

    __slots__ = ("_least", "positions", "step")

    def __init__(self, step: int, together: int = 1) -> None:
        self.step = step
        self.positions = self._least = -(-together // step) * step

    def learn(self, positions: int, elapsed_ns: int, nbytes: int) -> None:
        """Take note of what a unit of `positions` cost."""
        if positions <= 0:
            return
        by_time = UNIT_TIME_NS * positions // max(1, elapsed_ns)
        if elapsed_ns < SUDDEN_NS:
            whole = positions >= self.positions
            by_time = max(by_time, self.positions // 2 if whole else self.positions)
        by_bytes = UNIT_BYTES * positions // max(1, nbytes)
        fitting = min(by_time, by_bytes, 2 * self.positions, 1 << 14)
        if positions < self.positions and fitting > self.positions:
            return  # a unit of an earlier, smaller size says nothing new
        self.positions = max(self._least, fitting // self.step * self.step)


class PartSize(UnitSize):
    """As `UnitSize` for batches that may be split: less than a batch while batches cost long.

    What the batches of some time cost on average decides, not what the last one did: a cheap
    stretch between costly ones is no reason to make the next costly one whole.

    Args:
        splitting: what the parts may be.
        window: batches under way.
        together: as for `UnitSize`; a batch of no more is never split.
    """

    __slots__ = ("_most", "_nbytes", "_ns", "_row", "_seen", "_smallest", "splits")

    def __init__(self, splitting: Splitting, window: int, together: int = 1) -> None:
        super().__init__(splitting.unit, together)
        self._row = splitting.row
        rows = splitting.unit // splitting.row
        self._most = self._row * -(-rows // 2)
        fewest = max(-(-rows * window // MOST_PARTS), -(-together // self._row))
        self._smallest = min(self.step, self._row * fewest)
        self._ns = self._nbytes = 0.0  # of one position
        self._seen = 0
        self.splits: bool | None = None if together >= self.step > 1 else False
        """Whether claims are parts now; None: never again."""

    def learn(self, positions: int, elapsed_ns: int, nbytes: int) -> None:
        if self.splits is None or positions <= 0:
            super().learn(positions, elapsed_ns, nbytes)
            return
        self._seen = min(self._seen + positions, MEMORY * self.step)
        share = min(1.0, positions / self._seen)
        self._ns += share * (elapsed_ns / positions - self._ns)
        self._nbytes += share * (nbytes / positions - self._nbytes)
        before, self.splits = self.splits, self._worth(0.5 if self.splits else 1.0)
        if self.splits:
            positions = self._row * round(PART_NS / (self._ns * self._row))
            self.positions = max(self._row, self._smallest, min(positions, self._most))
        elif before:
            self.positions = self._least
        else:
            super().learn(positions, elapsed_ns, nbytes)

    def forbid(self) -> None:
        """Make every batch whole from now on."""
        self.splits = None
        self.positions = self.step

    def _worth(self, factor: float) -> bool:
        return (
            self._ns * self.step >= factor * SPLIT_NS
            and self._ns * self._row >= factor * SPLIT_ROW_NS
            and self._nbytes * 1e9 * factor <= SPLIT_BYTES_S * self._ns
        )


class Grants(ABC):
    """What a merge tells its head."""

    @abstractmethod
    def open(self) -> None:
        """Grant the first window."""

    @abstractmethod
    def consumed(self, part: int | None = None) -> None:
        """The reader is done with one unit, or with a part of one that has so many positions."""

    @abstractmethod
    def skip(self, epoch: int) -> None:
        """The rest of `epoch` is not wanted."""

    @abstractmethod
    def widen(self, window: int) -> None:
        """Let so many units be under way from now on, or as few as there were meant to be at
        first.
        """

    def begin(self, start: Start) -> None:
        """Begin at `start`, before anything is granted. A head that is a task is told elsewhere."""
        del start

    def detach(self) -> None:
        """Nothing more is wanted, ever. A source whose claims are not renewed needs no word."""
        return

    def hungry(self, sequence: int) -> None:
        """The reader has everything before message `sequence`, and waits for it."""
        del sequence

    def ends(self) -> Iterator[End]:
        """Yield the ends of epochs that this side knows of by itself."""
        return iter(())

    def learn(self, item: Item) -> None:
        """Take note of what a unit cost."""
        del item

    def batch_end(self, item: Item | Failed) -> int | None:
        """Return where the batch ends that `item` is a part of; None when it is a whole unit."""
        del item
        return None

    def again(self, item: Item | Failed, stop: int) -> None:
        """Let the batch from the beginning of `item` to `stop` be made whole, in the place of
        `item`; split no other.
        """
        raise PipelineError(f"message {item.sequence} is no part of a batch: a fault of splitpipe")


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
        self._window = self._least = window
        self._target = window
        self._under_way = 0
        self._wanted = -1

    def open(self) -> None:
        self._grant()

    def consumed(self, part: int | None = None) -> None:
        del part
        self._under_way -= 1
        if 2 * (self._target - self._under_way) >= self._target:
            self._grant()

    def learn(self, item: Item) -> None:
        self._target = max(self._window, CHUNKS) if item.count > 1 else self._window
        if self._size is not None:
            self._size.learn(max(1, item.stop - item.start), item.elapsed_ns, item.nbytes)

    def widen(self, window: int) -> None:
        self._window = max(window, self._least)
        self._target = max(self._target, self._window)  # or less, with the next message

    def skip(self, epoch: int) -> None:
        self._send(0, epoch=epoch, skip=True)

    def detach(self) -> None:
        self._send(0, epoch=NEVER, skip=True)

    def hungry(self, sequence: int) -> None:
        if sequence != self._wanted:
            self._wanted = sequence
            self._send(0, wanted=sequence + 1)

    def _grant(self) -> None:
        credits = self._target - self._under_way
        if credits > 0:
            self._under_way += credits
            self._send(credits)

    def _send(self, credits: int, *, epoch: int = 0, skip: bool = False, wanted: int = 0) -> None:
        most = self._size.positions if self._size is not None else 0
        message = Credit(self._run, 0, epoch, wanted, start=most, stop=int(skip), count=credits)
        self._sender.send([encode(message)])


class Claims(Grants):
    """For a source with random access: positions to whoever is free.

    Args:
        positions: of one epoch.
        epochs: how many, None for ever.
        size: positions of a unit. A `PartSize` lets batches be made in parts.
        begin: the first epoch, and the first position in it.
        rest: an epoch that has another number of positions, and how many.
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
        begin: tuple[int, int] = (0, 0),
        rest: tuple[int, int] | None = None,
    ) -> None:
        self._rest = rest
        self._sender = sender
        self._run = run
        self._window = self._least = window
        self._room = window * size.step  # a whole unit takes `step`, a part what it has
        self._positions = positions
        self._size = size
        epoch, self._next = begin
        self._epochs = iter(count(epoch) if epochs is None else range(epoch, epochs))
        self._epoch: int | None = next(self._epochs, None)
        self._done: list[tuple[int, int]] = []  # ranges of this epoch that nobody wants any more
        self._given = self._next  # positions of this epoch, with those that nobody wants any more
        self._sequence = 0
        self._issued = 0
        self._under_way = self._messages = 0
        self._ends: list[End] = []

    def begin(self, start: Start) -> None:
        while self._epoch is not None and self._epoch < start.epoch:
            self._epoch = next(self._epochs, None) if start.wanted else None
        self._next, self._sequence = start.position, start.sequence
        self._done, self._given = list(start.done), start.covered

    def open(self) -> None:
        while self._grant():
            pass

    def consumed(self, part: int | None = None) -> None:
        self._under_way -= self._size.step if part is None else part
        self._messages -= 1
        self.open()

    def widen(self, window: int) -> None:
        self._window = max(window, self._least)
        self._room = self._window * self._size.step

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

    def batch_end(self, item: Item | Failed) -> int | None:
        step = self._size.step
        if item.stop - item.start >= step:
            return None
        end = (item.start // step + 1) * step
        return end if end <= self._until(item.epoch) else None

    def _until(self, epoch: int | None) -> int:
        """How many positions an epoch has."""
        if self._rest is not None and self._rest[0] == epoch:
            return self._rest[1]
        return self._positions

    def again(self, item: Item | Failed, stop: int) -> None:
        assert isinstance(self._size, PartSize)
        self._size.forbid()
        self._claim(item.epoch, item.sequence, item.start, stop, AGAIN)

    def _grant(self) -> bool:
        """Give out one unit more; False when there is none, or no room for it."""
        if self._under_way >= self._room or self._messages >= MOST_CLAIMS:
            return False  # asked with every message: the usual answer comes first
        while self._epoch is not None and self._over():
            if len(self._ends) >= self._window:
                return False  # an endless run over an empty source: one epoch at a time
            self._end_epoch()
        if self._epoch is None:
            return False
        stop, part = self._unit()
        weight = stop - self._next if part else self._size.step
        if self._under_way + weight > self._room:
            return False
        kind = (PART if stop % self._size.step else LAST) if part else 0
        self._claim(self._epoch, self._sequence, self._next, stop, kind)
        self._sequence += 1
        self._issued += 1
        self._under_way += weight
        self._messages += 1
        self._given += stop - self._next
        self._next = stop
        return True

    def _over(self) -> bool:
        """Whether the epoch has no positions more; go past those that nobody wants."""
        while self._done and self._done[0][0] <= self._next:
            self._next = max(self._next, self._done.pop(0)[1])
        assert self._epoch is not None
        return self._next >= self._until(self._epoch)

    def _unit(self) -> tuple[int, bool]:
        """Return where the next unit ends, and whether it is a part of a batch."""
        begin, step, until = self._next, self._size.step, self._until(self._epoch)
        stop = min(begin + self._size.positions, until)
        if self._done:  # units may overtake one another: none is in parts
            return min(stop, self._done[0][0]), False
        into = begin % step
        if into == 0 and stop - begin >= step:
            return stop, False
        end = begin - into + step
        if end > until:
            return until, False  # the last batch is short, and is made whole
        return min(stop, end), True

    def _claim(self, epoch: int, sequence: int, start: int, stop: int, kind: int) -> None:
        self._sender.send([claim(self._run, epoch, sequence, start, stop, kind)])

    def _end_epoch(self) -> None:
        assert self._epoch is not None
        end = End(self._run, 0, self._epoch, self._sequence, 0, self._given, self._issued)
        self._ends.append(end)
        self._sequence += 1
        self._issued = self._given = 0
        self._epoch = next(self._epochs, None)
        self._next = 0
        self._done.clear()


def make_grants(
    sender: Sender,
    *,
    run: int,
    window: int,
    positions: int | None,
    epochs: int | None,
    unit: int,
    pooled: bool,
    together: int = 1,
    splitting: Splitting | None = None,
    begin: tuple[int, int] = (0, 0),
    rest: tuple[int, int] | None = None,
) -> Grants:
    """Return claims on `positions` of a source, or, where they are None, credits for a sequential
    head. Batches are made in parts where `splitting` allows it; for `together` see `UnitSize`, for
    `begin` and `rest` `Claims`.
    """
    if positions is None:
        return Credits(sender, run=run, window=window, pooled=pooled)
    size = UnitSize(unit, together) if splitting is None else PartSize(splitting, window, together)
    return Claims(
        sender,
        run=run,
        window=window,
        positions=positions,
        epochs=epochs,
        size=size,
        begin=begin,
        rest=rest,
    )
