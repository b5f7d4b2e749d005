"""The connection between an actor and its relay.

Responsible for: `Wire`, one connection over TCP on which both sides send tagged messages; `listen`,
which makes a place for it before anybody is started; `Address`, what one side is told of it.

Rules:
- everything is encrypted and authenticated (CURVE), with keys made for this connection alone: who
  was not told the address can neither listen nor speak, and is cut off at the handshake;
- the relay listens on the address by which the cluster knows its machine, and on no other; whoever
  comes there beside its actor is sent away, and changes nothing;
- that the other side is gone is seen at once where its system says so, and after `SILENCE_MS` where
  nobody says anything any more;
- there is no limit on what is under way: claims and credits bound it, as everywhere;
- one thread uses it.

Method: ZeroMQ's PAIR sockets; CurveZMQ (RFC 26), heartbeats of ZMTP 3.1.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import zmq
from zmq.utils.monitor import recv_monitor_message

from splitpipe.transport.anonymous import Descriptor
from splitpipe.transport.base import Buffer

__all__ = ["Address", "Tag", "Wire", "listen"]

BEAT_MS = 2000
SILENCE_MS = 15_000
"""How long a peer may say nothing, not even that it is there."""

_LINGER_MS = 5000

_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_NOT_THERE = zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED


class Tag(IntEnum):
    """What a message is about; a number says which link."""

    HELLO, WORK, ROW, LEDGER, FAILED, BYE, MORE, GATE, ENTRY, LEASH, OUTPUT, BACK = range(12)
    TRACE, SHUT, CLOCK = 12, 13, 14


@dataclass(frozen=True, slots=True)
class Address:
    """Where a relay listens, and the keys of its one connection.

    Attributes:
        place: ``tcp://host:port``.
        server: public key of who listens.
        client: both keys of who connects.
        secret: of who listens; never leaves this process and its relay.
    """

    place: str
    server: bytes
    client: tuple[bytes, bytes]
    secret: bytes = b""

    @property
    def public(self) -> Address:
        """What the actor is told."""
        return replace(self, secret=b"")

    @property
    def host(self) -> str:
        """The address of the listener's machine."""
        return self.place.removeprefix("tcp://").rpartition(":")[0].strip("[]")

    def __repr__(self) -> str:
        return f"Address({self.place!r})"


def listen(host: str) -> tuple[Descriptor, Address]:
    """Return a listening socket, for `Wire.listening`, and its address."""
    server, client = zmq.curve_keypair(), zmq.curve_keypair()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        port = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        address = Address(f"tcp://{name}:{port}", server[0], client, server[1])
        return Descriptor(listening.detach()), address


class Wire:
    """One side of it.

    Args:
        address: where it is; with the secret: this side listens.
        listening: the socket for that.
    """

    def __init__(self, address: Address, listening: Descriptor | None = None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = sock = self._context.socket(zmq.PAIR)
        sock.sndhwm = sock.rcvhwm = 0
        sock.linger = _LINGER_MS
        sock.setsockopt(zmq.HEARTBEAT_IVL, BEAT_MS)
        sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
        sock.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)
        if ":" in address.host:
            sock.setsockopt(zmq.IPV6, 1)
        events = zmq.EVENT_DISCONNECTED | _REFUSED
        # Who does not find the listener at once, or is refused, will not be let in later.
        events |= zmq.EVENT_HANDSHAKE_SUCCEEDED if listening else _NOT_THERE
        self._monitor = sock.get_monitor_socket(events)
        self._listens = listening is not None
        self._met = self._refused = self._broken = False
        if listening is not None:
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = address.server, address.secret
            sock.setsockopt(zmq.USE_FD, os.dup(listening.fd))  # ZeroMQ closes what it is given
            sock.bind(address.place)
        else:
            sock.curve_serverkey = address.server
            sock.curve_publickey, sock.curve_secretkey = address.client
            sock.connect(address.place)

    @property
    def descriptors(self) -> tuple[int, int]:
        """What to wait on, while it is `quiet`."""
        return self._socket.fileno(), self._monitor.fileno()

    def send(self, tag: Tag, number: int, parts: Sequence[Buffer]) -> None:
        """Send a message; never waits."""
        frames: list[Buffer] = [bytes((tag, number)), *(parts or (b"",))]
        self._socket.send_multipart(frames)  # copied: what is not, pyzmq has a thread watch over

    def receive(self) -> tuple[Tag, int, Buffer] | None:
        """Return tag, number and the bytes of a message; None: there is none now."""
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        tag, number = bytes(frames[0].buffer)
        if len(frames) == 2:
            return Tag(tag), number, frames[1].buffer
        return Tag(tag), number, b"".join(frame.buffer for frame in frames[1:])

    def quiet(self) -> bool:
        """Whether there is nothing to receive, and nobody has gone. To be asked before waiting:
        the descriptors tell of what happens from then on, and of nothing that happened before.
        """
        if self.broken():
            return False
        events = self._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        return not events & zmq.POLLIN

    def broken(self) -> bool:
        """Whether the other side is gone."""
        while not self._broken and self._monitor.poll(0):
            self._learn(recv_monitor_message(self._monitor, zmq.DONTWAIT)["event"])
        return self._broken

    def _learn(self, event: int) -> None:
        """Take note of what became of a connection."""
        if not self._listens:
            self._broken = True
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._met = True
        elif event == zmq.EVENT_DISCONNECTED:
            # A stranger that is refused is disconnected right after that.
            self._broken = self._met and not self._refused
            self._refused = False
        else:
            self._refused = True

    def close(self) -> None:
        """Let go of it, once what was sent has left; safe to call twice."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0 if self._broken else _LINGER_MS)
        self._context.term()
