"""What lies in a cache's folder, for people.

Responsible for: `inventory`, a list of the objects. Nothing is changed, nothing locked: what others
do meanwhile may or may not be seen.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from splitpipe.cache.folder import Layout, known, recognise
from splitpipe.cache.locks import LIFE
from splitpipe.cache.marks import MarkFile
from splitpipe.errors import FormatError, StorageError

__all__ = ["CachedObject", "inventory", "layout_of"]


@dataclass(frozen=True, slots=True)
class CachedObject:
    """One object of a cache.

    Attributes:
        url: of its store.
        key: there; without the query of a signed one.
        version: its tag, or what else names it.
        size: in bytes.
        cached_nbytes: what of it is there.
        disk_nbytes: what that takes on the disk, its marks included.
        used_s: when it was last used, roughly, in seconds of Unix time; for people.
        in_use: whether a process has it open.
        path: of the local file.
    """

    url: str
    key: str
    version: str | None
    size: int
    cached_nbytes: int
    disk_nbytes: int
    used_s: float
    in_use: bool
    path: str


def layout_of(directory: str | os.PathLike[str]) -> Layout:
    """The names in a folder that is a cache.

    Raises:
        StorageError: it is none.
        UnsupportedVersion, FormatError: as `BlockCache`.
    """
    root = os.path.abspath(os.fspath(directory))
    if recognise(root) is None:
        raise StorageError(errno.ENOENT, "there is no cache here", root)
    return known(root)


def inventory(directory: str | os.PathLike[str]) -> list[CachedObject]:
    """The objects of a cache, by store and key.

    Raises:
        StorageError: the folder is no cache.

    Example:
        >>> import tempfile
        >>> from splitpipe.cache import BlockCache
        >>> from splitpipe.stores import MemoryStore
        >>> store, directory = MemoryStore("memory://bucket/"), tempfile.mkdtemp()
        >>> stat = store.write("a", bytes(5000))
        >>> with BlockCache(directory, "10 MB") as cache, cache.open(store, "a") as file:
        ...     data = file.read(0, 1)
        >>> [(entry.key, entry.size, entry.cached_nbytes) for entry in inventory(directory)]
        [('a', 5000, 5000)]
    """
    layout = layout_of(directory)
    found = []
    for digest in layout.found():
        with suppress(FormatError, OSError):
            found.append(_entry(layout, digest))
    return sorted(found, key=lambda entry: (entry.url, entry.key, entry.version or ""))


def _entry(layout: Layout, digest: bytes) -> CachedObject:
    path = layout.marks(digest)
    marks = MarkFile(path)
    identity = marks.identity
    present = marks.present()
    nbytes = len(present) * identity.block_nbytes
    if len(present) and int(present[-1]) == identity.blocks - 1:
        start, stop = identity.extent(identity.blocks - 1, 1)
        nbytes += stop - start - identity.block_nbytes
    locks = layout.locks(path)
    try:
        in_use = locks.is_locked(LIFE)
    finally:
        locks.close()
    return CachedObject(
        url=identity.url,
        key=identity.key,
        version=identity.version,
        size=identity.size,
        cached_nbytes=nbytes,
        disk_nbytes=identity.cost_of(present.astype(np.int64)) + identity.overhead_nbytes,
        used_s=os.stat(path).st_mtime,
        in_use=in_use,
        path=layout.data(digest),
    )
