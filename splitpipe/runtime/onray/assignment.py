"""What an actor on another machine is told of its work.

Responsible for: `Assignment`, a `WorkerSpec` without what only its machine has.

Rules:
- links, memory and descriptors stay with the relay; the actor makes twins of the links, and sends
  what lies in memory inside its messages;
- files that stages write themselves (quarantine, caches) are the actor's machine's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from splitpipe.runtime.blame import Accusations
from splitpipe.runtime.onray.telling import NoteAddress
from splitpipe.runtime.region import Course, Region
from splitpipe.runtime.start import Start
from splitpipe.runtime.worker import WorkerSpec

__all__ = ["Assignment", "Drawing", "assignment_of"]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How an actor is drawn in a trace.

    Attributes:
        limit: bytes that it may write.
        pid: the process that it is drawn as: its relay, which is one of the owner's machine.
        shift_s: from its clock to the owner's.
    """

    limit: int
    pid: int
    shift_s: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """As `WorkerSpec`; `regions` have no links, and beside them stands what they had.

    Attributes:
        merges: for each region, whether its head is told to go on from here.
        exits: number, start, and whether there is a gate, for each.
        floats: that a row has.
        leash: whether there is one, as there may be a `ledger`.
        notes: where it says what it is at, before it is; None: nobody wants to know.
        drawing: how it is drawn; None: it is not.
    """

    course: Course
    row: int
    name: str
    body: bytes
    pool: bool
    in_order: bool
    index: int
    regions: tuple[Region, ...]
    merges: tuple[bool, ...]
    exits: tuple[tuple[int, Start, bool], ...]
    floats: int
    leash: bool
    ledger: bool
    items: bool
    stages: bool
    accused: Accusations
    notes: NoteAddress | None
    drawing: Drawing | None


def assignment_of(
    spec: WorkerSpec, *, notes: NoteAddress | None = None, skew_s: float = 0.0
) -> Assignment:
    """Return what the actor is told.

    Args:
        spec: of the worker.
        notes: where somebody wants to know what it is at.
        skew_s: from its clock to this machine's.
    """
    assert isinstance(spec.body, bytes)
    return Assignment(
        course=spec.course,
        row=spec.row,
        name=spec.name,
        body=spec.body,
        pool=spec.pool,
        in_order=spec.in_order,
        index=spec.index,
        regions=tuple(replace(one, entry=None, back=None, arenas={}) for one in spec.regions),
        merges=tuple(one.back is not None for one in spec.regions),
        exits=tuple((one.producer, one.start, one.gate is not None) for one in spec.exits),
        floats=spec.board.floats,
        leash=spec.leash is not None,
        ledger=spec.ledger is not None,
        items=spec.items,
        stages=spec.stages,
        accused=spec.accused,
        notes=notes,
        drawing=None if spec.trace is None else Drawing(spec.trace.limit, os.getpid(), skew_s),
    )
