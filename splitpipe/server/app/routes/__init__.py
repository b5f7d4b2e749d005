"""The routes of the REST interface: one file a noun, each route one call of the service."""

from __future__ import annotations

from fastapi import APIRouter

from splitpipe.server.app.routes import (
    datasets,
    iterations,
    modules,
    records,
    system,
    tasks,
    tokens,
    trials,
)

__all__ = ["api"]

api = APIRouter()
for _part in (system, datasets, records, iterations, trials, tasks, modules, tokens):
    api.include_router(_part.routes)
