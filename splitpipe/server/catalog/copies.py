"""Copies of remote files, for the readers that need files of this machine.

Responsible for: `copied`, a remote file of one version as a file of the server's cache.

Rules:
- a copy is named after the url and the version of its file: it is right or not there, since it gets
  its name when it is whole and durable. Processes that copy the same file at once do the same work,
  and the last rename wins;
- copies take at most `MOST_NBYTES`; those that were used least lately go first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import Final

from splitpipe.errors import StorageError
from splitpipe.raw.locations import placed
from splitpipe.server.catalog.listing import FileEntry
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.room import make_room, unfinished
from splitpipe.storage import files
from splitpipe.stores import open_store, told_url

__all__ = ["MOST_NBYTES", "copied"]

MOST_NBYTES: Final = 50 << 30
_CHUNK_NBYTES: Final = 16 << 20


def copied(url: str, entry: FileEntry, locations: Locations) -> str:
    """The path of a copy of a remote file; made, unless it is there.

    Raises:
        DatasetChanged: the file is of another version now.
        NotAllowed: the operator does not allow the url (any more).
        StorageError: it cannot be copied.
    """
    locations.place(url)
    if locations.cache is None:
        raise StorageError(
            errno.ENOTSUP, "this server has no cache, which remote files need", told_url(url)
        )
    told = hashlib.sha256(f"{url}\n{entry.size}\n{entry.version}".encode()).hexdigest()[:32]
    folder = os.path.join(locations.cache, "files")
    path = os.path.join(folder, f"{told}-{os.path.basename(placed(url).key)[-80:]}")
    with contextlib.suppress(OSError):
        os.utime(path)  # it was used just now
        return path
    files.make_directory(folder)
    make_room(folder, entry.size, most_nbytes=MOST_NBYTES)
    _copy(url, path, entry, locations)
    return path


def _copy(url: str, path: str, entry: FileEntry, locations: Locations) -> None:
    at = placed(url)
    store = open_store(at.root, storage_options=locations.options_for(url))
    try:
        with unfinished(path) as (descriptor, temporary):
            for start in range(0, entry.size, _CHUNK_NBYTES):
                stop = min(start + _CHUNK_NBYTES, entry.size)
                data = store.read(at.key, start, stop, tag=entry.version or None)
                files.write_at(descriptor, data, start, temporary)
    finally:
        store.close()
