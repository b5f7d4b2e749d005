"""Workers that make no progress: they are found, say where they are, and are replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime import staff
from tests.runtime.comparing import read
from tests.runtime.dying import Deaths, deaths_of, joined

FORK: dict[str, Any] = {"start_method": "fork"}


def replaced_once(pipe: sp.Pipeline, deaths: Deaths, count: int, *, deadline_s: float) -> None:
    """Read numbers below `count`, while the one worker that is struck is found and replaced."""
    with pipe.loader(deadline_s=deadline_s, **FORK) as loader:
        assert list(loader) == list(range(count))
    assert deaths.count == deaths_of(loader) == 1


@pytest.mark.deadline(40)
@pytest.mark.parametrize("how", ["loop", "lock", "stop"])
def test_a_stuck_worker_is_replaced(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deaths = Deaths(tmp_path, [13], how)
    pipe = sp.Pipeline(range(40)).map(abs, name="load").map(deaths.strike, workers=2, name="decode")
    with caplog.at_level(logging.WARNING, "splitpipe"):
        replaced_once(pipe, deaths, 40, deadline_s=0.4)
    text = caplog.text
    assert "made no progress in stage 'decode'" in text
    assert ("stopped by a signal (SIGSTOP)" if how == "stop" else "in strike") in text


@pytest.mark.deadline(40)
def test_one_that_is_always_stuck_ends_the_run(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, [0], "loop", times=100)
    pipe = sp.Pipeline(lambda: iter(range(40))).through(deaths.through, workers=1, deadline_s=0.2)
    got, error = read(pipe.loader(restarts=1, **FORK))
    assert got == []
    assert isinstance(error, sp.WorkerStalled)
    assert "deadline_s=0.2" in str(error)
    assert "in strike" in str(error)
    assert deaths.count == 2


class Sticky:
    """Takes for ever to be pickled, once."""

    def __init__(self, number: int, deaths: Deaths) -> None:
        self.number = number
        self.deaths = deaths

    def __reduce__(self) -> Any:
        self.deaths.strike(self.number)
        return int, (self.number,)


def restored(number: int, deaths: Deaths) -> int:
    deaths.strike(number)
    return number


class Clinging:
    """Takes for ever to be restored, once."""

    def __init__(self, number: int, deaths: Deaths) -> None:
        self.number = number
        self.deaths = deaths

    def __reduce__(self) -> Any:
        return restored, (self.number, self.deaths)


@pytest.mark.deadline(40)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [0, 5])
def test_one_that_is_stuck_in_restoring(
    at: int, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deaths = Deaths(tmp_path, [at], "loop")
    pipe = sp.Pipeline(range(12)).map(lambda x: Clinging(x, deaths), workers=1)
    pipe = pipe.map(abs, workers=workers, name="reads").map(abs)
    with caplog.at_level(logging.WARNING, "splitpipe"):
        replaced_once(pipe, deaths, 12, deadline_s=0.3)
    assert "made no progress in stage 'reads'" in caplog.text
    assert "in restored" in caplog.text


@pytest.mark.deadline(40)
@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_is_stuck_in_pickling(workers: int, tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, [5], "loop")
    pipe = sp.Pipeline(range(12)).map(lambda x: Sticky(x, deaths), workers=workers)
    replaced_once(pipe, deaths, 12, deadline_s=0.3)


@pytest.mark.deadline(40)
def test_one_of_several_outputs(tmp_path: Path) -> None:
    """Each is served by a thread; the others go on."""
    deaths = Deaths(tmp_path, [7], "loop")
    shared = sp.Pipeline(lambda: iter(range(60))).map(abs)
    pipes = {"a": shared.map(abs), "b": shared.map(deaths.strike)}
    pipes = {name: pipe.map(abs, workers=1) for name, pipe in pipes.items()}
    pipes["c"] = shared.through(deaths.through, workers=1, name="other")
    loaders = sp.run(pipes, deadline_s=0.4, **FORK)
    try:
        got = {name: [] for name in loaders}
        for _ in range(60):
            for name, loader in loaders.items():
                got[name].append(next(loader))
    finally:
        for loader in loaders.values():
            loader.close()
    assert got == {name: list(range(60)) for name in loaders}
    assert deaths.count == 1


@pytest.mark.deadline(40)
def test_a_thread_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def stuck(x: int) -> int:
        if x == 5:
            go.wait(30)
        return x

    loader = sp.Pipeline(range(9)).map(stuck, workers=1).loader(executor="thread", deadline_s=0.2)
    monkeypatch.setattr(staff, "THREAD_GRACE_S", 0.05)
    with (
        pytest.warns(RuntimeWarning, match="still in a call of user code"),
        pytest.raises(sp.WorkerStalled, match="threads cannot be replaced") as caught,
    ):
        list(loader)
    assert "in stuck" in str(caught.value)
    go.set()
    assert joined([t for t in threading.enumerate() if t.name.startswith("splitpipe")])


def test_who_waits_is_not_stuck() -> None:
    """For input, for its reader, for memory: not one stage runs for as long as the loop pauses."""

    def slowly() -> Iterator[int]:
        for x in range(12):
            threading.Event().wait(0.03)
            yield x

    def large(x: int) -> np.ndarray:
        return np.full(100_000, x)

    pipe = (
        sp.Pipeline(slowly)
        .map(abs, workers=1)
        .through(lambda items: items, workers=1, deadline_s=0.15)
        .map(large, workers=1)
        .batch(2)
    )
    with pipe.loader(prefetch=1, arena_bytes=8 << 20, deadline_s=0.5, **FORK) as loader:
        got = []
        for number, batch in enumerate(loader):
            if number in (1, 3):
                threading.Event().wait(0.8)
            got += batch[:, 0].tolist()
            del batch
    assert got == list(range(12))
    assert deaths_of(loader) == 0


@pytest.mark.parametrize("value", [0, -1, True, "1"])
def test_a_deadline_is_a_number_of_seconds(value: Any) -> None:
    with pytest.raises(sp.GraphError, match="deadline_s"):
        sp.Pipeline(range(3)).loader(deadline_s=value)
    with pytest.raises(sp.GraphError, match="deadline_s"):
        sp.Pipeline(range(3)).shuffle(2, deadline_s=value)


def test_without_deadlines_nobody_watches() -> None:
    with sp.Pipeline(range(9)).map(abs, workers=1).loader(**FORK) as loader:
        assert not [t for t in threading.enumerate() if "watchdog" in t.name]
        assert list(loader) == list(range(9))
