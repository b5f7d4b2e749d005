"""System calls on files, with the system's errors translated once.

Responsible for: opening, reading, writing at an offset, making durable, replacing, and for
turning every ``OSError`` of these into a ``StorageError`` that keeps ``errno`` and
``filename``. Every call goes through ``os.<name>`` at the time of the call, so that a test can
put a failing disk underneath.

Rules:
- no call depends on a file's seek position;
- a short write is continued, a short read is the caller's to judge.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from splitpipe.errors import FormatError, SplitpipeError, StorageError
from splitpipe.stores.sealed import told_url

__all__ = [
    "begins_with",
    "check_size",
    "close",
    "is_there",
    "local",
    "make_directory",
    "open_file",
    "opened",
    "read_at",
    "read_whole",
    "replace",
    "size_of",
    "status",
    "sync",
    "sync_directory",
    "translated",
    "truncate",
    "unlink",
    "write_at",
]

# As it was written, or after it was taken for a path.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)

# Without waiting: a pipe in place of a file is opened at once, and found to be none of ours.
_ALWAYS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"))


def local(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file or directory of this machine.

    Raises:
        StorageError: it is a url, which would be made a directory of a strange name.

    Example:
        >>> local("s3://bucket/data")
        Traceback (most recent call last):
        splitpipe.errors.StorageError: [Errno ...] this works on directories of this machine, not \
in a store; write there with a DatasetWriter, read from there with open_dataset: 's3://bucket/data'
    """
    text = os.fspath(path)
    found = _URL.match(text)
    if found is None:
        return os.path.abspath(text)
    raise StorageError(
        errno.ENOTSUP,
        "this works on directories of this machine, not in a store; write there with a "
        "DatasetWriter, read from there with open_dataset",
        told_url(f"{found[1]}://{found[2]}"),
    )


@contextmanager
def translated(doing: str, path: str, advice: str = "") -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``StorageError`` that says what was done."""
    try:
        yield
    except SplitpipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        text = f"cannot {doing}: {reason}" + (f"; {advice}" if advice else "")
        raise StorageError(error.errno or 0, text, path) from error


def open_file(path: str, flags: int, *, doing: str = "open the file", advice: str = "") -> int:
    """Open a file and return its descriptor, which children do not inherit."""
    with translated(doing, path, advice):
        return os.open(path, flags | _ALWAYS, 0o666)


def close(descriptor: int) -> None:
    """Close a file.

    Nothing depends on it: the system lets go of the file whatever it answers, and what counts
    was synced before, which is the call that tells of lost writes.
    """
    with suppress(OSError):
        os.close(descriptor)


@contextmanager
def opened(
    path: str, flags: int, *, doing: str = "open the file", advice: str = ""
) -> Iterator[int]:
    """Open a file for a block."""
    descriptor = open_file(path, flags, doing=doing, advice=advice)
    try:
        yield descriptor
    finally:
        close(descriptor)


def status(descriptor: int, path: str) -> os.stat_result:
    """What the system knows of an open file."""
    with translated("look at the file", path):
        return os.fstat(descriptor)


def check_size(descriptor: int, committed: int, path: str) -> None:
    """Raise ``FormatError`` if a file is shorter than what was committed of it."""
    found = status(descriptor, path).st_size
    if found < committed:
        raise FormatError(
            f"{path} has {found} bytes, {committed} were committed: it was cut; "
            "restore it from a copy"
        )


def is_there(path: str) -> bool:
    """Whether there is something of this name, be it a link to nothing; an error is no answer."""
    with translated("look for", path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            # The last of them: a name that no file can have.
            return False
        return True


def size_of(path: str) -> int:
    """Size of a file in bytes, 0 if there is none."""
    with translated("look at the file", path):
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return 0


def read_at(descriptor: int, nbytes: int, offset: int, path: str) -> bytes:
    """Read up to ``nbytes`` at ``offset``; fewer only where the file ends."""
    with translated("read", path):
        data = os.pread(descriptor, nbytes, offset)
        if len(data) == nbytes or not data:
            return data
        # One call reads at most about 2 GiB on Linux.
        parts = [data]
        done = len(data)
        while done < nbytes:
            data = os.pread(descriptor, nbytes - done, offset + done)
            if not data:
                break
            parts.append(data)
            done += len(data)
        return b"".join(parts)


def read_whole(path: str, *, limit: int, advice: str = "") -> bytes:
    """Read a small file, at most ``limit`` bytes of it."""
    with opened(path, os.O_RDONLY, advice=advice) as descriptor:
        return read_at(descriptor, min(limit, status(descriptor, path).st_size), 0, path)


def begins_with(path: str, data: bytes) -> bool:
    """Whether there is a file that begins with these bytes."""
    return is_there(path) and read_whole(path, limit=len(data)) == data


def write_at(descriptor: int, data: bytes, offset: int, path: str) -> None:
    """Write all of ``data`` at ``offset``."""
    with translated(
        "write", path, "nothing committed is lost: make room and commit again, or abort"
    ):
        done = os.pwrite(descriptor, data, offset)
        if done == len(data):
            return
        rest = memoryview(data)
        while done < len(data):
            done += os.pwrite(descriptor, rest[done:], offset + done)


def sync(descriptor: int, path: str) -> None:
    """Make a file's bytes and size durable."""
    with translated("make durable", path):
        os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    with opened(path, os.O_RDONLY) as descriptor, translated("make durable", path):
        os.fsync(descriptor)


def replace(path: str, data: bytes) -> None:
    """Put ``data`` in place of a file at once: readers see the old or the new.

    The data is durable before it is seen, and so are the names of files that were made in the
    directory before: what is seen may name them. Its own name is durable after `sync_directory`,
    which is left to the caller: once this returns, the new file *is* what others see, and an
    error afterwards must not be taken for a replacement that did not happen.
    """
    sync_directory(os.path.dirname(path))
    temporary = f"{path}.new"
    with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        write_at(descriptor, data, 0, temporary)
        sync(descriptor, temporary)
    with translated("replace", path):
        os.replace(temporary, path)


def truncate(path: str, size: int) -> None:
    """Cut a file to ``size`` bytes if it is longer."""
    if size_of(path) > size:
        with translated("cut", path):
            os.truncate(path, size)


def unlink(path: str) -> bool:
    """Remove a file; False when there was none."""
    with translated("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True


def make_directory(path: str) -> bool:
    """Create a directory with its parents, durably; False when it was there."""
    parent = os.path.dirname(path)
    with translated("create the directory", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise
            return False
        except FileNotFoundError:
            make_directory(parent)
            return make_directory(path)  # or somebody else has, meanwhile
    sync_directory(parent)
    return True
