"""What a browser sends with a form.

Responsible for: reading urlencoded bodies within limits, in the order of their fields.

Rules:
- nothing is guessed: a field is text until its reader says what it should be;
- another content type, a body that is too long or holds too many fields is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

__all__ = ["Form", "read_form"]

LONGEST = 1 << 20
MOST_FIELDS = 5000


class Form:
    """Fields by name, in the order in which they came.

    Args:
        pairs: Names and values.

    Example:
        >>> form = Form([("name", " news "), ("columns", "a"), ("columns", "b")])
        >>> form["name"], form["nothing"], form.all("columns")
        ('news', '', ['a', 'b'])
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        self._first: dict[str, str] = {}
        for name, value in pairs:
            self._first.setdefault(name, value)

    def __getitem__(self, name: str) -> str:
        """A field without the space around it; empty where there is none."""
        return self._first.get(name, "").strip()

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def raw(self, name: str, default: str = "") -> str:
        """A field as it was written."""
        return self._first.get(name, default)

    def all(self, name: str) -> list[str]:
        """Every value of a field that may come several times."""
        return [value for key, value in self.pairs if key == name]


async def read_form(request: Request) -> Form:
    """A dependency of routes: the form that was sent.

    Raises:
        HTTPException: it is no such form, or beyond the limits.
    """
    kind = request.headers.get("content-type", "application/x-www-form-urlencoded")
    if kind.split(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "this takes a form (application/x-www-form-urlencoded)")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise HTTPException(413, f"a form has at most {LONGEST} bytes")
    try:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, "this is no form, or has too many fields") from error
    # Browsers end the lines of a text area with both; Python's users expect one.
    return Form([(name, value.replace("\r\n", "\n")) for name, value in pairs])
