"""Numbers that have come through a socket, in C and in Python."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from splitpipe.transport.native import twin
from splitpipe.transport.sockets import SocketPair

native: ModuleType | None
try:
    from splitpipe.transport.native import _kernel as native
except ImportError:
    native = None

Drain = Callable[[int], list[int] | None]


@pytest.fixture(
    params=[
        pytest.param(twin, id="python"),
        pytest.param(
            native,
            id="native",
            marks=pytest.mark.skipif(native is None, reason="the kernel in C is not built here"),
        ),
    ]
)
def drain(request: pytest.FixtureRequest) -> Drain:
    found: Drain = request.param.drain
    return found


@pytest.fixture
def pair() -> Iterator[SocketPair]:
    made = SocketPair(buffer_nbytes=1 << 18)
    yield made
    made.close()


def send(pair: SocketPair, *numbers: int) -> None:
    for number in numbers:
        pair.write.send(struct.pack("<I", number))


def test_nothing_there_is_no_wait(drain: Drain, pair: SocketPair) -> None:
    assert drain(pair.read.fileno()) == []


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 32, 100])
def test_all_that_came_in_their_order(drain: Drain, pair: SocketPair, count: int) -> None:
    numbers = [2**32 - 1 - number for number in range(count)]
    send(pair, *numbers)
    assert drain(pair.read.fileno()) == numbers
    assert drain(pair.read.fileno()) == []


@pytest.mark.parametrize("count", [1, 16, 20])
def test_the_end_comes_after_all(drain: Drain, pair: SocketPair, count: int) -> None:
    send(pair, *range(count))
    pair.write.shutdown(socket.SHUT_WR)
    assert drain(pair.read.fileno()) == list(range(count))
    assert drain(pair.read.fileno()) is None
    assert drain(pair.read.fileno()) is None


def test_a_closed_socket_says_so(drain: Drain, pair: SocketPair) -> None:
    pair.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        drain(pair.read.fileno())
