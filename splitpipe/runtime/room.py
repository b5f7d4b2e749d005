"""Room for one more message in the channel of an output.

Responsible for: `Room`: waiting for it where others can see the wait, instead of in `Sender.send`,
where nobody could. Credits bound how many messages are under way, but not how large they are: a few
large ones that found no slot fill what the system keeps for a channel.

Rules:
- the writer of an output is the only one of its link, so that room it has seen stays until it
  sends;
- who waits says so first, and then looks whether it is still wanted: `wake` is never missed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from splitpipe.runtime.board import WAITS_FOR_OUTPUT
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.base import Sender, Watcher

__all__ = ["Room"]


class Room:
    """Waits for room; `close` has to follow.

    Args:
        sender: of the output.
        watcher: told of every wait.
        meter: counts it.
    """

    def __init__(self, sender: Sender, watcher: Watcher, meter: Meter) -> None:
        self._sender = sender
        self._watcher = watcher
        self._meter = meter
        self._closing = threading.Lock()
        self._open = True
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ring, False)

    def there(self) -> bool:
        """Whether there is room now."""
        return self._sender.wait(block=False)

    def enter(self, unwanted: Callable[[], bool]) -> bool:
        """Wait for room; False when `unwanted`: nothing need be sent."""
        while not self.there():
            self._watcher.begin_wait(self._sender.full)
            self._meter.wait(WAITS_FOR_OUTPUT)
            try:
                if unwanted():
                    return False
                self._sender.wait((self._bell,))
            finally:
                self._meter.resume()
                self._watcher.end_wait()
            with contextlib.suppress(BlockingIOError):
                os.read(self._bell, 1 << 10)
        return True

    def wake(self) -> None:
        """Let a wait look whether it is unwanted now; from any thread."""
        with self._closing:
            if self._open:
                with contextlib.suppress(BlockingIOError):  # it is woken already, often
                    os.write(self._ring, b"\0")

    def close(self) -> None:
        """Let go of descriptors. Safe to call twice."""
        with self._closing:
            if self._open:
                self._open = False
                os.close(self._bell)
                os.close(self._ring)
