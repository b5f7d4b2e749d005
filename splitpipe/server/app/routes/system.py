"""Routes about the server itself: is it well, what does it count, which version is it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

import splitpipe
from splitpipe.server.app.access import READ, TheService
from splitpipe.server.app.problems import PROBLEMS

__all__ = ["routes"]

routes = APIRouter(responses=PROBLEMS)


class Health(BaseModel):
    """That the server can do its work."""

    status: str = Field(description='"ok"')


class Version(BaseModel):
    """Which server it is."""

    version: str = Field(description="Of splitpipe.")
    api: int = Field(description="Of these routes: raised when one of them means something else.")
    server: str = Field(description="The id of the server's folder.")


@routes.get("/healthz", tags=["server"])
def healthz(service: TheService) -> Health:
    """Say whether the server can do its work."""
    return Health(**service.health())


@routes.get(
    "/metrics",
    tags=["server"],
    dependencies=READ,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Numbers of the server, in Prometheus's text format."""
    text = request.app.state.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@routes.get("/api/v1/version", tags=["server"], dependencies=READ)
def version(service: TheService) -> Version:
    """Say which version the server has."""
    identity = service.settings.root.identity
    return Version(version=splitpipe.__version__, api=1, server=identity)
