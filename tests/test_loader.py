"""The loader as a training loop holds it: iterating, leaving, closing, counting."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import splitpipe as sp


def grow(x: int) -> Any:
    return np.full(50_000, x)


def numbers() -> Iterator[int]:
    x = 0
    while True:
        yield x
        x += 1


def endless(workers: int = 2) -> sp.Pipeline:
    return sp.Pipeline(numbers).map(grow, workers=workers)


WITHIN_S = 30.0
"""How long an end may take on a machine that is busy. On a quiet one it is a fraction of a second:
benchmarks/ measures that.
"""


def workers_of(loader: sp.Loader) -> list[psutil.Process]:
    assert loader._run.supervisor is not None
    return [psutil.Process(pid) for pid in loader._run.supervisor.pids]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != "zombie" for p in processes)


@pytest.mark.parametrize("transport", ["pipe", "zmq"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
class TestEndings:
    def test_break(self, method: str, transport: str) -> None:
        with endless().loader(start_method=method, transport=transport) as loader:
            for i, batch in enumerate(loader):
                assert batch[0] == i
                if i == 5:
                    break
            processes = workers_of(loader)
            since = time.monotonic()
        assert time.monotonic() - since < WITHIN_S
        assert all_gone(processes)
        assert batch[0] == 5

    def test_an_exception_in_the_body(self, method: str, transport: str) -> None:
        processes: list[psutil.Process] = []

        def train() -> None:
            with endless().loader(start_method=method, transport=transport) as loader:
                next(loader)
                processes.extend(workers_of(loader))
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            train()
        assert len(processes) == 3
        assert all_gone(processes)

    def test_collection(self, method: str, transport: str) -> None:
        loader = endless().loader(start_method=method, transport=transport)
        next(loader)
        processes = workers_of(loader)
        with pytest.warns(ResourceWarning, match="was not closed"):
            del loader  # and nothing else holds it
        assert all_gone(processes)

    def test_collection_before_the_first_item(self, method: str, transport: str) -> None:
        loader = endless().loader(start_method=method, transport=transport)
        processes = workers_of(loader)
        with pytest.warns(ResourceWarning):
            del loader
        assert all_gone(processes)


class TestClose:
    @pytest.mark.parametrize("executor", ["process", "inline"])
    def test_twice_and_in_the_middle(self, executor: str) -> None:
        loader = endless().loader(start_method="fork", executor=executor)
        next(loader)
        loader.close()
        loader.close()
        with pytest.raises(StopIteration):
            next(loader)
        assert list(loader.by_epoch()) == []

    @pytest.mark.parametrize("method", ["fork", "forkserver"])
    def test_with_a_stuck_worker(self, method: str) -> None:
        pipe = sp.Pipeline(range(9)).map(stuck, workers=2)
        with pipe.loader(start_method=method) as loader:
            assert next(loader) == 0
            processes = workers_of(loader)
            since = time.monotonic()
        assert time.monotonic() - since < WITHIN_S
        assert all_gone(processes)

    def test_while_another_thread_waits(self) -> None:
        loader = sp.Pipeline(range(9)).map(stuck, workers=1).loader(start_method="fork")
        assert next(loader) == 0
        raised: list[BaseException] = []
        waiting = threading.Event()

        def read() -> None:
            waiting.set()
            try:
                next(loader)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        waiting.wait()
        loader.close()
        thread.join(120)
        assert not thread.is_alive()
        assert isinstance(raised[0], (sp.SplitpipeError, StopIteration))

    def test_closes_the_generators_of_local_stages(self) -> None:
        closed = []

        def stream(items: Iterator[int]) -> Iterator[int]:
            try:
                yield from items
            finally:
                closed.append(True)

        for executor in ("process", "inline"):
            pipe = sp.Pipeline(range(9)).map(int, workers=1).through(stream, workers=0)
            with pipe.loader(start_method="fork", executor=executor) as loader:
                next(loader)
            assert closed.pop()

    def test_closes_the_generators_of_workers(self, tmp_path: Any) -> None:
        def stream(items: Iterator[int]) -> Iterator[int]:
            try:
                yield from items
            finally:
                (tmp_path / "closed").touch()

        with sp.Pipeline(numbers).through(stream).loader(start_method="fork") as loader:
            next(loader)
        assert (tmp_path / "closed").exists()

    def test_an_exhausted_loader_has_ended_everything(self) -> None:
        loader = sp.Pipeline(range(9)).map(grow, workers=2).loader(start_method="fork")
        processes = workers_of(loader)
        kept = list(loader)
        assert all_gone(processes)
        assert [int(batch[0]) for batch in kept] == list(range(9))
        with pytest.raises(StopIteration):
            next(loader)


def stuck(x: int) -> int:
    if x > 0:
        threading.Event().wait()
    return x


class TestFork:
    """A process that forks while it reads: the child's copies of things are not the things."""

    def test_a_child_that_leaves_does_not_end_the_run(self) -> None:
        with endless(1).loader(start_method="fork") as loader:
            kept = next(loader)
            child = os.fork()
            if child == 0:
                try:
                    loader.close()
                    del loader, kept
                    gc.collect()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            for i in range(1, 30):
                assert (next(loader) == i).all()
            assert (kept == 0).all()

    def test_a_child_that_drops_items_does_not_free_their_memory(self) -> None:
        with endless(1).loader(start_method="fork", prefetch=4) as loader:
            kept = [next(loader) for _ in range(3)]
            child = os.fork()
            if child == 0:
                kept.clear()
                os._exit(0)
            os.waitpid(child, 0)
            for i in range(3, 40):
                assert (next(loader) == i).all()
            assert [int(batch.max()) for batch in kept] == [0, 1, 2]


class TestEpochs:
    @pytest.mark.parametrize("executor", ["process", "inline"])
    @pytest.mark.parametrize("sequential", [True, False])
    def test_by_epoch(self, sequential: bool, executor: str) -> None:
        source: Any = (lambda: iter(range(5))) if sequential else range(5)
        pipe = sp.Pipeline(source).map(int, workers=2)
        with pipe.loader(executor=executor, start_method="fork", epochs=4) as loader:
            got = []
            for epoch in loader.by_epoch():
                assert loader.epoch == len(got)
                got.append(list(epoch) if loader.epoch != 1 else [next(epoch)])
        assert got == [[0, 1, 2, 3, 4], [0], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]

    def test_an_epoch_that_is_not_looked_at_is_skipped(self) -> None:
        for source in (range(500), lambda: iter(range(500))):
            pipe = sp.Pipeline(source, **shuffled(source)).map(int, workers=2)
            expected = [
                list(epoch) for epoch in pipe.loader(executor="inline", epochs=3).by_epoch()
            ]
            with pipe.loader(start_method="fork", epochs=3) as loader:
                epochs = loader.by_epoch()
                next(epochs)
                next(epochs)
                assert list(next(epochs)) == expected[2]

    def test_leaving_an_endless_epoch(self) -> None:
        pipe = sp.Pipeline(numbers).map(lambda x: x, workers=2)
        with pipe.loader(start_method="fork", epochs=None) as loader:
            for _, epoch in zip(range(5), loader.by_epoch(), strict=False):
                assert [next(epoch) for _ in range(3)] == [0, 1, 2]

    def test_workers_persist(self) -> None:
        pipe = sp.Pipeline(range(6)).map(lambda _: os.getpid(), workers=2)
        with pipe.loader(start_method="fork", epochs=5) as loader:
            assert len(set(loader)) <= 2


def shuffled(source: Any) -> dict[str, Any]:
    return {} if callable(source) else {"shuffle": "global"}


class TestItemsAreLetGo:
    """An item is not held while the next one is made: it may hold a slot that is needed for it."""

    @pytest.mark.parametrize("executor", ["process", "inline"])
    @pytest.mark.parametrize("stages", ["none", "map", "filter", "flat_map", "through"])
    def test_of_a_local_stage(self, stages: str, executor: str) -> None:
        held: list[weakref.ref[Any]] = []

        def look(item: Any) -> Any:
            assert all(ref() is None for ref in held)
            held.append(weakref.ref(item))
            return item

        def stream(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                yield item
                del item

        pipe = sp.Pipeline(range(6)).map(grow, workers=1).map(look, workers=0)
        if stages == "map":
            pipe = pipe.map(lambda x: x)
        elif stages == "filter":
            pipe = pipe.filter(lambda x: True)
        elif stages == "flat_map":
            pipe = pipe.flat_map(lambda x: iter([x]))
        elif stages == "through":
            pipe = pipe.through(stream)
        with pipe.loader(executor=executor, start_method="fork") as loader:
            for _ in range(6):
                next(loader)


class TestStatistics:
    def test_count_what_went_through(self) -> None:
        pipe = (
            sp.Pipeline(range(100))
            .filter(lambda x: x % 4 == 0, workers=2, name="quarter")
            .batch(4, drop_last=True, workers=1, name="four")
        )
        with pipe.loader(start_method="fork", epochs=2) as loader:
            assert len(list(loader)) == 12
            quarter, four, consumer = loader.stats()
        assert (quarter.name, quarter.workers, quarter.items_in) == ("quarter", 2, 200)
        assert (quarter.items_out, quarter.dropped) == (50, 150)
        assert (four.name, four.items_out, four.dropped) == ("four", 12, 2)
        assert (consumer.workers, consumer.items_in) == (0, 12)
        for task in (quarter, four, consumer):
            assert task.running_s >= 0
            assert task.busy_s >= 0

    def test_stay_readable(self) -> None:
        loader = sp.Pipeline(range(9)).map(int, workers=1).loader(start_method="fork")
        before = loader.stats()[0]
        assert before.items_out <= 9
        list(loader)
        assert loader.stats()[0].items_out == 9


def test_repr_is_one_line_of_truth() -> None:
    loader = sp.Pipeline(range(3)).map(int).loader(executor="inline")
    assert repr(loader) == "Loader(Pipeline(range(0, 3)) > map(int); inline, epoch -1)"
    next(loader)
    assert "epoch 0" in repr(loader)
    loader.close()
    assert "over" in repr(loader)
    assert "\n" not in repr(loader)


def test_loaders_in_threads_do_not_disturb_one_another() -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        pipe = sp.Pipeline(range(300)).map(lambda x: x + number, workers=2)
        with pipe.loader(epochs=2) as loader:
            results[number] = list(loader)

    pipe = sp.Pipeline(range(3)).map(int)
    assert list(pipe.loader()) == [0, 1, 2]  # the fork server runs before there are threads
    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [x + n for x in range(300)] * 2 for n in range(4)}
