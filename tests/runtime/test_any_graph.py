"""Any graph of stages, read in any order and run in any way, gives what inline gives.

``SPLITPIPE_GRAPHS=500 python -m pytest tests/runtime/test_any_graph.py`` tries more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.branches import CAPACITY
from tests.runtime.comparing import frozen

EXAMPLES = int(os.environ.get("SPLITPIPE_GRAPHS", "12"))


def grow(x: Any) -> Any:
    return ("grown", x)


def drawn(x: Any, rng: np.random.Generator) -> Any:
    return x, int(rng.integers(1000))


def size(x: Any) -> int:
    return sum(map(ord, str(x)))


def keep(x: Any) -> bool:
    return size(x) % 3 != 0


def chosen(x: Any, rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.7)


def spread(x: Any) -> Iterator[Any]:
    for number in range(size(x) % 3):
        yield number, x


def several(x: Any, rng: np.random.Generator) -> Iterator[Any]:
    for number in range(int(rng.integers(3))):
        yield number, x


def large(x: Any) -> Any:
    return np.full(9000, size(x)), str(x)[:20]


def first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == count:
            return
        yield item


def shuffled(left: Iterator[Any], right: Iterator[Any], rng: np.random.Generator) -> Iterator[Any]:
    inputs = [left, right]
    while inputs:
        one = int(rng.integers(len(inputs)))
        try:
            item = next(inputs[one])
        except StopIteration:
            inputs.pop(one)
        else:
            yield item


def sources(draw: Callable[..., Any]) -> sp.Pipeline:
    n = draw(st.sampled_from([0, 1, 2, 5, 40, 120]))
    if draw(st.booleans()):
        return sp.Pipeline(range(n), shuffle=draw(st.sampled_from([None, "global"])), seed=3)
    return sp.Pipeline(lambda: iter(range(n)), seed=3)


def one_more(draw: Callable[..., Any], made: list[sp.Pipeline]) -> sp.Pipeline:
    """A stage over one or more of those that are there; using one twice is a branch."""
    before = st.sampled_from(made)
    p = made[-1] if draw(st.booleans()) else draw(before)
    workers = draw(st.sampled_from([None, None, 1, 2]))
    alone = draw(st.sampled_from([None, None, 1]))
    kinds: dict[str, Callable[[], sp.Pipeline]] = {
        "map": lambda: p.map(draw(st.sampled_from([grow, drawn, large])), workers=workers),
        "filter": lambda: p.filter(draw(st.sampled_from([keep, chosen])), workers=workers),
        "flat": lambda: p.flat_map(draw(st.sampled_from([spread, several])), workers=workers),
        "batch": lambda: p.batch(
            draw(st.integers(1, 5)), collate=list, drop_last=draw(st.booleans())
        ),
        "through": lambda: p.through(first, draw(st.integers(0, 60)), workers=alone),
        "take": lambda: p.take(draw(st.integers(0, 40))),
        "skip": lambda: p.skip(draw(st.integers(0, 10))),
        "shuffle": lambda: p.shuffle(draw(st.integers(1, 20))),
        "repeat": lambda: p.repeat(draw(st.integers(1, 3))),
        "zip": lambda: sp.zip(p, draw(before), draw(before), uneven="shortest", workers=alone),
        "interleave": lambda: sp.interleave(p, draw(before), block=draw(st.integers(1, 3))),
        "mix": lambda: sp.mix(
            [p, draw(before)], stop=draw(st.sampled_from(["all", "first"])), workers=alone
        ),
        "concat": lambda: sp.concat(p, draw(before)),
        "free": lambda: sp.stage(shuffled, p, draw(before), workers=alone),
        "tee": lambda: p.tee()[0].map(grow),
    }  # fmt: skip
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def graphs(draw: Callable[..., Any]) -> dict[str, sp.Pipeline]:
    made = [sources(draw) for _ in range(draw(st.integers(1, 2)))]
    for _ in range(draw(st.integers(1, 8))):
        made.append(one_more(draw, made))
    ends = [made[-1], *(draw(st.sampled_from(made)) for _ in range(draw(st.integers(0, 2))))]
    return {f"output {number}": pipe for number, pipe in enumerate(ends)}


class Following:
    """One reader: items, epoch by epoch."""

    def __init__(self, loader: sp.Loader) -> None:
        self.got: list[Any] = []
        self._loader = loader
        self._epochs = loader.by_epoch()
        self._items: Iterator[Any] = iter(())

    def read(self, count: int) -> bool:
        """Read some items; return whether there may be more."""
        while count:
            item = next(self._items, self)
            if item is not self:
                self.got.append((self._loader.epoch, frozen(item)))
                count -= 1
            elif not self.leave():
                return False
        return True

    def leave(self) -> bool:
        """Go on to the next epoch, whatever is left of this one; return whether there is one."""
        items = next(self._epochs, None)
        self._items = iter(()) if items is None else items
        return items is not None


def consumed(
    loaders: dict[str, sp.Loader], seed: int, leaving: float
) -> tuple[dict[str, list[Any]], str]:
    """Read everything, in an order that `seed` says, but for epochs that are left early; return it,
    and what it failed with.
    """
    turns = random.Random(seed)
    reading = {name: Following(loader) for name, loader in loaders.items()}
    left, failed = sorted(loaders), ""
    try:
        while left:
            name = turns.choice(left)
            leaves, count = turns.random() < leaving, turns.randint(1, 6)
            one = reading[name]
            if not (one.leave() if leaves else one.read(count)):
                left.remove(name)
    except (sp.BranchStalled, sp.PipelineError) as error:
        failed = str(error)
    finally:
        for loader in loaders.values():
            loader.close()
    return {name: one.got for name, one in reading.items()}, failed


@pytest.mark.deadline(900)
@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(
    graph=graphs(),
    executor=st.sampled_from(["process", "process", "thread"]),
    transport=st.sampled_from(["pipe", "pipe", "zmq"]),
    prefetch=st.sampled_from([1, 2, 4]),
    epochs=st.integers(1, 3),
    leaving=st.sampled_from([0.0, 0.0, 0.1]),
    kept=st.sampled_from([CAPACITY, 1 << 20]),
    seed=st.integers(0, 1000),
)
def test_equals_inline(
    graph: dict[str, sp.Pipeline],
    executor: str,
    transport: str,
    prefetch: int,
    epochs: int,
    leaving: float,
    kept: int,
    seed: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitpipe.runtime.chain.CAPACITY", kept)
        try:
            loaders = sp.run(
                graph,
                executor=executor,
                transport=transport,
                prefetch=prefetch,
                epochs=epochs,
                start_method="fork" if executor == "process" else None,
            )
        except sp.GraphError as error:
            if "begins its input anew" not in str(error):  # what inline alone can do
                raise
            hypothesis.reject()
        got, failed = consumed(loaders, seed, leaving)
        inline = sp.run(graph, executor="inline", epochs=epochs)
        expected, stalled = consumed(inline, seed, leaving)
    # Inline opens its sources anew for every epoch, and need not keep what is left of the last one.
    apart = kept == CAPACITY and "still in epoch" in failed
    if not stalled and not apart:
        assert not failed
        assert got == expected
    for name in graph:  # what came before somebody was not read is right in any case
        shorter = min(len(got[name]), len(expected[name]))
        assert got[name][:shorter] == expected[name][:shorter]
