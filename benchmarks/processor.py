"""How much processor time a run has used: this process and all below it.

Rules: read from ``/proc``, to the nanosecond, of every thread that lives; a process that has ended
in between takes its figure with it, so that both readings belong inside a run.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

__all__ = ["processor_s"]


def processor_s() -> float:
    """Seconds on a processor so far: of this process and of its descendants.

    >>> processor_s() > 0
    True
    """
    own = time.process_time()
    return own + sum(_of(child) for child in psutil.Process().children(recursive=True))


def _of(process: psutil.Process) -> float:
    try:
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        spent = sum(int((thread / "schedstat").read_bytes().split()[0]) for thread in threads)
    except OSError:
        return _coarse(process)
    return spent * 1e-9


def _coarse(process: psutil.Process) -> float:
    """By the system's clock ticks, where it says no more."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
