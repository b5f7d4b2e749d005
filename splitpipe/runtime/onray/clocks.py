"""How far the clock of another machine is from ours.

Responsible for: `Skew`, which is told of questions and answers and says the difference.

It is Cristian's algorithm (Probabilistic clock synchronization, Distributed Computing 3, 1989): the
other clock is asked several times, and of all answers the one that came back soonest is believed,
with the other's clock read half-way. The error is at most half of that round trip, whatever a busy
machine did to the others.
"""

from __future__ import annotations

import math
import struct
from typing import Final

__all__ = ["CLOCK", "ROUNDS", "Skew"]

CLOCK: Final = struct.Struct("<d")
"""A clock as it is sent: seconds of `time.perf_counter`."""

ROUNDS: Final = 5


class Skew:
    """What is known of another clock.

    Example:
        >>> skew = Skew()
        >>> skew.add(asked_s=10.0, theirs_s=3.0, answered_s=14.0)
        >>> skew.add(asked_s=20.0, theirs_s=11.5, answered_s=21.0)
        >>> skew.seconds, skew.error_s
        (9.0, 0.5)
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """From their clock to ours."""
        self.error_s = math.inf
        """How far off that may be."""

    def add(self, asked_s: float, theirs_s: float, answered_s: float) -> None:
        """An answer came.

        Args:
            asked_s: when it was asked for, on our clock.
            theirs_s: their clock.
            answered_s: when it came, on our clock.
        """
        error_s = (answered_s - asked_s) / 2
        if error_s < self.error_s:
            self.seconds, self.error_s = asked_s + error_s - theirs_s, error_s
