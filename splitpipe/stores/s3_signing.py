"""Signed urls of S3 without a client of S3.

Responsible for: `Signing`, what it takes to sign a url of a bucket; `plain_signing`, which knows it
from options that are simple; `probed_signing`, which learns it from a client of botocore's.

Why: a client costs some 120 ms of a CPU in each process that makes one, and 0.2 ms a url. The
signature itself is botocore's too (`S3SigV4QueryAuth`): 28 ms to import, 0.08 ms a url.

Rules:
- what is not plainly simple (profiles, roles, access points, accelerated or dual-stack endpoints,
  configuration files, ...) is left to botocore, and asked of it by a url that it signs;
- a `Signing` holds credentials: it travels only as what is sealed does, and has no repr of them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

__all__ = ["VALID_S", "Signing", "plain_signing", "probed_signing"]

VALID_S: Final = 3600
MARGIN_S: Final = 900.0  # credentials are replaced so long before they end; botocore's own measure

_PLAIN: Final = frozenset({"key", "secret", "token", "endpoint_url", "client_kwargs"})
_PLAIN_CLIENT: Final = frozenset({"region_name", "endpoint_url", "verify"})
_REGION: Final = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_SPECIAL: Final = ("--x-s3", "-s3alias", "--ol-s3", "--table-s3")
_SIGNED: Final = {
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
    "X-Amz-Signature", "X-Amz-Security-Token",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signing:
    """What it takes to sign urls of one bucket.

    Attributes:
        base: url of the bucket, with a slash at its end.
        region: that signatures name.
        access_key, secret_key, token: the credentials; empty for who does not say who he is.
        until: seconds since 1970 at which others have to be had; ``None`` if never.
        payer: whether requests say that who asks pays for them.
    """

    base: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    until: float | None = None
    payer: bool = False

    def good(self) -> bool:
        """Whether the credentials last for a while."""
        return self.until is None or time.time() < self.until

    def url(self, method: str, key: str, query: Mapping[str, str] | None = None) -> str:
        """A url of an object, or of the bucket with an empty key, valid for an hour.

        Example:
            >>> signing = Signing("http://127.0.0.1:5000/b/", "us-east-1", "k", "s", None)
            >>> signing.url("GET", "a b").partition("&")[0]
            'http://127.0.0.1:5000/b/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256'
        """
        url, asked = self.base + quote(key, safe="/~"), dict(query or {})
        if self.payer:
            asked["x-amz-request-payer"] = "requester"
        if not self.access_key:
            return url + ("?" + urlencode(asked, quote_via=quote) if asked else "")
        from botocore.auth import S3SigV4QueryAuth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, url, params=asked)
        # Of the credentials it reads three attributes, which have the same names here.
        S3SigV4QueryAuth(self, "s3", self.region, expires=VALID_S).add_auth(request)
        return str(request.url)


def plain_signing(options: Mapping[str, Any], bucket: str) -> Signing | None:
    """What options that are simple mean, as botocore would read them; ``None`` where they are not.

    Example:
        >>> options = {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9"}
        >>> plain_signing(options, "data")
        Signing(base='http://127.0.0.1:9/data/', region='us-east-1', until=None, payer=False)
        >>> plain_signing({"profile": "work"}, "data")
    """
    given = {name: value for name, value in options.items() if value not in (None, {}, False)}
    payer = bool(given.pop("requester_pays", False))
    client = given.get("client_kwargs", {})
    if set(given) - _PLAIN - {"allow_redirects_to"} or set(client) - _PLAIN_CLIENT:
        return None
    endpoint = given.get("endpoint_url") or client.get("endpoint_url")
    region = client.get("region_name") or os.environ.get("AWS_DEFAULT_REGION")
    if _configured_elsewhere():
        return None
    base = _base(endpoint, region or "us-east-1", bucket)
    key, secret, token = (given.get(name) for name in ("key", "secret", "token"))
    if not key and not secret:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        key, secret, token = (os.environ.get(name) for name in names)
    if base is None or not key or not secret:
        return None
    return Signing(base, region or "us-east-1", key, secret, token or None, None, payer)


def probed_signing(client: Any, bucket: str, *, payer: bool = False) -> Signing | None:
    """What a client of botocore's signs with; ``None`` where its urls are of another kind."""
    url = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "x"})
    parts, region = urlsplit(url), client.meta.region_name
    query = parse_qs(parts.query)
    if not parts.path.endswith("/x"):
        return None
    # Without a word about regions botocore signs for the oldest host, which sends the requests for
    # buckets that are new somewhere else.
    host = parts.netloc
    if region != "us-east-1" and host == f"{bucket}.s3.amazonaws.com":
        host = f"{bucket}.s3.{region}.amazonaws.com"
    base = f"{parts.scheme}://{host}{parts.path[:-1]}"
    if not query:
        return Signing(base, region, "", "", None, None, payer)
    scope = query.get("X-Amz-Credential", [""])[0].split("/")
    usual = set(query) <= _SIGNED and query.get("X-Amz-SignedHeaders") == ["host"]
    if not usual or len(scope) < 5 or scope[-2] != "s3":
        return None
    credentials = client._request_signer._credentials
    until = None
    # Credentials that are refreshed know when, by an attribute that is botocore's own.
    if hasattr(credentials, "refresh_needed"):
        expiry = getattr(credentials, "_expiry_time", None)
        if expiry is None:
            return None
        until = expiry.timestamp() - MARGIN_S
    known = credentials.get_frozen_credentials()
    return Signing(base, scope[-3], known.access_key, known.secret_key, known.token, until, payer)


def _base(endpoint: str | None, region: str, bucket: str) -> str | None:
    """The url of a bucket, where it is plain what botocore would make of it."""
    if not _BUCKET.fullmatch(bucket) or bucket.endswith(_SPECIAL):
        return None
    if endpoint is None:
        if not _REGION.fullmatch(region):
            return None
        middle = "" if region == "us-east-1" else f".{region}"
        return f"https://{bucket}.s3{middle}.amazonaws.com/"
    parts = urlsplit(endpoint)
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(parts.hostname or "")
        if parts.scheme in ("http", "https") and parts.path in ("", "/") and not parts.query:
            return f"{parts.scheme}://{parts.netloc}/{bucket}/"
    return None


def _configured_elsewhere() -> bool:
    """Whether environment or files say more than is read here."""
    telling = ("AWS_USE_", "AWS_S3_", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION")
    if any(name.startswith(telling) for name in os.environ) or "AWS_DEFAULT_PROFILE" in os.environ:
        return True
    config = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    return os.path.exists(os.path.expanduser(config))
