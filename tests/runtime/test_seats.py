"""Where worker processes sit, and what they find there."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.runtime import seats as module
from splitpipe.runtime.allowance import Allowance, Node
from splitpipe.runtime.maththreads import VARIABLES, can_tell
from splitpipe.runtime.seat import Seat
from splitpipe.runtime.seats import explain_seats, seats

EIGHT = Allowance(frozenset(range(8)))
TWO_NODES = Allowance(
    frozenset(range(8)),
    nodes=(Node(0, frozenset(range(4))), Node(1, frozenset(range(4, 8)))),
)


@pytest.fixture(autouse=True)
def _nobody_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def planned(**options: Any) -> Any:
    pipe = (
        sp.Pipeline(range(99))
        .map(abs, workers=3)
        .map(abs, workers=2, executor="thread")
        .through(list, workers=1)
    )
    return plan({"": pipe.node}, RunOptions(**options))


def test_processes_share_the_cpus_and_threads_are_left_alone() -> None:
    assert seats(planned().tasks, EIGHT) == [Seat(None, 2)] * 3 + [Seat()] * 2 + [Seat(None, 2)]
    assert seats(planned(executor="thread").tasks, EIGHT) == [Seat()] * 6


def test_a_single_process_has_everything() -> None:
    made = plan({"": sp.Pipeline(range(9)).map(abs, workers=1).node}, RunOptions())
    assert seats(made.tasks, EIGHT) == [Seat()]


def test_workers_are_spread_over_nodes() -> None:
    first, second, third, *_, last = seats(planned().tasks, TWO_NODES)
    assert (first.cpus, second.cpus) == (frozenset(range(4)), frozenset(range(4, 8)))
    assert third.cpus == first.cpus
    assert last.cpus is None


def test_what_the_user_decided_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert seats(planned().tasks, EIGHT)[0].threads is None
    assert explain_seats(planned(), EIGHT) == "numeric libraries: as OMP_NUM_THREADS says"


def test_it_is_said() -> None:
    said = explain_seats(planned(), TWO_NODES)
    assert said.startswith("numeric libraries: 2 threads in each worker process (8 CPUs)")
    assert said.endswith("; workers spread over 2 NUMA nodes")
    assert ("without threadpoolctl" in said) is not can_tell()
    assert explain_seats(planned(executor="thread"), EIGHT) == ""


def here(_: int) -> Any:
    found: Any = None
    if can_tell():
        import threadpoolctl

        found = sorted({one["num_threads"] for one in threadpoolctl.threadpool_info()})
    return os.environ.get("OMP_NUM_THREADS"), found


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_sit_down_before_they_work(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allowance", lambda: Allowance(frozenset(range(6))))
    pipe = sp.Pipeline(range(4)).map(here, workers=2)
    with pipe.loader(start_method=method) as loader:
        assert "numeric libraries: 3 threads" in loader.explain()
        assert pipe.explain(start_method=method) == loader.explain()
        assert set(map(repr, loader)) == {repr(("3", [3] if can_tell() else None))}
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says where a process runs")
def test_a_seat_has_its_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = sorted(os.sched_getaffinity(0))
    one, other = frozenset(mine[:1]), frozenset(mine[-1:])
    nodes = (Node(0, one), Node(1, other))
    monkeypatch.setattr(module, "allowance", lambda: Allowance(one | other, nodes=nodes))
    pipe = sp.Pipeline(range(200)).map(_places, workers=2)
    with pipe.loader(start_method="fork") as loader:
        assert set(loader) <= {tuple(one), tuple(other)}


def _places(_: int) -> Any:
    return tuple(os.sched_getaffinity(0))
