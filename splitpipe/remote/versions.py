"""Which version every object of a remote dataset has.

Responsible for: `read_manifest`, which names the objects; `Versions`, their sizes and tags: asked
for once, all at once where the store can list, else one by one when they are first needed.

Rules:
- what was seen first is what is pinned, until somebody has proven that another will do as well;
- it travels with a dataset, so that workers ask nothing again;
- an object that has fewer bytes than the manifest says is another one.
"""

from __future__ import annotations

import errno
import threading
from typing import Any

from splitpipe.errors import DatasetChanged, FormatError, StorageError
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.manifest import Manifest, decode
from splitpipe.storage.snapshot import LARGEST_MANIFEST
from splitpipe.stores.base import ObjectStat, Store

__all__ = ["Versions", "changed", "read_manifest"]

# Somebody may commit between two of our requests; so often in a row is no accident.
_ATTEMPTS = 5


def read_manifest(store: Store) -> Manifest:
    """The manifest of the last commit: two requests.

    Raises:
        FormatError: there is no dataset, or it is damaged, or of a newer version.
        StorageError: there is nothing, or it may not be read.
    """
    url, raw = f"{store.url.rstrip('/')}/{MANIFEST_NAME}", _raw_manifest(store)
    if raw.lstrip()[:1] == b"<":
        raise FormatError(f"{url} is a web page, not the manifest of a dataset: look at the url")
    return decode(raw, url)


def _raw_manifest(store: Store) -> bytes:
    for attempt in range(_ATTEMPTS):
        try:
            stat = store.stat(MANIFEST_NAME)
            if stat.size > LARGEST_MANIFEST:
                text = f"{MANIFEST_NAME} has {stat.size} bytes: that is no manifest"
                raise FormatError(f"{store.url}: {text}")
            return store.read(MANIFEST_NAME, 0, stat.size, tag=stat.tag)
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


def changed(url: str, why: str) -> DatasetChanged:
    """The error of an object that is not what the manifest names."""
    return DatasetChanged(
        errno.ESTALE,
        f"{why}: the dataset was changed while it was read; open it again to read what it is now",
        url,
    )


class Versions:
    """Sizes and tags of the objects of one dataset.

    Args:
        store: whose objects.
        known: what is known already.
        listed: whether that is all there is.
    """

    def __init__(
        self,
        store: Store,
        known: dict[str, ObjectStat] | None = None,
        *,
        listed: bool = False,
    ) -> None:
        self._store = store
        self._known = {} if known is None else known
        self._listed = listed
        self._lists = True
        self._lock = threading.Lock()

    def of(self, name: str, size: int) -> ObjectStat:
        """The version of an object, of which ``size`` bytes are read.

        Raises:
            StorageError: there is none.
            DatasetChanged: it is smaller.
        """
        with self._lock:
            found = self._known.get(name)
            if found is None and not self._listed and self._lists:
                self._list()
                found = self._known.get(name)
            if found is None and not self._listed:
                found = self._known[name] = self._store.stat(name)
        if found is None:
            raise StorageError(
                errno.ENOENT,
                "the manifest names this object, which is not there: copy the dataset there again",
                self.url(name),
            )
        if found.size < size:
            raise changed(self.url(name), f"it has {found.size} bytes, {size} were committed")
        return ObjectStat(size, found.tag)

    def knows(self, name: str) -> bool:
        """Whether nothing needs to be asked for an object."""
        return self._listed or name in self._known

    def forget(self) -> None:
        """Ask anew: what was known does not hold any more."""
        with self._lock:
            self._known.clear()
            self._listed, self._lists = False, True

    def url(self, name: str) -> str:
        """Where an object lies, for messages."""
        return f"{self._store.url.rstrip('/')}/{name}"

    def _list(self) -> None:
        try:
            for name, stat in self._store.list():
                self._known.setdefault(name, stat)
        except StorageError as error:
            # Who may read need not be allowed to list.
            if error.errno not in (errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.ENOENT):
                raise
            self._lists = False
            return
        self._listed = True

    def __reduce__(self) -> Any:
        return _again, (self._store, dict(self._known), self._listed)


def _again(store: Store, known: dict[str, ObjectStat], listed: bool) -> Versions:
    return Versions(store, known, listed=listed)
