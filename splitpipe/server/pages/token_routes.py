"""Pages of tokens, and signing in with one.

Responsible for: who may do what, and the cookie that a browser gets for a token.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from splitpipe.server.pages import building
from splitpipe.server.pages.access import COOKIE, Who, keep, needs, safe_next
from splitpipe.server.pages.calls import Calls
from splitpipe.server.pages.forms import Form, read_form
from splitpipe.server.pages.rendering import page

__all__ = ["add"]

Admin: TypeAlias = Annotated[Who, Depends(needs("admin"))]
Sent: TypeAlias = Annotated[Form, Depends(read_form)]

_DAY_S = 86400.0
_LONGEST_NAME = 200
_MOST_DAYS = 36500
_NO_FORM = Form([])


def add(router: APIRouter, calls: Calls) -> None:
    """Add these pages to the router."""
    _add_tokens(router, calls)
    _add_signing_in(router, calls)


def _add_tokens(router: APIRouter, calls: Calls) -> None:
    @router.get("/tokens")
    def all_of_them(request: Request, _who: Admin) -> Response:
        return _show(request, calls, _NO_FORM, {})

    @router.post("/tokens")
    def create(request: Request, _who: Admin, form: Sent) -> Response:
        wrong = _wrong(form)
        if wrong:
            return _show(request, calls, form, wrong)
        lasts_s = int(form["days"]) * _DAY_S if form["days"] else None
        made = calls.create_token(form["name"], role=form["role"], expires_in_s=lasts_s)
        # The one answer that shows it: never in a url, so no redirect.
        return _show(request, calls, _NO_FORM, {}, made)

    @router.get("/tokens/{identity}/revoke")
    def ask_revoke(request: Request, identity: str, _who: Admin) -> Response:
        found = [one for one in calls.tokens() if one["id"] == identity]
        name = found[0]["name"] if found else identity
        ask = {
            "title": f"Revoke the token {name}?",
            "lines": ["Whoever uses it is refused from now on."],
            "action": f"/tokens/{quote(identity, safe='')}/revoke",
            "back": "/tokens",
            "option": "",
            "yes": "Revoke the token",
        }
        return page(request, "confirm.html", {"ask": ask})

    @router.post("/tokens/{identity}/revoke")
    def revoke(identity: str, _who: Admin) -> Response:
        calls.revoke_token(identity)
        return RedirectResponse("/tokens?said=revoked", 303)


def _wrong(form: Form) -> dict[str, str]:
    wrong = {}
    if not 1 <= len(form["name"]) <= _LONGEST_NAME:
        wrong["name"] = f"Give it a name, of at most {_LONGEST_NAME} letters."
    if form["role"] not in ("read", "run", "admin"):
        wrong["role"] = "Choose what it may do."
    days = form["days"]
    if days and not (days.isdecimal() and len(days) < 6 and 1 <= int(days) <= _MOST_DAYS):
        wrong["days"] = f"This is a whole number from 1 to {_MOST_DAYS}."
    return wrong


def _show(
    request: Request,
    calls: Calls,
    form: Form,
    wrong: dict[str, str],
    made: dict[str, Any] | None = None,
) -> Response:
    values = {
        "form": {name: form[name] for name in ("name", "role", "days")},
        "made": made,
        "tokens": calls.tokens(),
        "wrong": building.Wrong(wrong),
    }
    return page(request, "tokens.html", values, status=400 if wrong else 200)


def _add_signing_in(router: APIRouter, calls: Calls) -> None:
    @router.get("/login")
    def form_of(request: Request, next: str = "/datasets") -> Response:
        return page(request, "login.html", {"next": safe_next(next)})

    @router.post("/login")
    def sign_in(request: Request, form: Sent) -> Response:
        target = safe_next(form["next"] or "/datasets")
        if calls.is_good(form["token"]):
            answer = RedirectResponse(target, 303)
            keep(answer, form["token"], secure=request.url.scheme == "https")
            return answer
        problem = {
            "title": "This token is not known",
            "detail": "It may have ended, or have been revoked.",
            "hint": "",
        }
        return page(request, "login.html", {"next": target, "problem": problem}, status=401)

    @router.post("/logout")
    def sign_out() -> Response:
        answer = RedirectResponse("/login?said=signed-out", 303)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer
