"""Workers that are actors: on this machine and away from it, killed, and with their node gone.

One cluster of two nodes for all of them. What is away is only told so, both nodes being this
machine, and goes over the network like what is.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import PipelineError, PoisonRecord
from tests.clusters import NODE, ray_cluster
from tests.runtime.comparing import all_frozen, frozen
from tests.runtime.dying import Deaths

ray = pytest.importorskip("ray", reason="workers are actors of Ray")
pytest.importorskip("ray.cluster_utils", reason="a cluster of several nodes")

pytestmark = [
    pytest.mark.leaks("Ray keeps threads and connections of its own until it is shut down"),
    pytest.mark.deadline(600),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]


def add_node(cluster: Any, **resources: float) -> Any:
    """Add a node with 3 CPUs, and `resources` of its own."""
    return cluster.add_node(num_cpus=3, resources=resources, **NODE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes, one of which has what is called ``far``."""
    with ray_cluster(num_cpus=3) as made:
        add_node(made, far=3)
        yield made


@pytest.fixture(autouse=True)
def _nothing_of_ours_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every actor is taken for one of another machine."""
    monkeypatch.setenv("SPLITPIPE_RAY_JOIN", "direct")


def row(number: int) -> dict[str, Any]:
    """Make something of every kind of a number: small, large, text."""
    return {"x": np.full(1500, number, np.int32), "n": number, "text": f"record {number}"}


def summed(items: Iterator[dict[str, Any]]) -> Iterator[tuple[int, Any]]:
    """Keep something from item to item."""
    total = 0
    for item in items:
        total += item["n"]
        yield total, item["x"]


class Failing:
    """Raises at one number."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __call__(self, number: int) -> int:
        if number == self._at:
            raise KeyError(f"not {number}")
        return number


def test_a_graph_of_actors_gives_the_stream_and_survives_a_death(
    cluster: Any, tmp_path: Path
) -> None:
    deaths = Deaths(tmp_path, at=[77])
    pipe = (
        sp.Pipeline(range(120), shuffle="global", seed=3)
        .map(row, workers=2)
        .map(lambda one: {**one, "struck": deaths.strike(one["n"])})
        .through(summed, workers=1)
        .batch(7)
    )
    kept = sp.Pipeline(range(120), shuffle="global", seed=3).map(row).through(summed).batch(7)
    with pipe.loader(executor="ray", epochs=2) as loader:
        assert all_frozen(loader) == all_frozen(kept.loader(executor="inline", epochs=2))
        assert [task.executor for task in loader.stats()][:2] == ["ray", "ray"]
        assert sum(task.deaths for task in loader.stats()) == deaths.count == 1


@pytest.mark.usefixtures("direct")
def test_a_killed_node_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    lost = add_node(cluster, lost=1)
    deaths = Deaths(tmp_path, at=[20])
    pipe = (
        sp.Pipeline(range(80), shuffle="global", seed=5)
        .map(row, workers=2, resources={"CPU": 1, "lost": 0.5})
        .map(lambda one: {**one, "struck": deaths.strike(one["n"])})
        .batch(4)
    )
    kept = sp.Pipeline(range(80), shuffle="global", seed=5).map(row)
    kept = kept.map(lambda one: {**one, "struck": one["n"]}).batch(4)
    truth = all_frozen(kept.loader(executor="inline", epochs=2))
    with pipe.loader(executor="ray", epochs=2) as loader:
        items = iter(loader)
        got = [frozen(next(items)) for _ in range(6)]
        cluster.remove_node(lost, allow_graceful=False)
        add_node(cluster, lost=1)
        got += all_frozen(items)
        assert got == truth
        assert sum(task.deaths for task in loader.stats()) >= 1


@pytest.mark.usefixtures("direct")
def test_away_states_errors_and_placement(cluster: Any, tmp_path: Path) -> None:
    far = {"CPU": 1, "far": 1}
    pipe = (
        sp.Pipeline(range(90), shuffle="global", seed=9)
        .map(Failing(1000), workers=2, resources=far)
        .map(row)
        .shuffle(16, workers=1)
        .batch(5, workers=1)
    )
    truth = all_frozen(pipe.loader(executor="inline"))
    before_us, trace = 1e6 * time.perf_counter(), tmp_path / "trace.json"
    with pipe.loader(executor="ray", trace=trace) as loader:
        items = iter(loader)
        assert [frozen(next(items)) for _ in range(7)] == truth[:7]
        state = loader.state_dict()
    events = json.loads(trace.read_text())
    drawn = [one for one in events if one["ph"] == "X" and one["pid"] != os.getpid()]
    assert sum(one["args"]["items"] for one in drawn if one["name"] == "work") >= 35
    # Another clock is known to half of the quickest of some messages there and back.
    until_us = 1e6 * (time.perf_counter() + 1)
    assert all(before_us < one["ts"] < until_us for one in drawn)
    with pipe.loader(executor="process", state=state) as loader:
        assert all_frozen(loader) == truth[7:]
    failing = sp.Pipeline(range(90)).map(Failing(60), workers=2)
    with failing.loader(executor="ray", state=None) as loader:
        got = []
        with pytest.raises(KeyError, match="not 60") as caught:
            got.extend(loader)
        assert got == list(range(60))
        assert any("Failing" in note for note in caught.value.__notes__)


def fatal(at: int, number: int) -> int:
    """End the worker at one number, whoever it is."""
    if number == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.usefixtures("direct")
def test_away_items_that_end_their_workers_are_named(cluster: Any, tmp_path: Path) -> None:
    left = tmp_path / "left.jsonl"
    pipe = (
        sp.Pipeline(range(60), shuffle="global", seed=2)
        .map(partial(fatal, 8), workers=1, on_error=sp.quarantine(left), name="first")
        .map(partial(fatal, 7), name="second")
    )
    order = list(sp.Pipeline(range(60), shuffle="global", seed=2).loader(executor="inline"))
    assert order.index(8) < order.index(7)
    got = []
    loader = pipe.loader(executor="ray")
    with loader, pytest.raises(PoisonRecord, match=r"record 7 .* 3 workers in stage 'second'"):
        got.extend(loader)
    truth = [x for x in order[: order.index(7)] if x != 8]
    assert got == truth[: len(got)]  # what was on its way with the last worker is not made again
    assert len(got) > order.index(8)
    (failed,) = sp.read_quarantine(left)
    assert (failed.record, failed.position) == (8, order.index(8))
    assert "has ended 3 workers" in failed.message


def doubled(number: int) -> dict[str, int]:
    """Make a record."""
    return {"n": number, "twice": 2 * number}


def test_a_job_on_actors_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    def job(name: str) -> sp.Job:
        return sp.Job(sp.Pipeline(range(60)).map(doubled), tmp_path / name, task=10, bins=2)

    job("here").run(workers=0)
    assert job("there").run(executor="ray", workers=1, limit=30).done == 30
    summary = job("there").run(executor="ray", resources={"CPU": 0.5, "far": 1})
    assert (summary.resumed_at, summary.done, summary.finished) == (30, 60, True)
    with sp.open_dataset(tmp_path / "here") as here, sp.open_dataset(tmp_path / "there") as there:
        assert list(here) == list(there)


def test_what_no_node_has_is_said(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITPIPE_RAY_PLACE_S", "1")
    pipe = sp.Pipeline(range(9)).map(row, workers=1, resources={"unheard-of": 1})
    with pytest.raises(PipelineError, match="unheard-of"):
        pipe.loader(executor="ray")
