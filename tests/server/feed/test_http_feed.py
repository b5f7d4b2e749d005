"""The feed over HTTP: a peer of the engine in the server, which passes messages on."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from splitpipe.errors import InvalidRequest, NotFound, Unavailable, WireError
from splitpipe.server.feed.engines import Engines
from splitpipe.wire.messages import Ack, Bye, Delivery, End, Hello, read_from_engine, write
from splitpipe.wire.packing import join, split_all

from .making import ITERATION, engines_in, in_threads, job_of

LONG_S = 20.0


def test_everything_comes_over_a_link(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=300, nbytes=10_000))
        session = "s" * 16
        said = engines.ticket(ITERATION, rank=0, client="", session=session)
        hello = Hello(said["ticket"], session, 0, "", 64, 1 << 20, [], [])

        def say(*messages: object) -> None:
            body = b"".join(join(write(message)) for message in messages)  # type: ignore[arg-type]
            assert engines.feed(ITERATION, "ab12", body, 0) == b""

        say(hello)
        got: list[int] = []
        total = None
        end_s = time.monotonic() + 30
        while total is None:
            assert time.monotonic() < end_s
            for frames in split_all(engines.feed(ITERATION, "ab12", b"", 5.0)):
                message = read_from_engine(frames)
                if isinstance(message, Delivery):
                    some = [batch.sequence for batch in message.batches]
                    got += some
                    say(Ack([(one, one + 1) for one in some]))
                elif isinstance(message, End):
                    total = message.total
        assert got == list(range(300))
        say(Bye([]))


def test_what_waits_does_not_hold_up_what_speaks(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=3))
        session = "s" * 16
        said = engines.ticket(ITERATION, rank=0, client="", session=session)
        hello = Hello(said["ticket"], session, 0, "", 64, 1 << 20, [], [])
        answers: list[bytes] = []
        in_threads(
            lambda: answers.append(engines.feed(ITERATION, "ab12", b"", 20.0)),
            lambda: engines.feed(ITERATION, "ab12", join(write(hello)), 0),
        )
        assert answers[0]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        with pytest.raises(NotFound):
            engines.feed(ITERATION, "ab12", b"", 0.1)
        engines.start(job_of({}, batches=3))
        for name in ("", "../x", "a" * 65):
            with pytest.raises(InvalidRequest, match="name of a link"):
                engines.feed(ITERATION, name, b"", 0.1)
        with pytest.raises(WireError):
            engines.feed(ITERATION, "ab12", b"rubbish", 0.1)
        assert engines.feed(ITERATION, "ab12", b"", 0.05) == b""


def waiting_in(folder: Path, end: Callable[[Engines], None]) -> tuple[bytes | Unavailable, bool]:
    """What one who waits by a link is told when `end` was called, and whether he can go on then."""
    told: list[bytes | Unavailable] = []
    with engines_in(folder) as engines:
        engines.start(job_of({}, batches=3))
        session = "s" * 16
        said = engines.ticket(ITERATION, rank=0, client="", session=session)
        hello = Hello(said["ticket"], session, 0, "", 64, 1 << 20, [], [])
        engines.feed(ITERATION, "ab12", join(write(hello)), 0)
        arrived = 0
        while arrived < 3:
            for frames in split_all(engines.feed(ITERATION, "ab12", b"", 5.0)):
                message = read_from_engine(frames)
                arrived += len(message.batches) if isinstance(message, Delivery) else 0

        def wait() -> None:
            try:
                found = b"what it still had to say"
                while found or not engines._http._closed:
                    found = engines.feed(ITERATION, "ab12", b"", LONG_S)
                told.append(found)
            except Unavailable as error:
                told.append(error)

        in_threads(wait, partial(end, engines))
        try:
            on = engines.feed(ITERATION, "cd34", b"", 0.05) == b""
        except Unavailable:
            on = False
    return told[0], on


def test_the_death_of_the_engine_is_told_at_once(tmp_path: Path) -> None:
    """Not when the client becomes impatient: the request that waits is answered."""

    def kill(engines: Engines) -> None:
        process = engines._engines[ITERATION].process
        assert process is not None
        process.kill()

    told, goes_on = waiting_in(tmp_path, kill)
    assert isinstance(told, Unavailable)
    assert "died" in str(told)
    assert goes_on


def test_the_end_of_the_server_is_told_at_once(tmp_path: Path) -> None:
    told, goes_on = waiting_in(tmp_path, Engines.let_go)
    # Who had just been given something, and asks again after the end, is refused.
    assert told == b"" or "the server ends" in str(told)
    assert not goes_on


def test_nobody_waits_for_an_engine_that_does_not_come(tmp_path: Path) -> None:
    """It needs a lock that is held; who waits for it is told that the server ends."""
    with (
        engines_in(tmp_path) as engines,
        (tmp_path / "run" / f"{ITERATION}.lock").open("w") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        engines.start(job_of({}, batches=3))
        told: list[str] = []
        waits = threading.Event()

        def wait() -> None:
            waits.set()
            with pytest.raises(Unavailable) as caught:
                engines.ticket(ITERATION, rank=0, client="", session="s" * 16)
            told.append(str(caught.value))

        in_threads(wait, lambda: (waits.wait(), engines.let_go()))
        assert told[0].endswith("the server ends")
