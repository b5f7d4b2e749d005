"""What wakes an engine when batches were made.

Responsible for: `Bell`: rung from any thread, heard by the one that delivers.

Rules:
- the first one after some silence rings at once: nobody waits for it;
- what is made soon after is heard together: for every client a batch by itself is a message, its
  waking up, and a transaction here, which for four followers of a slow stream was a tenth of what
  the stream cost;
- it is heard within `PAUSE_S` in any case, and at once where `TOGETHER` have come.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final

__all__ = ["PAUSE_S", "TOGETHER", "Bell"]

PAUSE_S: Final = 0.02
TOGETHER: Final = 4


class Bell:
    """A descriptor that can be waited for.

    Args:
        clock: seconds.

    Example:
        >>> now_s = 10.0
        >>> bell = Bell(lambda: now_s)
        >>> bell.ring(), bell.rung, bell.hear()  # the first one
        (None, True, None)
        >>> now_s += PAUSE_S / 2
        >>> bell.ring(), bell.rung, bell.due_s  # soon after it: to be looked at then
        (None, False, 10.02)
        >>> bell.close()
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        self._count = 0
        self.rung = False
        """Whether it can be heard through its descriptor."""
        self.due_s = float("-inf")
        """When to hear it at the latest, if that was to come at the last look at the clock."""

    def fileno(self) -> int:
        """What is readable when it was rung."""
        return self._here.fileno()

    def ring(self) -> None:
        """Something is there; from any thread."""
        self._count += 1
        if not self.rung and (self._count >= TOGETHER or self._clock() >= self.due_s):
            self.rung = True
            with contextlib.suppress(BlockingIOError):
                self._there.send(b"!")

    def hear(self) -> None:
        """What was there is going to be looked at."""
        # In this order: what comes after the flag is down rings again.
        with contextlib.suppress(BlockingIOError):
            self._here.recv(4096)
        self.rung = False
        if self._count:
            self._count = 0
            self.due_s = self._clock() + PAUSE_S

    def close(self) -> None:
        """Let go of both ends."""
        self._here.close()
        self._there.close()
