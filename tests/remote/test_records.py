"""Remote records are the local ones, byte for byte, whatever is taken away meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset.dataset import Dataset, dataset_of
from splitpipe.order import global_order
from splitpipe.remote import mirror, open_remote
from splitpipe.storage.table import OpenOptions
from splitpipe.stores.base import MemoryStore
from tests.remote.standin import StandInCache


def stored(directory: str, url: str = "memory://bucket/data") -> MemoryStore:
    """All files of a dataset in a store."""
    store = MemoryStore(url)
    for name in sorted(os.listdir(directory)):
        if name != "writer.lock":
            store.write(name, (Path(directory) / name).read_bytes())
    return store


def record(number: int) -> dict[str, Any]:
    return {
        "n": number,
        "text": None if number % 7 == 3 else f"record {number} " * (number % 40),
        "vector": np.arange(number, number + 5, dtype=np.float32),
        "data": bytes([number % 256]) * (number * 37 % 3000),
    }


SCHEMA = {"n": "int64", "text": "str", "vector": "float32[5]", "data": "bytes"}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Dataset]:
    path = str(tmp_path / "local")
    with sp.DatasetWriter(path, bins=5) as writer:
        writer.write_many([record(n) for n in range(500)])
    with sp.open_dataset(path) as dataset:
        yield dataset


def remote_of(local: Dataset, folder: Path, **options: Any) -> Dataset:
    cache: Any = StandInCache(str(folder))
    return dataset_of(open_remote(stored(local.path), cache, options=OpenOptions(**options)))


def same(found: Any, expected: Any) -> bool:
    if isinstance(found, dict):
        return all(same(found[name], expected[name]) for name in expected)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return np.array_equal(found, expected)


@pytest.mark.parametrize("verify", [True, False])
def test_every_way_of_reading(local: Dataset, tmp_path: Path, verify: bool) -> None:
    with remote_of(local, tmp_path / "cache", verify=verify) as remote:
        assert len(remote) == len(local)
        assert remote.schema == local.schema
        for number in (3, 0, -1, 499, 250):
            assert same(remote[number], local[number])
        rows = [5, 5, -2, 100, 7]
        assert same(remote.get_batch(rows), local.get_batch(rows))
        assert same(remote.get_batch(rows, columns=["n"]), local.get_batch(rows, columns=["n"]))
        out = {"vector": np.empty((5, 5), np.float32)}
        assert same(remote.get_batch(rows, columns=["vector"], out=out)["vector"], out["vector"])
        assert same(out["vector"], local.get_batch(rows, columns=["vector"])["vector"])
        assert same(list(remote), list(local))
        assert same(remote[10:40:3], local[10:40:3])
        order = global_order(500, seed=1, epoch=0)
        assert same(list(remote.iterate(order, 17, 402)), list(local.iterate(order, 17, 402)))
        assert remote.nbytes == local.nbytes


def test_nothing_is_fetched_twice(local: Dataset, tmp_path: Path) -> None:
    with remote_of(local, tmp_path / "cache") as remote:
        list(remote)
        list(remote)
        remote.get_batch(range(500))
        asked = [one for file in remote.records._cache.files.values() for one in file.requests]
        assert sum(stop - start for start, stop in asked) <= remote.records._keeping.data_nbytes


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_taken_away_comes_again(local: Dataset, tmp_path: Path, verify: bool) -> None:
    with remote_of(local, tmp_path / "cache", verify=verify) as remote:
        rng = np.random.default_rng(0)
        expected = list(local)
        assert same(list(remote), expected)
        files = list(remote.records._cache.files.values())
        iterator = iter(remote)
        for number in range(500):
            if number % 50 == 0:
                for file in files:
                    chosen = np.flatnonzero(rng.random(len(file.marks)) < 0.5)
                    file.evict(chosen.tolist())
            assert same(next(iterator), expected[number])
            row = int(rng.integers(500))
            assert same(remote[row], expected[row])


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_taken_away_in_the_middle_of_an_order(
    local: Dataset, tmp_path: Path, verify: bool
) -> None:
    with remote_of(local, tmp_path / "cache", verify=verify) as remote:
        expected = list(local)
        assert same(list(remote), expected)
        iterator = iter(remote)
        assert same([next(iterator) for _ in range(5)], expected[:5])
        for file in list(remote.records._cache.files.values()):
            file.evict(range(len(file.marks)))
        assert same(list(iterator), expected[5:])


def test_few_files_are_open_at_once(
    local: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_MOST_BINS", 3)
    with remote_of(local, tmp_path / "cache") as remote:
        order = global_order(500, seed=1, epoch=0)
        for _ in range(2):
            assert same(list(remote.iterate(order)), list(local.iterate(order)))
        bins = [name for name in remote.records._mirror._files if name.kind == "bin"]
        assert len(bins) == 3


def test_orders_that_are_read_in_turns(local: Dataset, tmp_path: Path) -> None:
    with remote_of(local, tmp_path / "cache") as remote:
        orders = [global_order(500, seed=seed, epoch=0) for seed in range(6)]
        found = zip(*(remote.iterate(order) for order in orders), strict=True)
        truth = zip(*(local.iterate(order) for order in orders), strict=True)
        for ours, theirs in zip(found, truth, strict=True):
            assert same(list(ours), list(theirs))


def test_it_travels_without_a_request(local: Dataset, tmp_path: Path) -> None:
    remote = remote_of(local, tmp_path / "cache")
    list(remote)
    records = remote.records
    before = sum(len(file.requests) for file in records._cache.files.values())
    again = records.__reduce__()[0](*records.__reduce__()[1])
    assert same(dataset_of(again)[3], local[3])
    assert sum(len(file.requests) for file in records._cache.files.values()) == before
    again.close()
    remote.close()


def test_damage_is_fetched_once_more_and_then_told(local: Dataset, tmp_path: Path) -> None:
    with remote_of(local, tmp_path / "cache") as remote:
        store = remote.records._store
        name = "v0001-c003-b00002.bin"
        good, stat = store._objects[name]
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        store._objects[name] = bytes(bad), stat
        with pytest.raises(sp.CorruptRecord, match="bucket/data/v0001-c003-b00002"):
            list(remote)
        store._objects[name] = good, stat
        assert same(list(remote), list(local))


def test_damage_in_the_cache_is_healed(local: Dataset, tmp_path: Path) -> None:
    with remote_of(local, tmp_path / "cache") as remote:
        list(remote)
        for file in remote.records._cache.files.values():
            with open(file.path, "r+b") as opened:
                opened.seek(64)
                opened.write(b"\xff" * 64)
        assert same(list(remote), list(local))


def test_columns_that_are_not_wanted_do_not_come(local: Dataset, tmp_path: Path) -> None:
    with remote_of(local, tmp_path / "cache") as remote:
        order = global_order(500, seed=1, epoch=0)
        some = remote.select(["n", "text"])
        assert same(list(some.iterate(order)), list(local.select(["n", "text"]).iterate(order)))
        files = remote.records._cache.files.values()
        assert not any(file.requests for file in files if "c002" in file.key or "c003" in file.key)


@pytest.mark.parametrize("limit", [4 * 4096, 40 * 4096])
def test_a_cache_that_is_too_small(local: Dataset, tmp_path: Path, limit: int) -> None:
    cache: Any = StandInCache(str(tmp_path / "cache"), limit)
    with dataset_of(open_remote(stored(local.path), cache)) as remote:
        order = global_order(500, seed=1, epoch=0)
        assert same(list(remote.iterate(order, 0, 500)), list(local.iterate(order, 0, 500)))
        assert same(list(remote), list(local))
