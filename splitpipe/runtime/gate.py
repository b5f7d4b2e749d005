"""When a sequential task may send.

Responsible for: `Gate`, the credits that the merge behind one output gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from splitpipe.runtime.board import WAITS_FOR_OUTPUT
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import CHUNK_ITEMS, EpochSkipped
from splitpipe.transport.base import Receiver
from splitpipe.transport.message import NEVER, Credit, decode

__all__ = ["Gate"]


class Gate:
    """The credits of a sequential head: how many messages it may still send."""

    def __init__(self, receiver: Receiver, meter: Meter) -> None:
        self._receiver = receiver
        self._meter = meter
        self._credits = 0
        self._skipped = -1
        self.most = CHUNK_ITEMS
        """Values that a message may hold."""
        self.wanted = -1
        """The message that the reader said it waits for."""
        self.shut_out = False
        """Whether the sender waits for its reader."""
        self.detached = False
        """Whether nobody will ever read on."""
        self.on_wait: Callable[[], None] | None = None
        """Called when the sender begins to wait for its reader."""

    def open(self) -> bool:
        """Whether a message may be sent now."""
        self._collect()
        return self._credits > 0

    def enter(self, epoch: int) -> None:
        """Use up one credit, waiting for it.

        Raises:
            EpochSkipped: nobody wants more of `epoch`.
        """
        if self._credits == 0:
            self._collect()
        if self._credits == 0 and self._skipped < epoch:
            self._wait(epoch)
        if self._skipped >= epoch:
            raise EpochSkipped
        self._credits -= 1

    def wait_for_word(self) -> None:
        """Wait until the reader says anything."""
        self._meter.wait(WAITS_FOR_OUTPUT)
        self._note(self._receiver.receive())
        self._meter.resume()

    def _wait(self, epoch: int) -> None:
        self._meter.wait(WAITS_FOR_OUTPUT)
        self.shut_out = True
        if self.on_wait is not None:
            self.on_wait()
        while self._credits == 0 and self._skipped < epoch:
            self._note(self._receiver.receive())
        self.shut_out = False
        self._meter.resume()

    def _collect(self) -> None:
        while (wire := self._receiver.receive(block=False)) is not None:
            self._note(wire)

    def _note(self, wire: Any) -> None:
        credit = decode(wire)
        assert isinstance(credit, Credit)
        if credit.stop:
            self._skipped = max(self._skipped, credit.epoch)
            self.detached = credit.epoch == NEVER
        else:
            self._credits += credit.count
            self.most = credit.start or CHUNK_ITEMS
            if credit.sequence:
                self.wanted = credit.sequence - 1
