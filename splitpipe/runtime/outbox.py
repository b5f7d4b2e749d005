"""Where a task writes: values into messages.

Responsible for: `Outbox`, which sends what a unit of work made, and `Chunker`, which cuts the
endless output of a sequential task into messages.

Rules:
- a value is serialised when it is made, unless nobody can change it any more (see `Packer`);
- a chunk is sent when it has cost `CHUNK_TIME_S`, when it has grown large, or when its maker makes
  it wait: a slow generator's item is never held back for its successors (`Chunker` owns a thread
  for this, asleep while chunks fill fast or there is nothing to send);
- a value that cannot be serialised is a failure of the stage, at its place; what came before it is
  sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from splitpipe.errors import SplitpipeError
from splitpipe.runtime.board import WAITS_FOR_MEMORY
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.room import Room
from splitpipe.transport.base import Buffer, Sender, Watcher
from splitpipe.transport.envelope import ATOMS, Packer
from splitpipe.transport.message import End, Failed, Item, Message, encode
from splitpipe.transport.objects import ObjectPacker

__all__ = ["Chunker", "EpochSkipped", "Outbox"]

CHUNK_TIME_S = 0.0015
CHUNK_BYTES = 256 << 10
CHUNK_ITEMS = 1024
"""More is slower: the list and what it holds no longer fit into the second-level cache."""
FLUSH_AFTER_S = 0.0015
"""An item waits at most two of these for its chunk to fill."""
_IDLE_TICKS = 25


class EpochSkipped(BaseException):
    """The reader does not want the rest of the epoch. Not an Exception: no stage may swallow it."""


class Outbox:
    """Sends messages of one producer."""

    def __init__(
        self,
        sender: Sender,
        packer: Packer | ObjectPacker,
        *,
        run: int,
        producer: int,
        meter: Meter,
    ) -> None:
        self._sender = sender
        self._run = run
        self._producer = producer
        self.packer = packer
        self.meter = meter

    def item(
        self,
        values: list[Any],
        *,
        epoch: int,
        sequence: int,
        start: int,
        stop: int,
        elapsed_s: float = 0.0,
        counted: int | None = None,
        first: int = 0,
        report: bytes = b"",
    ) -> int:
        """Send the unchangeable `values`, or what the packer holds, as one Item; return their
        bytes.

        They count as `counted` items that were made: rows of a batch are none yet. `first` and
        `report`: see `Message`.
        """
        packer = self.packer
        count = len(values) or packer.count
        if values:
            packer.add_atoms(values)
        nbytes = packer.nbytes
        body = self._packed(bulk=bool(values))
        elapsed = int(elapsed_s * 1e9)
        self.meter.items_out += count if counted is None else counted
        message = Item(
            self._run, self._producer, epoch, sequence, start, stop, count, elapsed, nbytes
        )
        message.first = first
        message.report = report
        self.meter.units_out += 1
        self._send(message, body, nbytes)
        return nbytes

    def failed(
        self,
        failure: Failure,
        *,
        epoch: int,
        sequence: int,
        start: int,
        stop: int,
        values: list[Any] | None = None,
        counted: int | None = None,
        report: bytes = b"",
    ) -> None:
        """Send a failure, after the values that its unit of work gave before it; `counted` and
        `report` as for `item`.
        """
        count = len(values or ()) or self.packer.count
        if values:
            self.packer.add_atoms(values)
        body = self._packed(bulk=bool(values)) if count else []
        told = failure.encode()
        message = Failed(
            self._run, self._producer, epoch, sequence, start, stop, count, nbytes=len(told)
        )
        message.report = report
        self.meter.items_out += count if counted is None else counted
        self.meter.units_out += 1
        self._send(message, [told, *body], 0)

    def end(self, *, epoch: int, sequence: int, stop: int, count: int) -> None:
        """Send the end of an epoch."""
        self._send(End(self._run, self._producer, epoch, sequence, 0, stop, count), [], 0)

    def forward(self, message: End | Failed) -> None:
        """Pass on what a pool has nothing to do with."""
        self._send(message, [message.body], 0)

    def room(self, watcher: Watcher) -> Room:
        """Return what waits for room in the channel, and tells `watcher`."""
        return Room(self._sender, watcher, self.meter)

    def add(self, value: Any) -> None:
        """Serialise `value`, for the message to come."""
        notes = self.meter.notes
        if notes is None or not notes.stages:
            self.packer.add(value)
            return
        with notes.serialising():
            self.packer.add(value)

    def allocate(self, shape: Any, dtype: Any, near: Any = None) -> Any:
        """Return an array in the message to come; waits while all slots are held."""
        notes = self.meter.notes
        stage = notes.pause() if notes is not None and notes.stages else None
        since = time.perf_counter()
        array = self.packer.allocate(shape, dtype, near)
        if notes is not None and stage is not None:
            notes.resume(stage)
        waited = time.perf_counter() - since
        if waited > 1e-4:  # less is the allocation itself
            self.meter.waited(WAITS_FOR_MEMORY, waited)
        return array

    def _packed(self, *, bulk: bool) -> list[Buffer]:
        since = time.perf_counter()
        body = self.packer.pack(bulk=bulk)
        waited = time.perf_counter() - since
        if waited > 1e-3:
            self.meter.waited(WAITS_FOR_MEMORY, waited)
        return body

    def _send(self, message: Message, body: list[Buffer], nbytes: int) -> None:
        since = time.perf_counter()
        self._sender.send([encode(message), *body])
        meter = self.meter
        meter.wait_output_s += time.perf_counter() - since
        meter.messages += 1
        meter.nbytes += nbytes
        meter.publish()


class Chunker:
    """Cuts a stream of values into messages.

    Args:
        outbox: where they go.
        send: called with the values of a chunk (empty: they are in the packer); returns their
        bytes.
        ready: whether `send` would return without waiting for the reader.
        most: how many values a message may hold.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Callable[[list[Any]], int],
        ready: Callable[[], bool],
        most: Callable[[], int] = lambda: CHUNK_ITEMS,
    ) -> None:
        self._most = most
        self._outbox = outbox
        self._packer = outbox.packer
        self._send = send
        self._ready = ready
        self._values: list[Any] = []
        self._size = 1
        self._lock = threading.Lock()
        self._since = time.perf_counter()
        self._chunks = 0
        self._flusher = _Flusher(self)
        self.on_flush: Callable[[], None] | None = None
        """Called when nothing is pending any more, in the flusher's thread."""
        self.on_sent: Callable[[], None] | None = None
        """Called when nothing is pending any more, in the maker's thread: the maker waits."""
        self._packer.calibrate(self.drain)

    def drain(self, items: Iterator[Any]) -> None:
        """Send everything that `items` yields; the last chunk waits for `flush`."""
        values = self._values
        append = values.append
        for item in items:
            kind = type(item)
            if kind is tuple:
                for part in item:
                    if type(part) not in ATOMS:
                        break
                else:
                    kind = int  # as unchangeable as its parts
            if kind in ATOMS:
                append(item)
                if len(values) >= self._size:
                    self._full()
            else:
                self._add(item)
            del item

    def flush(self) -> None:
        """Send what there is."""
        with self._lock:
            self._flush()

    def discard(self) -> None:
        """Forget what was not sent."""
        with self._lock:
            self._values.clear()
            self._packer.discard()

    def close(self) -> None:
        """Stop the flusher."""
        self._flusher.close()

    def flush_if_stalled(self, chunks: int) -> int:
        """Send what there is if no chunk was sent since there were `chunks`; return how many there
        are now.

        For the flusher's thread: it neither waits for the reader nor for the maker.
        """
        if self._chunks == chunks and self.pending and self._lock.acquire(blocking=False):
            try:
                if self._chunks == chunks and self._ready():
                    self._flush()
                    if self.on_flush is not None:
                        self.on_flush()
            finally:
                self._lock.release()
        return self._chunks

    def rest(self) -> bool:
        """Before the flusher falls asleep: the next item is sent at once. False if one is
        pending.
        """
        self._size = 1
        return not self.pending

    @property
    def pending(self) -> bool:
        """Whether there is something that was not sent."""
        return bool(self._values) or self._packer.count > 0

    def _add(self, item: Any) -> None:
        with self._lock:
            for earlier in self._values:  # a stream of both kinds still travels in chunks
                self._packer.add(earlier)
            self._values.clear()
            self._outbox.add(item)
            if self._packer.count < self._size and self._packer.nbytes < CHUNK_BYTES:
                return
            self._flush_full()
        self._wake()
        if self.on_sent is not None:
            self.on_sent()

    def _full(self) -> None:
        with self._lock:
            if len(self._values) >= self._size:
                if self._packer.count:
                    self._flush_packed()
                self._flush_full()
        self._wake()
        if self.on_sent is not None and not self._values:
            self.on_sent()

    def _wake(self) -> None:
        if self._size > 1:
            self._flusher.wake()

    def _flush_full(self) -> None:
        """Send a full chunk and choose the size of the next: double what fills fast, halve what
        does not.
        """
        elapsed = time.perf_counter() - self._since
        count = len(self._values) or self._packer.count
        nbytes = self._flush()
        if nbytes > CHUNK_BYTES:
            self._size = max(1, count * CHUNK_BYTES // nbytes)
        elif elapsed > CHUNK_TIME_S:
            self._size = max(1, self._size // 2)
        elif elapsed < CHUNK_TIME_S / 2 and nbytes < CHUNK_BYTES / 2:
            self._size = min(2 * self._size, CHUNK_ITEMS)
        if self._size > 1:
            self._size = min(self._size, self._most())

    def _flush(self) -> int:
        nbytes = self._flush_packed() if self._packer.count else 0
        count = len(self._values)
        if count:
            nbytes += self._send(self._values[:count])
            del self._values[:count]  # the maker may have appended meanwhile
            self._sent()
        return nbytes

    def _flush_packed(self) -> int:
        nbytes = self._send([])
        self._sent()
        return nbytes

    def _sent(self) -> None:
        self._chunks += 1
        self._since = time.perf_counter()


class _Flusher:
    """A thread that sends a chunk whose maker stalls. Asleep, without a clock, while no chunk can
    be pending.
    """

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """A chunk has begun that may not fill soon."""
        if self._awake.is_set():
            return
        self._awake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="splitpipe-flusher", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop, and wait for what it is doing."""
        self._stop.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        seen, idle = -1, 0
        while not self._stop.wait(FLUSH_AFTER_S):
            try:
                now = self._chunker.flush_if_stalled(seen)
            except EpochSkipped:
                continue  # the maker will hear of it when it sends
            except SplitpipeError:
                return  # the run was shut; the maker will hear of it itself
            idle = idle + 1 if now == seen else 0
            seen = now
            if idle > _IDLE_TICKS:
                self._awake.clear()
                if self._chunker.rest():
                    self._awake.wait()
                idle = 0
