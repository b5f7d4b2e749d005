"""What this machine has to offer.

Responsible for: how many CPUs a run may use, how many of them have nothing to do, how fast memory
is copied.

Rules:
- what the operating system or a container allows counts, not what is built in;
- what cannot be found out is None, never a guess.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import psutil

__all__ = ["CpuTimes", "copying_nbytes_s", "usable_cpus"]

_COPIED = 32 << 20
_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> float:
    """Return how many CPUs this process may use: by its affinity, and by its container's quota."""
    try:
        cpus = float(len(os.sched_getaffinity(0)))
    except AttributeError:
        cpus = float(os.cpu_count() or 1)
    quota = _quota()
    return cpus if quota is None else max(0.1, min(cpus, quota))


def _quota() -> float | None:
    with contextlib.suppress(OSError, ValueError):
        allowed, period = (_CGROUP / "cpu.max").read_text().split()  # version 2
        return None if allowed == "max" else int(allowed) / int(period)
    with contextlib.suppress(OSError, ValueError):
        allowed = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text()
        period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text()
        return int(allowed) / int(period) if int(allowed) > 0 else None
    return None


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
