"""What a stage may keep while it asks for more.

Responsible for: `kept`, through which a stage that holds items back (`Operation.holds`) reads its
input.

Rules:
- an item that was handed over does not change any more: who yields the same buffer again and again
  would otherwise fill a whole shuffle buffer with its last state, here and not where the stages run
  in different processes. What nobody else refers to passes as it is, anything else is copied;
- a copy does not lie in memory that was lent for one item: a stage may hold thousands;
- what cannot be copied passes as it is: it cannot be sent anywhere either, so that there is no
  other way to run it that it could differ from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from splitpipe.errors import NotPicklable
from splitpipe.transport.ownership import (
    COUNTED,
    constant,
    contents,
    copied,
    duplicate,
    probes,
    references,
)

__all__ = ["kept"]


def kept(items: Iterator[Any]) -> Iterator[Any]:
    """Yield `items`, each of them nobody else's.

    Example:
        >>> def reusing():
        ...     buffer = [0]
        ...     for buffer[0] in range(3):
        ...         yield buffer
        >>> list(kept(reusing()))
        [[0], [1], [2]]
    """
    for item in items:
        if constant(item) is None and not (references(item) <= _OWN and _whole(item)):
            item = _copy(item)
        yield item
        del item


def _whole(item: Any) -> bool:
    """Whether nobody else could change a part of it, and it lies in memory of its own."""
    return COUNTED and contents(item) is not None


def _copy(item: Any) -> Any:
    if type(item) is np.ndarray and not item.dtype.hasobject:
        return item.copy()
    try:
        return duplicate(item, copied)[0]
    except NotPicklable:
        return item


def _own() -> int:
    """References to an item that its maker has let go of, counted as `kept` counts them."""
    counts = []
    for item in probes():
        counts.append(references(item))
        del item
    return min(counts)


_OWN = _own() if COUNTED else 0
