"""Samples behind a web server and in a bucket, with and without a cache."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import splitpipe as sp
from splitpipe.stores import LocalStore
from splitpipe.testing.faults import FaultProxy, HttpFault, chaos
from tests.server_fixtures import Bucket
from tests.servers import FileServer, S3Server

COUNT = 30


def content(number: int) -> bytes:
    return bytes([number]) * (1000 + number)


def fill(write: Callable[[str, bytes], object], folder: Path) -> None:
    for number in range(COUNT):
        write(f"set/files/{number}.bin", content(number))
    rows = [{"file": f"files/{n}.bin", "n": n} for n in range(COUNT)]
    pq.write_table(pa.Table.from_pylist(rows[:10]), folder / "part0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[10:]), folder / "part1.parquet")
    for part in range(2):
        name = f"part{part}.parquet"
        write(f"set/{name}", (folder / name).read_bytes())
    write("set/files.txt", b"".join(b"files/%d.bin\n" % n for n in range(COUNT)))


@pytest.fixture
def filled(bucket: Bucket, tmp_path: Path) -> Bucket:
    fill(lambda key, data: bucket.server.put(f"{bucket.name}/{key}", data), tmp_path)
    return bucket


@pytest.fixture
def served(file_server: FileServer, tmp_path: Path) -> FileServer:
    fill(LocalStore(file_server.folder).write, tmp_path)
    return file_server


def number_of(sample: dict[str, Any]) -> int:
    assert sample["file"] == content(sample["n"])
    return int(sample["n"])


@pytest.fixture(params=[False, True], ids=["straight", "cached"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if not request.param:
        return {}
    return {"cache_dir": tmp_path / "cache", "cache_limit": "64 MB"}


@pytest.mark.deadline(120)
def test_a_bucket(filled: Bucket, cache: dict[str, Any]) -> None:
    ds = sp.open_raw(
        f"{filled.url}/set/*.parquet", fetch="file", storage_options=filled.options, **cache
    )
    with ds:
        assert [number_of(sample) for sample in ds] == list(range(COUNT))
        assert ds[17]["file"] == content(17)
        pipe = sp.Pipeline(ds, shuffle="global", seed=4).map(number_of, workers=2)
        expected = list(pipe)
        with pipe.loader() as loader:
            assert list(loader) == expected
        secret = filled.options.get("secret")
        assert secret
        for text in (repr(ds), str(ds), repr(pickle.dumps(ds))):
            assert secret not in text


def test_a_folder_and_a_list_in_a_bucket(filled: Bucket) -> None:
    given = {"storage_options": filled.options}
    with sp.open_raw(f"{filled.url}/set/files/", **given) as ds:
        assert len(ds) == COUNT
        assert ds["12"] == {"__key__": "12", "bin": content(12)}
    with sp.open_raw(f"{filled.url}/set/files.txt", **given) as ds:
        assert [sample["path"] for sample in ds] == [content(n) for n in range(COUNT)]


def test_options_go_to_their_origin_alone(filled: Bucket) -> None:
    other = f"{filled.url}-other"
    table = [{"file": f"{filled.url}/set/files/1.bin"}]
    with pytest.raises(sp.FormatError, match="storage_options"):
        sp.open_raw(table, fetch="file", allow=[filled.url, other], storage_options=filled.options)
    given = {"storage_options": {filled.url: filled.options}}
    with sp.open_raw(table, fetch="file", allow=[filled.url, other], **given) as ds:
        assert ds[0]["file"] == content(1)
    given = {"storage_options": {"s3://": filled.options}}
    with sp.open_raw(table, fetch="file", allow="*", **given) as ds:
        assert ds[0]["file"] == content(1)


@pytest.mark.deadline(120)
def test_a_web_server(served: FileServer, cache: dict[str, Any]) -> None:
    with sp.open_raw(f"{served.url}/set/part1.parquet", fetch="file", **cache) as ds:
        assert [number_of(sample) for sample in ds] == list(range(10, COUNT))
        pipe = sp.Pipeline(ds).map(number_of, workers=2)
        with pipe.loader() as loader:
            assert list(loader) == list(range(10, COUNT))


def test_a_local_table_of_urls(served: FileServer, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{served.url}/set/files/{n}.bin?token=hunter2,{n}" for n in range(COUNT)]
    table.write_text("\n".join(["file,n", *lines]) + "\n")
    ds = sp.open_raw(table, fetch="file")
    with ds, pytest.raises(sp.FormatError, match="allow=") as caught:
        ds[0]
    assert "hunter2" not in str(caught.value)
    with sp.open_raw(table, fetch="file", allow=served.url) as ds:
        assert [sample["file"] for sample in ds] == [content(n) for n in range(COUNT)]
        assert "hunter2" not in str(ds.plan())
    (served.folder / "set" / "files" / "3.bin").unlink()
    with sp.open_raw(table, fetch="file", allow=served.url) as ds:
        with pytest.raises(sp.StorageError, match="sample 3 ") as caught:
            list(ds)
        assert "hunter2" not in str(caught.value)
        assert "3.bin" in str(caught.value)


@pytest.mark.deadline(120)
@pytest.mark.usefixtures("patient")
def test_a_cache_fetches_each_file_once(served: FileServer, tmp_path: Path) -> None:
    with FaultProxy(served.url) as proxy:
        given: dict[str, Any] = {"cache_dir": tmp_path / "cache", "cache_limit": "64 MB"}
        for _ in range(2):
            with sp.open_raw(f"{proxy.url}/set/files.txt", **given) as ds:
                for _ in range(2):
                    assert [s["path"] for s in ds] == [content(n) for n in range(COUNT)]
                with sp.Pipeline(ds, shuffle="global").batch(4, workers=2).loader() as loader:
                    assert sum(len(batch["path"]) for batch in loader) == COUNT
        fetched = [
            entry.target for entry in proxy.log() if entry.method == "GET" and "bin" in entry.target
        ]
        assert sorted(fetched) == sorted(set(fetched))
        assert len(fetched) == COUNT


@pytest.mark.deadline(120)
def test_faults_are_tried_again(served: FileServer, cache: dict[str, Any]) -> None:
    with (
        FaultProxy(served.url) as proxy,
        sp.open_raw(f"{proxy.url}/set/part0.parquet", fetch="file", **cache) as ds,
    ):
        proxy.inject(HttpFault(kind="status", status=503, rate=0.3), seed=1)
        assert [number_of(sample) for sample in ds] == list(range(10))


def test_what_is_gone_is_left_out_and_counted(served: FileServer, cache: dict[str, Any]) -> None:
    for number in (12, 15):
        (served.folder / "set" / "files" / f"{number}.bin").unlink()
    with sp.open_raw(f"{served.url}/set/part1.parquet", fetch="file", **cache) as ds:
        pipe = ds.pipeline(on_error="skip").map(number_of)
        with pipe.loader(executor="inline") as loader:
            assert list(loader) == [n for n in range(10, COUNT) if n not in (12, 15)]
            assert sum(s.skipped for task in loader.stats() for s in task.stages) == 2


def test_credentials_are_asked_for_where_they_are_needed(
    filled: Bucket, s3_server: S3Server
) -> None:
    wrong = {**filled.options, "key": "", "secret": ""}
    with pytest.raises(sp.SplitpipeError):
        sp.open_raw(f"{filled.url}-nothing/table.parquet", fetch="file", storage_options=wrong)


@pytest.mark.deadline(180)
@pytest.mark.long
def test_whatever_the_network_does_the_bytes_are_right(
    served: FileServer, cache: dict[str, Any]
) -> None:
    with (
        FaultProxy(served.url) as proxy,
        sp.open_raw(f"{proxy.url}/set/part1.parquet", fetch="file", **cache) as ds,
    ):
        proxy.inject(*chaos(0.3, stall_s=1.0, nbytes_per_s=1000.0), seed=7)
        pipe = sp.Pipeline(ds, shuffle="global", seed=3).map(number_of, workers=2)
        with pipe.loader() as loader:
            assert sorted(loader) == list(range(10, COUNT))


@pytest.mark.deadline(120)
def test_a_worker_that_is_killed_loses_nothing(
    served: FileServer, tmp_path: Path, cache: dict[str, Any]
) -> None:
    with sp.open_raw(f"{served.url}/set/part1.parquet", fetch="file", **cache) as ds:
        pipe = ds.pipeline(shuffle="global", seed=1, workers=2).map(Dying(tmp_path / "died", 17))
        with pipe.loader() as loader:
            found = list(loader)
        assert (tmp_path / "died").exists()
        order = sp.Pipeline(ds, shuffle="global", seed=1).map(number_of)
        assert found == list(order)


@dataclass(frozen=True)
class Dying:
    """Kills its process at a sample, the first time that it is there."""

    mark: Path
    at: int

    def __call__(self, sample: dict[str, Any]) -> int:
        number = number_of(sample)
        if number == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def test_a_file_that_changes_is_an_error_and_not_a_mixture(
    served: FileServer, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"cache_dir": tmp_path / "cache", "cache_limit": "64 MB"}
    with sp.open_raw(f"{served.url}/set/part0.parquet", fetch="file", **given) as ds:
        assert ds[3]["file"] == content(3)
        path = served.folder / "set" / "files" / "3.bin"
        path.write_bytes(b"another")
        assert ds[3]["file"] == content(3)  # what was opened
    with sp.open_raw(f"{served.url}/set/part0.parquet", fetch="file", **given) as ds:
        assert ds[3]["file"] == b"another"
