"""A cached store is a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitpipe.cache import BlockCache, CachedStore
from splitpipe.errors import DatasetChanged, RemoteError
from splitpipe.stores import LocalStore, ObjectStat, Store
from splitpipe.testing.stores import StoreSuite
from tests.cache.sources import CountingStore, noise

MB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    with BlockCache(tmp_path / "cache", 2 * MB) as cache:
        yield cache


class TestCachedStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, cache: BlockCache) -> Iterator[Store]:
        (tmp_path / "source").mkdir()
        store = CachedStore(LocalStore(tmp_path / "source"), cache)
        yield store
        store.close()

    def test_it_pickles_as_what_connects_again(self, store: Store, put: object) -> None:
        pytest.skip("its cache is opened again with it: see test_it_pickles_with_its_cache")


def test_it_pickles_with_its_cache(tmp_path: Path, cache: BlockCache) -> None:
    import pickle

    (tmp_path / "source").mkdir()
    store = CachedStore(LocalStore(tmp_path / "source"), cache)
    store.write("a", b"hello")
    again = pickle.loads(pickle.dumps(store))
    assert again.read("a") == b"hello"
    again.close()
    again._cache.close()
    store.close()


def test_a_second_read_asks_nobody(cache: BlockCache) -> None:
    source = CountingStore()
    source.write("a", noise(MB))
    store = CachedStore(source, cache)
    for _ in range(3):
        assert store.read("a") == source._objects["a"][0]
        assert store.read("a", 5, 300_000) == source._objects["a"][0][5:300_000]
    assert len(source.reads) == 1
    store.close()


def test_what_changes_is_not_mixed(cache: BlockCache) -> None:
    source = CountingStore()
    source.write("a", noise(MB))
    store = CachedStore(source, cache)
    assert store.read("a", 0, 10) == noise(MB)[:10]
    source.write("a", noise(MB, 1))
    assert store.read("a", 0, 10) == noise(MB)[:10]  # of the version that was seen first
    with pytest.raises(DatasetChanged):
        store.read("a", MB - 10, MB)
    store.forget("a")
    assert store.read("a") == noise(MB, 1)
    store.close()


class _Untagged(CountingStore):
    def stat(self, key: str) -> ObjectStat:
        return ObjectStat(super().stat(key).size, None)


def test_what_has_no_version_is_not_kept(cache: BlockCache) -> None:
    source = _Untagged()
    source.write("a", b"one")
    store = CachedStore(source, cache)
    assert store.read("a") == b"one"
    source.write("a", b"two")
    assert store.read("a") == b"two"
    assert store.file("a") is None
    store.close()


def test_whole_objects_are_fetched_ahead(cache: BlockCache) -> None:
    source = CountingStore()
    keys = [f"k{i}" for i in range(20)]
    for i, key in enumerate(keys):
        source.write(key, noise(10_000, i))
    store = CachedStore(source, cache)
    prefetch = store.prefetch([*keys, "not there"])
    assert prefetch.wait(120)
    asked = len(source.reads)
    assert [store.read(key) for key in keys] == [noise(10_000, i) for i in range(20)]
    assert len(source.reads) == asked == 20
    store.close()


def test_errors_pass(cache: BlockCache) -> None:
    source = CountingStore()
    source.write("a", noise(10))
    store = CachedStore(source, cache)
    source.error = RemoteError(5, "no answer", "a")
    with pytest.raises(RemoteError):
        store.read("a")
    store.close()
