"""What is left when a process is killed, between any two lines of the cache's code.

A child runs one session and is killed before the n-th line of the package that it comes to. What it
leaves is then opened by others: every block that is marked has its bytes, the accounts are what is
counted, the limit holds, and nothing of the dead is held.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import splitpipe.cache
from splitpipe.cache import BlockCache
from splitpipe.cache.eviction import Victims
from splitpipe.cache.ranges import runs
from splitpipe.testing.faults import run_in_child
from tests.cache.sources import CountingStore, noise

BLOCK = 1 << 16
LIMIT = 1 << 20
OURS = os.path.dirname(splitpipe.cache.__file__)
SIZE = 20 * BLOCK + 777


def source() -> CountingStore:
    store = CountingStore()
    for i, key in enumerate("ab"):
        store.write(key, noise(SIZE, i))
    return store


def fill(folder: Path, store: CountingStore) -> None:
    """A cache that is nearly full, with blocks of both kinds."""
    with (
        BlockCache(folder, LIMIT, requests=1) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        file.ensure([(0, 5 * BLOCK)])
        file._opened.make_durable()
        file.ensure([(8 * BLOCK, 17 * BLOCK)])
        file._opened.fresh = False  # these are not


def session(folder: Path, store: CountingStore) -> None:
    """Everything that changes anything."""
    with (
        BlockCache(folder, LIMIT, requests=1) as cache,
        cache.open(store, "b", block_nbytes=BLOCK) as file,
    ):
        file.ensure([(0, 2 * BLOCK), (3 * BLOCK, 4 * BLOCK)])
        file.read(19 * BLOCK, SIZE)
        file._opened.make_durable()
        file.invalidate([(0, 1)])
        with cache.open(store, "a", block_nbytes=BLOCK) as other:
            other.ensure([(SIZE - 1, SIZE)])
        cache._space.prune(0)


def killed_before(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A tracer that kills its process before it runs the n-th line of ours; 0 never does."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    trace.count = lambda: count  # type: ignore[attr-defined]
    return trace


def traced(action: Callable[[], object], line: int) -> int:
    """Run an action under the tracer; how many lines there were."""
    trace = killed_before(line)
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return int(trace.count())  # type: ignore[attr-defined]


def judge(folder: Path, store: CountingStore) -> None:
    """What every cache has to be, whatever happened to it."""
    with BlockCache(folder, LIMIT, requests=1) as cache:
        state = cache._space.account.state
        assert cache.statistics().processes == 1
        assert state.reserved == 0
        assert state.used <= LIMIT
        noted, counted = cache._space.account.correct() or (0, -1)
        assert noted == counted
        for key in "ab":
            right = store._objects[key][0]
            with cache.open(store, key, block_nbytes=BLOCK) as file:
                local = Path(file.path).read_bytes()
                assert len(local) == len(right)
                for first, count in runs(np.flatnonzero(file.marks)):
                    start, stop = file._opened.identity.extent(first, count)
                    assert local[start:stop] == right[start:stop]
                assert file.read(0, SIZE) == right
        assert state.used <= LIMIT
        on_disk = sum(p.stat().st_blocks for p in (folder / "objects").rglob("*")) * 512
        assert on_disk <= LIMIT + (1 << 16)


def run_killed(folder: Path, line: int) -> int:
    store = source()
    fill(folder, store)
    return run_in_child(lambda: traced(lambda: session(folder, store), line))


@pytest.mark.deadline(180)
def test_a_kill_before_any_line_leaves_a_right_cache(tmp_path: Path) -> None:
    store = source()
    fill(tmp_path / "whole", store)
    lines = traced(lambda: session(tmp_path / "whole", store), 0)
    judge(tmp_path / "whole", store)
    assert lines > 500
    rng = random.Random(os.environ.get("SPLITPIPE_CACHE_CRASHES_SEED", "1"))
    every = int(os.environ.get("SPLITPIPE_CACHE_CRASHES_EVERY", "250"))
    for line in range(1 + rng.randrange(every), lines, every):
        folder = tmp_path / str(line)
        if run_killed(folder, line) == 0:
            # How many lines there are depends on what the pool's thread, untraced, was quick to do.
            assert line > lines // 2
        try:
            judge(folder, store)
        except BaseException as error:
            error.add_note(f"killed before line {line} of {lines}")
            raise


def test_victims_that_were_wanted_again_stay(tmp_path: Path) -> None:
    from splitpipe.cache.eviction import evict

    store = source()
    with BlockCache(tmp_path, LIMIT) as cache, cache.open(store, "a", block_nbytes=BLOCK) as file:
        file.ensure([(0, 4 * BLOCK)])
        blocks = np.arange(4)
        stamps = file._stamps[blocks].copy()
        stamps[2] -= 1
        victims = Victims(file._opened.identity.digest, blocks, stamps)
        space = cache._space
        assert evict(space.account, space.layout, space._journal, [victims]) == 3 * BLOCK
        assert np.flatnonzero(file.marks).tolist() == [2]
