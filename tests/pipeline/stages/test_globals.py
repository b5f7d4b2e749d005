"""Random numbers that belong to no place in the stream are caught."""

from __future__ import annotations

import functools
import multiprocessing
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from splitpipe.pipeline.stages.globals import Draw, Watch, advice, carried, duplicates, states


@pytest.fixture(autouse=True)
def _as_they_were() -> Any:
    before, numpys = random.getstate(), np.random.get_state()
    yield
    random.setstate(before)
    np.random.set_state(numpys)


@pytest.mark.parametrize(
    ("draw", "generator"),
    [
        (random.random, "random"),
        (lambda: random.gauss(0, 1), "random"),
        (lambda: random.shuffle([1, 2, 3]), "random"),
        (np.random.rand, "numpy.random"),
        (lambda: np.random.normal(size=3), "numpy.random"),
        (lambda: np.random.permutation(3), "numpy.random"),
    ],
)
def test_whoever_draws_is_seen(draw: Any, generator: str) -> None:
    watch = Watch()
    before = states()
    for _ in range(700):  # more than a block of the generator
        draw()
        assert watch.look() == (Draw(generator, before[generator]),)
        before = states()
    assert watch.look() == ()


def test_generators_of_ones_own_are_not_process_wide() -> None:
    watch = Watch()
    np.random.default_rng(0).random(5)
    random.Random(0).random()
    assert watch.look() == ()


def test_looking_changes_nothing() -> None:
    random.seed(1)
    np.random.seed(1)
    numbers = [random.random(), np.random.rand()]
    random.seed(1)
    np.random.seed(1)
    states()
    assert numbers == [random.random(), np.random.rand()]


PROGRAM = """
import random, numpy as np
from splitpipe.pipeline.stages.globals import states
random.seed(3); np.random.seed(3); random.gauss(0, 1); np.random.normal()
print(sorted(states().items()))
"""


def test_a_state_is_the_same_number_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def _worker(answers: Any) -> None:
    watch = Watch()
    np.random.rand()
    random.random()
    answers.put(watch.look())


@pytest.mark.skipif(sys.platform == "darwin", reason="forking is not safe there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_that_draw_the_same_numbers_are_found() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    workers = [context.Process(target=_worker, args=(answers,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    draws = {number: answers.get() for number in range(2)}
    for worker in workers:
        worker.join()
        worker.close()
    answers.close()
    # Python seeds its own generator anew after a fork; numpy does not.
    assert duplicates(draws) == [("numpy.random", (0, 1))]


def test_duplicates_are_grouped() -> None:
    one, two, three = (Draw("random", state) for state in range(3))
    other = Draw("torch", 0)
    draws = {0: [one, two], 1: [three], 2: [one, two, other], 3: [other]}
    assert duplicates(draws) == [("random", (0, 2)), ("torch", (2, 3))]
    assert duplicates({0: [one, one]}) == []
    assert "workers 0, 2 drew the same numbers" in advice("crop", "random", (0, 2))
    assert "stage 'crop' draws from random" in advice("crop", "random")


class Crop:
    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.size = 3

    def __call__(self, x: int) -> int:
        return x

    def method(self, x: int) -> int:
        return x


SHARED = np.random.default_rng(0)


def uses_global(x: float) -> float:
    return x + SHARED.random()


def test_generators_that_are_carried_along_are_found() -> None:
    rng = np.random.default_rng(0)
    legacy = np.random.RandomState(0)
    assert carried(lambda x: x + rng.random()) == ("variable 'rng'",)
    assert carried(lambda x, y=legacy: x) == ("default 'y'",)
    assert carried(lambda x, *, y=legacy: x) == ("default 'y'",)
    assert carried(uses_global) == ("global 'SHARED'",)
    assert carried(functools.partial(uses_global, rng)) == ("argument 0", "global 'SHARED'")
    assert carried(functools.partial(max, key=rng)) == ("argument 'key'",)
    assert carried(Crop()) == carried(Crop().method) == ("attribute 'rng'",)


def test_what_asks_for_a_generator_carries_none() -> None:
    assert carried(lambda x, rng: x + rng.random()) == ()
    assert carried(len) == carried(np.sqrt) == carried(functools.partial(int, base=2)) == ()
