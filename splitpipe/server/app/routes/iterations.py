"""Routes about iterations, and the feed for clients that have nothing but HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from splitpipe.errors import SplitpipeError
from splitpipe.server.app.access import ADMIN, READ, RUN, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import BINARY, Body, Json, Limit, Offset
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.service import Service

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/iterations", tags=["iterations"], responses=PROBLEMS)

EVERY_S = 0.5
QUIET_S = 15.0
_OVER = frozenset({"done", "failed", "stopped"})
_Identity = Annotated[
    str,
    Path(min_length=1, max_length=200, description="Its id, or the one that was chosen for it."),
]


class NewIteration(Body):
    """An iteration that is to be made, or found."""

    spec: IterationSpec
    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$",
        description="An id of your own choice: the same again gives the same iteration.",
    )


class NewTicket(Body):
    """Who wants to be let in."""

    rank: int = Field(0, ge=0, le=65_535, description="Whose batches.")
    client: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.\-]{1,100}$",
        description='A name for the one that follows, with mode "follow".',
    )
    session: str = Field(
        pattern=r"^[A-Za-z0-9_\-]{16,64}$", description="The client's own random name."
    )


@routes.get("", dependencies=READ)
def list_iterations(service: TheService, offset: Offset = 0, limit: Limit = 1000) -> list[Json]:
    """List iterations, the newest first."""
    return list(service.iterations.list(offset=offset, limit=limit))


@routes.post("", status_code=201, dependencies=RUN)
def create_iteration(service: TheService, new: NewIteration) -> Json:
    """Make an iteration, or find the one that has this id."""
    return service.iterations.create(new.spec, name=new.id)


@routes.get("/{iteration}", dependencies=READ)
def get_iteration(service: TheService, iteration: _Identity) -> Json:
    """Tell an iteration and its progress."""
    return service.iterations.get(iteration)


@routes.delete("/{iteration}", status_code=204, dependencies=ADMIN)
def delete_iteration(service: TheService, iteration: _Identity) -> Response:
    """End an iteration and forget it."""
    service.iterations.delete(iteration)
    return Response(status_code=204)


@routes.post("/{iteration}/start", dependencies=RUN)
def start(service: TheService, iteration: _Identity) -> Json:
    """Go on with an iteration that was stopped or failed."""
    return service.iterations.start(iteration)


@routes.post("/{iteration}/stop", dependencies=RUN)
def stop(service: TheService, iteration: _Identity) -> Json:
    """End an iteration until it is started again."""
    return service.iterations.stop(iteration)


@routes.post("/{iteration}/pushback", dependencies=RUN)
def push_back(service: TheService, iteration: _Identity) -> Json:
    """Take back what clients have and did not acknowledge; it comes again, in order."""
    return service.iterations.push_back(iteration)


@routes.post("/{iteration}/tickets", status_code=201, dependencies=RUN)
def ticket(service: TheService, iteration: _Identity, new: NewTicket, request: Request) -> Json:
    """Let a client in: where the engine is, and what opens its door."""
    return service.iterations.ticket(
        iteration,
        rank=new.rank,
        client=new.client,
        session=new.session,
        host=request.url.hostname,
    )


@routes.post(
    "/{iteration}/feed",
    dependencies=RUN,
    response_class=Response,
    responses={200: {"content": BINARY}},
    openapi_extra={"requestBody": {"content": BINARY, "required": False}},
)
async def feed(
    service: TheService,
    iteration: _Identity,
    request: Request,
    link: Annotated[str, Query(pattern=r"^[0-9a-f]{32}$", description="The client's own line.")],
    wait_s: Annotated[float, Query(ge=0, le=20, description="How long to wait for a message.")] = 0,
) -> Response:
    """Carry messages of the feed: those of the body to the engine, those that came back."""
    body = await request.body()
    carry = partial(service.iterations.feed, iteration, link=link, body=body, wait_s=wait_s)
    # Whoever waits here must not keep other routes from their threads.
    limiter: CapacityLimiter = request.app.state.feeding
    answer = await to_thread.run_sync(carry, limiter=limiter, abandon_on_cancel=True)
    return Response(answer, media_type="application/octet-stream")


@routes.get(
    "/{iteration}/events",
    dependencies=READ,
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def events(service: TheService, iteration: _Identity) -> StreamingResponse:
    """Follow an iteration: an event whenever something changed, until it is over."""
    first = service.iterations.get(iteration)
    stream = _events(service, first)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _events(service: Service, told: Json) -> AsyncIterator[str]:
    quiet, said = 0.0, ""
    while not service.ending.is_set():
        text = json.dumps(told, allow_nan=False)
        if text != said:
            said, quiet = text, 0.0
            yield f"event: iteration\ndata: {text}\n\n"
        elif quiet >= QUIET_S:
            quiet = 0.0
            yield ": still here\n\n"
        if told["status"] in _OVER:
            return
        await asyncio.sleep(EVERY_S)
        quiet += EVERY_S
        try:
            told = await run_in_threadpool(service.iterations.get, told["id"])
        except SplitpipeError:
            return  # it was deleted
