"""A new column set made of the records of a dataset.

Responsible for: the task ``preprocess`` as the server sees it: what may be asked for, and what
becomes of the result. The work itself is in ``making``.

Rules:
- no other column set is changed: what is made is a new one, which is part of the dataset once it is
  whole;
- what a module is was fixed when the task was started: a reload changes nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from splitpipe.errors import Conflict, InvalidRequest, NotFound
from splitpipe.server.catalog.examine import Wanted, examine
from splitpipe.server.catalog.rows import check_absent, check_name, stored
from splitpipe.server.catalog.uploads import remove_uploaded
from splitpipe.server.state import new_id

if TYPE_CHECKING:
    from splitpipe.server.tasks.kinds import Surroundings

__all__ = ["apply", "discard", "prepare"]

Json = dict[str, Any]

_MOST_BATCH: Final = 100_000
_PARAMETERS: Final = (
    "dataset",
    "column_set",
    "preprocessors",
    "filters",
    "columns",
    "outputs",
    "batch_size",
    "workers",
    "on_error",
)


def prepare(around: Surroundings, params: Json) -> Json:
    """Check what is asked for, and pin the dataset and the modules.

    Raises:
        InvalidRequest: a parameter cannot be.
        NotFound: there is no such dataset or module.
        Conflict: there is a column set of this name.
    """
    for name in params:
        if name not in _PARAMETERS:
            raise InvalidRequest(f"preprocess takes no {name!r}: {', '.join(_PARAMETERS)}")
    for name in ("dataset", "column_set"):
        if not isinstance(params.get(name), str):
            raise InvalidRequest(f"preprocess needs {name!r}, a text")
    name = params["column_set"]
    check_name(name, "column set")
    told = around.catalog.get(params["dataset"])
    check_absent(told["column_sets"], name, told["name"])
    modules = {
        "filter": _refs(params, "filters"),
        "preprocessor": _refs(params, "preprocessors"),
    }
    if not modules["preprocessor"]:
        raise InvalidRequest("preprocess needs at least one of preprocessors")
    generation, folder = _modules(around, modules)
    columns, outputs = _names(params, "columns"), _names(params, "outputs")
    there = {column["name"] for column in told["columns"]} - {told["uid_column"]}
    if there & set(outputs or ()):
        raise InvalidRequest(
            f"dataset {told['name']!r} has a column {min(there & set(outputs or ()))!r} already: "
            "preprocess makes new ones"
        )
    return {
        "name": name,
        "snapshot": around.catalog.pin(told["id"], columns=columns),
        "location": f"{told['id']}/{name}-{new_id()[:8]}",
        "columns": columns,
        "outputs": outputs,
        "modules": modules,
        "generation": generation,
        "folder": folder,
        "batch_size": _count(params, "batch_size", 32, 1, _MOST_BATCH),
        "workers": _count(params, "workers", 0, 0, 4 * (os.cpu_count() or 1)),
        "on_error": _on_error(params),
    }


def _modules(
    around: Surroundings, modules: Mapping[str, Sequence[Json]]
) -> tuple[str | None, str | None]:
    """The generation of the modules, and its folder."""
    if around.modules is None:
        raise InvalidRequest("this server has no modules: its operator places them in a folder")
    for kind, refs in modules.items():
        for ref in refs:
            around.modules.check(kind, ref["name"], ref["params"])
    generation = around.modules.generation
    assert generation is not None  # otherwise nothing would have passed the check
    return generation, str(around.modules.path_of(generation))


def _refs(params: Mapping[str, Any], name: str) -> list[Json]:
    found = params.get(name) or []
    made: list[Json] = []
    for ref in found if isinstance(found, list) else [found]:
        ref = {"name": ref} if isinstance(ref, str) else ref
        good = isinstance(ref, dict) and isinstance(ref.get("name"), str)
        if not good or not isinstance(ref.get("params", {}), dict) or set(ref) - {"name", "params"}:
            raise InvalidRequest(f"{name} is a list of modules, each with name and params")
        made.append({"name": ref["name"], "params": ref.get("params", {})})
    return made


def _names(params: Mapping[str, Any], name: str) -> list[str] | None:
    found = params.get(name)
    if found is None:
        return None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise InvalidRequest(f"{name} is a list of names of columns")
    return found


def _count(params: Mapping[str, Any], name: str, usual: int, least: int, most: int) -> int:
    found = params.get(name, usual)
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise InvalidRequest(f"{name} is a number from {least} to {most}")
    return found


def _on_error(params: Mapping[str, Any]) -> str:
    found = params.get("on_error", "raise")
    if found not in ("raise", "skip"):
        raise InvalidRequest("on_error is raise or skip")
    return str(found)


def apply(around: Surroundings, job: Json, result: Any) -> Json:
    """Make what was made a column set of the dataset."""
    catalog = around.catalog
    dataset = job["snapshot"]["dataset"]["id"]
    wanted = Wanted(job["name"], job["location"], "bins", None, catalog.locations, catalog.indices)
    values = {
        **stored(examine(wanted), declared=None, uploaded=True),
        "status": "ready",
        "error": None,
    }
    try:
        told = catalog.insert_set(dataset, job["name"], job["location"], "bins", values)
    except Conflict:
        there = catalog.stored_set(dataset, job["name"])
        if there["location"] != job["location"]:
            raise
        told = catalog.column_set(dataset, job["name"])
    return {**result, "column_set": told["name"], "rows": told["rows"]}


def discard(around: Surroundings, job: Json) -> None:
    """Remove what was half-made; what is a column set already stays."""
    with suppress(NotFound):
        there = around.catalog.stored_set(job["snapshot"]["dataset"]["id"], job["name"])
        if there["location"] == job["location"]:
            return
    remove_uploaded(around.catalog.locations, job["location"])
