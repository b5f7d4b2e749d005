"""Frames that no client of ours would send, at a real engine: it stays what it was."""

from __future__ import annotations

import os
import pickle
import random
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from splitpipe.server.feed.engines import Engines
from splitpipe.wire.messages import Ack, Bye, Hello, Ping, PushBack, Window, write

from .making import ITERATION, Dealer, engines_in, job_of, wait_for

MESSAGES = 100_000
GROWTH_NBYTES = 64 << 20


class Canary:
    """What would leave a file behind if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def rubbish(chance: random.Random, canary: bytes) -> list[bytes]:
    """Something between a message and noise."""
    hello = Hello("t" * 43, "s" * 16, 0, "", 64, 1 << 20, [(0, 5)], [(5, 9)], 3)
    said = chance.choice(
        [hello, Ack([(0, 1 << 60)]), PushBack([(0, 4)]), Window(9, 9), Ping(), Bye([])]
    )
    frames = [bytes(frame) for frame in write(said)]
    what = chance.randrange(8)
    if what == 0:
        return [chance.randbytes(chance.randrange(300))]
    if what == 1:
        return [canary] * chance.randrange(1, 4)
    if what == 2:
        return [b""] * chance.randrange(1, 20)
    if what == 3:
        return frames + [chance.randbytes(50)] * chance.randrange(1, 5)
    if what == 4:
        return [b"\xdd\xff\xff\xff\xff" + frames[0], b"\x91" * chance.randrange(1, 5000)]
    if what == 5:
        return [frames[0][: chance.randrange(len(frames[0]))]]
    changed = bytearray(frames[0])
    for _ in range(chance.randrange(4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return [bytes(changed)]


def process_of(engines: Engines) -> psutil.Process:
    process = engines._engines[ITERATION].process
    assert process is not None
    return psutil.Process(process.pid)


@pytest.mark.long
def test_an_engine_survives_whatever_arrives(tmp_path: Path) -> None:
    canary = pickle.dumps(Canary(tmp_path / "executed"))
    chance = random.Random(11)
    with (
        engines_in(tmp_path) as engines,
        zmq.Context() as context,
    ):
        engines.start(job_of({"mode": "follow"}, batches=10**9))
        with Dealer(engines, "good", client="good") as good:
            good.read_some(10)
            endpoint = engines._engines[ITERATION].endpoints[0]
            process = process_of(engines)
            strangers = []
            for _ in range(20):
                stranger = context.socket(zmq.DEALER)
                stranger.linger = 0
                stranger.sndhwm = 2000
                stranger.connect(endpoint)
                strangers.append(stranger)
            before = 0
            for number in range(MESSAGES):
                strangers[number % 20].send_multipart(rubbish(chance, canary))
                if number == MESSAGES // 5:
                    before = process.memory_info().rss
                if number % 1000 == 0:
                    good.read_some(10)
            status = wait_for(
                lambda: (s := engines.status(ITERATION)) and s["rubbish"] >= MESSAGES * 0.9 and s,
                until_s=120.0,
            )
            good.read_some(100)
            assert process.is_running()
            grown = process.memory_info().rss - before
            for stranger in strangers:
                stranger.close(linger=0)
        assert engines.metrics()[ITERATION]["crashes"] == 0
        assert status["clients_total"] == 1
    assert grown < GROWTH_NBYTES, f"it grew by {grown >> 20} MiB"
    assert not (tmp_path / "executed").exists()


def test_a_frame_that_is_too_large_ends_its_connection_alone(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines, zmq.Context() as context:
        engines.start(job_of({}, batches=500))
        with Dealer(engines, "good") as good:
            good.read_some(10)
            process = process_of(engines)
            before = process.memory_info().rss
            with context.socket(zmq.DEALER) as stranger:
                stranger.linger = 0
                stranger.sndhwm = 4
                watch = stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                stranger.connect(engines._engines[ITERATION].endpoints[0])
                stranger.send(bytes(64 << 20))
                assert watch.poll(10_000), "the connection was not ended"
                stranger.disable_monitor()
                watch.close()
            assert good.read_all() == list(range(500))
            assert process.memory_info().rss - before < GROWTH_NBYTES


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"
COMMANDS = {"NULL": b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER", "CURVE": b"\x04\xc8"}
FRAME = b"\x03" + (1 << 17).to_bytes(8, "big") + bytes(1 << 17)  # one more follows
ENDLESS = 2000


def say_without_end(stranger: socket.socket, mechanism: str, *, frames: int = ENDLESS) -> None:
    """Speak ZMTP 3.0, and begin a message of a quarter of a gigabyte."""
    stranger.settimeout(60)
    stranger.sendall(GREETING + mechanism.encode().ljust(20, b"\0") + bytes(32))
    hear(stranger, 64)  # the other side's greeting
    stranger.sendall(COMMANDS[mechanism])
    hear(stranger, 1)
    for _ in range(frames):
        stranger.sendall(FRAME)


def hear(stranger: socket.socket, nbytes: int) -> None:
    while nbytes > 0:
        said = stranger.recv(nbytes)
        if not said:
            raise ConnectionResetError("cut off")
        nbytes -= len(said)


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_a_message_without_an_end_is_not_even_begun(tmp_path: Path, mechanism: str) -> None:
    """Who has no ticket does not get through the handshake of TCP, whatever he says."""
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=200))
        with Dealer(engines, "good", transport="tcp") as good:
            good.read_some(10)
            process = process_of(engines)
            before = process.memory_info().rss
            port = int(engines._engines[ITERATION].endpoints[-1].rpartition(":")[2])
            with (
                socket.create_connection(("127.0.0.1", port)) as stranger,
                pytest.raises(ConnectionError),
            ):
                say_without_end(stranger, mechanism)
            # What was said is right: without keys, at the file of the owner's own, it is begun.
            with socket.socket(socket.AF_UNIX) as owner:
                owner.connect(engines._engines[ITERATION].endpoints[0].removeprefix("ipc://"))
                say_without_end(owner, "NULL", frames=10)
            assert good.read_all() == list(range(200))
            assert process.memory_info().rss - before < GROWTH_NBYTES


def test_a_hello_with_a_guessed_ticket_learns_nothing(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines, zmq.Context() as context:
        engines.start(job_of({}, batches=5))
        engines.ticket(ITERATION, rank=0, client="", session="s" * 16)
        with context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(engines._engines[ITERATION].endpoints[0])
            stranger.send_multipart(write(Hello("guess", "s" * 16, 0, "", 9, 9, [], [])))
            assert stranger.poll(10_000)
            said = b"".join(stranger.recv_multipart())
            assert b"ticket is not good" in said
            assert b"batches" not in said
