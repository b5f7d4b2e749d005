"""A cache in one process: what is there, what is asked for, what goes."""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitpipe.cache import BlockCache, CachedFile
from splitpipe.errors import CacheFull, DatasetChanged, FormatError, RemoteError, StorageError
from tests.cache.sources import CountingStore, noise

BLOCK = 4096
MB = 1 << 20


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    with BlockCache(tmp_path / "cache", 2 * MB, requests=4) as cache:
        yield cache


def opened(cache: BlockCache, store: CountingStore, nbytes: int, key: str = "a") -> CachedFile:
    store.write(key, noise(nbytes, len(key)))
    return cache.open(store, key, block_nbytes=BLOCK)


def test_what_was_ensured_lies_in_the_file(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 10 * BLOCK + 5) as file:
        token = file.ensure([(BLOCK + 1, BLOCK + 2), (9 * BLOCK, file.size)])
        local = Path(file.path).read_bytes()
        assert token.still_valid()
        data = store._objects["a"][0]
        assert len(local) == file.size
        assert local[BLOCK : 2 * BLOCK] == data[BLOCK : 2 * BLOCK]
        assert local[9 * BLOCK :] == data[9 * BLOCK :]
        assert sorted(store.reads) == [("a", BLOCK, 2 * BLOCK), ("a", 9 * BLOCK, file.size)]
        assert np.flatnonzero(file.marks).tolist() == [1, 9, 10]


def test_what_is_there_is_not_asked_for_again(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 10 * BLOCK) as file:
        file.ensure([(0, file.size)])
        asked = len(store.reads)
        file.ensure([(0, file.size)])
        assert file.read(3, 4 * BLOCK) == store._objects["a"][0][3 : 4 * BLOCK]
        assert len(store.reads) == asked
        statistics = cache.statistics()
        assert (statistics.hits, statistics.misses) == (10 + 4, 10)


def test_neighbours_are_one_request_up_to_an_extent(
    cache: BlockCache, store: CountingStore
) -> None:
    with opened(cache, store, 20 * BLOCK) as file:
        file.ensure([(0, 8 * BLOCK)], extent_nbytes=4 * BLOCK)
        assert sorted(store.reads) == [("a", 0, 4 * BLOCK), ("a", 4 * BLOCK, 8 * BLOCK)]
        file.ensure([(6 * BLOCK, 20 * BLOCK)])
        assert store.reads[2:] == [("a", 8 * BLOCK, 20 * BLOCK)]


def test_several_objects_are_ensured_at_once(cache: BlockCache, store: CountingStore) -> None:
    files = [opened(cache, store, 3 * BLOCK, "abcdefgh"[: i + 1]) for i in range(8)]
    store.gate.clear()
    tokens = []
    thread = threading.Thread(
        target=lambda: tokens.append(cache.ensure_all([(file, [(0, 1)]) for file in files]))
    )
    thread.start()
    store.wait_for_reads(5)  # four of the pool, and the one that waits
    store.gate.set()
    thread.join(120)
    assert tokens[0].still_valid()
    for file in files:
        file.close()


def test_a_block_that_goes_is_noticed(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 4 * BLOCK) as file:
        token = file.ensure([(0, file.size)])
        assert token.still_valid()
        file.invalidate([(BLOCK, BLOCK + 1)])
        assert not token.still_valid()
        assert file.ensure([(2 * BLOCK, file.size)]).still_valid()
        again = file.ensure([(0, file.size)])
        assert again.still_valid()
        assert not token.still_valid()  # it came again: with another number


def test_only_what_was_wrong_is_fetched_anew(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 4 * BLOCK) as file:
        token = file.ensure([(0, file.size)])
        file.invalidate([(0, 1)], token=token)
        file.ensure([(0, 1)])
        asked = len(store.reads)
        file.invalidate([(0, 1)], token=token)  # somebody else found the same
        file.ensure([(0, 1)])
        assert len(store.reads) == asked == 2


def test_the_limit_holds(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 6 * MB) as file, open(file.path, "rb") as local:
        mapped = mmap.mmap(local.fileno(), 0, prot=mmap.PROT_READ)
        data = store._objects["a"][0]
        for start in range(0, file.size, MB):
            token = file.ensure([(start, start + MB)])
            assert mapped[start : start + MB] == data[start : start + MB]
            assert token.still_valid()
            assert os.stat(file.path).st_blocks * 512 <= 2 * MB
        statistics = cache.statistics()
        assert statistics.used_nbytes <= 2 * MB
        assert statistics.reserved_nbytes == 0
        assert statistics.evicted_nbytes >= 4 * MB
        mapped.close()


def test_what_was_wanted_longest_ago_goes(cache: BlockCache, store: CountingStore) -> None:
    file, other = opened(cache, store, MB, "a"), opened(cache, store, 4 * MB, "bb")
    file.ensure([(0, file.size)])
    for start in range(0, other.size, MB // 8):
        file.ensure([(0, file.size // 2)])  # in use all the time
        other.ensure([(start, start + MB // 8)])
    assert file.marks[: MB // 2 // BLOCK].all()
    assert not file.marks[MB // 2 // BLOCK :].any()


def test_what_is_done_with_goes_first(cache: BlockCache, store: CountingStore) -> None:
    file = opened(cache, store, 4 * MB)
    file.ensure([(0, MB)])
    file.ensure([(MB, MB + MB // 2)])
    file.done_with([(MB, MB + MB // 2)])
    file.ensure([(2 * MB, 2 * MB + 3 * MB // 4)])
    assert file.marks[: MB // BLOCK].all()
    assert not file.marks[MB // BLOCK : (MB + MB // 4) // BLOCK].any()


def test_more_than_the_limit_at_once_is_refused_and_can_be_read(
    cache: BlockCache, store: CountingStore
) -> None:
    with opened(cache, store, 5 * MB) as file:
        with pytest.raises(CacheFull):
            file.ensure([(0, file.size)])
        assert file.read(7, file.size) == store._objects["a"][0][7:]
        assert os.stat(file.path).st_blocks * 512 <= 2 * MB


def test_two_threads_fetch_a_block_once(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 8 * BLOCK) as file:
        store.gate.clear()
        threads = [threading.Thread(target=file.ensure, args=([(0, file.size)],)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert store.asked.wait(120)
        store.gate.set()
        for thread in threads:
            thread.join(120)
        assert store.reads == [("a", 0, file.size)]


def test_two_opened_files_of_one_object_fetch_a_block_once(
    cache: BlockCache, store: CountingStore
) -> None:
    with opened(cache, store, BLOCK) as file, cache.open(store, "a", block_nbytes=BLOCK) as other:
        store.gate.clear()
        threads = [threading.Thread(target=f.ensure, args=([(0, 1)],)) for f in (file, other)]
        for thread in threads:
            thread.start()
        assert store.asked.wait(120)
        store.gate.set()
        for thread in threads:
            thread.join(120)
        assert len(store.reads) == 1


def test_an_error_of_the_store_is_raised_and_nothing_is_left(
    cache: BlockCache, store: CountingStore
) -> None:
    with opened(cache, store, 64 * BLOCK) as file:
        store.error = RemoteError(5, "no answer", "a")
        for ask in (
            lambda: file.ensure([(0, file.size)], extent_nbytes=BLOCK),
            lambda: file.read(0, 10),
        ):
            with pytest.raises(RemoteError):
                ask()
        store.error = None
        assert cache.statistics().reserved_nbytes == 0
        assert file.ensure([(0, file.size)]).still_valid()


def test_too_few_bytes_are_an_error(cache: BlockCache, store: CountingStore) -> None:
    store.write("a", noise(BLOCK))
    with cache.open(store, "a", size=BLOCK, block_nbytes=BLOCK) as file:
        store.read = lambda *_, **__: b"short"  # type: ignore[method-assign]
        with pytest.raises(StorageError, match="5 came"):
            file.ensure([(0, 1)])


def test_another_version_is_another_object(cache: BlockCache, store: CountingStore) -> None:
    first = opened(cache, store, BLOCK)
    second = opened(cache, store, BLOCK)
    assert first.path != second.path
    second.ensure([(0, BLOCK)])
    with pytest.raises(DatasetChanged):
        first.ensure([(0, BLOCK)])


def test_an_object_may_be_empty(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 0) as file:
        assert file.ensure([]).still_valid()
        assert file.ensure([(0, 0)]).still_valid()
        assert file.read(0, 0) == b""
        assert len(file.marks) == 0


@pytest.mark.parametrize("ranges", [[(-1, 5)], [(0, 3 * BLOCK + 1)], [(5, 4)]])
def test_a_range_outside_is_refused(
    cache: BlockCache, store: CountingStore, ranges: list[tuple[int, int]]
) -> None:
    with opened(cache, store, 3 * BLOCK) as file:
        with pytest.raises(StorageError):
            file.ensure(ranges)
        with pytest.raises(StorageError):
            file.read(*ranges[0])
        assert store.reads == []


def test_a_second_session_finds_what_the_first_one_left(
    tmp_path: Path, store: CountingStore
) -> None:
    for session in range(3):
        with BlockCache(tmp_path / "cache", "2 MiB") as cache:
            if not session:
                store.write("a", noise(8 * BLOCK))
            with cache.open(store, "a", block_nbytes=BLOCK) as file:
                assert file.read(0, file.size) == store._objects["a"][0]
    assert len(store.reads) == 1


def test_files_and_caches_pickle(cache: BlockCache, store: CountingStore) -> None:
    again = pickle.loads(pickle.dumps(cache))
    assert again.directory == cache.directory
    assert again.limit_nbytes == cache.limit_nbytes
    assert cache.statistics().processes == 1
    again.close()


def test_marks_are_read_only(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, BLOCK) as file, pytest.raises(ValueError, match="read-only"):
        file.marks[0] = 1


def test_what_is_closed_says_so(tmp_path: Path, store: CountingStore) -> None:
    cache = BlockCache(tmp_path / "cache", 2 * MB)
    file = opened(cache, store, BLOCK)
    file.close()
    file.close()
    with pytest.raises(StorageError, match="closed"):
        file.ensure([(0, 1)])
    cache.close()
    cache.close()
    with pytest.raises(StorageError, match="closed"):
        cache.open(store, "a")


@pytest.mark.parametrize("limit", [0, 4095, "1kB", -5, "plenty", "1e9"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: int | str) -> None:
    with pytest.raises(FormatError):
        BlockCache(tmp_path, limit)


def test_looking_ahead_fetches_without_waiting(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 64 * BLOCK) as file:
        store.gate.clear()
        prefetch = file.prefetch([(0, file.size)], extent_nbytes=8 * BLOCK)
        assert prefetch.nbytes == file.size
        assert not prefetch.done
        assert not prefetch.wait(0)
        store.gate.set()
        assert prefetch.wait(120)
        asked = len(store.reads)
        assert file.marks.all()
        file.ensure([(0, file.size)])
        assert len(store.reads) == asked == 8


def test_looking_ahead_keeps_to_its_share(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 8 * MB) as file, opened(cache, store, 2 * MB, "bb") as other:
        other.ensure([(0, int(1.9 * MB))])
        prefetch = file.prefetch([(0, 4 * MB)], extent_nbytes=MB // 8)
        assert 0 < prefetch.nbytes <= MB
        assert prefetch.wait(120)
        assert file.prefetch([(4 * MB, 8 * MB)]).nbytes == 0
        file.ensure([(0, MB)])
        assert file.prefetch([(4 * MB, 8 * MB)]).nbytes > 0


def test_what_is_cancelled_is_not_fetched(cache: BlockCache, store: CountingStore) -> None:
    with opened(cache, store, 64 * BLOCK) as file:
        store.gate.clear()
        prefetch = file.prefetch([(0, file.size)], extent_nbytes=BLOCK)
        assert store.asked.wait(120)
        prefetch.cancel()
        store.gate.set()
        assert prefetch.wait(120)
        assert len(store.reads) <= 4


def test_closing_ends_what_was_asked_for_ahead(tmp_path: Path, store: CountingStore) -> None:
    cache = BlockCache(tmp_path / "cache", 2 * MB, requests=2)
    file = opened(cache, store, 64 * BLOCK)
    store.gate.clear()
    prefetch = file.prefetch([(0, file.size)], extent_nbytes=BLOCK)
    assert store.asked.wait(120)
    threading.Timer(0.05, store.gate.set).start()
    cache.close()
    assert prefetch.wait(120)
    assert threading.active_count() <= 2


def test_a_folder_for_others_is_below_the_cache(cache: BlockCache) -> None:
    path = cache.folder("mirrors/x")
    assert os.path.isdir(path)
    assert path.startswith(cache.directory)
    for name in ("objects/x", "../x", "/x", "state"):
        with pytest.raises(FormatError):
            cache.folder(name)
