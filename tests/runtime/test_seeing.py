"""Looking at real runs: statistics, log, trace, the doctor's prognosis."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.board import boards

PAUSE = threading.Event()
"""Never set: `wait` is work that takes its time and no CPU."""


def pause(item: Any, seconds: float) -> Any:
    PAUSE.wait(seconds)
    return item


def slow(item: Any) -> Any:
    return pause(item, 0.012)


def quick(item: Any) -> Any:
    return pause(item, 0.0005)


class TestStatistics:
    def test_of_stages_memory_and_cpu(self) -> None:
        pipe = sp.Pipeline(range(400)).map(slow, workers=1).filter(even).map(quick)
        with pipe.loader() as loader:
            for _ in range(100):
                next(loader)
            task, consumer = loader.stats()
        assert task.name == "slow > even > quick"
        assert [stage.name for stage in task.stages] == ["source", "slow", "even", "quick"]
        shares = {stage.name: stage.share or 0.0 for stage in task.stages}
        assert max(shares, key=lambda name: shares[name]) == "slow"
        assert task.rss_nbytes is not None
        assert task.rss_nbytes > 1 << 20
        assert 0 < task.cpu_s < task.running_s
        assert 80 <= task.stages[2].dropped <= 110  # of some milliseconds ago
        assert task.utilisation > consumer.utilisation
        assert consumer.items_in == 100
        assert task.start_s is not None
        assert consumer.first_s is not None
        assert task.start_s <= consumer.first_s

    def test_arena_and_costs(self) -> None:
        pipe = sp.Pipeline(range(40)).map(ones, workers=2)
        with pipe.loader() as loader:
            assert sum(int(array[0]) for array in loader) == 40
            task = loader.stats()[0]
        assert task.nbytes >= 40 << 20
        assert task.arena_slots > 0
        assert 1 << 20 <= task.arena_nbytes <= task.arena_limit
        assert task.cpu_s_per_gb is not None
        assert task.cpu_s_per_gb > 0

    def test_queue_of_a_reader_that_is_late(self) -> None:
        pipe = sp.Pipeline(range(20)).map(ones, workers=1)
        with pipe.loader(prefetch=3) as loader:
            next(loader)
            # It runs ahead as far as it may, and waits there.
            while not (task := loader.stats()[0]).wait_output_s > 0.02:
                PAUSE.wait(0.01)
            assert (task.items_out, task.queued) == (3, 2)  # the third is the one we hold

    def test_stay_as_they_were(self) -> None:
        with sp.Pipeline(range(9)).map(int, workers=1).loader() as loader:
            list(loader)
        first = loader.stats()
        PAUSE.wait(0.01)
        assert loader.stats() == first
        assert loader.doctor() == loader.doctor()

    def test_of_threads(self) -> None:
        pipe = sp.Pipeline(range(50)).map(slow, workers=2)
        with pipe.loader(executor="thread") as loader:
            list(loader)
            task, consumer = loader.stats()
        assert task.executor == "thread"
        assert (task.items_in, task.items_out, task.workers) == (50, 50, 2)
        assert consumer.items_in == 50
        assert all(stage.share is None for stage in task.stages)

    def test_of_several_outputs(self) -> None:
        decoded = sp.Pipeline(range(40)).map(quick, workers=1)
        loaders = sp.run({"train": decoded.batch(4, workers=1), "seen": decoded})
        try:
            for _ in range(10):
                next(loaders["train"])
                for _ in range(4):
                    next(loaders["seen"])
            train, seen = loaders["train"].stats(), loaders["seen"].stats()
        finally:
            for loader in loaders.values():
                loader.close()
        assert [task.name for task in train] == [task.name for task in seen]
        assert (train[-1].items_in, seen[-1].items_in) == (10, 40)
        assert train[0].running_s > 0

    def test_inline(self) -> None:
        pipe = sp.Pipeline(range(10)).filter(even)
        with pipe.loader(executor="inline") as loader:
            list(loader)
            (task,) = loader.stats()
            assert not [view for view in boards() if view.heading.run == run_of(loader)]
        assert (task.name, task.workers, task.items_in, task.dropped) == ("even", 0, 10, 5)
        assert loader.doctor().kind == "inline"


class TestLog:
    def test_beginning_first_item_and_end(self, caplog: pytest.LogCaptureFixture) -> None:
        with (
            caplog.at_level(logging.INFO, logger="splitpipe"),
            sp.Pipeline(range(6)).map(int, workers=2).loader() as loader,
        ):
            list(loader)
        started, first, ended = [r.getMessage() for r in caplog.records if r.name == "splitpipe"]
        assert "int (2 processes)" in started
        assert "first item after" in first
        assert "6 items" in ended
        assert len({text.split(":")[0] for text in (started, first, ended)}) == 1

    def test_slow_start(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitpipe.runtime.observer.SLOW_START_S", 0.0)
        with (
            caplog.at_level(logging.WARNING, logger="splitpipe"),
            sp.Pipeline(range(6)).map(int, workers=1).loader() as loader,
        ):
            list(loader)
        (record,) = caplog.records
        assert "slow start" in record.getMessage()


class TestTrace:
    def test_of_a_run(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        pipe = sp.Pipeline(range(60)).map(slow, workers=2).batch(4, workers=1)
        with pipe.loader(trace=path) as loader:
            list(loader)
        events = json.loads(path.read_text(encoding="utf-8"))
        names = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
        assert names == {
            *("worker 0 of slow", "worker 1 of slow", "worker 0 of batch(4)"),
            "consumer",
        }
        spans = [event for event in events if event["ph"] == "X"]
        assert {span["name"] for span in spans} >= {"work", "wait for input"}
        assert len({span["pid"] for span in spans}) == 4
        items = [span["args"]["items"] for span in spans if span["tid"] in (0, 1)]
        assert sum(items) == 60
        assert {e["name"] for e in events if e["ph"] == "C"} == {"queued: slow", "queued: batch(4)"}

    def test_stays_below_the_limit_that_was_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        pipe = sp.Pipeline(range(60)).map(slow, workers=2).batch(4, workers=1)
        with pipe.loader(trace=sp.TraceFile(path, limit_bytes=np.int64(3000))) as loader:
            assert len(list(loader)) == 15
        assert path.stat().st_size <= 3000 + 200  # what ends the file is not counted
        assert json.loads(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("trace", [7, sp.TraceFile])
    def test_what_is_no_file(self, trace: Any) -> None:
        with pytest.raises(sp.GraphError, match="trace must be a path or a TraceFile"):
            sp.Pipeline(range(6)).loader(trace=trace)
        with pytest.raises(sp.GraphError, match="limit_bytes must be"):
            sp.TraceFile("trace.json", limit_bytes=0)

    def test_when_a_worker_is_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.json"
        pipe = sp.Pipeline(range(60)).map(fatal, workers=2)
        with pytest.raises(sp.PoisonRecord), pipe.loader(trace=str(path)) as loader:
            list(loader)
        assert json.loads(path.read_text(encoding="utf-8"))

    def test_where_nobody_may_write(self, tmp_path: Path) -> None:
        with pytest.raises(sp.StorageError, match="trace"):
            sp.Pipeline(range(6)).map(int).loader(trace=tmp_path / "none" / "trace.json")


class TestRandomNumbers:
    """Whoever draws from numpy's generator draws what was there when the workers began."""

    def test_that_come_twice_are_told(self) -> None:
        noisy(0)  # from now on this process has a generator that a fork copies
        pipe = sp.Pipeline(range(60)).map(noisy, workers=2)
        with (
            pytest.warns(RuntimeWarning, match="'noisy' draws from numpy.random.*0, 1.*rng"),
            pipe.loader(start_method="fork") as loader,
        ):
            list(loader)

    def test_of_the_items_are_right(self) -> None:
        pipe = sp.Pipeline(range(60)).map(well_made, workers=2)
        with pipe.loader() as loader:
            assert len(set(loader)) == 60

    def test_of_python_are_seeded_anew(self) -> None:
        pipe = sp.Pipeline(range(60)).map(drawn_from_python, workers=2)
        with pipe.loader() as loader:
            assert len(set(loader)) == 60

    def test_of_one_worker_come_once(self) -> None:
        with sp.Pipeline(range(30)).map(noisy, workers=1).loader() as loader:
            assert len(set(loader)) == 30

    def test_of_threads_come_once(self) -> None:
        pipe = sp.Pipeline(range(30)).map(noisy, workers=2)
        with pipe.loader(executor="thread") as loader:
            assert len(set(loader)) == 30


def noisy(item: int) -> float:
    PAUSE.wait(0.004)  # so that both workers get some
    return item + float(np.random.random()) / 2


def well_made(item: int, rng: np.random.Generator) -> float:
    return item + float(rng.random()) / 2


def drawn_from_python(item: int) -> float:
    PAUSE.wait(0.004)
    return item + random.random() / 2


def even(item: int) -> bool:
    return item % 2 == 0


def ones(_item: int) -> Any:
    return np.ones(1 << 20, np.uint8)


def fatal(item: int) -> int:
    if item == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def run_of(loader: Any) -> int:
    return int(loader._run.observer.heading.run)
