"""Ends of generators.

Responsible for: closing what yields items, the last of a chain first, all of them whatever one of
them raises; and what stands for a generator that could not be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["close_all", "raising"]


def close_all(layers: Sequence[Any]) -> None:
    """Close `layers` from the last to the first; then raise what the first to fail raised."""
    failure: BaseException | None = None
    for layer in reversed(layers):
        close = getattr(layer, "close", None)
        if close is None or not (hasattr(layer, "gi_frame") or hasattr(layer, "leaves")):
            continue
        try:
            close()
        except BaseException as error:
            failure = failure or error
    if failure is not None:
        raise failure


def raising(*errors: Exception) -> Iterator[Any]:
    """Raise `errors` where the first item would come."""
    for error in errors:
        raise error
    yield
