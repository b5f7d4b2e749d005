"""Any chain of stages, run in any way, gives what inline gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np

import splitpipe as sp
from tests.runtime.comparing import all_frozen, counted


def grow(x: Any) -> Any:
    return x + 1 if isinstance(x, (int, float, np.ndarray, np.generic)) else (x,)


def inflate(x: Any) -> Any:
    return np.full((700,), hash(str(x)) % 251, np.int64), x


def keep(x: Any) -> bool:
    return len(str(x)) % 3 != 0


def spread(x: Any) -> Iterator[Any]:
    for i in range(len(str(x)) % 4):
        yield i, x


def running(items: Iterator[Any], stop: int) -> Iterator[Any]:
    for count, item in enumerate(items):
        if count == stop:
            return
        yield count, item


@st.composite
def pipelines(draw: st.DrawFn) -> sp.Pipeline:
    n = draw(st.integers(0, 60))
    shuffle = draw(st.sampled_from([None, "global"]))
    if draw(st.booleans()):
        pipe = sp.Pipeline(range(n), shuffle=shuffle, seed=draw(st.integers(0, 3)))
    else:
        pipe = sp.Pipeline(lambda: (i * i for i in range(n)))
    workers = st.sampled_from([None, None, 1, 2, 3])
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(
            st.sampled_from(["map", "inflate", "filter", "flat", "through", "batch", "take"])
        )
        capacity = draw(st.sampled_from([None, None, 1, 3]))
        if kind == "map":
            pipe = pipe.map(grow, workers=draw(workers), capacity=capacity)
        elif kind == "inflate":
            pipe = pipe.map(inflate, workers=draw(workers), capacity=capacity)
        elif kind == "filter":
            pipe = pipe.filter(keep, workers=draw(workers), capacity=capacity)
        elif kind == "flat":
            pipe = pipe.flat_map(spread, workers=draw(workers), capacity=capacity)
        elif kind == "through":
            pipe = pipe.through(
                running, draw(st.integers(0, 80)), workers=draw(st.sampled_from([None, 1]))
            )
        elif kind == "batch":
            pipe = pipe.batch(draw(st.integers(1, 9)), collate=list, drop_last=draw(st.booleans()))
        else:
            pipe = pipe.take(draw(st.integers(0, 50)))
    if draw(st.booleans()):
        pipe = pipe.map(grow, workers=0)
    return pipe


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    pipe=pipelines(),
    transport=st.sampled_from(["pipe", "pipe", "zmq"]),
    prefetch=st.integers(1, 5),
    epochs=st.integers(1, 3),
)
def test_equals_inline(pipe: sp.Pipeline, transport: str, prefetch: int, epochs: int) -> None:
    expected = all_frozen(pipe.loader(executor="inline", epochs=epochs))
    with pipe.loader(
        start_method="fork", transport=transport, prefetch=prefetch, epochs=epochs
    ) as loader:
        assert all_frozen(loader) == expected


@hypothesis.settings(max_examples=10)
@hypothesis.given(
    n=st.integers(0, 200), capacity=st.sampled_from([None, 1, 4]), epochs=st.integers(1, 3)
)
def test_unordered_equals_inline_as_multisets(n: int, capacity: int | None, epochs: int) -> None:
    pipe = (
        sp.Pipeline(range(n), shuffle="global")
        .map(grow, workers=2, ordered=False, capacity=capacity)
        .filter(keep, workers=2)
        .map(inflate, workers=0)
    )
    inline = pipe.loader(executor="inline", epochs=epochs)
    expected = [counted(epoch) for epoch in inline.by_epoch()]
    with pipe.loader(start_method="fork", epochs=epochs) as loader:
        assert [counted(epoch) for epoch in loader.by_epoch()] == expected


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    reads=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    workers=st.sampled_from([1, 2]),
    sequential=st.booleans(),
)
def test_epochs_that_are_left_early_do_not_touch_their_successors(
    reads: list[int], workers: int, sequential: bool
) -> None:
    source: Any = range(30) if not sequential else (lambda: iter(range(30)))
    pipe = sp.Pipeline(source).map(grow, workers=workers).through(running, 25)
    whole = list(pipe)
    with pipe.loader(start_method="fork", epochs=len(reads), prefetch=2) as loader:
        for epoch, count in zip(loader.by_epoch(), reads, strict=True):
            got = [item for _, item in zip(range(count), epoch, strict=False)]
            assert got == whole[:count]
