"""Parts of pages that change while they are looked at.

Responsible for: streams of server-sent events, each a new rendering of a part.

Rules:
- something is sent when it differs from what was sent before, and twice a second at most;
- a stream ends when its reader is gone, the server closes, or nothing can change any more;
- a bounded number of readers: beyond it a page is what it was when it was loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from splitpipe.errors import NotFound, SplitpipeError

__all__ = ["Readers", "event"]

EVERY_S = 0.5
QUIET_S = 15.0
MOST_READERS = 200

Look = Callable[[], tuple[str, bool]]
"""Renders the part; says also whether it may still change."""


def event(kind: str, text: str) -> str:
    r"""One server-sent event.

    Example:
        >>> event("part", "<p>\none</p>")
        'event: part\ndata: <p>\ndata: one</p>\n\n'
    """
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {kind}\n{lines}\n"


class Readers:
    """All that follow a part at the moment.

    Args:
        closing: Whether the server is on its way out.
    """

    def __init__(self, closing: Callable[[], bool]) -> None:
        self._closing = closing
        self._count = 0

    def stream(self, request: Request, look: Look) -> Response:
        """An answer that goes on until there is nothing more to tell."""
        if self._count >= MOST_READERS:
            # 204 tells an EventSource not to come back.
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = self._events(request, look)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, request: Request, look: Look) -> AsyncIterator[str]:
        self._count += 1
        try:
            sent, quiet = None, 0.0
            yield "retry: 1000\n\n"
            while not self._closing() and not await request.is_disconnected():
                try:
                    text, changes = await run_in_threadpool(look)
                except NotFound:
                    yield event("gone", "")
                    break
                except SplitpipeError:
                    break  # the reader comes back, and is told by the page what is wrong
                if text != sent:
                    sent, quiet = text, 0.0
                    yield event("part", text)
                elif quiet >= QUIET_S:
                    quiet = 0.0
                    yield ": still here\n\n"
                if not changes:
                    yield event("end", "")
                    break
                await asyncio.sleep(EVERY_S)
                quiet += EVERY_S
        finally:
            self._count -= 1
