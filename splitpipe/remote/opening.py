"""From a url to the records of a dataset.

Responsible for: `open_url` and `open_remote`: finding the manifest and a cache.

Rules:
- three requests at most are made before records are read: what the manifest is, the manifest, and
  what objects there are;
- what is no manifest is not taken for one: a page that says "not found" is an error that says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splitpipe.remote.policy import Policy
from splitpipe.remote.records import RemoteRecords
from splitpipe.remote.versions import Versions, read_manifest
from splitpipe.storage.manifest import Manifest
from splitpipe.storage.table import OpenOptions
from splitpipe.stores.base import Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache

__all__ = ["manifest_at", "open_remote", "open_url"]


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
    manifest = read_manifest(store)
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
        return read_manifest(store)
    finally:
        store.close()
