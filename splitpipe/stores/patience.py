"""How long to wait for a store, and how often to ask again.

Responsible for: `RetryPolicy` and `Timeouts`, what users choose; `Patience`, which learns how fast
a server is, so that a request that hangs is given up long before the limit of `Timeouts`.

Rules:
- a request is given up early only where somebody will repeat it (`attempting`), and after each that
  was given up the next is given twice as long, up to the limits: a server that is slow at times is
  never given up for being slower than it was;
- nothing here sleeps, and no clock but a monotonic one is read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from splitpipe.interrupts import having
from splitpipe.stores.forking import ForkLock

__all__ = ["Patience", "RetryPolicy", "Timeouts", "attempting"]

LEAST_S = 0.05  # giving up early costs a request, waiting costs time: of a busy machine, too
GROWTH = 2.0
FIRST_S = 2.0  # where nothing is known of a server yet
FIRST_NBYTES_PER_S = 1 << 18

T = TypeVar("T")

_attempt: ContextVar[int | None] = ContextVar("attempt", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, a request that failed for a passing reason is made again.

    Between two attempts there is a pause. The n-th one, counted from 0, takes between 0 and
    ``base_s * 2 ** n``, chosen evenly ("full jitter", as the AWS architecture blog describes it),
    and at least what the server asks for by Retry-After. Once there is none: after the first
    attempt that failed by something that is no sign of a busy server, a connection that broke, a
    wrong answer, or one that did not come for much longer than usual.

    Attributes:
        attempts: requests in all, the first one too.
        base_s: see above.
        longest_s: the longest time that is waited between two attempts.
        deadline_s: no attempt is begun later than this after the first.
        retry_after_s: the longest time that a server's Retry-After is obeyed; one that asks for
            more has its request given up.
        hedges: a read that takes much longer than usual is asked a second time beside the first,
            and the first whole answer is taken; for so many of all requests at most, from 0, for
            none, to 1.

    Example:
        >>> RetryPolicy(attempts=3).deadline_s
        120.0
    """

    attempts: int = 14
    base_s: float = 0.01
    longest_s: float = 10.0
    deadline_s: float = 120.0
    retry_after_s: float = 60.0
    hedges: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.hedges <= 1:
            raise ValueError(f"{self} cannot be followed: hedges are a share, from 0 to 1")
        if self.attempts < 1 or min(self.base_s, self.longest_s, self.deadline_s) < 0:
            raise ValueError(f"{self} cannot be followed: at least one attempt, no negative time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """When a request is given up.

    Attributes:
        connect_s: for a connection to be there.
        stall_s: without a single byte.
        nbytes_per_s: slower than this over a whole response, beyond ``stall_s``, is given up too.

    Example:
        >>> Timeouts(stall_s=5).connect_s
        10.0
    """

    connect_s: float = 10.0
    stall_s: float = 20.0
    nbytes_per_s: float = 16_384.0

    def __post_init__(self) -> None:
        if min(self.connect_s, self.stall_s, self.nbytes_per_s) <= 0:
            raise ValueError(f"{self} would never let a request end: give more than 0")


def attempting(given_up: int, call: Callable[[], T]) -> T:
    """Return what `call` returns, whose requests know that they are repeated if they fail, and how
    many were given up before.
    """
    return having(_attempt, given_up, call)


class Patience:
    """What one server's responses usually take.

    The estimate is that of TCP's retransmission timer (RFC 6298): a smoothed time to the first
    byte, and how much it varies.

    Example:
        >>> patience = Patience(Timeouts())
        >>> patience.allowed(1000)
        (20.0, 20.06103515625)
        >>> attempting(1, lambda: patience.allowed(0))
        (4.0, 4.0)
        >>> for _ in range(50):
        ...     patience.took(0.01, 1000, 0.0)
        >>> attempting(0, lambda: patience.allowed(0))
        (0.05, 0.05)
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._lock = ForkLock()
        self._mean_s = 0.0
        self._spread_s = 0.0
        self._nbytes_per_s = 0.0
        self._known = 0

    def allowed(self, nbytes: int) -> tuple[float, float]:
        """Seconds that may pass without a byte, and that a response of so many may take in all."""
        timeouts = self.timeouts
        stall_s, rate = timeouts.stall_s, timeouts.nbytes_per_s
        attempt = _attempt.get()
        if attempt is not None:
            usual_s, usual_rate = FIRST_S, float(FIRST_NBYTES_PER_S)
            # Too few are known at first, and connections are still being opened.
            if self._known >= 16:
                usual_s = max(LEAST_S, 2 * self._mean_s + 4 * self._spread_s)
                usual_rate = self._nbytes_per_s / 16 or usual_rate
            more = GROWTH**attempt
            stall_s = min(stall_s, usual_s * more)
            rate = max(rate, usual_rate / more)
        return stall_s, stall_s + nbytes / rate

    def took(self, first_s: float, nbytes: int, rest_s: float) -> None:
        """A response came: its first byte after ``first_s``, its body ``rest_s`` later."""
        with self._lock:
            if self._known == 0:
                self._mean_s, self._spread_s = first_s, first_s / 2
            self._known += 1
            error_s = first_s - self._mean_s
            self._mean_s += error_s / 8
            self._spread_s += (abs(error_s) - self._spread_s) / 4
            if nbytes >= 1 << 16:
                rate = nbytes / max(rest_s, 1e-4)
                self._nbytes_per_s += (rate - self._nbytes_per_s) / 8
