"""Finding and reading a dataset's manifest, and pinning what it names.

Responsible for: telling a dataset from any other directory, and handing out the open index file
of a volume with a shared lock on it, which keeps a later overwriting from removing the files of
a reader's snapshot.
"""

from __future__ import annotations

import errno
import os

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import files
from splitpipe.storage.format import MANIFEST_NAME, file_name
from splitpipe.storage.lock import try_shared
from splitpipe.storage.manifest import Manifest, decode

__all__ = ["open_snapshot", "read_manifest"]

# 65536 bins need about 2 MB; what is larger than this is no manifest.
_LARGEST_MANIFEST = 64 << 20
# Every failed attempt means that a whole overwriting was committed meanwhile.
_ATTEMPTS = 5


def read_manifest(directory: str) -> Manifest:
    """Read the manifest of a dataset.

    Raises:
        FormatError: the directory is not a dataset, or the manifest is damaged.
        UnsupportedVersion: a newer splitpipe wrote it.
        StorageError: there is no such directory, or it cannot be read.
    """
    path = os.path.join(directory, MANIFEST_NAME)
    try:
        raw = files.read_whole(path, limit=_LARGEST_MANIFEST)
    except StorageError as error:
        if error.errno == errno.ENOENT and not os.path.exists(directory):
            raise StorageError(errno.ENOENT, "there is no such dataset", directory) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise FormatError(_not_a_dataset(directory)) from error
        raise
    return decode(raw, path)


def _not_a_dataset(directory: str) -> str:
    text = f"{directory} is not a splitpipe dataset: it has no {MANIFEST_NAME}"
    if os.path.isfile(os.path.join(directory, "index.dat")):
        text += (
            "; it looks like data of the package splitdataloader, whose layout this version "
            "does not read: write the records again with write_split_data"
        )
    return text


def open_snapshot(directory: str) -> tuple[Manifest, int]:
    """Read the manifest and open the index of its first column.

    Returns:
        The manifest and an open descriptor of the index, locked against removal: while it, or
        a duplicate of it, is open, no writer removes the files of this volume.

    Raises:
        FormatError: the directory is not a dataset, or is damaged.
        UnsupportedVersion: a newer splitpipe wrote it.
        StorageError: there is no such directory, or it cannot be read.
    """
    attempt = 1
    while True:
        manifest = read_manifest(directory)
        descriptor = _open_index(directory, manifest)
        if descriptor is not None:
            return manifest, descriptor
        if attempt == _ATTEMPTS:
            path = file_name(manifest.file_id("index", manifest.columns[0]))
            raise StorageError(
                errno.ENOENT,
                "the index that the manifest names is missing: restore it from a copy",
                os.path.join(directory, path),
            )
        # Overwritten and removed between the two calls: the new manifest is there already.
        attempt += 1


def _open_index(directory: str, manifest: Manifest) -> int | None:
    """Open and lock the index; ``None`` if it is not there, or just being removed."""
    path = os.path.join(directory, file_name(manifest.file_id("index", manifest.columns[0])))
    try:
        descriptor = files.open_file(path, os.O_RDONLY)
    except StorageError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    # Removed between our two calls: the name is gone, or its remover holds the lock.
    if try_shared(descriptor, path) and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None
