"""Where files are until they are uploaded.

Responsible for: `Spool`, a folder of this machine for one writer of one dataset in a store.

Rules:
- one writer of this machine at a time: a second one is refused at once;
- what a killed writer left in it is removed by the next one of the same dataset: the folder is
  ours alone, by its name, its owner and its lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile

from splitpipe.errors import LockedError, StorageError
from splitpipe.storage import files
from splitpipe.storage.lock import WriterLock

__all__ = ["Spool"]


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
        parent = os.path.abspath(tempfile.gettempdir() if directory is None else directory)
        files.make_directory(parent)
        digest = hashlib.blake2b(url.encode(), digest_size=10).hexdigest()
        home = os.path.join(parent, f"splitpipe-upload-{_user()}-{digest}")
        with files.translated("make the folder for uploads", home):
            try:
                os.mkdir(home, 0o700)
            except FileExistsError:
                _check_ours(home)
        self.path = os.path.join(home, "files")
        try:
            self._lock = WriterLock(os.path.join(home, "spool.lock"))
        except LockedError as error:
            raise LockedError(error.errno, error.strerror, url) from None
        try:
            self._remove()
        except BaseException:
            self._lock.release()
            raise

    def _remove(self) -> None:
        with files.translated("remove what was uploaded", self.path):
            if os.path.lexists(self.path):
                shutil.rmtree(self.path)

    def close(self) -> None:
        """Remove the folder; a second call does nothing."""
        try:
            self._remove()
        finally:
            self._lock.release()


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _check_ours(path: str) -> None:
    """Raise unless this is a folder of this user, and no link to another place."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user():
        raise StorageError(
            errno.EACCES, "this is not a folder of yours: say another spool_dir", path
        )
