"""Pages of iterations.

Responsible for: the list, one iteration as it goes, and the form that builds one.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from splitpipe.errors import SplitpipeError
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.iterations.snippet import snippet
from splitpipe.server.pages import building, views
from splitpipe.server.pages.access import Who, needs, url_here
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.forms import Form, read_form
from splitpipe.server.pages.live import Readers
from splitpipe.server.pages.problems import problem_of
from splitpipe.server.pages.rendering import page, part

__all__ = ["add"]

Reader: TypeAlias = Annotated[Who, Depends(needs("read"))]
Runner: TypeAlias = Annotated[Who, Depends(needs("run"))]
Admin: TypeAlias = Annotated[Who, Depends(needs("admin"))]
Sent: TypeAlias = Annotated[Form, Depends(read_form)]

_MOST_TRIED = 20


def add(router: APIRouter, calls: Calls) -> None:
    """Add these pages to the router."""
    _add_list(router, calls)
    _add_one(router, calls)
    _add_builder(router, calls)


def url_of(identity: str) -> str:
    """The page of an iteration."""
    return f"/iterations/{quote(identity, safe='')}"


def _one(calls: Calls, identity: str) -> dict[str, Any]:
    return views.iteration(calls.iteration(identity))


def _add_list(router: APIRouter, calls: Calls) -> None:
    readers = Readers(calls.closing)

    def values() -> dict[str, Any]:
        return {"iterations": [views.iteration(one) for one in calls.iterations()]}

    @router.get("/iterations")
    def all_of_them(request: Request, _who: Reader) -> Response:
        return page(request, "iterations.html", values())

    @router.get("/live/iterations")
    def live(request: Request, who: Reader) -> Response:
        return readers.stream(request, lambda: (part(who, "_iterations.html", values()), True))


def _add_one(router: APIRouter, calls: Calls) -> None:
    readers = Readers(calls.closing)

    @router.get("/iterations/{identity}")
    def one(request: Request, identity: str, _who: Reader) -> Response:
        told = calls.iteration(identity)
        it = views.iteration(told)
        spec = IterationSpec.model_validate(told["spec"])
        values = {"it": it, "snippet": snippet(spec, url=url_here(request), name=told["name"])}
        return page(request, "iteration.html", values)

    @router.get("/live/iterations/{identity}")
    def live(request: Request, identity: str, who: Reader) -> Response:
        def look() -> tuple[str, bool]:
            return part(who, "_progress.html", {"it": _one(calls, identity)}), True

        return readers.stream(request, look)

    @router.post("/iterations/{identity}/pushback")
    def pushback(identity: str, _who: Runner) -> Response:
        calls.pushback(identity)
        return RedirectResponse(f"{url_of(identity)}?said=pushed-back", 303)

    @router.post("/iterations/{identity}/stop")
    def stop(identity: str, _who: Runner) -> Response:
        calls.stop(identity)
        return RedirectResponse(f"{url_of(identity)}?said=stopped", 303)

    @router.post("/iterations/{identity}/start")
    def start(identity: str, _who: Runner) -> Response:
        calls.start(identity)
        return RedirectResponse(f"{url_of(identity)}?said=started", 303)

    @router.get("/iterations/{identity}/delete")
    def ask_delete(request: Request, identity: str, _who: Admin) -> Response:
        it = _one(calls, identity)
        ask = {
            "title": f"Delete the iteration {it['label']}?",
            "lines": ["It is stopped, and where its clients were is forgotten. The data stays."],
            "action": f"{it['url']}/delete",
            "back": it["url"],
            "option": "",
            "yes": "Delete the iteration",
        }
        return page(request, "confirm.html", {"ask": ask})

    @router.post("/iterations/{identity}/delete")
    def delete(identity: str, _who: Admin) -> Response:
        calls.delete_iteration(identity)
        return RedirectResponse("/iterations?said=iteration-deleted", 303)


def _add_builder(router: APIRouter, calls: Calls) -> None:
    @router.get("/iterate")
    def empty(request: Request, _who: Runner, dataset: str = "", like: str = "") -> Response:
        kinds = building.by_kind(calls.modules())
        if like:
            spec = IterationSpec.model_validate(calls.iteration(like)["spec"])
        else:
            spec = IterationSpec.model_validate(
                {"dataset": dataset or _first(calls), "batch_size": 32}
            )
        rows = building.rows_told(spec, kinds)
        return _show(request, calls, building.told(spec), rows)

    @router.post("/iterate")
    def act(request: Request, _who: Runner, form: Sent) -> Response:
        kinds = building.by_kind(calls.modules())
        rows = building.rows_of(form)
        building.act(form["action"], form, rows, kinds)
        if form["action"] not in ("start", "try"):
            return _show(request, calls, form, rows)
        spec, wrong = building.spec_of(form, rows, kinds)
        if spec is None:
            return _show(request, calls, form, rows, wrong=wrong)
        try:
            if form["action"] == "start":
                made = calls.create_iteration(spec, form["id"] or None)
                return RedirectResponse(f"{url_of(made)}?said=started", 303)
            number = int(form["count"]) if form["count"].isdecimal() else 3
            tried = calls.try_out(spec, max(1, min(number, _MOST_TRIED)))
            return _show(request, calls, form, rows, tried=tried)
        except SplitpipeError as error:
            return _show(request, calls, form, rows, error=error)


def _program(request: Request, form: Form, spec: IterationSpec | None) -> str:
    return snippet(spec, url=url_here(request), name=form["id"] or None) if spec else ""


def _first(calls: Calls) -> str:
    return next((str(one["name"]) for one in calls.datasets()), "-")


def _show(
    request: Request,
    calls: Calls,
    form: Form,
    rows: building.Rows,
    *,
    wrong: dict[str, str] | None = None,
    error: SplitpipeError | None = None,
    tried: dict[str, Any] | None = None,
) -> Response:
    kinds = building.by_kind(calls.modules())
    names = [str(one["name"]) for one in calls.datasets()]
    status, problem = problem_of(error) if error else (200, None)
    if wrong:
        general = wrong.get("", "")
        status = 400
        problem = {"title": "Something in the form is not right", "detail": general, "hint": ""}
    spec, _ = building.spec_of(form, rows, kinds)
    fields = building.fields_of(form, rows, kinds)
    values = {
        "columns": _columns(calls, form["dataset"], names),
        "datasets": [(name, name) for name in names],
        "form": fields,
        "kinds": kinds,
        "more_open": building.more_is_told(fields, wrong or {}),
        "problem": problem,
        "snippet": _program(request, form, spec) if names else "",
        "tried": None if tried is None else views.tried(tried),
        "wrong": building.Wrong(wrong or {}),
    }
    return page(request, "iterate.html", values, status=status)


def _columns(calls: Calls, dataset: str, names: list[str]) -> list[str]:
    if dataset not in names:
        return []
    return [str(one["name"]) for one in views.dataset(calls.dataset(dataset))["columns"]]
