"""When a sequential task may send.

Responsible for: `Gate`, the credits that the merge behind one output gives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from splitpipe.errors import ChannelError
from splitpipe.runtime.board import WAITS_FOR_OUTPUT
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import CHUNK_ITEMS, EpochSkipped
from splitpipe.runtime.turns import Waits
from splitpipe.transport.base import Receiver
from splitpipe.transport.message import NEVER, Credit, decode

__all__ = ["Gate"]


class Gate:
    """The credits of a sequential head: how many messages it may still send."""

    def __init__(self, receiver: Receiver, meter: Meter) -> None:
        self._receiver = receiver
        self._meter = meter
        self._credits = 0
        self._waits: Waits | None = None
        self._wake: Callable[[], None] | None = None
        self.most = CHUNK_ITEMS
        """Values that a message may hold."""
        self.wanted = -1
        """The message that the reader said it waits for."""
        self.skipped = -1
        """The epoch up to which the reader wants no more."""
        self.detached = False
        """Whether nobody will ever read on."""

    def listen(self, waits: Waits, wake: Callable[[], None]) -> None:
        """Let a thread take the reader's words from now on, as they come: whoever waits here waits
        for other things, too. Whatever waits elsewhere is woken by `wake` when an epoch is not
        wanted.
        """
        self._waits, self._wake = waits, wake
        thread = threading.Thread(target=self._listen, args=(waits,), name="splitpipe-gate")
        thread.daemon = True  # it ends when the run is shut
        thread.start()

    def leave(self) -> None:
        """Nobody will ever read on: known before anybody said it."""
        self.skipped, self.detached = NEVER, True

    def open(self) -> bool:
        """Whether a message may be sent now."""
        self._collect()
        return self._credits > 0

    def enter(self, epoch: int) -> None:
        """Use up one credit, waiting for it.

        Raises:
            EpochSkipped: nobody wants more of `epoch`.
        """
        # What follows comes to the same: this is nearly every message, and takes no further calls.
        if self._waits is None and self._credits > 0 and self.skipped < epoch:
            self._credits -= 1
            return
        if self._waits is not None:
            with self._waits.changed:
                if self._blocks(epoch):
                    self._meter.wait(WAITS_FOR_OUTPUT)
                    self._waits.wait(lambda: self._blocks(epoch))
                    self._meter.resume()
                self._use(epoch)
            return
        if self._credits == 0:
            self._collect()
        if self._blocks(epoch):
            self._meter.wait(WAITS_FOR_OUTPUT)
            while self._blocks(epoch):
                self._note(self._receiver.receive())
            self._meter.resume()
        self._use(epoch)

    def _blocks(self, epoch: int) -> bool:
        return self._credits == 0 and self.skipped < epoch

    def _use(self, epoch: int) -> None:
        if self.skipped >= epoch:
            raise EpochSkipped
        self._credits -= 1

    def _collect(self) -> None:
        if self._waits is not None:
            return
        while (wire := self._receiver.receive(block=False)) is not None:
            self._note(wire)

    def look(self) -> bool:
        """Take what the reader has said and nobody has heard yet; return whether that was anything.

        Who is about to say that a reader will never read on has to know its last word: the thread
        that listens may not have had its turn.
        """
        waits = self._waits
        if waits is None:
            return False
        with waits.changed:
            skipped, heard = self.skipped, False
            try:
                while (wire := self._receiver.receive(block=False)) is not None:
                    self._note(wire)
                    heard = True
            except ChannelError as error:
                waits.fail(error)
                return True
            if self.skipped > skipped and self._wake is not None:
                self._wake()
            if heard:
                waits.tell()
            return heard

    def _listen(self, waits: Waits) -> None:
        try:
            while waits.running:
                self._receiver.wait()
                self.look()
        except ChannelError as error:
            waits.fail(error)

    def _note(self, wire: Any) -> None:
        credit = decode(wire)
        assert isinstance(credit, Credit)
        if credit.stop:
            self.skipped = max(self.skipped, credit.epoch)
            self.detached = self.detached or credit.epoch == NEVER
        else:
            self._credits += credit.count
            self.most = credit.start or CHUNK_ITEMS
            if credit.sequence:
                self.wanted = credit.sequence - 1
