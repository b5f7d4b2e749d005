"""Finding and reading a dataset's manifest, and pinning what it names.

Responsible for: telling a dataset from any other directory, and handing out open files with a
shared lock on them, which keeps later commits from removing the files of a reader's snapshot.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass

import google_crc32c

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import files
from splitpipe.storage.catalog_file import catalog_name
from splitpipe.storage.committed import Column, Manifest, Sealed
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    MANIFEST_NAME,
    FileId,
    check_file_header,
    file_name,
)
from splitpipe.storage.lock import try_shared
from splitpipe.storage.manifest import decode

__all__ = [
    "LARGEST_MANIFEST",
    "MISSING",
    "Snapshot",
    "check_files",
    "open_all",
    "other_names",
    "read_manifest",
    "read_sealed",
]

MISSING = "the manifest names this file: restore it from a copy"

# 65536 bins need about 2 MB; what is larger than this is no manifest.
LARGEST_MANIFEST = 64 << 20
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
        raw = files.read_whole(path, limit=LARGEST_MANIFEST)
    except StorageError as error:
        if error.errno == errno.ENOENT and not files.is_there(directory):
            raise StorageError(errno.ENOENT, "there is no such dataset", directory) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise FormatError(_not_a_dataset(directory)) from error
        raise
    return decode(raw, path)


def _not_a_dataset(directory: str) -> str:
    text = f"{directory} is not a splitpipe dataset: it has no {MANIFEST_NAME}"
    if os.path.isfile(os.path.join(directory, "index.dat")):
        text += (
            "; it looks like data of the package splitdataloader, which open_dataset reads where "
            "it lies and `splitpipe convert` turns into one"
        )
    return text


@dataclass(slots=True)
class Snapshot:
    """One commit, with everything it names held against removal.

    Attributes:
        manifest: the commit.
        indexes: open descriptors of the columns' indices; whoever reads a column closes its own.
        held: maps of the other files that a later commit may make stale; a file is held until
            its map is dropped.
    """

    manifest: Manifest
    indexes: list[int]
    held: list[mmap.mmap]

    def close(self) -> None:
        """Let go of what nobody took."""
        while self.indexes:
            files.close(self.indexes.pop())
        self.held.clear()


def open_all(directory: str, manifest: Manifest | None = None) -> Snapshot:
    """Open and hold everything that a commit names, except its bins.

    Args:
        directory: of the dataset.
        manifest: a commit that somebody else holds; ``None`` is the last one.

    Raises:
        FormatError: the directory is not a dataset, or is damaged; or ``manifest`` is a commit
            whose files were removed since.
        StorageError: it cannot be read.
    """
    lost: str | None = MANIFEST_NAME
    for _ in range(_ATTEMPTS):
        wanted = read_manifest(directory) if manifest is None else manifest
        snapshot = Snapshot(wanted, [], [])
        lost = _hold(directory, snapshot)
        if lost is None:
            return snapshot
        if manifest is not None:
            raise FormatError(
                f"{directory} was changed since generation {manifest.generation}, which is wanted "
                f"here, and {lost} of it was removed: keep the dataset open where it was opened "
                "first, or open it again"
            )
    raise _gone(directory, lost or MANIFEST_NAME)


def _hold(directory: str, snapshot: Snapshot) -> str | None:
    """Open and lock all files of a snapshot; the name of one that is not there."""
    manifest = snapshot.manifest
    try:
        for column in manifest.columns:
            name = _index_name(manifest, column)
            descriptor = _open_locked(directory, name)
            if descriptor is None:
                snapshot.close()
                return name
            snapshot.indexes.append(descriptor)
        for name in other_names(manifest):
            descriptor = _open_locked(directory, name)
            if descriptor is None:
                snapshot.close()
                return name
            try:
                with files.translated("map", os.path.join(directory, name)):
                    # The map keeps the file, and so the lock, open.
                    snapshot.held.append(mmap.mmap(descriptor, 1, access=mmap.ACCESS_READ))
            except ValueError:
                # An empty file: whoever reads it will say what it should have been.
                continue
            finally:
                files.close(descriptor)
    except BaseException:
        snapshot.close()
        raise
    return None


def other_names(manifest: Manifest) -> list[str]:
    """Names of the files beside bins, indices and sums that a commit names."""
    names = [
        file_name(manifest.file_id("dictionary", column))
        for column in manifest.columns
        if column.dictionary is not None
    ]
    if manifest.deleted is not None:
        names.append(file_name(manifest.deleted_id(manifest.deleted.number)))
    if manifest.catalog is not None:
        names.append(catalog_name(manifest.volume, manifest.catalog.number))
    return names


def read_sealed(directory: str, identity: FileId, sealed: Sealed) -> bytes:
    """The bytes of a file that is written once and read whole, compared with its checksum.

    Raises:
        FormatError: it is another file, or damaged.
        StorageError: it cannot be read.
    """
    path = os.path.join(directory, file_name(identity))
    limit = FILE_HEADER_NBYTES + sealed.nbytes
    raw = files.read_whole(path, limit=limit)
    if len(raw) < limit:
        raise FormatError(
            f"{path} has {len(raw)} bytes, {limit} were committed: restore it from a copy"
        )
    check_file_header(raw[:FILE_HEADER_NBYTES], identity, path)
    data = raw[FILE_HEADER_NBYTES:]
    if google_crc32c.value(data) != sealed.crc:
        raise FormatError(f"{path} does not fit its checksum: restore it from a copy")
    return data


def check_files(directory: str, manifest: Manifest) -> None:
    """Look at the header and the size of every file that a writer is going to go on with.

    Raises:
        FormatError: one is another file, or shorter than it was committed: going on with it would
            fill what it lost with zeros.
        StorageError: one is missing, or cannot be read.
    """
    for column in manifest.columns:
        for identity, size in manifest.files(column):
            if size:
                path = os.path.join(directory, file_name(identity))
                with files.opened(path, os.O_RDONLY, advice=MISSING) as descriptor:
                    files.check_size(descriptor, size, path)
                    header = files.read_at(descriptor, FILE_HEADER_NBYTES, 0, path)
                    check_file_header(header, identity, path)


def _index_name(manifest: Manifest, column: Column) -> str:
    return file_name(manifest.file_id("index", column))


def _gone(directory: str, name: str) -> StorageError:
    return StorageError(
        errno.ENOENT,
        "this file, which the manifest names, is missing: restore it from a copy"
        + (f", or try `splitpipe repair {directory}`" if name.endswith(".index") else ""),
        os.path.join(directory, name),
    )


def _open_locked(directory: str, name: str) -> int | None:
    """Open and lock a file; ``None`` if it is not there, or just being removed."""
    path = os.path.join(directory, name)
    try:
        descriptor = files.open_file(path, os.O_RDONLY)
    except StorageError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    # Removed between our two calls: the name is gone, or its remover holds the lock.
    held = False
    try:
        held = try_shared(descriptor, path) and files.status(descriptor, path).st_nlink > 0
        return descriptor if held else None
    finally:
        if not held:
            files.close(descriptor)
