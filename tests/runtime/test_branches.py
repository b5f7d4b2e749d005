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


class Patient:
    """`Turns` of a test: waits until somebody says that nothing will change."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.vain = False
        self.asked = threading.Event()

    def stuck(self, other: int, blocked: Callable[[], bool]) -> bool:
        self.asked.set()
        with self.changed:
            self.changed.wait_for(lambda: self.vain or not blocked())
            return self.vain and blocked()

    def wait(self, still: Callable[[], bool], others: tuple[int, ...]) -> None:
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
        assert turns.asked.wait(10)
        assert list(right) == list(range(50))
        thread.join(10)
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
        assert turns.asked.wait(10)
        with turns.changed:
            turns.vain = True
            turns.changed.notify_all()
        thread.join(10)
        assert "'slow'" in str(caught[0])

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
            thread.join(30)
        assert got == [list(range(2000))] * 4
