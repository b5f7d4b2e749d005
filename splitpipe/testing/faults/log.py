"""What struck, noted in a file: by whoever is about to die, for whoever comes after.

Responsible for: `FaultLog`, which counts over processes and over their restarts, and `Incident`,
one line of it.

Rules:
- a note is written whole or not at all, and is there before anything happens;
- times are of the system's monotonic clock, which all processes share: those of a log can be
  compared with one another and with ``time.monotonic()``.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["FaultLog", "Incident"]

_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Incident:
    """One strike.

    Attributes:
        at_s: when, by ``time.monotonic()``.
        pid: of the process that was struck.
        worker: its number in its task, if it was a worker.
        item: what it was at, as text.
    """

    at_s: float
    pid: int
    worker: int | None
    item: str


class FaultLog:
    """A file of strikes, for any number of processes.

    Args:
        path: the file; it is made when something is noted.

    Example:
        >>> import tempfile
        >>> log = FaultLog(tempfile.mkdtemp() + "/strikes")
        >>> log.claim(1, item="a"), log.claim(1, item="b")
        (True, False)
        >>> [incident.item for incident in log.incidents()]
        ["'a'"]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))

    def claim(self, times: int | None, *, item: Any = None, worker: int | None = None) -> bool:
        """Note a strike and return True, unless there have been `times` already."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if times is not None and len(_lines(descriptor)) >= times:
                return False
            incident = Incident(time.monotonic(), os.getpid(), worker, repr(item)[:200])
            os.write(descriptor, json.dumps(asdict(incident)).encode() + b"\n")
            return True
        finally:
            os.close(descriptor)

    def incidents(self) -> tuple[Incident, ...]:
        """Return what struck so far, in order."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        try:
            return tuple(Incident(**json.loads(line)) for line in _lines(descriptor))
        finally:
            os.close(descriptor)

    def wait(self, count: int = 1, *, within_s: float = 30.0) -> tuple[Incident, ...]:
        """Return the strikes as soon as there are `count` of them.

        Raises:
            TimeoutError: there are fewer after `within_s` seconds.
        """
        end = time.monotonic() + within_s
        while len(found := self.incidents()) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} strikes of {count} within {within_s:g} s")
            threading.Event().wait(_LOOK_S)
        return found

    def __repr__(self) -> str:
        return f"FaultLog({self.path!r})"


def _lines(descriptor: int) -> list[bytes]:
    """The whole lines; one that is being written is not there yet."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).split(b"\n")[:-1]
