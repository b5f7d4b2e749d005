"""Which link a client takes.

Responsible for: `Links`: asks the server for a ticket, and makes a link of what it answers.

Rules:
- the server says where the engine listens, in the order of its own preference; the first one that
  somebody listens at is taken;
- with ``transport="auto"`` HTTP takes over where none of them answers, and where a connection that
  could be made does not lead to a `Welcome`;
- a ticket is a secret: it is in no message and no URL.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from splitpipe.client.feed.http import HttpLink
from splitpipe.client.feed.link import Link
from splitpipe.client.feed.session import Session
from splitpipe.client.feed.zeromq import ZmqLink, reachable
from splitpipe.client.http import Http, path
from splitpipe.errors import ServiceError, Unavailable

__all__ = ["Links", "Transport"]

Transport: TypeAlias = Literal["auto", "zmq", "http"]

_TICKET_S = 45.0
"""How long an answer may take: an engine may have to be started first."""


class _Ticket(msgspec.Struct):
    """Leave to speak to an engine, and where it is."""

    ticket: str
    endpoints: list[str]
    server_key: str | None = None


class Links:
    """Makes links to the engine of one iteration.

    Args:
        http: the server; requests of others are not touched by `abort`.
        iteration: its id.
        transport: what may be used.
    """

    def __init__(self, http: Http, iteration: str, transport: Transport) -> None:
        self._http = http.again()
        self._iteration = iteration
        self._transport = transport
        self._vain = 0  # ZeroMQ links that did not lead to a welcome, one after the other
        self.name = "none"

    def make(self, session: Session) -> tuple[Link, str]:
        """Return a link, and the ticket for what is said over it.

        Raises:
            Unavailable: the server, or the engine, cannot be reached now.
            ServiceError: the server will not have it.
        """
        asked = session.asked
        body = {"rank": asked.rank, "client": asked.client or None, "session": session.name}
        answer = self._http.once(
            "POST",
            path("iterations", self._iteration, "tickets"),
            body=msgspec.json.encode(body),
            timeout_s=_TICKET_S,
        )
        if answer.status in (429, 500, 502, 503, 504):
            raise Unavailable(f"{self._http.url} answered with status {answer.status}")
        told = _told(answer.checked().body)
        if self._transport == "zmq" or (self._transport == "auto" and not self._vain % 2):
            for endpoint in told.endpoints:
                if reachable(endpoint):
                    self._vain += 1
                    self.name = endpoint.partition(":")[0]
                    return self._zmq(endpoint, told, asked.frame_nbytes), told.ticket
            if self._transport == "zmq":
                raise Unavailable(
                    f"nobody listens at {', '.join(told.endpoints) or 'any endpoint'}"
                )
        self._vain += bool(self._vain)
        self.name = "http"
        where = path("iterations", self._iteration, "feed")
        http = self._http.again()
        return HttpLink(http, where, answer_nbytes=asked.message_nbytes), told.ticket

    def _zmq(self, endpoint: str, told: _Ticket, frame_nbytes: int) -> ZmqLink:
        # A socket in a private folder needs no keys: who can open it is this user.
        key = None if endpoint.startswith("ipc:") else told.server_key
        return ZmqLink(endpoint, server_key=key, frame_nbytes=frame_nbytes)

    def welcome(self) -> None:
        """The last link led to a welcome."""
        if self.name != "http":
            self._vain = 0

    def abort(self) -> None:
        """End a request that another thread makes here, and make none any more."""
        self._http.abort()


def _told(body: bytes) -> _Ticket:
    """Return what the server says of a ticket."""
    try:
        return msgspec.json.decode(body, type=_Ticket)
    except msgspec.MsgspecError as error:
        raise ServiceError(f"an answer about a ticket that is none: {error}") from None
