"""The page on which a running pipeline can be read, by its owner and by other processes.

Responsible for: the layout of that page, writing its heading, finding and reading the boards of
other processes.

Rules:
- a board is anonymous shared memory: a heading in JSON, written once by the owner, then one row of
  8-byte floats a worker, which has one writer. Numbers are stored whole; who reads a row may see it
  between two of its updates, never half a number;
- what a worker did stays readable after its death, and nothing of a board outlives the processes
  that hold it;
- other processes find a board by the name of the memory in ``/proc/PID/fd``, of processes of the
  same user alone; no file is written anywhere. A board whose owner is not the process that holds it
  is not shown: its owner is gone.

Layout: ``16s magic, u32 bytes of the heading with its padding, u32 bytes of JSON, u32 rows, u32
floats a row``, JSON, padding to a page; then the rows, each a multiple of a cache line.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from splitpipe.errors import PipelineError
from splitpipe.transport.anonymous import Descriptor, anonymous_file, map_shared, reserve

__all__ = ["Board", "BoardView", "Heading", "Row", "StageHead", "TaskHead", "boards", "row_of"]

Row: TypeAlias = "memoryview[float]"

LABEL = "splitpipe-board"
_MAGIC = b"splitpipe-board\1"
_PREFIX = struct.Struct("<16s4I")
_CACHE_LINE = 8  # floats

# A row: what its worker writes with every message, ...
FREQUENT = 12
(
    ITEMS_IN,
    ITEMS_OUT,
    DROPPED,
    WAIT_INPUT,
    WAIT_OUTPUT,
    WAIT_MEMORY,
    MESSAGES,
    NBYTES,
    UNITS_IN,
    UNITS_OUT,
    STATE,
    STATE_SINCE,
) = range(FREQUENT)
# ... a few times a second, ...
(
    CPU,
    ARENA_SLOTS,
    ARENA_NBYTES,
    ARENA_LIMIT,
    ARENA_REFUSED,
    COPIES,
    STARVED,
    OVERHEAD,
) = range(FREQUENT, FREQUENT + 8)
# ... and once or twice in its life.
PID, STARTED_AT, FINISHED_AT, FIRST_AT = range(FREQUENT + 8, FREQUENT + 12)
# From which state a process-wide generator was drawn from first; 0: it was not.
GENERATORS = ("random", "numpy.random", "torch")
DRAWN = FREQUENT + 12
# Where the worker is (see `splitpipe.runtime.notes`): numbers from 1, 0 for nowhere.
NOTES = 14
(
    AT_EPOCH,
    AT_START,
    AT_STOP,
    AT_HEAD,
    AT_POSITION,
    AT_STAGE,
    AT_SINCE,
    # Which item it is, for a stage that may leave it out: which stage, and who runs there.
    AT_MARK,
    AT_ITEM_STAGE,
    AT_PASS,
    AT_ITEM_EPOCH,
    AT_NUMBER,
    AT_PART_HIGH,
    AT_PART_LOW,
) = range(DRAWN + len(GENERATORS), DRAWN + len(GENERATORS) + NOTES)
RUNNING = DRAWN + len(GENERATORS) + NOTES
"""Seconds for which workers ran that were replaced; only in rows that are nobody's any more."""
FIELDS = RUNNING + 1

# For every stage of the task, after that:
STAGE_SECONDS, STAGE_DROPPED, STAGE_SKIPPED, STAGE_RETRIED, STAGE_QUARANTINED = range(5)
MEASURES = 4
"""How many of an operation's measures a board has room for."""
STAGE_MEASURES = 5
STAGE_FIELDS = STAGE_MEASURES + MEASURES

BUSY, WAITS_FOR_INPUT, WAITS_FOR_OUTPUT, WAITS_FOR_MEMORY = range(4)
"""The states of a worker."""


@dataclass(frozen=True, slots=True)
class StageHead:
    """A stage, as a heading names it."""

    name: str
    measures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskHead:
    """A task, as a heading names it.

    Attributes:
        name: its stages' names together.
        workers: rows that it has; the consumer has one, too.
        stages: what it runs, in order.
        reads: numbers of the tasks whose output it reads.
        executor: where its workers run: ``process``, ``thread``, ``consumer``.
        pool: whether its workers share their units.
        source: whether its workers read a source.
        divisible: whether it could have more workers than it has.
    """

    name: str
    workers: int
    stages: tuple[StageHead, ...] = ()
    reads: tuple[int, ...] = ()
    executor: str = "process"
    pool: bool = False
    source: bool = False
    divisible: bool = False

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> TaskHead:
        stages = tuple(StageHead(s["name"], tuple(s["measures"])) for s in values["stages"])
        return cls(**{**values, "stages": stages, "reads": tuple(values["reads"])})


@dataclass(frozen=True, slots=True)
class Heading:
    """What a board says once: who runs what.

    Attributes:
        tasks: in the order of their rows; the consumer is the last.
        run: number of the run.
        title: what the program is called.
        pid: of the owner.
        started: when, in seconds since 1970.
        started_at: the same moment on the clock of the rows (`time.perf_counter`, which processes
            of a machine share where they can see each other's boards).
        options: how it is run.
    """

    tasks: tuple[TaskHead, ...]
    run: int = 0
    title: str = ""
    pid: int = 0
    started: float = 0.0
    started_at: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(task.workers for task in self.tasks)

    @property
    def stages(self) -> int:
        """Most stages that a task has."""
        return max((len(task.stages) for task in self.tasks), default=0)

    @property
    def floats(self) -> int:
        """Floats that a row has."""
        floats = FIELDS + STAGE_FIELDS * self.stages
        return -(-floats // _CACHE_LINE) * _CACHE_LINE

    def split(self) -> Iterator[tuple[TaskHead, range]]:
        """Yield each task with the numbers of its rows."""
        first = 0
        for task in self.tasks:
            yield task, range(first, first + task.workers)
            first += task.workers

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str, separators=(",", ":"))

    @classmethod
    def of_json(cls, text: str | bytes) -> Heading:
        values = json.loads(text)
        return cls(**{**values, "tasks": tuple(map(TaskHead.of_json, values["tasks"]))})


def row_of(heading: Heading) -> Row:
    """Return a row that nobody else sees."""
    return memoryview(bytearray(8 * heading.floats)).cast("d")


class Board:
    """The owner's side, and each worker's: it travels to them.

    Args:
        heading: what it says, and how many rows of which length it has.
    """

    def __init__(self, heading: Heading) -> None:
        text = heading.to_json().encode()
        page = mmap.PAGESIZE
        self._first = -(-(_PREFIX.size + len(text)) // page) * page
        self._floats = self.floats = heading.floats
        self._nbytes = self._first + -(-8 * self._floats * heading.rows // page) * page
        self._memory = Descriptor(anonymous_file(LABEL))
        self.log: Any = None
        """Where workers tell what failed, if anybody wants to know; travels with it."""
        try:
            reserve(self._memory.fd, 0, self._nbytes)
            with map_shared(self._memory.fd, 0, self._first) as memory:
                memory[_PREFIX.size : _PREFIX.size + len(text)] = text
                # The magic comes last: who sees it, sees all of it.
                prefix = _PREFIX.pack(_MAGIC, self._first, len(text), heading.rows, self._floats)
                memory[: _PREFIX.size] = prefix
        except OSError:
            self._memory.close()
            raise

    def row(self, number: int) -> Row:
        """Return row `number`, writable; it stays valid after `close`."""
        whole = memoryview(map_shared(self._memory.fd, 0, self._nbytes))
        start = self._first + number * 8 * self._floats
        return whole[start : start + 8 * self._floats].cast("d")

    def close(self) -> None:
        self._memory.close()


class BoardView:
    """Another process's board, to be read.

    Args:
        pid: of the owner.
        fd: the number that the board has there.
    """

    def __init__(self, pid: int, fd: int) -> None:
        descriptor = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            nbytes = os.fstat(descriptor).st_size
            self._memory = mmap.mmap(descriptor, nbytes, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        magic, first, length, rows, floats = _PREFIX.unpack_from(self._memory)
        stop = first + 8 * rows * floats
        if magic != _MAGIC or _PREFIX.size + length > first or stop > nbytes:
            self.close()
            raise ValueError(f"descriptor {fd} of process {pid} is no board, or not one yet")
        self.heading = Heading.of_json(self._memory[_PREFIX.size : _PREFIX.size + length])
        self._first, self._floats = first, floats

    def rows(self) -> list[Row]:
        """Return a copy of every row as it is now."""
        size = 8 * self._floats
        starts = range(self._first, self._first + size * self.heading.rows, size)
        return [memoryview(self._memory[start : start + size]).cast("d") for start in starts]

    def close(self) -> None:
        self._memory.close()

    def __enter__(self) -> BoardView:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def boards() -> list[BoardView]:
    """Return the boards of the pipelines that this user's processes run now, the oldest first.

    Raises:
        PipelineError: this system shows nobody the descriptors of another process.
    """
    if not sys.platform.startswith("linux"):
        raise PipelineError(
            "running pipelines are found through /proc, which only Linux has; inside the program "
            "itself, loader.stats() and loader.doctor() tell the same everywhere"
        )
    found: list[BoardView] = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        # A process that ends meanwhile, or is another's, has nothing to show.
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                found += _boards_of(pid)
    return sorted(found, key=lambda view: (view.heading.started, view.heading.run))


def _boards_of(pid: int) -> Iterator[BoardView]:
    seen = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, struct.error):
            if not os.readlink(path).startswith(f"/memfd:{LABEL} "):
                continue
            if (inode := os.stat(path).st_ino) in seen:
                continue
            seen.add(inode)
            view = BoardView(pid, int(name))
            if view.heading.pid == pid:
                yield view
            else:
                view.close()
