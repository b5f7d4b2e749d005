"""The sockets of an engine.

Responsible for: `Doors`: where clients knock, what may come in, and sending without waiting.

Rules:
- one socket for the machine's own users (a file in a folder of this user, and loopback), one with
  CURVE keys for everywhere else. Without keys nothing listens beyond loopback;
- frames beyond the limit end the connection that they came by; nothing that arrives blocks, and no
  queue to a peer grows beyond its bound: what does not fit is not sent, and the caller is told;
- large frames are sent without being copied: they stay alive until the socket is done with them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq

from splitpipe.errors import InvalidRequest, StorageError
from splitpipe.server.feed.job import Place
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.sessions import Peer

__all__ = ["Doors", "is_loopback"]

LARGE_NBYTES = 1 << 16
"""From how many bytes on a frame is sent without a copy: a shorter one is copied faster."""

SOCKET_PATH_NBYTES = 100
HEARTBEAT_MS = 5_000
FRAMES = 16
"""Frames of one message that are looked at."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "data")]
        [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


class Doors:
    """The sockets of one engine.

    Args:
        place: where to listen.
        name: of the socket file.
        limits: bounds.

    Raises:
        InvalidRequest: it would listen beyond loopback without keys.
        StorageError: no port is free.
    """

    def __init__(self, place: Place, name: str, limits: FeedLimits) -> None:
        if not is_loopback(place.host) and place.secret is None:
            raise InvalidRequest(
                f"the feed would listen at {place.host} without keys. Make them with "
                "'splitpipe keys ROOT', or listen at 127.0.0.1"
            )
        self.endpoints: list[str] = []
        """Where clients reach it."""
        self.sockets: list[zmq.Socket[bytes]] = []
        self._context = zmq.Context(io_threads=1)
        self._context.max_sockets = 16
        try:
            self._open(place, name, limits)
        except BaseException:
            self.close()
            raise

    def _open(self, place: Place, name: str, limits: FeedLimits) -> None:
        inner = self._socket(limits)
        path = Path(place.run) / f"{name}.feed"
        if len(os.fsencode(path)) <= SOCKET_PATH_NBYTES:
            inner.bind(f"ipc://{path}")
            path.chmod(0o600)
            self.endpoints.append(f"ipc://{path}")
        outer = inner
        if place.secret is not None and place.public is not None:
            outer = self._socket(limits)
            outer.curve_server = True
            outer.curve_secretkey = place.secret.encode()
            outer.curve_publickey = place.public.encode()
        self.endpoints.append(_bind(outer, place))

    def _socket(self, limits: FeedLimits) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        self.sockets.append(socket)
        socket.linger = 0
        socket.maxmsgsize = limits.message_nbytes
        socket.router_mandatory = True
        socket.sndhwm = limits.queue_messages
        socket.rcvhwm = limits.unheard_messages
        socket.ipv6 = True
        socket.set(zmq.HANDSHAKE_IVL, 10_000)
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, 4 * HEARTBEAT_MS)
        return socket

    def receive(self, most: int) -> Iterator[tuple[Peer, Sequence[Any]]]:
        """Messages that have arrived, at most so many of each socket."""
        for index, socket in enumerate(self.sockets):
            for _ in range(most):
                try:
                    name, *frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                yield (index, name), frames

    def send(self, peer: Peer, frames: Sequence[Any]) -> bool:
        """Send a message, without waiting. Gives whether it is on its way."""
        index, name = peer
        socket = self.sockets[index]
        try:
            socket.send(name, zmq.SNDMORE | zmq.NOBLOCK)
            last = len(frames) - 1
            for place, frame in enumerate(frames):
                more = zmq.SNDMORE if place < last else 0
                copied = not (place and memoryview(frame).nbytes >= LARGE_NBYTES)
                socket.send(frame, more | zmq.NOBLOCK, copy=copied)
        except zmq.ZMQError:
            return False
        return True

    def close(self, *, linger_ms: int = 500) -> None:
        """Close all, when what was sent is on its way. Safe to call twice."""
        for socket in self.sockets:
            socket.close(linger=linger_ms)
        self._context.term()


def _bind(socket: zmq.Socket[bytes], place: Place) -> str:
    host = "127.0.0.1" if place.host == "localhost" else place.host.strip("[]")
    address = f"[{host}]" if ":" in host else host
    first, last = place.ports
    ports: list[int | str] = list(range(first, last + 1)) if first else ["*"]
    random.shuffle(ports)
    said = ""
    for port in ports:
        try:
            socket.bind(f"tcp://{address}:{port}")
        except zmq.ZMQError as error:
            said = f": {error}"
            continue
        bound = socket.last_endpoint
        return (bound.decode() if isinstance(bound, bytes) else str(bound)).rstrip("\0")
    raise StorageError(
        f"no port of {first}-{last} at {host} is free for the feed{said}. Give it a wider range"
    )
