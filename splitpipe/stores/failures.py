"""What goes wrong with stores, said in splitpipe's errors.

Responsible for: making `RemoteError` and `StorageError` with what happened, where, and what to
try; telling by a status what an HTTP response means; Retry-After.

Rules:
- a text never holds credentials: urls are told by `told_url`, texts of others pass `hidden`;
- ``transient`` says whether the same request may succeed a little later, ``maybe_done`` whether
  what was asked may have been done although the answer was lost.
"""

from __future__ import annotations

import errno
import time
from typing import Final

from splitpipe.errors import DatasetChanged, RemoteError, StorageError
from splitpipe.stores.sealed import hidden

__all__ = [
    "EXPIRED",
    "cause",
    "changed",
    "missing",
    "of_status",
    "refused",
    "remote_error",
    "retry_after",
    "too_short",
    "unsupported",
]

# Not done, come again: 408, 425, 429 and 503 say so; of the others nobody knows how far they came.
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529})
NOT_DONE: Final = frozenset({408, 425, 429, 503})

EXPIRED: Final = frozenset(
    {"ExpiredToken", "InvalidToken", "RequestExpired", "TokenRefreshRequired"}
)
"""What S3 says, with different statuses, of credentials that were good once."""


def remote_error(
    code: int,
    text: str,
    where: str,
    *,
    transient: bool = False,
    maybe_done: bool = False,
    retry_after_s: float | None = None,
) -> RemoteError:
    """A failure of the store itself."""
    error = RemoteError(code, hidden(text), where)
    error.transient = transient
    error.maybe_done = maybe_done
    error.retry_after_s = retry_after_s
    return error


def cause(error: Exception) -> Exception | None:
    """An error of somebody else's as the cause of ours, unless it holds what may be secret."""
    return error if hidden(str(error)) == str(error) else None


def missing(where: str) -> StorageError:
    """There is no such object."""
    return StorageError(errno.ENOENT, "there is no such object", where)


def refused(where: str, why: str = "") -> StorageError:
    """It may not be seen."""
    text = "access was refused" + (f" ({hidden(why)})" if why else "")
    text += ": look whether credentials are given (storage_options), still valid, and enough"
    if "TimeTooSkewed" in why:
        text += ", and set this machine's clock: the server's shows another time"
    return StorageError(errno.EACCES, text, where)


def changed(where: str, expected: str, found: str | None) -> DatasetChanged:
    """Another version is there."""
    now = "something else" if found is None else found or "nothing"
    text = f"somebody else wrote it: {expected or 'nothing'} was expected, {now} is there"
    return DatasetChanged(errno.ESTALE, text, where)


def too_short(where: str, start: int, stop: int | None, size: int | None) -> StorageError:
    """It has fewer bytes than are wanted."""
    has = "has fewer" if size is None else f"has {size}"
    text = f"bytes {start} to {'its end' if stop is None else stop} are wanted, it {has}"
    return StorageError(errno.ERANGE, text, where)


def unsupported(where: str, what: str) -> StorageError:
    """The store has no way to do it."""
    return StorageError(errno.ENOTSUP, f"this store cannot {what}", where)


def of_status(
    status: int, where: str, *, why: str = "", retry_after_s: float | None = None
) -> StorageError:
    """What a response that is no success means."""
    if status in (404, 410):
        return missing(where)
    if status in (401, 403):
        return refused(where, why or str(status))
    text = f"the server answered {status}" + (f" ({why})" if why else "")
    passing = status in PASSING
    return remote_error(
        errno.EBUSY if passing else errno.EIO,
        text,
        where,
        transient=passing,
        maybe_done=passing and status not in NOT_DONE,
        retry_after_s=retry_after_s,
    )


def retry_after(told: str | None) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or a date; ``None`` if it says nothing.

    Example:
        >>> retry_after("1.5"), retry_after("Mon, 01 Jan 2001 00:00:00 GMT"), retry_after("soon")
        (1.5, 0.0, None)
    """
    if not told:
        return None
    try:
        seconds = float(told)
    except ValueError:
        from email.utils import parsedate_to_datetime  # 20 ms to import, and hardly ever needed

        try:
            # A date is by the wall clock, whatever clock is waited by.
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None
