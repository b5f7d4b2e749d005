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

import contextlib
import errno
import mmap
import os
import sys
from multiprocessing import reduction
from typing import Any

import numpy as np

__all__ = [
    "HUGE",
    "Descriptor",
    "anonymous_file",
    "map_huge",
    "map_shared",
    "reserve",
    "reserve_huge",
]

HUGE = 2 << 20
"""Bytes of a huge page on the machines that have them, and the alignment that it needs."""

_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_LINUX = sys.platform == "linux"
_POPULATE_READ, _COLLAPSE = 22, 25  # Linux 5.14, 6.1; not among the constants of mmap yet


def anonymous_file(label: str = "splitpipe") -> int:
    """Return the descriptor of an empty file that no directory names."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC)
    import tempfile  # not for all: it imports half of the standard library

    with tempfile.TemporaryFile(prefix=label) as file:  # unlinked at birth
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


def reserve_huge(fd: int, offset: int, nbytes: int) -> None:
    """Reserve as `reserve` does, in huge pages if possible, and leave the hole behind it that
    `map_huge` may have to map.

    The system joins small pages into huge ones where there is one at least, and fills in the
    others: that is quicker than to have all small ones first (0.7 and 5.5 ms for 10 MB).
    """
    if os.fstat(fd).st_size < offset + nbytes + HUGE:
        os.ftruncate(fd, offset + nbytes + HUGE)
    if _LINUX:
        for start in range(offset, offset + nbytes, HUGE):
            reserve(fd, start, 1)
        memory = _map_aligned(fd, offset, nbytes)
        if memory is not None:
            with memory, contextlib.suppress(OSError):
                memory.madvise(_COLLAPSE, 0, nbytes)
    reserve(fd, offset, nbytes)


def map_huge(fd: int, offset: int, nbytes: int) -> mmap.mmap:
    """Map a region that is a multiple of `HUGE` in place and in size, in huge pages where it is
    made of them.

    The map may be longer than `nbytes`. Copying a batch into huge pages takes a quarter less time,
    for want of address translations. Whatever a system does not have is left out: the memory is
    the same.
    """
    memory = _map_aligned(fd, offset, nbytes) if _LINUX else None
    if memory is None:
        return map_shared(fd, offset, nbytes)
    with contextlib.suppress(OSError):
        memory.madvise(_POPULATE_READ, 0, nbytes)
    return memory


def _map_aligned(fd: int, offset: int, nbytes: int) -> mmap.mmap | None:
    """Map a region at an address that is as aligned as its place in the file, or return None.

    The system gives the highest free place that is large enough, so a map that is longer by what
    the last one was off begins where it should. What lies behind the region is never touched.
    """
    tail = 0
    room = os.fstat(fd).st_size - offset - nbytes
    while tail <= room:
        memory = mmap.mmap(fd, nbytes + tail, flags=mmap.MAP_SHARED, offset=offset)
        off = np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % HUGE
        if off == offset % HUGE:
            return memory
        memory.close()
        if tail:
            return None  # the place is chosen in another way here
        tail = (off - offset) % HUGE
    return None


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
