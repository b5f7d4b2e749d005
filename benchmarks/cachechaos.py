"""Many processes on one small cache, some of which are killed: ``python -m benchmarks.cachechaos``.

Responsible for: the workers, whoever kills them, and the judge of what all of them did.

    python -m benchmarks.cachechaos --minutes 5 --workers 32

Every worker reads random ranges of a few objects through one cache, a tenth of their size, by maps
and tokens and by `read`, looks ahead, and compares every byte with the source. What the store is
asked and what is thrown out is appended to one log, in which the kernel keeps the order. It is
judged afterwards:

- a wrong byte is one too many;
- between two fetches of one block there is a moment at which it was thrown out, or the first of
  the two never came to be (its process was killed, or streamed it);
- the blocks on the disk never take more than the limit and one object;
- in the end the accounts are what is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.cache import BlockCache, CachedFile
from splitpipe.cache import eviction as eviction_module
from splitpipe.cache import opened as opened_module
from splitpipe.errors import CacheFull
from splitpipe.stores import MemoryStore, ObjectStat

__all__ = ["Outcome", "Plan", "main", "run"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    Attributes:
        seconds: how long.
        workers: how many processes.
        objects: how many objects.
        object_nbytes: how large each is.
        block_nbytes: size of a block.
        limit_nbytes: of the cache.
        kill_every_s: how long, on the average, until somebody is killed.
        least_killed: it goes on for longer until so many were.
        latency_s: how long the store takes.
        seed: of everything that is chosen.
    """

    seconds: float = 300.0
    workers: int = 32
    objects: int = 12
    object_nbytes: int = 8 * (1 << 20) + 12345
    block_nbytes: int = 1 << 16
    limit_nbytes: int = 10 << 20
    kill_every_s: float = 0.25
    least_killed: int = 1
    latency_s: float = 0.002
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        reads: ranges that were compared.
        wrong: of them, how many had a wrong byte.
        failed: workers that ended by an error.
        killed: workers that were killed.
        fetched: blocks that the store was asked for, and that were kept.
        streamed: blocks that were not kept.
        evicted: blocks that were thrown out.
        twice: fetches of a block that was there.
        peak_nbytes: the most that lay on the disk.
        limit_nbytes: what was allowed.
        drift_nbytes: what the accounts were wrong by in the end.
    """

    reads: int
    wrong: int
    failed: int
    killed: int
    fetched: int
    streamed: int
    evicted: int
    twice: int
    peak_nbytes: int
    limit_nbytes: int
    drift_nbytes: int


class LocalStore(MemoryStore):
    """Files of one folder as objects, some time away."""

    def __init__(self, folder: Path, latency_s: float) -> None:
        super().__init__("chaos://source/")
        self._folder = folder
        self._latency_s = latency_s

    def stat(self, key: str) -> ObjectStat:
        return ObjectStat((self._folder / key).stat().st_size, "1")

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        time.sleep(self._latency_s)
        with open(self._folder / key, "rb") as file:
            return os.pread(file.fileno(), (stop or 0) - start, start)


def run(plan: Plan, folder: Path, *, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """Run a plan in an empty folder and judge it."""
    rng = random.Random(plan.seed)
    source = folder / "source"
    source.mkdir()
    bits = np.random.default_rng(plan.seed)
    for i in range(plan.objects):
        (source / f"o{i}").write_bytes(bits.bytes(plan.object_nbytes))
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    workers: dict[int, int] = {}
    killed: set[int] = set()
    failed = peak = started = 0
    end = time.monotonic() + plan.seconds
    next_kill = time.monotonic() + plan.kill_every_s
    try:
        while True:
            now = time.monotonic()
            # A machine that is slow to start them has killed nobody yet.
            going = now < end or len(killed) < plan.least_killed
            while going and len(workers) < plan.workers:
                started += 1
                until = max(end, now + 0.2 * plan.seconds)
                workers[_start(plan, folder, log, started, until)] = started
            if now >= next_kill and going:
                next_kill = now + rng.expovariate(1 / plan.kill_every_s)
                victim = rng.choice(list(workers))
                os.kill(victim, signal.SIGKILL)
            peak = max(peak, _on_disk(folder / "cache"))
            while workers:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                workers.pop(pid)
                if os.WIFSIGNALED(status):
                    killed.add(pid)
                elif status:
                    failed += 1
            if not workers and not going:
                break
            time.sleep(0.01)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(log)
    tell("judging")
    with BlockCache(folder / "cache", plan.limit_nbytes) as cache:
        correct = cache._space.account.correct()
        assert correct is not None
    return _judged(plan, folder, killed, failed=failed, peak=peak, drift=correct[0] - correct[1])


def _on_disk(folder: Path) -> int:
    total = 0
    for shelf in folder.glob("objects/*"):
        with os.scandir(shelf) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_blocks * 512
    return total


def _judged(
    plan: Plan, folder: Path, killed: set[int], *, failed: int, peak: int, drift: int
) -> Outcome:
    """Read the log."""
    counts: Counter[str] = Counter()
    # Who fetched a block last, as long as it may be there.
    there: dict[tuple[str, int], int] = {}
    twice = 0
    for line in (folder / "log").read_text().splitlines():
        what, who, name, first, count = line.split()
        pid, blocks = int(who), range(int(first), int(first) + int(count))
        counts[what] += len(blocks) or 1
        for block in blocks:
            if what == "fetch":
                before = there.get((name, block))
                if before is not None and before not in killed:
                    twice += 1
                    print("twice", name, block, before, pid, file=sys.stderr)
                there[name, block] = pid
            elif what in ("evict", "lost"):
                there.pop((name, block), None)
    return Outcome(
        reads=counts["right"] + counts["wrong"],
        wrong=counts["wrong"],
        failed=failed,
        killed=len(killed),
        fetched=counts["fetch"],
        streamed=counts["stream"],
        evicted=counts["evict"],
        twice=twice,
        peak_nbytes=peak,
        limit_nbytes=plan.limit_nbytes,
        drift_nbytes=drift,
    )


# -- in a worker -----------------------------------------------------------------------------


def _start(plan: Plan, folder: Path, log: int, number: int, end: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _work(plan, folder, log, random.Random(f"{plan.seed}-{number}"), end)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _work(plan: Plan, folder: Path, log: int, rng: random.Random, end: float) -> None:
    def say(what: str, name: str, first: int = 0, count: int = 0) -> None:
        os.write(log, f"{what} {os.getpid()} {name} {first} {count}\n".encode())

    _watch(say)
    store = LocalStore(folder / "source", plan.latency_s)
    keys = [f"o{i}" for i in range(plan.objects)]
    sources = {key: np.memmap(folder / "source" / key, mode="r") for key in keys}
    # Some leave early, so that others come; whoever came late ends with the plan all the same.
    end = min(end, time.monotonic() + plan.seconds * rng.uniform(0.2, 1.0))
    with BlockCache(folder / "cache", plan.limit_nbytes, requests=4) as cache:
        files: dict[str, tuple[CachedFile, mmap.mmap]] = {}
        while time.monotonic() < end:
            key = rng.choice(keys)
            if key not in files:
                file = cache.open(store, key, block_nbytes=plan.block_nbytes)
                with open(file.path, "rb") as local:
                    mapped = mmap.mmap(local.fileno(), 0, prot=mmap.PROT_READ)
                files[key] = file, mapped
            _look(cache, *files[key], sources[key], rng, say)
            if rng.random() < 0.05:
                file, mapped = files.pop(key)
                mapped.close()
                file.close()


def _look(
    cache: BlockCache,
    file: CachedFile,
    mapped: mmap.mmap,
    source: Any,
    rng: random.Random,
    say: Callable[..., None],
) -> None:
    ranges = []
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(file.size)
        ranges.append((start, min(file.size, start + rng.randint(1, 4 * file.block_nbytes))))
    way = rng.random()
    if way < 0.1:
        file.prefetch(ranges)
    elif way < 0.15:
        file.done_with(ranges)
    elif way < 0.55:
        for start, stop in ranges:
            right = file.read(start, stop) == source[start:stop].tobytes()
            say("right" if right else "wrong", file.key)
    else:
        for _ in range(4):
            try:
                token = file.ensure(ranges)
            except CacheFull:
                say("full", file.key)
                break
            copies = [mapped[start:stop] for start, stop in ranges]
            if token.still_valid():
                for (start, stop), copy in zip(ranges, copies):
                    say("right" if copy == source[start:stop].tobytes() else "wrong", file.key)
                break
            say("again", file.key)


def _watch(say: Callable[..., None]) -> None:
    """Have this process say what it fetches and throws out."""
    fetch = opened_module.Opened.fetch
    clear = eviction_module._clear

    def fetched(
        self: opened_module.Opened, first: int, count: int, *, streamed: bool = False
    ) -> bytes:
        say("stream" if streamed else "fetch", self.identity.key, first, count)
        return fetch(self, first, count, streamed=streamed)

    def cleared(account: Any, marks: Any, first: int, count: int) -> Any:
        say("evict", marks.identity.key, first, count)
        return clear(account, marks, first, count)

    opened_module.Opened.fetch = fetched  # type: ignore[method-assign]
    eviction_module._clear = cleared


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description="Many processes on one small cache.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where; by default a temporary folder")
    options = parser.parse_args()
    plan = Plan(seconds=options.minutes * 60, workers=options.workers, seed=options.seed)
    folder = Path(tempfile.mkdtemp(prefix="cachechaos-", dir=options.folder))
    try:
        outcome = run(plan, folder, tell=print)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in Outcome.__dataclass_fields__:
        print(f"{name:>14} {getattr(outcome, name):,}")
    bad = outcome.wrong or outcome.failed or outcome.twice or outcome.drift_nbytes
    return int(bool(bad) or outcome.peak_nbytes > plan.limit_nbytes + plan.object_nbytes)


if __name__ == "__main__":
    sys.exit(main())
