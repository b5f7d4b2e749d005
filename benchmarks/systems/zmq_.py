"""ZeroMQ as one writes it by hand: PUSH and PULL over ipc, pickle 5 with buffers as frames."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import zmq

from benchmarks.base import BatchWork, Run

__all__ = ["ZmqPipeline"]

HIGH_WATER = 16
INLINE_NBYTES = 4096


def _produce(address: str, generate: Callable[[], Iterable[Any]], depth: int) -> None:
    context = zmq.Context()
    socket: Any = context.socket(zmq.PUSH)
    socket.sndhwm = depth
    socket.connect(address)
    for item in generate():
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(item, 5, buffer_callback=buffers.append)
        if buffers:
            socket.send_multipart([head, *[b.raw() for b in buffers]], copy=False)
        else:
            socket.send(head)
    socket.send(b"")
    # Stay until `close` ends this process: a receiver at its high-water mark drops what is still on
    # the way when its peer leaves, however long that peer lingered.
    signal.pause()


def _taken(socket: Any) -> Iterator[Any]:
    while True:
        head = socket.recv()
        if not head:
            return
        if socket.rcvmore:
            frames = socket.recv_multipart(copy=False)
            yield pickle.loads(head, buffers=[frame.buffer for frame in frames])
        else:
            yield pickle.loads(head)


def _bound(context: Any, address: str, depth: int) -> Any:
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = depth
    socket.bind(address)
    return socket


class _Run:
    """Processes that are forked at each epoch; takes from their sockets in turn.

    A context must not be alive while a process is forked: each epoch has its own, made afterwards.
    """

    def __init__(self, parts: list[list[Callable[..., Iterable[Any]]]], depth: int) -> None:
        self._parts, self._depth = parts, depth
        self._directory = tempfile.TemporaryDirectory(prefix="bench-zmq-")
        self._processes: list[Any] = []
        self._contexts: list[Any] = []
        self._number = 0

    def _address(self) -> str:
        self._number += 1
        return f"ipc://{Path(self._directory.name) / str(self._number)}"

    def __iter__(self) -> Iterator[Any]:
        addresses = [self._start(part) for part in self._parts]
        context = zmq.Context()
        self._contexts.append(context)
        running = [_taken(_bound(context, address, self._depth)) for address in addresses]
        while running:
            for stream in list(running):
                try:
                    yield next(stream)
                except StopIteration:
                    running.remove(stream)
        context.destroy(linger=0)

    def _start(self, stages: list[Callable[..., Iterable[Any]]]) -> str:
        """One process a stage; gives the address that the last of them connects to."""
        fork = multiprocessing.get_context("fork")
        before: str | None = None
        address = ""
        for stage in stages:
            address = self._address()
            generate = stage if before is None else _after(stage, before, self._depth)
            process = fork.Process(
                target=_produce, args=(address, generate, self._depth), daemon=True
            )
            process.start()
            self._processes.append(process)
            before = address
        return address

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        for context in self._contexts:
            context.destroy(linger=0)
        self._directory.cleanup()


def _after(
    stage: Callable[..., Iterable[Any]], address: str, depth: int
) -> Callable[[], Iterable[Any]]:
    return lambda: stage(_taken(_bound(zmq.Context(), address, depth)))


class ZmqPipeline:
    """One socket pair a worker; frames are not copied by Python on either side."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        # Frames are sent later than `send` returns: as many arrays as can lie in the queues.
        make = work.reusing(0).make
        return _Run([[_mapped(make, range(w, count, workers))] for w in range(workers)], HIGH_WATER)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        parts = [[_mapped(function, range(w, count, workers))] for w in range(workers)]
        return _Run(list(parts), HIGH_WATER)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        return _Run([[lambda: generate(count)]], 1000)

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        return _Run([[lambda: generate(count), *[middle] * hops]], 1000)


def _mapped(function: Callable[[int], Any], numbers: range) -> Callable[[], Iterable[Any]]:
    return lambda: map(function, numbers)
