"""Weak references that tell of an array's end: what is sent, and what they never swallow."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import weakref
from collections.abc import Iterator
from functools import partial
from operator import methodcaller
from types import FrameType

import numpy as np
import pytest

from splitpipe.transport.arena import ArenaLink
from splitpipe.transport.lease import leasing, returning, stop_leasing
from splitpipe.transport.slot import Bounds
from splitpipe.transport.sockets import SocketPair


class Left(BaseException):
    """What a signal's handler raises."""


@pytest.fixture
def pair() -> Iterator[SocketPair]:
    made = SocketPair()
    yield made
    made.close()


def nothing_came(pair: SocketPair) -> bool:
    try:
        pair.read.recv(99, 0x40)  # MSG_DONTWAIT
    except BlockingIOError:
        return True
    return False


def test_each_reference_sends_its_own(pair: SocketPair) -> None:
    kind = leasing(pair.write)
    arrays = [np.zeros(3, np.uint8) for _ in range(3)]
    kept = [kind(array, returning(b"%d" % n)) for n, array in enumerate(arrays)]
    for n in (1, 0, 2):
        arrays[n] = np.zeros(1, np.uint8)
        assert pair.read.recv(99) == b"%d" % n
    assert all(reference() is None for reference in kept)


def test_after_the_end_nothing_is_sent(pair: SocketPair) -> None:
    array = np.zeros(1)
    kept = leasing(pair.write)(array, returning(b"one"))
    stop_leasing(pair.write)
    stop_leasing(pair.write)
    del array
    assert kept() is None
    assert nothing_came(pair)


def test_the_number_of_a_closed_socket_is_never_used(pair: SocketPair) -> None:
    """Arrays outlive a run: what they would send must not reach the next one."""
    first = ArenaLink(Bounds(1 << 20, 4, 2))
    arena, view = first.writer(), first.reader()
    slot = arena.acquire(1 << 12)
    assert slot is not None
    array = view.lease(arena.send(slot))
    used = first._returns.write.fileno()
    first.shut()
    arena.close()
    first.close()  # as a run does that ends: its view is not asked
    os.dup2(pair.write.fileno(), used)
    try:
        del array
        assert nothing_came(pair)
    finally:
        os.close(used)


def test_a_reader_that_is_gone_is_no_error(pair: SocketPair) -> None:
    kind = leasing(pair.write)
    array = np.zeros(1)
    kept = kind(array, returning(b"one"))
    pair.shut()
    refused: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, refused.append
    try:
        del array
    finally:
        sys.unraisablehook = hook
    assert refused == []
    assert kept() is None


def test_a_fork_returns_nothing(pair: SocketPair) -> None:
    kind = leasing(pair.write)
    array = np.zeros(1)
    kept = kind(array, returning(b"one"))
    child = os.fork()
    if child == 0:
        del array
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert nothing_came(pair)
    del array
    assert pair.read.recv(99) == b"one"
    del kept


@pytest.mark.parametrize("killed_first", [True, False])
def test_what_a_signal_raises_is_raised(pair: SocketPair, killed_first: bool) -> None:
    """The signal comes while the array goes: from another callback, which is no Python either."""
    kill = ctypes.PyDLL(None).kill

    class Killing(weakref.ref[object]):
        go = partial(kill, os.getpid(), signal.SIGUSR1)

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise Left

    kind = leasing(pair.write)
    holding = [np.zeros(1)]
    before = signal.signal(signal.SIGUSR1, leave)
    try:
        # Of several callbacks the latest is called first.
        kept: list[weakref.ref[object]] = [kind(holding[0], returning(b"one"))]
        kept.append(Killing(holding[0], methodcaller("go")))
        if not killed_first:
            kept[0] = kind(holding[0], returning(b"one"))
        with pytest.raises(Left):
            holding.clear()  # and signals are looked at after a call
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pair.read.recv(99) == b"one"
