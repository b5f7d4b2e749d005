"""Every other place that fsspec knows: ``gs``, ``az``, ``hf``, ``sftp``, ``memory`` and more.

Responsible for: `FilesystemStore`, a store over one of fsspec's file systems.

Rules:
- what a file system says of an object (ETag, generation, checksum, or size and time) is its tag. It
  is compared behind each read of a version where a range cannot be asked for under a condition:
  one request more, which Google's needs as little as the stores of ``http`` and ``s3``;
- ``expected`` is possible where the service writes under a condition in one step (Google's,
  Azure's); anywhere else it raises with ``errno.ENOTSUP``;
- what packages do each in a way of their own is in `dialects`;
- options are those of the file system's package, and never shown;
- over SFTP one request is made at a time: paramiko's client loses answers when several threads ask.
  A connection that was lost, or did not answer in time, is made anew with the next request.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from splitpipe.errors import RemoteError, StorageError
from splitpipe.stores.base import ObjectStat, checked_key
from splitpipe.stores.dialects import Dialect, dialect_of, is_lost
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
from splitpipe.stores.sealed import Sealed, hidden, told_folder, told_url

__all__ = ["FilesystemStore"]

_TIMES: Final = ("mtime", "last_modified", "LastModified", "updated", "modified", "created")
_SSH: Final = frozenset({"sftp", "ssh"})
_REFUSED: Final = frozenset(
    {"DefaultCredentialsError", "RefreshError", "CredentialUnavailableError"}
)


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
        self.url = told_folder(url)
        if isinstance(options, Sealed):
            self._sealed = options
        else:
            secret = {"url": url} if url != told_url(url) else {}
            self._sealed = Sealed(
                {"options": dict(options or {}), **secret} if options or secret else {}
            )
        self._timeouts = timeouts or Timeouts()
        self._patience = Patience(self._timeouts)
        self._lock = ForkLock()
        scheme = self.url.partition("://")[0].lower()
        self._ssh = scheme in _SSH
        self._dialect = dialect_of(scheme)
        self._turn: Any = ForkLock() if self._ssh else contextlib.nullcontext()
        self._made: tuple[int, Any, str] | None = None

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        filesystem, path = self._at(key)
        found = self._ask(key, filesystem, "info", path, **self._dialect.looking)
        if found.get("type") == "directory" or found.get("size") is None:
            raise missing(self.url + key)
        return _stat_of(found, self._dialect)

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
        data = self._range(key, (filesystem, path), start, stop, tag) if stop > start else b""
        if tag is not None and not (data and self._dialect.pins):
            self._compare(key, tag)
        if len(data) != stop - start:
            size = self.stat(key).size
            if size < stop:
                raise too_short(where, start, stop, size)
            text = f"{len(data)} bytes came where {stop - start} were wanted"
            raise remote_error(errno.EIO, text, where, transient=True)
        return bytes(data)

    def _compare(self, key: str, tag: str) -> None:
        """Raise if there is another version now."""
        after = self.stat(key).tag
        if after not in (tag, None):
            raise changed(self.url + key, tag, after)

    def _range(self, key: str, at: tuple[Any, str], start: int, stop: int, tag: str | None) -> Any:
        """What it gives for a range, however long; one that begins behind the end is said to."""
        filesystem, path = at
        nbytes = stop - start
        try:
            fetching = None
            if tag is not None:
                fetching = self._dialect.fetching(filesystem, path, start, stop, tag)
            if fetching is not None:
                return self._wait(key, filesystem, fetching, nbytes)
            more = self._dialect.reading(stop)
            return self._ask(
                key, filesystem, "cat_file", path, nbytes=nbytes, start=start, end=stop, **more
            )
        except StorageError as error:
            passing = isinstance(error, RemoteError) and error.transient
            if tag is not None and not passing and error.errno != errno.EACCES:
                self._compare(key, tag)
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
        lister = self._dialect.lister(filesystem)
        found = self._ask(inner, lister, "find", top, detail=True)
        keys = {_below(root, path): known for path, known in found.items()}
        for key in sorted(keys):
            # A name that ends in a slash marks a folder for those who want to see folders.
            folder = key == "" or key.endswith("/") or keys[key].get("type") == "directory"
            if key.startswith(prefix) and not folder:
                yield checked_key(key), _stat_of(keys[key], self._dialect)

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        filesystem, path = self._at(key)
        whole = bytes(data)
        try:
            self._put(key, (filesystem, path), whole, expected)
        except StorageError as error:
            if error.errno == errno.EEXIST and expected is not None:
                raise changed(self.url + key, expected, "another") from error
            raise
        return self.stat(key)

    def _put(self, key: str, at: tuple[Any, str], data: bytes, expected: str | None) -> None:
        filesystem, path = at
        uploading = self._dialect.uploading(filesystem, path, data, expected)
        if uploading is not None:
            self._wait(key, filesystem, uploading, len(data))
            return
        more = {} if expected is None else self._dialect.writing(expected)
        if more is None:
            raise unsupported(self.url + key, "write under this condition")
        if not getattr(filesystem, "async_impl", False):
            self._ask(key, filesystem, "makedirs", path.rpartition("/")[0], exist_ok=True)
        self._ask(key, filesystem, "pipe_file", path, data, nbytes=len(data), **more)

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            end = getattr(made[1].client if self._ssh else made[1], "close", None)
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
        sealed = self._sealed.open()
        url, options = sealed.get("url", self.url), sealed.get("options", {})
        try:
            # Own instances, no listings from a cache: what is there now is what counts. SFTP's has
            # none, and takes what it does not know for an option of the connection.
            own = (
                {"timeout": self._timeouts.connect_s}
                if self._ssh
                else {"use_listings_cache": False}
            )
            filesystem, root = self._dialect.begin(url, {**own, **options})
            if self._ssh:
                filesystem.ftp.get_channel().settimeout(self._timeouts.stall_s)
        except ImportError:
            raise
        except Exception as error:
            raise self._translated(error, self.url) from cause(error)
        return filesystem, str(root).rstrip("/")

    def _ask(
        self, key: str, filesystem: Any, name: str, *args: Any, nbytes: int = 0, **more: Any
    ) -> Any:
        """Call a method, in time where it is asynchronous."""
        if getattr(filesystem, "async_impl", False):
            coroutine = getattr(filesystem, "_" + name)(*args, **more)
            return self._wait(key, filesystem, coroutine, nbytes)
        try:
            with self._turn:
                return getattr(filesystem, name)(*args, **more)
        except Exception as error:
            if self._ssh and _is_lost(error):
                self.close()
            raise self._translated(error, self.url + key) from cause(error)

    def _wait(self, key: str, filesystem: Any, coroutine: Any, nbytes: int) -> Any:
        """As fsspec.asyn.sync, which cannot be given up on from outside without a leak."""
        try:
            running = asyncio.run_coroutine_threadsafe(coroutine, filesystem.loop)
            try:
                return running.result(self._patience.allowed(nbytes)[1])
            except concurrent.futures.TimeoutError:
                running.cancel()
                raise
        except Exception as error:
            raise self._translated(error, self.url + key) from cause(error)

    def _translated(self, error: Exception, where: str) -> StorageError:
        if isinstance(error, StorageError):
            return error
        status, wait_s = _status_of(error)
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            behind = _status_of(error.__cause__)[0]
            if behind in (401, 403):  # a repository that may be private, or not there at all
                return refused(where, str(error))
            return missing(where)
        if isinstance(error, PermissionError) or _is_refusal(error):
            return refused(where, str(error))
        if isinstance(error, FileExistsError) or status == 412:
            return StorageError(errno.EEXIST, "there is one already", where)
        if isinstance(error, (TimeoutError, concurrent.futures.TimeoutError)):
            text = "no answer for as long as may be waited"
            return remote_error(errno.ETIMEDOUT, text, where, transient=True, maybe_done=True)
        if status is not None and status >= 400:
            return of_status(status, where, why=type(error).__name__, retry_after_s=wait_s)
        text = f"{type(error).__name__}: {hidden(str(error))}"
        lost = is_lost(error) or (self._ssh and _is_lost(error))
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        found: RemoteError = remote_error(code, text, where, transient=lost, maybe_done=True)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._sealed, self._timeouts)

    def __repr__(self) -> str:
        return f"FilesystemStore({self.url!r})"


def _again(url: str, sealed: Sealed, timeouts: Timeouts) -> FilesystemStore:
    return FilesystemStore(url, options=sealed, timeouts=timeouts)


def _is_lost(error: Exception) -> bool:
    """Whether an error of SFTP's client is about the connection, and not about a file."""
    if isinstance(error, (EOFError, ConnectionError, TimeoutError)):
        return True
    return isinstance(error, OSError) and error.errno is None and "closed" in str(error)


def _below(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _is_refusal(error: Exception) -> bool:
    """Whether it says without a status that nobody may come in: Google's packages do."""
    if type(error).__name__ in _REFUSED:
        return True
    return type(error) is OSError and str(error).startswith("Forbidden")


def _stat_of(found: Mapping[str, Any], dialect: Dialect) -> ObjectStat:
    size = int(found["size"])
    for name in dialect.tags:
        if found.get(name):
            return ObjectStat(size, str(found[name]))
    for name in _TIMES:
        if found.get(name):
            time = found[name]
            told = time.timestamp() if isinstance(time, datetime.datetime) else time
            return ObjectStat(size, f"{size}-{told}")
    return ObjectStat(size, None)


def _status_of(error: BaseException | None) -> tuple[int | None, float | None]:
    """The status of an HTTP error, wherever its package keeps it."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status", "status_code", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                headers = getattr(holder, "headers", None) or {}
                return status, retry_after(headers.get("Retry-After"))
    return None, None
