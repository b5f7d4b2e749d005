"""The work of tasks, in their processes.

Responsible for: `WORK`, what each kind of task does with its job, by way of ``making`` and
``checking``.

Rules:
- what a job needs stands in it, as JSON: the process of a task opens no database, and imports none;
- each imports what it needs when it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from splitpipe.schema import Schema
from splitpipe.server.catalog.examine import Wanted, examine, found_to_json
from splitpipe.server.catalog.listing import FileEntry
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.snapshot import open_snapshot

__all__ = ["WORK", "wanted_of"]

Json = dict[str, Any]
Progress = Callable[..., None]


def wanted_of(job: Mapping[str, Any]) -> Wanted:
    """The column set that the job of an ``add`` or a ``sync`` is about."""
    return Wanted(
        job["name"],
        job["location"],
        job["format"],
        None if job["declared"] is None else Schema.from_json(job["declared"]),
        Locations.from_json(job["locations"]),
        job["indices"],
    )


def _sync(job: Json, progress: Progress) -> Any:
    known = [FileEntry.from_json(entry) for entry in job["known"]]
    return found_to_json(examine(wanted_of(job), known, progress))


def _statistics(job: Json, progress: Progress) -> Any:
    from splitpipe.server.catalog.figures import figures

    with open_snapshot(job["snapshot"]) as dataset:
        return figures(dataset, progress=progress)


def _check(job: Json, progress: Progress) -> Any:
    from splitpipe.server.tasks.checking import perform

    return perform(job, progress)


def _preprocess(job: Json, progress: Progress) -> Any:
    from splitpipe.server.tasks.making import perform

    return perform(job, progress)


WORK: Final[Mapping[str, Callable[[Json, Progress], Any]]] = {
    "add": _sync,  # nothing is known of the files yet
    "sync": _sync,
    "statistics": _statistics,
    "check": _check,
    "preprocess": _preprocess,
}
