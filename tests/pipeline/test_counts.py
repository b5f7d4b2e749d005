"""Counts that users give: numpy's whole numbers are as good as Python's, all else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions
from splitpipe.pipeline.stage import StageOptions
from splitpipe.tokens.packing import make_packing


def described(of: Any) -> sp.Pipeline:
    """A pipeline with a count at every place, each passed through `of`."""
    a, b = sp.Pipeline(range(20), seed=of(3), window=of(1)).tee(of(2), capacity=of(9))
    joined = sp.interleave(a, b, block=of(2), capacity=of(4))
    return joined.take(of(16)).skip(of(1)).batch(of(3), workers=of(1)).window(of(2), of(1))


class Ordinal:
    """Whatever says that it is a whole number."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.mark.parametrize("of", [np.int64, np.uint8, Ordinal])
def test_numpys_are_as_good(of: Any) -> None:
    pipe, plain = described(of), described(int)
    assert [one.options for one in pipe.stages] == [one.options for one in plain.stages]
    for one in pipe.stages:
        for count in (one.options.workers, one.options.capacity):
            assert count is None or type(count) is int
    assert repr(pipe) == repr(plain)
    assert pipe.explain() == plain.explain()
    options = RunOptions.of(prefetch=of(2), epochs=of(2), arena_bytes=of(100))
    assert {type(one) for one in (options.prefetch, options.epochs, options.arena_bytes)} == {int}
    with pipe.loader(executor="inline", prefetch=of(2), epochs=of(2)) as loader:
        got = [[array.tolist() for array in pair] for pair in loader]
    assert got == 2 * [[array.tolist() for array in pair] for pair in plain]


@pytest.mark.parametrize("wrong", [True, 2.0, "2", np.float64(2), np.array(2), np.bool_(True), -1])
def test_what_is_none_is_refused(wrong: Any) -> None:
    pipe = sp.Pipeline(range(3))
    for use in (
        lambda: pipe.take(wrong),
        lambda: pipe.batch(wrong),
        lambda: pipe.tee(wrong),
        lambda: pipe.map(abs, workers=wrong),
        lambda: pipe.map(abs, capacity=wrong),
        lambda: sp.Pipeline(range(3), seed=wrong),
        lambda: pipe.loader(epochs=wrong),
        lambda: pipe.loader(prefetch=wrong),
    ):
        with pytest.raises(sp.GraphError, match="must be a whole number of at least"):
            use()


@pytest.mark.parametrize("wrong", [True, 2.0, "2", 0])
def test_nor_is_a_length_of_samples(wrong: Any) -> None:
    packing = make_packing(length=np.int64(8), vocabulary=np.uint16(100), specials={})
    assert packing == make_packing(length=8, vocabulary=100, specials={})
    assert type(packing.length) is int
    with pytest.raises(sp.FormatError, match="length must be a whole number"):
        make_packing(length=wrong, vocabulary=100, specials={})


def test_none_is_what_is_usual() -> None:
    assert StageOptions(workers=None, capacity=None) == StageOptions()
