"""Every other place that fsspec knows: ``gs``, ``az``, ``hf``, ``sftp``, ``memory`` and more.

Responsible for: `FilesystemStore`, a store over one of fsspec's file systems.

Rules:
- what a file system says of an object (ETag, generation, checksum, or size and time) is its tag. It
  is compared behind each read of a version, since a range cannot be asked for under a condition
  here: one request more, which the stores of ``http`` and ``s3`` do not need;
- ``expected`` is possible as `ABSENT` where the file system creates without replacing in one step
  (Google's, Azure's); anywhere else it raises with ``errno.ENOTSUP``;
- options are those of the file system's package, and never shown.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from splitpipe.errors import RemoteError, StorageError
from splitpipe.stores.base import ABSENT, ObjectStat, checked_key
from splitpipe.stores.failures import (
    cause,
    changed,
    missing,
    of_status,
    refused,
    remote_error,
    retry_after,
    too_short,
    unsupported,
)
from splitpipe.stores.forking import ForkLock
from splitpipe.stores.patience import Patience, Timeouts
from splitpipe.stores.sealed import Sealed, hidden, told_url

__all__ = ["FilesystemStore"]

_TAGS: Final = ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5", "oid", "sha256")
_TIMES: Final = ("mtime", "last_modified", "LastModified", "updated", "modified", "created")
_CREATES: Final = frozenset({"gs", "gcs", "az", "abfs", "abfss"})


class FilesystemStore:
    """What lies below a url of one of fsspec's schemes.

    Args:
        url: ``scheme://...``.
        options: of the scheme's file system.
        timeouts: of each request, where the file system is asynchronous.

    Attributes:
        url: of the store, without what is secret.

    Example:
        >>> store = FilesystemStore("memory://folder")
        >>> store.write("a/b", b"hello").size, store.read("a/b", 1, 3)
        (5, b'el')
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | Sealed | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        told = told_url(url)
        self.url = told if told.endswith("/") else told + "/"
        if isinstance(options, Sealed):
            self._sealed = options
        else:
            secret = {"url": url} if url != told else {}
            self._sealed = Sealed(
                {"options": dict(options or {}), **secret} if options or secret else {}
            )
        self._timeouts = timeouts or Timeouts()
        self._patience = Patience(self._timeouts)
        self._lock = ForkLock()
        self._made: tuple[int, Any, str] | None = None

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        filesystem, path = self._at(key)
        found = self._ask(key, filesystem, "info", path)
        if found.get("type") == "directory" or found.get("size") is None:
            raise missing(self.url + key)
        return _stat_of(found)

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        filesystem, path = self._at(key)
        where = self.url + key
        known = None
        if stop is None or stop == start or start < 0:
            known = self.stat(key)
            stop = known.size if stop is None else stop
            if not 0 <= start <= stop <= known.size:
                raise too_short(where, start, stop, known.size)
        if stop < start:
            raise too_short(where, start, stop, None)
        data = self._range(key, filesystem, path, start, stop) if stop > start else b""
        if tag is not None:
            after = self.stat(key)
            if after.tag not in (tag, None):
                raise changed(where, tag, after.tag)
        if len(data) != stop - start:
            size = self.stat(key).size
            if size < stop:
                raise too_short(where, start, stop, size)
            text = f"{len(data)} bytes came where {stop - start} were wanted"
            raise remote_error(errno.EIO, text, where, transient=True)
        return bytes(data)

    def _range(self, key: str, filesystem: Any, path: str, start: int, stop: int) -> Any:
        """What it gives for a range, however long; one that begins behind the end is said to."""
        try:
            return self._ask(
                key, filesystem, "cat_file", path, nbytes=stop - start, start=start, end=stop
            )
        except StorageError as error:
            passing = isinstance(error, RemoteError) and error.transient
            if not passing and error.errno not in (errno.ENOENT, errno.EACCES):
                size = self.stat(key).size
                if size < stop:
                    raise too_short(self.url + key, start, stop, size) from error
            raise

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`."""
        filesystem, root = self._begun()
        inner = prefix.rpartition("/")[0]
        top = f"{root}/{checked_key(inner)}" if inner else root
        try:
            found = self._ask(inner, filesystem, "find", top, detail=True)
        except FileNotFoundError:
            return
        keys = {_below(root, path): known for path, known in found.items()}
        for key in sorted(keys):
            if key.startswith(prefix) and keys[key].get("type") != "directory":
                yield checked_key(key), _stat_of(keys[key])

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        filesystem, path = self._at(key)
        scheme = self.url.partition(":")[0]
        more = {}
        if expected is not None:
            if expected != ABSENT or scheme not in _CREATES:
                raise unsupported(self.url + key, "write under this condition")
            more["mode"] = "create"
        try:
            if not getattr(filesystem, "async_impl", False):
                self._ask(key, filesystem, "makedirs", path.rpartition("/")[0], exist_ok=True)
            self._ask(key, filesystem, "pipe_file", path, bytes(data), nbytes=len(data), **more)
        except StorageError as error:
            if error.errno == errno.EEXIST and expected is not None:
                raise changed(self.url + key, expected, "another") from error
            raise
        return self.stat(key)

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            end = getattr(made[1], "close", None)
            if callable(end):
                end()

    def _at(self, key: str) -> tuple[Any, str]:
        filesystem, root = self._begun()
        return filesystem, f"{root}/{checked_key(key)}"

    def _begun(self) -> tuple[Any, str]:
        """The file system, one for each process, and the path of the url in it."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), *self._make()
            return self._made[1], self._made[2]

    def _make(self) -> tuple[Any, str]:
        import fsspec

        sealed = self._sealed.open()
        url, options = sealed.get("url", self.url), sealed.get("options", {})
        try:
            # Own instances, no listings from a cache: what is there now is what counts.
            filesystem, root = fsspec.core.url_to_fs(
                url, skip_instance_cache=True, use_listings_cache=False, **options
            )
        except ImportError:
            raise
        except Exception as error:
            raise self._translated(error, self.url) from cause(error)
        return filesystem, str(root).rstrip("/")

    def _ask(
        self, key: str, filesystem: Any, name: str, *args: Any, nbytes: int = 0, **more: Any
    ) -> Any:
        """Call a method, in time where it is asynchronous."""
        where = self.url + key
        try:
            if not getattr(filesystem, "async_impl", False):
                return getattr(filesystem, name)(*args, **more)
            # As fsspec.asyn.sync, which cannot be given up on from outside without a leak.
            coroutine = getattr(filesystem, "_" + name)(*args, **more)
            running = asyncio.run_coroutine_threadsafe(coroutine, filesystem.loop)
            try:
                return running.result(self._patience.allowed(nbytes)[1])
            except concurrent.futures.TimeoutError:
                running.cancel()
                raise
        except StorageError:
            raise
        except Exception as error:
            raise self._translated(error, where) from cause(error)

    def _translated(self, error: Exception, where: str) -> StorageError:
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            return missing(where)
        if isinstance(error, PermissionError):
            return refused(where, str(error))
        if isinstance(error, FileExistsError):
            return StorageError(errno.EEXIST, "there is one already", where)
        if isinstance(error, (TimeoutError, concurrent.futures.TimeoutError)):
            text = "no answer for as long as may be waited"
            return remote_error(errno.ETIMEDOUT, text, where, transient=True, maybe_done=True)
        status, wait_s = _status_of(error)
        if status is not None and status >= 400:
            return of_status(status, where, why=type(error).__name__, retry_after_s=wait_s)
        text = f"{type(error).__name__}: {hidden(str(error))}"
        lost = (
            isinstance(error, (ConnectionError, EOFError)) or "Connection" in type(error).__name__
        )
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        found: RemoteError = remote_error(code, text, where, transient=lost, maybe_done=True)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._sealed, self._timeouts)

    def __repr__(self) -> str:
        return f"FilesystemStore({self.url!r})"


def _again(url: str, sealed: Sealed, timeouts: Timeouts) -> FilesystemStore:
    return FilesystemStore(url, options=sealed, timeouts=timeouts)


def _below(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _stat_of(found: Mapping[str, Any]) -> ObjectStat:
    size = int(found["size"])
    for name in _TAGS:
        if found.get(name):
            return ObjectStat(size, str(found[name]))
    for name in _TIMES:
        if found.get(name):
            time = found[name]
            told = time.timestamp() if isinstance(time, datetime.datetime) else time
            return ObjectStat(size, f"{size}-{told}")
    return ObjectStat(size, None)


def _status_of(error: BaseException) -> tuple[int | None, float | None]:
    """The status of an HTTP error, wherever its package keeps it."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status", "status_code", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                headers = getattr(holder, "headers", None) or {}
                return status, retry_after(headers.get("Retry-After"))
    return None, None
