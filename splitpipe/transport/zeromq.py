"""Messages over ZeroMQ: the same seam, on a library that people know and that also crosses
machines.

Responsible for: `ZmqLink`, PUSH sockets to PULL sockets over ipc, and `TcpLink`, the same over the
loopback interface.

Rules:
- nothing listens for strangers: sockets are in the abstract name space of this machine where it
  exists (nothing in a directory, nothing left behind by a SIGKILL), in a private directory
  elsewhere, or on 127.0.0.1 alone; and every connection is encrypted and authenticated with CURVE
  keys made for this link alone: who was not given the link can neither send nor receive;
- a port is bound by the owner, before any process starts, and its socket travels to whoever
  listens: nobody else can come to have it in between;
- sockets and contexts are made in the process that uses them, and ended there: a context does not
  survive a fork, and a process that leaves without ending it loses its last messages;
- ZeroMQ has no shutdown for all parties: a socket pair beside each link says it, and whoever waits
  waits on both;
- with one reader the reader binds; with several the writers do, and each deals its messages out to
  the readers in turn. The order of the stream never depends on who gets what.

The two high-water marks are kept low, so that a slow reader is passed over soon.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence

import zmq

from splitpipe.errors import BrokenChannel, ChannelError, ClosedChannel
from splitpipe.transport.anonymous import Descriptor
from splitpipe.transport.base import Buffer, ChannelStatistics, Link, Receiver, Sender
from splitpipe.transport.sockets import SocketPair

__all__ = ["TcpLink", "ZmqLink", "ZmqReceiver", "ZmqSender"]

_LINGER_MS = 2000
"""How long a leaving writer waits for its last messages to be taken, if nobody shuts the link."""


class _End:
    """What both ends have: a socket with its own context, and the stop line beside it."""

    def __init__(self, link: ZmqLink, kind: int, *, binds: bool, index: int) -> None:
        self._stop = link.stop
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        self._closed = False
        self.messages = 0
        self.nbytes = 0
        mark = 1 if link.readers > 1 else 64
        self._socket.sndhwm = mark
        self._socket.rcvhwm = mark
        self._socket.linger = _LINGER_MS
        self._socket.reconnect_ivl = 2  # ms; a peer that starts a moment later is found at once
        link.authenticate(self._socket, server=binds)
        if binds:
            link.bind(self._socket, index)
        else:
            others = link.writers if kind == zmq.PULL else link.readers
            for other in range(others):
                self._socket.connect(link.endpoint(other))

    def wait(self, event: int, watch: Sequence[int] = ()) -> bool:
        """Wait for `event` (True), or for a descriptor of `watch` to be readable (False)."""
        poller = zmq.Poller()
        poller.register(self._socket, event)
        poller.register(self._stop.fileno(), zmq.POLLIN)
        for fd in watch:
            poller.register(fd, zmq.POLLIN)
        ready = dict(poller.poll())
        return self._socket in ready or self._stop.fileno() in ready

    @property
    def shut(self) -> bool:
        """Whether the link was shut."""
        try:
            return self._stop.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def check(self) -> None:
        """Raise if this end, or the link, is no more."""
        if self._closed:
            raise ClosedChannel("this end of the channel was closed")
        if self.shut:
            raise BrokenChannel("the channel was shut")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            # A shut link delivers nothing any more; else the last messages have to leave.
            self._socket.close(0 if self.shut else _LINGER_MS)
            self._context.term()


class ZmqSender(Sender):
    """See `Sender`."""

    def __init__(self, link: ZmqLink, index: int) -> None:
        self._end = _End(link, zmq.PUSH, binds=link.readers > 1, index=index)
        self._changes: int = self._end._socket.fileno()
        self._full = False

    def send(self, parts: Sequence[Buffer]) -> None:
        end = self._end
        message = b"".join(parts)
        while True:
            end.check()
            try:
                end._socket.send(message, zmq.DONTWAIT)
            except zmq.Again:
                pass  # as in `ZmqReceiver.receive`
            except zmq.ZMQError as error:
                raise ChannelError(f"a message could not be sent: {error}") from error
            else:
                end.messages += 1
                end.nbytes += len(message)
                return
            end.wait(zmq.POLLOUT)

    def wait(self, watch: Sequence[int] = (), *, block: bool = True) -> bool:
        end = self._end
        if end._closed:
            raise ClosedChannel("this end of the channel was closed")
        if self._has_room() or end.shut:
            return True
        if not block:
            return False
        poll = select.poll()
        for fd in (self._changes, end._stop.fileno(), *watch):
            poll.register(fd, select.POLLIN)
        poll.poll()
        return self._has_room() or end.shut

    def full(self) -> bool:
        # A socket of ZeroMQ is for one thread, but its descriptor is for all: when something has
        # happened that the thread it belongs to has not seen, it can be read.
        if not self._full:
            return False
        poll = select.poll()
        poll.register(self._changes, select.POLLIN)
        return not poll.poll(0)

    def _has_room(self) -> bool:
        events = self._end._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        self._full = not events & zmq.POLLOUT
        return not self._full

    def close(self) -> None:
        self._end.close()

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._end.messages, self._end.nbytes)


class ZmqReceiver(Receiver):
    """See `Receiver`."""

    def __init__(self, link: ZmqLink, index: int) -> None:
        self._end = _End(link, zmq.PULL, binds=link.readers == 1, index=index)

    def receive(self, *, block: bool = True) -> Buffer | None:
        end = self._end
        while True:
            if end._closed:
                raise ClosedChannel("this end of the channel was closed")
            try:
                message = end._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                pass  # and go on outside of it: no Ctrl-C while it waits has it as its context
            except zmq.ZMQError as error:
                raise ChannelError(f"a message could not be received: {error}") from error
            else:
                end.messages += 1
                end.nbytes += len(message)
                return message
            end.check()
            if not block:
                return None
            end.wait(zmq.POLLIN)

    def wait(self, watch: Sequence[int] = ()) -> bool:
        if self._end._closed:
            raise ClosedChannel("this end of the channel was closed")
        return self._end.wait(zmq.POLLIN, watch)

    def close(self) -> None:
        self._end.close()

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._end.messages, self._end.nbytes)


class ZmqLink(Link):
    """PUSH to PULL between any number of writers and readers on this machine.

    Example:
        >>> link = ZmqLink()
        >>> receiver, sender = link.receiver(), link.sender()
        >>> sender.send([b"one ", b"message"])
        >>> receiver.receive()
        b'one message'
        >>> sender.close(), receiver.close(), link.close()
        (None, None, None)
    """

    # libzmq drops what lies in the kernel's buffer of a full reader when the writer hangs up.
    lingers = True

    def __init__(self, *, writers: int = 1, readers: int = 1) -> None:
        self.writers = writers
        self.readers = readers
        self._directory: str | None = None
        self._addresses = self._listen(writers if readers > 1 else 1)
        self._server = zmq.curve_keypair()
        self._client = zmq.curve_keypair()
        self._stop = SocketPair()

    def _listen(self, count: int) -> list[str]:
        """Return the addresses of `count` binders."""
        name = f"splitpipe-{secrets.token_hex(16)}"
        if sys.platform == "linux":
            base = f"ipc://@{name}"
        else:
            self._directory = tempfile.mkdtemp(prefix="splitpipe-")
            base = f"ipc://{self._directory}/{name[:24]}"
        return [f"{base}-{index}" for index in range(count)]

    def endpoint(self, index: int) -> str:
        """Return the address that binder number `index` has."""
        return self._addresses[index]

    def bind(self, sock: zmq.Socket[bytes], index: int) -> None:
        """Let `sock` be the one that listens at ``endpoint(index)``."""
        sock.bind(self.endpoint(index))

    @property
    def stop(self) -> socket.socket:
        """What can be read once the link is shut."""
        return self._stop.read

    def authenticate(self, sock: zmq.Socket[bytes], *, server: bool) -> None:
        """Give `sock` its keys: only who was given this link knows the binder's public key."""
        if server:
            sock.curve_server = True
            sock.curve_publickey, sock.curve_secretkey = self._server
        else:
            sock.curve_serverkey = self._server[0]
            sock.curve_publickey, sock.curve_secretkey = self._client

    def sender(self, index: int = 0) -> ZmqSender:
        return ZmqSender(self, index)

    def receiver(self, index: int = 0) -> ZmqReceiver:
        return ZmqReceiver(self, index)

    def shut(self) -> None:
        self._stop.shut()

    def close(self) -> None:
        self._stop.close()
        if self._directory is not None and os.path.isdir(self._directory):
            shutil.rmtree(self._directory, ignore_errors=True)


class TcpLink(ZmqLink):
    """As `ZmqLink`, over TCP on this machine's loopback interface, at ports that the system chose.

    Example:
        >>> link = TcpLink()
        >>> receiver, sender = link.receiver(), link.sender()
        >>> sender.send([b"one ", b"message"])
        >>> receiver.receive()
        b'one message'
        >>> sender.close(), receiver.close(), link.close()
        (None, None, None)
    """

    def _listen(self, count: int) -> list[str]:
        self._listening: list[Descriptor] = []
        addresses = []
        for _ in range(count):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                addresses.append("tcp://{}:{}".format(*listening.getsockname()))
                self._listening.append(Descriptor(listening.detach()))
        return addresses

    def bind(self, sock: zmq.Socket[bytes], index: int) -> None:
        # ZeroMQ closes what it is given.
        sock.setsockopt(zmq.USE_FD, os.dup(self._listening[index].fd))
        sock.bind(self.endpoint(index))

    def close(self) -> None:
        super().close()
        for listening in self._listening:
            listening.close()
