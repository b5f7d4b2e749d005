"""Objects that own descriptors, on their way to a process that runs already.

Responsible for: `send_parcel` and `receive_parcel`, over a stream socket between a process and one
that it has started: one pickle, and the descriptors in it.

Rules:
- what travels is what could be an argument of a process that is being started: links, arenas,
  sockets pickle as they do there;
- the receiver owns what arrives; a parcel that does not arrive as a whole leaves no descriptor
  behind.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from multiprocessing import context, reduction
from typing import Any

from splitpipe.transport.pickling import PROTOCOL, load

__all__ = ["receive_parcel", "send_parcel"]

_HEAD = struct.Struct("<QI")
_MOST_FDS = 200
"""Descriptors in one message; the kernel's own limit is 253."""
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))


def send_parcel(sock: socket.socket, value: object) -> None:
    """Send `value`.

    Raises:
        OSError: nobody takes it, or not within the socket's timeout.

    Example:
        >>> from splitpipe.transport.anonymous import Descriptor
        >>> here, there = socket.socketpair()
        >>> reading, writing = map(Descriptor, os.pipe())
        >>> send_parcel(here, ["a pipe", reading])
        >>> word, other = receive_parcel(there)
        >>> os.write(writing.fd, b"through it"), os.read(other.fd, 99)
        (10, b'through it')
        >>> for one in (here, there, reading, writing, other):
        ...     one.close()
    """
    data, fds = _packed(value)
    sock.sendall(_HEAD.pack(len(data), len(fds)))
    for first in range(0, len(fds), _MOST_FDS):
        socket.send_fds(sock, [b"."], fds[first : first + _MOST_FDS])
    sock.sendall(data)


def receive_parcel(sock: socket.socket) -> Any:
    """Return what the other end has sent.

    Raises:
        EOFError: it sends nothing any more.
        OSError: it did not arrive.
    """
    nbytes, count = _HEAD.unpack(_exactly(sock, _HEAD.size))
    fds: list[int] = []
    try:
        while len(fds) < count:
            some = _descriptors(sock, min(_MOST_FDS, count - len(fds)))
            fds += some
            if not some:
                raise OSError("descriptors were lost on their way: too many open files?")
        return _unpacked(_exactly(sock, nbytes), fds)
    finally:
        for fd in fds:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)


def _descriptors(sock: socket.socket, most: int) -> list[int]:
    space = socket.CMSG_SPACE(most * array.array("i").itemsize)
    _, ancillary, _, _ = sock.recvmsg(1, space, _CLOEXEC)
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _exactly(sock: socket.socket, nbytes: int) -> bytearray:
    data = bytearray(nbytes)
    left = memoryview(data)
    while left:
        read = sock.recv_into(left)
        if not read:
            raise EOFError("the other end was closed")
        left = left[read:]
    return data


class _Collector:
    """Stands in for a process that is being started: takes note of the descriptors it is given."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1

    def DupFd(self, number: int) -> _Sent:  # noqa: N802 - multiprocessing asks for this name
        return _Sent(number)


class _Sent:
    """A descriptor on its way, by its number in the parcel."""

    def __init__(self, number: int) -> None:
        self.number = number

    def detach(self) -> int:
        fd, _arriving[self.number] = _arriving[self.number], -1
        return fd


_arriving: list[int] = []
"""Descriptors of the parcel that is being unpacked: by the main thread of a worker process."""


def _packed(value: object) -> tuple[memoryview, Sequence[int]]:
    collector = _Collector()
    context.set_spawning_popen(collector)  # type: ignore[arg-type]
    try:
        data = reduction.ForkingPickler.dumps(value, PROTOCOL)
    finally:
        context.set_spawning_popen(None)
    return memoryview(data), collector.fds


def _unpacked(data: bytearray, fds: list[int]) -> Any:
    global _arriving
    _arriving = fds  # those that are taken out of it are somebody's
    try:
        return load(data)
    finally:
        _arriving = []
