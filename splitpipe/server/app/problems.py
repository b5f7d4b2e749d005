"""Errors as the problem documents of RFC 9457.

Responsible for: which error has which status, and what of it a client is told.

Rules:
- ``{"type", "title", "status", "detail", "hint"}``: ``type`` names the class, ``detail`` says what
  happened and where, ``hint`` what to try;
- an error that nobody foresaw says nothing but its request's id: its traceback is for the log.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from splitpipe import errors
from splitpipe.errors import SplitpipeError

__all__ = ["PROBLEMS", "Problem", "problem", "register"]

_log = logging.getLogger(__name__)
_MEDIA = "application/problem+json"
_MOST_DETAILS = 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

_STATUS: tuple[tuple[str, int], ...] = (
    ("NotFound", 404),
    ("Conflict", 409),
    ("NotAllowed", 403),
    ("WireError", 400),
    ("InvalidRequest", 422),
    ("Unavailable", 503),
    ("LockedError", 409),
    ("DatasetChanged", 409),
    ("ResumeError", 409),
    ("RemoteError", 502),
    ("CacheFull", 503),
    ("FormatError", 422),
    ("GraphError", 422),
    ("StorageError", 422),
)
"""The first that an error is one of counts."""


class Problem(BaseModel):
    """Why a request was not done."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The kind of the problem: the name of an error.")
    title: str = Field(description="What the status means.")
    status: int = Field(description="The status of the answer.")
    detail: str = Field(description="What happened, and where.")
    hint: str | None = Field(None, description="What to try.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said, "content": {_MEDIA: {}}}
    for status, said in {
        "4XX": "The request cannot be done as it is.",
        "5XX": "The server, or a store that it reads, failed.",
    }.items()
}
"""What every route may answer beside what it is for."""


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "about:blank",
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer that says why a request was not done."""
    content = Problem(
        type=kind, title=HTTPStatus(status).phrase, status=status, detail=detail, hint=hint
    )
    return JSONResponse(
        content.model_dump(), status, headers=dict(headers or {}), media_type=_MEDIA
    )


def register(app: FastAPI) -> None:
    """Have an application answer its errors so."""
    app.add_exception_handler(SplitpipeError, _ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _unforeseen)


def _ours(_request: Request, error: Exception) -> Response:
    detail = " ".join(str(error).split())
    return problem(_status(error), detail, kind=type(error).__name__, hint=_hint(error))


def _status(error: Exception) -> int:
    if isinstance(error, errors.StorageError) and error.errno in _NO_ROOM:
        return 507  # nobody's request is wrong: the server cannot write
    for name, status in _STATUS:
        if isinstance(error, getattr(errors, name, ())):
            return status
    return 400


def _hint(error: Exception) -> str | None:
    notes = getattr(error, "__notes__", ())
    return "\n".join(notes) or None


def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), headers=error.headers)


def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = []
    for one in error.errors()[:_MOST_DETAILS]:
        where = ".".join(str(part) for part in one["loc"])
        said.append(f"{where}: {one['msg']}")
    return problem(422, "; ".join(said), kind="ValidationError", hint="See /openapi.json.")


def _unforeseen(request: Request, error: Exception) -> Response:
    identity = getattr(request.state, "request_id", None)
    _log.error("unforeseen error", exc_info=error, extra={"request_id": identity})
    return problem(
        500,
        "The server met an error that nobody foresaw.",
        kind="InternalError",
        hint=f"Its log has the whole of it, as request {identity}.",
    )
