"""Messages over a Unix socket pair: the channel of one machine.

Responsible for: `PipeLink`. One socket pair a link, shared by all its writers and all its readers:
the kernel keeps message boundaries and hands every message to exactly one reader, so that an idle
worker takes the next one without anybody's help, and no user-space lock exists that a killed
process could keep.

Rules:
- a message up to `INLINE_LIMIT` goes through the socket; a larger one lies in an anonymous file
  whose descriptor goes through it (arenas make these rare);
- `shut` is the socket's own shutdown: it reaches every process that holds the pair;
- the pair belongs to the link. Ends borrow it: several threads of one process may each have one,
  and none takes it from the others by closing its own.

A socket pair and not ``multiprocessing.Pipe``: that one is a byte stream, where two writers
interleave and a writer killed in mid-message leaves half of it behind.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

from splitpipe.errors import BrokenChannel, ChannelError, ClosedChannel
from splitpipe.transport.anonymous import anonymous_file, map_shared, reserve
from splitpipe.transport.base import Buffer, ChannelStatistics, Link, Receiver, Sender
from splitpipe.transport.sockets import SocketPair

__all__ = ["INLINE_LIMIT", "PipeLink", "PipeReceiver", "PipeSender"]

INLINE_LIMIT = 64 << 10
"""Bytes; what a socket buffer of the usual default size takes whole, several times over."""

_ATTACHED = b"\1"
_INLINE = b"\0"
_DESCRIPTOR_SPACE = socket.CMSG_SPACE(array.array("i").itemsize)
_BLOCK = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_NOWAIT = _BLOCK | int(socket.MSG_DONTWAIT)  # as numbers: an enum's | costs as much as the call
_MOMENT = struct.pack("@ll", 0, 2000)
"""Seconds and microseconds; kernels round it up to their tick, 4 or 10 ms."""


class PipeSender(Sender):
    """See `Sender`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._closed = False
        self._messages = 0
        self._nbytes = 0

    def send(self, parts: Sequence[Buffer]) -> None:
        if self._closed:
            raise ClosedChannel("this sender was closed")
        nbytes = sum(map(len, parts))
        try:
            if nbytes <= INLINE_LIMIT:
                self._transmit([_INLINE, *parts], [])
            else:
                self._send_attached(parts, nbytes)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise BrokenChannel("the channel was shut") from error
        except OSError as error:
            if self._socket.fileno() < 0:
                raise BrokenChannel("the channel was closed") from error
            raise ChannelError(f"a message of {nbytes} bytes could not be sent: {error}") from error
        self._messages += 1
        self._nbytes += nbytes

    def _transmit(self, parts: list[Buffer], ancillary: list[Any]) -> None:
        while True:
            try:
                self._socket.sendmsg(parts, ancillary)
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                select.select(
                    [], [self._socket], []
                )  # macOS: a full datagram socket does not block

    def _send_attached(self, parts: Sequence[Buffer], nbytes: int) -> None:
        fd = anonymous_file("splitpipe-message")
        try:
            reserve(fd, 0, nbytes)
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
            rights = array.array("i", [fd])
            self._transmit([_ATTACHED], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """Return what can be written to when there is room."""
        return self._socket.fileno()

    def wait(self, watch: Sequence[int] = (), *, block: bool = True) -> bool:
        if self._closed:
            raise ClosedChannel("this sender was closed")
        # Not whether anything fits, but whether the buffer is nearly empty: that is what the kernel
        # wakes for, and the answer must be the same for who waits and for who asks about him.
        return _writable(self._socket, watch, None if block else 0)

    def full(self) -> bool:
        return not _writable(self._socket, (), 0)

    def close(self) -> None:
        self._closed = True

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._messages, self._nbytes)


def _writable(sock: socket.socket, watch: Sequence[int], timeout_ms: int | None) -> bool:
    """Wait until `sock` takes a message (True), or a descriptor of `watch` is readable."""
    fd = sock.fileno()
    if fd < 0:
        return True  # it is closed: sending says so
    poll = select.poll()  # one of its own: several threads may ask at once
    poll.register(fd, select.POLLOUT)
    for other in watch:
        poll.register(other, select.POLLIN)
    return any(ready == fd for ready, _ in poll.poll(timeout_ms))


class PipeReceiver(Receiver):
    """See `Receiver`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(INLINE_LIMIT + 1)
        self._buffers = [self._buffer]
        self._view = memoryview(self._buffer)
        self._soon: int | None = None  # flags that wait for a moment, once there is a limit
        self._poll: tuple[tuple[int, ...], Any] | None = None
        self._closed = False
        self._messages = 0
        self._nbytes = 0

    def receive(self, *, block: bool = True) -> Buffer | None:
        if not block:
            return self._receive(_NOWAIT)
        while True:
            message = self._receive(_BLOCK)
            if message is not None:
                return message
            self.wait()  # somebody has given blocking a limit (`receive_soon`)

    def receive_soon(self) -> Buffer | None:
        if self._soon is None:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _MOMENT)
                self._soon = _BLOCK
            except OSError:  # without a limit nobody may block: deaths are seen elsewhere
                self._soon = _NOWAIT
        return self._receive(self._soon)

    def _receive(self, flags: int) -> Buffer | None:
        if self._closed:
            raise ClosedChannel("this receiver was closed")
        try:
            nbytes, ancillary, _, _ = self._socket.recvmsg_into(
                self._buffers, _DESCRIPTOR_SPACE, flags
            )
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise BrokenChannel("the channel was shut") from error
        except OSError as error:
            if self._socket.fileno() < 0:
                raise BrokenChannel("the channel was closed") from error
            raise ChannelError(f"a message could not be received: {error}") from error
        if nbytes == 0:
            raise BrokenChannel("the channel was shut")
        message: Buffer
        if ancillary:
            message = _attached(ancillary)
        elif self._view[:1] == _ATTACHED:
            raise ChannelError("a large message came without its descriptor: too many open files")
        else:
            message = bytes(self._view[1:nbytes])
        self._messages += 1
        self._nbytes += len(message)
        return message

    def fileno(self) -> int:
        """Return what can be read when there is a message."""
        return self._socket.fileno()

    def wait(self, watch: Sequence[int] = ()) -> bool:
        if self._closed:
            raise ClosedChannel("this receiver was closed")
        fd = self._socket.fileno()
        if fd < 0:
            raise BrokenChannel("the channel was closed")
        key = tuple(watch)
        if self._poll is None or self._poll[0] != key:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            for other in key:
                poll.register(other, select.POLLIN)
            self._poll = key, poll
        return any(ready == fd for ready, _ in self._poll[1].poll())

    def close(self) -> None:
        self._closed = True

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._messages, self._nbytes)


def _attached(ancillary: list[Any]) -> Buffer:
    """Map the anonymous file that came with a message; it goes with the last view of it."""
    fds = array.array("i")
    fds.frombytes(ancillary[0][2][: fds.itemsize])
    fd = fds[0]
    nbytes = os.fstat(fd).st_size
    try:
        return memoryview(map_shared(fd, 0, nbytes))
    except OSError as error:
        raise ChannelError(
            f"a message of {nbytes} bytes could not be mapped: {error}; send smaller items, or "
            "raise the limit on address space"
        ) from error
    finally:
        os.close(fd)


class PipeLink(Link):
    """A socket pair between any number of writers and readers.

    Example:
        >>> link = PipeLink()
        >>> link.sender().send([b"one ", b"message"])
        >>> bytes(link.receiver().receive())
        b'one message'
        >>> link.close()
    """

    def __init__(self, *, writers: int = 1, readers: int = 1) -> None:
        del writers, readers  # one pair serves any number
        self._pair = SocketPair(buffer_nbytes=1 << 20)

    def sender(self, index: int = 0) -> PipeSender:
        return PipeSender(self._pair.write)

    def receiver(self, index: int = 0) -> PipeReceiver:
        return PipeReceiver(self._pair.read)

    def shut(self) -> None:
        self._pair.shut()

    def close(self) -> None:
        self._pair.close()
