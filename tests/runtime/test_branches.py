"""One stream read several times in one process, driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.runtime.branches import Branches


def reading(branches: Branches, *names: str) -> list[Iterator[Any]]:
    return [branches.reader(name) for name in names]


class TestInOneThread:
    @given(st.lists(st.integers()), st.lists(st.integers(0, 2), max_size=60))
    def test_every_reader_gets_all_of_it_in_order(self, items: list[int], turns: list[int]) -> None:
        branches = Branches(iter(items), 3)
        readers = reading(branches, "a", "b", "c")
        got: list[list[int]] = [[], [], []]
        for turn in turns:
            got[turn] += [item for item in (next(readers[turn], None),) if item is not None]
        for one, reader in zip(got, readers, strict=True):
            one += reader
        assert got == [items] * 3

    def test_what_one_does_to_an_item_the_other_does_not_see(self) -> None:
        left, right = reading(Branches(iter([np.zeros(3), [1]]), 2), "l", "r")
        array, numbers = next(left), next(left)
        array += 1
        numbers.append(2)
        assert next(right).tolist() == [0, 0, 0]
        assert next(right) == [1]

    def test_nor_what_its_maker_does_to_it_later(self) -> None:
        def reusing() -> Iterator[Any]:
            buffer = np.zeros(1)
            for i in range(4):
                buffer[:] = i
                yield buffer

        left, right = reading(Branches(reusing(), 2), "l", "r")
        assert [float(x[0]) for x in left] == [0, 1, 2, 3]
        assert [float(x[0]) for x in right] == [0, 1, 2, 3]

    def test_a_reader_that_is_too_far_behind_is_named(self) -> None:
        left, right = reading(Branches(iter(range(99)), 2, capacity=5, name="decode"), "l", "r")
        assert [next(left) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(sp.BranchStalled, match="branch 'r' of 'decode' is not read: it is 5"):
            next(left)
        assert next(right) == 0
        assert next(left) == 5  # nothing was lost

    def test_a_reader_that_is_closed_holds_up_nobody(self) -> None:
        left, right = reading(Branches(iter(range(99)), 2, capacity=5), "l", "r")
        next(right)
        right.close()  # type: ignore[attr-defined]
        assert list(left) == list(range(99))

    def test_the_stream_is_closed_with_the_last(self) -> None:
        closed = []

        def stream() -> Iterator[int]:
            try:
                yield from range(9)
            finally:
                closed.append(True)

        left, right = reading(Branches(stream(), 2), "l", "r")
        next(left)
        left.close()  # type: ignore[attr-defined]
        assert not closed
        right.close()  # type: ignore[attr-defined]
        assert closed

    def test_what_the_stream_raises_comes_to_each_at_its_place(self) -> None:
        def stream() -> Iterator[int]:
            yield 1
            raise OSError("gone")

        left, right = reading(Branches(stream(), 2), "l", "r")
        for reader in (left, right):
            assert next(reader) == 1
            with pytest.raises(OSError, match="gone"):
                next(reader)

    def test_what_cannot_be_copied_is_said(self) -> None:
        left, _ = reading(Branches(iter([threading.Lock()]), 2), "l", "r")
        with pytest.raises(sp.NotPicklable, match="lock"):
            next(left)


class TestReadingAhead:
    def test_is_for_those_that_are_behind(self) -> None:
        branches = Branches(iter(range(9)), 3, capacity=5)
        left, right, gone = reading(branches, "l", "r", "g")
        next(left)
        gone.close()  # type: ignore[attr-defined]
        assert branches.read_ahead()
        assert not branches.over  # one is 5 behind
        assert not branches.read_ahead()
        assert [next(right) for _ in range(4)] == [0, 1, 2, 3]
        assert branches.read_ahead()
        assert [next(left) for _ in range(4)] == [1, 2, 3, 4]
        assert next(right) == 4
        assert branches.read_ahead()
        assert branches.over
        assert not branches.read_ahead()
        assert list(left) == [5, 6, 7, 8]
        assert list(right) == [5, 6, 7, 8]

    def test_what_the_stream_raises_comes_to_those(self) -> None:
        def stream() -> Iterator[int]:
            yield 1
            raise OSError("gone")

        branches = Branches(stream(), 2)
        left, right = reading(branches, "l", "r")
        assert branches.read_ahead()
        assert branches.over
        for reader in (left, right):
            assert next(reader) == 1
            with pytest.raises(OSError, match="gone"):
                next(reader)

    def test_a_run_that_was_shut_is_not_read_on(self) -> None:
        def stream() -> Iterator[int]:
            raise sp.BrokenChannel("shut")
            yield

        branches = Branches(stream(), 2)
        reading(branches, "l", "r")
        with pytest.raises(sp.BrokenChannel, match="shut"):
            branches.read_ahead()

    def test_while_another_one_reads(self) -> None:
        turns, begun, going_on = Patient(), threading.Event(), threading.Event()

        def stream() -> Iterator[int]:
            begun.set()
            assert going_on.wait(120)
            yield from range(4)

        branches = Branches(stream(), 2, turns=turns)
        left, right = reading(branches, "l", "r")
        got: list[int] = []
        first = threading.Thread(target=lambda: got.append(next(left)))
        first.start()
        assert begun.wait(120)
        done: list[bool] = []
        second = threading.Thread(target=lambda: done.append(branches.read_ahead()))
        second.start()
        going_on.set()
        first.join(120)
        second.join(120)
        assert (got, done) == ([0], [True])
        assert list(right) == [0, 1, 2, 3]
        assert list(left) == [1, 2, 3]


class Patient:
    """`Turns` of a test: waits until somebody says that nothing will change."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.vain = False
        self.leaving = False
        self.asked = threading.Event()

    def stuck(self, other: int, blocked: Callable[[], bool]) -> bool:
        self.asked.set()
        with self.changed:
            self.changed.wait_for(lambda: self.vain or self.leaving or not blocked())
            return self.vain and blocked() and not self.leaving

    def pressed(self) -> bool:
        return self.leaving

    def follow(self, puller: int, still: Callable[[], bool]) -> None:
        with self.changed:
            self.changed.wait_for(lambda: not still())

    def pull(self) -> int:
        return 0

    def pulled(self) -> None:
        pass


class TestInThreads:
    def test_the_fast_one_waits_for_the_slow_one(self) -> None:
        turns, got = Patient(), list[int]()
        left, right = reading(Branches(iter(range(50)), 2, capacity=3, turns=turns), "l", "r")
        thread = threading.Thread(target=lambda: got.extend(left))
        thread.start()
        assert turns.asked.wait(120)
        assert list(right) == list(range(50))
        thread.join(120)
        assert got == list(range(50))

    def test_in_vain_it_is_told(self) -> None:
        turns, caught = Patient(), list[BaseException]()
        left, _ = reading(Branches(iter(range(50)), 2, capacity=3, turns=turns), "l", "slow")

        def read() -> None:
            try:
                list(left)
            except sp.BranchStalled as error:
                caught.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        assert turns.asked.wait(120)
        with turns.changed:
            turns.vain = True
            turns.changed.notify_all()
        thread.join(120)
        assert "'slow'" in str(caught[0])

    def test_who_wants_to_leave_goes_beyond_what_is_kept(self) -> None:
        turns, got = Patient(), list[int]()
        left, right = reading(Branches(iter(range(50)), 2, capacity=3, turns=turns), "l", "r")
        thread = threading.Thread(target=lambda: got.extend(next(left) for _ in range(7)))
        thread.start()
        assert turns.asked.wait(120)
        with turns.changed:
            turns.leaving = True
            turns.changed.notify_all()
        thread.join(120)
        assert got == list(range(7))
        turns.leaving = False
        assert [next(right) for _ in range(7)] == got  # nothing was lost

    def test_many_threads_share_a_stream(self) -> None:
        branches = Branches(iter(range(2000)), 4, capacity=7, turns=Patient())
        got: list[list[int]] = [[] for _ in range(4)]
        readers = reading(branches, *"abcd")
        threads = [
            threading.Thread(target=one.extend, args=(reader,))
            for one, reader in zip(got, readers, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert got == [list(range(2000))] * 4
