"""Locks that the kernel lets go when their owner dies.

Responsible for: `Locks`, the seam; `LockFile`, locks on bytes of a file through an open file
description of its own; and whether there are such here. Where not, there are `StripedLocks`.

Rules:
- a lock belongs to the description, not to the process: threads that share a `LockFile` do not
  exclude each other, and must agree by other means;
- a forked child shares the description of its parent, and with it the locks: `renew` gives it one
  of its own at once, which the cache's hook for forks does;
- nobody waits for a lock while it holds one of a block: there is no order to keep, and no circle.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final, Protocol

from splitpipe.cache import files

__all__ = ["LIFE", "LockFile", "Locks", "has_byte_locks", "opened_anew"]

LIFE: Final = 1 << 61
"""The byte of an object's lock file that says it is in use: held shared by all who have it open."""

_NONE_HERE = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_BUSY = (errno.EAGAIN, errno.EACCES)
_FLOCK = struct.Struct("hhqqi4x")


def _packed(kind: int, first: int, count: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, first, count, 0)


class Locks(Protocol):
    """Locks on bytes of one file, which end with whoever has them."""

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 when closed."""

    def try_lock(self, first: int, count: int = 1, *, shared: bool = False) -> bool:
        """Take a lock on ``count`` bytes, unless somebody has one that is against it."""

    def lock(self, first: int) -> None:
        """Take a lock on one byte, after whoever has it."""

    def unlock(self, first: int, count: int = 1) -> None:
        """Let go."""

    def is_locked(self, first: int) -> bool:
        """Whether somebody else holds this byte."""

    def renew(self, *, shared: int | None = None) -> None:
        """In a forked child: leave what the parent locked to the parent.

        Args:
            shared: a byte that this process holds shared from now on, without a moment between.
        """

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""


def has_byte_locks(path: str) -> bool:
    """Whether the system, and the file system of this file, have what `LockFile` needs."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return False
    try:
        locks = LockFile(path)
    except OSError:
        return True  # whoever opens it to work with it tells why it cannot
    try:
        locks.try_lock(0, shared=True)
    except OSError as error:
        return error.errno not in _NONE_HERE
    finally:
        locks.close()
    return True


class LockFile:
    """Locks on bytes of a file, whether or not it is that long.

    Args:
        path: an existing file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     mine, other = LockFile(file.name), LockFile(file.name)
        ...     print(mine.try_lock(5), other.try_lock(4, 3), other.try_lock(6))
        ...     mine.close()
        ...     print(other.try_lock(5))
        ...     other.close()
        True False True
        True
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = files.open_file(path)

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 when closed."""
        return self._descriptor

    def try_lock(self, first: int, count: int = 1, *, shared: bool = False) -> bool:
        """Take a lock on ``count`` bytes, unless somebody has one that is against it."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _packed(kind, first, count))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def lock(self, first: int) -> None:
        """Take a lock on one byte, after whoever has it."""
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW, _packed(fcntl.F_WRLCK, first, 1))

    def unlock(self, first: int, count: int = 1) -> None:
        """Let go."""
        packed = _packed(fcntl.F_UNLCK, first, count)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, packed)

    def is_locked(self, first: int) -> bool:
        """Whether somebody else holds this byte."""
        packed = _packed(fcntl.F_WRLCK, first, 1)
        answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, packed)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def renew(self, *, shared: int | None = None) -> None:
        """Leave what the parent of this process locked to the parent.

        Args:
            shared: a byte that this process holds shared from now on, without a moment between.
        """
        inherited = self._descriptor
        if inherited < 0:
            return
        self._descriptor = opened_anew(inherited, self._path)
        if shared is not None:
            self.try_lock(shared, shared=True)
        files.close(inherited)

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            files.close(descriptor)


def opened_anew(descriptor: int, path: str) -> int:
    """Open the file of a descriptor, also where its name is gone by now."""
    own = f"/proc/self/fd/{descriptor}"
    return files.open_file(own if os.path.exists(own) else path)
