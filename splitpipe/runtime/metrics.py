"""Counting what a worker does.

Responsible for: `Meter`, one worker's counters and its state, and writing them to its row of the
board.

Rules:
- a row is written at most once a message, what is dear to find out (CPU time, the arena) a few
  times a second: measuring costs next to nothing;
- a worker that waits says so before it waits: others can tell how long it has been waiting;
- a meter belongs to one thread; only `sample` may be called by another. Where several threads share
  one worker they have a `SharedMeter`.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from splitpipe.pipeline.stages.base import Context
from splitpipe.pipeline.stages.globals import Watch
from splitpipe.runtime import board as b
from splitpipe.runtime.board import Row
from splitpipe.runtime.notes import Notes

__all__ = ["NOWHERE", "Layer", "Meter", "SharedMeter", "finished", "started"]

SELDOM_S = 0.02
"""How often what is dear to find out is written."""
DRAWN_S = 0.25
"""How often generators are looked at: that takes some 50 microseconds."""
_FREQUENT = struct.Struct(f"@{b.FREQUENT}d")
NOWHERE = -1
"""The number of what belongs to none of a task's stages."""


class Layer(NamedTuple):
    """A running stage of a chain.

    Attributes:
        stage: its number among the stages of the task; `NOWHERE` for what only brings items in.
        context: where it counts; None where it does not.
        items: what it yields; code below a generator's frame belongs to this stage.
    """

    stage: int
    context: Context | None
    items: Iterator[Any]


class _Arena(Protocol):
    def statistics(self) -> Any: ...


class _Intake(Protocol):
    @property
    def copies(self) -> int: ...


class _Recorder(Protocol):
    def span(self, name: str, start: float, stop: float, items: int) -> None: ...
    def flush(self) -> None: ...


class Meter:
    """One worker's counters; `publish` copies them to its row of the board.

    Args:
        row: where to; None: nobody looks.
        clock: CPU seconds so far: of the process, or of the thread where a process runs several
            workers.
    """

    __slots__ = (
        "_buffer",
        "_clock",
        "_cpu",
        "_cut",
        "_drawn",
        "_folded",
        "_items",
        "_layers",
        "_live",
        "_row",
        "_seldom",
        "_stages",
        "arenas",
        "awake",
        "dropped",
        "intakes",
        "items_in",
        "items_out",
        "messages",
        "nbytes",
        "notes",
        "on_publish",
        "recorder",
        "since",
        "starved",
        "state",
        "units_in",
        "units_out",
        "wait_input_s",
        "wait_memory_s",
        "wait_output_s",
        "watch",
    )

    def __init__(
        self, row: Row | None = None, *, clock: Callable[[], float] = time.process_time
    ) -> None:
        now = time.perf_counter()
        self._row = row
        self._clock = clock
        self._cpu = self._cut = self.since = 0.0
        self._seldom = now
        self._items = 0
        self._layers: Iterable[Layer] = ()
        self.items_in = self.items_out = self.dropped = self.messages = self.nbytes = 0
        self.units_in = self.units_out = 0
        self.wait_input_s = self.wait_output_s = self.wait_memory_s = 0.0
        self.state = b.BUSY
        self._folded: dict[int, float] = {}  # what stages of earlier chains counted, by place
        self._live = 0
        self.arenas: Sequence[_Arena] = ()
        self.intakes: Sequence[_Intake] = ()
        self.recorder: _Recorder | None = None
        self.starved: Callable[[], float] | None = None
        """Seconds for which the worker could have run and had no CPU, where somebody knows."""
        self.watch: Watch | None = None
        """Looks at the generators of the process, where somebody wants to know."""
        self._drawn = now
        self.notes: Notes | None = None
        """Says where the worker is, where somebody wants to know."""
        self.on_publish: Callable[[float], None] | None = None
        """Called a few times a second, with the time."""
        self.awake: Callable[[], None] | None = None
        """Called once when the worker is busy again; set by a sampler that fell asleep."""
        self._stages = 0
        self._buffer = memoryview(b"")
        if row is not None:
            self._buffer = row.cast("B")
            self._stages = (len(row) - b.FIELDS) // b.STAGE_FIELDS
            row[b.PID] = os.getpid()
        self.begin()

    def begin(self) -> None:
        """What is measured begins now."""
        self.since = self._cut = time.perf_counter()
        self._cpu = self._clock()
        if self._row is not None:
            self._row[b.STARTED_AT] = self.since

    # -- waiting

    def wait(self, state: int) -> None:
        """From now on the worker waits, for what `state` says; `resume` has to follow."""
        now = time.perf_counter()
        if self.recorder is not None:
            self._record(now, "work")
        self.since = now
        self.state = state
        row = self._row
        if row is not None:
            row[b.STATE_SINCE] = now
            row[b.STATE] = state

    def resume(self) -> None:
        """The worker goes on working."""
        now = time.perf_counter()
        waited = now - self.since
        state = self.state
        self.state = b.BUSY
        self.since = now
        row = self._row
        if state == b.WAITS_FOR_INPUT:
            self.wait_input_s += waited
        else:
            self.wait_output_s += waited
            if state == b.WAITS_FOR_MEMORY:
                self.wait_memory_s += waited
        if row is not None:
            row[b.STATE] = b.BUSY
            row[b.WAIT_INPUT] = self.wait_input_s
            row[b.WAIT_OUTPUT] = self.wait_output_s
            row[b.WAIT_MEMORY] = self.wait_memory_s
        if self.recorder is not None:
            self._record(now, _WAITS[state])
        if self.awake is not None:
            wake, self.awake = self.awake, None
            wake()

    def waited(self, state: int, seconds: float) -> None:
        """Count a wait that is over already, and of which nobody knew that it would be one."""
        self.wait_output_s += seconds
        if state == b.WAITS_FOR_MEMORY:
            self.wait_memory_s += seconds

    # -- working

    def take(self) -> None:
        """A unit of work, or a message, was taken."""
        self.units_in += 1
        if self.units_in == 1 and self._row is not None:
            self._row[b.FIRST_AT] = now = time.perf_counter()
            self._publish_seldom(now)

    def enter(self, layers: Iterable[Layer]) -> None:
        """The stages of the task begin to run."""
        self._layers = layers

    def leave(self, layers: Iterable[Layer], *, counted: bool = True) -> None:
        """`layers` are done; what they counted is added up, unless it is to be counted again."""
        self._layers = ()
        self._live = 0
        if not counted:
            return
        # Several passes over a stage count in the context of the last one.
        contexts = {layer.stage: layer for layer in layers}
        for layer in contexts.values():
            context = layer.context
            if context is None:
                continue
            self.dropped += context.dropped
            if context.dropped or context.measured or context.counts.treated:
                for place, value in _counts(layer):
                    self._folded[place] = self._folded.get(place, 0.0) + value
                    self._write(place, self._folded[place])

    def sample(self, frame: Any, seconds: float) -> None:
        """Count `seconds` for the innermost stage that `frame` runs in."""
        row = self._row
        if row is None:
            return
        frames = {getattr(layer.items, "gi_frame", None): layer.stage for layer in self._layers}
        while frame is not None and frame not in frames:
            frame = frame.f_back
        number = NOWHERE if frame is None else frames[frame]
        if 0 <= number < self._stages:
            row[b.FIELDS + number * b.STAGE_FIELDS + b.STAGE_SECONDS] += seconds
        else:
            row[b.OVERHEAD] += seconds

    def drawn(self) -> None:
        """Tell from which state of which process-wide generator user code has drawn first."""
        row = self._row
        if row is None or self.watch is None:
            return
        for draw in self.watch.look():
            place = b.DRAWN + b.GENERATORS.index(draw.generator)
            if not row[place]:
                row[place] = draw.state % (1 << 53) or 1  # what a float holds exactly

    # -- telling

    def publish(self) -> None:
        """Let others see the counters as they are now."""
        if self._row is None:
            return
        now = time.perf_counter()
        due = now - self._seldom > SELDOM_S
        if due:
            self._publish_stages()
        self.write()
        if self.recorder is not None:
            self._record(now, "work")
        if due:
            self._publish_seldom(now)

    def write(self) -> None:
        """Write the counters to the row, and do no more."""
        if self._row is not None:
            _FREQUENT.pack_into(
                self._buffer,
                0,
                self.items_in,
                self.items_out,
                self.dropped + self._live,
                self.wait_input_s,
                self.wait_output_s,
                self.wait_memory_s,
                self.messages,
                self.nbytes,
                self.units_in,
                self.units_out,
                self.state,
                self.since,
            )

    def finish(self) -> None:
        """The task is done: from now on its worker may go."""
        self.flush()
        if self._row is not None:
            self._row[b.FINISHED_AT] = time.perf_counter()

    def flush(self) -> None:
        """Let others see everything as it is now."""
        self.publish()
        self._publish_seldom(time.perf_counter())
        self.drawn()
        if self.recorder is not None:
            self.recorder.flush()

    def detach(self) -> None:
        """The board is gone: tell nobody any more."""
        self._row = None
        self._buffer = memoryview(b"")
        self.recorder = self.on_publish = None

    def _publish_seldom(self, now: float) -> None:
        self._seldom = now
        row = self._row
        if row is None:
            return
        row[b.CPU] = self._clock() - self._cpu
        shelves = [arena.statistics() for arena in self.arenas]
        row[b.ARENA_SLOTS] = sum(shelf.slots for shelf in shelves)
        row[b.ARENA_NBYTES] = sum(shelf.nbytes for shelf in shelves)
        row[b.ARENA_LIMIT] = sum(shelf.limit for shelf in shelves)
        row[b.ARENA_REFUSED] = sum(shelf.refused for shelf in shelves)
        row[b.COPIES] = sum(intake.copies for intake in self.intakes)
        if self.starved is not None:
            row[b.STARVED] = self.starved()
        if now - self._drawn > DRAWN_S:
            self._drawn = now
            self.drawn()
        if self.on_publish is not None:
            self.on_publish(now)

    def _publish_stages(self) -> None:
        """Let others see what running stages have counted so far."""
        live = 0
        for layer in {layer.stage: layer for layer in self._layers}.values():
            if layer.context is not None:
                live += layer.context.dropped
                for place, value in _counts(layer):
                    self._write(place, self._folded.get(place, 0.0) + value)
        self._live = live

    def _write(self, place: int, value: float) -> None:
        if self._row is not None and place < len(self._row):
            self._row[place] = value

    def _record(self, now: float, name: str) -> None:
        """Draw the time since the last cut."""
        assert self.recorder is not None
        self.recorder.span(name, self._cut, now, self.items_out - self._items)
        self._cut = now
        self._items = self.items_out


def _counts(layer: Layer) -> Iterator[tuple[int, float]]:
    """Yield what a stage counted, and where in a row it belongs."""
    assert layer.context is not None
    start = b.FIELDS + layer.stage * b.STAGE_FIELDS
    yield start + b.STAGE_DROPPED, layer.context.dropped
    counts = layer.context.counts
    if counts.skipped or counts.retried:
        yield start + b.STAGE_SKIPPED, counts.skipped
        yield start + b.STAGE_RETRIED, counts.retried
        yield start + b.STAGE_QUARANTINED, counts.quarantined
    measured = list(layer.context.measured.values())[: b.MEASURES]
    yield from enumerate(measured, start + b.STAGE_MEASURES)


class SharedMeter(Meter):
    """The counters of a worker whose outputs are served by a thread each.

    A wait of one of them is a wait of that part of the worker.
    """

    __slots__ = ("_begun", "_threads")

    def __init__(self, row: Row | None = None, *, threads: int) -> None:
        super().__init__(row)
        self._threads = threads
        self._begun: dict[int, tuple[int, float]] = {}

    def wait(self, state: int) -> None:
        self._begun[threading.get_ident()] = state, time.perf_counter()

    def resume(self) -> None:
        state, since = self._begun.pop(threading.get_ident())
        seconds = (time.perf_counter() - since) / self._threads
        if state == b.WAITS_FOR_INPUT:
            self.wait_input_s += seconds
        else:
            self.waited(state, seconds)


_WAITS = {
    b.WAITS_FOR_INPUT: "wait for input",
    b.WAITS_FOR_OUTPUT: "wait for output",
    b.WAITS_FOR_MEMORY: "wait for memory",
}


def started(row: Row) -> bool:
    """Whether the worker of `row` got as far as running its task."""
    return bool(row[b.STARTED_AT])


def finished(row: Row) -> bool:
    """Whether the worker of `row` has done all that was asked of it."""
    return bool(row[b.FINISHED_AT])
