"""From a url to the records of a dataset.

Responsible for: `open_remote`: finding the manifest and a cache.

Rules:
- three requests at most are made before records are read: what the manifest is, the manifest, and
  what objects there are;
- what is no manifest is not taken for one: a page that says "not found" is an error that says so.
"""

from __future__ import annotations

import errno

from typing import TYPE_CHECKING

from splitpipe.errors import DatasetChanged, FormatError, StorageError
from splitpipe.remote.policy import Policy
from splitpipe.remote.records import RemoteRecords
from splitpipe.remote.versions import Versions
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.manifest import decode
from splitpipe.storage.snapshot import LARGEST_MANIFEST
from splitpipe.storage.table import OpenOptions
from splitpipe.stores.base import Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache

__all__ = ["open_remote"]

# Somebody may commit between two of our requests; so often in a row is no accident.
_ATTEMPTS = 5


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
        cache: where blocks of them are kept.
        options: how records are read.
        policy: how they are fetched; by default what the plan says.

    Raises:
        FormatError: there is no dataset, or it is damaged, or of a newer version.
        StorageError: there is nothing, or it may not be read.
    """
    raw = _manifest(store)
    manifest = decode(raw, f"{store.url.rstrip('/')}/{MANIFEST_NAME}")
    how = options or OpenOptions()
    return RemoteRecords(store, manifest, Versions(store), cache, options=how, policy=policy)


def _manifest(store: Store) -> bytes:
    for attempt in range(_ATTEMPTS):
        try:
            stat = store.stat(MANIFEST_NAME)
            if stat.size > LARGEST_MANIFEST:
                raise FormatError(f"{store.url}: {MANIFEST_NAME} is too large to be a manifest")
            return store.read(MANIFEST_NAME, tag=stat.tag)
        except DatasetChanged:
            if attempt == _ATTEMPTS - 1:
                raise
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            raise StorageError(
                errno.ENOENT,
                f"there is no splitpipe dataset here: no {MANIFEST_NAME}; look at the url, at the "
                "bucket and at who may read it",
                store.url,
            ) from error
    raise AssertionError("every attempt returns or raises")
