"""What tasks do.

Responsible for: `Kind`, a kind of task as the server sees it, and `KINDS`, which there are: what
may be asked for, and what becomes of a result. The work of each is in ``work``, of the same name.

Rules:
- what a job needs stands in it, as JSON: the process of a task opens no database;
- `apply` may come twice, when a server was killed right behind it, and changes nothing then;
- a job that is performed again goes on, or begins anew, and ends in the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from splitpipe.errors import InvalidRequest
from splitpipe.server.catalog import Datasets, adding
from splitpipe.server.catalog.examine import Wanted, found_from
from splitpipe.server.catalog.generations import generation_of_snapshot
from splitpipe.server.tasks import preprocess
from splitpipe.server.tasks.work import wanted_of

__all__ = ["KINDS", "Kind", "Surroundings"]

Json = dict[str, Any]


class Modules(Protocol):
    """What tasks need of the modules of a server."""

    @property
    def generation(self) -> str | None:
        """The generation that is used now."""

    def check(self, kind: str, name: str, params: Mapping[str, Any]) -> None:
        """Refuse what is no module, or what it does not take."""

    def path_of(self, generation: str) -> Any:
        """The folder of a generation."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is there when a task is prepared, and when its result comes.

    Attributes:
        catalog: the datasets.
        modules: of the operator; ``None``: there are none.
    """

    catalog: Datasets
    modules: Modules | None


def _keep(_around: Surroundings, _job: Mapping[str, Any]) -> None:
    """What most tasks leave when they are aborted: nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task.

    Attributes:
        prepare: checks parameters, and makes the job of them.
        apply: makes the result count, and gives what is told of it.
        discard: removes what one left that was aborted, or failed.
    """

    prepare: Callable[[Surroundings, Json], Json]
    apply: Callable[[Surroundings, Json, Any], Any]
    discard: Callable[[Surroundings, Json], None] = _keep


def named(params: Mapping[str, Any], *names: str) -> list[str]:
    """Parameters that are texts and have to be there.

    Raises:
        InvalidRequest: one is not, or there are others.
    """
    for name in names:
        if not isinstance(params.get(name), str):
            raise InvalidRequest(f"this task needs {name!r}, a text")
    further = set(params) - set(names)
    if further:
        raise InvalidRequest(f"this task takes no {min(further)!r}")
    return [params[name] for name in names]


# --- sync ----------------------------------------------------------------------------------------


def _prepare_sync(around: Surroundings, params: Json) -> Json:
    dataset, name = named(params, "dataset", "column_set")
    one, wanted, known = around.catalog.wanted_for_sync(dataset, name)
    return {"id": one["id"], **_job_of(wanted), "known": [entry.to_json() for entry in known]}


def _job_of(wanted: Wanted) -> Json:
    """What `wanted_of` makes the same of again."""
    declared = wanted.declared
    return {
        "name": wanted.name,
        "location": wanted.location,
        "format": wanted.format,
        "declared": None if declared is None else declared.to_json(),
        "locations": wanted.locations.to_json(),
        "indices": wanted.indices,
    }


def _apply_sync(around: Surroundings, job: Json, result: Any) -> Any:
    return around.catalog.synced(job["id"], found_from(result), wanted_of(job).declared)


# --- add -----------------------------------------------------------------------------------------


def _prepare_add(around: Surroundings, params: Json) -> Json:
    said = dict(params)
    columns = said.pop("columns", None)
    dataset, name, location, format = named(said, "dataset", "column_set", "location", "format")
    wanted = adding.wanted(
        around.catalog, dataset, name, location=location, format=format, columns=columns
    )
    return {"dataset": around.catalog.get(dataset)["id"], **_job_of(wanted), "known": []}


def _apply_add(around: Surroundings, job: Json, result: Any) -> Any:
    return adding.added(around.catalog, job["dataset"], wanted_of(job), found_from(result))


# --- statistics ----------------------------------------------------------------------------------


def _prepare_statistics(around: Surroundings, params: Json) -> Json:
    (dataset,) = named(params, "dataset")
    return {"snapshot": around.catalog.pin(dataset)}


def _apply_statistics(around: Surroundings, job: Json, result: Any) -> Any:
    snapshot = job["snapshot"]
    around.catalog.keep_statistics(
        snapshot["dataset"]["id"], generation_of_snapshot(snapshot), result
    )
    return {"records": result["records"]}


# --- check ---------------------------------------------------------------------------------------


def _prepare_check(around: Surroundings, params: Json) -> Json:
    (dataset,) = named(params, "dataset")
    return {"snapshot": around.catalog.pin(dataset)}


def _told(_around: Surroundings, _job: Json, result: Any) -> Any:
    return result


KINDS = {
    "add": Kind(_prepare_add, _apply_add),
    "sync": Kind(_prepare_sync, _apply_sync),
    "statistics": Kind(_prepare_statistics, _apply_statistics),
    "check": Kind(_prepare_check, _told),
    "preprocess": Kind(preprocess.prepare, preprocess.apply, preprocess.discard),
}
