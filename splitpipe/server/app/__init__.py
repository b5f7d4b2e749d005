"""The server as an ASGI application and as a process.

Responsible for: routes (`routes/`), what stands before them (`watching.py`, `lingering.py`,
`bodies.py`, `gate.py`), errors as answers (`problems.py`), numbers and logs, and the process that
serves it all (`serving.py`).

Rules:
- a route is one call of the service;
- whatever comes in is judged before a route sees it, and no judge reads a body.
"""

from __future__ import annotations

import asyncio

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp

import splitpipe
from splitpipe.server.app import problems
from splitpipe.server.app.bodies import Bodies
from splitpipe.server.app.gate import Gate
from splitpipe.server.app.lingering import Lingering
from splitpipe.server.app.metrics import Metrics
from splitpipe.server.app.routes import api
from splitpipe.server.app.watching import Watching
from splitpipe.server.pages import pages
from splitpipe.server.service import Service

__all__ = ["make_app"]

_UPLOADS = 8
"""Bodies of uploads that are in memory at once; others wait."""
_FEEDS = 256
"""Clients that wait for batches over HTTP at once, each in a thread."""


def make_app(service: Service) -> ASGIApp:
    """Make the application of a service.

    Args:
        service: that is open, and stays so as long as the application is used.

    Returns:
        What an ASGI server runs.
    """
    app = FastAPI(
        title="splitpipe",
        version=splitpipe.__version__,
        description="Datasets, iterations and tasks of a data service.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = metrics = Metrics(service)
    app.state.uploading = asyncio.Semaphore(_UPLOADS)
    app.state.feeding = CapacityLimiter(_FEEDS)
    problems.register(app)
    app.include_router(api)
    app.include_router(pages(service))
    settings = service.settings
    gated = Gate(app, settings=settings, tokens=service.tokens)
    limited = Bodies(gated, upload_nbytes=settings.max_upload_nbytes)
    return Watching(Lingering(limited), metrics=metrics)
