"""The feed for clients that have HTTP only.

Responsible for: `HttpFeed`: a ZeroMQ peer of an engine for every link of an HTTP client. It passes
messages on as they are.

Rules:
- it adds nothing and looks into nothing but sizes: what a client may do is the engine's business;
- links are bounded, in number and in time without a request; one that goes takes its peer with it,
  and the engine's lease does the rest;
- a client has one request that waits, by which messages come, and short ones beside it, by which
  it speaks and which are answered with nothing;
- the links of an engine that died are gone with it: whoever waits by one is told at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from splitpipe.errors import InvalidRequest, Unavailable
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.security import FeedKeys
from splitpipe.wire.limits import Limits
from splitpipe.wire.packing import join, split_all

__all__ = ["HttpFeed"]

LINKS = 512
IDLE_S = 60.0
WAIT_S = 20.0
ANSWER_NBYTES = 32 << 20
"""From how many bytes on an answer takes no further message."""
SLICE_MS = 50
"""How long a waiting request holds the socket before others may send by it."""


class _Link:
    def __init__(self, iteration: str, socket: zmq.Socket[bytes]) -> None:
        self.iteration = iteration
        self.socket = socket
        self.turn = threading.Lock()
        self.used_s = time.monotonic()
        self.users = 0
        self.gone = False
        """Its engine is no more. Whoever uses it last closes it."""


class HttpFeed:
    """Links of all HTTP clients.

    Args:
        keys: the engines' CURVE keys, if they have some.
        limits: bounds.
    """

    def __init__(self, keys: FeedKeys | None, limits: FeedLimits) -> None:
        self._keys = keys
        self._limits = Limits(frames=1024, nbytes=limits.message_nbytes, depth=8)
        self._links: dict[tuple[str, str], _Link] = {}
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._closed = False

    def exchange(
        self, iteration: str, endpoints: Sequence[str], link: str, body: Any, wait_s: float
    ) -> bytes:
        """Send what is in `body`. With time to wait, give what has arrived: messages, packed."""
        said = split_all(body, limits=self._limits) if len(body) else []
        mine = self._use(iteration, endpoints, link)
        try:
            if said:
                with mine.turn:
                    for frames in said:
                        self._send(mine, frames)
            # One request at a time brings messages, so that their order is one line.
            return self._receive(mine, min(wait_s, WAIT_S)) if wait_s > 0 else b""
        finally:
            with self._lock:
                mine.users -= 1
                mine.used_s = time.monotonic()
                if mine.gone and not mine.users:
                    mine.socket.close(linger=0)

    def forget(self, iteration: str) -> None:
        """The engine of an iteration is no more: so are its links."""
        with self._lock:
            for key in [key for key in self._links if key[0] == iteration]:
                link = self._links.pop(key)
                link.gone = True
                if not link.users:
                    link.socket.close(linger=0)

    def let_go(self) -> None:
        """Answer requests that wait, and take no new ones: the server ends."""
        self._closed = True

    def close(self) -> None:
        """Close all links. Requests that wait come back. Safe to call twice."""
        with self._lock:
            self._closed = True
            links = list(self._links.values())
            self._links.clear()
        for link in links:
            with link.turn:
                link.socket.close(linger=0)
        if self._context is not None:
            self._context.term()

    def _use(self, iteration: str, endpoints: Sequence[str], name: str) -> _Link:
        if not (0 < len(name) <= 64 and name.isalnum()):
            raise InvalidRequest("the name of a link is 1 to 64 letters and digits")
        with self._lock:
            if self._closed:
                raise Unavailable("the server ends")
            self._sweep()
            link = self._links.get((iteration, name))
            if link is None:
                if len(self._links) >= LINKS:
                    raise Unavailable(f"{LINKS} clients read over HTTP already. Come back later")
                link = _Link(iteration, self._connect(endpoints))
                self._links[iteration, name] = link
            link.users += 1
            return link

    def _connect(self, endpoints: Sequence[str]) -> zmq.Socket[bytes]:
        if self._context is None:
            self._context = zmq.Context(io_threads=1)
            self._context.max_sockets = 2 * LINKS
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = 1000
        endpoint = next((one for one in endpoints if one.startswith("ipc:")), endpoints[0])
        try:
            if self._keys is not None and not endpoint.startswith("ipc:"):
                public, secret = zmq.curve_keypair()
                socket.curve_publickey, socket.curve_secretkey = public, secret
                socket.curve_serverkey = self._keys.public.encode()
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)  # an open one would keep the context from ending
            raise Unavailable(f"the engine cannot be reached at {endpoint}: {error}") from error
        return socket

    def _sweep(self) -> None:
        oldest_s = time.monotonic() - IDLE_S
        for key, link in list(self._links.items()):
            if not link.users and link.used_s < oldest_s:
                del self._links[key]
                link.socket.close(linger=0)

    def _send(self, link: _Link, frames: Sequence[Any]) -> None:
        try:
            link.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            raise Unavailable("the engine of this iteration does not take messages") from None
        except zmq.ZMQError as error:
            raise Unavailable(f"this link is closed: {error}") from error

    def _receive(self, link: _Link, wait_s: float) -> bytes:
        until_s = time.monotonic() + wait_s
        while True:
            with link.turn, contextlib.suppress(zmq.ZMQError):
                left_ms = max(0.0, until_s - time.monotonic()) * 1000
                if link.socket.poll(int(min(left_ms, SLICE_MS))):
                    return self._drain(link)
            if link.gone:
                raise Unavailable("the engine of this iteration died. It is being started again")
            if self._closed or time.monotonic() >= until_s:
                return b""

    def _drain(self, link: _Link) -> bytes:
        packed: list[bytes] = []
        nbytes = 0
        while nbytes < ANSWER_NBYTES:
            try:
                frames = link.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            packed.append(join([frame.buffer for frame in frames]))
            nbytes += len(packed[-1])
        return b"".join(packed)
