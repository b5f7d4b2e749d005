"""The files of one object: made, opened, removed.

Responsible for: `make_object`, `open_object`, `remove_object`, `use_of`: an object is a sparse file
of its full size, and a mark file.

Rules:
- the mark file is what makes an object: it gets its name last, and loses it first;
- whoever has an object open holds its life shared, and only who gets it alone removes the files:
  what somebody has mapped stays the file that new blocks go to;
- a mark file whose bytes are not the file it was made for is removed, and made anew.
"""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np

from splitpipe.cache import files
from splitpipe.cache.folder import Layout
from splitpipe.cache.locks import LIFE, Locks
from splitpipe.cache.marks import DURABLE, Identity, MarkFile, make_marks
from splitpipe.cache.ranges import runs
from splitpipe.errors import FormatError

__all__ = ["is_whole", "make_object", "open_object", "remove_object", "use_of"]


def make_object(layout: Layout, identity: Identity) -> None:
    """Make the files of an object that has none; under its maker's lock."""
    data, marks = layout.data(identity.digest), layout.marks(identity.digest)
    os.makedirs(os.path.dirname(marks), mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):  # of somebody who died before the marks were there
        os.unlink(data)
    temporary = f"{marks}.new"
    try:
        descriptor = files.open_file(data, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            os.ftruncate(descriptor, identity.size)
            inode = os.fstat(descriptor).st_ino
        finally:
            files.close(descriptor)
        descriptor = files.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            make_marks(descriptor, identity, inode=inode)
        finally:
            files.close(descriptor)
        os.replace(temporary, marks)
    except BaseException:
        for path in (temporary, data):
            with suppress(OSError):
                os.unlink(path)
        raise


def open_object(layout: Layout, digest: bytes) -> Locks | None:
    """Its lock file, with its life held; None where there is no such object, or it is going.

    Raises:
        FormatError: its files do not belong together.
    """
    path = layout.marks(digest)
    try:
        locks = layout.locks(path)
    except FileNotFoundError:
        return None
    try:
        if locks.try_lock(LIFE, shared=True) and _is_still(locks, path):
            return locks
    except BaseException:
        locks.close()
        raise
    locks.close()
    return None


def is_whole(layout: Layout, marks: MarkFile, digest: bytes) -> bool:
    """Whether the bytes are the file that the marks are about."""
    try:
        found = os.stat(layout.data(digest))
    except FileNotFoundError:
        return False
    fits = found.st_size == marks.identity.size and found.st_ino == marks.inode
    return fits and marks.digest == digest


def remove_object(layout: Layout, digest: bytes) -> bool:
    """Remove the files of an object; under its maker's lock.

    Returns:
        False where somebody has it open, or it is gone.
    """
    path = layout.marks(digest)
    try:
        locks = layout.locks(path)
    except FileNotFoundError:
        return False
    try:
        if not (locks.try_lock(LIFE) and _is_still(locks, path)):
            return False
        os.unlink(path)
        with suppress(FileNotFoundError):
            os.unlink(layout.data(digest))
        return True
    finally:
        locks.close()


def use_of(layout: Layout, digest: bytes, *, restarted: bool) -> int:
    """What an object uses, counted where nobody is at work.

    Places that no mark is about are given back. Files that do not belong together are removed.

    Args:
        layout: of the cache.
        digest: of the object.
        restarted: whether the machine was started anew since: what was not on the disk for certain
            may be lost then, and its marks go.
    """
    try:
        marks = MarkFile(layout.marks(digest))
    except FileNotFoundError:
        return 0
    except FormatError:
        remove_object(layout, digest)
        return 0
    if not is_whole(layout, marks, digest):
        remove_object(layout, digest)
        return 0
    if restarted:
        marks.marks[(marks.marks & np.uint64(DURABLE)) == 0] = 0
    present = marks.identity.cost_of(marks.present())
    _give_back(layout.data(digest), marks, present)
    return marks.identity.overhead_nbytes + present


def _give_back(path: str, marks: MarkFile, present: int) -> None:
    """Punch what is missing, where more is on the disk than is marked."""
    descriptor = files.open_file(path)
    try:
        if os.fstat(descriptor).st_blocks * 512 <= present:
            return
        missing = np.flatnonzero(marks.marks == 0)
        for first, count in runs(missing):
            start, stop = marks.identity.extent(first, count)
            files.punch_hole(descriptor, start, stop - start)
    finally:
        files.close(descriptor)


def _is_still(locks: Locks, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(locks.descriptor), os.stat(path))
    except FileNotFoundError:
        return False
