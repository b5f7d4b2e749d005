"""Routes about datasets and their column sets."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, JsonValue

from splitpipe.server.app.access import ADMIN, READ, RUN, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import (
    BINARY,
    MOST,
    Body,
    ColumnSetName,
    DatasetName,
    Json,
)

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1/datasets", tags=["datasets"], responses=PROBLEMS)
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Format = Literal["bins", "csv", "jsonl", "parquet"]
_RemoveData = Annotated[
    bool, Query(description="Also remove what was uploaded. Files elsewhere are never touched.")
]


class NewDataset(Body):
    """A dataset that is to be made."""

    name: _Name = Field(description="Letters, digits, _, - and .")
    uid_column: _Name | None = Field(
        None, description="The column by which column sets are joined; null: by row."
    )
    join: Literal["left", "inner", "strict"] = Field(
        "left", description="What becomes of records that a column set does not have."
    )


class NewColumnSet(Body):
    """Columns that lie somewhere, and are to be added."""

    name: _Name
    location: str | None = Field(
        None,
        min_length=1,
        max_length=4000,
        description="A path inside the server's data, an absolute one, a pattern, or a URL; null: "
        "rows will be sent, to .../rows, and the answer says which number is next, and how many "
        "bytes a call may have.",
    )
    format: _Format
    columns: dict[_Name, JsonValue] | None = Field(
        None, description="Names and types; null: found out from the first file."
    )
    reopen: bool = Field(
        False, description="Where rows are sent: go on also behind a set that was finished."
    )


@routes.get("", dependencies=READ)
def list_datasets(service: TheService) -> list[Json]:
    """List all datasets with their column sets."""
    return list(service.datasets.list())


@routes.post("", status_code=201, dependencies=RUN)
def create_dataset(service: TheService, new: NewDataset) -> Json:
    """Make a dataset without column sets."""
    return service.datasets.create(new.name, uid_column=new.uid_column, join=new.join)


@routes.get("/{dataset}", dependencies=READ)
def get_dataset(service: TheService, dataset: DatasetName) -> Json:
    """Tell a dataset: column sets, columns, and what its join makes of them."""
    return service.datasets.describe(dataset)


@routes.delete("/{dataset}", status_code=204, dependencies=ADMIN)
def delete_dataset(
    service: TheService, dataset: DatasetName, remove_data: _RemoveData = False
) -> Response:
    """Forget a dataset."""
    service.datasets.delete(dataset, remove_data=remove_data)
    return Response(status_code=204)


@routes.post(
    "/{dataset}/column-sets",
    status_code=201,
    dependencies=RUN,
    responses={202: {"description": "There is much to look at: the answer is the task."}},
)
def add_column_set(
    service: TheService, dataset: DatasetName, new: NewColumnSet, response: Response
) -> Json:
    """Add columns that lie somewhere, or begin to send some. No other column set changes."""
    if new.location is None:
        begun = service.uploads.begin(
            dataset, new.name, format=new.format, columns=new.columns, reopen=new.reopen
        )
        return {**begun, "call_nbytes": service.settings.max_upload_nbytes}
    made, is_task = service.add_column_set(
        dataset, new.name, location=new.location, format=new.format, columns=new.columns
    )
    if is_task:
        response.status_code = 202
    return made


@routes.get("/{dataset}/column-sets/{name}", dependencies=READ)
def get_column_set(service: TheService, dataset: DatasetName, name: ColumnSetName) -> Json:
    """Tell a column set."""
    return service.datasets.column_set(dataset, name)


@routes.delete("/{dataset}/column-sets/{name}", status_code=204, dependencies=ADMIN)
def remove_column_set(
    service: TheService, dataset: DatasetName, name: ColumnSetName, remove_data: _RemoveData = False
) -> Response:
    """Forget a column set."""
    service.datasets.remove_column_set(dataset, name, remove_data=remove_data)
    return Response(status_code=204)


@routes.post(
    "/{dataset}/column-sets/{name}/rows",
    dependencies=RUN,
    openapi_extra={"requestBody": {"content": BINARY, "required": True}},
)
async def add_rows(
    service: TheService,
    dataset: DatasetName,
    name: ColumnSetName,
    request: Request,
    sequence: Annotated[int, Query(ge=0, le=MOST, description="Number of this call, from 0.")],
) -> Json:
    """Add rows, packed as the wire has values: they are durable when this is answered."""
    async with request.app.state.uploading:
        body = await request.body()
        return await run_in_threadpool(service.add_rows, dataset, name, sequence, body)


@routes.post("/{dataset}/column-sets/{name}/finish", dependencies=RUN)
def finish(service: TheService, dataset: DatasetName, name: ColumnSetName) -> Json:
    """Make a column set that was sent part of its dataset."""
    return service.uploads.finish(dataset, name)
