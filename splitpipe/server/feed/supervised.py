"""One engine, as the server sees it.

Responsible for: `Supervised`: the process, its control line, what it said last; starting it again
after a crash. `Spare`: a process that was started before it was needed.

Rules:
- everything here is done under the lock of `Engines`, or by its watcher's thread;
- an engine that crashes is started again, from the journal, after a pause that doubles with every
  crash that nothing was delivered before; when that happens a few times in a row the iteration has
  failed, with the reason of the last one;
- it is ended by its own process id, and waited for.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from splitpipe.errors import BrokenChannel
from splitpipe.server.children import Hold, how_it_ended
from splitpipe.server.feed.control import Line
from splitpipe.server.feed.job import EngineJob, Place
from splitpipe.server.feed.limits import FeedLimits

__all__ = ["EngineChange", "Spare", "Supervised"]

_log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STARTS = 5
"""Starts in a row that may fail before it is given up."""
DEATHS = 10
"""Deaths without a batch acknowledged between them, before it is given up."""


@dataclass(frozen=True)
class EngineChange:
    """What the server's table of iterations has to say.

    Attributes:
        status: ``ready``, ``running``, ``done``, ``failed`` or ``stopped``.
        total: batches of the stream, if that is known.
        error: why it failed.
    """

    status: str
    total: int | None = None
    error: str | None = None


class Spare:
    """A process that has loaded everything, and waits to be told what to deliver.

    Args:
        hold: with which it lives and dies.
    """

    def __init__(self, hold: Hold) -> None:
        here, there = socket.socketpair()
        with there:
            ends = (there.fileno(), hold.reading)
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "splitpipe.server.feed", *map(str, ends)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=ends,
                    start_new_session=True,  # a Ctrl-C is the server's; it says what to do
                )
            except BaseException:
                here.close()
                raise
        self.line = Line(here)

    @property
    def lives(self) -> bool:
        """Whether it can still be told."""
        return self.process.poll() is None

    def close(self) -> None:
        """End it at once: what was given no job has nothing to close, and may still be starting."""
        self.line.close()
        self.process.kill()
        self.process.wait()


@dataclass(eq=False)
class Supervised:
    """An engine that is to run.

    Attributes:
        job: what it delivers.
        process: it, while it runs.
        line: to it.
        endpoints: where clients reach it; none until it is ready.
        status: what it said last.
        change: what was said of it last.
        again_s: when it is to be started again.
        failures: starts in a row that came to nothing.
        deaths: how often it died since a batch was acknowledged.
        completed: batches that were acknowledged when `deaths` began to be counted.
        crashes: how often it was started again.
        error: what it said of its end.
        wanted: whether it is to run.
        answers: what it answered to calls, by their numbers.
    """

    job: EngineJob
    process: subprocess.Popen[bytes] | None = None
    line: Line | None = None
    endpoints: list[str] = field(default_factory=list)
    status: dict[str, Any] | None = None
    change: EngineChange | None = None
    again_s: float | None = None
    failures: int = 0
    deaths: int = 0
    completed: int = 0
    crashes: int = 0
    error: str | None = None
    wanted: bool = True
    answers: dict[int, Any] = field(default_factory=dict)

    def start(self, place: Place, limits: FeedLimits, spare: Spare) -> None:
        """Let a process that waits for a job be this engine."""
        self.process, self.line = spare.process, spare.line
        self.again_s = None
        self.error = None
        self.line.send(
            {
                "place": dataclasses.asdict(place),
                "job": dataclasses.asdict(self.job),
                "limits": dataclasses.asdict(limits),
            }
        )

    @property
    def has_failed(self) -> bool:
        """Whether it runs, and cannot go on."""
        told = self.status
        return self.process is not None and told is not None and told["state"] == "failed"

    def hear(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether it is still there, and what it has said."""
        if self.line is None:
            return False, []
        try:
            told = self.line.receive()
        except BrokenChannel:
            told = None
        for one in told or ():
            kind = one["kind"]
            if kind == "ready":
                self.endpoints = one["endpoints"]
                self.failures = 0
            elif kind == "status":
                self.status = one["status"]
                completed = self.status["batches"]["completed"]
                if completed != self.completed:
                    self.completed, self.deaths = completed, 0
            elif kind == "pushed_back":
                self.answers[one["call"]] = one["batches"]
            elif kind == "broken":
                self.error = one["error"]
            elif kind == "ended":
                self.wanted = self.wanted and one["reason"] == "the server is gone"
        return told is not None, told or []

    def bury(self, *, timeout_s: float = 5.0) -> None:
        """Wait for its end, and end it when that takes too long."""
        self.endpoints = []
        if self.line is not None:
            self.line.close()
            self.line = None
        process, self.process = self.process, None
        if process is None:
            return
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode and self.error is None:
            self.error = f"its process ended with {how_it_ended(process.returncode)}"

    def after_death(self) -> None:
        """Say when it is to be started again, or that it is given up."""
        if not self.wanted:
            return
        self.crashes += 1
        self.failures += 1
        self.deaths += 1
        _log.warning(
            "the engine of iteration %s died, for the %d. time: %s",
            self.job.iteration,
            self.crashes,
            self.error or "it did not say why",
        )
        if self.failures >= STARTS or self.deaths >= DEATHS:
            self.wanted = False
            return
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.deaths - 1))
        self.again_s = time.monotonic() + pause_s
