"""Threads that fetch: bounded, in order, and gone when they are not needed."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import CancelledError

import pytest

from splitpipe.raw.pool import Pool

DEADLINE_S = 20.0


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("splitpipe-fetch")]


def test_no_thread_without_work() -> None:
    pool = Pool(4)
    assert alive() == []
    assert pool.submit(pow, 2, 3).result(DEADLINE_S) == 8
    for _ in range(20):
        pool.submit(pow, 2, 3).result(DEADLINE_S)
    assert len(alive()) <= 2  # the one that was free, or was about to be
    pool.close()
    assert alive() == []


def test_as_many_as_there_is_work_for_and_no_more() -> None:
    pool = Pool(3)
    gate, ready = threading.Event(), threading.Semaphore(0)

    def work() -> int:
        ready.release()
        assert gate.wait(DEADLINE_S)
        return 1

    tasks = [pool.submit(work) for _ in range(10)]
    for _ in range(3):
        assert ready.acquire(timeout=DEADLINE_S)
    assert len(alive()) == 3
    assert not ready.acquire(blocking=False)
    gate.set()
    assert sum(task.result(DEADLINE_S) for task in tasks) == 10
    pool.close()


def test_what_fails_is_told_and_what_is_cancelled_is_not_done() -> None:
    pool = Pool(1)
    gate = threading.Event()
    first = pool.submit(gate.wait, DEADLINE_S)
    done: list[int] = []
    second, third = pool.submit(done.append, 2), pool.submit(done.append, 3)
    broken = pool.submit(int, "x")
    assert second.cancel()
    gate.set()
    assert first.result(DEADLINE_S)
    third.result(DEADLINE_S)
    assert done == [3]
    with pytest.raises(CancelledError):
        second.result(DEADLINE_S)
    with pytest.raises(ValueError, match="x"):
        broken.result(DEADLINE_S)
    pool.close()


def test_closing_does_what_was_given_and_begins_anew() -> None:
    pool = Pool(2)
    tasks = [pool.submit(pow, n, 2) for n in range(50)]
    pool.close()
    assert [task.result(DEADLINE_S) for task in tasks] == [n * n for n in range(50)]
    assert pool.submit(pow, 3, 2).result(DEADLINE_S) == 9
    pool.close()
    pool.close()
    assert alive() == []


def test_who_is_forgotten_leaves_no_threads() -> None:
    pool = Pool(2)
    pool.submit(pow, 3, 2).result(DEADLINE_S)
    threads = [t for t in threading.enumerate() if t.name.startswith("splitpipe-fetch")]
    del pool
    gc.collect()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert alive() == []


def test_closing_waits_for_nobody_who_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpipe.raw.pool._CLOSING_S", 0.05)
    pool = Pool(1)
    gate = threading.Event()
    task = pool.submit(gate.wait, DEADLINE_S)
    pool.close()
    assert not task.done()
    gate.set()
    assert task.result(DEADLINE_S)


def test_many_threads_submit_while_others_close() -> None:
    pool = Pool(3)
    sums: list[int] = []

    def ask() -> None:
        tasks = [pool.submit(pow, n, 1) for n in range(200)]
        sums.append(sum(task.result(DEADLINE_S) for task in tasks))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for _ in range(30):
        pool.close()
    for asker in askers:
        asker.join(DEADLINE_S)
    pool.close()
    assert sums == [sum(range(200))] * 4
    assert alive() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    pool = Pool(2)
    pool.submit(pow, 2, 2).result(DEADLINE_S)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  the child
        os.write(writer, b"%d" % pool.submit(pow, 5, 2).result(DEADLINE_S))
        pool.close()
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"25"
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.submit(pow, 6, 2).result(DEADLINE_S) == 36
    pool.close()
