"""Who looks at a page, and what that one may do.

Responsible for: reading what the server's guard has found out about a request; the cookie that a
browser keeps a token in; which page is refused.

Rules:
- whether a token is good is decided by the guard alone, for pages as for everything else;
- the cookie holds the token, is out of reach of scripts, and is sent to this site from this site
  alone. It is never set over another host's request: the guard compares origins before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from fastapi import Request, Response

__all__ = [
    "COOKIE",
    "Refused",
    "SignIn",
    "Who",
    "keep",
    "may_of",
    "needs",
    "safe_next",
    "url_here",
    "who_of",
]

COOKIE = "splitpipe_token"
"""Name of the cookie."""

_ROLES = ("read", "run", "admin")
_KEPT_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks.

    Args:
        role: ``"read"``, ``"run"``, ``"admin"``, or None for somebody unknown.
        name: Of the token, where one was shown.
        signed_in: Whether it came by the cookie, so that there is something to sign out of.
    """

    role: str | None
    name: str | None = None
    signed_in: bool = False

    def may(self, role: str) -> bool:
        """Whether this one may do what `role` may."""
        return self.role is not None and _ROLES.index(self.role) >= _ROLES.index(role)


class SignIn(Exception):
    """Nobody knows who asks: the way leads to the page that asks for a token."""


class Refused(Exception):
    """Who asks may not do this.

    Args:
        role: What it would take.
    """

    def __init__(self, role: str) -> None:
        super().__init__(f"this takes a token with the role {role}")
        self.role = role


def who_of(request: Request) -> Who:
    """Who asks, as the guard found out."""
    role = getattr(request.state, "role", None)
    name = getattr(request.state, "token_name", None)
    return Who(role, name, signed_in=role is not None and COOKIE in request.cookies)


def may_of(who: Who) -> dict[str, bool]:
    """What a page may offer, by role."""
    return {role: who.may(role) for role in _ROLES}


def needs(role: str) -> Callable[[Request], Awaitable[Who]]:
    """A dependency of a route: somebody of this role.

    Raises:
        SignIn: nobody knows who asks.
        Refused: another role is needed.
    """

    async def somebody(request: Request) -> Who:
        who = who_of(request)
        if who.role is None:
            raise SignIn
        if not who.may(role):
            raise Refused(role)
        return who

    return somebody


def keep(response: Response, token: str, *, secure: bool) -> None:
    """Have the browser keep the token."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=_KEPT_S,
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def safe_next(target: str) -> str:
    """Where to go after signing in: a path of this server, whatever was asked for.

    Example:
        >>> safe_next("/tasks?said=x"), safe_next("//evil.example/"), safe_next("https://evil.example")
        ('/tasks?said=x', '/datasets', '/datasets')
    """
    target = target.replace("\\", "/")
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path.startswith("/"):
        return "/datasets"
    if target.startswith("//") or parts.path.startswith("/log"):
        return "/datasets"
    return quote(parts.path, safe="/%:@+,;=~!$&'()*") + (f"?{parts.query}" if parts.query else "")


def url_here(request: Request) -> str:
    """Where the browser has found this server."""
    return f"{request.url.scheme}://{request.url.netloc}"
