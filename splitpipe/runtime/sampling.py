"""Which stage of a task the time goes into.

Responsible for: `Sampler`, which looks now and then at what a worker is doing and counts the time
since the last look for the innermost stage it finds there.

Rules:
- time on a CPU is sampled by a timer that counts it (``ITIMER_PROF``), in the worker's own thread.
  A thread that samples another one gets to look only when that one lets go of the interpreter, and
  so would find it in decoders and copies that do, however short they are;
- time off it (files, networks, sleeping) is sampled by a thread, which is right there: a thread
  that is off the CPU holds no interpreter. That thread sleeps while the worker waits. Time in which
  the worker could have run and other programs did (Linux says how much) belongs to no stage;
- every look counts for all the time since the last one, so that a call that cannot be interrupted
  counts as long as it took;
- where the timer is not ours to use (a worker that is a thread, a system without it, a program that
  uses it itself) nothing is sampled: no number is better than a wrong one;
- it ends with its worker, and holds no frame and no item between two looks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from splitpipe.runtime import board as b
from splitpipe.runtime.metrics import Meter

__all__ = ["Sampler"]

CPU_S = 0.04
"""CPU time between two looks of the timer: 25 a second cost 0.02 %."""
LOOK_S = 0.05
"""Time between two looks of the thread, ..."""
RARE_LOOK_S = 0.8
"""... and when there is nothing to see: each look takes the interpreter away from the worker, which
on a machine with more to do than CPUs may cost it its turn."""
_AGAIN_S = 0.0003
_IDLE_LOOKS = 4
_OFF_SHARE = 0.1


class Sampler:
    """Samples the thread that makes it, which is the worker of `meter`; `close` has to follow.

    Args:
        meter: what to tell.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._worker = threading.get_ident()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._on_cpu = time.thread_time()
        self._off = 0.0
        self._thread: threading.Thread | None = None
        self._queue: int | None = None
        clock = getattr(time, "pthread_getcpuclockid", None)
        self._clock = clock(self._worker) if clock is not None else None
        self.active = self._start_timer()
        """Whether it samples."""
        if self.active and self._clock is not None:
            with contextlib.suppress(OSError):
                path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
                self._queue = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                before = self._queued()
                meter.starved = lambda: self._queued() - before
            self._thread = threading.Thread(target=self._run, name="splitpipe-sampler", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking. Safe to call twice."""
        if self.active:
            self.active = False
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)  # throws away one that is on its way
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
        self._meter.starved = None
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        queue, self._queue = self._queue, None
        if queue is not None:
            os.close(queue)

    # -- on the CPU

    def _start_timer(self) -> bool:
        if not hasattr(signal, "setitimer"):
            return False
        if threading.current_thread() is not threading.main_thread():
            return False
        if signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL:
            return False
        signal.signal(signal.SIGPROF, self._look)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, CPU_S, CPU_S)
        return True

    def _look(self, _number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        spent, self._on_cpu = now - self._on_cpu, now
        self._meter.sample(frame, spent)

    # -- off it

    def _run(self) -> None:
        meter, idle, pause = self._meter, 0, LOOK_S
        last = self._reading()
        while not self._stop.wait(pause):
            reading = self._reading()
            self._off += max(0.0, reading - last)
            last = reading
            if meter.state != b.BUSY:
                idle += 1
                if idle > _IDLE_LOOKS:
                    self._sleep()
                    last, idle, pause = self._reading(), 0, LOOK_S
                continue
            idle = 0
            if self._off > _OFF_SHARE * pause:
                self._look_from_outside()
                pause = LOOK_S
            else:
                pause = min(2 * pause, RARE_LOOK_S)

    def _reading(self) -> float:
        """Seconds in which the worker neither waited for others, nor ran, nor could have run."""
        meter = self._meter
        waits = meter.wait_input_s + meter.wait_output_s
        now = time.perf_counter()
        if meter.state != b.BUSY:
            waits += now - meter.since
        return now - waits - self._cpu() - self._queued()

    def _cpu(self) -> float:
        assert self._clock is not None
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0  # the worker's thread is gone

    def _queued(self) -> float:
        """Seconds for which it could have run and did not, where the system counts them."""
        if self._queue is None:
            return 0.0
        try:
            _, waited, *_ = os.pread(self._queue, 100, 0).split()
        except (OSError, ValueError):
            return 0.0
        return int(waited) * 1e-9

    def _look_from_outside(self) -> None:
        before = self._cpu()
        self._stop.wait(_AGAIN_S)
        if self._cpu() - before > _AGAIN_S / 3 or self._meter.state != b.BUSY:
            return  # it runs now: what it did meanwhile is counted when it is off again
        spent, self._off = self._off, 0.0
        frame: Any = sys._current_frames().get(self._worker)
        self._meter.sample(frame, spent)

    def _sleep(self) -> None:
        """Sleep until the worker has something to do."""
        self._wake.clear()
        self._meter.awake = self._wake.set
        if self._meter.state != b.BUSY and not self._stop.is_set():
            self._wake.wait()
