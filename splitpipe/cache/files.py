"""System calls of the cache, with the system's errors translated once.

Responsible for: opening, writing whole buffers, mapping, giving places of a file back to the disk.

Rules:
- a full disk, a full quota and too large a file are `CacheFull`: whoever reads goes on without;
- what is mapped and written to has its places on the disk beforehand;
- a map never shares an open file description with a lock: the kernel keeps a lock as long as
  anything of the description is mapped, in any process that inherited it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from splitpipe.errors import CacheFull, SplitpipeError, StorageError

__all__ = [
    "allocate",
    "close",
    "has_holes",
    "is_full",
    "map_file",
    "open_file",
    "publish",
    "punch_hole",
    "sync",
    "translated",
    "write_at",
]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_HOLES: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
_KEEP_SIZE_PUNCH: Final = 0x01 | 0x02
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_longlong,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room."""
    return error.errno in _FULL


@contextmanager
def translated(doing: str, path: str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a `StorageError` that says what was done."""
    try:
        yield
    except SplitpipeError:
        raise
    except OSError as error:
        kind: type[StorageError] = CacheFull if is_full(error) else StorageError
        text = f"the cache cannot {doing}: {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            text += "; choose another folder (cache_dir=, $SPLITPIPE_CACHE)"
        raise kind(error.errno or 0, text, path) from error


def open_file(path: str, flags: int = os.O_RDWR) -> int:
    """Open a file and return its descriptor, which programs started from here do not inherit."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def close(descriptor: int) -> None:
    """Close a file; nothing depends on what the system says to it."""
    with suppress(OSError):
        os.close(descriptor)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write a whole buffer at a place."""
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            wrote = os.pwrite(descriptor, rest[done:], offset + done)
            if wrote <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += wrote


def allocate(descriptor: int, nbytes: int) -> None:
    """Have the disk give all places of a file that is to be mapped.

    Where a map has no place on the disk, a full disk is a SIGBUS instead of an error.
    """
    if nbytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.ftruncate(descriptor, nbytes)


def sync(descriptor: int) -> None:
    """Have the content of a file on its disk."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def map_file(path: str, *, nbytes: int) -> memoryview:
    """Map the beginning of a file, shared and writable, by a description of its own.

    The map ends with the last view of it. (A map of the standard library keeps a descriptor, and
    every object here needs one: a cache of thousands would run out of them.)
    """
    descriptor = open_file(path)
    try:
        address = _libc.mmap(None, nbytes, _READ_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, _MAP_FAILED):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        close(descriptor)
    mapped = (ctypes.c_char * nbytes).from_address(address)
    # Not when the interpreter ends: somebody may still look.
    weakref.finalize(mapped, _libc.munmap, address, nbytes).atexit = False
    return memoryview(mapped).cast("B")


def publish(path: str, content: bytes, *, nbytes: int | None = None) -> bool:
    """Make a small file with its whole content, unless there is one: False then.

    Nobody ever sees a part of it: it gets its name when it is written.

    Args:
        path: of the file.
        content: what it begins with.
        nbytes: its size; zeros follow the content.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".splitpipe-{name}-{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        try:
            write_at(descriptor, content, 0)
            allocate(descriptor, len(content) if nbytes is None else nbytes)
            os.fsync(descriptor)
        finally:
            close(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def has_holes(folder: str) -> bool:
    """Whether places in a file can be given back to the disk here."""
    path = os.path.join(folder, f".splitpipe-holes-{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.unlink(path)
        write_at(descriptor, bytes(4096), 0)
        return punch_hole(descriptor, 0, 4096)
    except OSError as error:
        if is_full(error):
            return True  # nothing can be tried: what is usual
        raise
    finally:
        close(descriptor)


def punch_hole(descriptor: int, start: int, nbytes: int) -> bool:
    """Give a place of a file back to the disk: it reads as zeros then.

    Returns:
        False where the file system cannot; nothing is changed then.
    """
    if nbytes <= 0:
        return True
    if sys.platform != "linux":
        return False
    offset, length = ctypes.c_longlong(start), ctypes.c_longlong(nbytes)
    while _libc.fallocate64(descriptor, _KEEP_SIZE_PUNCH, offset, length):
        number = ctypes.get_errno()
        if number in _NO_HOLES:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
