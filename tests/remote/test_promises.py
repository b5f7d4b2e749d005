"""Resuming, ranks and faults over data in a store: what is promised holds wherever records lie.

These are the suites of `tests.runtime`, with a dataset for a source: in a folder, and in S3. A few
of them are tried always, and every stage by ``python -m pytest -m long
tests/remote/test_promises.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.remote.making import Place
from tests.runtime.comparing import all_frozen
from tests.runtime.dying import Deaths, deaths_of, read_killing
from tests.runtime.test_every_stage import ITEMS, STAGES, cut, record, same
from tests.runtime.test_redistributing import begun, dealt_in_turn, finished
from tests.runtime.test_resume import rest, states_of
from tests.sampling import seldom

Opened = Callable[..., sp.Dataset]
Source = Callable[[], sp.Pipeline]

EVERYWHERE = [(name, where) for name in STAGES for where in ("folder", "s3")]
RESUMED = seldom(EVERYWHERE, keep=[("bucket", "s3"), ("mix", "s3")])
KILLED = seldom(EVERYWHERE, keep=[("batch", "s3")])

pytestmark = pytest.mark.deadline(300)


@pytest.fixture
def local(tmp_path: Path) -> str:
    path = str(tmp_path / "local")
    with sp.DatasetWriter(path, schema="int64", bins=4) as writer:
        writer.write_many(range(ITEMS))
    return path


@pytest.fixture
def source_in(
    local: str, request: pytest.FixtureRequest, opened: Opened
) -> Callable[[str], sp.Dataset]:
    def make(where: str) -> sp.Dataset:
        if where == "folder":
            request.addfinalizer((made := sp.open_dataset(local)).close)
            return made
        place: Place = request.getfixturevalue("in_s3")
        place.put(local, "data")
        return opened(place, "data")

    return make


def shuffled(dataset: Any) -> sp.Pipeline:
    return sp.Pipeline(dataset, shuffle="global", seed=3)


def truth_of(name: str, epochs: int) -> list[list[Any]]:
    """What a loop over plain numbers gives: the dataset holds the same ones."""
    pipe = cut(partial(shuffled, range(ITEMS)), STAGES[name], None, None)
    with pipe.loader(executor="inline", epochs=epochs) as loader:
        return [all_frozen(epoch) for epoch in loader.by_epoch()]


@pytest.mark.parametrize(("name", "where"), RESUMED)
def test_every_stage_is_resumed(
    name: str, where: str, source_in: Callable[[str], sp.Dataset]
) -> None:
    source = partial(shuffled, source_in(where))
    pipe = cut(source, STAGES[name], 2, 2)
    items, states = states_of(pipe, epochs=2, prefetch=2)
    assert items == list(chain(*truth_of(name, 2)))
    middle = len(items) * 2 // 3
    assert rest(pipe, states[middle], epochs=2, prefetch=2) == items[middle:]
    for at in (0, len(items) // 3, len(items)):
        assert rest(pipe, states[at], epochs=2, executor="inline") == items[at:]


@pytest.mark.parametrize(("name", "where"), KILLED)
def test_every_stage_goes_on_when_a_worker_is_killed(
    name: str, where: str, source_in: Callable[[str], sp.Dataset], tmp_path: Path
) -> None:
    """Some are killed between two items, with work or without; one or two have an item."""
    truth = truth_of(name, 2)
    total = sum(map(len, truth))
    order = list(shuffled(range(ITEMS)))
    deaths = Deaths(tmp_path, at=[order[4], order[20]])  # not all of them are taken, or skipped
    dying = shuffled(source_in(where)).map(deaths.strike, workers=2).map(record)
    pipe = STAGES[name](dying).map(same, workers=2)
    loader = pipe.loader(epochs=2, prefetch=1, restarts=None)
    assert read_killing(loader, [1, total // 3, total // 2 + 1]) == truth
    assert deaths.count > 0
    assert deaths_of(loader) > 0


@pytest.mark.parametrize("where", seldom(["folder", "s3"], keep=["s3"]))
@pytest.mark.parametrize(("old", "new"), seldom([(4, 2), (2, 3), (3, 1)], keep=[(2, 3)]))
def test_ranks_are_redistributed(
    old: int, new: int, where: str, source_in: Callable[[str], sp.Dataset]
) -> None:
    dataset = source_in(where)

    def make(rank: int, world: int) -> sp.Pipeline:
        return shuffled(dataset).shard(rank, world).map(int)

    every = list(make(0, 1))
    assert every == list(shuffled(range(ITEMS)))
    steps = 5
    options = {"executor": "inline"}
    given, states = begun(make, old, [steps] * old, **options)
    assert sorted(given) == sorted(every[: old * steps])
    left = every[old * steps :]
    ranks = finished(make, sp.redistribute(states, new), **options)
    assert dealt_in_turn(ranks) == left[: len(left) // new * new]


@pytest.mark.parametrize("where", seldom(["folder", "s3"], keep=["s3"]))
def test_ranks_have_all_of_it(where: str, source_in: Callable[[str], sp.Dataset]) -> None:
    dataset = source_in(where)
    ranks = []
    for rank in range(3):
        pipe = shuffled(dataset).shard(rank, 3).map(record, workers=2).map(same)
        with pipe.loader() as loader:
            ranks.append([int(item["number"]) for item in loader])
    assert dealt_in_turn(ranks) == [int(number) for number in shuffled(range(ITEMS))]
