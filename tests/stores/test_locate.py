"""From urls to stores, and what is said where one cannot be had."""

from __future__ import annotations

import errno
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from splitpipe.errors import StorageError
from splitpipe.stores import LocalStore, RetryingStore, RetryPolicy, is_url, open_store
from splitpipe.stores.filesystem import FilesystemStore
from splitpipe.stores.http import HttpStore
from splitpipe.stores.s3 import S3Store


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://host/a", HttpStore),
        ("HTTPS://host/a", HttpStore),
        ("s3://bucket/a", S3Store),
        ("s3a://bucket/a", S3Store),
        ("memory://a", FilesystemStore),
    ],
)
def test_a_scheme_names_a_store(url: str, kind: type) -> None:
    store = open_store(url)
    assert isinstance(store, RetryingStore)
    assert isinstance(store.store, kind)
    assert isinstance(open_store(url, retry=None), kind)
    assert isinstance(open_store(url, retry=RetryPolicy(attempts=2)), RetryingStore)


def test_paths_and_file_urls_are_folders(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"x")
    for url in (tmp_path, str(tmp_path), tmp_path.as_uri(), f"file://localhost{tmp_path}"):
        store = open_store(url)
        assert isinstance(store, LocalStore)
        assert store.read("a b") == b"x"
    assert open_store("file:///a%20b").url == LocalStore("/a b").url
    assert not is_url(tmp_path)


def test_a_file_url_of_another_machine_is_refused() -> None:
    with pytest.raises(StorageError, match="no other machine") as caught:
        open_store("file://server/share")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("gs://bucket/a", "gs"),
        ("az://container/a", "az"),
        ("hf://datasets/a/b", "hf"),
        ("sftp://host/a", "sftp"),
        ("s3://bucket/a", "s3"),
        ("http://host", "remote"),
        ("memory://a", "remote"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StorageError, match=rf"pip install 'splitpipe\[{extra}\]'") as caught:
        open_store(url)
    assert caught.value.errno == errno.ENOPKG


def test_a_scheme_that_nobody_knows_is_an_error() -> None:
    store = open_store("gopher://host/a", retry=None)
    with pytest.raises(StorageError, match="gopher"):
        store.read("a")


def test_a_bucket_has_a_name() -> None:
    with pytest.raises(StorageError, match="bucket"):
        open_store("s3:///a")


def test_the_room_is_light_to_import() -> None:
    program = (
        "import sys, splitpipe.stores as s; s.open_store('http://x'); "
        "heavy = {'fsspec', 'botocore', 's3fs', 'aiohttp', 'numpy', 'asyncio'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
