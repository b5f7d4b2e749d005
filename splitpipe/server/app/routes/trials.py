"""Routes about iterations that are only thought of: trying one out, writing its program."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from splitpipe.server.app.access import READ, RUN, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import Body, Json
from splitpipe.server.iterations.description import IterationSpec

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/iterations", tags=["iterations"], responses=PROBLEMS)


class Trial(Body):
    """An iteration that is to be tried out."""

    spec: IterationSpec
    count: int = Field(1, ge=1, le=20, description="How many batches.")


class Described(Body):
    """An iteration that somebody wants the program of."""

    spec: IterationSpec
    id: str | None = Field(None, min_length=1, max_length=200, description="Its id, if chosen.")


class Snippet(Body):
    """A program."""

    code: str


@routes.post("/snippet", dependencies=READ)
def snippet(service: TheService, asked: Described, request: Request) -> Snippet:
    """Write the program that iterates so."""
    url = str(request.base_url).rstrip("/")
    return Snippet(code=service.snippet(asked.spec, url=url, name=asked.id))


@routes.post("/try", dependencies=RUN)
def try_out(service: TheService, trial: Trial) -> Json:
    """Make the first batches, and show them; nothing is stored."""
    return service.try_out(trial.spec, count=trial.count)
