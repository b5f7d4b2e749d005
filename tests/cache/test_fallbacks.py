"""Where the system lacks something: locks on bytes, holes in files."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from splitpipe.cache import BlockCache, check_cache, files, folder
from splitpipe.cache.locks import LIFE, LockFile, Locks
from splitpipe.cache.stripes import StripedLocks
from splitpipe.testing.faults import forked, run_in_child
from tests.cache.sources import CountingStore, noise

BLOCK = 1 << 16
MB = 1 << 20

Maker = Callable[[], Locks]


@pytest.fixture(params=["bytes", "stripes"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Locks on one file, each time through another open file."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    made: list[Locks] = []

    def make() -> Locks:
        locks: Locks
        if request.param == "bytes":
            locks = LockFile(str(path))
        else:
            locks = StripedLocks(str(path), str(tmp_path / "locks"), life=LIFE)
        made.append(locks)
        return locks

    yield make
    for locks in made:
        locks.close()
        locks.close()


class TestLocks:
    def test_a_byte_has_one_owner(self, make: Maker) -> None:
        one, other = make(), make()
        assert one.try_lock(5)
        assert not other.try_lock(5)
        assert not other.try_lock(3, 4)
        assert other.is_locked(5)
        assert other.try_lock(3)
        one.unlock(5)
        assert other.try_lock(5)

    def test_what_could_not_be_taken_whole_is_not_held(self, make: Maker) -> None:
        one, other = make(), make()
        assert one.try_lock(5)
        assert not other.try_lock(0, 10)
        assert one.try_lock(0, 5)

    def test_closing_lets_go(self, make: Maker) -> None:
        one, other = make(), make()
        assert one.try_lock(0, 100)
        one.close()
        assert other.try_lock(50)

    def test_a_life_may_be_shared(self, make: Maker) -> None:
        one, other, third = make(), make(), make()
        assert one.try_lock(LIFE, shared=True)
        assert other.try_lock(LIFE, shared=True)
        assert not third.try_lock(LIFE)
        one.close()
        assert not third.try_lock(LIFE)
        other.close()
        assert third.try_lock(LIFE)
        assert not make().try_lock(LIFE, shared=True)

    def test_the_dead_hold_nothing(self, make: Maker) -> None:
        def hold(tell: Callable[[], None]) -> None:
            assert make().try_lock(3, 5)
            tell()
            signal.pause()

        locks = make()
        with forked(hold) as child:
            child.listen(messages=1)
            assert not locks.try_lock(7)
            assert locks.is_locked(7)
            child.kill()
            assert not locks.is_locked(7)
            assert locks.try_lock(7)

    def test_a_renewed_child_holds_nothing_and_takes_nothing_away(self, make: Maker) -> None:
        locks = make()
        assert locks.try_lock(1)
        assert locks.try_lock(LIFE, shared=True)

        def child() -> None:
            locks.renew(shared=LIFE)
            assert not locks.try_lock(1)
            assert locks.try_lock(2)
            locks.close()

        assert run_in_child(child) == 0
        assert not make().try_lock(1)
        assert not make().try_lock(LIFE)
        assert make().try_lock(2)

    def test_a_lock_is_waited_for(self, make: Maker) -> None:
        one, other = make(), make()
        assert one.try_lock(1)
        thread = threading.Thread(target=other.lock, args=(1,))
        thread.start()
        one.unlock(1)
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(params=["stripes", "no holes", "neither"])
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "no holes":
        monkeypatch.setattr(folder, "has_byte_locks", lambda path: False)
    if request.param != "stripes":
        monkeypatch.setattr(files, "punch_hole", lambda *_: False)
    return str(request.param)


def test_a_cache_works_without(tmp_path: Path, lacking: str) -> None:
    store = CountingStore()
    for i in range(12):
        store.write(f"o{i}", noise(4 * BLOCK, i))
    with BlockCache(tmp_path, MB, requests=2) as cache:
        assert os.path.isdir(tmp_path / "locks") == (lacking != "no holes")
        for _ in range(3):
            for i in range(12):
                with cache.open(store, f"o{i}", block_nbytes=BLOCK) as file:
                    assert file.read(5, file.size) == noise(4 * BLOCK, i)[5:]
        on_disk = sum(p.stat().st_blocks for p in (tmp_path / "objects").rglob("*")) * 512
        assert on_disk <= MB + 4 * BLOCK
        statistics = cache.statistics()
        assert statistics.used_nbytes <= MB
        assert statistics.evicted_nbytes > 4 * MB
    assert check_cache(tmp_path).ok


def test_processes_work_without(tmp_path: Path, lacking: str) -> None:
    store = CountingStore(log=str(tmp_path / "log"))
    store.write("a", noise(8 * BLOCK))

    def child(tell: Callable[[], None]) -> None:
        with BlockCache(tmp_path / "c", 2 * MB) as cache:
            file = cache.open(store, "a", block_nbytes=BLOCK)
            tell()
            assert file.read(0, file.size) == noise(8 * BLOCK)

    with forked(child) as one, forked(child) as other, forked(child) as third:
        for process in (one, other, third):
            assert process.wait() == 0
    ranges = [
        tuple(map(int, line.split()[1:3])) for line in (tmp_path / "log").read_text().splitlines()
    ]
    assert sum(stop - start for start, stop in ranges) == 8 * BLOCK


def test_without_holes_what_is_open_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "punch_hole", lambda *_: False)
    store = CountingStore()
    store.write("a", noise(16 * BLOCK))
    store.write("b", noise(16 * BLOCK))
    with BlockCache(tmp_path, MB) as cache:
        file = cache.open(store, "a", block_nbytes=BLOCK)
        file.ensure([(0, 12 * BLOCK)])
        with cache.open(store, "b", block_nbytes=BLOCK) as other:
            assert other.read(0, other.size) == noise(16 * BLOCK)
            assert np.count_nonzero(file.marks) == 12
            file.close()
            assert other.ensure([(0, 8 * BLOCK)]).still_valid()
        assert check_cache(tmp_path).ok
