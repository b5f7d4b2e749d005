"""The files of a column set.

Responsible for: `FileEntry`, what a file is known by; `list_files`, those that lie at a place now;
and `compare`, what is new, changed and removed since another list.

Rules:
- files come in natural order (``part2`` before ``part10``); the order is part of what a snapshot
  pins, because rows are numbered by it;
- names that begin with a dot are left out; links to folders are not followed, and a file that is a
  link to somewhere else is refused;
- a list is bounded: a place with more files than `MOST_FILES` is an error.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from splitpipe.errors import FormatError, StorageError
from splitpipe.formats.base import natural_key, suffix_of
from splitpipe.server.catalog.locations import Locations, Place
from splitpipe.storage import files
from splitpipe.stores import open_store, told_url

__all__ = ["FORMATS", "MOST_FILES", "Changes", "FileEntry", "compare", "list_files"]

MOST_FILES: Final = 100_000

FORMATS: Final = {
    "bins": (),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet", ".pq", ".parq"),
}
"""Formats of column sets, and the suffixes of their files."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a column set.

    Attributes:
        name: its path below the place; of a place that is a file, empty.
        size: in bytes.
        version: when it was written to in ns, or the tag of a store; a change of it is a change.
        rows: how many it has; ``None`` while nobody counted.
    """

    name: str
    size: int
    version: str
    rows: int | None = None

    def to_json(self) -> list[Any]:
        """As JSON, short: there may be many."""
        return [self.name, self.size, self.version, self.rows]

    @classmethod
    def from_json(cls, document: Sequence[Any]) -> Self:
        """What `to_json` made."""
        name, size, version, rows = document
        return cls(str(name), int(size), str(version), rows)

    def same_as(self, other: FileEntry) -> bool:
        """Whether it is the same version of the same file."""
        return (self.name, self.size, self.version) == (other.name, other.size, other.version)


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the files of a place.

    Attributes:
        entries: those that are there now; with their rows, where they did not change.
        new, changed, removed: names.
    """

    entries: tuple[FileEntry, ...]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def compare(before: Sequence[FileEntry], now: Sequence[FileEntry]) -> Changes:
    """What changed between two lists.

    Example:
        >>> before = [FileEntry("a", 1, "1", 5), FileEntry("b", 1, "1", 5)]
        >>> found = compare(before, [FileEntry("a", 1, "1"), FileEntry("c", 2, "2")])
        >>> found.new, found.changed, found.removed, found.entries[0].rows
        (('c',), (), ('b',), 5)
    """
    known = {entry.name: entry for entry in before}
    entries: list[FileEntry] = []
    new: list[str] = []
    changed: list[str] = []
    for entry in now:
        old = known.pop(entry.name, None)
        if old is None:
            new.append(entry.name)
        elif not old.same_as(entry):
            changed.append(entry.name)
        else:
            entry = replace(entry, rows=old.rows)
        entries.append(entry)
    return Changes(tuple(entries), tuple(new), tuple(changed), tuple(known))


def list_files(place: Place, format: str, locations: Locations) -> list[FileEntry]:
    """The files that lie at a place, in order; without their rows.

    Raises:
        StorageError: there is nothing there, or it cannot be looked at.
        NotAllowed: a file there is a link to where nobody may look.
        FormatError: there are too many files, or the place is no file of this format.
    """
    found = _remote(place, format, locations) if place.remote else _local(place, format, locations)
    entries: list[FileEntry] = []
    for entry in found:
        entries.append(entry)
        if len(entries) > MOST_FILES:
            raise FormatError(f"{told_url(place.path)} has more than {MOST_FILES} files")
    if not entries:
        raise StorageError(
            errno.ENOENT, f"there is no file for format {format!r}", told_url(place.path)
        )
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _local(place: Place, format: str, locations: Locations) -> Iterator[FileEntry]:
    if place.pattern and not os.path.exists(place.path):
        if place.path.count("**") > 1:  # each of them multiplies the ways to a file
            raise FormatError(f"{place.path}: a pattern has '**' at most once")
        with files.translated("look for files like", place.path):
            for path in glob.iglob(place.path, recursive=True):
                if os.path.isfile(path):
                    yield entry_of(path, os.path.relpath(path, root_of(place)), locations)
        return
    with files.translated("look at it", place.path):
        mode = os.stat(place.path).st_mode
    if stat.S_ISREG(mode):
        yield entry_of(place.path, "", locations)
        return
    if not stat.S_ISDIR(mode):
        raise FormatError(f"{place.path} is neither a file nor a folder")
    with files.translated("list the folder", place.path):
        for folder, names, members in os.walk(place.path, onerror=_raise):
            names[:] = [name for name in names if name[0] != "."]
            for name in members:
                if name[0] != "." and suffix_of(name) in FORMATS[format]:
                    path = os.path.join(folder, name)
                    yield entry_of(path, os.path.relpath(path, place.path), locations)


def entry_of(path: str, name: str, locations: Locations) -> FileEntry:
    """What a file of this machine is known by now.

    Raises:
        StorageError: it is not there, or cannot be looked at.
        NotAllowed: it is a link to where nobody may look.
    """
    with files.translated("look at the file", path):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            found = os.stat(locations.inside(path))
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"{path} is no file with records: it is a pipe, a device or a folder")
    return FileEntry(name, found.st_size, str(found.st_mtime_ns))


def root_of(place: Place) -> str:
    """What names of files are relative to: the folder of a place, or before its pattern."""
    if not place.pattern:
        return place.path
    before: list[str] = []
    for part in place.path.split("/"):
        if any(mark in part for mark in "*?["):
            break
        before.append(part)
    return "/".join(before) or "/"


def _remote(place: Place, format: str, locations: Locations) -> Iterator[FileEntry]:
    at = place.location
    store = open_store(at.root, storage_options=locations.options_for(place.path))
    try:
        if not place.pattern and suffix_of(at.key) in FORMATS[format]:
            stat_ = store.stat(at.key)
            yield FileEntry("", stat_.size, stat_.tag or "")
            return
        base = root_of(place) if place.pattern else place.path
        prefix = base.removeprefix(at.root).rstrip("/")
        prefix = f"{prefix}/" if prefix else ""
        for key, known in store.list(prefix):
            name = key[len(prefix) :]
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if place.pattern and not fnmatch.fnmatchcase(key, at.key):
                continue
            if place.pattern or suffix_of(name) in FORMATS[format]:
                yield FileEntry(name, known.size, known.tag or "")
    finally:
        store.close()


def _raise(error: OSError) -> None:
    raise error
