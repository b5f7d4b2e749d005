"""Pages of what a dataset holds.

Responsible for: its records, its statistics, and making a new column set of them.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from splitpipe.errors import SplitpipeError
from splitpipe.server.pages import building, counted, views
from splitpipe.server.pages.access import Who, needs
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.forms import Form, read_form
from splitpipe.server.pages.rendering import page

__all__ = ["add"]

Reader: TypeAlias = Annotated[Who, Depends(needs("read"))]
Runner: TypeAlias = Annotated[Who, Depends(needs("run"))]
Sent: TypeAlias = Annotated[Form, Depends(read_form)]

_NO_FORM = Form([])
_MOST_DIGITS = 6
_SLOTS = ("filters", "preprocessors")


def add(router: APIRouter, calls: Calls) -> None:
    """Add these pages to the router."""
    _add_records(router, calls)
    _add_statistics(router, calls)
    _add_preprocessing(router, calls)


def _add_records(router: APIRouter, calls: Calls) -> None:
    @router.get("/datasets/{name}/records")
    def records(
        request: Request,
        name: str,
        _who: Reader,
        offset: Annotated[int, Query(ge=0, le=1 << 60)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 25,
        columns: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        told = views.dataset(calls.dataset(name))
        names = [one["name"] for one in told["columns"] if not columns or one["name"] in columns]
        empty: dict[str, Any] = {"rows": [], "total": 0}
        preview = calls.preview(name, offset, limit, names) if names else empty
        place = f"/api/v1{told['url']}/records"
        rows = [
            {"number": row["row"], "cells": views.cells(names, row, place)}
            for row in preview["rows"]
        ]
        chosen = urlencode([("columns", one) for one in columns or ()])
        values = {
            "dataset": told,
            "names": names,
            "chosen": columns or [],
            "rows": rows,
            "page": views.paging(offset, limit, preview["total"]),
            "base": f"{told['url']}/records?{chosen}{'&' if chosen else ''}",
        }
        return page(request, "records.html", values)


def _add_statistics(router: APIRouter, calls: Calls) -> None:
    @router.get("/datasets/{name}/statistics")
    def statistics(request: Request, name: str, _who: Reader) -> Response:
        told = views.dataset(calls.dataset(name))
        found = calls.statistics(name)
        values = {
            "dataset": told,
            "columns": counted.columns(found or {}),
            "stale": bool(found and not found.get("current", True)),
        }
        return page(request, "statistics.html", values)

    @router.post("/datasets/{name}/statistics")
    def count(name: str, _who: Runner) -> Response:
        return RedirectResponse(f"/tasks/{calls.count_statistics(name)}?said=counting", 303)


def _add_preprocessing(router: APIRouter, calls: Calls) -> None:
    @router.get("/datasets/{name}/preprocess")
    def form_of(request: Request, name: str, _who: Runner) -> Response:
        return _form(request, calls, name, _NO_FORM, building.rows_of(_NO_FORM), {})

    @router.post("/datasets/{name}/preprocess")
    def act(request: Request, name: str, _who: Runner, form: Sent) -> Response:
        kinds = building.by_kind(calls.modules())
        rows, wrong = building.rows_of(form), dict[str, str]()
        building.act(form["action"], form, rows, kinds)
        if form["action"] != "start":
            return _form(request, calls, name, form, rows, {})
        body = _asked(form, rows, kinds, wrong)
        if not wrong:
            try:
                task = calls.preprocess(name, body)
                return RedirectResponse(f"/tasks/{task}?said=preprocessing", 303)
            except SplitpipeError as error:
                wrong[""] = str(error)
        return _form(request, calls, name, form, rows, wrong)


def _asked(
    form: Form, rows: building.Rows, kinds: building.Kinds, wrong: dict[str, str]
) -> dict[str, Any]:
    """What the form asks for; what is wrong is noted by field."""
    if not form["column_set"]:
        wrong["column_set"] = "Give it a name."
    numbers = {}
    for name, least, usual in (("batch_size", 1, 32), ("workers", 0, 0)):
        text = form[name] or str(usual)
        if not text.isdecimal() or len(text) > _MOST_DIGITS or int(text) < least:
            wrong[name] = f"This is a whole number, at least {least}."
        else:
            numbers[name] = int(text)
    chosen = {
        slot: building.refs(slot, rows[slot], kinds[building.SLOTS[slot]], wrong) for slot in _SLOTS
    }
    return {
        "column_set": form["column_set"],
        "columns": _names(form["reads"]),
        "outputs": _names(form["outputs"]),
        "on_error": "skip" if form["on_error"] == "skip" else "raise",
        **numbers,
        **chosen,
    }


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None


def _form(
    request: Request,
    calls: Calls,
    name: str,
    form: Form,
    rows: building.Rows,
    wrong: dict[str, str],
) -> Response:
    kinds = building.by_kind(calls.modules())
    problem = None
    if wrong:
        problem = {"title": "This cannot be done", "detail": wrong.get("", ""), "hint": ""}
    values: dict[str, Any] = {
        "dataset": views.dataset(calls.dataset(name)),
        "form": {
            **building.fields_of(form, rows, kinds),
            "column_set": form["column_set"],
            "batch_size": form["batch_size"] or "32",
            "outputs": form["outputs"],
            "reads": form["reads"],
            "workers": form["workers"] or "0",
        },
        "kinds": kinds,
        "problem": problem,
        "wrong": building.Wrong(wrong),
    }
    return page(request, "preprocess.html", values, status=400 if wrong else 200)
