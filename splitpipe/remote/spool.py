"""Where files are until they are uploaded.

Responsible for: `Spool`, a folder of this machine for one writer of one dataset in a store;
`remove_abandoned`, which removes the folders of writers that are gone.

Rules:
- one writer of this machine at a time: a second one is refused at once;
- nothing stays behind a writer that ended. What a killed one left is removed by the next writer
  that begins with the same parent, whatever it writes;
- a folder is removed only where everything says that it is ours and nobody's any more: its name,
  its owner, a lock file that says what it is and that nobody holds, written on this host, and
  nothing beside what a spool has. Whoever removes it takes the lock first and gives the folder
  another name, so that a writer that comes at that moment makes one of its own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from typing import Final

from splitpipe.errors import LockedError, StorageError
from splitpipe.storage import files
from splitpipe.storage.lock import WriterLock, try_exclusive

__all__ = ["Spool", "remove_abandoned"]

_LOCK: Final = "spool.lock"
_FILES: Final = "files"
_TRIES: Final = 1000
_TRIES_IF_LOCKED: Final = 4
_NOTE_NBYTES: Final = 4096
_AWAY: Final = re.compile(r"\.[0-9a-f]{8}$")  # as `_remove` renames what it removes

_log = logging.getLogger("splitpipe.remote")


class Spool:
    """A folder for the files of one writer.

    Args:
        url: of the dataset in its store.
        directory: where the folder is made; the one for temporary files unless said.

    Attributes:
        path: of the folder; it is made by whoever writes into it.

    Raises:
        LockedError: a writer of this machine is at work on the same dataset.
        StorageError: the folder is somebody else's, or cannot be made.
    """

    def __init__(self, url: str, directory: str | os.PathLike[str] | None = None) -> None:
        parent = _parent(directory)
        files.make_directory(parent)
        digest = hashlib.blake2b(url.encode(), digest_size=10).hexdigest()
        self._home = os.path.join(parent, f"splitpipe-upload-{_user()}-{digest}")
        self._owner: int | None = os.getpid()
        self.path = os.path.join(self._home, _FILES)
        self._lock = _locked(self._home, url)
        try:
            with files.translated("remove what was uploaded", self.path):
                if os.path.lexists(self.path):
                    shutil.rmtree(self.path)
            remove_abandoned(parent)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Remove the folder; a second call does nothing, and one in a forked child neither."""
        owner, self._owner = self._owner, None
        if owner != os.getpid():
            return
        try:
            with files.translated("remove what was uploaded", self._home):
                _remove(self._home)
        finally:
            # The file is gone, with what it said of its owner.
            self._lock.release(tidy=False)


def remove_abandoned(directory: str | os.PathLike[str] | None = None) -> list[str]:
    """Remove the folders of this user's writers that were killed, and say which.

    Args:
        directory: as that of `Spool`.

    Example:
        >>> import tempfile
        >>> remove_abandoned(tempfile.mkdtemp())
        []
    """
    parent = _parent(directory)
    ours = re.compile(rf"splitpipe-upload-{_user()}-[0-9a-f]{{20}}(\.[0-9a-f]{{8}})?")
    gone = []
    try:
        names = [name for name in os.listdir(parent) if ours.fullmatch(name)]
    except OSError:
        return []
    for name in names:
        home = os.path.join(parent, name)
        try:
            if _remove_if_abandoned(home):
                gone.append(home)
        except OSError as error:  # it stays, for the next one: this one has other work
            _log.warning("%s: what a killed writer left could not be removed: %s", home, error)
    return gone


def _remove_if_abandoned(home: str) -> bool:
    path = os.path.join(home, _LOCK)
    try:
        if not _is_ours(home) or not {_LOCK} <= set(os.listdir(home)) <= {_LOCK, _FILES}:
            return False
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not try_exclusive(descriptor, path):
            return False  # somebody is at work
        known, there = os.fstat(descriptor), os.lstat(path)
        if not os.path.samestat(known, there) or not stat.S_ISREG(known.st_mode):
            return False
        if not _says_that_it_is_ours(os.pread(descriptor, _NOTE_NBYTES, 0), home):
            return False
        _remove(home)
        return True
    except FileNotFoundError:
        return False  # another one removed it
    finally:
        os.close(descriptor)


def _remove(home: str) -> None:
    """Remove a folder whose lock is held: first from its name, then from the disk."""
    away = f"{_AWAY.sub('', home)}.{secrets.token_hex(4)}"
    os.rename(home, away)
    inner = os.path.join(away, _FILES)
    if os.path.lexists(inner):
        shutil.rmtree(inner)
    os.unlink(os.path.join(away, _LOCK))
    with contextlib.suppress(OSError):  # somebody put something there: it stays
        os.rmdir(away)


def _says_that_it_is_ours(note: bytes, home: str) -> bool:
    """Whether a lock's note is of a writer of this host, or of none that had begun."""
    if not note.strip(b"\0 "):
        return not os.path.lexists(os.path.join(home, _FILES))
    try:
        return bool(json.loads(note)["host"] == socket.gethostname())
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _locked(home: str, url: str) -> WriterLock:
    """The lock of a folder, which is made; again where somebody was just removing it."""
    refused = 0
    for left in reversed(range(_TRIES)):
        with files.translated("make the folder for uploads", home):
            try:
                os.mkdir(home, 0o700)
            except FileExistsError:
                if not _is_ours(home):
                    text = "this is not a folder of yours: say another spool_dir"
                    raise StorageError(errno.EACCES, text, home) from None
        try:
            return WriterLock(os.path.join(home, _LOCK))
        except LockedError as error:
            refused += 1  # by a writer, or for a moment by who removes what one left
            if not left or refused == _TRIES_IF_LOCKED:
                raise LockedError(error.errno, error.strerror, url) from None
        except StorageError as error:
            if not left or error.errno != errno.ENOENT:
                raise
    raise AssertionError("the last try returns or raises")


def _parent(directory: str | os.PathLike[str] | None) -> str:
    return os.path.abspath(tempfile.gettempdir() if directory is None else directory)


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _is_ours(path: str) -> bool:
    """Whether it is a folder of this user, and no link to another place."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True  # it was removed meanwhile
    return stat.S_ISDIR(found.st_mode) and found.st_uid == _user()
