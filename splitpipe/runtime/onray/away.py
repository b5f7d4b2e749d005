"""A worker on another machine than its owner.

Responsible for: `work_away`, which does one piece of work for a relay: twins of the worker's links
in this process, and a thread that joins them to the wire.

Rules:
- the worker runs in the calling thread, over twins: what is sent into one leaves over the wire,
  what arrives is laid into one;
- when the relay is gone the twins are shut, which ends the worker wherever it waits;
- a pool's worker has one unit at hand beside the one that it is at: while it works the next one is
  on its way.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from splitpipe.errors import BrokenChannel
from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.runtime.book import ErrorLog
from splitpipe.runtime.onray.assignment import Assignment, Drawing
from splitpipe.runtime.onray.clocks import CLOCK
from splitpipe.runtime.onray.telling import ToldRow
from splitpipe.runtime.onray.wire import Address, Tag, Wire
from splitpipe.runtime.seat import Seat
from splitpipe.runtime.trace import Recorder
from splitpipe.runtime.worker import ExitSpec, WorkerSpec, run_spec
from splitpipe.transport.base import Buffer, ChannelStatistics, Link, Receiver, Sender
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.nowhere import NowhereLink
from splitpipe.transport.pickling import load

__all__ = ["work_away"]

AT_HAND = 2
"""Units that a pool's worker has: one that it is at, one that waits."""

_MANY = 1 << 20


def work_away(address: Address) -> None:
    """Do what the relay at `address` says, and return when that is done, or nobody wants it."""
    bridge = _Bridge(address)
    try:
        assignment = bridge.begin()
        if assignment is not None:
            run_spec(bridge.spec(assignment))
            bridge.finish()
    finally:
        bridge.close()


class _Bridge:
    """The wire, the twins, and the thread between them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._posts: deque[tuple[Tag, int, Sequence[Buffer]]] = deque()
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._rung = False
        self._twins: dict[tuple[Tag, int], _Incoming] = {}
        self._row: ToldRow | None = None
        self._work: bytes | None = None
        self._came = threading.Event()
        self._leave = False
        self.broken = False
        """Whether nobody is there any more."""
        self._thread = threading.Thread(target=self._run, name="splitpipe-wire", daemon=True)

    def begin(self) -> Assignment | None:
        """Return what there is to do; None: nobody wants anything."""
        self.post(Tag.HELLO, 0, ())
        self._thread.start()
        self._came.wait()
        if self._work is None:
            return None
        assignment = load(self._work)
        assert isinstance(assignment, Assignment)
        return assignment

    def spec(self, told: Assignment) -> WorkerSpec:
        """Return what the worker is given, and make the twins of its links."""
        floats = memoryview(bytearray(8 * told.floats)).cast("d")
        self._row = ToldRow(floats, told.notes, items=told.items)
        regions = tuple(
            replace(
                region,
                entry=self._incoming(Tag.ENTRY, number, asks=told.pool),
                back=_Outgoing(self, Tag.BACK, number) if merges else None,
            )
            for number, (region, merges) in enumerate(zip(told.regions, told.merges, strict=True))
        )
        exits = tuple(
            ExitSpec(
                producer,
                self._incoming(Tag.GATE, number) if gate else None,
                _Outgoing(self, Tag.OUTPUT, number),
                NowhereLink(),
                start,
            )
            for number, (producer, start, gate) in enumerate(told.exits)
        )
        if told.pool:
            for _ in range(AT_HAND):
                self.post(Tag.MORE, 0, ())
        board: Any = _FarBoard(self, self._row)
        return WorkerSpec(
            course=told.course,
            row=told.row,
            name=told.name,
            body=told.body,
            pool=told.pool,
            in_order=told.in_order,
            index=told.index,
            regions=regions,
            exits=exits,
            board=board,
            trace=_far_trace(self, told.drawing),
            owner=None,
            seat=Seat(),
            leash=self._incoming(Tag.LEASH, 0) if told.leash else None,
            ledger=_far_ledger(self) if told.ledger else None,
            items=told.items,
            stages=told.stages,
            accused=told.accused,
        )

    def post(self, tag: Tag, number: int, parts: Sequence[Buffer]) -> None:
        """Send a message; from any thread, without waiting."""
        self._posts.append((tag, number, parts))
        if not self._rung:
            self._rung = True
            os.write(self._bell[1], b"\0")

    def row(self) -> bytes:
        """Return what the worker says of itself now."""
        assert self._row is not None
        return self._row.numbered()

    def finish(self) -> None:
        """Say that the work is done, and wait until that was heard."""
        if not self.broken:
            self.post(Tag.ROW, 0, [self.row()])
            self.post(Tag.BYE, 0, ())
            self._thread.join()

    def close(self) -> None:
        """End the thread and let go of everything."""
        self._leave = True
        self.post(Tag.MORE, 0, ())
        if self._thread.ident is not None:
            self._thread.join()
        for fd in self._bell:
            os.close(fd)
        for twin in self._twins.values():
            twin.close()
        if self._row is not None:
            self._row.close()

    def _incoming(self, tag: Tag, number: int, *, asks: bool = False) -> _Incoming:
        # What came before it was made waits in the one that was made for that.
        made = self._twins.setdefault((tag, number), _Incoming(self))
        made.asks = asks
        return made

    # -- in the thread

    def _run(self) -> None:
        wire = Wire(self._address)
        try:
            while not self._leave:
                self._rung = False
                while self._take(wire) or self._send(wire):
                    pass
                if wire.broken():
                    return
                self._wait(wire)
        finally:
            self.broken = True
            self._came.set()
            self._shut()
            wire.close()

    def _shut(self) -> None:
        for twin in list(self._twins.values()):
            twin.shut()

    def _take(self, wire: Wire) -> bool:
        took = False
        while (came := wire.receive()) is not None:
            took = True
            tag, number, data = came
            if tag is Tag.WORK:
                self._work = bytes(data)
                self._came.set()
            elif tag is Tag.SHUT:
                self._shut()
            elif tag is Tag.CLOCK:
                wire.send(Tag.CLOCK, 0, [CLOCK.pack(time.perf_counter())])
            else:
                twin = self._twins.setdefault((tag, number), _Incoming(self))
                twin.lay(data)
        return took

    def _send(self, wire: Wire) -> bool:
        sent = False
        while self._posts:
            tag, number, parts = self._posts.popleft()
            wire.send(tag, number, parts)
            sent = True
        return sent

    def _wait(self, wire: Wire) -> None:
        poll = select.poll()
        for fd in (*wire.descriptors, self._bell[0]):
            poll.register(fd, select.POLLIN)
        if not self._posts and wire.quiet():
            poll.poll()
        try:
            os.read(self._bell[0], 1 << 10)
        except BlockingIOError:
            return


class _Incoming(Link):
    """The twin of a link that the worker reads."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._link = MemoryLink(capacity=_MANY)
        self._sender = self._link.sender()
        self.asks = False
        """Whether every message that is taken asks for one more."""

    def lay(self, data: Buffer) -> None:
        """Lay a message down for the worker."""
        self._sender.send([data])

    def receiver(self, index: int = 0) -> Receiver:
        receiver = self._link.receiver(index)
        return _Asking(receiver, self._bridge) if self.asks else receiver

    def sender(self, index: int = 0) -> Sender:
        raise BrokenChannel("a worker does not write to what it reads")

    def shut(self) -> None:
        self._link.shut()

    def close(self) -> None:
        self._link.close()


class _Asking(Receiver):
    """A receiver that asks for another message whenever one is taken."""

    def __init__(self, receiver: Receiver, bridge: _Bridge) -> None:
        self._receiver = receiver
        self._bridge = bridge

    def receive(self, *, block: bool = True) -> Buffer | None:
        message = self._receiver.receive(block=block)
        if message is not None:
            self._bridge.post(Tag.MORE, 0, ())
        return message

    def wait(self, watch: Sequence[int] = ()) -> bool:
        return self._receiver.wait(watch)

    def close(self) -> None:
        self._receiver.close()

    def statistics(self) -> ChannelStatistics:
        return self._receiver.statistics()


class _Outgoing(Link):
    """The twin of a link that the worker writes to."""

    def __init__(self, bridge: _Bridge, tag: Tag, number: int) -> None:
        self._bridge = bridge
        self._tag = tag
        self._number = number

    def sender(self, index: int = 0) -> Sender:
        return _FarSender(self._bridge, self._tag, self._number)

    def receiver(self, index: int = 0) -> Receiver:
        raise BrokenChannel("a worker does not read what it writes to")

    def shut(self) -> None:
        """Nothing here waits for it."""

    def close(self) -> None:
        """Nothing is held."""


class _FarSender(Sender):
    """Sends over the wire, and with it what the worker says of itself."""

    def __init__(self, bridge: _Bridge, tag: Tag, number: int) -> None:
        self._bridge = bridge
        self._tag = tag
        self._number = number
        self._messages = self._nbytes = 0

    def send(self, parts: Sequence[Buffer]) -> None:
        bridge = self._bridge
        if bridge.broken:
            raise BrokenChannel("the relay is gone")
        bridge.post(self._tag, self._number, [bytes(part) for part in parts])
        bridge.post(Tag.ROW, 0, [bridge.row()])
        self._messages += 1
        self._nbytes += sum(map(len, parts))

    def wait(self, watch: Sequence[int] = (), *, block: bool = True) -> bool:
        del watch, block
        return True

    def full(self) -> bool:
        return False

    def close(self) -> None:
        """What was sent still arrives."""

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._messages, self._nbytes)


class _FarBoard:
    """The board, as far as one worker sees it."""

    def __init__(self, bridge: _Bridge, row: ToldRow) -> None:
        self.log = _FarLog(bridge)
        self._row = row

    def row(self, number: int) -> ToldRow:
        """Return the worker's row."""
        del number
        return self._row


class _FarLog(ErrorLog):
    """Tells the owner's log what failed."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__(shared=False)
        self._bridge = bridge

    def write(self, failed: FailedItem) -> None:
        self._bridge.post(Tag.FAILED, 0, [failed.to_json().encode()])


class _FarLedger:
    """Lays the worker's notes open where its owner is."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def writer(self) -> _FarLedger:
        """Return what takes them."""
        return self

    def __call__(self, data: bytes) -> None:
        self._bridge.post(Tag.LEDGER, 0, [data])

    def close(self) -> None:
        """Nothing is held."""


def _far_ledger(bridge: _Bridge) -> Any:
    return _FarLedger(bridge)


class _FarTrace:
    """Draws the worker where its owner is."""

    def __init__(self, bridge: _Bridge, drawing: Drawing) -> None:
        self._bridge = bridge
        self._drawing = drawing

    def recorder(self, name: str, thread: int) -> Recorder:
        """Return what the worker draws with."""
        how = self._drawing
        made = Recorder(self._append, how.limit, thread, pid=how.pid, shift_s=how.shift_s)
        made.name(name)
        return made

    def close(self) -> None: ...

    def _append(self, lines: bytes) -> int:
        self._bridge.post(Tag.TRACE, 0, [lines])
        return len(lines)


def _far_trace(bridge: _Bridge, drawing: Drawing | None) -> Any:
    return None if drawing is None else _FarTrace(bridge, drawing)
