"""Ctrl-C at any place of a beginning, a reading and an ending leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.verification.possessions import left_behind, possessions
from tests.interrupting import at_each_place, interrupted

LOADERS: dict[str, Callable[[], Any]] = {
    "inline": lambda: _pipeline(0).loader(executor="inline"),
    "threads": lambda: _pipeline(2).loader(executor="thread"),
    "pipe": lambda: _pipeline(2).loader(start_method="fork", transport="pipe"),
    "zmq": lambda: _pipeline(2).loader(start_method="fork", transport="zmq"),
    "forkserver": lambda: _pipeline(1).loader(start_method="forkserver"),
}


def _pipeline(workers: int) -> sp.Pipeline:
    return sp.Pipeline(range(100_000)).map(abs, workers=workers).batch(4)


@contextlib.contextmanager
def nothing_stays() -> Any:
    before = possessions()
    yield
    gc.collect()
    assert not left_behind(before, settle_s=30.0)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.deadline(120)
def test_beginning(kind: str) -> None:
    with LOADERS[kind]() as loader:  # what stays for the life of this process
        next(loader)

    def attempt(place: int) -> bool:
        with nothing_stays():

            def act() -> None:
                with LOADERS[kind]() as loader:
                    next(loader)

            return interrupted(act, place)

    at_each_place(attempt, step=101)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.deadline(120)
def test_reading(kind: str) -> None:
    def attempt(place: int) -> bool:
        seen: list[int] = []
        with LOADERS[kind]() as loader:

            def read(batches: int) -> None:
                for _ in range(batches):
                    seen.extend(map(int, next(loader)))

            read(1)
            hit = interrupted(lambda: read(12), place)
            with contextlib.suppress(sp.PipelineError):  # the run may be over
                read(1)
        assert seen == list(range(len(seen)))
        return hit

    with nothing_stays():
        at_each_place(attempt, step=17)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.deadline(120)
def test_closing(kind: str) -> None:
    def attempt(place: int) -> bool:
        loader = LOADERS[kind]()
        next(loader)
        hit = interrupted(loader.close, place)
        loader.close()
        return hit

    with nothing_stays():
        at_each_place(attempt, step=17)
