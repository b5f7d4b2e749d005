"""A process beside the owner that stands in for a worker on another machine.

Responsible for: `relay`, what it runs, and `RelayProcess`, how its owner sees it.

Rules:
- to the run it is the worker: it has the worker's ends of all links, its arenas, its row; it ends
  when the run is shut, and its end is the worker's;
- it makes nothing. What it takes from a link it sends on, with the bytes that lay in shared memory;
  what comes back it lays into the worker's slots, so that a reader here finds it as if it had been
  made here;
- a unit of a pool's work is taken when the actor asks for one, and not before: the others take what
  it leaves;
- it waits for nobody: what a link has no room for lies in it, bounded by claims and credits;
- clocks of machines differ: times on the row are moved to this machine's;
- where the actor was when it died is heard before its end is told.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from splitpipe.errors import BrokenChannel, ClosedChannel
from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.runtime import board as b
from splitpipe.runtime.deaths import LOST
from splitpipe.runtime.onray.assignment import assignment_of
from splitpipe.runtime.onray.clocks import CLOCK, ROUNDS, Skew
from splitpipe.runtime.onray.telling import NUMBER, Listener
from splitpipe.runtime.onray.wire import Address, Tag, Wire
from splitpipe.runtime.worker import WorkerSpec
from splitpipe.transport.anonymous import Descriptor
from splitpipe.transport.arena import ArenaView
from splitpipe.transport.base import Buffer
from splitpipe.transport.envelope import Packer
from splitpipe.transport.message import Failed, Item, decode, encode
from splitpipe.transport.objects import Shelf
from splitpipe.transport.pickling import dump_plainly
from splitpipe.transport.pipe import PipeReceiver, PipeSender
from splitpipe.transport.repacking import repack

__all__ = ["RelayProcess", "relay"]

HELLO_S = 60.0
"""How long an actor may take to come, which was there a moment ago."""

DRAW_S = 0.3
"""How long an actor may take to say the last of what it draws, where there is a trace."""

_STATUS = 75
"""Exit status of a relay that has lost its actor."""

_TIMES = (b.STATE_SINCE, b.STARTED_AT, b.FINISHED_AT, b.FIRST_AT, b.AT_SINCE)


class RelayProcess:
    """A relay as `Hand` wants a process.

    Args:
        process: of multiprocessing, started.
    """

    def __init__(self, process: Any) -> None:
        self._process = process
        self._code: int | None = None
        self._closed = False
        self.pid: int = process.pid
        self.sentinel: int = process.sentinel
        self.failed = False
        """Whether it ended by itself, before its work was done: its actor is not to be trusted."""

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it has not."""
        if self._code is None and not self._closed:
            code = self._process.exitcode
            self._code = LOST if code == _STATUS else code
            self.failed = self.failed or code not in (None, 0)
        return self._code

    def kill(self) -> None:
        """End it, and do not wait for that."""
        if not self._closed:
            self.failed = True  # it did not leave in time: who knows what its actor does
            self._process.kill()

    def join(self) -> None:
        """Wait for its end."""
        if not self._closed:
            self._process.join()

    def close(self) -> None:
        """Let go of it."""
        if not self._closed:
            self._process.join()
            _ = self.exitcode
            self._closed = True
            self._process.close()


def relay(spec: WorkerSpec, listening: Descriptor, address: Address) -> None:
    """Stand in for the worker of `spec`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if spec.owner is not None:
        spec.owner.die_with()
    if spec.stacks is not None:
        spec.stacks.listen()
    wire = Wire(address, listening)
    listening.close()
    listener = Listener(address.host, spec.board.floats)
    standing = _Relay(spec, wire, listener)
    try:
        lost = standing.run()
    except (BrokenChannel, ClosedChannel):
        lost = False  # the owner shut it: this is how a run ends
        standing.let_draw()
    finally:
        listener.close()
        wire.close()
    if lost:
        sys.exit(_STATUS)


class _Relay:
    """What stands between the ends of a worker's links and its wire."""

    def __init__(self, spec: WorkerSpec, wire: Wire, listener: Listener) -> None:
        self._spec = spec
        self._wire = wire
        self._listener = listener
        self._row = spec.board.row(spec.row)
        self._ledger = None if spec.ledger is None else spec.ledger.writer()
        self._entries = [_receiver(one.entry, spec.index) for one in spec.regions]
        self._arenas = [one.readers() for one in spec.regions]
        self._sources: list[tuple[Tag, int, PipeReceiver]] = [
            (Tag.GATE, number, _receiver(one.gate))
            for number, one in enumerate(spec.exits)
            if one.gate is not None
        ]
        if spec.leash is not None:
            self._sources.append((Tag.LEASH, 0, _receiver(spec.leash)))
        self._packers = [Packer(_arena(one.arena), wait=False) for one in spec.exits]
        self._outputs = [_Output(one.output.sender(spec.index)) for one in spec.exits]
        self._backs = [
            None if one.back is None else _Output(one.back.sender()) for one in spec.regions
        ]
        self._inline = Packer(None)
        self._wanted = 0 if spec.pool else 1 << 62
        self._skew = 0.0
        self._newest = 0  # number of the row that is shown
        self._bye = False

    def run(self) -> bool:
        """Relay until the work is done; returns whether the actor was lost before."""
        if not self._meet():
            return True
        while True:
            while self._take_all() or self._give_all():
                pass
            if self._bye and not any(one.pending for one in self._every()):
                return False
            if self._wire.broken():
                if not self._take_all():
                    for row in () if self._bye else self._listener.last():
                        self._mirror(row)
                    return not self._bye
                continue
            self._wait()
            newest = self._listener.take()
            if newest is not None:
                self._mirror(newest)

    def let_draw(self) -> None:
        """The run was shut: have the actor end its drawing, where there is one."""
        if self._spec.trace is None:
            return
        self._wire.send(Tag.SHUT, 0, ())
        until = time.monotonic() + DRAW_S
        poll = select.poll()
        for fd in self._wire.descriptors:
            poll.register(fd, select.POLLIN)
        while not self._bye and not self._wire.broken() and time.monotonic() < until:
            while (came := self._wire.receive()) is not None:
                self._bye = self._bye or came[0] is Tag.BYE
                self._draw(came[0], came[2])
            if self._wire.quiet():
                poll.poll(1e3 * DRAW_S)

    def _draw(self, tag: Tag, data: Buffer) -> None:
        if tag is Tag.TRACE and self._spec.trace is not None:
            with contextlib.suppress(OSError):  # a disk that is full ends the drawing
                self._spec.trace.append(bytes(data))

    def _meet(self) -> bool:
        """Wait for the actor and tell it what to do; returns whether it came."""
        deadline, skew = time.monotonic() + HELLO_S, Skew()
        if self._next(deadline) is None:
            return False
        for _ in range(ROUNDS):
            asked_s = time.perf_counter()
            self._wire.send(Tag.CLOCK, 0, ())
            if (theirs := self._next(deadline)) is None:
                return False
            skew.add(asked_s, CLOCK.unpack(theirs)[0], time.perf_counter())
        self._skew = skew.seconds
        told = assignment_of(self._spec, notes=self._listener.address, skew_s=self._skew)
        work = dump_plainly(told, lambda _: True)
        self._wire.send(Tag.WORK, 0, [work])
        return True

    def _next(self, deadline: float) -> Buffer | None:
        """What the actor says next; None: it is gone, or takes too long."""
        while (came := self._wire.receive()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._wire.broken():
                return None
            self._wait(left_s)
        return came[2]

    # -- to the actor

    def _give_all(self) -> bool:
        """Send on what there is; returns whether there was anything."""
        gave = False
        for tag, number, receiver in self._sources:
            while (wire := receiver.receive(block=False)) is not None:
                self._wire.send(tag, number, [wire])
                gave = True
        for number, receiver in enumerate(self._entries):
            while receiver is not None and self._wanted > 0:
                wire = receiver.receive(block=False)
                if wire is None:
                    break
                self._wanted -= 1
                self._wire.send(Tag.ENTRY, number, self._lifted(number, wire))
                gave = True
        return gave

    def _lifted(self, number: int, wire: Buffer) -> list[Buffer]:
        """Return a message with its payload in it, and give back the slots where that lay."""
        message = decode(wire)
        if isinstance(message, Item) or (isinstance(message, Failed) and message.count):
            arena = self._arenas[number].get(message.producer)
            return _repacked(message, arena, self._inline)
        return [wire]

    # -- from the actor

    def _take_all(self) -> bool:
        """Do what the actor says; returns whether it said anything."""
        took = False
        while (came := self._wire.receive()) is not None:
            took = True
            tag, number, data = came
            if tag is Tag.OUTPUT:
                self._outputs[number].put(self._laid(number, data))
            elif tag is Tag.BACK:
                back = self._backs[number]
                assert back is not None
                back.put([data])
            elif tag is Tag.MORE:
                self._wanted += 1
            elif tag is Tag.ROW:
                self._mirror(data)
            elif tag is Tag.LEDGER and self._ledger is not None:
                self._ledger(bytes(data))
            elif tag is Tag.FAILED:
                self._spec.board.log.write(FailedItem.of_json(bytes(data)))
            elif tag is Tag.TRACE:
                self._draw(tag, data)
            elif tag is Tag.BYE:
                self._bye = True
        for one in self._every():
            one.flush()
        return took

    def _laid(self, number: int, data: Buffer) -> list[Buffer]:
        """Return a message with its payload in slots."""
        message = decode(data)
        if isinstance(message, Item) or (isinstance(message, Failed) and message.count):
            return _repacked(message, None, self._packers[number])
        return [data]

    def _mirror(self, data: Buffer) -> None:
        number = NUMBER.unpack_from(data)[0]
        if number <= self._newest:
            return
        self._newest = number
        values = memoryview(bytearray(data)[NUMBER.size :]).cast("d")
        for field in _TIMES:
            if values[field] > 0:
                values[field] += self._skew
        values[b.PID] = os.getpid()
        self._row[:] = values

    # -- waiting

    def _every(self) -> list[_Output]:
        return [*self._outputs, *(one for one in self._backs if one is not None)]

    def _wait(self, seconds: float | None = None) -> None:
        """Wait until somebody has something to say, or takes something.

        Raises:
            BrokenChannel: the run was shut.
        """
        poll = select.poll()
        for fd in (*self._wire.descriptors, *self._listener.descriptors()):
            poll.register(fd, select.POLLIN)
        for _, _, receiver in self._sources:
            poll.register(receiver.fileno(), select.POLLIN)
        for entry in self._entries:
            if entry is not None:  # unasked for, only its end is of interest
                poll.register(entry.fileno(), select.POLLIN if self._wanted > 0 else 0)
        for one in self._every():
            poll.register(one.fileno(), select.POLLOUT if one.pending else 0)
        if not self._wire.quiet():
            seconds = 0.0
        ready = poll.poll(None if seconds is None else 1e3 * seconds)
        gone = set(self._listener.descriptors())  # what it hears may end: the wire tells the rest
        ends = select.POLLHUP | select.POLLNVAL
        if any(event & ends and fd not in gone for fd, event in ready):
            raise BrokenChannel("the run was shut")


class _Output:
    """A link that is written to, and what it has no room for yet."""

    def __init__(self, sender: Any) -> None:
        assert isinstance(sender, PipeSender)
        self._sender = sender
        self.pending: deque[Sequence[Buffer]] = deque()

    def put(self, parts: Sequence[Buffer]) -> None:
        """Send a message, now or later."""
        self.pending.append(parts)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for."""
        while self.pending and self._sender.wait(block=False):
            self._sender.send(self.pending.popleft())

    def fileno(self) -> int:
        return self._sender.fileno()


def _repacked(
    message: Item | Failed, arena: ArenaView | Shelf | None, packer: Packer
) -> list[Buffer]:
    """Return `message` with the payload where `packer` puts it."""
    assert not isinstance(arena, Shelf)
    told = message.nbytes if isinstance(message, Failed) else 0
    head, body = message.body[:told], message.body[told:]
    return [encode(message), head, *repack(body, arena, packer)]


def _receiver(link: Any, index: int = 0) -> Any:
    return None if link is None else link.receiver(index)


def _arena(arena: Any) -> Any:
    return arena.writer()
