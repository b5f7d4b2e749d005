"""Memory that processes share and that has no name.

Responsible for: anonymous files (memfd where the system has it, an unlinked temporary file
elsewhere), their reservation up front, their mapping, and their journey to a child process.

Rules:
- no name ever exists that a SIGKILL could leave behind;
- space is reserved before it is touched: a full shared memory is an `OSError` here, never a SIGBUS
  later;
- a descriptor travels only by inheritance or over a socket pair, to a process that we started.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

__all__ = ["Descriptor", "anonymous_file", "map_shared", "reserve"]

_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


def anonymous_file(label: str = "splitpipe") -> int:
    """Return the descriptor of an empty file that no directory names."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(
        prefix=label
    ) as file:  # macOS: unlinked at birth, kept by the page cache
        return os.dup(file.fileno())


def reserve(fd: int, offset: int, nbytes: int) -> None:
    """Make ``offset:offset + nbytes`` of `fd` exist in memory.

    Raises:
        OSError: ENOSPC, ENOMEM or EFBIG: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, nbytes)
    elif os.fstat(fd).st_size < offset + nbytes:  # macOS: sparse, its page cache cannot run full
        os.ftruncate(fd, offset + nbytes)


def map_shared(fd: int, offset: int, nbytes: int) -> mmap.mmap:
    """Map ``offset:offset + nbytes`` of `fd`, pages faulted in at once where the system can.

    Faulting them one by one while a batch is written costs as much as writing the batch.
    """
    if os.fstat(fd).st_size < offset + nbytes:
        raise OSError(errno.EINVAL, f"shared memory ends before {offset + nbytes}")
    return mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED | _POPULATE, offset=offset)


class Descriptor:
    """A file descriptor that may be an argument of a child process.

    It owns the descriptor: `close` closes it, twice is harmless. Pickling works only while
    a process is being started, as for any descriptor.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt, (reduction.DupFd(self.fd),)

    def __repr__(self) -> str:
        return f"Descriptor({self.fd})"


def _adopt(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())
