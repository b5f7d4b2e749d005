"""What this machine does beside a run.

Responsible for: how many of its CPUs have nothing to do, and how fast it copies memory.

Rules:
- what cannot be found out is None, never a guess.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import psutil

__all__ = ["CpuTimes", "copying_nbytes_s"]

_COPIED = 32 << 20


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """How long the machine's CPUs have been idle, all together, and when that was asked."""

    idle_s: float
    at: float

    @classmethod
    def now(cls) -> CpuTimes:
        times = psutil.cpu_times()
        return cls(times.idle + getattr(times, "iowait", 0.0), time.perf_counter())

    def idle_since(self, earlier: CpuTimes) -> float | None:
        """Return how many CPUs were idle since then, on average; None for too short a time."""
        elapsed = self.at - earlier.at
        if elapsed < 0.05:
            return None  # the system counts in hundredths of a second
        return max(0.0, (self.idle_s - earlier.idle_s) / elapsed)


@cache
def copying_nbytes_s() -> float:
    """Return how many bytes a second one CPU copies from one place to another: the best of a few
    tries, once a process; takes some 50 ms.
    """
    source = np.ones(_COPIED, np.uint8)
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(4):
        since = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - since)
    return _COPIED / best
