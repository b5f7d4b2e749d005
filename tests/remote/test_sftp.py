"""Data behind SFTP, over a real server: read, written, and what is refused."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.errors import StorageError
from splitpipe.stores import open_store
from splitpipe.stores.filesystem import FilesystemStore
from splitpipe.testing.stores import Put, StoreSuite
from tests.servers import SftpServer

pytest.importorskip("paramiko", reason="SFTP needs the extra [sftp]")

_numbers = itertools.count()
_KEPT = "fsspec keeps the connection to a server, and paramiko its thread, as long as the process"

pytestmark = [pytest.mark.leaks(_KEPT), pytest.mark.deadline(180)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with SftpServer(tmp_path_factory.mktemp("sftp")) as made:
        yield made


def test_a_dataset_is_the_local_one(server: SftpServer, tmp_path: Path) -> None:
    rows = [bytes([n]) * (n * 37 % 3000) for n in range(200)]
    sp.write_split_data(str(server.folder / "data"), rows, splits=3)
    options = {"storage_options": server.options, "cache_dir": tmp_path / "cache"}
    with sp.open_dataset(f"{server.url}/data", **options) as dataset:
        assert list(dataset) == rows
        assert server.options["password"] not in repr(dataset)
        pipe = sp.Pipeline(dataset, shuffle="global", seed=2).map(len, workers=2).batch(32)
        wanted = sp.Pipeline(rows, shuffle="global", seed=2).map(len).batch(32)
        with pipe.loader() as loader, wanted.loader(executor="inline") as truth:
            assert [list(batch) for batch in loader] == [list(batch) for batch in truth]


def test_who_is_refused_is_told(server: SftpServer) -> None:
    options = {**server.options, "password": "another one", "allow_agent": False}
    store = open_store(f"{server.url}/data", storage_options=options, retry=None)
    with pytest.raises(StorageError) as caught:
        store.stat("splitpipe.json")
    assert "another one" not in str(caught.value)
    assert "Authentication" in str(caught.value)


def test_a_lost_connection_is_made_anew(server: SftpServer) -> None:
    (server.folder / "kept").write_bytes(b"a value")
    store = open_store(server.url, storage_options=server.options)
    assert store.read("kept") == b"a value"
    inner: Any = store
    inner.store._made[1].client.get_transport().sock.close()
    assert store.read("kept", 2, 5) == b"val"
    store.close()


@pytest.mark.long
class TestSftp(StoreSuite):
    conditions = False

    @pytest.fixture
    def store(self, server: SftpServer) -> Iterator[FilesystemStore]:
        folder = f"store-{next(_numbers)}"
        (server.folder / folder).mkdir()
        store = FilesystemStore(f"{server.url}/{folder}", options=server.options)
        yield store
        store.close()

    @pytest.fixture
    def put(self, server: SftpServer, store: FilesystemStore) -> Put:
        seconds = itertools.count(1_000_000_000)

        def put(key: str, data: bytes) -> None:
            path = server.folder / store.url.rstrip("/").rpartition("/")[2] / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            second = next(seconds)  # SFTP tells times in whole ones
            os.utime(path, (second, second))

        return put
