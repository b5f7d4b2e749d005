"""Ends of generators.

Responsible for: closing what yields items, the last of a chain first, all of them whatever one of
them raises; what stands for a generator that could not be made; and leaving out what is made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from splitpipe.errors import PipelineError

__all__ = ["behind", "close_all", "raising"]


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


def behind(items: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield `items` without the first `count`, which were there when they were given before.

    Raises:
        PipelineError: they are not there any more.
    """
    there = sum(1 for _ in islice(items, count))
    if there < count:
        raise PipelineError(
            f"what is made once more ended after {there} items; {count} of it were given before. "
            "A source or stage before this place does not give the same items each time: it must "
            "depend on its input, its epoch and `rng` alone"
        )
    yield from items


def raising(*errors: Exception) -> Iterator[Any]:
    """Raise `errors` where the first item would come."""
    for error in errors:
        raise error
    yield
