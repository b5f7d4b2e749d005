"""What is begun anew inside of what is begun anew: every pass is one of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime import again
from tests.runtime.comparing import all_frozen

INLINE: dict[str, Any] = {"executor": "inline"}
FORK: dict[str, Any] = {"start_method": "fork"}


def drawn(items: Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    """One number a pass."""
    yield int(rng.integers(1 << 62))
    for _ in items:
        pass


def noisy(x: Any, rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 62))


def same(items: Iterable[Any]) -> Iterator[Any]:
    yield from items


def nested(pipe: sp.Pipeline, *counts: int) -> sp.Pipeline:
    for count in counts:
        pipe = pipe.repeat(count).through(same)
    return pipe


@pytest.mark.parametrize("counts", [(3,), (3, 4), (1, 5), (5, 1), (2, 3, 4), (2, 2, 2, 2)])
def test_every_pass_draws_numbers_of_its_own(counts: tuple[int, ...]) -> None:
    passes = int(np.prod(counts))
    for pipe in (
        nested(sp.Pipeline(range(3), seed=1).through(drawn), *counts),
        nested(sp.Pipeline(range(3), seed=1).map(noisy).through(same), *counts),
    ):
        got = [all_frozen(epoch) for epoch in pipe.loader(epochs=2, **INLINE).by_epoch()]
        assert len(set(got[0])) == len(got[0]) == len(got[1])
        assert len(got[0]) in (passes, 3 * passes)
        assert not set(got[0]) & set(got[1])
        with pipe.map(str, workers=2).loader(epochs=2, **FORK) as loader:
            assert len(set(loader)) == 2 * len(got[0])


def test_one_level_is_called_as_ever() -> None:
    """The numbers of passes are what they were: streams stay what they are."""
    labels = []

    class Chain:
        def begin(self, number: int, epoch: int, owner: int, reader: str) -> Any:
            labels.append(epoch)
            return iter(()), 0

        def end(self, owner: int) -> None: ...

    one = again.Again(Chain(), 0, 7, 0, "repeat", 32)
    one.again()
    one.again()
    assert labels == [7, 7 + (1 << 32), 7 + (2 << 32)]
    inner = again.Again(Chain(), 0, 7 + (2 << 32), 0, "repeat", 16)
    inner.again()
    assert labels[3:] == [7 + (2 << 48), 7 + (2 << 48) + (1 << 32)]
    inner._done = (1 << 16) - 1
    with pytest.raises(sp.GraphError, match="65535 times are the most"):
        inner.again()


@pytest.mark.parametrize("method", ["random", "even"])
def test_mixes_that_share_what_they_read(method: str) -> None:
    def mixed(pipe: sp.Pipeline) -> sp.Pipeline:
        return sp.mix([pipe, pipe.take(3)], stop="repeat", method=method)

    begin = sp.Pipeline(lambda: iter(range(7)), seed=3)
    for pipe in (
        mixed(mixed(begin)),
        mixed(begin).repeat(2),
        mixed(begin.shuffle(4).repeat(2)),
        mixed(sp.interleave(begin.skip(2), begin).cache()),
        mixed(mixed(begin).cache()),
    ):
        truth = [all_frozen(epoch) for epoch in pipe.loader(epochs=2, **INLINE).by_epoch()]
        assert all(epoch.count(("int", 5)) for epoch in truth)
        count = len(truth[0]) * 2 // 3
        with pipe.loader(epochs=2, **INLINE) as loader:
            for _ in range(count):
                next(loader)
            state = loader.state_dict()
        with pipe.loader(epochs=2, state=state, **INLINE) as loader:
            assert all_frozen(loader) == [*truth[0], *truth[1]][count:]
