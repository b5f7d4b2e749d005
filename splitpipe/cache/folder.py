"""The folder of a cache: whose it is, and what lies where.

Responsible for: the marker file; making a folder ours and refusing one that is not; `Layout`, the
names below it.

Rules:
- a folder is ours when it has the marker; without one it must be empty;
- what lies in a folder of ours beside the names of `Layout` is never touched.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from splitpipe.cache import files
from splitpipe.cache.locks import LIFE, LockFile, Locks, has_byte_locks
from splitpipe.cache.stripes import StripedLocks
from splitpipe.errors import FormatError, StorageError, UnsupportedVersion

__all__ = ["MARKER", "Layout", "claim", "drop_mirrors", "known", "recognise"]

MARKER: Final = "splitpipe-cache.json"
_FORMAT: Final = "splitpipe-cache"
_VERSION: Final = 1
_MOST_NBYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where in a cache's folder.

    Attributes:
        root: the folder.
        striped: whether the system lacks locks on bytes.
    """

    root: str
    striped: bool = False

    def locks(self, path: str) -> Locks:
        """Locks on bytes of one of its files."""
        if self.striped:
            return StripedLocks(path, os.path.join(self.root, "locks"), life=LIFE)
        return LockFile(path)

    @property
    def state(self) -> str:
        """The shared numbers."""
        return os.path.join(self.root, "state")

    @property
    def objects(self) -> str:
        """Where the objects are."""
        return os.path.join(self.root, "objects")

    def marks(self, digest: bytes) -> str:
        """The mark file of an object."""
        return self._object(digest) + ".marks"

    def data(self, digest: bytes) -> str:
        """The bytes of an object."""
        return self._object(digest) + ".data"

    def _object(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self.root}/objects/{name[:2]}/{name}"

    def shelves(self) -> list[str]:
        """The folders that objects are in, in any order."""
        try:
            with os.scandir(self.objects) as entries:
                return [e.path for e in entries if len(e.name) == 2 and _is_hex(e.name)]
        except FileNotFoundError:
            return []

    def found_on(self, shelf: str) -> Iterator[bytes]:
        """The objects of one of these folders."""
        try:
            with os.scandir(shelf) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return
        for name in names:
            stem, _, ending = name.partition(".")
            if ending == "marks" and len(stem) == 32 and _is_hex(stem):
                yield bytes.fromhex(stem)

    def found(self) -> Iterator[bytes]:
        """All objects."""
        for shelf in self.shelves():
            yield from self.found_on(shelf)


def _is_hex(name: str) -> bool:
    return all(letter in "0123456789abcdef" for letter in name)


def claim(directory: str) -> Layout:
    """Make a folder ours, or find that it is.

    Raises:
        StorageError: it cannot be made or written to, or other things lie in it.
        UnsupportedVersion: a newer version made it.
        FormatError: its marker is damaged.
    """
    layout = Layout(os.path.abspath(directory))
    if not recognise(layout.root):
        with files.translated("be made here", layout.root):
            os.makedirs(layout.root, mode=0o700, exist_ok=True)
            _refuse_others(layout.root)
            document = {"format": _FORMAT, "version": _VERSION, "id": uuid.uuid4().hex}
            files.publish(os.path.join(layout.root, MARKER), json.dumps(document).encode() + b"\n")
        recognise(layout.root)
    layout = known(layout.root)
    with files.translated("be opened here", layout.root):
        os.makedirs(layout.objects, mode=0o700, exist_ok=True)
    return layout


def known(root: str) -> Layout:
    """The names in a folder of ours."""
    return Layout(root, striped=not has_byte_locks(os.path.join(root, MARKER)))


def recognise(root: str) -> dict[str, Any] | None:
    """What the marker says; None where there is none.

    Raises:
        UnsupportedVersion, FormatError: as `claim`.
    """
    path = os.path.join(root, MARKER)
    with files.translated("be opened here", root):
        try:
            descriptor = files.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            text = os.pread(descriptor, _MOST_NBYTES, 0)
        finally:
            files.close(descriptor)
    document: dict[str, Any] | None = None
    with suppress(ValueError, RecursionError):
        document = json.loads(text)
    if not isinstance(document, dict):
        document = {}
    version = document.get("version")
    if type(version) is not int or document.get("format") != _FORMAT:
        raise FormatError(f"{path} is damaged: remove the folder, or choose another (cache_dir=)")
    if version > _VERSION:
        raise UnsupportedVersion(
            f"{root} was made by a newer splitpipe (version {version}, this one knows {_VERSION}): "
            "choose another folder (cache_dir=, $SPLITPIPE_CACHE)"
        )
    return document


def drop_mirrors(layout: Layout) -> None:
    """Remove folders of those who use the cache whose links lead nowhere; nobody is there now."""
    mirrors = os.path.join(layout.root, "mirrors")
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(mirrors):
            path = os.path.join(mirrors, name)
            with os.scandir(path) as entries:
                links = [entry.path for entry in entries if entry.is_symlink()]
            if not any(os.path.exists(link) for link in links):
                shutil.rmtree(path, ignore_errors=True)


def _refuse_others(root: str) -> None:
    others = sorted(n for n in os.listdir(root) if n != MARKER and not n.startswith(".splitpipe-"))
    if others and not os.path.exists(os.path.join(root, MARKER)):
        raise StorageError(
            errno.ENOTEMPTY,
            f"this folder is no cache: {others[0]!r} lies in it; choose an empty one",
            root,
        )
