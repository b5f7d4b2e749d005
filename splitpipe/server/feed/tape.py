"""Batches that were made, kept for a while.

Responsible for: `Tape`: a thread that runs ahead of the clients by a bounded amount, the window of
what it made, and a second thread that makes blocks again for those who are behind the window.

Rules:
- a batch is made once for all who are inside of the window. Who is behind it never holds up who is
  ahead: his blocks come from a stream of its own, begun at the nearest checkpoint;
- both threads work within bounds: bytes and batches ahead of the furthest, bytes of the window, one
  block at a time;
- looking something up takes no lock: a dict is asked, and the entry is there or is not;
- whatever a stream raises is the `Broken` of its place: nobody waits for a batch that cannot come.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from splitpipe.server.feed.ledger import Weight
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.memory import BatchStream
from splitpipe.server.iterations.made import Broken, Ended, Event, Made, failure_of

__all__ = ["Checkpoints", "Entry", "Opener", "Tape"]

Opener = Callable[[int, Any], BatchStream]
"""Opens the stream at a batch, with a checkpoint of that batch or of one before, or None."""

OVERHEAD_NBYTES = 400
"""What an entry takes beside its frames."""

CHECKPOINT_S = 2.0
NEAR_BATCHES = 64
"""How far a stream goes on rather than being opened anew at a checkpoint."""


class Entry(NamedTuple):
    """A batch on the tape.

    Attributes:
        frames: it, encoded.
        nbytes: of the frames together.
        weight: samples, filtered, failed.
        offset: bytes of everything that was made before it by the same thread.
    """

    frames: Sequence[Any]
    nbytes: int
    weight: Weight
    offset: int = 0


class Checkpoints:
    """States of the stream, by the number of the batch that comes next.

    Example:
        >>> states = Checkpoints({10: "ten", 40: "forty"})
        >>> states.nearest(39), states.nearest(40), states.nearest(3)
        ((10, 'ten'), (40, 'forty'), (0, None))
    """

    def __init__(self, known: Mapping[int, Any] | None = None) -> None:
        self._states = dict(known or {})
        self._order = sorted(self._states)
        self._last_s = time.monotonic()
        self._new: list[tuple[int, Any]] = []
        self._lock = threading.Lock()

    def nearest(self, sequence: int) -> tuple[int, Any]:
        """The last one at or before `sequence`; the beginning where there is none."""
        with self._lock:
            at = bisect_right(self._order, sequence)
            return (self._order[at - 1], self._states[self._order[at - 1]]) if at else (0, None)

    def due(self, sequence: int) -> bool:
        """Whether it is time for one: not too often, and ever more rarely in a long stream."""
        if time.monotonic() - self._last_s < CHECKPOINT_S:
            return False
        return not self._order or sequence > self._order[-1] * 1.01

    def add(self, sequence: int, state: Any) -> None:
        """Keep the state of the stream right before `sequence`."""
        with self._lock:
            self._last_s = time.monotonic()
            self._states[sequence] = state
            self._order = sorted(self._states)
            self._new.append((sequence, state))

    def take_new(self) -> list[tuple[int, Any]]:
        """Those that were added since the last call."""
        if not self._new:
            return []
        with self._lock:
            new, self._new = self._new, []
            return new


class Tape:
    """What was made of a stream.

    Args:
        opener: opens the stream anywhere.
        limits: bounds.
        wake: called, from any thread, when something new is there for somebody who waits.
        checkpoints: states that are known from before.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        limits: FeedLimits,
        wake: Callable[[], None],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.checkpoints = checkpoints or Checkpoints()
        self.made = 0
        """The number of the batch that the thread in front makes next."""
        self.base = 0
        """The first batch of the window."""
        self.ended: Ended | None = None
        self.broken: Broken | None = None
        self._opener = opener
        self._limits = limits
        self._wake = wake
        self._window: dict[int, Entry] = {}
        self._blocks: dict[int, Entry] = {}
        self._total_nbytes = 0
        self._floor = 0
        self._told: tuple[int, int, int] | None = None
        self._furthest: int | None = None
        self._jump: int | None = None
        self._asked: dict[str, int] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._stream: BatchStream | None = None
        self._threads: list[threading.Thread] = []

    def get(self, sequence: int) -> Entry | None:
        """The batch, if it is here."""
        entry = self._window.get(sequence)
        return entry if entry is not None else self._blocks.get(sequence)

    def demand(self, furthest: int, *, lowest: int, floor: int = 0) -> None:
        """Say how far clients are.

        Args:
            furthest: the batch that the one in front wants next.
            lowest: no batch before it will be wanted by those that are there now.
            floor: no batch before it will be wanted by anybody.
        """
        told = (furthest, lowest, floor)
        if told == self._told:
            return
        self._told = told
        with self._changed:
            if self._furthest is None:
                self._begin(lowest if furthest - lowest <= NEAR_BATCHES else furthest)
            elif lowest > self.made + NEAR_BATCHES:
                self._jump = lowest
            self._furthest, self._floor = furthest, floor
            self._changed.notify_all()

    def ask(self, wanted: Mapping[str, int]) -> None:
        """Say which batches, behind the window, somebody waits for: one each, by who waits."""
        if wanted == self._asked:
            return
        with self._changed:
            self._asked = dict(wanted)
            self._changed.notify_all()
        if wanted and len(self._threads) == 1:
            self._run(self._catch_up, "splitpipe-tape-behind")

    def stats(self) -> Any:
        """What the stages of the stream in front do."""
        return {} if self._stream is None else self._stream.stats()

    def close(self, *, timeout_s: float = 5.0) -> bool:
        """End both threads. Gives whether they did; a stage may hang in user code."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _begin(self, sequence: int) -> None:
        self.made = self.base = sequence
        self._run(self._run_ahead, "splitpipe-tape")

    # ---------------------------------------------------------------- the thread in front

    def _run_ahead(self) -> None:
        stream: BatchStream | None = None
        try:
            while self._may_go_on():
                if self._jump is not None:
                    self._leap()
                    if stream is not None:
                        stream.close()
                        stream = None
                if stream is None:
                    stream = self._stream = self._open(self.made)
                if not self._take(next(stream)):
                    return
                if self.checkpoints.due(self.made):
                    self._keep_checkpoint(stream)
        except BaseException as error:
            self.broken = Broken(self.made, failure_of(error))
        finally:
            self._wake()
            if stream is not None:
                with contextlib.suppress(Exception):
                    stream.close()

    def _keep_checkpoint(self, stream: BatchStream) -> None:
        state = stream.checkpoint()
        if state is not None:
            self.checkpoints.add(self.made, state)

    def _may_go_on(self) -> bool:
        """Wait until there is room ahead; false when it is closed."""
        if self._room() and not self._closed:
            return True
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._room())
            return not self._closed

    def _room(self) -> bool:
        furthest = self._furthest
        if furthest is None:
            return False
        if self.made <= furthest or self._jump is not None:
            return True
        entry = self._window.get(furthest)
        ahead = 0 if entry is None else self._total_nbytes - entry.offset
        limits = self._limits
        return ahead < limits.ahead_nbytes and self.made - furthest < limits.ahead_batches

    def _leap(self) -> None:
        with self._changed:
            if self._jump is not None:
                self.made = self.base = self._jump
                self._window = {}
                self._jump = None

    def _open(self, sequence: int) -> BatchStream:
        """Open the stream so that it gives `sequence` next."""
        return self._opener(sequence, self.checkpoints.nearest(sequence)[1])

    def _take(self, event: Event) -> bool:
        if isinstance(event, Broken):
            self.broken = event
            return False
        if isinstance(event, Ended):
            self.ended = event
            return False
        if event.sequence != self.made:
            raise AssertionError(f"the stream gave batch {event.sequence}, not {self.made}")
        entry = entry_of(event, self._total_nbytes)
        self._total_nbytes += entry.nbytes + OVERHEAD_NBYTES
        self._window[self.made] = entry
        self.made += 1
        self._trim()
        self._wake()
        return True

    def _trim(self) -> None:
        """Let go of what nobody wants, and of the oldest when the window is full."""
        window, base = self._window, self.base
        last = min(self._furthest or 0, self.made - 1)
        floor = min(self._floor, last)
        allowed = self._total_nbytes - self._limits.window_nbytes
        while base < floor or (base < last and window[base].offset < allowed):
            del window[base]
            base += 1
        self.base = base

    # ---------------------------------------------------------------- the thread behind

    def _catch_up(self) -> None:
        stream: BatchStream | None = None
        at = 0
        turn = 0
        while (asked := self._next_asked(turn)) is not None:
            turn += 1
            try:
                if stream is None or not at <= asked <= at + NEAR_BATCHES:
                    if stream is not None:
                        stream.close()
                    stream, at = self._open(asked), asked
                at = self._make_block(stream, at, asked)
                if at < 0:  # it is at its end, and says nothing more
                    stream.close()
                    stream = None
            except BaseException as error:
                self._break(Broken(asked, failure_of(error)))
                stream = None
            self._wake()
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()

    def _next_asked(self, turn: int) -> int | None:
        """Wait until somebody is behind the window, and give what he wants; None when closed."""
        with self._changed:
            while not self._closed:
                asked = [one for one in self._asked.values() if self._is_behind(one)]
                if asked:
                    return asked[turn % len(asked)]
                self._changed.wait()
            return None

    def _is_behind(self, sequence: int) -> bool:
        broken = self.broken is not None and sequence >= self.broken.sequence
        return not broken and sequence < self.base and self.get(sequence) is None

    def _make_block(self, stream: BatchStream, at: int, asked: int) -> int:
        """Make some batches from `asked` on. Gives where the stream is then; -1: at its end."""
        block: dict[int, Entry] = {}
        nbytes = 0
        limits = self._limits
        while len(block) < limits.block_batches and nbytes < limits.block_nbytes:
            if self._closed or at >= max(self.base, asked + 1):
                break
            event = next(stream)
            if not isinstance(event, Made):
                if isinstance(event, Broken):
                    self._break(event)
                at = -1
                break
            at += 1
            if event.sequence >= asked:
                block[event.sequence] = entry = entry_of(event, 0)
                nbytes += entry.nbytes
        kept = {**self._blocks, **block}
        surplus = sum(entry.nbytes for entry in kept.values()) - 4 * limits.block_nbytes
        for sequence in list(kept):
            if (surplus <= 0 and len(kept) <= 8 * limits.block_batches) or sequence in block:
                break
            surplus -= kept.pop(sequence).nbytes
        self._blocks = kept
        return at

    def _break(self, broken: Broken) -> None:
        if self.broken is None or broken.sequence < self.broken.sequence:
            self.broken = broken


def entry_of(made: Made, offset: int) -> Entry:
    """A batch as it lies on the tape.

    Example:
        >>> entry_of(Made(0, [b"abc", b"defg"], 2, 1), 10)
        Entry(frames=[b'abc', b'defg'], nbytes=7, weight=(2, 1, 0), offset=10)
    """
    frames = made.frames
    nbytes = 0
    for frame in frames:
        nbytes += len(frame) if isinstance(frame, bytes) else memoryview(frame).nbytes
    return Entry(frames, nbytes, (made.samples, made.filtered, made.failed), offset)
