"""Branches whose readers leave early, are an epoch apart, or do not read at all while much is under
way: what inline allows is never an error, and what is one is never a wait for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import splitpipe as sp

pytestmark = pytest.mark.deadline(60)

CUTS: dict[str, dict[str, Any]] = {
    "inline": {"executor": "inline"},
    "fork": {"start_method": "fork"},
    "zmq": {"start_method": "fork", "transport": "zmq"},
    "thread": {"executor": "thread"},
}


def inc(x: int) -> int:
    return x + 1


def tag(x: Any) -> Any:
    return ("tag", x)


def first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == count:
            return
        yield item


def count_to(n: int) -> Callable[[], Iterator[int]]:
    return lambda: iter(range(n))


class Reading:
    """Reads a loader by epochs, as far in each of them as it is told."""

    def __init__(self, loader: sp.Loader) -> None:
        self.got: list[list[Any]] = []
        self._epochs = loader.by_epoch()
        self._items: Iterator[Any] = iter(())

    def begin(self) -> None:
        """Go on to the next epoch, whatever is left of this one."""
        self._items = next(self._epochs)
        self.got.append([])

    def read(self, count: int | None = None) -> None:
        """Read `count` items, or all."""
        while count is None or count > 0:
            item = next(self._items, self)
            if item is self:
                return
            self.got[-1].append(item)
            count = None if count is None else count - 1


def compare(
    described: dict[str, sp.Pipeline], act: Callable[..., None], cut: str, **options: Any
) -> dict[str, list[list[Any]]]:
    """Let `act` read the outputs in one way and inline, and compare what it read."""
    found = []
    for one in (CUTS[cut], CUTS["inline"]):
        loaders = sp.run(described, **one, **options)
        readings = {name: Reading(loader) for name, loader in loaders.items()}
        try:
            act(**readings)
        finally:
            for loader in loaders.values():
                loader.close()
        found.append({name: reading.got for name, reading in readings.items()})
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("cut", CUTS)
class TestAnEpochApart:
    """One reader is in its next epoch before another one has begun."""

    def shared(self, capacity: int | None = None) -> sp.Pipeline:
        """Read by two, and its input comes from another process."""
        source = sp.Pipeline(count_to(500)).map(inc, workers=1, name="far")
        return source.through(first, 11, workers=1, capacity=capacity)

    def test_a_shared_stream_that_ends_before_its_input(self, cut: str) -> None:
        p = self.shared()

        def act(a: Reading, b: Reading) -> None:
            a.begin()
            a.read()
            a.begin()
            a.read(4)
            b.begin()
            b.read()
            a.read()
            b.begin()
            b.read()

        got = compare({"a": p, "b": p.map(tag)}, act, cut, epochs=2)
        assert got["a"] == [list(range(1, 12))] * 2

    def test_one_that_ends_before_what_it_shares(self, cut: str) -> None:
        p = sp.Pipeline(count_to(500)).map(inc, workers=1).map(inc, workers=1)
        few, more = p.take(5), p.take(300)

        def act(few: Reading, more: Reading) -> None:
            for _ in range(2):
                few.begin()
                few.read()
            more.begin()
            more.read(290)
            few.begin()
            more.read()
            few.read()
            for _ in range(2):
                more.begin()
                more.read()

        # Each rides along where the stream is shared.
        got = compare({"few": few, "more": more}, act, cut, epochs=3)
        assert got["few"] == [[2, 3, 4, 5, 6]] * 3

    def test_of_several_inputs(self, cut: str) -> None:
        left = sp.Pipeline(count_to(40)).map(inc, workers=1, name="left")
        right = sp.Pipeline(count_to(40)).map(tag, workers=1, name="right")
        both = sp.zip(left, right, workers=1).map(tag)
        described = {"a": both, "b": both.take(3), "c": both.through(first, 30)}

        def act(a: Reading, b: Reading, c: Reading) -> None:
            b.begin()
            b.read()
            b.begin()
            c.begin()
            c.read(20)
            b.read()
            a.begin()
            a.read()
            c.read()
            for one in (a, c):
                one.begin()
                one.read()

        compare(described, act, cut, epochs=2)

    def test_beyond_what_is_kept_it_is_named(self, cut: str) -> None:
        if cut == "inline":
            pytest.skip("it opens its source anew for every epoch, and need not keep anything")
        p = sp.Pipeline(count_to(5000)).map(inc, workers=1).through(first, 4000, workers=1)
        loaders = sp.run({"a": p.take(5), "b": p}, **CUTS[cut], epochs=2)
        said = "'b' is not read: it is still in epoch 0"
        with loaders["a"], loaders["b"], pytest.raises(sp.BranchStalled, match=said):
            list(loaders["a"])


@pytest.mark.parametrize("cut", CUTS)
class TestLeftEarly:
    @pytest.mark.parametrize("read", [1, 3])
    def test_nested_streams(self, cut: str, read: int) -> None:
        """Who has left is in the middle of making what the others read, too, and what it needs for
        that waits for a branch that is not read now.
        """
        p, c = sp.Pipeline(count_to(60)).map(inc, workers=1).tee(capacity=3)
        q = p.map(tag)
        described = {"a": q, "b": q.map(tag), "c": c}

        def act(a: Reading, b: Reading, c: Reading) -> None:
            for _ in range(2):
                for one in (a, b, c):
                    one.begin()
                a.read(read)
                a.begin()  # and not the rest of this one
                for _ in range(60):
                    b.read(1)
                    c.read(1)
                for one in (b, c):
                    one.begin()
                for _ in range(60):
                    for one in (a, b, c):
                        one.read(1)

        got = compare(described, act, cut, epochs=4, prefetch=2)
        assert [len(epoch) for epoch in got["a"]] == [read, 60, read, 60]

    def test_and_it_makes_much_for_the_others(self, cut: str) -> None:
        p, d = sp.Pipeline(count_to(200)).map(inc, workers=1).tee(capacity=2)
        q = p.batch(4, collate=list)
        described = {"a": q, "b": q.map(tag), "c": q.through(first, 3), "d": d}

        def act(a: Reading, b: Reading, c: Reading, d: Reading) -> None:
            for one in (a, b, c, d):
                one.begin()
            d.read(2)
            a.read(1)
            a.begin()  # the next batch needs two items more than may be kept for d
            b.read(1)
            for _ in range(49):
                d.read(4)
                b.read(1)
            d.read()
            for one in (b, c, d):
                one.begin()
            d.read(2)
            for _ in range(50):
                for one in (a, b, c):
                    one.read(1)
                d.read(4)

        got = compare(described, act, cut, epochs=2, prefetch=2)
        assert [len(epoch) for epoch in got["a"]] == [1, 50]
        assert [len(epoch) for epoch in got["d"]] == [200, 200]


def slow_bytes(x: int) -> bytes:
    threading.Event().wait(0.002)  # so slow that each travels alone
    return bytes([x % 251]) * 60_000


@pytest.mark.parametrize("transport", ["pipe", "zmq", "zmq+tcp"])
class TestAFullChannel:
    """A writer that has credits left and no room: few messages, but large ones."""

    def run(self, transport: str) -> dict[str, sp.Loader]:
        a, b = sp.Pipeline(count_to(400)).map(slow_bytes).tee(capacity=60)
        described = {"a": a.map(len, workers=1), "b": b}
        options: dict[str, Any] = {"transport": transport, "prefetch": 200, "arena_bytes": 0}
        return sp.run(described, start_method="fork", **options)

    def test_who_does_not_read_is_named(self, transport: str) -> None:
        loaders = self.run(transport)
        said = "branch 'b' of 'tee' is not read"
        assert len(next(loaders["b"])) == 60_000  # from now on there are credits
        with loaders["a"], loaders["b"], pytest.raises(sp.BranchStalled, match=said):
            list(loaders["a"])

    def test_who_is_closed_holds_up_nobody(self, transport: str) -> None:
        loaders = self.run(transport)
        assert len(next(loaders["b"])) == 60_000
        with loaders["a"] as a:
            for _ in range(60):
                assert next(a) == 60_000
            loaders["b"].close()  # its writer waits for room in a channel that nobody will empty
            assert list(a) == [60_000] * 340


def hold(x: int) -> int:
    threading.Event().wait(30)  # longer than any test: its worker hears nothing meanwhile
    return x


class TestClosed:
    """An output that is closed holds up no other, whatever the workers between are doing."""

    @pytest.mark.parametrize("workers", [1, 2])
    def test_while_a_worker_of_it_hears_nothing(self, workers: int) -> None:
        p = sp.Pipeline(count_to(3000)).map(inc, workers=1)
        held = p.map(hold, workers=workers).map(tag, workers=1)
        described = {"held": held, "batches": held.batch(3), "read": p.map(inc)}
        loaders = sp.run(described, start_method="fork", epochs=2)
        loaders["held"].close()
        loaders["batches"].close()
        with loaders["read"] as loader:
            assert list(loader) == list(range(2, 3002)) * 2

    def test_after_its_workers_were_replaced(self) -> None:
        p = sp.Pipeline(count_to(3000)).map(inc, workers=1)
        described = {"held": p.map(hold, workers=1).map(tag, workers=1), "read": p.map(inc)}
        loaders = sp.run(described, start_method="fork", epochs=2)
        loaders["held"].close()
        with loaders["read"] as loader:
            got = [next(loader) for _ in range(10)]
            keeper = loader._run.supervisor
            assert keeper is not None
            os.kill(keeper.pids[0], signal.SIGKILL)
            assert [*got, *loader] == list(range(2, 3002)) * 2


def test_a_failure_in_a_thread_is_the_users_own_object() -> None:
    class Unpicklable(Exception):
        def __init__(self, lock: Any) -> None:
            super().__init__("it holds a lock")
            self.lock = lock

    made: list[Exception] = []

    def fails(x: int) -> int:
        if x == 7:
            made.append(Unpicklable(threading.Lock()))
            raise made[-1]
        return x

    p = sp.Pipeline(count_to(20)).map(fails, workers=1)
    loaders = sp.run({"a": p, "b": p.map(tag)}, executor="thread")
    with loaders["a"], loaders["b"]:
        for _ in range(7):
            assert next(loaders["b"]) == ("tag", next(loaders["a"]))
        with pytest.raises(Unpicklable) as caught:
            next(loaders["a"])
        assert caught.value is made[0]
        assert any("in stage 'fails'" in note for note in caught.value.__notes__)
