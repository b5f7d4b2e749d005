"""An engine that says anything at all: an error for the user, and nothing else happens."""

from __future__ import annotations

import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from splitpipe.errors import ServiceError, WireError
from splitpipe.wire.carrying import Batch
from splitpipe.wire.limits import Limits
from splitpipe.wire.messages import (
    Acked,
    Delivery,
    Hello,
    Welcome,
    read_from_client,
    read_from_engine,
    write,
)
from splitpipe.wire.values import encode
from tests.client.front import Front, fronted
from tests.wire.test_fuzz import Canary, mutated

GIVE_UP_S = 20_000  # in milliseconds, for ZeroMQ
PATIENCE_S = 60.0


def answers(folder: Path, count: int) -> list[list[list[bytes]]]:
    """What an engine may say to a Hello: lists of messages that are not what they should be."""
    dice = random.Random(7)
    canary = pickle.dumps(Canary(folder / "executed"))
    welcome = list(map(bytes, write(Welcome("id", 10, 30.0))))
    delivery = write(Delivery([Batch(0, 1, encode({"id": [1, (2,)], "x": b"y" * 9_000}))]))
    made: list[list[list[bytes]]] = [
        [[canary]],
        [welcome, [canary]],
        [welcome, [bytes(delivery[0]), canary]],
        [[b""]],
        [welcome, [bytes(delivery[0])]],
    ]
    while len(made) < count:
        message = dice.choice([write(Welcome("id", 10, 30.0)), delivery, write(Acked([(0, 1)]))])
        made.append([welcome, mutated(message, dice, canary)])
    return made


@pytest.mark.deadline(120)
def test_is_told_as_an_error(tmp_path: Path) -> None:
    with (
        fronted(tmp_path) as front,
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        ThreadPoolExecutor(1) as threads,
    ):
        router.linger = 0
        router.rcvtimeo = GIVE_UP_S
        front.instead = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        refused = 0
        for messages in answers(tmp_path, 40):
            wrong = any(map(unreadable, messages))
            # What can be read may do for a batch, or for nothing at all: then nothing comes.
            timeout_s = PATIENCE_S if wrong else 0.5
            told = said(front, router, threads, messages, timeout_s=timeout_s)
            assert told or not wrong
            refused += told
    assert refused >= 30
    assert not (tmp_path / "executed").exists()


def unreadable(frames: list[bytes]) -> bool:
    """Whether a message is none of an engine's."""
    try:
        read_from_engine(frames, limits=Limits())
    except WireError:
        return True
    return False


def hello_of(router: zmq.Socket[bytes], session: str) -> bytes:
    """Which peer says hello for a session; loaders before it may have said more."""
    while True:
        peer, *frames = router.recv_multipart()
        message = read_from_client(frames, limits=Limits())
        if isinstance(message, Hello) and message.session == session:
            return peer


def said(
    front: Front,
    router: zmq.Socket[bytes],
    threads: ThreadPoolExecutor,
    messages: list[list[bytes]],
    *,
    timeout_s: float,
) -> bool:
    """Let a loader hear these; whether it refused them."""
    loader = front.loader(transport="zmq")
    waiting = threads.submit(loader.take, timeout_s=timeout_s)
    try:
        peer = hello_of(router, loader._feed.session.name)
        for frames in messages:
            router.send_multipart([peer, *frames])
        try:
            waiting.result()
        except WireError:
            return True
        except (ServiceError, TimeoutError):
            return False
        return False
    finally:
        loader._shut(in_good_order=False, timeout_s=0.05)
