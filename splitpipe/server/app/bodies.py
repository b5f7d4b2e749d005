"""How large the body of a request may be.

Responsible for: refusing what is larger, by what it says of itself and by what then comes.

Rules:
- nothing beyond the limit is kept, however it is sent;
- only uploads may be large.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splitpipe.server.app.problems import problem

__all__ = ["Bodies"]

SMALL_NBYTES = 1 << 20
_UPLOAD = re.compile(r"/api/v1/datasets/[^/]+/column-sets/[^/]+/rows")


class Bodies:
    """A limit on bodies, around an application.

    Args:
        app: what is behind it.
        upload_nbytes: the largest body of an upload.
    """

    def __init__(self, app: ASGIApp, *, upload_nbytes: int) -> None:
        self._app = app
        self._upload_nbytes = upload_nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through whose body is small enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload_nbytes if _UPLOAD.fullmatch(scope["path"]) else SMALL_NBYTES
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or len(declared) > 18 or int(declared) > limit:
            await problem(413, _said(limit), kind="TooLarge")(scope, receive, send)
            return
        come = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > limit:
                raise HTTPException(413, _said(limit))
            return message

        await self._app(scope, counted, send)


def _said(limit: int) -> str:
    return f"The body of this request may have at most {limit} bytes."
