"""Routes about the operator's own code."""

from __future__ import annotations

from fastapi import APIRouter

from splitpipe.server.app.access import ADMIN, READ, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import Json

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/modules", tags=["modules"], responses=PROBLEMS)


@routes.get("", dependencies=READ)
def list_modules(service: TheService) -> Json:
    """List modules with their parameters, and the errors of files that could not be used."""
    return service.modules.list()


@routes.post("/reload", dependencies=ADMIN)
def reload_modules(service: TheService) -> Json:
    """Take what is in the folder now. Iterations that were begun keep what they began with."""
    service.modules.reload()
    return service.modules.list()
