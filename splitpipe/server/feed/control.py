"""What the server and an engine tell each other: lines of JSON over a socket pair.

Responsible for: `Line`, one end of it.

Rules:
- whoever reads is never blocked, and takes any number of lines at once;
- whoever writes gives up on a reader that does not read, and says so: a server must not hang
  because an engine does;
- the end of the file means that the other side is no more.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

from splitpipe.errors import BrokenChannel

__all__ = ["Line"]

LINE_NBYTES = 64 << 20
WRITE_S = 10.0


class Line:
    """One end of a control line.

    Args:
        end: a socket of `socket.socketpair`. It is closed with the line.

    Example:
        >>> import socket
        >>> here, there = (Line(end) for end in socket.socketpair())
        >>> here.send({"kind": "hello"}), there.receive()
        (None, [{'kind': 'hello'}])
        >>> here.close(), there.receive() is None, there.close()
        (None, True, None)
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._rest = bytearray()
        self._put_back: list[dict[str, Any]] = []
        self._turn = threading.Lock()

    def fileno(self) -> int:
        """Its descriptor, to wait on."""
        return self._end.fileno()

    def send(self, told: dict[str, Any]) -> None:
        """Send a line.

        Raises:
            BrokenChannel: the other side is gone, or has not read for too long.
        """
        data = memoryview(json.dumps(told, separators=(",", ":")).encode() + b"\n")
        until = time.monotonic() + WRITE_S
        with self._turn:
            while data:
                try:
                    data = data[self._end.send(data) :]
                except BlockingIOError:
                    if not self._wait(select.POLLOUT, until - time.monotonic()):
                        raise BrokenChannel(
                            "the other end does not read its control line"
                        ) from None
                except (OSError, ValueError) as error:
                    raise BrokenChannel(f"the control line is broken: {error}") from error

    def receive(self) -> list[dict[str, Any]] | None:
        """All lines that are there, without waiting; None when the other side is gone."""
        ended = False
        before, self._put_back = self._put_back, []
        while True:
            try:
                data = self._end.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                ended = True
                break
            self._rest += data
        *whole, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > LINE_NBYTES:
            raise BrokenChannel(f"a control line of more than {LINE_NBYTES} bytes")
        if not whole and not before and ended:
            return None
        return before + [json.loads(line) for line in whole]

    def wait(self) -> None:
        """Wait until something is there, or the other side is gone."""
        self._wait(select.POLLIN, None)

    def _wait(self, event: int, seconds: float | None) -> bool:
        # select() knows no descriptor above 1023, and a server has more.
        poll = select.poll()
        poll.register(self._end, event)
        return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))

    def put_back(self, lines: list[dict[str, Any]]) -> None:
        """Let these be the first that `receive` gives."""
        self._put_back = lines

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._end.close()
