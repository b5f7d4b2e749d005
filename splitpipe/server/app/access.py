"""What a route needs of whoever asks.

Responsible for: the dependencies of routes: the service, a role, and what the OpenAPI document says
of both. Who asks was found out before, by `gate.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.exceptions import HTTPException

from splitpipe.server.security import Role, may
from splitpipe.server.service import Service

__all__ = ["ADMIN", "COOKIE", "READ", "RUN", "TheService"]

COOKIE = "splitpipe_token"
"""The cookie in which a browser keeps the token that somebody logged in with."""

_BEARER = HTTPBearer(auto_error=False, description="A token: `splitpipe keys ROOT --token NAME`.")
_OF_PAGES = APIKeyCookie(name=COOKIE, auto_error=False, description="A token, of a browser.")


class _Needs:
    """A dependency: whoever asks must have a role, or one that allows more."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def __call__(
        self,
        request: Request,
        _bearer: Annotated[Any, Security(_BEARER)],
        _cookie: Annotated[Any, Security(_OF_PAGES)],
    ) -> None:
        role: Role | None = request.state.role
        if role is None:
            raise HTTPException(
                401,
                "This server asks for a token, in the header Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        if not may(role, self._role):
            raise HTTPException(403, f"This needs the role {self._role!r}; the token has {role!r}.")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
READ = [Depends(_Needs("read"))]
RUN = [Depends(_Needs("run"))]
ADMIN = [Depends(_Needs("admin"))]
