"""A folder as a store: nothing outside it, nothing half-written."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from splitpipe.errors import DatasetChanged, StorageError
from splitpipe.stores import ABSENT, LocalStore
from splitpipe.testing.faults import forked


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "folder"


def test_a_link_out_of_the_folder_is_not_followed(store: LocalStore, folder: Path) -> None:
    (folder / "file").symlink_to("../outside/secret")
    (folder / "folder").symlink_to("../outside")
    for key in ("file", "folder/secret", "folder/new"):
        for ask in (store.stat, store.read, lambda key: store.write(key, b"x")):
            with pytest.raises(StorageError, match="symbolic link") as caught:
                ask(key)
            assert caught.value.errno == errno.EACCES
    assert sorted(path.name for path in (folder.parent / "outside").iterdir()) == ["secret"]


def test_a_link_within_the_folder_is_followed(store: LocalStore, folder: Path) -> None:
    (folder / "blob").write_bytes(b"hello")
    (folder / "name").symlink_to("blob")
    assert store.read("name", 1, 3) == b"el"
    store.write("name", b"other")
    assert store.read("blob") == b"other"


def test_a_link_in_a_circle_is_an_error(store: LocalStore, folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(StorageError):
        store.read("a")


def test_what_is_no_file_is_no_object(store: LocalStore, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(StorageError) as caught:
        store.read("pipe")
    assert caught.value.errno == errno.ENOENT
    assert list(store.list()) == []


def test_what_may_not_be_read_is_said_to_be(store: LocalStore, folder: Path) -> None:
    (folder / "a").write_bytes(b"x")
    (folder / "a").chmod(0)
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    with pytest.raises(StorageError) as caught:
        store.read("a")
    assert caught.value.errno == errno.EACCES


def test_a_file_written_over_in_place_is_another_version(store: LocalStore, folder: Path) -> None:
    (folder / "a").write_bytes(b"hello")
    os.utime(folder / "a", ns=(1, 1))
    tag = store.stat("a").tag
    (folder / "a").write_bytes(b"other")
    with pytest.raises(DatasetChanged):
        store.read("a", tag=tag)


def test_versions_of_one_size_in_quick_succession_differ(store: LocalStore) -> None:
    tags = {store.write("a", b"same").tag for _ in range(50)}
    assert len(tags) == 50


def test_a_killed_writer_leaves_nothing_that_counts(store: LocalStore, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    store.write("a", data)

    def write(tell: object) -> None:
        assert callable(tell)
        while True:
            store.write("a", data)
            tell()

    with forked(write) as child:
        child.listen(messages=5)
        child.kill()
    assert store.read("a") == data
    assert [key for key, _ in store.list()] == ["a"]
    store.write("a", b"next")  # no lock is left either
    assert store.read("a") == b"next"


def test_a_failed_write_leaves_nothing(store: LocalStore, folder: Path) -> None:
    (folder / "taken").mkdir()
    with pytest.raises(StorageError):
        store.write("taken", b"x")
    with pytest.raises(DatasetChanged):
        store.write("a", b"x", expected="another")
    assert sorted(path.name for path in folder.iterdir()) == ["taken"]


def test_under_a_condition_no_update_is_lost(store: LocalStore) -> None:
    store.write("count", b"0", expected=ABSENT)

    def add(_: int) -> None:
        while True:
            stat = store.stat("count")
            try:
                number = int(store.read("count", tag=stat.tag))
                store.write("count", b"%d" % (number + 1), expected=stat.tag)
            except DatasetChanged:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(60)))
    assert store.read("count") == b"60"


def test_a_reader_sees_whole_versions_only(store: LocalStore) -> None:
    versions = [bytes([number]) * 50_000 for number in range(8)]
    store.write("a", versions[0])
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for data in versions:
                store.write("a", data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert len(set(store.read("a"))) == 1
    finally:
        over.set()
        writer.join()


def test_a_folder_that_is_not_there_has_nothing(store: LocalStore) -> None:
    assert list(store.list()) == []
    with pytest.raises(StorageError) as caught:
        store.read("a")
    assert caught.value.errno == errno.ENOENT


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full")
    store = LocalStore(tmp_path)
    with pytest.raises(StorageError):
        store.write("a" * 300, b"x")  # a name that no file can have
    assert list(tmp_path.iterdir()) == []
