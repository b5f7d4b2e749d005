"""Questions to the REST service, and its answers.

Responsible for: `Http`: one server by its URL, the bearer token, JSON both ways, and requests that
are made again while the server is not there.

Rules:
- a request that failed on its way, or that the server asks to make later, is made again with
  growing pauses, for as long as is allowed; only requests that may be said twice come here;
- a problem document becomes the exception of its status, with what the server says; nothing of
  the request is in the message that could be a secret;
- answers are read up to a limit. Nothing follows a redirect: a token is not carried elsewhere;
- `abort` ends requests of other threads at once, so that nothing waits for a server to close.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from splitpipe.errors import (
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ServiceError,
    Unavailable,
)

__all__ = ["Http", "path"]

_STATUS: Mapping[int, type[ServiceError]] = {
    400: InvalidRequest,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    405: InvalidRequest,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
}
_LATER = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_ANSWER_NBYTES = 64 << 20


def path(*parts: str) -> str:
    """Return the path of these parts below the API, each as one segment.

    Example:
        >>> path("datasets", "a/b")
        '/api/v1/datasets/a%2Fb'
    """
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        what: who answered what, for messages.
        status: of HTTP.
        kind: the media type of the body.
        body: all of it.
        retry_after_s: when to ask again, where it says so.
    """

    what: str
    status: int
    kind: str
    body: bytes
    retry_after_s: float | None = None

    def checked(self) -> Answer:
        """Return it, unless it is a refusal.

        Raises:
            ServiceError: it is one, of its kind.
        """
        if 200 <= self.status < 300:
            return self
        raise problem(self)

    def json(self) -> Any:
        """Return the value that it has; None where it has none.

        Raises:
            ServiceError: it is no JSON.
        """
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            raise ServiceError(
                f"{self.what} with something that is not JSON: is it a splitpipe server?"
            ) from None


class Http:
    """One server.

    Args:
        url: where it is: ``http://host:port``, or https.
        token: what it knows its user by.
        retry_s: how long, in seconds, a request is made again while the server is not there.
        timeout_s: how long one request may take.

    Example:
        >>> Http("http://127.0.0.1:8000", token="secret")
        Http('http://127.0.0.1:8000')
    """

    def __init__(
        self, url: str, token: str | None = None, *, retry_s: float = 30, timeout_s: float = 60
    ) -> None:
        parsed = urllib3.util.parse_url(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidRequest(f"{url!r} is not the URL of a server: http://host:port")
        if parsed.auth or parsed.query:
            raise InvalidRequest("a URL with a name, password or query in it: give token= instead")
        self.url = url.rstrip("/")
        self.host = parsed.host.strip("[]")
        self.retry_s = retry_s
        self.timeout_s = timeout_s
        self._token = token
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._pool = _pool(url, self._sockets)
        self._closed = threading.Event()

    def get(self, where: str, **query: Any) -> Any:
        """Return what is at `where`, which is JSON."""
        return self.ask("GET", where, query=query).json()

    def post(self, where: str, value: Any = None, **query: Any) -> Any:
        """Send JSON, and return what comes back."""
        body = b"" if value is None else json.dumps(value).encode()
        return self.ask("POST", where, body=body, query=query).json()

    def delete(self, where: str, **query: Any) -> Any:
        """Remove what is at `where`; that it is not there any more is as good."""
        return self.ask("DELETE", where, query=query).json()

    def ask(
        self,
        method: str,
        where: str,
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        query: Mapping[str, Any] | None = None,
        limit_nbytes: int = _ANSWER_NBYTES,
    ) -> Answer:
        """Make a request until it is answered.

        Raises:
            ServiceError: the server refused it, by the kind of its refusal.
            Unavailable: it was not answered within ``retry_s``.
        """
        began = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = self.once(
                    method, where, body=body, kind=kind, query=query, limit_nbytes=limit_nbytes
                )
                if answer.status not in _LATER:
                    return answer.checked()
                why = f"it answered {answer.status}"
                wait_s = answer.retry_after_s or 0.0
            except Unavailable as error:
                why, wait_s = str(error), 0.0
            wait_s = max(wait_s, pause_s * random.uniform(0.5, 1.0))
            spent_s = time.monotonic() - began
            if spent_s + wait_s > self.retry_s:
                raise Unavailable(
                    f"{self.url} could not be asked for {method} {where}, tried for "
                    f"{spent_s:.1f} s: {why}"
                )
            if self._closed.wait(wait_s):
                raise Unavailable("the client was closed")
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def once(
        self,
        method: str,
        where: str,
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        query: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        limit_nbytes: int = _ANSWER_NBYTES,
    ) -> Answer:
        """Make a request once.

        Raises:
            Unavailable: there was no answer.
        """
        asked = {key: value for key, value in (query or {}).items() if value is not None}
        target = f"{where}?{urlencode(asked, doseq=True)}" if asked else where
        headers = {"Accept": "application/json", "User-Agent": "splitpipe"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = kind
        read_s = timeout_s or self.timeout_s
        try:
            response = self._pool.urlopen(
                method,
                target,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=min(10.0, read_s), read=read_s),
            )
            with _returning(response) as read:
                data = read(limit_nbytes)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{self.url} does not answer: {_words(error)}") from None
        later = response.headers.get("Retry-After", "")
        return Answer(
            f"{self.url} answered {method} {where}",
            response.status,
            response.headers.get("Content-Type", ""),
            data,
            min(float(later), 30.0) if later.isdigit() else None,
        )

    def abort(self) -> None:
        """End all requests now, those of other threads too, and make none any more."""
        self._closed.set()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                sock.shutdown(socket.SHUT_RDWR)
        self._pool.close()

    def again(self) -> Http:
        """Return another one of the same server, with connections of its own."""
        return Http(self.url, self._token, retry_s=self.retry_s, timeout_s=self.timeout_s)

    def close(self) -> None:
        self._closed.set()
        self._pool.close()

    def __repr__(self) -> str:
        return f"Http({self.url!r})"


class _returning:  # noqa: N801  a function in all but name
    """Reads an answer up to a limit; its connection goes back only when all of it was read."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._whole = False

    def __enter__(self) -> Callable[[int], bytes]:
        return self._read

    def _read(self, limit_nbytes: int) -> bytes:
        data = self._response.read(limit_nbytes + 1, decode_content=False)
        if len(data) > limit_nbytes:
            raise ServiceError(f"an answer of more than {limit_nbytes} bytes, which is the limit")
        self._whole = True
        return data

    def __exit__(self, *_: object) -> None:
        if self._whole:
            self._response.release_conn()
        else:
            self._response.close()


def problem(answer: Answer) -> ServiceError:
    """Return the exception that a refusal is."""
    told: Any = None
    if "json" in answer.kind:
        try:
            told = json.loads(answer.body)
        except ValueError:
            told = None
    if not isinstance(told, dict):
        told = {}
    title, detail, hint = (told.get(key) for key in ("title", "detail", "hint"))
    words = detail if isinstance(detail, str) and detail else title
    if not isinstance(words, str) or not words:
        words = f"{answer.what} with status {answer.status}"
    error = _STATUS.get(answer.status, ServiceError)(words)
    if isinstance(hint, str) and hint:
        error.add_note(hint)
    return error


def _words(error: Exception) -> str:
    """Return what went wrong in a few words: urllib3 names its objects in front of them."""
    cause = getattr(error, "reason", None) or error
    text = str(cause).rpartition(": ")[2] or type(cause).__name__
    return text[:200]


def _pool(url: str, sockets: weakref.WeakSet[socket.socket]) -> urllib3.HTTPConnectionPool:
    """Return a pool that notes every socket it opens."""
    pool = urllib3.connection_from_url(url, maxsize=4, block=False)
    base: Any = pool.ConnectionCls

    class Noted(base):  # type: ignore[misc]  # which of two classes the URL decides
        def connect(self) -> None:
            super().connect()
            if isinstance(self.sock, socket.socket):
                sockets.add(self.sock)

    pool.ConnectionCls = Noted
    return pool
