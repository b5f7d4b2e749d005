"""Routes about what is in datasets: records and figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from splitpipe.server.app.access import READ, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import (
    BINARY_SCHEMA,
    DatasetName,
    Json,
    Limit,
    Offset,
    Row,
)

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/datasets", tags=["datasets"], responses=PROBLEMS)
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_MEDIA_HEADERS = {"Content-Security-Policy": "sandbox; default-src 'none'"}


@routes.get("/{dataset}/records", dependencies=READ)
def preview(
    service: TheService,
    dataset: DatasetName,
    offset: Offset = 0,
    limit: Limit = 20,
    columns: Annotated[list[_Name] | None, Query(description="Which; all unless said.")] = None,
) -> Json:
    """Show some records: long values are cut, bytes are told as media."""
    made: Json = service.datasets.preview(dataset, offset=offset, limit=limit, columns=columns)
    return made


@routes.get(
    "/{dataset}/records/{row}/{column}",
    dependencies=READ,
    response_class=Response,
    responses={200: {"content": {"*/*": BINARY_SCHEMA}}},
)
def media(service: TheService, dataset: DatasetName, row: Row, column: str) -> Response:
    """Give the bytes of one value: an image, audio, video, or whatever they are."""
    mime, content = service.datasets.media(dataset, row, column)
    return Response(content, media_type=mime, headers=_MEDIA_HEADERS)


@routes.get("/{dataset}/statistics", dependencies=READ)
def statistics(service: TheService, dataset: DatasetName) -> Json | None:
    """Tell the figures that were found last; null: nobody has counted yet."""
    return service.datasets.statistics(dataset)
