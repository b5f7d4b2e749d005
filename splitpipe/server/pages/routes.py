"""The routes of the page, put together.

Responsible for: the router that the server includes, files of the look, and what a browser is shown
when something goes wrong.

Rules:
- an error of ours becomes a page that says what happened and what to try, never a traceback;
- whoever is not known is led to the page that asks for a token, and back.
"""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from splitpipe.errors import SplitpipeError
from splitpipe.server.pages import (
    dataset_routes,
    desk_routes,
    iteration_routes,
    record_routes,
    token_routes,
)
from splitpipe.server.pages.access import Refused, SignIn
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.problems import problem_of
from splitpipe.server.pages.rendering import ASSETS, page

__all__ = ["pages"]

_log = logging.getLogger(__name__)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_ASSET_NAMES = frozenset({"page.css", "page.js", "icon.svg"})


class _PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> _Handler:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignIn:
                target = request.url.path if request.method == "GET" else "/datasets"
                return RedirectResponse(f"/login?next={quote(target, safe='/')}", 303)
            except Refused as error:
                return _went_wrong(request, "This is not yours to do", f"{error}.", 403)
            except HTTPException as error:
                return _went_wrong(
                    request, "This cannot be done", str(error.detail), error.status_code
                )
            except RequestValidationError as error:
                first = error.errors()[0]
                what = f"{first['loc'][-1]}: {first['msg']}."
                return _went_wrong(request, "The address makes no sense", what, 422)
            except SplitpipeError as error:
                status, problem = problem_of(error)
                values = {"problem": problem, "back": "/"}
                return page(request, "problem.html", values, status=status)
            except Exception as error:
                return _unforeseen(request, error)

        return handle


def _unforeseen(request: Request, error: Exception) -> Response:
    identity = getattr(request.state, "request_id", None)
    _log.error("unforeseen error", exc_info=error, extra={"request_id": identity})
    detail = f"Nobody foresaw this error. The server's log has the whole of it, as {identity}."
    return _went_wrong(request, "The server met an error", detail, 500)


def _went_wrong(request: Request, title: str, detail: str, status: int) -> Response:
    problem = {"title": title, "detail": detail, "hint": ""}
    return page(request, "problem.html", {"problem": problem, "back": "/"}, status=status)


def pages(service: Any) -> APIRouter:
    """Everything that a browser is shown.

    Args:
        service: What the pages call.
    """
    return router_of(Calls(service))


def router_of(calls: Any) -> APIRouter:
    """The routes, over what they call."""
    router = APIRouter(route_class=_PageRoute, include_in_schema=False)

    @router.get("/")
    def start() -> Response:
        return RedirectResponse("/datasets", 303)

    @router.get("/static/{name}")
    def asset(name: str) -> Response:
        if name not in _ASSET_NAMES:
            raise HTTPException(404, "there is no such file")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        return Response((ASSETS / name).read_bytes(), media_type=kind, headers=headers)

    dataset_routes.add(router, calls)
    record_routes.add(router, calls)
    iteration_routes.add(router, calls)
    desk_routes.add(router, calls)
    token_routes.add(router, calls)
    return router
