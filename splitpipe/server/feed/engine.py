"""The process that delivers one iteration.

Responsible for: `Engine`, its loop, and `deliver`, which is all that such a process does.

Rules:
- one thread owns sockets, sessions and ledgers; the tape's threads make batches beside it;
- a turn is: take what has arrived, grant what can be granted, write down all of it in one
  transaction, then send. What was sent was written down before;
- it ends when the server says so, and when the server is no more, whatever it is doing;
- two engines never deliver one iteration: each holds a lock while it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import socket
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import zmq

from splitpipe.errors import BrokenChannel, LockedError
from splitpipe.server.feed.bell import Bell
from splitpipe.server.feed.control import Line
from splitpipe.server.feed.desk import Desk
from splitpipe.server.feed.doors import Doors
from splitpipe.server.feed.job import OPEN_STREAM, EngineJob, Place, division_of
from splitpipe.server.feed.journal import Journal
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.status import Rate, state_of, status_of
from splitpipe.server.feed.tape import Checkpoints, Tape
from splitpipe.server.feed.tickets import Grant
from splitpipe.server.state import open_database
from splitpipe.wire.messages import Refused, write

__all__ = ["Engine", "deliver"]

STATUS_S = 0.5
LOCK_S = 30.0
IDLE_S = 300.0
"""An engine that nobody uses for so long ends; the next ticket starts it again."""
MESSAGES_A_TURN = 512
DESCRIPTORS = 16_384

_log = logging.getLogger("splitpipe.engine")


class Engine:
    """One iteration, being delivered.

    Args:
        job: which one.
        place: where to listen and write.
        line: to the server.
        limits: bounds.
    """

    def __init__(self, job: EngineJob, place: Place, line: Line, limits: FeedLimits) -> None:
        spec = job.description()
        self._line = line
        self._division = division_of(spec)
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            opening.enter_context(_only_one(Path(place.run) / f"{job.iteration}.lock"))
            database = opening.enter_context(open_database(place.database, durable=place.durable))
            self._journal = Journal(database, job.iteration)
            self._bell = Bell()
            opening.callback(self._bell.close)
            self._tape = Tape(
                job.stream(),
                limits=limits,
                wake=self._bell.ring,
                checkpoints=Checkpoints(self._journal.checkpoints()),
            )
            self._desk = Desk(
                job.iteration,
                self._division,
                self._tape,
                lease_s=spec.lease_s,
                limits=limits,
                states=self._journal.cursors(),
                now_s=time.monotonic(),
                total=job.total,
            )
            self._doors = Doors(place, job.iteration, limits)
            opening.callback(self._doors.close)
            self._resources = opening.pop_all()
        self._lease_s = spec.lease_s
        self._rate = Rate()
        self._told: dict[str, Any] = {}
        self._ending: str | None = None
        self._used_s = time.monotonic()

    def run(self) -> str:
        """Deliver until told to stop. Gives why it ended."""
        self._line.send({"kind": "ready", "endpoints": self._doors.endpoints})
        poller = zmq.Poller()
        for door in self._doors.sockets:
            poller.register(door, zmq.POLLIN)
        poller.register(self._line.fileno(), zmq.POLLIN)
        poller.register(self._bell.fileno(), zmq.POLLIN)
        period_s = min(STATUS_S, self._lease_s / 4)
        now_s = looked_s = time.monotonic()
        self._listen(now_s)  # what came with the first line rings no bell
        while self._ending is None:
            until_s = looked_s + period_s
            if self._bell.due_s > now_s:  # the time of the last turn: what came since may be due
                until_s = min(until_s, self._bell.due_s)
            poller.poll(int(max(0.0, until_s - now_s) * 1000) + 1)
            woke_s = time.monotonic()
            if woke_s - now_s > period_s + 1.0:  # stopped, or starved: nobody could be heard
                self._desk.extend(woke_s - now_s)
            now_s = woke_s
            drained = self._turn(now_s)
            if now_s - looked_s >= period_s:
                looked_s = now_s
                if drained:
                    self._desk.expire(now_s)
                self._tell(now_s)
        self._finish()
        return self._ending

    def close(self) -> bool:
        """Let go of everything. Gives whether all threads ended."""
        ended = self._tape.close()
        self._resources.close()
        return ended

    # ---------------------------------------------------------------- one turn

    def _turn(self, now_s: float) -> bool:
        self._bell.hear()
        self._listen(now_s)
        heard = 0
        for peer, frames in self._doors.receive(MESSAGES_A_TURN):
            heard += 1
            self._desk.hear(peer, frames, now_s)
        self._desk.serve()
        self._settle()
        return heard < MESSAGES_A_TURN

    def _settle(self) -> None:
        """Write down what changed, then say it."""
        self._journal.write(self._desk.changed(), self._tape.checkpoints.take_new())
        answers = self._desk.answers()
        if answers:
            # Whoever hears of it and asks the server then shall not be told what was before.
            self._tell_if_changed(time.monotonic())
        for peer, message, session in answers:
            sent = self._doors.send(peer, write(message))
            if not sent and session is not None:
                self._desk.unreached(session)

    def _listen(self, now_s: float) -> None:
        lines = self._line.receive()
        if lines is None:
            self._ending = "the server is gone"
            return
        for told in lines:
            _TOLD[told["kind"]](self, told, now_s)

    def _ticket(self, told: dict[str, Any], now_s: float) -> None:
        self._used_s = now_s
        grant = Grant(told["rank"], told["client"], told["session"], now_s + told["good_s"])
        self._desk.tickets.add(told["hash"], grant)

    def _push_back(self, told: dict[str, Any], _now_s: float) -> None:
        batches = self._desk.push_back()
        self._settle()
        self._line.send({"kind": "pushed_back", "batches": batches, "call": told["call"]})

    def _stop(self, told: dict[str, Any], _now_s: float) -> None:
        final = told["final"]
        self._ending = "stopped" if final else "the server ends"
        reason = "the iteration was stopped" if final else "the server is being restarted"
        self._desk.dismiss(Refused(reason, retry=not final, ticket=not final))

    def _finish(self) -> None:
        self._settle()
        self._tell(time.monotonic())

    # ---------------------------------------------------------------- telling

    def _tell_if_changed(self, now_s: float) -> None:
        if state_of(self._desk, self._tape, self._division) != self._told.get("state"):
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        status = status_of(self._desk, self._tape, self._division, now_s=now_s)
        status["rate"] = round(self._rate.at(now_s, status["completed"]), 3)
        if self._desk.sessions:
            self._used_s = now_s
        elif now_s - self._used_s > IDLE_S and self._ending is None:
            self._ending = "idle"
        if status != self._told:
            self._told = status
            self._line.send({"kind": "status", "status": status})


_TOLD = {"ticket": Engine._ticket, "push_back": Engine._push_back, "stop": Engine._stop}


@contextlib.contextmanager
def _only_one(path: Path) -> Any:
    """Hold a lock on `path`, which whoever held it lets go of when it dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise LockedError(f"another engine holds {path} and does not end") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def deliver(control: int) -> None:
    """Be an engine: take the server's word from the descriptor `control`, and leave at the end."""
    _allow_many_clients()
    line = Line(socket.socket(fileno=control))
    with contextlib.suppress(ImportError):
        import_module(OPEN_STREAM.partition(":")[0])  # while nobody waits for it
    told = _first(line)
    engine: Engine | None = None
    ended = False
    try:
        place = {**told["place"], "ports": tuple(told["place"]["ports"])}
        limits = FeedLimits(**told.get("limits", {}))
        engine = Engine(EngineJob(**told["job"]), Place(**place), line, limits)
        reason = engine.run()
        ended = engine.close()
        line.send({"kind": "ended", "reason": reason})
        status = 0
    except BrokenChannel:
        status = 0  # the server is gone
    except BaseException as error:
        _log.exception("the engine cannot go on")
        with contextlib.suppress(BrokenChannel):
            line.send({"kind": "broken", "error": f"{type(error).__name__}: {error}"})
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if not ended:
        os._exit(status)  # a stage hangs in somebody's code
    sys.exit(status)


def _allow_many_clients() -> None:
    """Each client is a descriptor, and the usual limit is 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _first(line: Line) -> dict[str, Any]:
    """The first thing that the server says."""
    while True:
        line.wait()
        told = line.receive()
        if told is None:
            os._exit(0)
        if told:
            line.put_back(told[1:])
            return told[0]
