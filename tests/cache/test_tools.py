"""Listing, pruning and checking a cache, as functions and from the command line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splitpipe.cache import BlockCache, check_cache, inventory
from splitpipe.cli.app import run
from splitpipe.errors import StorageError
from splitpipe.stores import LocalStore, Store
from tests.cache.sources import noise

BLOCK = 1 << 16
MB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "source").mkdir()
    store = LocalStore(tmp_path / "source")
    for i, key in enumerate(("train/a", "train/b", "c")):
        store.write(key, noise(8 * BLOCK + 100, i))
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path, store: Store) -> Path:
    folder = tmp_path / "cache"
    with BlockCache(folder, 4 * MB) as cache:
        for key in ("train/a", "train/b", "c"):
            with cache.open(store, key, block_nbytes=BLOCK) as file:
                file.ensure([(0, 4 * BLOCK if key == "c" else file.size)])
    return folder


def local(folder: Path, key: str) -> Path:
    return Path(next(entry.path for entry in inventory(folder) if entry.key == key))


def test_a_list_says_what_is_there(folder: Path, store: Store) -> None:
    found = inventory(folder)
    assert [entry.key for entry in found] == ["c", "train/a", "train/b"]
    assert [entry.cached_nbytes for entry in found] == [4 * BLOCK, *[8 * BLOCK + 100] * 2]
    assert {entry.url for entry in found} == {store.url}
    assert not any(entry.in_use for entry in found)
    with BlockCache(folder, 4 * MB) as cache:
        assert cache.statistics().used_nbytes == sum(entry.disk_nbytes for entry in found)
        with cache.open(store, "c", block_nbytes=BLOCK):
            assert [entry.in_use for entry in inventory(folder)] == [True, False, False]
    with pytest.raises(StorageError, match="no cache here"):
        inventory(folder.parent)


def test_pruning_leaves_what_was_used_last(folder: Path, store: Store) -> None:
    with BlockCache(folder, 4 * MB) as cache:
        with cache.open(store, "train/a", block_nbytes=BLOCK) as file:
            cache._space.take(b"0" * 16, first=0, count=10, nbytes=1)  # the clock goes on
            file.ensure([(0, file.size)])
            gone = cache.prune(10 * BLOCK)
            assert gone >= 10 * BLOCK
            assert file.marks.all()
        cache.prune(0)
    assert inventory(folder) == []


def test_pruning_what_is_old(folder: Path) -> None:
    old = local(folder, "c").with_suffix(".marks")
    os.utime(old, (time.time() - 3600,) * 2)
    with BlockCache(folder, 4 * MB) as cache:
        cache.prune(0, unused_for_s=1800)
    assert [entry.key for entry in inventory(folder) if entry.cached_nbytes] == [
        "train/a",
        "train/b",
    ]


@pytest.mark.parametrize("away_s", [-400 * 86400, 400 * 86400])
def test_a_clock_that_jumps_changes_nothing(folder: Path, store: Store, away_s: int) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        os.utime(path, (time.time() + away_s,) * 2)
    assert check_cache(folder).ok
    with BlockCache(folder, 4 * MB) as cache:
        assert (cache.prune(0, unused_for_s=1800) > 0) == (away_s < 0)
        with cache.open(store, "train/a", block_nbytes=BLOCK) as file:
            file.ensure([(0, file.size)])
            assert file.read(0, file.size) == store.read("train/a")
        assert cache.statistics().used_nbytes <= 4 * MB
    assert check_cache(folder).ok


def test_pruning_removes_mirrors_that_lead_nowhere(folder: Path) -> None:
    with BlockCache(folder, 4 * MB) as cache:
        for name, target in (("dead", "nowhere"), ("alive", local(folder, "c"))):
            os.symlink(target, Path(cache.folder(f"mirrors/{name}")) / "bin")
        cache.prune(100 * MB)
        assert os.listdir(folder / "mirrors") == ["alive"]


def test_a_right_cache_is_right(folder: Path) -> None:
    report = check_cache(folder, open_store=lambda url: LocalStore(url.removeprefix("file://")))
    assert report.ok, report
    assert (report.objects, report.blocks, report.processes) == (3, 22, 0)
    assert report.compared_nbytes == 20 * BLOCK + 200


def test_what_is_wrong_is_mended(folder: Path, store: Store) -> None:
    state = folder / "state"
    words = np.memmap(state, np.uint64, "r+", shape=(4096 // 8,))
    words[2] += 5000
    words.flush()
    del words
    hole = os.open(local(folder, "train/a"), os.O_RDWR)
    from splitpipe.cache.files import punch_hole

    punch_hole(hole, 2 * BLOCK, 2 * BLOCK)
    os.close(hole)
    local(folder, "c").unlink()
    (folder / "objects" / "ab").mkdir(exist_ok=True)
    (folder / "objects" / "ab" / ("ab" * 16 + ".data")).write_bytes(b"left")
    report = check_cache(folder)
    text = "\n".join(report.findings)
    assert report.found == 4, text
    assert "train/a: block 2 to 3 was not on the disk" in text
    assert "did not belong to its bytes" in text
    assert "left by somebody who died" in text
    assert "the accounts were corrected" in text
    again = check_cache(folder)
    assert again.ok, again
    with BlockCache(folder, 4 * MB) as cache:
        for i, key in enumerate(("train/a", "train/b", "c")):
            with cache.open(store, key, block_nbytes=BLOCK) as file:
                assert file.read(0, file.size) == noise(file.size, i)


def test_bytes_that_are_not_the_sources_are_found(folder: Path, store: Store) -> None:
    with open(local(folder, "train/b"), "r+b") as file:
        file.seek(3 * BLOCK + 5)
        file.write(b"!!!")
    report = check_cache(folder, open_store=lambda url: store)
    assert report.findings == ("train/b: block 3 was not what its source has; it was thrown out",)
    store.write("train/a", b"another")
    report = check_cache(folder, open_store=lambda url: store)
    assert report.ok
    assert len(report.unreachable) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_damaged_accounts_are_made_anew(folder: Path, content: bytes) -> None:
    (folder / "state").write_bytes(content)
    report = check_cache(folder)
    assert report.found == 1
    assert "counted anew" in report.findings[0]
    assert report.used_nbytes == sum(entry.disk_nbytes for entry in inventory(folder))
    assert check_cache(folder).ok


def test_a_cache_in_use_is_checked_without_its_accounts(folder: Path) -> None:
    with BlockCache(folder, 4 * MB):
        report = check_cache(folder)
        assert report.ok
        assert report.processes == 1


def test_the_commands(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["cache", "ls", str(folder)]) == 0
    assert "(3 objects)" in capsys.readouterr().out
    monkeypatch.setenv("SPLITPIPE_CACHE", str(folder))
    assert run(["cache", "ls", "--objects"]) == 0
    assert "train/a" in capsys.readouterr().out
    assert run(["cache", "ls", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["objects"]) == 3
    assert run(["cache", "check", "--compare"]) == 0
    assert "everything is right" in capsys.readouterr().out
    assert run(["cache", "prune", "--to", "800kB", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["freed_nbytes"] > 0
    assert said["used_nbytes"] <= 800_000
    assert run(["cache", "prune", "--older", "1h"]) == 0
    assert "0 B thrown out" in capsys.readouterr().out
    local(folder, "train/b").unlink()
    assert run(["cache", "check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["found"] >= 1
    for wrong in (["--to", "much"], ["--older", "long"]):
        assert run(["cache", "prune", *wrong]) == 1
    assert run(["cache", "ls", str(folder.parent)]) == 1
    assert "no cache here" in capsys.readouterr().err
