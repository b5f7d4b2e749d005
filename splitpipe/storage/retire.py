"""Removing what no commit names: leftovers of killed writers and overwritten volumes.

Responsible for: every place where the storage removes or cuts a file, and for deciding that a
directory is not ours to write into.

Rules:
- called by the holder of the writer lock only;
- a file is removed by the name that its numbers give, never because it was found by listing;
- a volume goes only when its index can be locked exclusively, that is when no reader has it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from splitpipe.errors import StorageError
from splitpipe.storage import files
from splitpipe.storage.format import LOCK_NAME, MANIFEST_NAME, FileId, file_name
from splitpipe.storage.lock import Announcement, try_exclusive
from splitpipe.storage.manifest import Manifest

__all__ = [
    "cut_leftovers",
    "refuse_foreign",
    "remove_dataset",
    "remove_retired",
    "remove_volume",
    "still_there",
    "volumes",
]

# volume, column, number of bins
Retired = tuple[int, int, int]

_OURS_BEFORE_FIRST_COMMIT = {LOCK_NAME, f"{MANIFEST_NAME}.new"}


def refuse_foreign(directory: str) -> None:
    """Raise ``StorageError`` if a directory without a manifest holds anything of anyone's."""
    with files.translated("look into the directory", directory):
        try:
            names = set(os.listdir(directory))
        except FileNotFoundError:
            return
    # A writer killed before its first manifest leaves its lock, and empty files of volume 1.
    foreign = sorted(names - _OURS_BEFORE_FIRST_COMMIT - _first_files())
    if foreign:
        raise StorageError(
            errno.ENOTEMPTY,
            f"the directory is not empty and not a splitpipe dataset (it has {foreign[0]!r}): "
            "choose another directory",
            directory,
        )


def _first_files() -> set[str]:
    return {file_name(FileId(kind, b"", 1, 0)) for kind in ("index", "sums")}


def volumes(manifest: Manifest) -> tuple[Retired, ...]:
    """What has to be removed once ``manifest`` is overwritten."""
    return tuple(
        (manifest.volume, column.number, len(column.bin_sizes)) for column in manifest.columns
    )


def cut_leftovers(
    directory: str, manifest: Manifest | None, announced: Announcement | None
) -> None:
    """Bring the files back to the last commit.

    Args:
        directory: of the dataset.
        manifest: the last commit; ``None`` when there is none.
        announced: which bins the last writer may have made, as its lock file says.
    """
    if manifest is None:
        return
    for column in manifest.columns:
        sizes = {
            file_name(manifest.file_id("index", column)): manifest.index_size(column),
            file_name(manifest.file_id("sums", column)): manifest.sums_size(column),
        }
        for number, size in enumerate(column.bin_sizes):
            sizes[file_name(manifest.file_id("bin", column, number))] = size
        for name, size in sizes.items():
            path = os.path.join(directory, name)
            if size:
                files.truncate(path, size)
            else:
                files.unlink(path)
    if announced is None:
        return
    numbers = range(announced.first_bin, announced.first_bin + announced.bins)
    if announced.volume == manifest.volume:
        committed = len(manifest.columns[0].bin_sizes)
        _unlink_bins(directory, announced.volume, 0, (n for n in numbers if n >= committed))
    elif announced.volume == manifest.volume + 1:
        _unlink_bins(directory, announced.volume, 0, numbers)
        _unlink_tables(directory, announced.volume, 0)


def remove_volume(directory: str, manifest: Manifest, planned_bins: tuple[int, int]) -> None:
    """Remove the files of a volume that was never committed."""
    first, count = planned_bins
    _unlink_bins(directory, manifest.volume, 0, range(first, first + count))
    _unlink_tables(directory, manifest.volume, 0)


def remove_dataset(directory: str, manifest: Manifest, planned_bins: tuple[int, int]) -> None:
    """Remove a dataset that its own writer made and gave up, and the directory if it is empty."""
    files.unlink(os.path.join(directory, MANIFEST_NAME))
    remove_volume(directory, manifest, planned_bins)
    files.unlink(os.path.join(directory, LOCK_NAME))
    try:
        os.rmdir(directory)
    except OSError:
        # Someone put a file there meanwhile: it is not ours to remove.
        return


def remove_retired(directory: str, retired: Iterable[Retired]) -> None:
    """Remove the files of overwritten volumes that no reader holds any more."""
    for volume, column, bins in retired:
        path = os.path.join(directory, file_name(FileId("index", b"", volume, column)))
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            if try_exclusive(descriptor, path):
                _unlink_bins(directory, volume, column, range(bins))
                # The index goes last: while it is there, the volume is known to be there.
                _unlink_tables(directory, volume, column)
        finally:
            os.close(descriptor)


def still_there(directory: str, retired: Iterable[Retired]) -> tuple[Retired, ...]:
    """The overwritten volumes that still have to be removed."""
    return tuple(
        entry
        for entry in retired
        if os.path.lexists(
            os.path.join(directory, file_name(FileId("index", b"", entry[0], entry[1])))
        )
    )


def _unlink_bins(directory: str, volume: int, column: int, numbers: Iterable[int]) -> None:
    for number in numbers:
        files.unlink(os.path.join(directory, file_name(FileId("bin", b"", volume, column, number))))


def _unlink_tables(directory: str, volume: int, column: int) -> None:
    for kind in ("sums", "index"):
        files.unlink(os.path.join(directory, file_name(FileId(kind, b"", volume, column))))
