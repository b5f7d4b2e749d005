"""Streams for engines of tests, and a client of the feed that is nothing but a socket."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from splitpipe.server.feed.engines import EngineJob, Engines
from splitpipe.server.feed.memory import BatchStream
from splitpipe.server.feed.ranges import normal, numbers, of_numbers
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.iterations.made import Broken, Ended, Event, Failure, Made
from splitpipe.server.state import open_database
from splitpipe.server.state.tables import iterations
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Delivery,
    End,
    Failed,
    Hello,
    Ping,
    Refused,
    Welcome,
    read_from_engine,
    write,
)
from splitpipe.wire.values import encode

ITERATION = "0123456789abcdef"


class Counted:
    """Batches that are their own number, made on the spot.

    What it does stands in the snapshot: ``batches``, ``nbytes`` of each, ``spin`` (rounds of work),
    ``broken`` (the batch that cannot be made), ``tail``.
    """

    def __init__(self, told: Mapping[str, Any], start: int) -> None:
        self._told = told
        self._next = start
        self._data = np.zeros(told.get("nbytes", 16), dtype=np.uint8)

    def __next__(self) -> Event:
        told, number = self._told, self._next
        if number == told.get("broken"):
            return Broken(number, Failure("read", 3, "OSError", "part-3.csv is not there"))
        if number == told.get("die"):
            os._exit(3)
        if number >= told["batches"]:
            return Ended(told["batches"], None, *told.get("tail", (0, 0)))
        for _ in range(told.get("spin", 0)):
            hashlib.sha256(b"x" * 64).digest()
        self._next += 1
        samples, filtered = number % 3 + 1, int(number % 4 == 0)
        data = self._data.copy() if self._data.nbytes > 4096 else self._data
        return Made(number, encode({"number": number, "data": data}), samples, filtered, 0)

    def checkpoint(self) -> Any:
        return {"next": self._next}

    def stats(self) -> Any:
        return {"stages": [{"name": "count", "busy": 1.0}], "doctor": "nothing is slow"}

    def close(self) -> None:
        pass


def counted(
    _spec: IterationSpec,
    snapshot: Mapping[str, Any],
    _modules: Path | None,
    *,
    start: int = 0,
    checkpoint: Any = None,
) -> BatchStream:
    assert checkpoint is None or checkpoint["next"] <= start
    return Counted(snapshot, start)


def job_of(spec: Mapping[str, Any], **told: Any) -> EngineJob:
    return EngineJob(
        ITERATION,
        {"dataset": "counted", **spec},
        told,
        opener="tests.server.feed.making:counted",
    )


def make_database(folder: Path) -> str:
    """A database with the row of the iteration, which cursors refer to."""
    url = f"sqlite:///{folder / 'state.sqlite'}"
    with open_database(url) as database, database.write() as connection:
        values = {
            "id": ITERATION,
            "dataset": "counted",
            "spec": {},
            "fingerprint": "",
            "snapshot": {},
            "status": "ready",
            "created_at": 0.0,
            "updated_at": 0.0,
        }
        connection.execute(iterations.insert().values(**values))
    return url


@contextmanager
def engines_in(folder: Path, **options: Any) -> Iterator[Engines]:
    """Engines over a database in this folder, which has a row for `ITERATION`."""
    run = folder / "run"
    if not run.exists():
        run.mkdir(mode=0o700)
        make_database(folder)
    engines = Engines(f"sqlite:///{folder / 'state.sqlite'}", run=run, **options)
    try:
        yield engines
    finally:
        engines.close()


class Dealer:
    """A client: one socket, and what it has seen.

    It acknowledges a batch when the next one is asked for, as a loader does.
    """

    def __init__(
        self,
        engines: Engines,
        session: str,
        *,
        rank: int = 0,
        client: str = "",
        window: int = 64,
        nbytes: int = 1 << 28,
        transport: str = "ipc",
        rewind: int | None = None,
    ) -> None:
        self.engines = engines
        self.session = session.ljust(16, "-")
        self.rank, self.client, self.window, self.nbytes = rank, client, window, nbytes
        self.transport = transport
        self.rewind = rewind
        self.held: dict[int, Any] = {}
        self.unconfirmed: set[int] = set()
        self.delivered: list[int] = []
        self.total: int | None = None
        self.failed: Failed | None = None
        self.welcome: Welcome | None = None
        self.refused: list[Refused] = []
        self._context = zmq.Context()
        self._socket: Any = None
        self._ready: list[int] = []
        self._pinged_s = 0.0

    def __enter__(self) -> Dealer:
        self.connect()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def connect(self) -> None:
        said = self.engines.ticket(
            ITERATION, rank=self.rank, client=self.client, session=self.session
        )
        self.disconnect()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 500
        if said["server_key"] and self.transport == "tcp":
            public, secret = zmq.curve_keypair()
            self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
            self._socket.curve_serverkey = said["server_key"].encode()
        self._socket.connect(
            next(one for one in said["endpoints"] if one.startswith(self.transport))
        )
        self.say(
            Hello(
                said["ticket"],
                self.session,
                self.rank,
                self.client,
                self.window,
                self.nbytes,
                list(of_numbers(self.unconfirmed)),
                list(of_numbers(self.held)),
                self.rewind,
            )
        )
        self.rewind = None

    def say(self, message: Any) -> None:
        self._socket.send_multipart(write(message))

    def disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def close(self, *, bye: bool = True) -> None:
        if self._socket is not None and bye:
            self.say(Bye([]))
            self._socket.close(linger=500)
            self._socket = None
        self.disconnect()
        self._context.term()

    def listen(self, timeout_s: float = 10.0) -> bool:
        """Wait for one message and take it in. Gives whether one came."""
        if time.monotonic() - self._pinged_s > 0.2:
            self._pinged_s = time.monotonic()
            self.say(Ping())
        if not self._socket.poll(int(timeout_s * 1000)):
            return False
        message = read_from_engine(self._socket.recv_multipart())
        if isinstance(message, Delivery):
            for batch in message.batches:
                if batch.sequence not in self.held:
                    self.held[batch.sequence] = batch
                    self._ready.append(batch.sequence)
        elif isinstance(message, Acked):
            self.unconfirmed.difference_update(numbers(normal(message.ranges)))
        elif isinstance(message, Welcome):
            self.welcome = message
            for number in numbers(normal(message.dropped)):
                self.held.pop(number, None)
                if number in self._ready:
                    self._ready.remove(number)
        elif isinstance(message, End):
            self.total = message.total
        elif isinstance(message, Failed):
            self.failed = message
        elif isinstance(message, Refused):
            self.refused.append(message)
        return True

    def take(self, most: int = 1 << 30) -> list[int]:
        """Give batches that have arrived to the user."""
        taken = self._ready[:most]
        del self._ready[:most]
        self.delivered += taken
        return taken

    def done(self, some: list[int]) -> None:
        """Acknowledge these."""
        if some:
            for number in some:
                self.held.pop(number, None)
            self.unconfirmed.update(some)
            self.say(Ack(list(of_numbers(some))))

    def read_all(self, *, until_s: float = 120.0) -> list[int]:
        """Read to the end."""
        end_s = time.monotonic() + until_s
        while self.total is None or self.unconfirmed:
            assert time.monotonic() < end_s, f"{len(self.delivered)} delivered, no end"
            assert self.failed is None, self.failed
            self.listen(0.2)
            self.done(self.take())
        return self.delivered

    def read_some(self, count: int, *, until_s: float = 120.0) -> list[int]:
        """Read so many, and acknowledge them."""
        end_s = time.monotonic() + until_s
        got: list[int] = []
        while len(got) < count:
            assert time.monotonic() < end_s, f"{len(got)} of {count}; refused: {self.refused}"
            some = self.take(count - len(got))
            self.done(some)
            got += some
            if len(got) < count:
                self.listen(0.2)
        return got

    def listen_until(self, what: Any, *, until_s: float = 120.0) -> None:
        """Take in messages until something holds."""
        end_s = time.monotonic() + until_s
        while not what():
            assert time.monotonic() < end_s, "it did not come"
            self.listen(0.1)


def in_threads(*work: Any) -> None:
    """Do all of these at once; raise what one of them raised."""
    raised: list[BaseException] = []

    def run(one: Any) -> None:
        try:
            one()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def wait_for(what: Any, *, until_s: float = 120.0) -> Any:
    """Ask until something is true, and give it."""
    end_s = time.monotonic() + until_s
    pause = threading.Event()
    while not (said := what()):
        assert time.monotonic() < end_s, "it did not come true"
        pause.wait(0.02)
    return said
