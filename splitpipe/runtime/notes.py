"""Where a worker is, for whoever has to say it when the worker cannot any more.

Responsible for: `Notes`, which a worker leaves on its row of the board: the unit of work that it is
at, and, where somebody asked for it, which item of it and in which stage; `Site`, what others read
there.

Rules:
- a note of a unit costs next to nothing and is always left. Items and stages are noted after a
  death, or where a stage has a deadline: a write for every item, two for every stage;
- a note is left before what it is about begins: who dies of an item dies with its number there;
- who waits for input or output is nowhere: nothing of what it did is to blame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from splitpipe.runtime import board as b
from splitpipe.runtime.board import Row

__all__ = ["NO_STAGE", "Accused", "Notes", "Pausing", "SharedNotes", "Site", "begun", "site_of"]

NO_STAGE = -1

_FIRST = 1
"""How a row says that the first stage of a task runs: stages are counted from one there."""

_EXACT = 1 << 53
"""Whole numbers below it are whole as floats."""


class Accused(NamedTuple):
    """An item, as a stage names it that may leave it out.

    Attributes:
        mark: of the stage.
        epoch: which pass, with that of a `repeat` in its upper bits.
        number: of the item.
        part: which of the items with that number.
    """

    mark: int
    epoch: int
    number: int
    part: int


class Notes:
    """A worker's side.

    Args:
        row: its own.
        items: whether to note every item.
        stages: whether to note which stage runs, and since when.
    """

    __slots__ = ("_accused", "_first", "_last", "_row", "items", "stages")

    def __init__(self, row: Row, *, items: bool = False, stages: bool = False) -> None:
        self._row = row
        self._accused: dict[int, tuple[Accused, float]] = {}
        self._first = 0
        self._last = 0.0
        self.items = items
        self.stages = stages

    def begin(self, epoch: int, start: int, stop: int) -> None:
        """A unit begins: positions ``start:stop``; `stop` is 0 where nobody knows it yet."""
        row = self._row
        row[b.AT_POSITION] = row[b.AT_MARK] = 0
        self._accused.clear()
        row[b.AT_START] = self._first = start
        row[b.AT_STOP] = stop
        row[b.AT_EPOCH] = epoch + 1  # last: from now on it counts

    def end(self) -> None:
        """It is over."""
        self._row[b.AT_EPOCH] = 0

    def following(self, items: Iterator[Any], head: int, first: int = 0) -> Iterator[Any]:
        """Yield the `items` of an input, and note which of them is being read, or worked on.

        `first` is the number of the first, where that is not the first of the unit.
        """
        row, first = self._row, first or self._first
        row[b.AT_HEAD] = head
        row[b.AT_POSITION] = first + 1
        for number, item in enumerate(items, first + 2):
            yield item
            del item
            row[b.AT_HEAD] = head
            row[b.AT_POSITION] = number

    def accuse(self, item: Accused) -> None:
        """A stage that may leave `item` out begins to treat it."""
        self._accused.pop(item.mark, None)
        self._accused[item.mark] = item, self._row[b.AT_STAGE]
        self._tell_item(item, self._row[b.AT_STAGE])

    def acquit(self, mark: int) -> None:
        """The stage with this mark has treated its item."""
        self._accused.pop(mark, None)
        if self._accused:
            self._tell_item(*next(reversed(self._accused.values())))
        else:
            self._row[b.AT_MARK] = 0

    def show(self, item: Accused | None) -> None:
        """Name `item`, which is a part of what the stage that runs is at; None: that itself."""
        last = next(reversed(self._accused.values()), None)
        if last is not None:
            self._tell_item(last[0] if item is None else item, last[1])

    def _tell_item(self, item: Accused, stage: float) -> None:
        row = self._row
        row[b.AT_MARK] = 0
        if item.number >= _EXACT:
            return
        row[b.AT_ITEM_STAGE] = stage
        row[b.AT_PASS], row[b.AT_ITEM_EPOCH] = item.epoch >> 32, item.epoch & 0xFFFFFFFF
        row[b.AT_NUMBER] = item.number
        row[b.AT_PART_HIGH], row[b.AT_PART_LOW] = item.part >> 32, item.part & 0xFFFFFFFF
        row[b.AT_MARK] = item.mark  # last: from now on it counts

    def inside(self, items: Iterator[Any], stage: int) -> Iterator[Any]:
        """Yield the `items` that stage number `stage` makes: while it is asked for one, it runs."""
        while True:
            self.resume(stage + 1)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.pause()
            yield item
            del item

    def outside(self, items: Iterator[Any], stage: int) -> Iterator[Any]:
        """Yield the `items` that stage number `stage` reads: while it asks for one, others run."""
        while True:
            self.pause()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.resume(stage + 1)
            yield item
            del item

    def pause(self) -> float:
        """The stage that runs does not any more, or waits for something that is not its doing;
        return what `resume` wants.
        """
        stage = self._row[b.AT_STAGE]
        self._row[b.AT_STAGE] = 0
        self._last = stage or self._last
        return stage

    def resume(self, stage: float) -> None:
        """It runs, or goes on."""
        self._row[b.AT_SINCE] = time.perf_counter()
        self._row[b.AT_STAGE] = stage

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """What a task reads is made of bytes, by the values' own code, which may never end: that
        counts as the doing of its first stage.
        """
        last, before = self._last, self.pause()
        self.resume(_FIRST)
        try:
            yield
        finally:
            self.pause()
            self._last = last
            if before:
                self.resume(before)

    @contextmanager
    def serialising(self) -> Iterator[None]:
        """What the last stage made is made into bytes, by its own code: that is its doing, too."""
        self.resume(self._last)
        try:
            yield
        finally:
            self.pause()


class SharedNotes(Notes):
    """The notes of a worker whose outputs are served by a thread each.

    The row tells of the one that is in a stage for the longest time.
    """

    __slots__ = ("_inside",)

    def __init__(self, row: Row, *, items: bool = False, stages: bool = False) -> None:
        super().__init__(row, items=items, stages=stages)
        self._inside: dict[int, tuple[float, float]] = {}

    def pause(self) -> float:
        _, stage = self._inside.pop(threading.get_ident(), (0.0, 0.0))
        self._tell()
        self._last = stage or self._last
        return stage

    def resume(self, stage: float) -> None:
        if stage:
            self._inside[threading.get_ident()] = time.perf_counter(), stage
        self._tell()

    def _tell(self) -> None:
        since, stage = min(list(self._inside.values()), default=(0.0, 0.0))
        if self._row[b.AT_SINCE] != since:
            self._row[b.AT_STAGE] = 0  # not for a moment the old stage with the new time
            self._row[b.AT_SINCE] = since
        self._row[b.AT_STAGE] = stage


class Pausing:
    """Lets waits for memory be nobody's doing; see `splitpipe.transport.base.Watcher`."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._stage = 0.0

    def begin_wait(self, still: Callable[[], bool]) -> None:
        self._stage = self._notes.pause()

    def end_wait(self) -> None:
        self._notes.resume(self._stage)

    def unwanted(self) -> bool:
        return False


def begun(notes: Notes | None, epoch: int) -> Notes | None:
    """Return `notes` of a worker that begins an epoch of which nobody knows where it ends."""
    if notes is not None:
        notes.begin(epoch, 0, 0)
    return notes


@dataclass(frozen=True, slots=True)
class Site:
    """Where a worker was.

    Attributes:
        task: its number in the plan.
        epoch: which.
        start, stop: positions that its unit has; `stop` is None where nobody knew.
        head: the part of the body from which it had its last item.
        position: of that item; None where it was not noted.
        stage: number of the stage that ran; `NO_STAGE` where it was not noted.
        item: which item that stage was treating, where it may leave it out; None: it may not, or it
            was not noted.
    """

    task: int
    epoch: int
    start: int
    stop: int | None
    head: int = 0
    position: int | None = None
    stage: int = NO_STAGE
    item: Accused | None = None

    def may_be(self, other: Site) -> bool:
        """Whether this may have been at the item of `other`, of which the position is known."""
        assert other.position is not None
        if (self.task, self.epoch) != (other.task, other.epoch):
            return False
        if self.item is not None and other.item is not None:
            return self.item == other.item
        if self.position is not None:
            return (self.head, self.position) == (other.head, other.position)
        return self.start <= other.position < (self.stop or other.position + 1)

    def __str__(self) -> str:
        if self.position is not None:
            return f"at position {self.position} of epoch {self.epoch}"
        if self.stop is None:
            return f"in epoch {self.epoch}"
        if self.stop - self.start == 1:
            return f"at position {self.start} of epoch {self.epoch}"
        return f"at positions {self.start} to {self.stop - 1} of epoch {self.epoch}"


def site_of(row: Row, task: int) -> Site | None:
    """Return where the worker of `row` is, or was; None where it had nothing to do.

    Example:
        >>> row = memoryview(bytearray(8 * b.FIELDS)).cast("d")
        >>> notes = Notes(row)
        >>> notes.begin(epoch=1, start=20, stop=30)
        >>> print(site_of(row, task=0))
        at positions 20 to 29 of epoch 1
        >>> print(next(notes.following(iter("xy"), head=0)), site_of(row, task=0))
        x at position 20 of epoch 1
    """
    if not row[b.AT_EPOCH] or row[b.STATE] != b.BUSY:
        return None
    position = int(row[b.AT_POSITION])
    return Site(
        task,
        epoch=int(row[b.AT_EPOCH]) - 1,
        start=int(row[b.AT_START]),
        stop=int(row[b.AT_STOP]) or None,
        head=int(row[b.AT_HEAD]),
        position=position - 1 if position else None,
        stage=int(row[b.AT_STAGE]) - 1,
        item=_item_of(row),
    )


def _item_of(row: Row) -> Accused | None:
    if not row[b.AT_MARK] or row[b.AT_STAGE] != row[b.AT_ITEM_STAGE]:
        return None  # another stage runs: it works on what that one has made
    return Accused(
        int(row[b.AT_MARK]),
        (int(row[b.AT_PASS]) << 32) + int(row[b.AT_ITEM_EPOCH]),
        int(row[b.AT_NUMBER]),
        (int(row[b.AT_PART_HIGH]) << 32) + int(row[b.AT_PART_LOW]),
    )
