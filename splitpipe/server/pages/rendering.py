"""Templates into answers.

Responsible for: the template environment, how numbers and times are written, the headers of every
page, the sentences that follow a redirect.

Rules:
- everything is escaped; a name that a template misses is an error, not an empty place;
- the policy of every page allows scripts, styles, images and connections of this server alone;
- what a page says after a redirect is chosen from `SAID` by a key: a url cannot put words into it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

import splitpipe
from splitpipe.server.pages.access import Who, may_of, who_of

__all__ = ["ASSETS", "HEADERS", "NOTHING", "ago", "count", "nbytes", "page", "part", "rate"]

ASSETS = Path(__file__).with_name("static")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every page is sent with."""

PLACES = (
    ("datasets", "Datasets"),
    ("iterations", "Iterations"),
    ("tasks", "Tasks"),
    ("modules", "Modules"),
    ("tokens", "Tokens"),
)

_BELONGS = {"iterate": "iterations"}
"""Pages that belong to a place of another name."""

SAID = {
    "dataset-created": "The dataset is there. Add a column set to it next.",
    "dataset-deleted": "The dataset is deleted.",
    "set-added": "The column set is added.",
    "set-coming": "A task looks at the files; the column set is there when it is done.",
    "set-removed": "The column set is removed.",
    "syncing": "The sync has started.",
    "counting": "The statistics are being counted.",
    "checking": "Every value is being read.",
    "preprocessing": "The preprocessing has started.",
    "started": "The iteration is started.",
    "stopped": "The iteration is stopped. It goes on where it was when it is started again.",
    "pushed-back": "What clients had not acknowledged is given back.",
    "iteration-deleted": "The iteration is deleted.",
    "aborted": "The task is told to end.",
    "reloaded": "The modules are loaded anew.",
    "revoked": "The token is revoked.",
    "signed-out": "You are signed out.",
}

NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""

_SPANS = (("day", 86400), ("h", 3600), ("min", 60), ("s", 1))
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def count(value: float | None) -> str:
    """A number for people.

    Example:
        >>> count(1234567), count(0.25)
        ('1,234,567', '0.25')
    """
    if value is None:
        return NOTHING
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.6g}"


def nbytes(value: float | None) -> str:
    """A size for people.

    Example:
        >>> nbytes(12), nbytes(48_300), nbytes(5_000_000)
        ('12 bytes', '48.3 kB', '5.0 MB')
    """
    if value is None:
        return NOTHING
    power = 0 if value < 1000 else min(int(math.log10(value) // 3), len(_UNITS) - 1)
    if power == 0:
        return f"{int(value)} bytes"
    return f"{value / 1000**power:.1f} {_UNITS[power]}"


def rate(value: float | None) -> str:
    """Samples a second, to three digits.

    Example:
        >>> rate(12345.6), rate(0.1234), rate(0)
        ('12,300', '0.123', '0')
    """
    if value is None:
        return NOTHING
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def ago(seconds: float, *, now: float | None = None) -> str:
    """How long ago a moment was, or how far ahead it lies.

    Example:
        >>> ago(40.0, now=100.0), ago(0.0, now=7300.0), ago(7300.0, now=0.0)
        ('1 min ago', '2 h ago', 'in 2 h')
    """
    past = (time.time() if now is None else now) - seconds
    size = abs(past)
    if size < 10:
        return "just now"
    found = ((unit, length) for unit, length in _SPANS if size >= length)
    unit, length = next(found)
    number = int(size / length)
    text = f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{text} ago" if past > 0 else f"in {text}"


def iso(seconds: float) -> str:
    """A moment as browsers read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _asset(name: str) -> str:
    """The path of a file of this package, with what changes when the file does."""
    content = (ASSETS / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("splitpipe.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ago=ago, count=count, iso=iso, nbytes=nbytes, rate=rate)
    environment.globals.update(asset=_asset, places=PLACES, version=splitpipe.__version__)
    return environment


def page(
    request: Request, template: str, values: Mapping[str, Any], *, status: int = 200
) -> HTMLResponse:
    """A whole page.

    Args:
        request: Who asks, and for which page.
        template: File name of the template.
        values: What the template shows.
        status: Of the answer.
    """
    who = who_of(request)
    place = request.url.path.split("/")[1]
    told = {
        "here": _BELONGS.get(place, place),
        "may": may_of(who),
        "problem": None,
        "said": SAID.get(request.query_params.get("said", "")),
        "who": who,
        **values,
    }
    text = _environment().get_template(template).render(told)
    return HTMLResponse(text, status, headers=HEADERS)


def part(who: Who, template: str, values: Mapping[str, Any]) -> str:
    """The inside of a live part of a page.

    Args:
        who: Whom it is shown to.
        template: File name of the template.
        values: What the template shows.
    """
    return _environment().get_template(template).render({"may": may_of(who), **values})
