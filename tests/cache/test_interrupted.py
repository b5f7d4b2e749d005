"""Ctrl-C at any place leaves nothing claimed, no room taken, and the bytes right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from splitpipe.cache import BlockCache, CachedFile
from tests.cache.sources import CountingStore, noise
from tests.interrupting import at_each_place, interrupted

BLOCK = 4096
DATA = noise(40 * BLOCK)


def read(file: CachedFile) -> None:
    assert file.read(5, 8 * BLOCK) == DATA[5 : 8 * BLOCK]


def ensure(file: CachedFile) -> None:
    file.ensure([(5, 8 * BLOCK), (20 * BLOCK, 22 * BLOCK)], extent_nbytes=4 * BLOCK)


@pytest.mark.parametrize("act", [read, ensure])
def test_a_cold_cache(tmp_path: Path, act: Callable[[CachedFile], None]) -> None:
    store = CountingStore()
    store.write("a", DATA)

    def attempt(place: int) -> bool:
        folder = tmp_path / str(place)
        with (
            BlockCache(folder, 1 << 20, requests=4) as cache,
            cache.open(store, "a", block_nbytes=BLOCK) as file,
        ):
            hit = interrupted(lambda: act(file), place, within="cache")
            with (  # as another process: it has open files of its own
                BlockCache(folder, 1 << 20, requests=4) as others,
                others.open(store, "a", block_nbytes=BLOCK) as other,
            ):
                other.ensure([(0, 30 * BLOCK)])
            assert file.read(0, 30 * BLOCK) == DATA[: 30 * BLOCK]
            file.ensure([(0, 40 * BLOCK)])
            while cache.statistics().reserved_nbytes:
                pass  # a thread that has put its blocks there is about to say so
        return hit

    at_each_place(attempt)
