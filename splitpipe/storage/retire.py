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
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from splitpipe.errors import StorageError
from splitpipe.storage import files
from splitpipe.storage.catalog_file import catalog_name, work_name
from splitpipe.storage.committed import Column, Manifest, Stale
from splitpipe.storage.format import LOCK_NAME, MANIFEST_NAME, FileId, file_name
from splitpipe.storage.lock import Announcement, try_exclusive

__all__ = [
    "column_files",
    "cut_leftovers",
    "overwritten",
    "refuse_foreign",
    "remove_column",
    "remove_dataset",
    "remove_retired",
    "remove_volume",
    "still_there",
]

# volume, column, number of bins
Retired = tuple[int, int, int]

# What a writer that died before its first manifest leaves, or while it removed a dataset that it
# gave up: its lock, and files of volume 1 in which there is no record, of any column.
_OURS_WITHOUT_MANIFEST = re.compile(
    rf"{re.escape(LOCK_NAME)}|{re.escape(MANIFEST_NAME)}\.new"
    r"|v0001-c\d{3,5}\.(index|sums|dictionary)"
)


def refuse_foreign(directory: str) -> None:
    """Raise ``StorageError`` if a directory without a manifest holds anything of anyone's."""
    with files.translated("look into the directory", directory):
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return
    foreign = sorted(name for name in names if not _OURS_WITHOUT_MANIFEST.fullmatch(name))
    if foreign:
        raise StorageError(
            errno.ENOTEMPTY,
            f"the directory is not empty and not a splitpipe dataset (it has {foreign[0]!r}): "
            "choose another directory",
            directory,
        )


def overwritten(manifest: Manifest) -> tuple[tuple[Retired, ...], tuple[Stale, ...]]:
    """What has to be removed once ``manifest`` is overwritten: see `Manifest`."""
    retired = list(manifest.retired)
    stale = list(manifest.stale)
    for column in manifest.columns:
        if column.version:
            stale += column_files(manifest, column)
            continue
        # As the first version of the format has it.
        retired.append((manifest.volume, column.number, len(column.bin_sizes)))
        if column.dictionary is not None:
            stale.append(Stale("dictionary", manifest.volume, column.number, 0))
    if manifest.deleted is not None:
        stale.append(Stale("deleted", manifest.volume, 0, manifest.deleted.number))
    if manifest.catalog is not None:
        stale.append(Stale("catalog", manifest.volume, 0, manifest.catalog.number))
    return tuple(retired), tuple(stale)


def column_files(manifest: Manifest, column: Column, bins: int = 0) -> list[Stale]:
    """The files of one column, once no commit names it any more.

    Args:
        manifest: the last commit that names it.
        column: as it names it.
        bins: how many bins it has by now, if that is more.
    """
    volume, number = manifest.volume, column.number
    found = [
        Stale("index", volume, number, column.version),
        Stale("bins", volume, number, max(bins, len(column.bin_sizes))),
    ]
    if column.dictionary is not None:
        found.append(Stale("dictionary", volume, number, 0))
    return found


def cut_leftovers(
    directory: str, manifest: Manifest | None, announced: Announcement | None
) -> None:
    """Bring the files back to the last commit.

    Args:
        directory: of the dataset.
        manifest: the last commit; ``None`` when there is none.
        announced: which files the last writer may have made, as its lock file says.
    """
    if manifest is None:
        if announced is not None and announced.volume == 1:
            remove_volume(directory, announced, 1)
        return
    for column in manifest.columns:
        for identity, size in manifest.files(column):
            path = os.path.join(directory, file_name(identity))
            if size:
                files.truncate(path, size)
            else:
                files.unlink(path)
        if column.field.compression is not None and column.dictionary is None:
            files.unlink(os.path.join(directory, file_name(manifest.file_id("dictionary", column))))
    if announced is None:
        return
    numbers = range(announced.first_bin, announced.first_bin + announced.bins)
    following = manifest.generation + 1
    if announced.volume == manifest.volume:
        committed = {column.number: len(column.bin_sizes) for column in manifest.columns}
        for number in range(announced.columns):
            if number in committed:
                past = (n for n in numbers if n >= committed[number])
                _unlink_bins(directory, announced.volume, number, past)
                _unlink_tables(directory, announced.volume, number, following)
            elif number >= manifest.next_column:
                remove_column(directory, announced.volume, number, numbers, (0, following))
        _unlink_others(directory, announced.volume, following)
    elif announced.volume == manifest.volume + 1:
        remove_volume(directory, announced, following)


def remove_column(
    directory: str, volume: int, column: int, bins: Iterable[int], versions: Iterable[int]
) -> None:
    """Remove the files of a column that no commit ever named."""
    _unlink_bins(directory, volume, column, bins)
    for version in versions:
        _unlink_tables(directory, volume, column, version)
    files.unlink(os.path.join(directory, file_name(FileId("dictionary", b"", volume, column))))


def remove_volume(directory: str, announced: Announcement, following: int) -> None:
    """Remove the files of a volume that was never committed.

    Args:
        directory: of the dataset.
        announced: which files there may be.
        following: the generation that its first commit would have had.
    """
    numbers = range(announced.first_bin, announced.first_bin + announced.bins)
    for column in range(announced.columns):
        remove_column(directory, announced.volume, column, numbers, (0, following))
    _unlink_others(directory, announced.volume, following)


def remove_dataset(directory: str, announced: Announcement) -> None:
    """Remove a dataset that its own writer made and gave up, and the directory if it is empty.

    It was brought back to its first manifest: without that one, a bin would be someone else's.
    """
    files.unlink(os.path.join(directory, MANIFEST_NAME))
    remove_volume(directory, announced, 1)
    files.unlink(os.path.join(directory, LOCK_NAME))
    try:
        os.rmdir(directory)
    except OSError:
        # Someone put a file there meanwhile: it is not ours to remove.
        return


def remove_retired(directory: str, retired: Iterable[Retired], stale: Iterable[Stale] = ()) -> None:
    """Remove the files that no commit names and no reader holds any more."""
    for volume, column, bins in retired:
        with _unheld(directory, FileId("index", b"", volume, column)) as free:
            if free:
                _unlink_bins(directory, volume, column, range(bins))
                # The index goes last: while it is there, the volume is known to be there.
                _unlink_tables(directory, volume, column, 0)
    # Bins go when no reader has an index that leads to them.
    for entry in sorted(stale, key=lambda entry: entry.kind == "bins"):
        if entry.kind == "index":
            with _unheld(
                directory, FileId("index", b"", entry.volume, entry.column, entry.number)
            ) as free:
                if free:
                    _unlink_tables(directory, entry.volume, entry.column, entry.number)
        elif entry.kind == "bins":
            if not any(_leads_to(other, entry) and _is_there(directory, other) for other in stale):
                _unlink_bins(directory, entry.volume, entry.column, range(entry.number))
        else:
            name = _stale_name(entry)
            with _unheld_name(directory, name) as free:
                if free:
                    files.unlink(os.path.join(directory, name))


def still_there(
    directory: str, retired: Iterable[Retired], stale: Iterable[Stale] = ()
) -> tuple[tuple[Retired, ...], tuple[Stale, ...]]:
    """What still has to be removed."""
    left = tuple(
        (volume, column, bins)
        for volume, column, bins in retired
        if _is_there(directory, Stale("index", volume, column, 0))
    )
    stale = tuple(stale)
    return left, tuple(entry for entry in stale if _is_there(directory, entry))


def _leads_to(index: Stale, bins: Stale) -> bool:
    return index.kind == "index" and (index.volume, index.column) == (bins.volume, bins.column)


def _is_there(directory: str, entry: Stale) -> bool:
    if entry.kind == "bins":
        return any(
            files.is_there(
                os.path.join(
                    directory, file_name(FileId("bin", b"", entry.volume, entry.column, number))
                )
            )
            for number in range(entry.number)
        )
    names = [_stale_name(entry)]
    if entry.kind == "index":
        names.append(_stale_name(replace(entry, kind="sums")))
    return any(files.is_there(os.path.join(directory, name)) for name in names)


def _stale_name(entry: Stale) -> str:
    if entry.kind == "catalog":
        return catalog_name(entry.volume, entry.number)
    return file_name(FileId(entry.kind, b"", entry.volume, entry.column, entry.number))


def _unheld(directory: str, identity: FileId) -> AbstractContextManager[bool]:
    return _unheld_name(directory, file_name(identity))


@contextmanager
def _unheld_name(directory: str, name: str) -> Iterator[bool]:
    """Whether no reader holds a file; none can take hold of it within the block."""
    path = os.path.join(directory, name)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        # What went with it may still be there.
        yield True
        return
    except OSError:
        yield False
        return
    try:
        yield try_exclusive(descriptor, path)
    finally:
        files.close(descriptor)


def _unlink_bins(directory: str, volume: int, column: int, numbers: Iterable[int]) -> None:
    for number in numbers:
        files.unlink(os.path.join(directory, file_name(FileId("bin", b"", volume, column, number))))


def _unlink_tables(directory: str, volume: int, column: int, version: int) -> None:
    for kind in ("sums", "index"):
        name = file_name(FileId(kind, b"", volume, column, version))
        files.unlink(os.path.join(directory, name))


def _unlink_others(directory: str, volume: int, generation: int) -> None:
    """Files of the dataset as a whole that a commit under way may have made."""
    for name in (
        file_name(FileId("deleted", b"", volume, 0, generation)),
        catalog_name(volume, generation),
        work_name(volume),
    ):
        files.unlink(os.path.join(directory, name))
