"""Regions of the stream: from a head, which numbers messages, to the merge that orders them.

Responsible for: what the merge at the end of a region has to be given, whether it is a worker's or
the consumer's, and how regions follow each other in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from splitpipe.runtime.grants import Grants, make_grants
from splitpipe.runtime.inbox import Inbox, Lock
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.parts import Splitting
from splitpipe.transport.arena import ArenaLink, ArenaView
from splitpipe.transport.base import Link, Receiver
from splitpipe.transport.objects import Shelf

if TYPE_CHECKING:
    from splitpipe.pipeline.plan import Task

__all__ = ["Course", "Region"]


@dataclass(frozen=True, slots=True)
class Course:
    """What everybody in a run knows of it.

    Attributes:
        run: its number, in every message.
        epochs: the number of the one behind the last; None: there is none.
        first_epoch: the first one.
    """

    run: int
    epochs: int | None
    first_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """The stretch of the stream that the next sequential reader merges.

    Attributes:
        entry: what the next task reads; None for the head of a stream that reads its source.
        back: how the head of the region is told to go on.
        positions: of the source in one epoch, where that is the head and its positions are given
        out; None where the head is a task.
        unit: positions that must stay together in a unit of work.
        together: positions that are worth giving out at once.
        window: units that may be between head and merge.
        ordered: whether the merge gives them out in their order.
        pooled: whether there is a pool in it.
        splitting: how its batches may be made in parts; None where they are made whole.
        branched: whether its head has other readers too.
        first: the first of the positions that are given out in the first epoch.
        rest: an epoch with another number of positions, and how many; None: all have the same.
        arenas: of those who write to `entry`, by their number; shelves, where all of this happens
        in one process.
    """

    entry: Link | None
    back: Link | None
    window: int
    positions: int | None = None
    unit: int = 1
    together: int = 1
    ordered: bool = True
    pooled: bool = False
    splitting: Splitting | None = None
    branched: bool = False
    first: int = 0
    rest: tuple[int, int] | None = None
    arenas: Mapping[int, ArenaLink | Shelf] = field(default_factory=dict)

    def after(self, task: Task, output: Link, arenas: Mapping[int, ArenaLink | Shelf]) -> Region:
        """Return the region as it is behind the pool `task`: the same one, longer."""
        return replace(
            self,
            entry=output,
            window=max(self.window, task.window),
            ordered=self.ordered and task.ordered,
            pooled=True,
            # What a second pool reads must be whole.
            splitting=None if self.pooled else self.splitting,
            arenas=arenas,
        )

    def intake(
        self,
        receiver: Receiver,
        course: Course,
        meter: Meter,
        *,
        wait: Callable[[], None] | None = None,
        alone: bool = False,
        warn: bool = False,
    ) -> Intake:
        """Return what reads `entry` through `receiver`; see `Intake` and `ArenaLink.reader`."""
        arenas = self.readers(warn=warn)
        return Intake(receiver, arenas, run=course.run, meter=meter, wait=wait, alone=alone)

    def readers(self, *, warn: bool = False) -> dict[int, ArenaView | Shelf]:
        """Return the reading sides of all arenas; once a process."""
        return {number: link.reader(warn=warn) for number, link in self.arenas.items()}

    def inbox(self, intake: Intake, course: Course, lock: Lock | None = None) -> Inbox:
        """Return the merge of this region; once. See `Inbox` for `lock`."""
        inbox = Inbox(
            intake,
            self.grants(course),
            ordered=self.ordered,
            splitting=self.splitting,
            lock=lock,
        )
        inbox.begin(course.first_epoch, position=self.first)
        if self.branched:
            inbox.announce_waits()
        return inbox

    def grants(self, course: Course) -> Grants:
        """Return what lets the head of this region work; once."""
        assert self.back is not None
        return make_grants(
            self.back.sender(),
            run=course.run,
            window=self.window,
            positions=self.positions,
            epochs=course.epochs,
            unit=self.unit,
            together=self.together,
            pooled=self.pooled,
            splitting=self.splitting,
            begin=(course.first_epoch, self.first),
            rest=self.rest,
        )
