"""Resuming at every position of small graphs, also of runs that were resumed themselves.

Blocks and buffers are as small as can be, so that a few dozen items pass every boundary: a block of
random numbers that is just used up, a buffer that is just full, a batch that is the last one, an
epoch that is over. ``SPLITPIPE_RESUME=all`` tries every pair of stages, ``SPLITPIPE_GRAPHS=500``
more graphs.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline import source
from splitpipe.pipeline.stages import shuffle, weights
from splitpipe.runtime import capture, engine, ledger
from tests.runtime.comparing import all_frozen, frozen
from tests.sampling import sampled, seldom

EVERYTHING = os.environ.get("SPLITPIPE_RESUME") == "all"
EXAMPLES = int(os.environ.get("SPLITPIPE_GRAPHS", "25"))
INLINE: dict[str, Any] = {"executor": "inline"}
FORK: dict[str, Any] = {"start_method": "fork", "prefetch": 2}
THREADS: dict[str, Any] = {"executor": "thread", "prefetch": 2}
ITEMS = 23


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Let all blocks be small, and notes be taken whenever they can be."""
    for module in (shuffle, weights):
        patch.setattr(module, "_BLOCK", 4)
    patch.setattr(source, "_BLOCK", 4)
    patch.setattr(source, "_FIRST_BLOCK", 2)
    for noted in (capture, engine, ledger):
        patch.setattr(noted, "NOTE_S", 0.0)


def size(x: Any) -> int:
    """A number that depends on nothing but the item, of whatever kind that is."""
    if isinstance(x, (int, float, np.generic)):
        return int(x)
    if isinstance(x, dict):
        return sum(map(size, x.values()))
    if isinstance(x, np.ndarray):
        return int(x.sum()) + x.size
    if isinstance(x, (tuple, list)):
        return sum(map(size, x)) + len(x)
    return sum(map(ord, str(x)))


def noisy(x: Any, rng: np.random.Generator) -> Any:
    return x, int(rng.integers(1000))


def kept(x: Any) -> bool:
    return size(x) * 7919 % 5 < 3


def chosen(x: Any, rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.7)


def spread(x: Any) -> Iterator[Any]:
    for number in range(size(x) % 3):
        yield number, x


def several(x: Any, rng: np.random.Generator) -> Iterator[Any]:
    for number in range(int(rng.integers(3))):
        yield number, x


def fails(x: Any) -> Any:
    if size(x) % 4 == 1:
        raise ValueError(x)
    return x


async def awaited(x: Any) -> Any:
    return x


async def awaited_or_fails(x: Any, rng: np.random.Generator) -> Any:
    return fails(x), int(rng.integers(1000))


def made_or_fails(rows: list[Any]) -> list[Any]:
    if size(rows) % 3 == 1:
        raise ValueError(rows)
    return rows


def length(x: Any) -> int:
    return size(x) % 7


def tokens(x: Any) -> Any:
    return np.arange(size(x) % 9, dtype=np.int64)


def free(items: Iterable[Any]) -> Iterator[Any]:
    before = None
    for item in items:
        if before is not None and size(item) % 3:
            yield before, item
        before = item


def drawn(items: Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    for item in items:
        for _ in range(int(rng.integers(3))):
            yield item


def parity(x: Any) -> str:
    return "odd" if size(x) % 2 else "even"


class Sums:
    """A free stage that tells its state: the very object that it goes on with."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items, self.state = items, {"total": 0}

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.state["total"] += size(item)
            if self.state["total"] % 3:
                yield self.state["total"], item

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


Stage = Callable[[sp.Pipeline], sp.Pipeline]

STAGES: dict[str, Stage] = {
    "map": lambda p: p.map(noisy),
    "map, skipping": lambda p: p.map(fails, on_error="skip"),
    "filter": lambda p: p.filter(kept),
    "filter with rng": lambda p: p.filter(chosen),
    "flat_map": lambda p: p.flat_map(spread),
    "flat_map with rng": lambda p: p.flat_map(several).map(noisy),
    "async_map": lambda p: p.async_map(awaited, concurrency=3),
    "async_map, skipping": lambda p: p.async_map(awaited_or_fails, concurrency=3, on_error="skip"),
    "batch": lambda p: p.batch(3, collate=list),
    "batch, dropping": lambda p: p.batch(4, collate=list, drop_last=True),
    "batch, skipping": lambda p: p.batch(2, collate=made_or_fails, on_error="skip"),
    "unbatch": lambda p: p.batch(3, collate=list).unbatch(),
    "window": lambda p: p.window(4, 1, collate=list),
    "window, apart": lambda p: p.window(2, 3, collate=list),
    "window, dropping": lambda p: p.window(3, 2, collate=list, drop_last=True),
    "shuffle": lambda p: p.shuffle(4),
    "shuffle of one": lambda p: p.shuffle(1),
    "shuffle of all": lambda p: p.shuffle(40),
    "bucket": lambda p: p.bucket(3, length=length, boundaries=[2, 5], collate=list),
    "bucket, learned": lambda p: p.bucket(2, length=length, buckets=3, sample=5, collate=list),
    "bucket, dropping": lambda p: p.bucket(
        5, max_tokens=9, length=length, boundaries=[4], collate=list, drop_last=True
    ),
    "batch_by_cost": lambda p: p.batch_by_cost(8, length=length, collate=list),
    "pack": lambda p: p.map(tokens).pack(9, window=4),
    "pack, first fit": lambda p: p.map(tokens).pack(8, window=3, strategy="first_fit"),
    "pack, split": lambda p: p.map(tokens).pack(3, window=4, too_long="split"),
    "pack, end to end": lambda p: p.map(tokens).pack(5, strategy="concat"),
    "pack, dropping": lambda p: p.map(tokens).pack(4, window=2, too_long="drop"),
    "pack of items": lambda p: p.pack(9, window=4, measure=length),
    "take": lambda p: p.take(9),
    "skip": lambda p: p.skip(3),
    "skip all": lambda p: p.skip(100),
    "repeat": lambda p: p.repeat(2),
    "cache": lambda p: p.cache(),
    "through": lambda p: p.through(free),
    "through with rng": lambda p: p.through(drawn),
    "through, restarting": lambda p: p.through(drawn, restart_every=4),
    "through, telling": lambda p: p.through(Sums),
    "route": lambda p: p.route(
        parity, {"odd": lambda b: b.map(noisy), "even": lambda b: b.flat_map(several)}
    ),
    "split and merge": lambda p: sp.merge(*p.split_by(parity, ["odd", "even"]).values()),
    "tee and zip": lambda p: sp.zip(*p.tee()),
    "zip": lambda p: sp.zip(p, p.filter(kept), uneven="shortest"),
    "mix": lambda p: sp.mix([p, p.filter(kept)], [1, 2]),
    "mix, evenly": lambda p: sp.mix([p, p.filter(kept)], [1, 2], method="even"),
    "mix, to the first end": lambda p: sp.mix([p.filter(kept), p], [2, 1], stop="first"),
    "mix, again": lambda p: sp.mix([p, p.take(3)], stop="repeat"),
    "mix, by a schedule": lambda p: sp.mix([p, p.skip(2)], [(0, (1, 0)), (5, (1, 3))]),
    "interleave": lambda p: sp.interleave(p, p.filter(kept), block=3),
    "concat": lambda p: sp.concat(p.filter(kept), p),
    "stage": lambda p: sp.stage(zipped, p, p.skip(2)),
    "shard": lambda p: p.shard(1, 3),
    "shard, uneven": lambda p: p.shard(1, 3, ends="uneven"),
    "shard, padded": lambda p: p.shard(1, 2, ends="pad"),
}


def zipped(left: Iterable[Any], right: Iterable[Any]) -> Iterator[Any]:
    for one, other in zip(left, right, strict=False):
        if size(one) % 3:
            yield one, other


SOURCES: dict[str, Callable[[], sp.Pipeline]] = {
    "sequence": lambda: sp.Pipeline(range(ITEMS), shuffle="global", seed=3),
    "factory": lambda: sp.Pipeline(lambda: iter(range(ITEMS)), seed=3),
}


def stored(state: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(state))
    return made


def states_of(pipe: sp.Pipeline, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """Every item, and the states before each and behind the last: each is taken twice."""
    items: list[Any] = []
    with pipe.loader(**options) as loader:
        states = [stored(loader.state_dict())]
        for item in loader:
            items.append(frozen(item))
            del item
            states.append(stored(loader.state_dict()))
            again = stored(loader.state_dict())
            assert again == states[-1] or options.get("executor") != "inline"  # workers note more
        over = stored(loader.state_dict())
    assert stored(loader.state_dict()) == over  # closed, it knows still
    states.append(over)
    return items, states


def assert_goes_on(
    pipe: sp.Pipeline,
    state: dict[str, Any],
    truth: list[Any],
    turns: random.Random,
    runs: list[dict[str, Any]],
    options: dict[str, Any],
) -> None:
    """Go on from `state`, at once, after another state of the same place, and through two more
    runs that stop somewhere.
    """
    place = (state["epoch"], state["items"])
    for _ in range(2):
        with pipe.loader(**options, **turns.choice(runs), state=state) as loader:
            if turns.random() < 0.3:  # right after it was loaded
                state = stored(loader.state_dict())
                assert (state["epoch"], state["items"]) == place
            count = turns.randint(0, min(len(truth), 8))
            for number in range(count):
                assert frozen(next(loader)) == truth[number], (place, number)
            state = stored(loader.state_dict())
        truth, place = truth[count:], (state["epoch"], state["items"])
    with pipe.loader(**options, **turns.choice(runs), state=state) as loader:
        assert all_frozen(loader) == truth, place


def walk(
    pipe: sp.Pipeline,
    runs: list[dict[str, Any]],
    saved: dict[str, Any],
    *,
    epochs: int = 2,
    most: int | None = None,
    seed: int = 0,
) -> None:
    """Resume at every position, or at `most` of them."""
    turns, options = random.Random(seed), {"epochs": epochs}
    truth, states = states_of(pipe, **options, **saved)
    if saved is not INLINE:
        assert truth == all_frozen(pipe.loader(**options, **INLINE))
    every: Iterable[int] = range(len(states))
    if most is not None and len(states) > most:
        every = sorted(turns.sample(every, most))
    for at in every:
        with pipe.loader(**options, **turns.choice(runs), state=states[at]) as loader:
            assert all_frozen(loader) == truth[at:], at
        assert_goes_on(pipe, states[at], truth[at:], turns, runs, options)


PAIRS = sorted(product(STAGES, STAGES))
SAMPLE = PAIRS if EVERYTHING else random.Random(5).sample(PAIRS, 120)
TRIED = SAMPLE if EVERYTHING else seldom(SAMPLE, keep=SAMPLE[::2])
POSITIONS = [None] if EVERYTHING else seldom([1, 3], keep=[1])
"""How many of a run with workers are tried."""


@pytest.mark.usefixtures("_small")
@pytest.mark.deadline(3600 if EVERYTHING else 180)
class TestInline:
    @pytest.mark.parametrize(*sampled(1, name=STAGES, begin=SOURCES))
    def test_a_stage(self, name: str, begin: str) -> None:
        walk(STAGES[name](SOURCES[begin]()), [INLINE], INLINE)

    @pytest.mark.parametrize(("first", "second"), TRIED)
    def test_two_stages(self, first: str, second: str) -> None:
        begin = SOURCES["sequence" if len(first) % 2 else "factory"]
        pipe = STAGES[second](STAGES[first](begin()))
        try:
            walk(pipe, [INLINE], INLINE, most=None if EVERYTHING else 12)
        except ValueError as error:
            if "no items to repeat" not in str(error):
                raise


@pytest.mark.usefixtures("_small")
@pytest.mark.deadline(3600 if EVERYTHING else 180)
class TestWorkers:
    @pytest.mark.parametrize("name", STAGES)
    @pytest.mark.parametrize("most", POSITIONS)
    def test_a_stage(self, name: str, most: int | None) -> None:
        """States of one executor are gone on with in others, which stop and go on themselves."""
        begin = SOURCES["factory" if len(name) % 2 else "sequence"]
        number = len(name) % 3
        pipe = begin().map(noisy, workers=number or None)
        pipe = STAGES[name](pipe).map(noisy, workers=(None, 2, 1)[number])
        saved = (FORK, INLINE, FORK, THREADS)[len(name) % 4]
        try:
            walk(pipe, [INLINE, FORK, INLINE, THREADS], saved, most=most)
        except sp.GraphError as error:
            if "begins its input anew" not in str(error):
                raise
            walk(pipe, [INLINE], INLINE)


@st.composite
def graphs(draw: Callable[..., Any]) -> sp.Pipeline:
    """One to four stages, one behind the other; some of them read what lies further back, too."""
    length = draw(st.sampled_from([0, 1, 2, 7, ITEMS]))
    pipe = sp.Pipeline(range(length), shuffle=draw(st.sampled_from([None, "global"])), seed=3)
    if draw(st.booleans()):
        pipe = sp.Pipeline(lambda: iter(range(length)), seed=3)
    made = [pipe]
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(STAGES)))
        made.append(STAGES[name](made[-1]))
        if draw(st.integers(0, 4)) == 0:
            made.append(sp.interleave(made[-1], draw(st.sampled_from(made)), block=2))
        if draw(st.integers(0, 4)) == 0:
            made[-1] = made[-1].map(noisy, workers=draw(st.sampled_from([1, 2])))
    return made[-1]


@pytest.mark.long
@pytest.mark.deadline(3600)
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(
    pipe=graphs(),
    saved=st.sampled_from([INLINE, INLINE, FORK, THREADS]),
    also=st.sampled_from([INLINE, INLINE, FORK, THREADS]),
    epochs=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_any_graph(
    pipe: sp.Pipeline, saved: dict[str, Any], also: dict[str, Any], epochs: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        most = 40 if saved is also is INLINE else 3
        try:
            walk(pipe, [INLINE, also], saved, epochs=epochs, most=most, seed=seed)
        except sp.GraphError as error:
            if "begins its input anew" not in str(error):
                raise
            hypothesis.reject()
        except (sp.BranchStalled, sp.NotPicklable):
            hypothesis.reject()
        except ValueError as error:
            if "no items to repeat" not in str(error):
                raise
            hypothesis.reject()
