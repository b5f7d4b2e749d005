"""What workers counted that were replaced.

Responsible for: `fold`, which takes the numbers of a set of workers off the board, so that its
statistics go on where they were and the rows are as new for others.

Rules:
- sums are kept; what says how things are now (states, slots) goes with the worker;
- what was on its way between two of them went with them: nothing is queued any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from splitpipe.runtime import board as b
from splitpipe.runtime.board import Heading, Row, row_of
from splitpipe.runtime.statistics import read, running_s

__all__ = ["Past", "fold"]

Past: TypeAlias = "Mapping[int, Row]"
"""Rows that are nobody's any more, by their numbers."""

_SUMS = (
    *(b.ITEMS_IN, b.ITEMS_OUT, b.DROPPED, b.WAIT_INPUT, b.WAIT_OUTPUT, b.WAIT_MEMORY, b.MESSAGES),
    *(b.NBYTES, b.UNITS_IN, b.UNITS_OUT, b.CPU, b.ARENA_REFUSED, b.COPIES, b.STARVED, b.OVERHEAD),
)


def fold(heading: Heading, rows: Sequence[Row], past: Past, *, now: float) -> Past:
    """Return what all workers have counted, with `past`, and clear their rows.

    Args:
        heading: of the board.
        rows: all of them; those of consumers stay as they are.
        past: what was returned last.
        now: on the clock of the rows.
    """
    tasks = read(heading, rows, now=now, past=past)
    made: dict[int, Row] = {}
    for task, (head, numbers) in zip(tasks, heading.split(), strict=True):
        if head.executor == "consumer":
            continue
        for number in numbers:
            row, earlier = rows[number], past.get(number)
            kept = made[number] = row_of(heading) if earlier is None else earlier
            for place in (*_SUMS, *range(b.FIELDS, len(row))):
                kept[place] += row[place]
            kept[b.RUNNING] += running_s([row], now)
            kept[b.FIRST_AT] = kept[b.FIRST_AT] or row[b.FIRST_AT]
            row[:] = row_of(heading)
        made[numbers[0]][b.UNITS_OUT] -= task.queued
    return made
