"""A client of S3 in one process: requests through botocore, and signed urls.

Responsible for: `Session`; the names of its options, `OPTIONS`.

Rules:
- it belongs to the process that made it;
- a signed url is used for five minutes, and is valid for longer; it is never shown.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any, Final

from splitpipe.errors import StorageError
from splitpipe.stores.connections import Connections
from splitpipe.stores.failures import cause
from splitpipe.stores.patience import Timeouts
from splitpipe.stores.ranges import Target
from splitpipe.stores.s3_errors import translated

__all__ = ["OPTIONS", "Session"]

SIGNED_S: Final = 300.0
MAX_SIGNED: Final = 4096

OPTIONS: Final = (
    "key", "secret", "token", "anon", "profile", "endpoint_url", "requester_pays", "use_ssl",
    "client_kwargs", "config_kwargs", "s3_additional_kwargs", "allow_redirects_to",
)  # fmt: skip


class Session:
    """A client of one process, and the urls it has signed."""

    def __init__(self, options: dict[str, Any], timeouts: Timeouts, url: str) -> None:
        self.pid = os.getpid()
        self._options = {**_configured(), **options}
        self._client = self._connect(timeouts, url)
        allowed = self._options.get("allow_redirects_to", ())
        self._allowed = frozenset([allowed] if isinstance(allowed, str) else allowed)
        self.connections = Connections(timeouts, ca_certs=self._certificates())
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
            raise translated(error, where, expected=expected) from cause(error)
        return found

    def forget(self, bucket: str, key: str) -> bool:
        """Drop a signed url; whether there was an older one to blame."""
        known = self._signed.pop((bucket, key), None)
        return known is not None and time.monotonic() - known[0] > 1.0

    def close(self) -> None:
        self.connections.close()
        if self.pid == os.getpid():
            self._client.close()

    def target(self, bucket: str, key: str, where: str, *, head: bool = False) -> Target:
        """An object for GET, and for HEAD too if ``head``, by urls that are signed for it."""
        known = self._signed.get((bucket, key))
        fresh = known is not None and time.monotonic() - known[0] < SIGNED_S
        if known is not None and fresh and (known[1].head_url or not head):
            return known[1]
        values = {"Bucket": bucket, "Key": key}
        if self._options.get("requester_pays"):
            values["RequestPayer"] = "requester"
        sign = self._client.generate_presigned_url
        try:
            urls = [sign(name, Params=values) for name in ("get_object", "head_object")[: 1 + head]]
        except Exception as error:
            raise translated(error, where) from cause(error)
        target = Target(urls[0], where, {}, self._allowed, urls[1] if head else "")
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
            raise translated(error, url) from cause(error)


def _configured() -> dict[str, Any]:
    """What fsspec's configuration files and ``FSSPEC_S3_...`` say."""
    try:
        from fsspec.config import conf
    except ImportError:
        return {}
    return {name: value for name, value in conf.get("s3", {}).items() if name in OPTIONS}
