"""The door: who asks, under which name, how often, with how much.

Responsible for: refusing what must not reach a route, and saying who asks (``request.state.role``
and ``.token_name``). What a role allows is the routes' business.

Rules:
- plain ASGI: no request is held up, and no body is read, to be looked at;
- a token comes in a header or in the cookie of a page, never in an address, which logs would keep;
- a header with a wrong token is an error, also where none is needed, and tokens cannot be tried at
  any speed;
- an answer that goes on and on ends with the token that it was asked for with.
"""

from __future__ import annotations

import asyncio
from http.cookies import CookieError, SimpleCookie

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splitpipe.server.app.access import COOKIE
from splitpipe.server.app.problems import problem
from splitpipe.server.security import HostRules, Rates, Role, Token, Tokens, is_loopback
from splitpipe.server.settings import Settings

__all__ = ["Gate"]

_OPEN = frozenset({"/healthz"})
"""Asked by what has no token, often, and says nothing."""
_LOOK_S = 0.5
"""How often the token of an answer that goes on is looked at."""
_OVER = b": the token is worth nothing any more\n\n"


class Gate:
    """The door of a server, around its application.

    Args:
        app: what is behind it.
        settings: of the server.
        tokens: that it knows.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = HostRules(settings.host, settings.allowed_hosts)
        guarded = settings.require_token or not is_loopback(settings.host)
        self._nobody: Role | None = None if guarded else "admin"
        self._asked = Rates(per_s=settings.rate_per_s, burst=2 * settings.rate_per_s)
        self._failed = Rates(per_s=0.5, burst=20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, state = Headers(scope=scope), scope.setdefault("state", {})
        state["role"], state["token_name"] = self._nobody, None
        token = None
        answer = self._refused(scope["method"], headers)
        if answer is None and scope["path"] not in _OPEN:
            token, answer = await self._who(scope, headers)
            if token is not None:
                state["role"], state["token_name"] = token.role, token.name
        if answer is None and token is not None:
            await self._while_good(_text(headers) or "", scope, receive, send)
        else:
            await (answer or self._app)(scope, receive, send)

    async def _while_good(self, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a stream of events ends when the token is worth nothing any more."""
        looking: asyncio.Task[None] | None = None
        with anyio.CancelScope() as answering:

            async def sent(message: Message) -> None:
                nonlocal looking
                if message["type"] == "http.response.start" and _goes_on(message):
                    looking = asyncio.create_task(self._look(text, answering))
                await send(message)

            try:
                await self._app(scope, receive, sent)
            finally:
                if looking is not None:
                    looking.cancel()
        if answering.cancelled_caught:
            await send({"type": "http.response.body", "body": _OVER, "more_body": False})

    async def _look(self, text: str, answering: anyio.CancelScope) -> None:
        """End an answer with its token. Looking costs nothing while the token is remembered."""
        while self._tokens.remembered(text) or await anyio.to_thread.run_sync(
            self._tokens.check, text
        ):
            await asyncio.sleep(_LOOK_S)
        answering.cancel()

    def _refused(self, method: str, headers: Headers) -> ASGIApp | None:
        """The answer to a request that comes under a wrong name, or from somebody else's page."""
        host = headers.get("host")
        if not self._hosts.knows(host) or len(headers.getlist("host")) != 1:
            return problem(
                421,
                "This server is not called by that name.",
                kind="UnknownHost",
                hint="Start it with --allowed-host NAME, if the name is right.",
            )
        from_page = self._hosts.may_ask(
            method,
            host=host or "",
            origin=headers.get("origin"),
            site=headers.get("sec-fetch-site"),
            cookie="authorization" not in headers and _cookie(headers) is not None,
        )
        if not from_page:
            return problem(403, "A page of another origin may change nothing.", kind="WrongOrigin")
        return None

    async def _who(self, scope: Scope, headers: Headers) -> tuple[Token | None, ASGIApp | None]:
        """The token of a request, and the answer where it is wrong or comes too often."""
        address = (scope.get("client") or ("unknown", 0))[0]
        text, token = _text(headers), None
        if text is not None:
            token = self._tokens.remembered(text)
            if token is None:
                wait_s = self._failed.wait_s(address, cost=0)
                if wait_s:
                    return None, _too_often(wait_s, "Wrong tokens come too often from there.")
                token = await anyio.to_thread.run_sync(self._tokens.check, text)
            if token is None:
                self._failed.wait_s(address)
                # Whoever comes with an old cookie is nobody, and a page asks to log in again.
                if "authorization" in headers:
                    return None, _wrong_token()
        wait_s = self._asked.wait_s(f"token {token.id}" if token else f"address {address}")
        return token, _too_often(wait_s, "Requests come too often.") if wait_s else None


def _goes_on(message: Message) -> bool:
    """Whether an answer lasts until somebody ends it."""
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return kind.startswith("text/event-stream")


def _text(headers: Headers) -> str | None:
    """The token of a request, if it has one; the empty text is one that is wrong."""
    said = headers.get("authorization")
    if said is None:
        return _cookie(headers)
    kind, _, text = said.partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: Headers) -> str | None:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    return cookies[COOKIE].value if COOKIE in cookies else None


def _wrong_token() -> ASGIApp:
    return problem(
        401,
        "The token is wrong, or worth nothing any more.",
        kind="WrongToken",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _too_often(wait_s: float, detail: str) -> ASGIApp:
    after = {"Retry-After": str(max(1, round(wait_s + 0.5)))}
    return problem(429, detail, kind="TooOften", hint="Ask again later.", headers=after)
