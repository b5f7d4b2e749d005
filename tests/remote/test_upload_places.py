"""Writing to real stores, through faults, and reading what was written where it lies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.errors import DatasetChanged, LockedError, StorageError
from splitpipe.stores import MemoryStore, ObjectStat, open_store
from splitpipe.testing.faults import FaultProxy, chaos
from tests.server_fixtures import Bucket, bucket, s3_proxy, s3_server

__all__ = ["bucket", "s3_proxy", "s3_server"]

# Made before anybody looks at what a test leaves behind.
pytestmark = pytest.mark.usefixtures("s3_server")

RECORDS = [{"text": f"line {n} " * (n % 40), "n": n} for n in range(900)]


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A url, and the options that lead there."""
    if request.param == "file":
        return f"file://{tmp_path}/there/data", {}
    found: Bucket = request.getfixturevalue("bucket")
    return f"{found.url}/some/data", {"storage_options": found.options}


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Any]:
    return {"bins": 3, "bin_nbytes": 3000, "spool_dir": tmp_path / "spool"}


def write(url: str, records: list[Any], **options: Any) -> None:
    with sp.DatasetWriter(url, **options) as writer:
        for at in range(0, len(records), 60):
            writer.write_many(records[at : at + 60])
            writer.flush()


def test_written_and_read_there(
    place: tuple[str, dict[str, Any]], small: dict[str, Any], tmp_path: Path
) -> None:
    url, options = place
    write(url, RECORDS, **options, **small)
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == RECORDS
        pipe = sp.Pipeline(made, shuffle="binwise").map(dict, workers=2)
        with pipe.loader(start_method="fork") as loader:
            assert sorted(item["n"] for item in loader) == list(range(900))
    with pytest.raises(StorageError, match="overwrite=True"):
        sp.DatasetWriter(url, **options, **small)
    write(url, RECORDS[:5], overwrite=True, **options, **small)
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == RECORDS[:5]


def test_the_second_writer_is_told(
    place: tuple[str, dict[str, Any]], small: dict[str, Any], tmp_path: Path
) -> None:
    url, options = place
    first = sp.DatasetWriter(url, **options, **small)
    with pytest.raises(LockedError):
        sp.DatasetWriter(url, **options, **small)
    with sp.DatasetWriter(url, **options, spool_dir=tmp_path / "elsewhere") as second:
        second.write(b"second")
    first.write(b"first")
    with pytest.raises(DatasetChanged, match="another writer has committed"):
        first.commit()
    first.abort()
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == [b"second"]


def test_through_a_network_that_fails(
    bucket: Bucket, s3_proxy: FaultProxy, small: dict[str, Any], tmp_path: Path
) -> None:
    options = {"storage_options": bucket.server.options_at(s3_proxy.url)}
    s3_proxy.inject(*chaos(0.2), seed=3)
    url = f"{bucket.url}/data"
    write(url, RECORDS, **options, **small)
    s3_proxy.forget()
    direct = {"storage_options": bucket.options}
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **direct) as made:
        assert list(made) == RECORDS


_KILLED = """
import os, sys, splitpipe as sp
url, spool, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
writer = sp.DatasetWriter(url, bins=3, bin_nbytes=3000, spool_dir=spool, **options)
for number in range(600):
    writer.write({"text": "x" * 100, "n": number})
    if number % 50 == 49:
        writer.flush()
    if number == int(sys.argv[4]):
        print("now", flush=True)
        sys.stdin.read()
writer.close()
"""


@pytest.mark.parametrize("at", [0, 300, 599])
def test_a_killed_writer_leaves_nothing_that_is_seen(
    place: tuple[str, dict[str, Any]], small: dict[str, Any], tmp_path: Path, at: int
) -> None:
    url, options = place
    command = [sys.executable, "-c", _KILLED, url, str(small["spool_dir"]), repr(options), str(at)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(StorageError):
        sp.open_dataset(url, cache_dir=tmp_path / "cache", **options)
    store = open_store(url, **options)
    left = [key for key, _ in store.list() if key.endswith(".bin")]
    store.close()
    assert bool(left) == (at >= 300)
    write(url, RECORDS[:50], **options, **small)
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == RECORDS[:50]


def test_jobs_are_refused(place: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(StorageError, match="not in a store; write there with a DatasetWriter"):
        sp.Job(sp.Pipeline(range(3)), place[0])


@pytest.mark.parametrize("work", [sp.compact, sp.repair, sp.check_dataset, sp.token_info])
@pytest.mark.parametrize("url", ["s3://me:secret@bucket/data?token=1", Path("s3://me:secret@b/d")])
def test_what_works_on_directories_alone_says_so(
    work: Any, url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="not in a store") as refused:
        work(url)
    assert "secret" not in str(refused.value)
    assert "token" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_copies_and_tokens_are_written_here(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "a") as writer:
        writer.write("text")
    with pytest.raises(StorageError, match="not in a store"):
        sp.convert(tmp_path / "a", "s3://bucket/copy")
    with pytest.raises(StorageError, match="not in a store"):
        sp.tokenize(["abc"], "s3://bucket/t", str.encode, length=2, eos=0, vocabulary=256)


def test_a_server_that_cannot_be_written_to(file_server: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refused:
        sp.DatasetWriter(f"{file_server.url}/data", spool_dir=tmp_path)
    assert refused.value.errno == errno.ENOTSUP
    assert not list(tmp_path.glob("*/files"))


def test_a_store_that_cannot_replace_on_condition(tmp_path: Path) -> None:
    class Careless(MemoryStore):
        """As some are: an object can be made where there is none, and that is all."""

        def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
            if expected:
                raise StorageError(errno.ENOTSUP, "no such condition", key)
            return super().write(key, data, expected=expected)

    store = Careless()
    with sp.DatasetWriter(store, spool_dir=tmp_path) as writer:
        writer.write("one")
    with pytest.raises(StorageError) as refused:
        sp.DatasetWriter(store, overwrite=True, spool_dir=tmp_path)
    assert refused.value.errno == errno.ENOTSUP
