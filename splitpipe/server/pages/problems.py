"""Errors as sentences of a page.

Responsible for: what a person is told about an error, and the status that goes with it.

Rules: the words are those of the error itself; a hint is what it carries as a note.
"""

from __future__ import annotations

from splitpipe import errors

__all__ = ["problem_of"]

_STATUS = (("NotFound", 404), ("Conflict", 409), ("NotAllowed", 403))
_TITLES = {
    403: "This is not allowed",
    404: "There is no such thing",
    409: "This does not go together",
    400: "This cannot be done",
}


def problem_of(error: errors.SplitpipeError) -> tuple[int, dict[str, str]]:
    """The status of an answer, and what its page says."""
    status = 400
    for name, number in _STATUS:
        kind = getattr(errors, name, None)
        if kind is not None and isinstance(error, kind):
            status = number
    detail = str(error)
    hint = "\n".join(getattr(error, "__notes__", ()))
    return status, {"title": _TITLES[status], "detail": detail, "hint": hint}
