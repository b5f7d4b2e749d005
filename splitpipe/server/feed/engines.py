"""The engines of a server.

Responsible for: `Engines`: starting, watching, stopping them; tickets; what they say of themselves;
and the feed over HTTP, which is a peer of an engine like any other.

Rules:
- safe to call from any thread. One thread of its own starts and watches the processes;
- nobody waits without a bound, and what an engine does never holds up another one's callers;
- when it is closed, or this process dies, all engines end;
- TCP is always CURVE's, on loopback too: libzmq gathers a message of many frames without a bound,
  and so nobody may begin one to whom no ticket was given.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitpipe.errors import BrokenChannel, NotFound, StorageError, Unavailable
from splitpipe.server.children import Hold
from splitpipe.server.feed.doors import is_loopback
from splitpipe.server.feed.http_feed import HttpFeed
from splitpipe.server.feed.job import EngineJob, Place
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.supervised import EngineChange, Spare, Supervised
from splitpipe.server.feed.tickets import hash_of, new_ticket
from splitpipe.server.security import FeedKeys, passing_keys

__all__ = ["EngineChange", "EngineJob", "Engines"]

TICKET_S = 120.0
READY_S = 30.0
CALL_S = 10.0
SPARE_S = 3.0
"""After how long without a start a process is made ready for the next one."""
CLOSE_S = 5.0
"""How long engines may take to end before they are killed."""
WILDCARDS = ("0.0.0.0", "[::]", "*")

_log = logging.getLogger(__name__)


class Engines:
    """The engines of one server.

    Args:
        database_url: the server's database, with its password.
        run: a folder for this user alone.
        host: the address that engines listen at.
        ports: first and last port for them; (0, 0): any.
        keys: their CURVE keys; None: they listen on loopback alone, with keys that nobody keeps.
        durable: whether a commit of the journal waits for the disk.
        limits: bounds of each.
        changed: called, from the watcher's thread, when the status of an iteration changes.

    Raises:
        InvalidRequest: it would listen beyond loopback without keys.
    """

    def __init__(
        self,
        database_url: str,
        *,
        run: Path,
        host: str = "127.0.0.1",
        ports: tuple[int, int] = (0, 0),
        keys: FeedKeys | None = None,
        durable: bool = False,
        limits: FeedLimits | None = None,
        changed: Callable[[str, EngineChange], None] | None = None,
    ) -> None:
        require_keys(host, keys)
        keys = keys or passing_keys()
        self._place = Place(
            database=database_url,
            run=str(run),
            host=host,
            ports=ports,
            public=keys.public,
            secret=keys.secret,
            durable=durable,
        )
        self._limits = limits or FeedLimits()
        self._changed = changed
        self._engines: dict[str, Supervised] = {}
        self._said = threading.Condition(threading.RLock())
        self._calls = itertools.count()
        self._hold = Hold()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._closed = self._leaving = False
        self._kill_s = 0.0
        self._spare: Spare | None = None
        self._spare_s = time.monotonic() + SPARE_S
        self._http = HttpFeed(keys, self._limits)
        self._watcher = threading.Thread(target=self._watch, name="splitpipe-engines", daemon=True)
        self._watcher.start()

    # ---------------------------------------------------------------- for the server

    def start(self, job: EngineJob) -> None:
        """Have an iteration delivered. Nothing happens if it is already."""
        with self._said:
            engine = self._engines.get(job.iteration)
            if engine is not None and engine.has_failed:
                self._end(engine, final=False)  # it would give the same error again
            if engine is None or not (engine.wanted or engine.process):
                last = None if engine is None else engine.status
                engine = self._engines[job.iteration] = Supervised(job, status=last)
            if engine.process is None and engine.again_s is None:
                engine.wanted = True
                engine.again_s = time.monotonic()
        self._ring()

    def stop(self, iteration: str) -> None:
        """End the delivery of an iteration: clients are told that it was stopped."""
        with self._said:
            engine = self._engines.get(iteration)
            if engine is None:
                return
            self._end(engine, final=True)
            if engine.change is None or engine.change.status != "done":
                self._note(engine, EngineChange("stopped", _total(engine)))

    def push_back(self, iteration: str) -> int:
        """Take back all that clients hold. Gives how many batches that were."""
        call = next(self._calls)
        with self._said:
            engine = self._ready(iteration)
            self._say(engine, {"kind": "push_back", "call": call})
            self._wait(lambda: call in engine.answers, CALL_S)
            if call not in engine.answers:
                raise Unavailable(f"the engine of {iteration} did not answer within {CALL_S:g} s")
            return int(engine.answers.pop(call))

    def ticket(
        self, iteration: str, *, rank: int, client: str, session: str, host: str | None = None
    ) -> dict[str, Any]:
        """Let a client in. Waits until the engine is ready.

        Args:
            iteration: what it reads; it was started.
            rank: whose batches.
            client: the name under which it follows.
            session: its own name for itself.
            host: under which name this machine was reached; None: by itself.

        Raises:
            NotFound: it was not started.
            Unavailable: its engine cannot be started, or does not get ready.
        """
        ticket = new_ticket()
        with self._said:
            engine = self._ready(iteration)
            self._say(
                engine,
                {
                    "kind": "ticket",
                    "hash": hash_of(ticket),
                    "rank": rank,
                    "client": client,
                    "session": session,
                    "good_s": TICKET_S,
                },
            )
            endpoints = reachable(engine.endpoints, host)
            lease_s = float(engine.job.description().lease_s)
        return {
            "endpoints": endpoints,
            "ticket": ticket,
            "server_key": self._place.public,
            "lease_s": lease_s,
        }

    def status(self, iteration: str) -> dict[str, Any] | None:
        """What an engine said of itself last; None when it said nothing yet."""
        with self._said:
            engine = self._engines.get(iteration)
            if engine is None:
                return None
            engine.hear()  # what it said a moment ago counts already
            self._said.notify_all()
            return engine.status

    def running(self) -> list[str]:
        """Iterations whose engine runs, or is about to."""
        with self._said:
            return [name for name, engine in self._engines.items() if engine.wanted]

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Of every engine: the numbers of its status, and how often it was started again."""
        with self._said:
            return {
                name: {**(engine.status or {}), "crashes": engine.crashes}
                for name, engine in self._engines.items()
            }

    def feed(self, iteration: str, link: str, body: Any, wait_s: float) -> bytes:
        """Pass on what an HTTP client says, and give what the engine has for it.

        Args:
            iteration: whose engine.
            link: the client's name for this connection.
            body: messages, packed one behind the other.
            wait_s: for how long to wait when there is nothing for it.

        Raises:
            NotFound: the iteration does not run.
            WireError: the body is no packed frames.
            Unavailable: too many links, or the engine does not get ready.
        """
        with self._said:
            endpoints = list(self._ready(iteration).endpoints)
        return self._http.exchange(iteration, endpoints, link, body, wait_s)

    def let_go(self) -> None:
        """Answer whoever waits for an engine: the server ends, and nothing gets ready any more."""
        self._http.let_go()
        with self._said:
            self._leaving = True
            self._said.notify_all()

    def close(self) -> None:
        """End all engines; clients are told to come back. Safe to call twice."""
        self.let_go()
        with self._said:
            if self._closed:
                return
            self._closed = True
            self._kill_s = time.monotonic() + CLOSE_S
            for engine in self._engines.values():
                engine.wanted = False
                engine.again_s = None
                self._say(engine, {"kind": "stop", "final": False})
        self._ring()
        self._watcher.join()
        if self._spare is not None:
            self._spare.close()
        self._http.close()
        self._hold.close()
        self._bell.close()
        self._rope.close()

    # ---------------------------------------------------------------- within

    def _ready(self, iteration: str) -> Supervised:
        engine = self._engines.get(iteration)
        if engine is None or not (engine.wanted or engine.error):
            raise NotFound(f"iteration {iteration} does not run here. Start it first")
        self._wait(lambda: bool(engine.endpoints) or not engine.wanted, READY_S)
        if not engine.endpoints:
            why = engine.error or ("the server ends" if self._leaving else "it does not get ready")
            raise Unavailable(f"the engine of iteration {iteration} cannot be reached: {why}")
        return engine

    def _end(self, engine: Supervised, *, final: bool) -> None:
        """End its process, and wait for that."""
        engine.wanted = False
        engine.again_s = None
        self._say(engine, {"kind": "stop", "final": final})
        self._wait(lambda: engine.process is None, CALL_S)
        if engine.process is not None and not self._leaving:
            engine.process.kill()
            self._wait(lambda: engine.process is None, CALL_S)

    def _wait(self, come: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something has come, for so long at most, and no longer than the server."""
        self._said.wait_for(lambda: self._leaving or come(), timeout_s)

    def _say(self, engine: Supervised, told: dict[str, Any]) -> None:
        if engine.line is not None:
            with contextlib.suppress(BrokenChannel):
                engine.line.send(told)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    def _note(self, engine: Supervised, change: EngineChange) -> None:
        if change == engine.change:
            return
        if self._changed is not None:
            try:
                self._changed(engine.job.iteration, change)
            except StorageError as error:  # tried again with its next word
                _log.error("%s of %s was not noted: %s", change, engine.job.iteration, error)
                return
        engine.change = change

    # ---------------------------------------------------------------- the watcher's thread

    def _watch(self) -> None:
        while True:
            with self._said:
                self._start_due()
                self._start_spare()
                lines = {e.line: e for e in self._engines.values() if e.line is not None}
                if self._closed and not lines:
                    return
                timeout_s = self._kill_late() if self._closed else self._next_start_s()
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._bell, selectors.EVENT_READ)
                for line in lines:
                    waiting.register(line, selectors.EVENT_READ)
                found = [key.fileobj for key, _ in waiting.select(timeout_s)]
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
            for one in found:
                if one in lines:
                    self._hear(lines[one])

    def _kill_late(self) -> float:
        """Kill engines that should be gone. Gives how long to wait for the others."""
        left_s = self._kill_s - time.monotonic()
        for engine in self._engines.values():
            if left_s <= 0 and engine.process is not None:
                engine.process.kill()
        return max(0.1, left_s)

    def _next_start_s(self) -> float | None:
        due = [e.again_s for e in self._engines.values() if e.again_s is not None]
        if self._spare is None:
            due.append(self._spare_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_spare(self) -> None:
        """Have a process in reserve, once nobody waits for one that is just being started."""
        now_s = time.monotonic()
        if self._spare is None and not self._closed and now_s >= self._spare_s:
            self._spare_s = now_s + SPARE_S
            if any(e.process is not None and not e.endpoints for e in self._engines.values()):
                return
            with contextlib.suppress(OSError):
                self._spare = Spare(self._hold)

    def _start_due(self) -> None:
        now_s = time.monotonic()
        for engine in self._engines.values():
            if engine.again_s is not None and engine.again_s <= now_s:
                try:
                    spare, self._spare = self._spare, None
                    if spare is not None and not spare.lives:
                        spare.close()
                        spare = None
                    engine.start(self._place, self._limits, spare or Spare(self._hold))
                    self._spare_s = now_s + SPARE_S
                except (OSError, BrokenChannel) as error:
                    engine.error = f"its process cannot be started: {error}"
                    engine.bury()
                    self._died(engine)

    def _hear(self, engine: Supervised) -> None:
        with self._said:
            there, _ = engine.hear()
            self._said.notify_all()
        if not there:
            self._http.forget(engine.job.iteration)
            engine.bury()
            with self._said:
                self._died(engine)
                self._said.notify_all()
            return
        with self._said:
            if engine.status is not None and engine.wanted:
                errors = engine.status["errors"]
                error = errors[0]["message"] if errors else None
                self._note(engine, EngineChange(engine.status["state"], _total(engine), error))

    def _died(self, engine: Supervised) -> None:
        engine.after_death()
        if engine.failures and not engine.wanted and engine.error:
            self._note(engine, EngineChange("failed", _total(engine), engine.error))


def require_keys(host: str, keys: FeedKeys | None) -> None:
    """Raise InvalidRequest when a feed would listen beyond loopback without keys."""
    from splitpipe.errors import InvalidRequest

    if not is_loopback(host) and keys is None:
        raise InvalidRequest(
            f"the feed would listen at {host} without keys. Make them with 'splitpipe keys ROOT', "
            "or listen at 127.0.0.1"
        )


def _total(engine: Supervised) -> int | None:
    total = engine.job.total if engine.status is None else engine.status["total"]
    return None if total is None else int(total)


def reachable(endpoints: Sequence[str], host: str | None) -> list[str]:
    """The endpoints that one who reached this machine as `host` can use, the best first.

    Example:
        >>> both = ["ipc:///run/a.feed", "tcp://0.0.0.0:8100"]
        >>> reachable(both, "127.0.0.1"), reachable(both, "data.example")
        (['ipc:///run/a.feed', 'tcp://127.0.0.1:8100'], ['tcp://data.example:8100'])
    """
    here = host is None or is_loopback(host)
    name = host or "127.0.0.1"
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    found = []
    for endpoint in endpoints:
        address, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if endpoint.startswith("tcp://") and address in WILDCARDS:
            found.append(f"tcp://{name}:{port}")
        elif here or endpoint.startswith("tcp://"):
            found.append(endpoint)
    return found
