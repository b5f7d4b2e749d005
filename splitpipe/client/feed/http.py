"""A link over HTTP, where ZeroMQ does not get through.

Responsible for: `HttpLink`: one request at a time that waits for messages, and short ones that
carry what the client says.

Rules:
- only the waiting request brings messages, so they come in their order;
- nobody waits for what is said to be heard: a thread carries it, all that has gathered at once;
- a request that fails ends the link: what its answer held is sent again after the next `Hello`;
- what has arrived and is not taken is bounded by the window that the client asked for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import threading
from collections.abc import Callable, Sequence

from splitpipe.client.feed.link import BrokenLink, Link
from splitpipe.client.http import Http
from splitpipe.errors import ServiceError
from splitpipe.wire.limits import DEFAULT, Buffer, Limits
from splitpipe.wire.packing import join, split_all

__all__ = ["HttpLink"]

_WAIT_S = 20.0
_SPARE_S = 15.0
_KIND = "application/octet-stream"


class HttpLink(Link):
    """Requests to one iteration's feed.

    Args:
        http: the server. It is closed with the link.
        where: the path of the feed.
        answer_nbytes: the most bytes that one answer may have.
    """

    def __init__(self, http: Http, where: str, *, answer_nbytes: int) -> None:
        self._http = http
        self._where = where
        self._limits = Limits(frames=DEFAULT.frames, nbytes=answer_nbytes)
        self._name = secrets.token_hex(16)
        self._changed = threading.Condition()
        self._arrived: list[list[Buffer]] = []
        self._leaving: list[bytes] = []
        self._busy = False  # what was left to say is on its way
        self._error: Exception | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name="splitpipe-feed", daemon=True)
            for work in (self._say, self._listen)
        ]
        self._threads[0].start()

    def send(self, messages: Sequence[Sequence[Buffer]]) -> None:
        with self._changed:
            self._leaving += [join(frames) for frames in messages]
            self._changed.notify_all()

    def receive(self) -> list[list[Buffer]]:
        with self._changed:
            found, self._arrived = self._arrived, []
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)
            if not found and self._error is not None:
                raise BrokenLink(f"the feed over HTTP was lost: {self._error}")
        return found

    def wait(self, timeout_s: float, wake: int) -> None:
        poll = select.poll()
        for fd in (self._read, wake):
            poll.register(fd, select.POLLIN)
        with self._changed:
            if self._arrived or self._error is not None:
                return
        poll.poll(max(0.0, timeout_s * 1e3))

    def close(self, linger_s: float = 0.0) -> None:
        with self._changed:
            if self._closed:
                return
            self._changed.wait_for(
                lambda: self._error is not None or not (self._leaving or self._busy), linger_s
            )
            self._closed = True
            self._changed.notify_all()
        self._http.abort()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        os.close(self._read)
        os.close(self._write)

    def _ask(self, body: bytes, wait_s: float) -> bytes:
        query = {"link": self._name, "wait_s": wait_s}
        try:
            answer = self._http.once(
                "POST",
                self._where,
                body=body,
                kind=_KIND,
                query=query,
                timeout_s=wait_s + _SPARE_S,
                limit_nbytes=self._limits.nbytes,
            )
            return answer.checked().body
        except ServiceError as error:
            raise BrokenLink(f"the feed over HTTP was lost: {error}") from None

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._tell([], error)

    def _say(self) -> None:
        """Carry what is to be said, all that waits at once; the first of it is a Hello."""
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._leaving or self._closed)
                if self._closed:
                    return
                said, self._leaving, self._busy = self._leaving, [], True
            self._ask(b"".join(said), 0.0)
            if self._threads[1].ident is None:
                self._threads[1].start()

    def _listen(self) -> None:
        """Ask for messages, again and again."""
        while not self._closed:
            found = split_all(self._ask(b"", _WAIT_S), limits=self._limits)
            if found:
                self._tell(list(map(list, found)), None)

    def _tell(self, found: list[list[Buffer]], error: Exception | None) -> None:
        with self._changed:
            self._arrived += found
            self._error = self._error or error
            self._changed.notify_all()
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write, b"x")
