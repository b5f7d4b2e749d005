"""What tasks did and where their time went.

Responsible for: `Board`, a page of shared memory with one row a worker, and the records made from
it.

Rules:
- a row has one writer, its worker, and is written at most once a message: measuring costs next to
  nothing;
- numbers are 8-byte floats that are stored whole; a reader may see a row between two of its
  updates, never half a number;
- what a worker did stays readable after its death.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from typing import TypeAlias

from splitpipe.transport.anonymous import Descriptor, anonymous_file, map_shared, reserve

__all__ = ["Board", "Meter", "Row", "TaskStatistics"]

Row: TypeAlias = "memoryview[float]"

_FIELDS = 10
_ROW = 8 * _FIELDS
(
    _STARTED,
    _ITEMS_IN,
    _ITEMS_OUT,
    _DROPPED,
    _RUNNING,
    _WAIT_INPUT,
    _WAIT_OUTPUT,
    _MESSAGES,
    _NBYTES,
    _FINISHED,
) = range(_FIELDS)


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """What one task did so far, all its workers together; times are in seconds, summed over the
    workers.

    Attributes:
        name: the stages, in order.
        workers: processes; 0 is the consumer's own.
        items_in, items_out: what it took and what it gave on.
        dropped: what its stages left out on purpose (`filter`, ``drop_last``).
        running_s: since its workers started.
        wait_input_s: with nothing to do.
        wait_output_s: with nowhere to put what it had made.
        nbytes: what it sent, messages and payloads.
        messages: how many messages that took.
    """

    name: str
    workers: int
    items_in: int
    items_out: int
    dropped: int
    running_s: float
    wait_input_s: float
    wait_output_s: float
    nbytes: int
    messages: int

    @property
    def busy_s(self) -> float:
        """Time that went into the work itself."""
        return max(0.0, self.running_s - self.wait_input_s - self.wait_output_s)


class Meter:
    """One worker's counters; `publish` copies them to its row of the board."""

    __slots__ = (
        "_row",
        "_since",
        "dropped",
        "items_in",
        "items_out",
        "messages",
        "nbytes",
        "wait_input_s",
        "wait_output_s",
    )

    def __init__(self, row: Row | None = None) -> None:
        self._row = row
        self._since = time.perf_counter()
        self.items_in = self.items_out = self.dropped = self.messages = self.nbytes = 0
        self.wait_input_s = self.wait_output_s = 0.0
        if row is not None:
            row[_STARTED] = 1.0

    def publish(self) -> None:
        """Let others see the counters as they are now."""
        row = self._row
        if row is None:
            return
        row[_ITEMS_IN] = self.items_in
        row[_ITEMS_OUT] = self.items_out
        row[_DROPPED] = self.dropped
        row[_RUNNING] = time.perf_counter() - self._since
        row[_WAIT_INPUT] = self.wait_input_s
        row[_WAIT_OUTPUT] = self.wait_output_s
        row[_MESSAGES] = self.messages
        row[_NBYTES] = self.nbytes

    def finish(self) -> None:
        """The task is done: from now on its worker may go."""
        self.publish()
        if self._row is not None:
            self._row[_FINISHED] = 1.0


class Board:
    """Rows of counters in anonymous shared memory; travels to the workers."""

    def __init__(self, rows: int) -> None:
        self._nbytes = -(-rows * _ROW // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = Descriptor(anonymous_file("splitpipe-board"))
        try:
            reserve(self._memory.fd, 0, self._nbytes)
        except OSError:
            self._memory.close()
            raise

    def row(self, number: int) -> Row:
        """Return row `number`, writable; it stays valid after `close`."""
        whole = memoryview(map_shared(self._memory.fd, 0, self._nbytes))
        return whole[number * _ROW : (number + 1) * _ROW].cast("d")

    def close(self) -> None:
        self._memory.close()


def started(row: Row) -> bool:
    """Whether the worker of `row` got as far as running its task."""
    return bool(row[_STARTED])


def finished(row: Row) -> bool:
    """Whether the worker of `row` has done all that was asked of it."""
    return bool(row[_FINISHED])


def summarise(name: str, workers: int, rows: list[Row]) -> TaskStatistics:
    """Return what the workers of one task did together."""
    total = [sum(float(row[i]) for row in rows) for i in range(_FIELDS)]
    return TaskStatistics(
        name=name,
        workers=workers,
        items_in=int(total[_ITEMS_IN]),
        items_out=int(total[_ITEMS_OUT]),
        dropped=int(total[_DROPPED]),
        running_s=total[_RUNNING],
        wait_input_s=total[_WAIT_INPUT],
        wait_output_s=total[_WAIT_OUTPUT],
        nbytes=int(total[_NBYTES]),
        messages=int(total[_MESSAGES]),
    )
