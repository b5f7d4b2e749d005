"""A signal between any two steps leaves a lock as it is expected, and shows as what it raised."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.interrupts import unlocked
from splitpipe.runtime import keeper


class Interrupted:
    """A lock in which Ctrl-C comes at some call of a method: before it, or after it.

    Attributes:
        at: at which calls, by their number, and whether after what they do.
        came: how often it did.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.at: set[tuple[int, bool]] = set()
        self.calls = 0
        self.came = 0

    def _step(self, act: Callable[[], Any]) -> Any:
        call, self.calls = self.calls, self.calls + 1
        self._maybe(call, after=False)
        made = act()
        self._maybe(call, after=True)
        return made

    def _maybe(self, call: int, *, after: bool) -> None:
        if (call, after) in self.at:
            self.came += 1
            raise KeyboardInterrupt

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self._step(lambda: self.lock.acquire(*args, **kwargs)))

    def release(self) -> None:
        self._step(self.lock.release)

    def _is_owned(self) -> bool:
        return bool(self._step(self.lock._is_owned))  # type: ignore[attr-defined]

    def __enter__(self) -> bool:
        return self.lock.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self.lock.__exit__(*raised)


def held(lock: Interrupted) -> bool:
    return bool(lock.lock._is_owned())  # type: ignore[attr-defined]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(3))
@pytest.mark.parametrize("again", [(), (1, 2), (2,), (2, 3)])
def test_it_is_held_again_whatever_comes(call: int, after: bool, again: tuple[int, ...]) -> None:
    lock = Interrupted()
    lock.at = {(call, after)} | {(other, after) for other in again}
    with pytest.raises(KeyboardInterrupt), lock:  # and not: cannot release un-acquired lock
        unlocked(lock, lambda: None)  # type: ignore[arg-type]
    assert lock.came
    assert not held(lock)


def test_what_is_called_has_it_not() -> None:
    lock = threading.RLock()
    taken = threading.Event()

    def other() -> None:
        with lock:
            taken.set()

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        assert unlocked(lock, lambda: taken.wait(60.0))
        thread.join()
        assert lock._is_owned()  # type: ignore[attr-defined]


def test_what_it_raises_is_raised() -> None:
    lock = threading.RLock()
    with lock:
        with pytest.raises(ZeroDivisionError):
            unlocked(lock, lambda: 1 // 0)
        assert lock._is_owned()  # type: ignore[attr-defined]


@pytest.mark.parametrize("transport", ["pipe", "zmq"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(3))
def test_ctrl_c_is_what_the_reader_of_a_loader_sees(
    monkeypatch: pytest.MonkeyPatch, transport: str, call: int, after: bool
) -> None:
    locks: list[Interrupted] = []

    def made() -> Interrupted:
        locks.append(Interrupted())
        return locks[-1]

    monkeypatch.setattr(keeper, "threading", SimpleNamespace(RLock=made))
    pipeline = sp.Pipeline(itertools.count).map(abs, workers=1)
    with pipeline.loader(start_method="fork", transport=transport) as loader:
        assert next(loader) == 0
        (lock,) = locks
        lock.calls, lock.at = 0, {(call, after)}
        with pytest.raises(KeyboardInterrupt) as caught:
            for _ in loader:
                pass
    assert lock.came == 1
    assert caught.value.__context__ is None
