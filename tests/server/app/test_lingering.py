"""Answers that are given before a request has been sent, and reach who asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from splitpipe.server.app import lingering
from splitpipe.server.app.lingering import Lingering
from tests.server.serving import Served, serving

NBYTES = 16 << 20  # more than the buffers of two sockets hold
PIECE = b"x" * 65_536


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root: Path = tmp_path_factory.mktemp("lingering") / "root"
    with serving(root, "--max-upload", "1") as served:
        yield served


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("end", ["Connection: close\r\n", "Connection: keep-alive\r\n"])
def test_an_early_answer_reaches_who_still_writes(
    server: Served, end: str, *, chunked: bool
) -> None:
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {NBYTES}"
    head = f"POST /api/v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\n{end}{size}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        early = 2 << 20 if chunked else 0  # it is refused only when too much of it has come
        for _ in range(0, early, len(PIECE)):
            connection.sendall(piece)
        assert connection.recv(1, socket.MSG_PEEK)  # answered: the rest comes too late
        for _ in range(early, NBYTES, len(PIECE)):
            connection.sendall(piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("headers", "version", "read"),
    [
        ({"connection": "close", "content-length": "9"}, "1.1", 3),
        ({"connection": "x, Close", "transfer-encoding": "chunked"}, "1.1", 3),
        ({"content-length": "9"}, "1.0", 3),
        ({"content-length": "9"}, "1.1", 0),  # uvicorn reads on by itself
        ({"connection": "close"}, "1.1", 0),
        ({"connection": "close", "content-length": "0"}, "1.1", 0),
        # Nothing comes from who waits to be asked.
        ({"connection": "close", "content-length": "9", "expect": "100-Continue"}, "1.1", 0),
    ],
)
def test_what_is_heard_out(headers: dict[str, str], version: str, read: int) -> None:
    pieces = [{"type": "http.request", "body": b"abc", "more_body": n < 2} for n in range(3)]
    left, said = _drive(headers, version, pieces)
    assert 3 - len(left) == read
    assert b"".join(message.get("body", b"") for message in said) == b"no"
    more = [message.get("more_body", False) for message in said[1:]]
    assert more == ([True, False] if read else [False])


def test_who_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LULL_S", 0)
    _, said = _drive({"connection": "close", "content-length": "9"}, "1.1", [])
    assert said[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_who_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 0)
    endless = [{"type": "http.request", "body": b"abc", "more_body": True}]
    _, said = _drive({"connection": "close", "content-length": "9"}, "1.1", endless)
    assert said[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def _drive(
    headers: dict[str, str], version: str, pieces: list[dict[str, Any]]
) -> tuple[list[Message], list[Message]]:
    """What is left unread of the pieces of a request, and what was said to it."""
    left: list[Message] = list(pieces)
    said: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: Message) -> None:
        said.append(message)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    scope = {
        "type": "http",
        "http_version": version,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Lingering(refuse)(scope, receive, send))
    return left, said
