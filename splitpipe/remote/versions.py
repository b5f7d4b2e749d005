"""Which version every object of a remote dataset has.

Responsible for: `Versions`: sizes and tags of the objects, asked for once, all at once where the
store can list, else one by one when they are first needed.

Rules:
- what was seen first is what is pinned: a later answer never replaces it;
- it travels with a dataset, so that workers ask nothing again;
- an object that has fewer bytes than the manifest says is another one.
"""

from __future__ import annotations

import errno
import threading
from typing import Any

from splitpipe.errors import DatasetChanged, StorageError
from splitpipe.stores.base import ObjectStat, Store

__all__ = ["Versions", "changed"]


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
