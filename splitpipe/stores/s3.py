"""Objects in S3, and in what speaks like it: ``s3://``.

Responsible for: `S3Store`. Options are those of s3fs (``key``, ``secret``, ``token``, ``anon``,
``profile``, ``endpoint_url``, ``requester_pays``, ``client_kwargs``, ``config_kwargs``), whose
package brings what is used here, and so is what fsspec's own configuration says for ``s3``.

Why botocore, on which s3fs stands, and not s3fs: it hides the status, the headers and Retry-After
of a response, asks again by itself where nobody counts it, and hands every thread's requests to one
event loop. And why what is read is signed by botocore, but sent by `Connections`: what a ranged
read has to compare is compared in one place for all of HTTP, and one process makes 2,400 ranged
reads a second so, where botocore makes 850 and s3fs 640 (10 kB each, from a server on loopback).

Rules:
- a read names the version it wants (If-Match) and compares what comes;
- a write is one request, or a multi-part upload that becomes an object by its last request; either
  may have a condition, which the server keeps;
- an upload that fails is taken back; nothing is asked again here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from splitpipe.errors import StorageError
from splitpipe.stores.base import ABSENT, ObjectStat, checked_key
from splitpipe.stores.connections import Connections
from splitpipe.stores.forking import ForkLock, abandon
from splitpipe.stores.patience import Timeouts
from splitpipe.stores.ranges import Target, look, read_answer, read_range
from splitpipe.stores.s3_listing import parsed_listing
from splitpipe.stores.s3_session import OPTIONS, Session
from splitpipe.stores.sealed import Sealed, told_folder, travels

__all__ = ["S3Store"]

Answered = TypeVar("Answered")

PART_NBYTES: Final = 32 << 20
PARTS: Final = 10_000
PARTS_AT_ONCE: Final = 4


class S3Store:
    """What lies below ``s3://bucket/prefix``.

    Args:
        url: of bucket and prefix.
        options: see the module.
        timeouts: of each request.
        part_nbytes: what is larger is uploaded in parts of this size.

    Attributes:
        url: of the store.

    Raises:
        StorageError: with ``errno.EINVAL``: an option is not known, or there is no bucket's name.

    Example:
        >>> S3Store("s3://bucket/data", options={"key": "k", "secret": "hunter2"})
        S3Store('s3://bucket/data/')
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | Sealed | None = None,
        timeouts: Timeouts | None = None,
        part_nbytes: int = PART_NBYTES,
    ) -> None:
        self.url = told_folder(url)
        parts = urlsplit(self.url)
        self._bucket, self._prefix = parts.netloc, parts.path.lstrip("/")
        if not self._bucket:
            raise StorageError(errno.EINVAL, "a bucket's name is missing: s3://bucket/...", url)
        self._timeouts = timeouts or Timeouts()
        self._part_nbytes = part_nbytes
        if isinstance(options, Sealed):
            self._sealed = options
        else:
            self._sealed = Sealed(_checked(options or {}, self.url))
        self._lock = ForkLock()
        self._session: Session | None = None
        self._handed: Sealed | None = None

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        return self._asked(key, look, head=True)

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""

        def read(connections: Connections, target: Target) -> bytes:
            return read_range(connections, target, start, stop, tag)

        return self._asked(key, read, head=start == stop)

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`; a thousand a request."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._prefix + prefix}
        where = self.url + prefix
        while True:
            session = self._begun()
            data = read_answer(session.connections, session.listing(where, query))
            page = parsed_listing(data, where)
            for key, stat in page.objects:
                key = key.removeprefix(self._prefix)
                # A name that ends in a slash marks a folder for those who want to see folders.
                if key and not key.endswith("/"):
                    yield checked_key(key), stat
            if page.following is None:
                return
            query["continuation-token"] = page.following

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        session = self._begun()
        where, at = self._where(key), {"Key": self._key(key)}
        condition: dict[str, Any] = {}
        if expected is not None:
            condition = {"IfNoneMatch": "*"} if expected == ABSENT else {"IfMatch": expected}
        if len(data) <= self._part_nbytes:
            found = session.call(
                "put_object", where, expected=expected, Body=bytes(data), **at, **condition
            )
        else:
            found = self._upload(session, where, data, at, condition, expected)
        return ObjectStat(len(data), found["ETag"])

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _upload(
        self,
        session: Session,
        where: str,
        data: bytes,
        at: dict[str, Any],
        condition: dict[str, Any],
        expected: str | None,
    ) -> dict[str, Any]:
        """In parts, several at once; the last request makes an object of them."""
        begun = session.call("create_multipart_upload", where, **at)
        upload = {**at, "UploadId": begun["UploadId"]}
        step = max(self._part_nbytes, -(-len(data) // PARTS))
        view = memoryview(data)

        def send(start: int) -> dict[str, Any]:
            number = start // step + 1
            body = bytes(view[start : start + step])
            sent = session.call("upload_part", where, Body=body, PartNumber=number, **upload)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(0, len(data), step)))
            return session.call(
                "complete_multipart_upload",
                where,
                expected=expected,
                MultipartUpload={"Parts": parts},
                **upload,
                **condition,
            )
        except BaseException as error:
            maybe_done = getattr(error, "maybe_done", False)
            try:
                session.call("abort_multipart_upload", where, **upload)
            except StorageError:
                error.add_note(f"its upload {begun['UploadId']} could not be taken back")
            if isinstance(error, StorageError) and maybe_done:
                error.maybe_done = True  # type: ignore[attr-defined]  # a RemoteError, then
            raise

    def _asked(
        self, key: str, ask: Callable[[Connections, Target], Answered], *, head: bool
    ) -> Answered:
        """Ask by signed urls."""
        session, name, where = self._begun(), self._key(key), self._where(key)
        try:
            return ask(session.connections, session.target(name, where, head=head))
        except StorageError as error:
            # What it was signed with may have ended before its time: once more with what is new.
            if error.errno != errno.EACCES or not session.forget(name):
                raise
            return ask(session.connections, session.target(name, where, head=head))

    def _begun(self) -> Session:
        with self._lock:
            if self._session is not None and self._session.pid != os.getpid():
                abandon(self._session)
                self._session = None
            if self._session is None:
                signing = self._handed.open().get("signing") if self._handed is not None else None
                self._session = Session(
                    self._sealed.open(),
                    self._timeouts,
                    url=self.url,
                    bucket=self._bucket,
                    signing=signing,
                )
            return self._session

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _where(self, key: str) -> str:
        return self.url + key

    def __reduce__(self) -> tuple[Any, ...]:
        session = self._session
        signing = session.signing() if session is not None and travels() else None
        handed = self._handed if signing is None else Sealed({"signing": signing})
        return _again, (self.url, self._sealed, self._timeouts, self._part_nbytes, handed)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"


def _again(
    url: str, sealed: Sealed, timeouts: Timeouts, part_nbytes: int, handed: Sealed | None
) -> S3Store:
    store = S3Store(url, options=sealed, timeouts=timeouts, part_nbytes=part_nbytes)
    store._handed = handed if handed is not None and handed.here() else None
    return store


def _checked(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        text = f"storage_options {unknown} are not known for s3: use {', '.join(OPTIONS)}"
        raise StorageError(errno.EINVAL, text, url)
    return dict(options)
