"""Slots of shared memory by hand: who has them, when they come back, and when there are none."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from splitpipe.errors import BrokenChannel
from splitpipe.transport.arena import Arena, ArenaLink, ArenaView
from splitpipe.transport.slot import Bounds, Segment

MB = 1 << 20


class Pair:
    """An arena and one reader of it, in one process."""

    def __init__(self, *, limit: int = 64 * MB, slots: int = 4, lease_limit: int = 2) -> None:
        self.link = ArenaLink(Bounds(limit, slots, lease_limit))
        self.arena: Arena = self.link.writer()
        self.view: ArenaView = self.link.reader()

    def send(self, value: int, nbytes: int = MB) -> Segment:
        slot = self.arena.acquire(nbytes)
        assert slot is not None
        array = slot.array[slot.take(nbytes) :][:nbytes]
        assert array is not None
        array[:] = value
        self.offset = slot.place(array) or 0
        del array
        return self.arena.send(slot)

    def lease(self, value: int, nbytes: int = MB) -> Any:
        """Send, and return what the reader gets."""
        segment = self.send(value, nbytes)
        return self.view.lease(segment)[self.offset : self.offset + nbytes]


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(**options: Any) -> Pair:
        made.append(Pair(**options))
        return made[-1]

    yield make
    for one in made:
        one.arena.close()
        one.view.close()
        one.link.close()


def test_a_slot_comes_back_with_its_last_view(pair: Callable[..., Pair]) -> None:
    p = pair(slots=1)
    lease = p.lease(7)
    part = lease[10:20]
    assert p.view.leases == 1
    del lease
    assert p.arena.acquire(MB, wait=False) is None
    assert part.tolist() == [7] * 10
    del part
    assert p.view.leases == 0
    assert p.arena.acquire(MB, wait=False) is not None


def test_the_lowest_free_slot_is_used_first(pair: Callable[..., Pair]) -> None:
    p = pair()
    segments = [p.send(i) for i in range(3)]
    for segment in reversed(segments):
        p.view.release(segment)
    assert [p.send(9).number for _ in range(4)] == [0, 1, 2, 3]


def test_what_the_reader_writes_it_reads(pair: Callable[..., Pair]) -> None:
    p = pair()
    lease = p.lease(1)
    lease += 1
    assert int(lease.max()) == int(lease.min()) == 2


class TestWarm:
    """A producer that may wait gets few large slots, and its reader may keep fewer."""

    @pytest.fixture
    def ends(self) -> Iterator[tuple[Arena, ArenaView]]:
        link = ArenaLink(Bounds(256 * MB, 20, 18, warm=32 * MB))
        arena, view = link.writer(), link.reader()
        yield arena, view
        for one in (arena, view, link):
            one.close()

    def test_large_ones(self, ends: tuple[Arena, ArenaView]) -> None:
        arena, view = ends
        segments = []
        while (slot := arena.acquire(15 * MB, wait=False)) is not None:
            segments.append(arena.send(slot))
        assert len(segments) == 4
        kept = [view.lease(segment) for segment in segments]
        assert (view.leases, view.copies) == (2, 2)
        del kept
        assert arena.acquire(15 * MB, wait=False) is not None

    def test_small_ones(self, ends: tuple[Arena, ArenaView]) -> None:
        arena, view = ends
        segments = []
        while (slot := arena.acquire(MB // 4, wait=False)) is not None:
            segments.append(arena.send(slot))
        assert len(segments) == 20
        kept = [view.lease(segment) for segment in segments]
        assert (view.leases, view.copies, len(kept)) == (18, 2, 20)


def test_beyond_its_limit_a_reader_gets_copies(pair: Callable[..., Pair]) -> None:
    p = pair(slots=4, lease_limit=2)
    kept = [p.lease(i) for i in range(10)]
    assert p.view.leases == 2
    assert p.view.copies == 8
    assert [int(one[-1]) for one in kept] == list(range(10))


def test_copies_are_warned_of_once() -> None:
    link = ArenaLink(Bounds(64 * MB, 4, 1))
    p = Pair()
    p.link.close()
    p.arena.close()
    p.view.close()
    p.link, p.arena, p.view = link, link.writer(), link.reader(warn=True)
    with pytest.warns(RuntimeWarning, match="being kept") as caught:
        kept = [p.lease(i) for i in range(5)]
    assert len(caught) == 1
    assert len(kept) == 5
    p.arena.close()
    p.view.close()
    link.close()


class TestPinned:
    """Slots whose arrays the producer's own code still holds."""

    def test_are_not_used_again(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=3)
        slot = p.arena.acquire(MB)
        assert slot is not None
        mine = slot.array[slot.take(MB) :][:MB]
        assert mine is not None
        mine[:] = 5
        p.view.release(p.arena.send(slot))
        for _ in range(6):
            p.view.release(p.send(9))
        assert int(mine.max()) == int(mine.min()) == 5
        index = slot.index
        del mine
        assert p.send(1).number == index

    def test_are_not_waited_for(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=2)
        kept = []
        for _ in range(2):
            slot = p.arena.acquire(MB)
            assert slot is not None
            kept.append(slot.array[slot.take(MB) :][:MB])
            p.view.release(p.arena.send(slot))
        assert p.arena.acquire(MB) is None


class TestWaiting:
    def test_ends_when_a_slot_comes_back(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=1)
        segment = p.send(1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(p.arena.acquire, MB)
            p.view.release(segment)
            assert waiting.result(10) is not None

    def test_ends_when_the_reader_waits_for_us(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=1)
        lease = p.lease(1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(p.arena.acquire, MB)
            p.view.keep()
            assert waiting.result(10) is None
        assert lease[0] == 1

    def test_a_kept_slot_is_used_again_once_it_is_back(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=1)
        lease = p.lease(1)
        p.view.keep()
        p.view.keep()
        assert p.arena.acquire(MB) is None
        del lease
        segment = p.send(2)
        with ThreadPoolExecutor(1) as pool:  # and is waited for again
            waiting = pool.submit(p.arena.acquire, MB)
            p.view.release(segment)
            assert waiting.result(10) is not None

    def test_ends_when_the_run_is_shut(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=1)
        p.send(1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(p.arena.acquire, MB)
            p.link.shut()
            with pytest.raises(BrokenChannel):
                waiting.result(10)

    def test_never_begins_for_what_can_never_fit(self, pair: Callable[..., Pair]) -> None:
        p = pair(limit=2 * MB)
        p.send(1)
        assert p.arena.acquire(3 * MB) is None
        assert p.arena.statistics().refused == 1


class TestLimit:
    def test_is_held(self, pair: Callable[..., Pair]) -> None:
        p = pair(limit=5 * MB, slots=100)
        sent = []
        while (slot := p.arena.acquire(MB, wait=False)) is not None:
            sent.append(p.arena.send(slot))
        assert 2 <= len(sent) <= 5
        assert p.arena.statistics().nbytes <= 5 * MB

    def test_holds_while_slots_are_replaced(self, pair: Callable[..., Pair]) -> None:
        p = pair(limit=6 * MB, slots=3)
        for nbytes in (1000, MB, 3 * MB, 5 * MB, 10, 4 * MB, 2 * MB):
            lease = p.lease(3, nbytes)
            assert lease.nbytes == nbytes
            assert (lease == 3).all()
            del lease
            gc.collect()
            found = p.arena.statistics()
            assert found.nbytes <= 6 * MB
            assert found.slots <= 3

    def test_small_slots_make_room_for_a_large_one(self, pair: Callable[..., Pair]) -> None:
        p = pair(limit=8 * MB, slots=3)
        for segment in [p.send(i) for i in range(3)]:
            p.view.release(segment)
        assert (p.lease(9, 6 * MB) == 9).all()

    def test_a_cancelled_slot_is_free(self, pair: Callable[..., Pair]) -> None:
        p = pair(slots=1)
        slot = p.arena.acquire(MB)
        assert slot is not None
        p.arena.cancel(slot)
        assert p.arena.acquire(MB, wait=False) is not None


class TestNoMemory:
    def test_is_told_and_asked_for_again_later(
        self, pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(fd: int, offset: int, nbytes: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        p = pair()
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            assert p.arena.acquire(MB) is None
            assert p.arena.statistics().refused == 1
        assert p.arena.acquire(MB) is not None


def test_a_fork_of_the_reader_returns_nothing(pair: Callable[..., Pair]) -> None:
    p = pair(slots=1)
    lease = p.lease(4)
    child = os.fork()
    if child == 0:
        del lease
        os._exit(0)
    os.waitpid(child, 0)
    assert p.arena.acquire(MB, wait=False) is None
    assert lease[0] == 4


def test_arrays_outlive_everything(pair: Callable[..., Pair]) -> None:
    p = pair()
    lease = p.lease(6)
    p.arena.close()
    p.view.close()
    p.link.close()
    assert np.array_equal(lease, np.full(MB, 6, np.uint8))
