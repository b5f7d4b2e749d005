"""A cache in several processes: forked, killed, and each with its own limit."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from splitpipe.cache import BlockCache
from splitpipe.errors import StorageError
from splitpipe.testing.faults import forked, run_in_child
from tests.cache.sources import CountingStore, noise

BLOCK = 4096
MB = 1 << 20


def test_a_forked_child_has_locks_of_its_own(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(16 * BLOCK))
    with (
        BlockCache(tmp_path, 2 * MB) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        file.ensure([(0, BLOCK)])
        data = store._objects["a"][0]
        store.gate.clear()
        thread = threading.Thread(target=file.ensure, args=([(4 * BLOCK, 5 * BLOCK)],))
        thread.start()
        store.wait_for_reads(2)

        def child() -> None:
            store.gate = threading.Event()
            store.gate.set()
            assert cache.statistics().requests == 1
            assert file.read(0, BLOCK) == data[:BLOCK]
            assert file.ensure([(8 * BLOCK, 9 * BLOCK)]).still_valid()
            # The parent's thread is at this one, and goes on to be.
            assert not file._opened._locks.try_lock(4)
            assert cache._space.account._living(cache._space.account.state)

        assert run_in_child(child) == 0
        store.gate.set()
        thread.join(120)
        assert file.marks[4]
        assert file.marks[8]
        assert cache.statistics().reserved_nbytes == 0


def test_a_child_does_not_hold_what_its_killed_parent_held(tmp_path: Path) -> None:
    """Locks belong to open files, which a fork shares: the child has to let go of them at once."""
    store = CountingStore()
    store.write("a", noise(4 * BLOCK))
    receive, send = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            cache = BlockCache(tmp_path, 2 * MB)
            file = cache.open(store, "a", block_nbytes=BLOCK)
            store.gate.clear()
            threading.Thread(target=file.ensure, args=([(0, 1)],), daemon=True).start()
            assert store.asked.wait(120)
            child = os.fork()
            if child:
                os.write(send, b"%d\n" % child)
            signal.pause()
        finally:
            os._exit(1)
    child = int(os.read(receive, 100))
    try:
        with (
            BlockCache(tmp_path, 2 * MB) as cache,
            cache.open(store, "a", block_nbytes=BLOCK) as file,
        ):
            assert not file._opened._locks.try_lock(0)
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            assert file.ensure([(0, 1)]).still_valid()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(receive)
        os.close(send)


def test_the_smallest_limit_of_the_living_holds(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(8 * MB))
    with BlockCache(tmp_path, 6 * MB) as large, large.open(store, "a") as file:
        file.ensure([(0, 5 * MB)])
        with BlockCache(tmp_path, 2 * MB) as small:
            assert small.statistics().used_nbytes <= 2 * MB
            assert large.statistics().limit_nbytes == 2 * MB
            file.read(0, file.size)
            assert large.statistics().used_nbytes <= 2 * MB
        assert large.statistics().limit_nbytes == 6 * MB
        file.ensure([(0, 5 * MB)])
        assert large.statistics().used_nbytes > 5 * MB


def test_the_dead_hold_no_limit_and_no_room(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(4 * MB))

    def reader(tell: Callable[[], None]) -> None:
        cache = BlockCache(tmp_path, 2 * MB)
        file = cache.open(store, "a")
        store.gate.clear()
        threading.Thread(target=file.ensure, args=([(0, MB)],), daemon=True).start()
        assert store.asked.wait(120)
        tell()
        signal.pause()

    with forked(reader) as child:
        child.listen(messages=1)
        with BlockCache(tmp_path, 6 * MB) as cache:
            assert cache.statistics().limit_nbytes == 2 * MB
            assert cache.statistics().reserved_nbytes > 0
            assert cache.statistics().processes == 2
            child.kill()
            cache._space.look_around()
            statistics = cache.statistics()
            assert statistics.limit_nbytes == 6 * MB
            assert statistics.reserved_nbytes == 0
            assert statistics.processes == 1


def _fetch(cache: BlockCache, store: CountingStore, start: object, wrong: object) -> None:
    start.wait(30)  # type: ignore[attr-defined]
    with cache.open(store, "a", block_nbytes=BLOCK) as file:
        if file.read(0, file.size) != noise(64 * BLOCK):
            wrong.set()  # type: ignore[attr-defined]
    cache.close()


@pytest.mark.deadline(120)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_fetch_each_block_once(tmp_path: Path, method: str) -> None:
    store = _Picklable("memory://bucket/", str(tmp_path / "log"))
    store.write("a", noise(64 * BLOCK))
    context = multiprocessing.get_context(method)
    start, wrong = context.Event(), context.Event()
    with BlockCache(tmp_path / "cache", 2 * MB) as cache:
        processes = [
            context.Process(target=_fetch, args=(cache, store, start, wrong)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        start.set()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
    assert not wrong.is_set()
    lines = (tmp_path / "log").read_text().splitlines()
    ranges = [tuple(map(int, line.split()[1:3])) for line in lines]
    assert sum(stop - begin for begin, stop in ranges) == 64 * BLOCK


class _Picklable(CountingStore):
    def __reduce__(self) -> tuple[object, ...]:
        return _filled, (self.url, self.log)


def _filled(url: str, log: str) -> _Picklable:
    store = _Picklable(url, log)
    store.write("a", noise(64 * BLOCK))
    return store


def test_a_waiter_takes_over_from_the_dead(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(4 * BLOCK))

    def fetcher(tell: Callable[[], None]) -> None:
        cache = BlockCache(tmp_path, 2 * MB)
        file = cache.open(store, "a", block_nbytes=BLOCK)
        store.gate.clear()
        threading.Thread(target=file.ensure, args=([(0, file.size)],), daemon=True).start()
        assert store.asked.wait(120)
        tell()
        signal.pause()

    with (
        BlockCache(tmp_path, 2 * MB) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
        forked(fetcher) as child,
    ):
        child.listen(messages=1)
        done, pause = [], threading.Event()
        thread = threading.Thread(target=lambda: done.append(file.ensure([(0, file.size)])))
        thread.start()
        while not cache.statistics().waits:
            pause.wait(0.001)
        assert not done
        child.kill()
        thread.join(120)
        assert done[0].still_valid()
        assert len(store.reads) == 1


def test_a_folder_that_is_removed_in_use_is_told(tmp_path: Path) -> None:
    import shutil

    store = CountingStore()
    store.write("a", noise(4 * BLOCK))
    with BlockCache(tmp_path / "c", 2 * MB) as cache:
        file = cache.open(store, "a", block_nbytes=BLOCK)
        file.ensure([(0, 1)])
        shutil.rmtree(tmp_path / "c")
        assert file.ensure([(0, 1)]).still_valid()  # it is still there for who has it open
        with pytest.raises(StorageError, match="removed while it is in use"):
            file.ensure([(BLOCK, 2 * BLOCK)])
        with pytest.raises(StorageError, match="removed while it is in use"):
            cache.open(store, "a")
    assert not (tmp_path / "c").exists()


def test_a_file_pickles_into_another_process(tmp_path: Path) -> None:
    store = _Picklable("memory://bucket/", str(tmp_path / "log"))
    store.write("a", noise(64 * BLOCK))
    with BlockCache(tmp_path / "c", 2 * MB) as cache:
        file = cache.open(store, "a", block_nbytes=BLOCK)
        file.ensure([(0, file.size)])
        again = pickle.loads(pickle.dumps(file))
        assert again.path == file.path
        assert again.marks.all()
        again._cache.close()
