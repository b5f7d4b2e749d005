"""Pairs of connected sockets that carry whole messages between processes.

Responsible for: `SocketPair`: which kind of socket, and how a pair ends.

Rules:
- message boundaries are kept, and every message goes to exactly one reader;
- `shut` reaches every process that holds an end, wherever it waits, also after the pair was closed
  here or there.
"""

from __future__ import annotations

import errno
import socket

__all__ = ["SocketPair"]

# Where there is no SOCK_SEQPACKET between processes (macOS) datagrams keep boundaries as well.
_KIND = socket.SOCK_SEQPACKET if hasattr(socket, "MSG_CMSG_CLOEXEC") else socket.SOCK_DGRAM
_GONE = (errno.ENOTCONN, errno.EBADF)


class SocketPair:
    """Two ends; what is sent into `write` comes out of `read`.

    It is an argument of child processes: both ends travel, closing one side's pair leaves the
    others'.

    Args:
        buffer_nbytes: room for messages under way; None for the system's usual.

    Example:
        >>> pair = SocketPair()
        >>> pair.write.send(b"one"), pair.write.send(b"two"), pair.read.recv(99)
        (3, 3, b'one')
        >>> pair.shut(); pair.close()
    """

    __slots__ = ("read", "write")

    def __init__(self, *, buffer_nbytes: int | None = None) -> None:
        self.write, self.read = socket.socketpair(socket.AF_UNIX, _KIND)
        if buffer_nbytes is not None:
            for end in (self.write, self.read):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, buffer_nbytes)

    def shut(self) -> None:
        """Let every end, everywhere, read its end: nothing will come any more."""
        for end in (self.write, self.read):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def close(self) -> None:
        """Let go of this process's ends; twice is harmless."""
        self.write.close()
        self.read.close()
