"""A folder of this machine as a store: ``file://``.

Responsible for: `LocalStore`.

Rules:
- an object appears by a rename after its bytes are on disk, or not at all; what a killed writer
  left is a file whose name begins with a dot and ends in ``.writing``, which is never an object;
- a condition and the write that depends on it are one step among all who write by `LocalStore`;
- nothing outside the folder is reached, whatever symbolic links lie in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as modes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from splitpipe.errors import StorageError
from splitpipe.stores.base import ABSENT, ObjectStat, checked_key
from splitpipe.stores.failures import changed, too_short

__all__ = ["LocalStore"]

_UNFINISHED: Final = ".writing"


class LocalStore:
    """The files below a folder.

    Args:
        folder: that need not be there before the first write.

    Attributes:
        url: ``file://`` and the path.

    Example:
        >>> import tempfile
        >>> store = LocalStore(tempfile.mkdtemp())
        >>> store.write("a/b", b"hello").size, store.read("a/b", 1, 3)
        (5, b'el')
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.path.realpath(folder)
        self.url = Path(self._folder).as_uri() + "/"

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        with self._opened(key) as (_, stat):
            return stat

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        with self._opened(key) as (file, stat):
            if tag is not None and tag != stat.tag:
                raise changed(self._path(key), tag, stat.tag)
            end = stat.size if stop is None else stop
            if not 0 <= start <= end <= stat.size:
                raise too_short(self._path(key), start, stop, stat.size)
            data = _read_exactly(file, start, end)
            if len(data) < end - start or (tag is not None and _stat_of(os.fstat(file)) != stat):
                raise changed(self._path(key), stat.tag or "", "one that was written over it")
            return data

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`."""
        with self._translated(self._folder):
            keys = sorted(self._keys(prefix))
        for key in keys:
            # One that was removed meanwhile is not there, which is no error of a listing.
            with contextlib.suppress(FileNotFoundError):
                yield key, self.stat(key)

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        path = self._inside(key, make=True)
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}{_UNFINISHED}")
        with self._translated(path), contextlib.ExitStack() as stack:
            stack.callback(_remove, temporary)
            _write_durably(temporary, data)
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
            # Those who write by other means do not wait for it: a condition cannot bind them.
            fcntl.flock(directory, fcntl.LOCK_EX)
            if expected is not None:
                found = _tag_at(path)
                if found != expected:
                    raise changed(path, expected, found)
            os.rename(temporary, path)
            os.fsync(directory)
            return _stat_of(os.stat(path))

    def close(self) -> None:
        """See `Store.close`; nothing is kept open."""

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, checked_key(key))

    def _inside(self, key: str, *, make: bool = False) -> str:
        """The path of a key, which leads to no other place than below the folder."""
        path = self._path(key)
        if make:
            with self._translated(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
        real = os.path.realpath(path)
        if os.path.commonpath([real, self._folder]) != self._folder:
            text = "it is a symbolic link out of the store's folder, which is not followed"
            raise StorageError(errno.EACCES, text, path)
        return real

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, ObjectStat]]:
        path = self._inside(key)
        with self._translated(path):
            # Non-blocking: a named pipe would wait for its writer.
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(file)
            if not modes.S_ISREG(found.st_mode):
                raise StorageError(errno.ENOENT, "there is no such object, but a folder", path)
            with self._translated(path):
                yield file, _stat_of(found)
        finally:
            os.close(file)

    def _keys(self, prefix: str) -> Iterator[str]:
        inner = prefix.rpartition("/")[0]
        top = os.path.join(self._folder, checked_key(inner)) if inner else self._folder
        for folder, _, names in os.walk(top, onerror=_raise_unless_missing):
            for name in names:
                path = os.path.join(folder, name)
                if name.startswith(".") and name.endswith(_UNFINISHED):
                    continue
                key = os.path.relpath(path, self._folder)
                if key.startswith(prefix) and os.path.isfile(path):
                    yield checked_key(key)

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            code = error.errno or errno.EIO
            if code in (errno.ENOTDIR, errno.ENOENT):
                raise StorageError(errno.ENOENT, "there is no such object", path) from error
            raise StorageError(code, os.strerror(code), path) from error

    def __repr__(self) -> str:
        return f"LocalStore({self._folder!r})"


def _stat_of(found: os.stat_result) -> ObjectStat:
    tag = f"{found.st_size:x}-{found.st_mtime_ns:x}-{found.st_ino:x}"
    return ObjectStat(found.st_size, tag)


def _tag_at(path: str) -> str | None:
    try:
        return _stat_of(os.stat(path)).tag
    except FileNotFoundError:
        return ABSENT


def _read_exactly(file: int, start: int, stop: int) -> bytes:
    pieces = []
    while start < stop:
        data = os.pread(file, min(stop - start, 1 << 30), start)
        if not data:
            break
        pieces.append(data)
        start += len(data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write_durably(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
        # The kernel's clock for files stands still for milliseconds: two versions of one size, in
        # an inode that is used again, would have one tag.
        now = time.time_ns()
        os.utime(file, ns=(now, now))
        os.fsync(file)
    finally:
        os.close(file)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
