"""Where one worker process sits.

Responsible for: `Seat`, what a worker process does before it loads anybody's code.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from splitpipe.runtime.maththreads import limit_threads

__all__ = ["Seat"]


@dataclass(frozen=True, slots=True)
class Seat:
    """What one worker process is given of the machine.

    Attributes:
        cpus: where it runs; None: wherever its owner may.
        threads: of numeric libraries; None: as many as they like.
    """

    cpus: frozenset[int] | None = None
    threads: int | None = None

    def take(self) -> None:
        """Sit down: in the worker, before the user's code is loaded. Who sits there, stays."""
        global _taken
        last, _taken = _taken, self
        if self.cpus is not None and self.cpus != last.cpus:
            with contextlib.suppress(OSError):  # a CPU may have been taken away meanwhile
                os.sched_setaffinity(0, self.cpus)
        if self.threads is not None and self.threads != last.threads:
            limit_threads(self.threads)


_taken = Seat()
"""What this process has."""
