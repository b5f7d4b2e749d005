"""From a url to the records of a dataset.

Responsible for: `open_url` and `open_remote`: finding the manifest and a cache.

Rules:
- three requests at most are made before records are read: what the manifest is, the manifest, and
  what objects there are;
- what is no manifest is not taken for one: a page that says "not found" is an error that says so.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splitpipe.errors import DatasetChanged, FormatError, StorageError
from splitpipe.remote.policy import Policy
from splitpipe.remote.records import RemoteRecords
from splitpipe.remote.versions import Versions
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.manifest import Manifest, decode
from splitpipe.storage.snapshot import LARGEST_MANIFEST
from splitpipe.storage.table import OpenOptions
from splitpipe.stores.base import Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache

__all__ = ["manifest_at", "open_remote", "open_url"]

# Somebody may commit between two of our requests; so often in a row is no accident.
_ATTEMPTS = 5


def open_url(
    url: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_limit: int | str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    options: OpenOptions | None = None,
) -> RemoteRecords:
    """Open the last commit of a dataset at a url; see ``open_dataset``.

    Raises:
        FormatError: as `open_remote`, or no such limit.
        StorageError: as `open_remote`, or the cache cannot be used.
    """
    from splitpipe.cache import BlockCache  # most programs need no store
    from splitpipe.stores import open_store

    cache = BlockCache(cache_dir) if cache_limit is None else BlockCache(cache_dir, cache_limit)
    store = open_store(url, storage_options=storage_options)
    try:
        return open_remote(store, cache, options=options)
    except BaseException:
        store.close()
        cache.close()
        raise


def open_remote(
    store: Store,
    cache: BlockCache,
    *,
    options: OpenOptions | None = None,
    policy: Policy | None = None,
) -> RemoteRecords:
    """Open the last commit of a dataset in a store.

    Args:
        store: whose keys are the names of the dataset's files.
        cache: where blocks of them are kept; it is closed with the records, as the store is.
        options: how records are read.
        policy: how they are fetched.

    Raises:
        FormatError: there is no dataset, or it is damaged, or of a newer version.
        StorageError: there is nothing, or it may not be read.
    """
    manifest = decode(_manifest(store), _url(store))
    how = options or OpenOptions()
    return RemoteRecords(store, manifest, Versions(store), cache, options=how, policy=policy)


def manifest_at(url: str, storage_options: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of the last commit of a dataset at a url, or in a directory.

    Raises:
        FormatError, StorageError: as `open_remote`.
    """
    from splitpipe.stores import open_store

    store = open_store(url, storage_options=storage_options)
    try:
        return decode(_manifest(store), _url(store))
    finally:
        store.close()


def _url(store: Store) -> str:
    return f"{store.url.rstrip('/')}/{MANIFEST_NAME}"


def _manifest(store: Store) -> bytes:
    for attempt in range(_ATTEMPTS):
        try:
            stat = store.stat(MANIFEST_NAME)
            if stat.size > LARGEST_MANIFEST:
                raise FormatError(f"{_url(store)} has {stat.size} bytes: that is no manifest")
            return store.read(MANIFEST_NAME, tag=stat.tag)
        except DatasetChanged:
            if attempt == _ATTEMPTS - 1:
                raise
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            raise StorageError(
                errno.ENOENT,
                f"there is no splitpipe dataset here (no {MANIFEST_NAME}): look at the url, and "
                "whether the bucket is there and may be read",
                store.url,
            ) from error
    raise AssertionError("every attempt returns or raises")
