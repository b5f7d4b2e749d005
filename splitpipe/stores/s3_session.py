"""One bucket of S3 in one process: signed urls, and requests through botocore.

Responsible for: `Session`; the names of its options, `OPTIONS`.

Rules:
- it belongs to the process that made it;
- GET, HEAD and listings go by signed urls, writes through a client of botocore's, which is not made
  before it is needed;
- a signed url is used for five minutes, and is valid for an hour; it is never shown.
"""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from splitpipe.errors import StorageError
from splitpipe.stores.connections import Connections
from splitpipe.stores.failures import cause
from splitpipe.stores.forking import ForkLock
from splitpipe.stores.patience import Timeouts
from splitpipe.stores.ranges import Target
from splitpipe.stores.s3_errors import translated
from splitpipe.stores.s3_signing import Signing, plain_signing, probed_signing

__all__ = ["OPTIONS", "Session"]

SIGNED_S: Final = 300.0
MAX_SIGNED: Final = 4096

_PARAMETERS: Final = {
    "prefix": "Prefix",
    "continuation-token": "ContinuationToken",
    "encoding-type": "EncodingType",
}

OPTIONS: Final = (
    "key", "secret", "token", "anon", "profile", "endpoint_url", "requester_pays", "use_ssl",
    "client_kwargs", "config_kwargs", "s3_additional_kwargs", "allow_redirects_to",
)  # fmt: skip


class Session:
    """What one process does with one bucket.

    Args:
        options: see `splitpipe.stores.s3`.
        timeouts: of each request.
        url: what to call the bucket in errors.
        bucket: its name.
        signing: what another process signed with, if it said.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        timeouts: Timeouts,
        *,
        url: str,
        bucket: str,
        signing: Signing | None = None,
    ) -> None:
        self.pid = os.getpid()
        self._options = {**_configured(), **options}
        self._timeouts = timeouts
        self._url = url
        self._bucket = bucket
        self._lock = ForkLock()
        self._made: Any = None
        self._signing = signing
        self._probed = False
        allowed = self._options.get("allow_redirects_to", ())
        self._allowed = frozenset([allowed] if isinstance(allowed, str) else allowed)
        self.connections = Connections(timeouts, ca_certs=self._certificates())
        self._signed: dict[str, tuple[float, Target]] = {}

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
        client = self._client()
        try:
            found: dict[str, Any] = getattr(client, name)(Bucket=self._bucket, **values)
        except Exception as error:
            raise translated(error, where, expected=expected) from cause(error)
        return found

    def target(self, key: str, where: str, *, head: bool = False) -> Target:
        """An object for GET, and for HEAD too if ``head``, by urls that are signed for it."""
        known = self._signed.get(key)
        fresh = known is not None and time.monotonic() - known[0] < SIGNED_S
        if known is not None and fresh and (known[1].head_url or not head):
            return known[1]
        url = self._sign("get_object", where, key)
        head_url = self._sign("head_object", where, key) if head else ""
        target = Target(url, where, {}, self._allowed, head_url)
        if len(self._signed) >= MAX_SIGNED:
            self._signed.clear()
        self._signed[key] = time.monotonic(), target
        return target

    def listing(self, where: str, query: Mapping[str, str]) -> Target:
        """A page of a listing."""
        return Target(self._sign("list_objects_v2", where, "", query), where, {}, self._allowed)

    def forget(self, key: str) -> bool:
        """Drop what was signed for an object; whether it may be to blame for a refusal."""
        known = self._signed.pop(key, None)
        old = known is not None and time.monotonic() - known[0] > 1.0
        if self._signing is not None and self._signing.until is not None:
            self._signing = None  # from now on by a client that has others
            return True
        return old

    def signing(self) -> Signing | None:
        """What urls are signed with, for another process; ``None`` where that is not known."""
        return self._signing

    def close(self) -> None:
        self.connections.close()
        if self.pid == os.getpid() and self._made is not None:
            self._made.close()

    def _sign(self, name: str, where: str, key: str, query: Mapping[str, str] | None = None) -> str:
        signing = self._simple()
        try:
            if signing is not None:
                return signing.url("HEAD" if name == "head_object" else "GET", key, query)
            values: dict[str, Any] = {"Bucket": self._bucket}
            if key:
                values["Key"] = key
            for asked, value in (query or {}).items():
                if asked in _PARAMETERS:
                    values[_PARAMETERS[asked]] = value
            return str(self._client().generate_presigned_url(name, Params=values))
        except StorageError:
            raise
        except Exception as error:
            raise translated(error, where) from cause(error)

    def _simple(self) -> Signing | None:
        """A way to sign without a client, if there is one."""
        with self._lock:
            if self._signing is not None and self._signing.good():
                return self._signing
            self._signing = plain_signing(self._options, self._bucket)
            if self._signing is not None or self._probed:
                return self._signing
        client = self._client()
        try:
            payer = bool(self._options.get("requester_pays"))
            found = probed_signing(client, self._bucket, payer=payer)
        except Exception as error:
            raise translated(error, self._url) from cause(error)
        # Credentials that are refreshed are asked for again when they near their end.
        self._probed = found is None
        self._signing = found
        return found

    def _certificates(self) -> str | None:
        told = self._options.get("client_kwargs", {}).get("verify")
        return told if isinstance(told, str) else os.environ.get("AWS_CA_BUNDLE")

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._connect(self._timeouts, self._url)
            return self._made

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
            session.register_component("data_loader", _loader())
            if client.get("region_name") is None and session.get_config_variable("region") is None:
                client["region_name"] = "us-east-1"
            return session.create_client("s3", config=Config(**settings), **client)
        except Exception as error:
            raise translated(error, url) from cause(error)


@functools.cache
def _loader() -> Any:
    """What reads the description of S3: 70 ms of each client, but for the first."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def _configured() -> dict[str, Any]:
    """What fsspec's configuration files and ``FSSPEC_S3_...`` say."""
    folder = os.environ.get("FSSPEC_CONFIG_DIR", os.path.expanduser("~/.config/fsspec"))
    if not os.path.isdir(folder) and not any(name.startswith("FSSPEC_S3") for name in os.environ):
        return {}  # fsspec takes some time to import
    try:
        from fsspec.config import conf
    except ImportError:
        return {}
    return {name: value for name, value in conf.get("s3", {}).items() if name in OPTIONS}
