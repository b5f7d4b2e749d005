"""A link over ZeroMQ.

Responsible for: `ZmqLink`, a DEALER socket.

Rules:
- it connects once: a connection that was lost is told at once, by the socket's own monitor, and the
  server is asked again where the engine is;
- with a key of the server both sides are known by theirs, and everything is encrypted (CURVE);
- no frame is taken that is larger than was agreed: ZeroMQ ends the connection before it reads it;
- a socket of ZeroMQ survives no fork, and is used under the feed's lock alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from math import ceil
from urllib.parse import urlsplit

import zmq
from zmq.utils.monitor import recv_monitor_message

from splitpipe.client.feed.link import BrokenLink, Link
from splitpipe.wire.limits import Buffer

__all__ = ["ZmqLink", "reachable"]

_COPIED_NBYTES = 4096
"""Frames below this are copied out of ZeroMQ: that is faster than to keep its memory."""
_PROBE_S = 3.0
_MOST_AT_ONCE = 256
_LOST = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class ZmqLink(Link):
    """A DEALER socket that is connected to one engine.

    Args:
        endpoint: where the engine listens.
        server_key: the server's public key; None where nothing is encrypted.
        frame_nbytes: the largest frame that is taken.
    """

    def __init__(self, endpoint: str, *, server_key: str | None, frame_nbytes: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        sock = self._socket
        sock.linger = 0
        sock.sndhwm = sock.rcvhwm = 1000
        sock.maxmsgsize = frame_nbytes
        sock.reconnect_ivl = -1
        sock.ipv6 = "[" in endpoint
        if server_key is not None:
            sock.curve_serverkey = server_key.encode()
            sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
        self._monitor = sock.get_monitor_socket(_LOST)
        self._closed = False
        sock.connect(endpoint)

    def send(self, messages: Sequence[Sequence[Buffer]]) -> None:
        for frames in messages:
            try:
                self._socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.ZMQError as error:
                raise BrokenLink(f"a message could not be sent: {error}") from None

    def receive(self) -> list[list[Buffer]]:
        found: list[list[Buffer]] = []
        try:
            while len(found) < _MOST_AT_ONCE:
                parts = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
                found.append([_buffer(part) for part in parts])
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise BrokenLink(f"a message could not be received: {error}") from None
        if not found and self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            raise BrokenLink(f"the connection was lost: {event!r}")
        return found

    def wait(self, timeout_s: float, wake: int) -> None:
        poller = zmq.Poller()
        for one in (self._socket, self._monitor, wake):
            poller.register(one, zmq.POLLIN)
        poller.poll(max(0, ceil(timeout_s * 1e3)))

    def close(self, linger_s: float = 0.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger_s * 1e3))
        self._context.term()


def _buffer(frame: zmq.Frame) -> Buffer:
    """Return the bytes of a frame: in place where they are many."""
    return frame.bytes if len(frame) < _COPIED_NBYTES else frame.buffer


def reachable(endpoint: str) -> bool:
    """Whether somebody listens there, as far as one can see without a word."""
    kind, _, address = endpoint.partition("://")
    if kind == "ipc":
        name = "\0" + address[1:] if address.startswith("@") else address
        if not hasattr(socket, "AF_UNIX") or not (name[0] == "\0" or os.path.exists(name)):
            return False
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(_PROBE_S)
            return probe.connect_ex(name) == 0
    if kind != "tcp":
        return False
    parsed = urlsplit(endpoint)
    try:
        socket.create_connection((parsed.hostname or "", parsed.port or 0), _PROBE_S).close()
    except (OSError, ValueError):
        return False
    return True
