"""Routes about work in the background: beginning it, watching it, ending it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from splitpipe.server.app.access import READ, RUN, TheService
from splitpipe.server.app.problems import PROBLEMS
from splitpipe.server.app.routes.shapes import Body, ColumnSetName, DatasetName, Json
from splitpipe.server.iterations.description import ModuleRef

__all__ = ["routes"]

routes = APIRouter(prefix="/api/v1", tags=["tasks"], responses=PROBLEMS)
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Identity = Annotated[str, Path(min_length=1, max_length=200, description="The task's id.")]


class Preprocess(Body):
    """A new column set made of a dataset by modules."""

    column_set: _Name = Field(description="The name of the new column set.")
    preprocessors: list[ModuleRef] = Field(default_factory=list, max_length=100)
    filters: list[ModuleRef] = Field(default_factory=list, max_length=100)
    columns: list[_Name] | None = Field(None, description="Columns that are read; null: all.")
    outputs: list[_Name] | None = Field(
        None, description="Columns that are written; null: those that the dataset does not have."
    )
    batch_size: int = Field(32, ge=1, le=100_000)
    workers: int = Field(0, ge=0, le=256)
    on_error: Literal["raise", "skip"] = Field(
        "raise",
        description="What becomes of a batch that fails: the task fails, or it is left out.",
    )


@routes.post("/datasets/{dataset}/statistics", status_code=202, dependencies=RUN)
def count_statistics(service: TheService, dataset: DatasetName) -> Json:
    """Begin to count anew, as a task."""
    return service.start("statistics", dataset=dataset)


@routes.post("/datasets/{dataset}/check", status_code=202, dependencies=RUN)
def check(service: TheService, dataset: DatasetName) -> Json:
    """Begin to read every value, as a task whose result says what cannot be read."""
    return service.start("check", dataset=dataset)


@routes.post("/datasets/{dataset}/preprocess", status_code=202, dependencies=RUN)
def preprocess(service: TheService, dataset: DatasetName, asked: Preprocess) -> Json:
    """Begin to make a new column set, as a task."""
    return service.start("preprocess", dataset=dataset, **asked.model_dump(mode="json"))


@routes.post("/datasets/{dataset}/column-sets/{name}/sync", status_code=202, dependencies=RUN)
def sync(service: TheService, dataset: DatasetName, name: ColumnSetName) -> Json:
    """Begin to look at a location again, as a task."""
    return service.start("sync", dataset=dataset, column_set=name)


@routes.get("/tasks", dependencies=READ)
def list_tasks(service: TheService) -> list[Json]:
    """List tasks, the newest first."""
    return list(service.tasks.list())


@routes.get("/tasks/{task}", dependencies=READ)
def get_task(service: TheService, task: _Identity) -> Json:
    """Tell a task: what it does, how far it is, what came of it."""
    return service.tasks.get(task)


@routes.post("/tasks/{task}/abort", dependencies=RUN)
def abort(service: TheService, task: _Identity) -> Json:
    """End a task before it is done."""
    return service.tasks.abort(task)
