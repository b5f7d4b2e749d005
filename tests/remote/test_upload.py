"""Writing into a store: bins as they fill, the manifest last, and never over another writer."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import splitpipe as sp
from splitpipe.errors import DatasetChanged, FormatError, LockedError, RemoteError, StorageError
from splitpipe.remote.uploads import Upload, Uploads
from splitpipe.storage.files import size_of
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.manifest import decode
from splitpipe.stores.base import ABSENT, MemoryStore, ObjectStat


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("memory://written")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"bins": 2, "bin_nbytes": 4096, "spool_dir": tmp_path / "spool"}


class Troubled(MemoryStore):
    """A store some of whose writes fail, as the test says: of some objects, before or after."""

    def __init__(self) -> None:
        super().__init__("memory://troubled")
        self.failing: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.entered = threading.Event()
        self.gate: threading.Event | None = None
        self.largest = 0

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        if self.gate is not None and key.endswith(".bin"):
            self.entered.set()
            assert self.gate.wait(30)
        self.largest = max(self.largest, len(data))
        for end in list(self.failing):
            if key.endswith(end) and self.failing[end]:
                self.failing[end] -= 1
                raise RemoteError(errno.EIO, "the server is tired", key)
        made = super().write(key, data, expected=expected)
        for end in list(self.after):
            if key.endswith(end) and self.after[end]:
                self.after[end] -= 1
                raise RemoteError(errno.EIO, "the answer was lost", key)
        return made


def manifest_of(store: MemoryStore) -> Any:
    return decode(store.read(MANIFEST_NAME), store.url)


def keys(store: MemoryStore) -> list[str]:
    return [key for key, _ in store.list()]


def copied(store: MemoryStore, folder: Path, raw: bytes | None = None) -> Path:
    """A local dataset of exactly the objects that a manifest names."""
    folder.mkdir()
    raw = store.read(MANIFEST_NAME) if raw is None else raw
    (folder / MANIFEST_NAME).write_bytes(raw)
    manifest = decode(raw, "")
    from splitpipe.storage.format import file_name
    from splitpipe.storage.snapshot import other_names

    names = [
        file_name(identity)
        for column in manifest.columns
        for identity, size in manifest.files(column)
        if size
    ]
    for name in [*names, *other_names(manifest)]:
        (folder / name).write_bytes(store.read(name))
    return folder


def read_back(store: MemoryStore, folder: Path, raw: bytes | None = None) -> list[Any]:
    path = copied(store, folder, raw)
    report = sp.check_dataset(path)
    assert report.ok, report
    with sp.open_dataset(path) as made:
        return list(made)


RECORDS = [{"name": f"n{n}", "values": np.full(n % 50, n, "int32")} for n in range(1500)]


def same(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(
        one["name"] == other["name"] and np.array_equal(one["values"], other["values"])
        for one, other in zip(found, expected, strict=True)
    )


class TestWriting:
    def test_what_was_written_is_there(
        self, store: MemoryStore, options: dict[str, Any], tmp_path: Path
    ) -> None:
        schema = {"name": "str", "values": sp.ndarray("int32", (None,))}
        with sp.DatasetWriter(store, schema, **options) as writer:
            assert writer.path == store.url
            for at in range(0, 1500, 50):
                writer.write_many(RECORDS[at : at + 50])
                writer.flush()
            assert writer.rows == 1500
            assert MANIFEST_NAME not in keys(store)
        assert same(read_back(store, tmp_path / "copy"), RECORDS)
        column = manifest_of(store).columns[1]
        assert len(column.layout.segments) > 3
        assert max(column.bin_sizes) < 3 * 4096 + 200
        assert not list((tmp_path / "spool").glob("*/files"))

    def test_bins_are_uploaded_while_others_fill(
        self, store: MemoryStore, options: dict[str, Any], tmp_path: Path
    ) -> None:
        spool = tmp_path / "spool"
        with sp.DatasetWriter(store, schema="bytes", **options) as writer:
            most = 0
            for number in range(400):
                writer.write(bytes([number % 256]) * 1000)
                writer.flush()
                here = sum(size_of(str(file)) for file in spool.rglob("*.bin"))
                most = max(most, here)
            uploaded = sum(stat.size for key, stat in store.list() if key.endswith(".bin"))
            assert uploaded > 300_000
            assert most < 2 * 2 * 4096 + 3 * 1100  # a segment under way, and as much that waits
        assert len(read_back(store, tmp_path / "copy")) == 400

    @given(
        records=st.lists(st.binary(max_size=3000), max_size=60),
        bins=st.integers(1, 3),
        data=st.data(),
    )
    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_records_with_commits_between(
        self, records: list[bytes], bins: int, data: Any, tmp_path: Path
    ) -> None:
        store, cuts = MemoryStore(), sorted(data.draw(st.lists(st.integers(0, 60), max_size=3)))
        folder = tmp_path / os.urandom(8).hex()
        folder.mkdir()
        seen = []
        with sp.DatasetWriter(
            store, schema="bytes", bins=bins, bin_nbytes=500, spool_dir=folder
        ) as writer:
            at = 0
            for cut in [*cuts, len(records)]:
                cut = max(at, min(cut, len(records)))
                writer.write_many(records[at:cut])
                at = cut
                writer.commit()
                seen.append((store.read(MANIFEST_NAME), at))
        # Every commit is still there, whole, for those who opened it.
        for number, (raw, rows) in enumerate(seen):
            assert read_back(store, folder / f"c{number}", raw) == records[:rows]

    def test_nothing_is_a_dataset_too(self, store: MemoryStore, tmp_path: Path) -> None:
        sp.DatasetWriter(store, schema="str", spool_dir=tmp_path / "spool").close()
        assert read_back(store, tmp_path / "copy") == []

    def test_keys_compression_and_missing_values(
        self, store: MemoryStore, options: dict[str, Any], tmp_path: Path
    ) -> None:
        records = [{"text": f"line {n} " * 9, "n": n if n % 3 else None} for n in range(600)]
        schema = {"text": "str", "n": "int64"}
        zstd = sp.Zstd(dictionary=True)
        with sp.DatasetWriter(
            store, schema, compression={"text": zstd}, metadata={"half": "int64"}, **options
        ) as writer:
            for n, record in enumerate(records):
                writer.write(record, key=f"k{n}", meta={"half": n // 2})
                if n == 200:
                    writer.commit()
        path = copied(store, tmp_path / "copy")
        assert sp.check_dataset(path).ok
        with sp.open_dataset(path) as made:
            assert list(made) == records
            assert made["k77"] == records[77]
            assert len(made.where("half = 4")) == 2

    def test_overwriting(self, store: MemoryStore, options: dict[str, Any], tmp_path: Path) -> None:
        with sp.DatasetWriter(store, **options) as writer:
            writer.write_many([b"old"] * 10)
        before = store.read(MANIFEST_NAME)
        with pytest.raises(StorageError, match="overwrite=True") as refused:
            sp.DatasetWriter(store, **options)
        assert refused.value.errno == errno.EEXIST
        with sp.DatasetWriter(store, overwrite=True, **options) as writer:
            writer.write_many(["new"] * 3)
        assert read_back(store, tmp_path / "copy") == ["new"] * 3
        after = manifest_of(store)
        assert after.volume == 2
        assert after.generation > decode(before, "").generation
        # Who opened the old one still has it.
        assert read_back(store, tmp_path / "old", before) == [b"old"] * 10

    def test_giving_up_leaves_nothing_that_is_seen(
        self, store: MemoryStore, options: dict[str, Any], tmp_path: Path
    ) -> None:
        writer = sp.DatasetWriter(store, **options)
        writer.write_many([b"x" * 1000] * 100)
        writer.flush()
        writer.abort()
        assert MANIFEST_NAME not in keys(store)
        assert not list((tmp_path / "spool").glob("*/files"))
        with sp.DatasetWriter(store, **options) as writer:  # names that are taken are not used
            writer.write_many([b"y" * 1000] * 100)
        assert manifest_of(store).volume == 2
        assert read_back(store, tmp_path / "copy") == [b"y" * 1000] * 100

    def test_what_cannot_be_done_there(self, store: MemoryStore, options: dict[str, Any]) -> None:
        with sp.DatasetWriter(store, **options) as writer:
            writer.write_many([{"n": 1}, {"n": 2}])
            writer.commit()
            for change in (
                lambda: writer.update(0, {"n": 3}),
                lambda: writer.delete(0),
                lambda: writer.add_column("m", "int64"),
                lambda: writer.update_column("n", [4, 5]),
            ):
                with pytest.raises(StorageError, match="cannot be changed") as refused:
                    change()
                assert refused.value.errno == errno.ENOTSUP
        with pytest.raises(StorageError, match="cannot be added to"):
            sp.DatasetWriter(store, append=True, **options)
        with pytest.raises(FormatError, match="bin_nbytes"):
            sp.DatasetWriter(store, **{**options, "bin_nbytes": 0})
        with pytest.raises(TypeError, match="store already"):
            sp.DatasetWriter(store, storage_options={"key": "secret"}, **options)
        with pytest.raises(TypeError, match="no url and no store: bin_nbytes"):
            sp.DatasetWriter("here", bin_nbytes=5)


class TestTwoWriters:
    def test_the_second_to_commit_is_told(
        self, store: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = sp.DatasetWriter(store, spool_dir=tmp_path / "a")
        with caplog.at_level(logging.WARNING, "splitpipe.remote"):
            second = sp.DatasetWriter(store, spool_dir=tmp_path / "b")
        assert "another writer has begun volume 1" in caplog.text
        first.write_many([b"first"] * 5)
        second.write_many([b"second"] * 7)
        second.close()
        with pytest.raises(DatasetChanged, match="another writer has committed"):
            first.close()
        first.abort()
        assert read_back(store, tmp_path / "copy") == [b"second"] * 7

    def test_of_one_machine_only_one_begins(self, store: MemoryStore, tmp_path: Path) -> None:
        with sp.DatasetWriter(store, spool_dir=tmp_path) as writer:
            with pytest.raises(LockedError, match=f"process {os.getpid()}"):
                sp.DatasetWriter(store, spool_dir=tmp_path)
            writer.write(b"x")
        assert keys(store).count("v0001.writer") == 1
        sp.DatasetWriter(store, overwrite=True, spool_dir=tmp_path).abort()

    def test_what_a_killed_writer_left_here_is_removed(
        self, store: MemoryStore, options: dict[str, Any], tmp_path: Path
    ) -> None:
        pid = os.fork()
        if not pid:
            try:
                writer = sp.DatasetWriter(store, **options)
                writer.write_many([b"x" * 100] * 30)
                writer.flush()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        left = list((tmp_path / "spool").rglob("*.index"))
        assert left
        with sp.DatasetWriter(store, **options) as writer:
            writer.write(b"mine")
        assert read_back(store, tmp_path / "copy") == [b"mine"]
        assert not list((tmp_path / "spool").rglob("*.index"))

    def test_a_folder_of_somebody_else_is_refused(self, store: MemoryStore, tmp_path: Path) -> None:
        writer = sp.DatasetWriter(store, spool_dir=tmp_path)
        (home,) = tmp_path.iterdir()
        writer.abort()
        assert list(tmp_path.iterdir()) == []
        home.symlink_to(tmp_path)
        with pytest.raises(StorageError, match="not a folder of yours"):
            sp.DatasetWriter(store, spool_dir=tmp_path)

    def test_a_store_without_versions_is_refused(self, tmp_path: Path) -> None:
        class Untagged(MemoryStore):
            def stat(self, key: str) -> ObjectStat:
                return ObjectStat(super().stat(key).size, None)

        store = Untagged()
        store.write(MANIFEST_NAME, b"whatever")
        with pytest.raises(StorageError, match="cannot tell versions"):
            sp.DatasetWriter(store, spool_dir=tmp_path)


class TestTroubles:
    @pytest.mark.parametrize("end", [".bin", ".index", ".sums", ".json", ".sqlite", ".dictionary"])
    @pytest.mark.parametrize("when", ["failing", "after"])
    def test_a_commit_can_be_tried_again(
        self, end: str, when: str, options: dict[str, Any], tmp_path: Path
    ) -> None:
        store = Troubled()
        records = [{"text": f"line {n} " * 9} for n in range(300)]
        writer = sp.DatasetWriter(
            store, {"text": "str"}, compression=sp.Zstd(dictionary=True), keys="auto", **options
        )
        setattr(store, when, {end: 1})
        writer.write_many(records)
        with pytest.raises(RemoteError):
            writer.commit()
        assert MANIFEST_NAME not in keys(store) or (end, when) == (".json", "after")
        writer.commit()
        writer.close()
        assert read_back(store, tmp_path / "copy") == records

    def test_a_failed_commit_with_more_records_after_it(
        self, options: dict[str, Any], tmp_path: Path
    ) -> None:
        store = Troubled()
        writer = sp.DatasetWriter(store, "str", keys="auto", **options)
        store.failing = {".sqlite": 1, ".index": 1}
        writer.write("one")
        with pytest.raises(RemoteError):
            writer.commit()
        writer.write("two")
        store.failing = {}
        writer.close()
        assert read_back(store, tmp_path / "copy") == ["one", "two"]

    def test_an_object_of_somebody_else_is_not_written_over(
        self, store: MemoryStore, options: dict[str, Any]
    ) -> None:
        store.write("v0001-c000-b00000.bin", b"theirs")
        writer = sp.DatasetWriter(store, **options)
        writer.write(b"mine")
        with pytest.raises(StorageError, match="another object of this name"):
            writer.commit()
        writer.abort()
        assert store.read("v0001-c000-b00000.bin") == b"theirs"

    def test_who_writes_waits_for_the_store(self, options: dict[str, Any]) -> None:
        store = Troubled()
        store.gate = threading.Event()
        writer = sp.DatasetWriter(store, schema="bytes", **options)
        done = threading.Event()

        def write() -> None:
            for _ in range(100):
                writer.write(b"x" * 1000)
                writer.flush()
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert store.entered.wait(30)
            assert not done.wait(0.2)
            rows = writer.rows
            assert rows < 40
        finally:
            store.gate.set()
            thread.join(120)
        assert done.is_set()
        writer.close()
        assert manifest_of(store).rows == 100

    def test_closing_gives_up_what_was_not_begun(self, tmp_path: Path) -> None:
        store = Troubled()
        store.gate = threading.Event()
        uploads = Uploads(store, limit_nbytes=1 << 20, threads=1)
        for number in range(3):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(b"x" * 10)
            uploads.add(Upload(f"{number}.bin", str(path), 10))
        assert store.entered.wait(30)
        store.gate.set()
        uploads.close()
        uploads.close()
        assert "0.bin" in keys(store)

    def test_a_file_that_was_cut_is_not_uploaded(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"short")
        with pytest.raises(StorageError, match="5 bytes, 9 were written"):
            Upload("a", str(tmp_path / "a"), 9).data()


def test_the_first_object_says_who_writes(store: MemoryStore, tmp_path: Path) -> None:
    with sp.DatasetWriter(store, spool_dir=tmp_path):
        assert str(os.getpid()).encode() in store.read("v0001.writer")
    with pytest.raises(DatasetChanged):
        store.write("v0001.writer", b"", expected=ABSENT)
