"""Hearing a request out that was answered before it had been sent.

Responsible for: taking in, and throwing away, what a client still sends after an early answer.

Rules:
- an answer reaches who asked, however early it was given: a socket that is closed with bytes
  unread resets its connection, and the client, which still writes, is told of a broken pipe
  instead of the reason (nginx: `lingering_close`, RFC 9112, section 9.6);
- nothing is kept, and there is an end: `LULL_S` without a byte, or `LINGER_S` in all.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lingering"]

LINGER_S = 30
LULL_S = 5


class Lingering:
    """Around an application: connections that end with an answer end after the request, too.

    Those that stay open for the next request are read on by the server itself.

    Args:
        app: what is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and hear it out."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if scope["http_version"] == "1.0" or _closes(headers):
                heard = _Heard(headers, receive, send)
                receive, send = heard.receive, heard.send
        await self._app(scope, receive, send)


class _Heard:
    """How much of one request has been heard."""

    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        # Who waits for "100 Continue" sends nothing until somebody reads.
        self._asked = headers.get("expect", "").lower() != "100-continue"
        self._more = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

    async def receive(self) -> Message:
        self._asked = True
        message = await self._receive()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (last and self._more and self._asked):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._more:
                    async with asyncio.timeout(LULL_S):
                        await self.receive()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _closes(headers: Headers) -> bool:
    said = headers.get("connection", "").lower()
    return "close" in [word.strip() for word in said.split(",")]
