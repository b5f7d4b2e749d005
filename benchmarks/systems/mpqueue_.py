"""``multiprocessing.Queue`` as one writes it by hand: a process, a queue, a sentinel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.base import BatchWork, Run

__all__ = ["MpQueuePipeline"]

DEPTH = 16


def _produce(out: Any, generate: Callable[[], Iterable[Any]]) -> None:
    for item in generate():
        out.put((item,))
    out.put(None)


def _taken(queue: Any) -> Iterator[Any]:
    while (item := queue.get()) is not None:
        yield item[0]


class _Run:
    """Processes that are forked at each epoch; takes from their queues in turn."""

    def __init__(self, parts: list[list[Callable[..., Iterable[Any]]]]) -> None:
        self._parts = parts
        self._processes: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        running = [self._start(part) for part in self._parts]
        while running:
            for queue in list(running):
                item = queue.get()
                if item is None:
                    running.remove(queue)
                else:
                    yield item[0]

    def _start(self, stages: list[Callable[..., Iterable[Any]]]) -> Any:
        """One process a stage, a queue behind each; the last queue is the consumer's."""
        fork = multiprocessing.get_context("fork")
        queue: Any = None
        for stage in stages:
            before, queue = queue, fork.Queue(DEPTH)
            generate = stage if before is None else _after(stage, before)
            process = fork.Process(target=_produce, args=(queue, generate), daemon=True)
            process.start()
            self._processes.append(process)
        return queue

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        self._processes.clear()


def _after(stage: Callable[..., Iterable[Any]], queue: Any) -> Callable[[], Iterable[Any]]:
    return lambda: stage(_taken(queue))


class MpQueuePipeline:
    """One queue a worker, sixteen items deep, as MpQItr has it."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        # The queue pickles in a thread of its own, later than the producer goes on.
        return self.map(work.reusing(0).make, count, workers=workers)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        return _Run([[_mapped(function, range(w, count, workers))] for w in range(workers)])

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        return _Run([[lambda: generate(count)]])

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        return _Run([[lambda: generate(count), *[middle] * hops]])


def _mapped(function: Callable[[int], Any], numbers: range) -> Callable[[], Iterable[Any]]:
    return lambda: map(function, numbers)
