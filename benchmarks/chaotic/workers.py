"""Workers killed at random while a loop reads, and the hash of what it read.

Responsible for: the pipeline, the killer, the watchdog, and the figures.

Rules:
- a kill happens at a moment that the pipeline cannot foresee: the killer draws at which batch it is
  due, and how much later;
- only processes that run a stage, or stand by to do so, are killed, whichever of them is drawn: one
  that was just started is as good as any;
- every process of the pipeline notes in a log when it made its first item: that is how the time
  until the work went on is known, without asking the runtime.
"""

from __future__ import annotations

import faulthandler
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import splitpipe as sp
from benchmarks.chaotic.report import Report, spread
from splitpipe.testing.faults import FaultLog

__all__ = ["stream", "worker_chaos"]

PRELOADED = ["__main__", __name__, "numpy.random", "splitpipe.dataset", "splitpipe.storage"]
"""What a program imports that cares how long a new worker takes: the fork server does it once."""

BATCH = 64
TELL_S = 10.0
DELAY_S = 0.004
"""A kill comes so much later than the item that it is due at, at most."""


def tokens(rng: Any, record: bytes) -> Any:
    """A record as tokens: some arithmetic, and random numbers of its place."""
    made = np.frombuffer(record, np.uint8).astype(np.int32)
    return (made * 31 + rng.integers(0, 1000, dtype=np.int32)) % 50257


def short(made: Any) -> bool:
    return len(made) < 62


def first_item(log: FaultLog, seen: set[int], items: Iterator[Any]) -> Iterator[Any]:
    """Note that this process is at work."""
    for item in items:
        if os.getpid() not in seen:
            seen.add(os.getpid())
            log.claim(None, item="first")
        yield item
        del item


class Noted:
    """`tokens`, noting the first item of its process."""

    def __init__(self, log: FaultLog) -> None:
        self._log = log
        self._seen = 0

    def __call__(self, record: bytes, rng: Any) -> Any:
        if self._seen != os.getpid():
            self._seen = os.getpid()
            self._log.claim(None, item="first")
        return tokens(rng, record)


def stream(
    folder: Path, records: int, workers: int, seed: int, *, whole: bool = False
) -> sp.Pipeline:
    """The pipeline: a shuffled dataset, a pool with a filter, another process, batches.

    With `whole`, stages over the whole stream as well: those are begun anew after every death.
    """
    path = folder / "data"
    if not path.exists():
        sp.write_split_data(path, list(_records(records)), splits=8)
    log = FaultLog(folder / "first")
    pipe = sp.Pipeline(sp.open_dataset(path), shuffle="global", seed=seed)
    pipe = pipe.map(Noted(log), workers=workers, name="tokens").filter(short)
    if whole:
        pipe = pipe.shuffle(1000).through(partial(first_item, log, set()), workers=1, name="order")
    return pipe.map(zlib.crc32, workers=1, name="sum").batch(BATCH)


def _records(count: int) -> Iterator[bytes]:
    block = bytes(range(256)) * 2
    for number in range(count):
        start = number % 251
        yield block[start : start + 16 + number % 48]


class _Killer:
    """Kills a worker of this process when it is told so, a moment later."""

    def __init__(self, rng: random.Random, kills: list[float]) -> None:
        self._rng = rng
        self._kills = kills
        self._due = threading.Semaphore(0)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._thread.start()

    def due(self) -> None:
        """Let one die soon."""
        self._due.release()

    def close(self) -> None:
        self._over = True
        self._due.release()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._due.acquire()
            if self._over:
                return
            while not self._strike() and not self._over:
                pass  # others take their place at this moment

    def _strike(self) -> bool:
        time.sleep(self._rng.random() * DELAY_S)
        victims = worker_pids()
        if not victims:
            return False
        try:
            os.kill(self._rng.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._kills.append(time.monotonic())
        return True


def worker_pids() -> list[int]:
    """Processes that this one's loaders have started: children, and a fork server's children."""
    found = []
    for child in _children(os.getpid()):
        try:
            line = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"multiprocessing.forkserver" in line and b"spawn_main" not in line:
            found += _children(child)
        elif b"resource_tracker" not in line:
            found.append(child)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        found = [one.pid for one in psutil.Process(pid).children()]
    return found


@dataclass(slots=True)
class _Read:
    """What a loop got."""

    digest: str
    items: int
    seconds: float
    arrived_s: list[float]
    deaths: int


def _read(
    pipe: sp.Pipeline,
    options: Mapping[str, Any],
    hang_s: float,
    killer: _Killer | None = None,
    due: Sequence[int] = (),
) -> _Read:
    """Read all of `pipe`; at each of the batches of `due`, somebody has to die."""
    total = hashlib.blake2b(digest_size=16)
    items, struck, arrived = 0, 0, []
    begin = time.monotonic()
    tell = begin + TELL_S
    with pipe.loader(**options) as loader:
        for batch in loader:
            # Ended with every stack on stderr when the next one does not come.
            faulthandler.dump_traceback_later(hang_s, exit=True)
            total.update(batch.tobytes())
            items += 1
            arrived.append(time.monotonic())
            while killer is not None and struck < len(due) and items >= due[struck]:
                struck += 1
                killer.due()
            if arrived[-1] > tell:
                tell += TELL_S
                print(f"  {items} batches, {arrived[-1] - begin:.0f} s", file=sys.stderr)
            del batch
        deaths = sum(task.deaths for task in loader.stats())
    faulthandler.cancel_dump_traceback_later()
    return _Read(total.hexdigest(), items, time.monotonic() - begin, arrived, deaths)


def worker_chaos(
    *,
    kills: int,
    minutes: float | None,
    records: int,
    workers: int,
    seed: int,
    options: Mapping[str, Any],
    hang_s: float,
    whole: bool = False,
) -> Report:
    """Kill workers, and compare streams.

    Args:
        kills: how many, over one pass through the records.
        minutes: how long to go on with further passes, each with its own seed; None: one pass.
        records: of the dataset.
        workers: of its pool.
        seed: seeds everything.
        options: of the loader.
        hang_s: seconds without an item after which the whole run ends with every stack on stderr.
        whole: whether there are stages over the whole stream.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    report = Report()
    end = None if minutes is None else time.monotonic() + 60 * minutes
    done: list[float] = []
    number = 0
    made: list[float] = []
    got: list[float] = []
    with tempfile.TemporaryDirectory(prefix="splitpipe-chaos-") as name:
        while True:
            folder = Path(name)
            pipe = stream(folder, records, workers, seed + number, whole=whole)
            calm = _read(pipe, options, hang_s)
            wanted = min(kills, records // 1000) if end is not None else kills
            before = len(done)
            (folder / "first").unlink(missing_ok=True)
            rng = random.Random(seed + number)
            last = max(1, int(0.97 * calm.items))  # so that all of them die before the end
            due = sorted(rng.randrange(last) for _ in range(wanted))
            killer = _Killer(rng, done)
            try:
                # What limits stages that always crash is not what is measured here.
                hit = _read(pipe, {**options, "restarts": None}, hang_s, killer, due)
            finally:
                killer.close()
            struck = done[before:]
            made += _after(struck, [one.at_s for one in FaultLog(folder / "first").incidents()])
            got += _gaps(struck, hit.arrived_s)
            report.lines.append(
                f"pass {number}: {hit.items} batches of {records} records; without kills "
                f"{calm.digest} in {calm.seconds:.1f} s, with {len(struck)} of them {hit.digest} "
                f"in {hit.seconds:.1f} s; {hit.deaths} of those were missed at work, the others "
                "stood by, or others died with them"
            )
            report.require(hit.digest == calm.digest, f"pass {number}: another stream")
            report.require(hit.items == calm.items, f"pass {number}: another number of batches")
            report.require(bool(struck), f"pass {number}: nothing was killed")
            number += 1
            if end is None or time.monotonic() > end:
                break
    report.lines += [
        f"kills: {len(done)}, hangs: 0",
        f"from a death to the first item of a new worker: {spread(made)}",
        f"longest wait of the consumer for an item, after a death: {spread(got)}",
    ]
    return report


def _after(struck: list[float], noted: list[float]) -> list[float]:
    """From each death to the next first item, where no other death came in between."""
    found = []
    noted = sorted(noted)
    for number, at in enumerate(struck):
        following = struck[number + 1] if number + 1 < len(struck) else float("inf")
        index = bisect_right(noted, at)
        if index < len(noted) and noted[index] < following:
            found.append(noted[index] - at)
    return found


def _gaps(struck: list[float], arrived: list[float]) -> list[float]:
    """The longest wait for an item between each death and the next one."""
    found = []
    for number, at in enumerate(struck):
        following = struck[number + 1] if number + 1 < len(struck) else float("inf")
        begin = max(0, bisect_right(arrived, at) - 1)
        stop = min(len(arrived), bisect_right(arrived, following) + 1)
        waits = [b - max(a, at) for a, b in zip(arrived[begin:stop], arrived[begin + 1 : stop])]
        if waits:
            found.append(max(waits))
    return found
