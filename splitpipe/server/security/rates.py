"""How often somebody may ask.

Responsible for: token buckets by name, a bounded number of them.

Rules:
- what is counted is decided by the caller; here is only arithmetic, with the time as an argument;
- memory is bounded: a bucket that is full again is the same as none, and is forgotten first.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Rates"]

_MOST = 10_000


class Rates:
    """So many a second for each name, and some at once. Safe to use from several threads.

    Args:
        per_s: how many a second in the long run.
        burst: how many at once.

    Example:
        >>> rates = Rates(per_s=1.0, burst=2)
        >>> [rates.wait_s("me", now=0.0) for _ in range(3)]
        [0.0, 0.0, 1.0]
    """

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str, *, now: float | None = None, cost: float = 1.0) -> float:
        """Count one, if there is room: return 0, or how long to wait before asking again.

        Args:
            name: who asks.
            now: seconds of a clock that never goes back; the system's unless given.
            cost: as how many it counts; 0 only looks.
        """
        when = time.monotonic() if now is None else now
        with self._lock:
            left, since = self._buckets.pop(name, (self._burst, when))
            left = min(self._burst, left + (when - since) * self._per_s)
            needed = max(cost, 1.0)
            waiting = 0.0 if left >= needed else (needed - left) / self._per_s
            if waiting == 0.0:
                left -= cost
            self._buckets[name] = (left, when)  # the last one in the order of use
            if len(self._buckets) > _MOST:
                del self._buckets[next(iter(self._buckets))]
        return waiting
