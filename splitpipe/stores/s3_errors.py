"""What botocore raises, said in splitpipe's errors.

Responsible for: `translated`.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from splitpipe.errors import StorageError
from splitpipe.stores.failures import (
    EXPIRED,
    changed,
    missing,
    of_status,
    refused,
    remote_error,
    retry_after,
    unsupported,
)

__all__ = ["translated"]

_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})


def translated(error: Exception, where: str, *, expected: str | None = None) -> StorageError:
    """The error to raise in the place of one of botocore's.

    Args:
        error: of botocore's, or what it let through.
        where: the object.
        expected: the condition of a write, where it had one.
    """
    if isinstance(error, StorageError):
        return error
    from botocore import exceptions as theirs

    if isinstance(error, theirs.ClientError):
        return _answered(error.response, where, expected)
    if isinstance(error, theirs.EndpointConnectionError):
        text = "no connection to the server: look at the url, at endpoint_url, and at the network"
        return remote_error(errno.ECONNREFUSED, text, where, transient=True)
    if isinstance(error, (theirs.ConnectTimeoutError, theirs.ProxyConnectionError)):
        text = "the server did not accept a connection in time"
        return remote_error(errno.ETIMEDOUT, text, where, transient=True)
    if isinstance(error, theirs.ReadTimeoutError):
        text = "nothing came for as long as may be waited"
        return remote_error(errno.ETIMEDOUT, text, where, transient=True, maybe_done=True)
    if isinstance(error, theirs.SSLError):
        return remote_error(errno.EPROTO, f"no secure connection: {error}", where)
    lost = (
        theirs.ConnectionClosedError,
        theirs.HTTPClientError,
        theirs.ResponseStreamingError,
        theirs.IncompleteReadError,
        theirs.ChecksumMismatchError
        if hasattr(theirs, "ChecksumMismatchError")
        else ConnectionError,
        ConnectionError,
    )
    if isinstance(error, lost):
        text = f"the connection was lost ({type(error).__name__})"
        return remote_error(errno.ECONNRESET, text, where, transient=True, maybe_done=True)
    if isinstance(error, (theirs.NoCredentialsError, theirs.PartialCredentialsError)):
        text = "there are no credentials: give storage_options={'key': ..., 'secret': ...}, a"
        text += " profile, the usual environment, or {'anon': True} for public data"
        return StorageError(errno.EACCES, text, where)
    if isinstance(error, (theirs.CredentialRetrievalError, theirs.ProfileNotFound)):
        return refused(where, str(error))
    if isinstance(
        error, (theirs.ParamValidationError, theirs.BotoCoreError, ValueError, TypeError)
    ):
        return StorageError(errno.EINVAL, f"it cannot be asked for: {error}", where)
    return remote_error(errno.EIO, f"{type(error).__name__}: {error}", where)


def _answered(response: dict[str, Any], where: str, expected: str | None) -> StorageError:
    told, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(told.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    headers = meta.get("HTTPHeaders", {})
    if status in (412, 409) and expected is not None and code != "NoSuchBucket":
        # 409 is a conflict with somebody who writes at this moment: it may also come to nothing.
        if status == 409:
            text = "somebody else writes it at this moment"
            return remote_error(errno.EBUSY, text, where, transient=True)
        return changed(where, expected, None)
    if code == "NoSuchBucket":
        text = "there is no such bucket: look at the url's name"
        return StorageError(errno.ENOENT, text, where)
    if expected and (code in _MISSING or status == 404):
        return changed(where, expected, "")
    if code in _MISSING or status == 404:
        return missing(where)
    if code in EXPIRED:
        return refused(where, f"{code}: the credentials are no longer valid; get new ones")
    if status in (301, 307, 308) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        region = headers.get("x-amz-bucket-region") or told.get("Region")
        text = f"the bucket is in another region: {region or 'look up which'}; give"
        text += " storage_options={'client_kwargs': {'region_name': ...}}"
        return remote_error(errno.EXDEV, text, where)
    if status == 501 or code == "NotImplemented":
        return unsupported(where, "do this: " + str(told.get("Message", "")))
    wait_s = retry_after(headers.get("retry-after"))
    if code in ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"):
        return of_status(503, where, why=code, retry_after_s=wait_s)
    return of_status(status, where, why=code, retry_after_s=wait_s)
