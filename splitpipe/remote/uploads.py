"""Files on their way into a store.

Responsible for: `Uploads`, a few threads that publish files as objects, in the background.

Rules:
- bounded: who adds waits while more bytes are under way than may lie on the disk, and no more
  files are in memory than there are threads;
- an object is written where there is none, never over another one; one that is there already must
  have the same bytes (a request whose answer was lost), and every size is asked for again;
- what failed is kept, told by the next call, and tried again; nothing is removed here before it is
  in the store.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from splitpipe.errors import DatasetChanged, RemoteError, StorageError
from splitpipe.storage import files
from splitpipe.stores.base import ABSENT, Store

__all__ = ["Upload", "Uploads", "publish"]

THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to become an object.

    Attributes:
        key: of the object.
        path: of the file.
        size: its bytes that count.
        head: what stands in place of its first bytes; as much as there is of it.
        keep: whether the file is still needed.
    """

    key: str
    path: str
    size: int
    head: bytes = b""
    keep: bool = False

    def data(self) -> bytes:
        """Read it.

        Raises:
            StorageError: it is shorter than it was written.
        """
        data = files.read_whole(self.path, limit=self.size)
        if len(data) < self.size:
            text = f"it has {len(data)} bytes, {self.size} were written: somebody else cut it"
            raise StorageError(errno.EIO, text, self.path)
        return self.head + data[len(self.head) :]


class Uploads:
    """Publishes files in the background.

    Args:
        store: where.
        limit_nbytes: most bytes that wait, unless a single file has more.
        threads: how many files are published at once, and are in memory.

    Attributes:
        nbytes: published so far.
        objects: how many.
    """

    def __init__(self, store: Store, *, limit_nbytes: int, threads: int = THREADS) -> None:
        self.nbytes = self.objects = 0
        self._store = store
        self._limit = limit_nbytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="splitpipe-upload")
        self._changed = threading.Condition()
        self._waiting = self._count = 0
        self._failed: list[tuple[Upload, Exception]] = []  # since it was told last
        self._kept: list[Upload] = []
        self._ended = False

    def add(self, upload: Upload) -> None:
        """Publish a file soon; waits while too much is under way.

        Raises:
            StorageError: an earlier one failed; that one and this one are tried by the next call.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._fits(upload.size) or bool(self._failed))
            self._kept.append(upload)
            self._tell()
            self._begin_kept()

    def _fits(self, size: int) -> bool:
        return not self._count or self._waiting + size <= self._limit

    def _begin_kept(self) -> None:
        kept, self._kept = self._kept, []
        for upload in kept:
            self._waiting += upload.size
            self._count += 1
            self._pool.submit(self._publish, upload)

    def _tell(self) -> None:
        """Raise what went wrong since it was told last; what failed is kept."""
        failed, self._failed = self._failed, []
        self._kept = [*(upload for upload, _ in failed), *self._kept]
        if failed:
            raise failed[0][1]

    def forget_kept(self) -> None:
        """Give up what failed of files that are still needed here: they will come anew."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count)
            self._failed = [pair for pair in self._failed if not pair[0].keep]
            self._kept = [upload for upload in self._kept if not upload.keep]

    def settle(self) -> None:
        """Wait until everything is published, what was told to have failed once more.

        Raises:
            StorageError: something could not be; it is tried by the next call.
        """
        with self._changed:
            self._begin_kept()
            self._changed.wait_for(lambda: not self._count)
            self._tell()

    def _publish(self, upload: Upload) -> None:
        failure: Exception | None = None
        try:
            if not self._ended:
                publish(self._store, upload.key, upload.data)
                if not upload.keep:
                    files.unlink(upload.path)
        except Exception as error:
            failure = error
        with self._changed:
            self._waiting -= upload.size
            self._count -= 1
            if failure is not None:
                self._failed.append((upload, failure))
            elif not self._ended:
                self.nbytes += upload.size
                self.objects += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End; what was not begun is given up. A second call does nothing."""
        self._ended = True
        self._pool.shutdown(wait=True, cancel_futures=True)


def publish(store: Store, key: str, data: Callable[[], bytes]) -> None:
    """Write an object where there is none, and make sure that it is there.

    Raises:
        StorageError: there is another one, or it could not be written.
        RemoteError: the store says that it has another size.
    """
    whole = data()
    try:
        store.write(key, whole, expected=ABSENT)
    except DatasetChanged as error:
        stat = store.stat(key)
        if stat.size != len(whole) or store.read(key, tag=stat.tag) != whole:
            text = "there is another object of this name already, which is not written over"
            raise StorageError(errno.EEXIST, text, _told(store, key)) from error
    found = store.stat(key).size
    if found != len(whole):
        text = f"{len(whole)} bytes were uploaded, the store says it has {found}"
        raise RemoteError(errno.EIO, text, _told(store, key))


def _told(store: Store, key: str) -> str:
    return f"{store.url.rstrip('/')}/{key}"
