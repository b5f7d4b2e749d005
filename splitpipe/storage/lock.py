"""One writer at a time.

Responsible for: `WriterLock`, a lock on a file of the dataset's directory. The kernel holds it
for the open file and lets go when the owner dies, however it dies; the file's text names the
owner for whoever is refused.

Rules:
- a lock is never waited for: a second writer gets ``LockedError`` at once;
- the lock file stays: removing it would let two writers lock two different files;
- a forked child does not share the lock.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass

from splitpipe.errors import LockedError, StorageError
from splitpipe.storage import files
from splitpipe.storage.format import MAX_BINS

_Flock = Callable[[int, int], None]
_flock: _Flock | None
try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
except ImportError:  # pragma: no cover - Windows has no flock
    _flock = None
else:
    _flock = flock

__all__ = ["Announcement", "WriterLock", "try_exclusive", "try_shared"]

_OWNER_NBYTES = 1024
# What a note may say; more is nonsense, and would take long to look for.
_MOST_BINS = 4 * MAX_BINS
_MOST_COLUMNS = 1 << 16
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Announcement:
    """Which files a writer may make before its first commit.

    Attributes:
        volume: part of the files' names.
        first_bin: the lowest bin number.
        bins: how many bins, of every column.
        columns: one more than the highest column number.
    """

    volume: int
    first_bin: int
    bins: int
    columns: int = 1


class WriterLock:
    """The right to write into one dataset, held until `release`.

    Args:
        path: the lock file, created when missing.

    Attributes:
        previous: what the last owner announced, if it died before it could tidy up.
        announced: what this owner announced.

    Raises:
        LockedError: someone else holds it; the message names the process and host.
    """

    def __init__(self, path: str) -> None:
        if _flock is None:  # pragma: no cover - Windows has no flock
            raise StorageError(errno.ENOTSUP, "writing needs file locks this system lacks", path)
        self._path = path
        self.announced: Announcement | None = None
        self._descriptor: int | None = files.open_file(
            path, os.O_RDWR | os.O_CREAT, doing="lock the dataset for writing"
        )
        try:
            if not try_exclusive(self._descriptor, path):
                raise LockedError(
                    errno.EWOULDBLOCK, f"another writer is at work: {self._owner()}", path
                )
            if not _is_still(self._descriptor, path):
                raise LockedError(errno.EWOULDBLOCK, "another writer just removed it", path)
            self.previous = _announcement(self._text())
            self._write_owner(self.previous)
        except BaseException:
            files.close(self._descriptor)
            self._descriptor = None
            raise
        _held.add(self)

    def announce(self, announced: Announcement) -> None:
        """Note which files will be made, for whoever finds them if this process dies."""
        if announced != self.announced:
            self._write_owner(announced)
            self.announced = announced

    def _write_owner(self, note: Announcement | None) -> None:
        assert self._descriptor is not None
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": int(time.time()),
            "writes": None if note is None else asdict(note),
        }
        with files.translated("write the lock's owner", self._path):
            text = json.dumps(owner).encode().ljust(_OWNER_NBYTES)
            # One write of a constant size: a reader sees the old text or the new one.
            os.pwrite(self._descriptor, text, 0)

    def _text(self) -> bytes:
        assert self._descriptor is not None
        with files.translated("read the lock's owner", self._path):
            return os.pread(self._descriptor, _OWNER_NBYTES, 0)

    def _owner(self) -> str:
        try:
            owner = json.loads(self._text())
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(owner["since"])))
            return f"process {int(owner['pid'])} on {owner['host']}, since {since}"
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return "its owner has not written its name yet"

    def release(self, *, tidy: bool = True) -> None:
        """Let go; a second call does nothing.

        Args:
            tidy: whether nothing was left behind; else the owner's note stays for the next.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                if tidy:
                    with files.translated("clear the lock's owner", self._path):
                        os.ftruncate(descriptor, 0)
            finally:
                # Said explicitly, because a forked child may hold the same open file.
                try:
                    with files.translated("unlock", self._path):
                        flock(descriptor, LOCK_UN)
                finally:
                    files.close(descriptor)

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            files.close(descriptor)


def _is_still(descriptor: int, path: str) -> bool:
    """Whether the open file is the one that has the name now."""
    with files.translated("look at the lock", path):
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(path))
        except FileNotFoundError:
            return False


def _announcement(text: bytes) -> Announcement | None:
    try:
        note = json.loads(text)["writes"]
        values = [note[key] for key in ("volume", "first_bin", "bins")]
        values.append(note.get("columns", 1))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(type(value) is int and value >= 0 for value in values):
        return None
    if values[2] > _MOST_BINS or values[3] > _MOST_COLUMNS:
        return None
    return Announcement(*values)


def try_exclusive(descriptor: int, path: str) -> bool:
    """Take an exclusive lock on an open file without waiting; False when it is in use."""
    return _try(descriptor, path, exclusive=True)


def try_shared(descriptor: int, path: str) -> bool:
    """Take a shared lock on an open file without waiting; False when it is being removed.

    A file system without locks counts as success: there a reader's snapshot ends when the
    dataset is overwritten, which the reader then reports as a missing file.
    """
    return _try(descriptor, path, exclusive=False)


def _try(descriptor: int, path: str, *, exclusive: bool) -> bool:
    try:
        if _flock is not None:
            _flock(descriptor, (LOCK_EX if exclusive else LOCK_SH) | LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if not exclusive and error.errno in (
            errno.ENOLCK,
            errno.ENOTSUP,
            errno.ENOSYS,
            errno.EBADF,
        ):
            return True
        raise StorageError(error.errno or 0, f"cannot lock: {error.strerror}", path) from error
    return True


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
