"""Pages of datasets.

Responsible for: the list, a dataset with its column sets and schema.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from splitpipe.errors import SplitpipeError
from splitpipe.server.pages import views
from splitpipe.server.pages.access import Who, needs, url_here
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.forms import Form, read_form
from splitpipe.server.pages.live import Readers
from splitpipe.server.pages.problems import problem_of
from splitpipe.server.pages.rendering import page, part

__all__ = ["add"]

FORMATS = (("bins", "bins"), ("csv", "CSV"), ("parquet", "Parquet"), ("jsonl", "JSON lines"))

Reader: TypeAlias = Annotated[Who, Depends(needs("read"))]
Runner: TypeAlias = Annotated[Who, Depends(needs("run"))]
Admin: TypeAlias = Annotated[Who, Depends(needs("admin"))]
Sent: TypeAlias = Annotated[Form, Depends(read_form)]

_NO_FORM = Form([])
_WRITING = """\
import splitpipe as sp

client = sp.connect("{url}")
with client.writer("{name}", "my_columns") as writer:
    writer.write({{"text": "one", "label": 1}})
"""
_OPTION = "Delete what clients have written into it, too"


def add(router: APIRouter, calls: Calls) -> None:
    """Add these pages to the router."""
    _add_list(router, calls)
    _add_one(router, calls)
    _add_column_sets(router, calls)


def url_of(name: str) -> str:
    """The page of a dataset."""
    return f"/datasets/{quote(name, safe='')}"


def _add_list(router: APIRouter, calls: Calls) -> None:
    def show(request: Request, form: Form, error: SplitpipeError | None = None) -> Response:
        status, problem = problem_of(error) if error else (200, None)
        values = {
            "datasets": [views.dataset(one) for one in calls.datasets()],
            "form": {name: form[name] for name in ("name", "uid_column", "join")},
            "problem": problem,
            "wrong": {"name": "", "uid_column": "", "join": ""},
        }
        return page(request, "datasets.html", values, status=status)

    @router.get("/datasets")
    def all_of_them(request: Request, _who: Reader) -> Response:
        return show(request, _NO_FORM)

    @router.post("/datasets")
    def create(request: Request, _who: Runner, form: Sent) -> Response:
        name, rule = form["name"], form["join"] or "left"
        try:
            calls.create_dataset(name, uid_column=form["uid_column"] or None, join=rule)
        except SplitpipeError as error:
            return show(request, form, error)
        return RedirectResponse(f"{url_of(name)}?said=dataset-created", 303)


def _add_one(router: APIRouter, calls: Calls) -> None:
    @router.get("/datasets/{name}")
    def one(request: Request, name: str, _who: Reader) -> Response:
        return _show(request, calls, name, _NO_FORM)

    @router.get("/live/datasets/{name}")
    def live(request: Request, name: str, who: Reader) -> Response:
        def look() -> tuple[str, bool]:
            values = {"dataset": views.dataset(calls.dataset_briefly(name))}
            return part(who, "_column_sets.html", values), True

        return readers.stream(request, look)

    @router.post("/datasets/{name}/check")
    def check(name: str, _who: Runner) -> Response:
        return RedirectResponse(f"/tasks/{calls.check(name)}?said=checking", 303)

    @router.get("/datasets/{name}/delete")
    def ask_delete(request: Request, name: str, _who: Admin) -> Response:
        told = views.dataset(calls.dataset(name))
        ask = {
            "title": f"Delete the dataset {told['name']}?",
            "lines": [
                "The server forgets it, its column sets and its statistics.",
                "Files at locations of your own stay where they are in any case.",
            ],
            "option": _OPTION,
            "action": f"{told['url']}/delete",
            "back": told["url"],
            "yes": "Delete the dataset",
        }
        return page(request, "confirm.html", {"ask": ask})

    @router.post("/datasets/{name}/delete")
    def delete(name: str, _who: Admin, form: Sent) -> Response:
        calls.delete_dataset(name, remove_data=form["remove_data"] == "on")
        return RedirectResponse("/datasets?said=dataset-deleted", 303)

    readers = Readers(calls.closing)


def _show(
    request: Request, calls: Calls, name: str, form: Form, error: SplitpipeError | None = None
) -> Response:
    status, problem = problem_of(error) if error else (200, None)
    fields = ("name", "format", "location", "columns")
    values = {
        "dataset": views.dataset(calls.dataset(name)),
        "form": {field: form.raw(field) for field in fields},
        "formats": FORMATS,
        "problem": problem,
        "tab": "",
        "wrong": dict.fromkeys(fields, ""),
        "writing": _WRITING.format(url=url_here(request), name=name),
    }
    return page(request, "dataset.html", values, status=status)


def columns_of(text: str) -> dict[str, str] | None:
    r"""Columns and their types, as they are written into the form, one a line.

    Example:
        >>> columns_of("label: int64\ntext: str"), columns_of(" ")
        ({'label': 'int64', 'text': 'str'}, None)
    """
    pairs = (line.rpartition(":") for line in text.splitlines() if line.strip())
    return {name.strip() or kind.strip(): kind.strip() for name, _, kind in pairs} or None


def _add_column_sets(router: APIRouter, calls: Calls) -> None:
    @router.post("/datasets/{name}/column-sets")
    def create(request: Request, name: str, _who: Runner, form: Sent) -> Response:
        try:
            later = calls.add_column_set(
                name,
                form["name"],
                location=form["location"],
                format=form["format"] or "bins",
                columns=columns_of(form.raw("columns")),
            )
        except SplitpipeError as error:
            return _show(request, calls, name, form, error)
        said = "set-coming" if later else "set-added"
        return RedirectResponse(f"{url_of(name)}?said={said}", 303)

    @router.post("/datasets/{name}/column-sets/{column_set}/sync")
    def sync(name: str, column_set: str, _who: Runner) -> Response:
        calls.sync(name, column_set)
        return RedirectResponse(f"{url_of(name)}?said=syncing", 303)

    @router.get("/datasets/{name}/column-sets/{column_set}/remove")
    def ask_remove(request: Request, name: str, column_set: str, _who: Admin) -> Response:
        ask = {
            "title": f"Remove the column set {column_set}?",
            "lines": [
                f"The dataset {name} loses its columns.",
                "Files at a location of your own stay where they are in any case.",
            ],
            "option": _OPTION,
            "action": f"{url_of(name)}/column-sets/{quote(column_set, safe='')}/remove",
            "back": url_of(name),
            "yes": "Remove the column set",
        }
        return page(request, "confirm.html", {"ask": ask})

    @router.post("/datasets/{name}/column-sets/{column_set}/remove")
    def remove(name: str, column_set: str, _who: Admin, form: Sent) -> Response:
        calls.remove_column_set(name, column_set, remove_data=form["remove_data"] == "on")
        return RedirectResponse(f"{url_of(name)}?said=set-removed", 303)
