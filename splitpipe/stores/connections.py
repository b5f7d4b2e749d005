"""HTTP requests, one at a time: connections that are kept, time-outs that hold, honest lengths.

Responsible for: `Connections`, a pool of connections to any server, over urllib3; `Answer`, a
response whose head is there and whose body is read piece by piece.

Why urllib3, and not the HTTP file system of fsspec: that hands out bytes without the status,
Content-Range and ETag that came with them, which is just what has to be compared here; it follows
redirects anywhere; and its one event loop would be shared by all threads. urllib3 is what requests
and botocore stand on.

Rules:
- each process makes connections of its own: what a fork inherited is never used;
- a body is all that its head announced, or an error; a body that is not wanted costs its
  connection, never its bytes;
- a response that stalls or trickles is given up after what `Patience` allows;
- nothing is followed, decoded or repeated here.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from splitpipe.errors import RemoteError
from splitpipe.stores.failures import cause, remote_error
from splitpipe.stores.forking import ForkLock, abandon
from splitpipe.stores.patience import Patience, Timeouts
from splitpipe.stores.waiting import watch

__all__ = ["Answer", "Connections"]

KEPT: Final = 64  # connections to one server that are kept for the next request
PIECE: Final = 1 << 18


class Connections:
    """Connections to servers, kept for reuse; safe in threads and after a fork.

    Args:
        timeouts: of all requests.
        ca_certs: a file of certificates to believe, instead of the system's.
    """

    def __init__(self, timeouts: Timeouts, *, ca_certs: str | None = None) -> None:
        self.timeouts = timeouts
        self._ca_certs = ca_certs
        self._lock = ForkLock()
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._proxies: dict[str, str | None] = {}
        self._pid = 0
        self._patience: dict[str, Patience] = {}

    def begin(
        self, method: str, url: str, headers: Mapping[str, str], *, where: str, nbytes: int = 0
    ) -> Answer:
        """Send a request and wait for the head of its response.

        Args:
            method: ``"GET"``, ``"HEAD"``.
            url: of the object, with all that is secret in it.
            headers: to send.
            where: what to call it in errors.
            nbytes: how long the body is expected to be.

        Raises:
            RemoteError: no head came.
        """
        origin = "/".join(url.split("/", 3)[:3])
        patience = self._patience.setdefault(origin, Patience(self.timeouts))
        stall_s, _ = patience.allowed(nbytes)
        begun = time.monotonic()
        try:
            response = self._manager(origin).urlopen(
                method,
                url,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self.timeouts.connect_s, read=stall_s),
            )
        except (HTTPError, OSError) as error:
            raise _translated(error, where) from cause(error)
        return Answer(response, where, patience, begun, nbytes, bare=method == "HEAD")

    def close(self) -> None:
        """Close what is not in use; the next request connects anew."""
        with self._lock:
            managers, self._managers = self._managers, {}
        for manager in managers.values():
            if self._pid == os.getpid():
                manager.clear()

    def _manager(self, origin: str) -> urllib3.PoolManager:
        with self._lock:
            if self._pid != os.getpid():
                abandon(self._managers)
                self._managers, self._pid = {}, os.getpid()
            if origin not in self._proxies:
                self._proxies[origin] = _proxy_for(origin)
            proxy = self._proxies[origin]
            manager = self._managers.get(proxy)
            if manager is None:
                options: dict[str, Any] = {"maxsize": KEPT, "num_pools": 64}
                if self._ca_certs is not None:
                    options["ca_certs"] = self._ca_certs
                if proxy is None:
                    manager = urllib3.PoolManager(**options)
                else:
                    manager = urllib3.ProxyManager(proxy, **options)
                manager.pool_classes_by_scheme = {"http": _Plain, "https": _Secure}
                self._managers[proxy] = manager
            return manager


class Answer:
    """A response; a context manager, which gives its connection back or ends it.

    Attributes:
        status: of the response.
        headers: by name, in any case.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        where: str,
        patience: Patience,
        begun: float,
        nbytes: int,
        *,
        bare: bool,
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._where = where
        self._patience = patience
        self._begun = begun
        self._headed = time.monotonic()
        self._nbytes = nbytes
        self._bare = bare
        self._whole = bare

    def read(self, limit: int | None = None) -> bytes:
        """The first ``limit`` bytes of the body, or fewer if it has fewer; all of it unless given.

        Raises:
            RemoteError: it ended before its length, stalled, or trickles.
        """
        pieces, have = [], 0
        if self._bare:
            return b""
        try:
            while limit is None or have < limit:
                data = self._response.read1(PIECE if limit is None else min(PIECE, limit - have))
                if not data:
                    self._whole = True
                    break
                pieces.append(data)
                have += len(data)
                # What is known of the server now, not what was known when it was asked.
                _, whole_s = self._patience.allowed(max(have, self._nbytes))
                if time.monotonic() > self._begun + whole_s:
                    raise self._slow(have)
        except (HTTPError, OSError) as error:
            if isinstance(error, RemoteError):
                raise
            raise _translated(error, self._where) from cause(error)
        told = self.length
        if self._whole and told is not None and have < told:
            text = f"the body ended after {have} of {told} bytes"
            raise remote_error(errno.EIO, text, self._where, transient=True, maybe_done=True)
        self._whole = self._whole or have == told
        now = time.monotonic()
        self._patience.took(self._headed - self._begun, have, now - self._headed)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def length(self) -> int | None:
        """The Content-Length, if there is one that is a number."""
        told = self.headers.get("Content-Length", "")
        return int(told) if told.isascii() and told.isdigit() else None

    def _slow(self, have: int) -> RemoteError:
        seconds = time.monotonic() - self._begun
        text = f"only {have} bytes came in {seconds:.1f} s"
        return remote_error(errno.ETIMEDOUT, text, self._where, transient=True, maybe_done=True)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bare or self.length == 0:
            self._response.drain_conn()  # nothing, but it has to be read to be over
        if self._whole or self.length == 0:
            self._response.release_conn()
        else:
            self._response.close()


class _PlainConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        watch(self.sock)


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        watch(self.sock)


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _Secure(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _proxy_for(origin: str) -> str | None:
    """The proxy that the environment names (``https_proxy`` and so on)."""
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # 12 ms to import

    proxies = getproxies()
    if not proxies:
        return None
    parts = urlsplit(origin)
    if proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme)


def _translated(error: Exception, where: str) -> RemoteError:
    """What urllib3 and sockets raise, said once."""
    host = urlsplit(where).netloc or where
    first: BaseException = error
    while isinstance(first, (ProtocolError, NewConnectionError)) and first.__cause__ is not None:
        first = first.__cause__
    if isinstance(error, NameResolutionError):
        gone = isinstance(first, socket.gaierror) and first.errno == socket.EAI_NONAME
        text = f"there is no host {host}: look at the url, and whether the network is up"
        return remote_error(errno.EHOSTUNREACH, text, where, transient=not gone)
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        text = f"{host} did not accept a connection in time"
        return remote_error(errno.ETIMEDOUT, text, where, transient=True)
    if isinstance(error, NewConnectionError):
        code = first.errno if isinstance(first, OSError) and first.errno else errno.ECONNREFUSED
        text = f"no connection to {host}: {os.strerror(code)}; look at the url, and at the server"
        return remote_error(code, text, where, transient=True)
    if isinstance(error, SSLError):
        text = f"no secure connection to {host}: {error}"
        return remote_error(errno.EPROTO, text, where, transient="certificate" not in text)
    if isinstance(error, (ReadTimeoutError, TimeoutError)):
        text = "nothing came for as long as may be waited"
        return remote_error(errno.ETIMEDOUT, text, where, transient=True, maybe_done=True)
    if isinstance(error, IncompleteRead):
        text = "the body ended before its announced length"
        return remote_error(errno.EIO, text, where, transient=True, maybe_done=True)
    if isinstance(error, (ProtocolError, ConnectionError)):
        text = f"the connection was lost: {error}"
        return remote_error(errno.ECONNRESET, text, where, transient=True, maybe_done=True)
    return remote_error(errno.EIO, f"the request failed: {error}", where)
