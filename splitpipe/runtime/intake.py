"""Messages as they arrive, and the values in them.

Responsible for: `Intake`: waiting for a message, refusing one of another run, turning its body into
values, and giving back what nobody will read. It knows nothing of their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from splitpipe.errors import ChannelError, PipelineError
from splitpipe.runtime.board import WAITS_FOR_INPUT
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.arena import ArenaView
from splitpipe.transport.base import Buffer, Receiver
from splitpipe.transport.envelope import UnpackError, release, unpack
from splitpipe.transport.message import Failed, Item, Message, decode
from splitpipe.transport.objects import Shelf

__all__ = ["Intake"]

_BRIEF = 16
"""Messages that are waited for briefly, one after the other."""
_LONG = 64
"""Messages that are not, after one that was late."""


class Intake:
    """Messages as they arrive, and the values in them.

    Args:
        receiver: where messages come from.
        arenas: of the producers, by their number.
        run: number of this run; a message of another is refused.
        meter: told about waiting.
        wait: called when there is no message; returns when there may be one. None blocks in the
        receiver.
        alone: whether nothing but this waits in the process: it may wait without telling anybody,
        if not for long.
    """

    def __init__(
        self,
        receiver: Receiver,
        arenas: Mapping[int, ArenaView | Shelf],
        *,
        run: int,
        meter: Meter,
        wait: Callable[[], None] | None = None,
        alone: bool = False,
    ) -> None:
        self._receiver = receiver
        self._arenas = arenas
        self._run = run
        self._wait = wait
        self._renewed = False
        self._copied = 0
        # How many messages to wait for briefly; below 0, how often not to, since one was late.
        self._brief = 0
        self._alone = alone
        self.meter = meter
        self.on_wait: Callable[[], None] | None = None
        """Called before it waits for a message."""
        self.on_resume: Callable[[], None] | None = None
        """Called when there is one."""

    def receive(self) -> Message:
        """Return the next message, waiting for it."""
        try:
            wire = self._soon() if self._brief > 0 else self._receiver.receive(block=False)
        except ChannelError:
            if self._wait is not None:
                self._wait()  # it may know why
            raise
        if wire is None:
            wire = self._await()
        message = decode(wire)
        if message.run != self._run:
            raise PipelineError(f"a message of run {message.run:x} came into run {self._run:x}")
        return message

    def renew(
        self, receiver: Receiver, arenas: Mapping[int, ArenaView | Shelf], *, run: int
    ) -> None:
        """Go on with the messages of another run; also while it waits for one of this."""
        self._copied = self.copies
        self._receiver, self._arenas, self._run = receiver, arenas, run
        self._renewed = True

    def _soon(self) -> Buffer | None:
        """Wait for a message that is about to come, and do no more: what `_await` tells others
        before and after takes longer than many a wait. Now and then it is told all the same.
        """
        since = time.perf_counter()
        wire = self._receiver.receive_soon()
        self.meter.wait_input_s += time.perf_counter() - since
        self._brief = -_LONG if wire is None else self._brief - 1
        return wire

    def _await(self) -> Buffer:
        """Wait for a message."""
        if self._brief < 0:
            self._brief += 1
        elif self._alone and self.on_wait is None and self.meter.recorder is None:
            self._brief = _BRIEF
        for arena in self._arenas.values():
            arena.keep()
        if self.on_wait is not None:
            self.on_wait()
        self.meter.wait(WAITS_FOR_INPUT)
        self._renewed = False
        wire: Buffer | None = None
        while wire is None:
            if self._wait is None:
                wire = self._receiver.receive()
                continue
            self._wait()
            if self._renewed:
                self._renewed = False
                if self.on_wait is not None:
                    self.on_wait()  # those who make it now have not heard of it
            wire = self._receiver.receive(block=False)
        self.meter.resume()
        if self.on_resume is not None:
            self.on_resume()
        return wire

    def restored(self, message: Item | Failed) -> tuple[list[Any], BaseException | None]:
        """Return the values of `message` up to one that cannot be restored, and what it raised."""
        try:
            if isinstance(message, Failed):
                return self._before(message), None
            return self._values(message), None
        except UnpackError as error:
            return error.values, error.__cause__ or error

    def _values(self, message: Item) -> list[Any]:
        """Return the values of `message` and let go of its bytes."""
        values = self._unpacked(message.body, message.producer)
        if len(values) != message.count:
            raise PipelineError(
                f"a message of {message.count} values held {len(values)}: a fault of splitpipe"
            )
        message.body = b""
        return values

    def _before(self, failed: Failed) -> list[Any]:
        """Return the values that the failing unit of work gave before it failed."""
        if not failed.count:
            return []
        return self._unpacked(failed.body[failed.nbytes :], failed.producer)

    def _unpacked(self, body: Buffer, producer: int) -> list[Any]:
        arena, notes = self._arenas.get(producer), self.meter.notes
        if notes is None or not notes.stages:
            return unpack(body, arena)
        with notes.restoring():
            return unpack(body, arena)

    def each(self, message: Item | Failed) -> Iterator[Any]:
        """Return the values of `message`, and then raise what kept the next from being restored.

        They are restored now; one is let go of when the next is asked for: a slot must not be held
        by its successors.
        """
        values, broken = self.restored(message)
        return _one_by_one(values, broken)

    def discard(self, message: Item | Failed) -> None:
        """Give back the slots of a message that nobody will read."""
        report = message.nbytes if isinstance(message, Failed) else 0
        if message.count or isinstance(message, Item):
            release(message.body[report:], self._arenas.get(message.producer))

    @property
    def copies(self) -> int:
        """How many payloads were copied because the reader kept too many."""
        return self._copied + sum(arena.copies for arena in self._arenas.values())


def _one_by_one(values: list[Any], broken: BaseException | None) -> Iterator[Any]:
    values.reverse()
    while values:
        yield values.pop()
    if broken is not None:
        raise broken
