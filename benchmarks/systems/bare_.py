"""The bound between two processes: three slots of shared memory, a socket, a pipe, and no promise.

What it lacks: it hangs when the other process dies, a batch that is kept is overwritten, what does
not fit is an error, nothing is counted, ended or resumed. What is left is what any transport has to
do: a copy into memory that the other process maps, a pickle of the rest, a message there and back.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.base import BatchesAlone, BatchWork, Run, Unsupported

__all__ = ["BarePipeline"]

SLOTS = 3  # one is read, one is on its way, one is written
IN_BAND = 2048
ROOM = 1 << 20
LINE = 64


class _Slot:
    """Memory that both processes map; arrays are put one behind the other."""

    def __init__(self, memory: mmap.mmap, start: int, nbytes: int) -> None:
        self.flat = np.frombuffer(memory, np.uint8, nbytes, start)
        self._address: int = self.flat.__array_interface__["data"][0]
        self.top = 0

    def empty(self, shape: int | tuple[int, ...], dtype: Any, near: Any = None) -> Any:
        kind = np.dtype(dtype)
        nbytes = math.prod((shape,) if isinstance(shape, int) else shape) * kind.itemsize
        if nbytes < IN_BAND:
            return np.empty(shape, kind)
        start, self.top = self.top, -(-(self.top + nbytes) // LINE) * LINE
        return self.flat[start : start + nbytes].view(kind).reshape(shape)

    def pickled(self, value: Any) -> bytes:
        """Which parts of the slot a value has, and all else of it."""
        parts: list[tuple[int, int]] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            flat = np.frombuffer(buffer.raw(), np.uint8)
            start = flat.__array_interface__["data"][0] - self._address
            if not 0 <= start < len(self.flat):
                return True
            parts.append((start, flat.nbytes))
            return False

        stream = pickle.dumps(value, 5, buffer_callback=keep)
        return pickle.dumps((parts, stream))

    def unpickled(self, data: memoryview) -> Any:
        parts, stream = pickle.loads(data)
        views = [self.flat[start : start + nbytes] for start, nbytes in parts]
        return pickle.loads(stream, buffers=views)


class _Run:
    def __init__(self, work: BatchWork, count: int) -> None:
        self._work, self._count = work, count
        self._pid = 0

    def __iter__(self) -> Iterator[Any]:
        nbytes = -(-(self._work.max_nbytes + ROOM) // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        memory = mmap.mmap(-1, SLOTS * nbytes, flags=flags)
        slots = [_Slot(memory, number * nbytes, nbytes) for number in range(SLOTS)]
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        back, again = os.pipe()
        with here:
            self._pid = os.fork()
            if not self._pid:
                here.close()
                self._produce(slots, there, back)
            there.close()
            os.close(back)
            buffer = bytearray(ROOM)
            whole = memoryview(buffer)
            for _ in range(self._count):
                got = here.recv_into(buffer)
                yield slots[buffer[0]].unpickled(whole[1:got])
                os.write(again, buffer[:1])
        os.close(again)

    def _produce(self, slots: list[_Slot], there: socket.socket, back: int) -> None:
        try:
            free = list(range(SLOTS))
            for number in range(self._count):
                if not free:
                    free += os.read(back, SLOTS)
                chosen = free.pop(0)
                slot = slots[chosen]
                slot.top = 0
                there.send(bytes([chosen]) + slot.pickled(self._work.fill(number, slot.empty)))
        finally:
            os._exit(0)

    def close(self) -> None:
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


class BarePipeline(BatchesAlone):
    """Batches alone, from one other process."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        if workers > 1 or epochs > 1:
            raise Unsupported("one other process, one epoch")
        return _Run(work, count)
