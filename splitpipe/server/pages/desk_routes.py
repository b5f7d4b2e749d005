"""Pages of tasks and modules.

Responsible for: what runs in the background, and which code the operator has placed.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from splitpipe.server.pages import building, views
from splitpipe.server.pages.access import Who, needs
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.forms import Form, read_form
from splitpipe.server.pages.live import Readers
from splitpipe.server.pages.rendering import page, part

__all__ = ["add"]

Reader: TypeAlias = Annotated[Who, Depends(needs("read"))]
Runner: TypeAlias = Annotated[Who, Depends(needs("run"))]
Admin: TypeAlias = Annotated[Who, Depends(needs("admin"))]
Sent: TypeAlias = Annotated[Form, Depends(read_form)]

_KINDS = {
    "filter": "Filters",
    "categorizer": "Categorizers",
    "collater": "Collaters",
    "preprocessor": "Preprocessors",
}


def add(router: APIRouter, calls: Calls) -> None:
    """Add these pages to the router."""
    _add_tasks(router, calls)
    _add_modules(router, calls)


def _add_tasks(router: APIRouter, calls: Calls) -> None:
    readers = Readers(calls.closing)

    def values() -> dict[str, Any]:
        return {"tasks": [views.task(one) for one in calls.tasks()]}

    @router.get("/tasks")
    def all_of_them(request: Request, _who: Reader) -> Response:
        return page(request, "tasks.html", values())

    @router.get("/live/tasks")
    def live(request: Request, who: Reader) -> Response:
        return readers.stream(request, lambda: (part(who, "_tasks.html", values()), True))

    @router.get("/tasks/{identity}")
    def one(request: Request, identity: str, _who: Reader) -> Response:
        return page(request, "task.html", {"task": views.task(calls.task(identity))})

    @router.get("/live/tasks/{identity}")
    def live_one(request: Request, identity: str, who: Reader) -> Response:
        def look() -> tuple[str, bool]:
            task = views.task(calls.task(identity))
            return part(who, "_task.html", {"task": task}), task["live"]

        return readers.stream(request, look)

    @router.post("/tasks/{identity}/abort")
    def abort(identity: str, _who: Runner) -> Response:
        calls.abort(identity)
        return RedirectResponse("/tasks?said=aborted", 303)


def _add_modules(router: APIRouter, calls: Calls) -> None:
    @router.get("/modules")
    def all_of_them(request: Request, _who: Reader) -> Response:
        kinds = building.by_kind(calls.modules())
        values = {
            "errors": calls.module_errors(),
            "folder": calls.modules_folder(),
            "groups": [(_KINDS.get(kind, kind), found) for kind, found in kinds.items() if found],
        }
        return page(request, "modules.html", values)

    @router.post("/modules/reload")
    def reload(_who: Admin) -> Response:
        calls.reload_modules()
        return RedirectResponse("/modules?said=reloaded", 303)
