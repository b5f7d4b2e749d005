"""Every store keeps the rules of the seam, over real servers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitpipe.stores import LocalStore, MemoryStore, RetryingStore, Store
from splitpipe.stores.filesystem import FilesystemStore
from splitpipe.stores.http import HttpStore
from splitpipe.stores.s3 import S3Store
from splitpipe.testing.stores import Put, StoreSuite
from tests.server_fixtures import Bucket
from tests.servers import FileServer

_numbers = itertools.count()


class TestMemory(StoreSuite):
    travels = False

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestLocal(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "folder")


class TestHttp(StoreSuite):
    writes = conditions = lists = False

    @pytest.fixture
    def store(self, file_server: FileServer) -> Iterator[Store]:
        store = HttpStore(file_server.url)
        yield store
        store.close()

    @pytest.fixture
    def put(self, file_server: FileServer) -> Put:
        def put(key: str, data: bytes) -> None:
            path = file_server.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data)

        return put


class TestS3(StoreSuite):
    @pytest.fixture
    def store(self, bucket: Bucket) -> Iterator[Store]:
        store = S3Store(bucket.url + "/some/prefix", options=bucket.options)
        yield store
        store.close()


class TestFsspec(StoreSuite):
    conditions = False

    @pytest.fixture
    def store(self) -> Store:
        return FilesystemStore(f"memory://{os.getpid()}-{next(_numbers)}")


class TestFsspecOverFiles(StoreSuite):
    """A file system with times and inodes."""

    conditions = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FilesystemStore(f"local://{tmp_path}/folder", options={"auto_mkdir": True})


class TestRetrying(StoreSuite):
    travels = False

    @pytest.fixture
    def store(self) -> Store:
        return RetryingStore(MemoryStore())


@pytest.mark.long
class TestRetryingS3(StoreSuite):
    @pytest.fixture
    def store(self, bucket: Bucket) -> Iterator[Store]:
        store = RetryingStore(S3Store(bucket.url, options=bucket.options))
        yield store
        store.close()


@pytest.fixture(scope="session")
def fsspec_thread() -> None:
    """Fsspec's one thread, which lives as long as the process."""
    import fsspec.asyn

    fsspec.asyn.get_loop()
    fsspec.asyn.get_lock()


@pytest.mark.long
@pytest.mark.leaks("s3fs closes its connections when it is collected, in a loop that lives on")
class TestFsspecAsynchronous(StoreSuite):
    """An asynchronous file system, as those of Google's and Azure's stores are."""

    conditions = False

    @pytest.fixture
    def store(self, bucket: Bucket, fsspec_thread: None) -> Iterator[Store]:
        store = FilesystemStore(bucket.url + "/below", options=bucket.options)
        yield store
        store.close()
