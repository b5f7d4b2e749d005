"""What a stage that holds items back may keep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.holding import kept
from splitpipe.transport.ownership import COUNTED


def reusing(count: int) -> Iterator[Any]:
    buffer = np.zeros(2)
    for i in range(count):
        buffer[:] = i
        yield buffer


def nested(count: int) -> Iterator[Any]:
    inner = [0]
    for i in range(count):
        inner[0] = i
        yield {"x": inner, "y": (i, inner)}


def test_the_last_state_of_a_buffer_is_not_all_there_is() -> None:
    assert [one.tolist() for one in list(kept(reusing(3)))] == [[0, 0], [1, 1], [2, 2]]
    assert [one["y"] for one in list(kept(nested(3)))] == [(0, [0]), (1, [1]), (2, [2])]


@pytest.mark.skipif(not COUNTED, reason="references are not counted here")
def test_what_nobody_else_holds_is_not_copied() -> None:
    made: list[int] = []

    def fresh() -> Iterator[Any]:
        for i in range(3):
            yield _noted(np.full(4, i), made)

    assert [id(one) for one in list(kept(fresh()))] == made


def _noted(array: Any, made: list[int]) -> Any:
    made.append(id(array))
    return array


def test_what_cannot_be_copied_passes() -> None:
    lock = threading.Lock()
    assert list(kept(iter([lock]))) == [lock]


@pytest.mark.parametrize(
    "hold",
    [
        lambda pipe: pipe.shuffle(4),
        lambda pipe: pipe.window(2, collate=list),
        lambda pipe: pipe.batch(3, collate=list),
        lambda pipe: pipe.bucket(2, boundaries=[1], collate=list, length=len),
        lambda pipe: pipe.pack(4, measure=len),
    ],
)
def test_it_is_the_same_where_the_maker_runs_elsewhere(
    hold: Callable[[sp.Pipeline], sp.Pipeline],
) -> None:
    def seen(loader: sp.Loader) -> list[Any]:
        with loader:
            return [np.array(item).tolist() for item in loader]

    whole = hold(sp.Pipeline(lambda: reusing(9)))
    apart = hold(sp.Pipeline(lambda: reusing(9)).map(_same, workers=1))
    truth = seen(whole.loader(executor="inline"))
    assert len(str(truth)) > 40
    assert seen(whole.loader()) == truth
    assert seen(apart.loader()) == truth


def _same(item: Any) -> Any:
    return item
