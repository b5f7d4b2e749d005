"""Folders that are no cache, that cannot be one, or that are full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitpipe.cache import BlockCache, default_directory, format_nbytes, parse_nbytes
from splitpipe.errors import CacheFull, FormatError, StorageError, UnsupportedVersion
from splitpipe.testing.faults import Strike, Tap, fail, run_in_child
from tests.cache.sources import CountingStore, noise

BLOCK = 1 << 16
MB = 1 << 20


def test_a_folder_with_other_things_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("the only copy")
    with pytest.raises(StorageError, match=r"no cache: 'thesis\.tex' lies in it"):
        BlockCache(tmp_path, MB)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_lies_beside_in_a_folder_of_ours_is_left(tmp_path: Path) -> None:
    BlockCache(tmp_path, MB).close()
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "objects" / "zz").mkdir()
    (tmp_path / "objects" / "zz" / "mine.data").write_text("mine")
    with BlockCache(tmp_path, MB) as cache:
        cache._space.prune(0)
    assert (tmp_path / "notes").read_text() == "mine"
    assert (tmp_path / "objects" / "zz" / "mine.data").read_text() == "mine"


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    BlockCache(tmp_path, MB).close()
    marker = tmp_path / "splitpipe-cache.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "version": 2}))
    with pytest.raises(UnsupportedVersion, match="newer splitpipe"):
        BlockCache(tmp_path, MB)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "x", "version": 1}'])
def test_a_damaged_marker_is_refused(tmp_path: Path, text: str) -> None:
    BlockCache(tmp_path, MB).close()
    (tmp_path / "splitpipe-cache.json").write_text(text)
    with pytest.raises(FormatError, match="damaged"):
        BlockCache(tmp_path, MB)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError):
            BlockCache(path, MB)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_damaged_accounts_are_told(tmp_path: Path, content: bytes) -> None:
    BlockCache(tmp_path, MB).close()
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(FormatError, match="splitpipe cache check"):
        BlockCache(tmp_path, MB)


@pytest.mark.skipif(os.getuid() != 0, reason="gives up being root")
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    BlockCache(ours, MB).close()
    others.mkdir()
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path("/") and "pytest" in path.name:
            path.chmod(0o755)
    ours.chmod(0o755)

    def child() -> None:
        os.setuid(65534)
        for path in (ours, others):
            with pytest.raises(StorageError, match="choose another folder"):
                BlockCache(path, MB)

    assert run_in_child(child) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a little more than the accounts and a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill_up(path: Path) -> None:
    """Take all that is left of a disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)
    assert os.statvfs(path).f_bavail == 0


def test_a_full_disk_is_streamed_past_with_one_warning(small_disk: Path) -> None:
    store = CountingStore()
    store.write("a", noise(4 * MB))
    with (
        BlockCache(small_disk / "cache", 64 * MB) as cache,
        cache.open(store, "a", block_nbytes=BLOCK) as file,
    ):
        assert file.ensure([(0, MB)]).still_valid()
        ballast = small_disk / "ballast"
        fill_up(ballast)
        # Its own blocks make room for others, as within a limit.
        for start in range(2 * MB, 4 * MB, MB // 4):
            right = noise(4 * MB)[start : start + MB // 4]
            assert file.read(start, start + MB // 4) == right
        assert cache.statistics().streamed_nbytes == 0
        assert cache.statistics().used_nbytes <= MB + 4 * BLOCK
        cache._space.prune(0)
        fill_up(ballast)
        with pytest.warns(RuntimeWarning, match="read through memory"):
            assert file.read(0, file.size) == noise(4 * MB)
        with pytest.raises(CacheFull):
            file.ensure([(3 * MB, 4 * MB)])
        assert file.read(5, file.size) == noise(4 * MB)[5:]
        ballast.unlink()
        assert file.ensure([(0, MB // 2)]).still_valid()
        assert cache.statistics().reserved_nbytes == 0


def test_a_full_disk_at_any_write(tmp_path: Path) -> None:
    """Whatever call says that there is no room: an error of the tree, and right bytes after it."""
    store = CountingStore()
    store.write("a", noise(MB))
    for number in (errno.ENOSPC, errno.EDQUOT):
        for at in range(1, 30):
            folder = tmp_path / f"{number}-{at}"
            strike = Strike(
                at,
                fail(number),
                chosen=lambda call: call.name in ("os.pwrite", "os.posix_fallocate", "os.mkdir"),
            )
            with Tap(folder, strike):
                try:
                    with (
                        BlockCache(folder, 2 * MB, requests=1) as cache,
                        cache.open(store, "a", block_nbytes=BLOCK) as file,
                    ):
                        file.ensure([(0, MB // 2)])
                        file.ensure([(MB // 2, MB)])
                except (CacheFull, StorageError):
                    pass
            with (
                BlockCache(folder, 2 * MB, requests=1) as cache,
                cache.open(store, "a", block_nbytes=BLOCK) as file,
            ):
                assert file.read(0, MB) == noise(MB)
                noted, counted = cache._space.account.correct() or (0, -1)
                assert noted == counted
            if strike.struck is None:
                assert at > 3
                break


def test_a_file_size_limit_is_told(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("a", noise(MB))

    def child() -> None:
        with BlockCache(tmp_path, 8 * MB) as cache:
            resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, MB // 2))
            with pytest.raises(CacheFull):
                cache.open(store, "a")

    assert run_in_child(child) == 0


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITPIPE_CACHE", "/x/y")
    assert default_directory() == "/x/y"
    monkeypatch.delenv("SPLITPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/z")
    assert default_directory() == "/z/splitpipe"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_directory() == "/home/me/.cache/splitpipe"


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0),
        ("17", 17),
        ("17 B", 17),
        ("1k", 1024),
        ("1kB", 1000),
        ("1KiB", 1024),
        (" 2.5 gb ", 2_500_000_000),
        ("10 GiB", 10 << 30),
        ("3T", 3 << 40),
        ("4611686018427387904", 1 << 62),
    ],
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1e9", "1 XB", "1GB GB", "٣GB", "1,5GB", "9999999 PB", True, 1.5, None]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="no size"):
        parse_nbytes(text)


def test_sizes_are_told() -> None:
    told = [format_nbytes(n) for n in (0, 999, 1000, 999_949, 999_950, 10**15, 10**19)]
    assert told == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 PB", "10000.0 PB"]
