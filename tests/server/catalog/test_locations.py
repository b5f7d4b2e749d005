"""What a server reads, and what it does not, however it is asked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.errors import (
    DatasetChanged,
    FormatError,
    NotAllowed,
    SplitpipeError,
    StorageError,
)
from splitpipe.server.catalog import Datasets, Locations, blamed, open_snapshot
from splitpipe.server.state import open_database
from splitpipe.stores import open_store
from tests.server_fixtures import Bucket


def csv(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


OUTSIDE = [
    "/etc/passwd",
    "../secret.csv",
    "a/../../secret.csv",
    "..",
    "../data/../secret.csv",
    "link",
    "link/secret.csv",
    "deep/link/secret.csv",
    "dangling",
    "/proc/self/root/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
]
URLS = [
    "file:///etc/passwd",
    "local:///etc/passwd",
    "memory://x/y.csv",
    "FILE:///etc/passwd",
    "s3://other/x.csv",
    "s3://bucket/trainer/x.csv",
    "s3://bucket/train/../x.csv",
    "s3://bucket/train/%2e%2e/x.csv",
    "s3://bucket/train//x.csv",
    "s3://bucket.evil/train/x.csv",
    "simplecache::s3://bucket/train/x.csv",
    "s3://bucket/train/x.zip::file:///etc/passwd",
    "http://127.0.0.1/x.csv",
    "http://good.example.evil/x.csv",
    "http://good.example:8080/x.csv",
    "gopher://x/y",
]


@pytest.fixture
def rules(data: Path) -> Locations:
    root = data.parent
    (root / "secret.csv").write_text("secret\n1\n")
    (root / "shared").mkdir()
    (data / "deep").mkdir()
    os.symlink(root, data / "link")
    os.symlink(root, data / "deep" / "link")
    os.symlink("/nowhere", data / "dangling")
    return Locations(
        str(data),
        allow_roots=(str(root / "shared"),),
        allow_remote=("s3://bucket/train", "https://good.example/sets/"),
        cache=str(root / "cache"),
    )


class TestPaths:
    @pytest.mark.parametrize("location", OUTSIDE)
    def test_outside_of_the_folders(self, rules: Locations, location: str) -> None:
        with pytest.raises(NotAllowed):
            rules.place(location)

    @pytest.mark.parametrize("location", ["", "a\0b", "a\nb", "\ud800"])
    def test_no_location(self, rules: Locations, location: str) -> None:
        with pytest.raises(FormatError):
            rules.place(location)

    def test_inside(self, rules: Locations, data: Path) -> None:
        assert rules.place("a/b.csv").path == str(data / "a" / "b.csv")
        assert rules.place(str(data / "x")).path == str(data / "x")
        assert rules.place(str(data.parent / "shared" / "y")).path.endswith("/shared/y")
        os.symlink(data.parent / "shared", data / "fine")
        assert rules.place("fine/z").path == str(data.parent / "shared" / "z")

    @given(st.text(st.sampled_from("./\\%ab~$*:"), max_size=12))
    def test_whatever_is_said_it_is_inside_or_refused(self, text: str) -> None:
        rules = Locations("/data/inner")
        try:
            place = rules.place(text)
        except SplitpipeError:
            return
        assert place.path == "/data/inner" or place.path.startswith("/data/inner/")


@pytest.fixture
def guarded(rules: Locations, data: Path) -> Iterator[Datasets]:
    with open_database("sqlite://") as database:
        made = Datasets(database, rules, indices=str(data.parent / "indices"))
        made.create("d")
        yield made
        made.close()


class TestFiles:
    def test_one_that_is_a_link_elsewhere(self, guarded: Datasets, data: Path) -> None:
        csv(data / "set" / "a.csv", "n\n1\n")
        os.symlink(data.parent / "secret.csv", data / "set" / "b.csv")
        with pytest.raises(NotAllowed, match=r"b\.csv.*links lead"):
            guarded.add_column_set("d", "x", location="set", format="csv")

    def test_one_that_becomes_a_link_elsewhere(self, guarded: Datasets, data: Path) -> None:
        csv(data / "set" / "a.csv", "n\n1\n")
        guarded.add_column_set("d", "x", location="set", format="csv")
        snapshot = guarded.pin("d")
        before = (data / "set" / "a.csv").stat()
        # Of the same size and time: only where it leads tells that it is another one.
        secret = data.parent / "secret.csv"
        secret.write_text("n\n7\n")
        os.utime(secret, ns=(before.st_atime_ns, before.st_mtime_ns))
        (data / "set" / "a.csv").unlink()
        os.symlink(secret, data / "set" / "a.csv")
        with open_snapshot(snapshot) as opened, pytest.raises(NotAllowed):
            opened[0]
        guarded.close()
        with pytest.raises(NotAllowed):
            guarded.pin("d")

    def test_a_folder_that_becomes_a_link_elsewhere(self, guarded: Datasets, data: Path) -> None:
        csv(data / "set" / "a.csv", "n\n1\n")
        guarded.add_column_set("d", "x", location="set", format="csv")
        snapshot = guarded.pin("d")
        guarded.close()
        (data / "set").rename(data.parent / "moved")
        os.symlink(data.parent / "moved", data / "set")
        with open_snapshot(snapshot) as opened, pytest.raises(NotAllowed):
            opened[0]
        with pytest.raises(NotAllowed):
            guarded.pin("d")

    @pytest.mark.parametrize("pattern", ["deep/*/secret.csv", "*/secret.csv", "l*/s*.csv"])
    def test_a_pattern_leads_nowhere_else(self, guarded: Datasets, pattern: str) -> None:
        with pytest.raises(NotAllowed):
            guarded.add_column_set("d", "x", location=pattern, format="csv")

    def test_folders_that_are_links_are_not_gone_through(
        self, guarded: Datasets, data: Path
    ) -> None:
        csv(data / "set" / "a.csv", "n\n1\n")
        os.symlink(data.parent, data / "set" / "up")
        made = guarded.add_column_set("d", "x", location="set", format="csv")
        assert (made["files"], made["rows"]) == (1, 1)

    def test_bins_with_a_link_elsewhere(self, guarded: Datasets, data: Path) -> None:
        with sp.DatasetWriter(data / "bins") as writer:
            writer.write({"n": 1})
        index = next(path for path in (data / "bins").iterdir() if path.suffix == ".index")
        index.rename(data.parent / "index")
        os.symlink(data.parent / "index", index)
        with pytest.raises(NotAllowed, match="links lead"):
            guarded.add_column_set("d", "x", location="bins", format="bins")

    @pytest.mark.parametrize("format", ["csv", "bins"])
    def test_no_pipe_is_waited_for(self, guarded: Datasets, data: Path, format: str) -> None:
        (data / "set").mkdir()
        os.mkfifo(data / "set" / ("a.csv" if format == "csv" else "manifest.json"))
        with pytest.raises(SplitpipeError):
            guarded.add_column_set("d", "x", location="set", format=format)

    def test_pickled_values_are_never_read(
        self, guarded: Datasets, data: Path, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        with sp.DatasetWriter(data / "bins", {"n": "int64", "x": "pickle"}) as writer:
            writer.write({"n": 1, "x": Canary(str(canary))})
        made = guarded.add_column_set("d", "x", location="bins", format="bins")
        assert [column["name"] for column in made["columns"]] == ["n"]
        assert guarded.preview("d")["rows"] == [{"row": 0, "values": {"n": 1}}]
        with sp.DatasetWriter(data / "only", "pickle") as writer:
            writer.write(Canary(str(canary)))
        with pytest.raises(FormatError, match="pickled"):
            guarded.add_column_set("d", "y", location="only", format="bins")
        assert not canary.exists()


class Canary:
    """Runs something when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (self.path,)


class TestUrls:
    @pytest.mark.parametrize("url", URLS)
    def test_that_nobody_allowed(self, rules: Locations, url: str) -> None:
        with pytest.raises((NotAllowed, FormatError)):
            rules.place(url)

    @pytest.mark.parametrize(
        "url", ["s3://bucket/train", "s3://bucket/train/a b.csv", "https://good.example/sets/x"]
    )
    def test_that_the_operator_allows(self, rules: Locations, url: str) -> None:
        assert rules.place(url).path == url

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:hunter2@good.example/sets/x.csv",
            "https://good.example/sets/x.csv?signature=hunter2",
            "s3://user:hunter2@bucket/train/x.csv",
        ],
    )
    def test_with_a_secret_in_it(self, rules: Locations, url: str) -> None:
        with pytest.raises(FormatError) as caught:
            rules.place(url)
        assert "hunter2" not in str(caught.value)

    def test_a_file_of_options_is_its_owners_alone(self, data: Path) -> None:
        path = data.parent / "options.json"
        path.write_text(json.dumps({"s3://bucket": {"key": "k", "secret": "hunter2"}}))
        rules = Locations(str(data), storage_options=str(path))
        with pytest.raises(StorageError, match="chmod 600"):
            rules.options_for("s3://bucket/x")
        path.chmod(0o600)
        assert rules.options_for("s3://bucket/x") == {"key": "k", "secret": "hunter2"}
        assert rules.options_for("s3://other/x") is None
        assert "hunter2" not in repr(rules) + json.dumps(rules.to_json())
        path.write_text('["hunter2"]')
        with pytest.raises(FormatError) as caught:
            rules.options_for("s3://bucket/x")
        assert "hunter2" not in str(caught.value)


@pytest.mark.deadline(180)
class TestS3:
    @pytest.fixture
    def remote(self, bucket: Bucket, data: Path) -> Iterator[Datasets]:
        path = data.parent / "options.json"
        path.touch(0o600)
        path.write_text(json.dumps({bucket.url: bucket.options}))
        rules = Locations(
            str(data),
            allow_remote=(f"{bucket.url}/train",),
            storage_options=str(path),
            cache=str(data.parent / "cache"),
        )
        with open_database(f"sqlite:///{data.parent}/state.sqlite") as database:
            made = Datasets(database, rules, indices=str(data.parent / "indices"))
            made.create("d", uid_column="n")
            yield made
            made.close()

    def test_files(self, bucket: Bucket, remote: Datasets, data: Path) -> None:
        bucket.server.put(f"{bucket.name}/train/f/1.csv", b"n,x\n1,a\n2,b\n")
        bucket.server.put(f"{bucket.name}/train/f/2.csv", b"n,x\n3,c\n")
        bucket.server.put(f"{bucket.name}/train/f/notes.txt", b"no")
        made = remote.add_column_set("d", "x", location=f"{bucket.url}/train/f", format="csv")
        assert (made["files"], made["rows"]) == (2, 3)
        table = pa.BufferOutputStream()
        pq.write_table(pa.table({"n": [3, 1], "y": [0.5, 1.5]}), table)
        bucket.server.put(f"{bucket.name}/train/p/1.parquet", table.getvalue().to_pybytes())
        one = f"{bucket.url}/train/p/1.parquet"
        remote.add_column_set("d", "y", location=one, format="parquet")
        snapshot = remote.pin("d")
        with open_snapshot(json.loads(json.dumps(snapshot))) as opened:
            assert [row["y"] for row in opened] == [1.5, None, 0.5]
        told = json.dumps([snapshot, remote.describe("d")]) + (
            data.parent / "state.sqlite"
        ).read_bytes().decode("latin-1")
        assert bucket.server.secret not in told
        # One is replaced: its rows are errors where no copy of it is kept, and a sync finds it.
        bucket.server.put(f"{bucket.name}/train/f/2.csv", b"n,x\n4,d\n")
        shutil.rmtree(data.parent / "cache")
        with open_snapshot(snapshot, ["x"]) as opened:
            assert opened[0] == {"x": "a"}
            with pytest.raises(DatasetChanged) as caught:
                opened[2]
            assert blamed(caught.value, snapshot) == "x"
        with pytest.raises(DatasetChanged, match=r"'x' was changed"):
            remote.pin("d")
        assert remote.sync("d", "x")["changed"] == ["2.csv"]
        with open_snapshot(remote.pin("d"), ["x"]) as opened:
            assert opened[2] == {"x": "d"}

    def test_a_pattern(self, bucket: Bucket, remote: Datasets) -> None:
        bucket.server.put(f"{bucket.name}/train/g/a1.csv", b"n\n1\n")
        bucket.server.put(f"{bucket.name}/train/g/b1.csv", b"n\n1\n")
        made = remote.add_column_set(
            "d", "x", location=f"{bucket.url}/train/g/a*.csv", format="csv"
        )
        assert made["files"] == 1

    def test_bins(self, bucket: Bucket, remote: Datasets) -> None:
        url = f"{bucket.url}/train/bins"
        with sp.DatasetWriter(open_store(url, storage_options=bucket.options)) as writer:
            writer.write_many({"n": n, "v": np.arange(n, n + 2)} for n in range(100))
        made = remote.add_column_set("d", "x", location=url, format="bins")
        assert made["rows"] == 100
        snapshot = remote.pin("d")
        with open_snapshot(snapshot, ["v"]) as opened:
            assert opened[7]["v"].tolist() == [7, 8]

    def test_what_is_not_there(self, bucket: Bucket, remote: Datasets) -> None:
        for location in (f"{bucket.url}/train/no", f"{bucket.url}/train/no.csv"):
            with pytest.raises(StorageError):
                remote.add_column_set("d", "x", location=location, format="csv")
        with pytest.raises(NotAllowed):
            remote.add_column_set("d", "x", location=f"{bucket.url}/else/x.csv", format="csv")
