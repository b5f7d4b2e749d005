"""Google's, Azure's and Hugging Face's storage, over servers that speak their protocols.

Hugging Face's is an imitation of our own. By hand, with Microsoft's emulator and Google's own::

    npm install azurite
    SPLITPIPE_TEST_AZURITE=node_modules/.bin/azurite-blob pytest -m long tests/remote/test_clouds.py

    storage-testbench --port 9000 &    # github.com/googleapis/storage-testbench
    SPLITPIPE_TEST_GS=http://localhost:9000 pytest tests/remote/test_clouds.py -k Google
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import DatasetChanged, StorageError
from splitpipe.stores import open_store
from splitpipe.stores.filesystem import FilesystemStore
from splitpipe.testing.faults import FaultProxy, HttpFault, chaos
from splitpipe.testing.stores import StoreSuite
from tests.cloud_servers import (
    AzureServer,
    GoogleServer,
    HubServer,
    _Cloud,
    _request,
    azurite,
)

_numbers = itertools.count()
_KEPT = "packages close their connections when they are collected, in fsspec's loop that lives on"

pytestmark = [pytest.mark.leaks(_KEPT), pytest.mark.deadline(180)]


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleServer]:
    pytest.importorskip("gcsfs", reason="gs:// needs the extra [gs]")
    if "SPLITPIPE_TEST_GS" not in os.environ:
        pytest.importorskip("gcp_storage_emulator", reason="Google's storage needs a server")
    with GoogleServer() as server:
        yield server


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    pytest.importorskip("adlfs", reason="az:// needs the extra [az]")
    if azurite() is None:
        pytest.skip("Azure's emulator is not here: npm install azurite, see above")
    with AzureServer(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    pytest.importorskip("huggingface_hub", reason="hf:// needs the extra [hf]")
    with HubServer() as server:
        yield server


def fresh(server: _Cloud) -> str:
    """The url of a new, empty place."""
    name = f"place-{os.getpid()}-{next(_numbers)}"
    server.create(name)
    return server.root(name)


def store_of(server: _Cloud, below: str = "some/prefix") -> Iterator[FilesystemStore]:
    store = FilesystemStore(f"{fresh(server)}/{below}", options=server.options)
    yield store
    store.close()


class TestGoogle(StoreSuite):
    @pytest.fixture
    def store(self, google: GoogleServer) -> Iterator[FilesystemStore]:
        yield from store_of(google)


@pytest.mark.long
class TestAzure(StoreSuite):
    @pytest.fixture
    def store(self, azure: AzureServer) -> Iterator[FilesystemStore]:
        yield from store_of(azure)


class TestHub(StoreSuite):
    conditions = False

    @pytest.fixture
    def store(self, hub: HubServer) -> Iterator[FilesystemStore]:
        yield from store_of(hub)


# -- datasets


@pytest.fixture(params=["google", "hub", pytest.param("azure", marks=pytest.mark.long)])
def cloud(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["google", pytest.param("azure", marks=pytest.mark.long)])
def written(request: pytest.FixtureRequest) -> Any:
    """Those that can be written to under a condition."""
    return request.getfixturevalue(request.param)


def payload(number: int) -> bytes:
    return np.random.default_rng(number).bytes(number * 37 % 3000)


def put(server: _Cloud, folder: Path, url: str) -> None:
    with contextlib.closing(open_store(url, storage_options=server.options)) as store:
        for path in sorted(folder.iterdir()):
            if path.name != "writer.lock":
                store.write(path.name, path.read_bytes())


def test_a_dataset_is_the_local_one(cloud: _Cloud, tmp_path: Path) -> None:
    rows = [payload(n) for n in range(300)]
    sp.write_split_data(str(tmp_path / "local"), rows, splits=3)
    url = f"{fresh(cloud)}/data"
    put(cloud, tmp_path / "local", url)
    options = {"storage_options": cloud.options, "cache_dir": tmp_path / "cache"}
    with sp.open_dataset(url, **options) as dataset:
        assert dataset[17] == rows[17]
        for secret in cloud.options.values():
            assert secret in ("anon", "tests") or secret not in repr(dataset)
        pipe = sp.Pipeline(dataset, shuffle="global", seed=2).map(len, workers=2).batch(32)
        wanted = sp.Pipeline(rows, shuffle="global", seed=2).map(len).batch(32)
        with pipe.loader(epochs=2) as loader:
            found = [list(batch) for batch in loader]
        with wanted.loader(executor="inline", epochs=2) as truth:
            assert found == [list(batch) for batch in truth]


def test_it_is_overwritten(cloud: _Cloud, tmp_path: Path) -> None:
    url = f"{fresh(cloud)}/data"
    for name, first in (("one", 0), ("two", 5)):
        with sp.DatasetWriter(tmp_path / name, bins=2) as writer:
            writer.write_many([payload(n) for n in range(first, first + 400)])
    put(cloud, tmp_path / "one", url)
    options = {"storage_options": cloud.options, "cache_dir": tmp_path / "cache"}
    with sp.open_dataset(url, **options) as dataset:
        assert dataset[1] == payload(1)
        put(cloud, tmp_path / "two", url)
        with pytest.raises(sp.DatasetChanged, match="open it again"):
            list(dataset)
    with sp.open_dataset(url, **options) as dataset:
        assert list(dataset) == [payload(n) for n in range(5, 405)]


def test_what_is_not_there_and_what_may_not_be_seen(cloud: _Cloud, tmp_path: Path) -> None:
    url = fresh(cloud)
    empty = url.replace("place", "none")
    refused, wrong = cloud.refused()
    asked: list[tuple[str, dict[str, Any], int]] = [
        (f"{url}/nothing", cloud.options, errno.ENOENT),
        (f"{empty}/data", cloud.options, errno.ENOENT),
    ]
    if not getattr(cloud, "running", ""):  # Google's own testbench lets everybody in
        asked.append((refused, wrong, errno.EACCES))
    for place, options, code in asked:
        with pytest.raises(StorageError) as caught:
            sp.open_dataset(place, storage_options=options, cache_dir=tmp_path / "cache")
        assert caught.value.errno == code, caught.value
        assert place.split("://")[1] in str(caught.value)
        for secret in options.values():
            assert secret in ("anon", "tests") or secret not in str(caught.value)


def test_writing(written: _Cloud, tmp_path: Path) -> None:
    url, options = f"{fresh(written)}/data", {"storage_options": written.options}
    small: dict[str, Any] = {**options, "bins": 2, "bin_nbytes": 3000}
    rows = [payload(n) for n in range(100)]
    with sp.DatasetWriter(url, spool_dir=tmp_path / "here", **small) as writer:
        writer.write_many(rows[:60])
        writer.commit()
        with pytest.raises(StorageError, match="overwrite=True"):
            sp.DatasetWriter(url, spool_dir=tmp_path / "there", **small)
        writer.write_many(rows[60:])
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == rows
    first = sp.DatasetWriter(url, overwrite=True, spool_dir=tmp_path / "here", **small)
    second = sp.DatasetWriter(url, overwrite=True, spool_dir=tmp_path / "there", **small)
    first.write(b"first")
    first.close()
    second.write(b"second")
    with pytest.raises(DatasetChanged, match="another writer has committed"):
        second.commit()
    second.abort()
    with sp.open_dataset(url, cache_dir=tmp_path / "cache", **options) as made:
        assert list(made) == [b"first"]


def test_what_marks_a_folder_is_no_object(google: GoogleServer) -> None:
    url = fresh(google)
    with contextlib.closing(open_store(url, storage_options=google.options)) as store:
        store.write("folder/a", b"x")
        bucket = url.rpartition("/")[2]
        place = f"{google.url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name=folder/"
        _request("POST", place, b"", {"Content-Type": "text/plain"})
        assert [key for key, _ in store.list()] == ["folder/a"]
        with pytest.raises(StorageError) as caught:
            store.stat("folder")
        assert caught.value.errno == errno.ENOENT


def test_a_hub_is_not_written_to_under_a_condition(hub: HubServer, tmp_path: Path) -> None:
    url = f"{fresh(hub)}/data"
    with pytest.raises(StorageError) as refused:
        sp.DatasetWriter(url, storage_options=hub.options, spool_dir=tmp_path)
    assert refused.value.errno == errno.ENOTSUP


def read_through_faults(
    server: _Cloud, tmp_path: Path, faults: list[HttpFault], *, least: int
) -> None:
    rows = [payload(n) for n in range(200)]
    sp.write_split_data(str(tmp_path / "local"), rows, splits=3)
    url = f"{fresh(server)}/data"
    put(server, tmp_path / "local", url)
    with FaultProxy(server.url) as proxy:
        proxy.inject(*faults, seed=5)
        options = server.options_at(proxy.url)
        cache = tmp_path / "cache"
        with sp.open_dataset(url, storage_options=options, cache_dir=cache) as dataset:
            assert list(dataset) == rows
        assert sum(proxy.statistics().faults.values()) >= least


def test_a_bad_network(written: _Cloud, tmp_path: Path) -> None:
    read_through_faults(written, tmp_path, chaos(0.2), least=1)


def test_a_hub_that_stumbles(hub: HubServer, tmp_path: Path) -> None:
    # Its client waits for seconds after each of them, and for ever where bytes trickle.
    faults = [
        HttpFault(kind="truncate", ranged=True, times=1),
        HttpFault(kind="ignore_range", ranged=True, times=1),
        HttpFault(kind="status", status=500, times=1),
    ]
    read_through_faults(hub, tmp_path, faults, least=3)


@pytest.mark.parametrize(
    ("name", "arguments", "code", "transient"),
    [
        ("google.auth.exceptions.RefreshError", ["invalid_grant: it expired"], errno.EACCES, None),
        ("google.auth.exceptions.TransportError", ["no answer"], errno.EIO, True),
        ("gcsfs.retry.HttpError", [{"code": 401, "message": "Invalid"}], errno.EACCES, None),
        ("gcsfs.retry.HttpError", [{"code": 429, "message": "Slow down"}], errno.EBUSY, True),
        ("builtins.OSError", ["Forbidden: b/o"], errno.EACCES, None),
        ("builtins.OSError", ["something else"], errno.EIO, False),
        ("requests.exceptions.ProxyError", [], errno.EIO, True),
        ("aiohttp.ServerDisconnectedError", [], errno.EIO, True),
        ("aiohttp.ClientPayloadError", [], errno.EIO, True),
        ("azure.core.exceptions.ServiceRequestError", ["no connection"], errno.EIO, True),
        ("azure.core.exceptions.IncompleteReadError", ["too short"], errno.EIO, True),
    ],
)
def test_errors_of_packages_are_told_as_ours(
    name: str, arguments: list[Any], code: int, transient: bool | None
) -> None:
    module, _, kind = name.rpartition(".")
    package = pytest.importorskip(module, reason="its package is not here")
    error = getattr(package, kind)(*arguments)
    told = FilesystemStore("gs://bucket/data")._translated(error, "gs://bucket/data/key")
    assert told.errno == code
    assert "gs://bucket/data/key" in str(told)
    assert getattr(told, "transient", None) == transient
