"""Generators that belong to a place: the same numbers, whoever kept the last one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.stages.random import Generators, generator

PLACES = [(0, 0), (1, 0), (1, 3), (2**63, 0), (2**64 - 1, 2**64 - 1), (0, 0)]


def numbers(rng: np.random.Generator) -> Any:
    """Numbers of kinds that leave something behind for the next: halves of words, say."""
    return (
        rng.random(),
        rng.integers(10, dtype=np.int32),
        rng.standard_normal(),
        rng.integers(1 << 40),
        rng.integers(3, dtype=np.uint8),
    )


@pytest.mark.parametrize(
    "keep",
    [
        lambda rng: None,
        lambda rng: rng,
        lambda rng: rng.bit_generator,
        lambda rng: rng.random,
        lambda rng: [rng],
        lambda rng: (number for number in [rng.random()]),
    ],
    ids=["nothing", "it", "its-bits", "a-method", "in-a-list", "a-generator"],
)
def test_every_place_has_its_own(keep: Callable[[np.random.Generator], Any]) -> None:
    generators = Generators(7, "crop", 3)
    kept = []
    for number, part in PLACES:
        made = generators.at(number, part)
        assert numbers(made) == numbers(generator(7, "crop", 3, number, part))
        kept.append(keep(made))
        del made
    assert len(kept) == len(PLACES)


def test_one_that_was_kept_goes_on_where_it_was() -> None:
    generators = Generators(1, "crop", 0)
    first, second = generators.at(5), generators.at(6)
    expected = generator(1, "crop", 0, 5), generator(1, "crop", 0, 6)
    for _ in range(3):
        assert (first.random(), second.random()) == tuple(one.random() for one in expected)
    bits = generators.at(7).bit_generator
    generators.at(8).random()
    assert np.random.Generator(bits).random() == generator(1, "crop", 0, 7).random()


def test_the_same_object_is_handed_out_where_nobody_kept_it() -> None:
    generators = Generators(1, "crop", 0)
    assert len({id(generators.at(number)) for number in range(5)}) == 1
    kept = [generators.at(number) for number in range(5)]
    assert len({id(one) for one in kept}) == 5


def test_copies_are_their_own() -> None:
    generators = Generators(1, "crop", 0)
    copies = [copy.deepcopy(generators.at(3)), pickle.loads(pickle.dumps(generators.at(4)))]
    generators.at(9).random()
    assert [one.random() for one in copies] == [
        generator(1, "crop", 0, number).random() for number in (3, 4)
    ]


def test_a_stage_may_keep_what_it_was_given() -> None:
    seen: list[np.random.Generator] = []

    def drawn(item: int, rng: np.random.Generator) -> float:
        seen.append(rng)
        return float(rng.random())

    def alone(item: int, rng: np.random.Generator) -> float:
        return float(rng.random())

    pipe = sp.Pipeline(range(20), seed=3)
    assert list(pipe.map(drawn, name="drawn")) == list(pipe.map(alone, name="drawn"))
    assert len({id(one) for one in seen}) == 20
    again = [generator(3, "drawn", 0, number) for number in range(20)]
    for one, other in zip(seen, again, strict=True):
        other.random()
        assert one.random() == other.random()
