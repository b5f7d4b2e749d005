"""Objects in S3, and in what speaks like it: ``s3://``.

Responsible for: `S3Store`. Options are those of s3fs (``key``, ``secret``, ``token``, ``anon``,
``profile``, ``endpoint_url``, ``requester_pays``, ``client_kwargs``, ``config_kwargs``), whose
package brings what is used here, and so is what fsspec's own configuration says for ``s3``.

Why botocore, on which s3fs stands, and not s3fs: it hides the status, the headers and Retry-After
of a response, asks again by itself where nobody counts it, and hands every thread's requests to one
event loop. And why reads are signed by botocore but sent by `Connections`: what a ranged read has
to compare is compared in one place for all of HTTP, and one process makes 2,400 ranged reads a
second so where botocore makes 850 and s3fs 640 (10 kB each, from a server on loopback).

Rules:
- a read names the version it wants (If-Match) and compares what comes;
- a write is one request, or a multi-part upload that becomes an object by its last request; either
  may have a condition, which the server keeps;
- an upload that fails is taken back; nothing is asked again here.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

from splitpipe.errors import StorageError
from splitpipe.stores.base import ABSENT, ObjectStat, checked_key
from splitpipe.stores.connections import Connections
from splitpipe.stores.patience import Timeouts
from splitpipe.stores.ranges import Target, read_range
from splitpipe.stores.s3_errors import translated
from splitpipe.stores.sealed import Sealed, told_url

__all__ = ["S3Store"]

SIGNED_S: Final = 300.0  # a signed url is used for so long; it is valid for longer
PART_NBYTES: Final = 32 << 20
PARTS: Final = 10_000
PARTS_AT_ONCE: Final = 4
MAX_SIGNED: Final = 4096

_OPTIONS: Final = (
    "key", "secret", "token", "anon", "profile", "endpoint_url", "requester_pays", "use_ssl",
    "client_kwargs", "config_kwargs", "s3_additional_kwargs", "allow_redirects_to",
)  # fmt: skip


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
        told = told_url(url)
        self.url = told if told.endswith("/") else told + "/"
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
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        session = self._begun()
        found = session.call(
            "head_object", self._where(key), Bucket=self._bucket, Key=self._key(key)
        )
        return ObjectStat(int(found["ContentLength"]), found["ETag"])

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        session = self._begun()
        name, where = self._key(key), self._where(key)
        try:
            return session.read(self._bucket, name, where, start, stop, tag)
        except StorageError as error:
            # What it was signed with may have ended before its time: once more with what is new.
            if error.errno != errno.EACCES or not session.forget(self._bucket, name):
                raise
            return session.read(self._bucket, name, where, start, stop, tag)

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`; a thousand a request."""
        session = self._begun()
        more: dict[str, Any] = {}
        while True:
            found = session.call(
                "list_objects_v2",
                self.url + prefix,
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                **more,
            )
            for entry in found.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                # A name that ends in a slash marks a folder for those who want to see folders.
                if key and not key.endswith("/"):
                    yield checked_key(key), ObjectStat(int(entry["Size"]), entry["ETag"])
            if not found.get("IsTruncated"):
                return
            more["ContinuationToken"] = found["NextContinuationToken"]

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        session = self._begun()
        where, at = self._where(key), {"Bucket": self._bucket, "Key": self._key(key)}
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
        session: _Session,
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

    def _begun(self) -> _Session:
        with self._lock:
            if self._session is None or self._session.pid != os.getpid():
                self._session = _Session(self._sealed.open(), self._timeouts, self.url)
            return self._session

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _where(self, key: str) -> str:
        return self.url + key

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._sealed, self._timeouts, self._part_nbytes)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"


def _again(url: str, sealed: Sealed, timeouts: Timeouts, part_nbytes: int) -> S3Store:
    return S3Store(url, options=sealed, timeouts=timeouts, part_nbytes=part_nbytes)


def _checked(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        text = f"storage_options {unknown} are not known for s3: use {', '.join(_OPTIONS)}"
        raise StorageError(errno.EINVAL, text, url)
    return dict(options)


class _Session:
    """A client of one process, and the urls it has signed."""

    def __init__(self, options: dict[str, Any], timeouts: Timeouts, url: str) -> None:
        self.pid = os.getpid()
        self._options = {**_configured(), **options}
        self._client = self._connect(timeouts, url)
        self._connections = Connections(timeouts, ca_certs=self._certificates())
        self._signed: dict[tuple[str, str], tuple[float, Target]] = {}

    def call(
        self, name: str, where: str, *, expected: str | None = None, **values: Any
    ) -> dict[str, Any]:
        """One request of botocore's.

        Raises:
            DatasetChanged, StorageError, RemoteError: see `Store`.
        """
        if self._options.get("requester_pays") and not name.startswith("abort"):
            values["RequestPayer"] = "requester"
        if name in ("put_object", "create_multipart_upload"):
            values.update(self._options.get("s3_additional_kwargs", {}))
        try:
            found: dict[str, Any] = getattr(self._client, name)(**values)
        except Exception as error:
            raise translated(error, where, expected=expected) from error
        return found

    def read(
        self, bucket: str, key: str, where: str, start: int, stop: int | None, tag: str | None
    ) -> bytes:
        """A ranged read by a signed url."""
        if stop is not None and stop == start:
            found = self.call("head_object", where, Bucket=bucket, Key=key)
            size = int(found["ContentLength"])
            return _empty(where, start, size, tag, found["ETag"])
        return read_range(self._connections, self._target(bucket, key, where), start, stop, tag)

    def forget(self, bucket: str, key: str) -> bool:
        """Drop a signed url; whether there was an older one to blame."""
        known = self._signed.pop((bucket, key), None)
        return known is not None and time.monotonic() - known[0] > 1.0

    def close(self) -> None:
        self._connections.close()
        if self.pid == os.getpid():
            self._client.close()

    def _target(self, bucket: str, key: str, where: str) -> Target:
        known = self._signed.get((bucket, key))
        if known is not None and time.monotonic() - known[0] < SIGNED_S:
            return known[1]
        values = {"Bucket": bucket, "Key": key}
        if self._options.get("requester_pays"):
            values["RequestPayer"] = "requester"
        try:
            url = self._client.generate_presigned_url("get_object", Params=values)
        except Exception as error:
            raise translated(error, where) from error
        allowed = self._options.get("allow_redirects_to", ())
        allowed = frozenset([allowed] if isinstance(allowed, str) else allowed)
        target = Target(url, where, {}, allowed)
        if len(self._signed) >= MAX_SIGNED:
            self._signed.clear()
        self._signed[bucket, key] = time.monotonic(), target
        return target

    def _certificates(self) -> str | None:
        told = self._options.get("client_kwargs", {}).get("verify")
        return told if isinstance(told, str) else os.environ.get("AWS_CA_BUNDLE")

    def _connect(self, timeouts: Timeouts, url: str) -> Any:
        try:
            import botocore.session
            from botocore import UNSIGNED
            from botocore.config import Config
        except ImportError as error:
            text = "s3:// needs a package that is not installed: pip install 'splitpipe[s3]'"
            raise StorageError(errno.ENOPKG, text, url) from error
        options = self._options
        settings: dict[str, Any] = {
            "connect_timeout": timeouts.connect_s,
            "read_timeout": timeouts.stall_s,
            "max_pool_connections": 64,
            # Asking again is RetryingStore's, which counts.
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "signature_version": UNSIGNED if options.get("anon") else "s3v4",
            **options.get("config_kwargs", {}),
        }
        client: dict[str, Any] = {
            "aws_access_key_id": options.get("key"),
            "aws_secret_access_key": options.get("secret"),
            "aws_session_token": options.get("token"),
            "endpoint_url": options.get("endpoint_url"),
            "use_ssl": options.get("use_ssl", True),
            **options.get("client_kwargs", {}),
        }
        try:
            session = botocore.session.Session(profile=options.get("profile"))
            if client.get("region_name") is None and session.get_config_variable("region") is None:
                client["region_name"] = "us-east-1"
            return session.create_client("s3", config=Config(**settings), **client)
        except Exception as error:
            raise translated(error, url) from error


def _empty(where: str, at: int, size: int, tag: str | None, found: str) -> bytes:
    from splitpipe.stores.failures import changed, too_short

    if tag is not None and found != tag:
        raise changed(where, tag, found)
    if not 0 <= at <= size:
        raise too_short(where, at, at, size)
    return b""


def _configured() -> dict[str, Any]:
    """What fsspec's configuration files and ``FSSPEC_S3_...`` say."""
    try:
        from fsspec.config import conf
    except ImportError:
        return {}
    return {name: value for name, value in conf.get("s3", {}).items() if name in _OPTIONS}
