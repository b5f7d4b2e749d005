"""From a url to a store.

Responsible for: `open_store`; `split_url`, a url as a store's url and a key.

Rules:
- packages are imported when a url needs them, and a missing one is an error that names the extra;
- a store that may fail for passing reasons comes wrapped in a `RetryingStore`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from splitpipe.errors import StorageError
from splitpipe.stores.base import Store
from splitpipe.stores.local import LocalStore
from splitpipe.stores.patience import RetryPolicy, Timeouts
from splitpipe.stores.retrying import RetryingStore
from splitpipe.stores.sealed import told_url

__all__ = ["is_url", "open_store", "split_url"]

# Scheme -> (package that has to be there, extra that brings it).
_NEEDS: Final = {
    "http": ("urllib3", "remote"),
    "https": ("urllib3", "remote"),
    "s3": ("botocore", "s3"),
    "s3a": ("botocore", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "az": ("adlfs", "az"),
    "abfs": ("adlfs", "az"),
    "abfss": ("adlfs", "az"),
    "hf": ("huggingface_hub", "hf"),
    "sftp": ("paramiko", "sftp"),
    "ssh": ("paramiko", "sftp"),
}


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether it names a scheme, and is no path of this machine.

    Example:
        >>> is_url("s3://bucket/data"), is_url("/data"), is_url("C:/data")
        (True, False, False)
    """
    scheme, mark, _ = os.fspath(text).partition("://")
    return bool(mark) and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum()


def open_store(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen, and None means never
    timeouts: Timeouts | None = None,
) -> Store:
    """The store that a url names.

    Args:
        url: ``s3://``, ``gs://``, ``az://``, ``hf://``, ``http(s)://``, ``sftp://``, ``memory://``,
            ``file://``, any other scheme that fsspec knows, or a path of this machine.
        storage_options: credentials and settings, by the names that fsspec's packages give them:
            see `HttpStore`, `S3Store`, `FilesystemStore`. They are in no repr, message or pickle.
        retry: how often requests are made again; never with ``None``.
        timeouts: when a request is given up.

    Raises:
        StorageError: with ``errno.ENOPKG``: a package is missing; with ``errno.EINVAL``: an option
            or the url is none that is known.

    Example:
        >>> store = open_store("memory://example")
        >>> store.write("a", b"hello").size, store.read("a", 1, 3)
        (5, b'el')
    """
    text = os.fspath(url)
    if not is_url(text):
        return LocalStore(text)
    scheme = text.partition("://")[0].lower()
    if scheme in ("file", "local"):
        return LocalStore(_local_path(text))
    _look_for(*_NEEDS.get(scheme, ("fsspec", "remote")), text)
    store: Store
    if scheme in ("http", "https"):
        from splitpipe.stores.http import HttpStore

        store = HttpStore(text, options=storage_options, timeouts=timeouts)
    elif scheme in ("s3", "s3a"):
        from splitpipe.stores.s3 import S3Store

        store = S3Store(text, options=storage_options, timeouts=timeouts)
    else:
        from splitpipe.stores.filesystem import FilesystemStore

        store = FilesystemStore(text, options=storage_options, timeouts=timeouts)
    return store if retry is None else RetryingStore(store, retry)


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """A url as the url of a store, as wide as it can be, and a key in it.

    A query belongs to the key, user and password belong to the store.

    Example:
        >>> split_url("https://me:pw@host/a/b.jpg?sig=1")
        ('https://me:pw@host/', 'a/b.jpg?sig=1')
        >>> split_url("s3://bucket/a/b"), split_url("/data/a")
        (('s3://bucket/', 'a/b'), ('/', 'data/a'))
    """
    text = os.fspath(url)
    if not is_url(text):
        return "/", os.path.abspath(text).lstrip("/")
    scheme, _, rest = text.partition("://")
    host, _, key = rest.partition("/")
    if scheme.lower() in ("file", "local"):
        return f"{scheme}:///", unquote(key)
    return f"{scheme}://{host}/", key


def _local_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        text = f"a file url names no other machine, as {parts.netloc!r}: write file:///path"
        raise StorageError(errno.EINVAL, text, told_url(url))
    return unquote(parts.path)


def _look_for(package: str, extra: str, url: str) -> None:
    if importlib.util.find_spec(package) is None:
        scheme = url.partition("://")[0]
        text = f"{scheme}:// needs the package {package}: pip install 'splitpipe[{extra}]'"
        raise StorageError(errno.ENOPKG, text, told_url(url))
