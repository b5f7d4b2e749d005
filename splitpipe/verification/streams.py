"""What came out of a run, as digests.

Responsible for: `read`, which runs a graph in one way and returns its `Stream`; and `difference`,
where two streams part.

Rules:
- an item is let go of as soon as its digest is made;
- an error of the graph belongs to its stream, at its place: another run has to fail alike;
- only so many items of an epoch are read; the rest of it is left, as a loop may leave it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.errors import NotPicklable
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.runtime.digest import digest
from splitpipe.runtime.watching import Watcher, watching

__all__ = ["Stream", "collect", "difference", "mark_of", "read"]


@dataclass(frozen=True)
class Stream:
    """The digests of what came out, epoch by epoch.

    Attributes:
        epochs: of every epoch that was begun, its items.
        whole: whether each epoch was read to its end.
        failure: the error that ended it, as its type and first line; None where none did.
        seconds: that it took.
        dropped: items that stages left out on purpose, in all epochs.
        unlike: why items could not be compared by content; None where all could.
    """

    epochs: tuple[tuple[bytes, ...], ...]
    whole: bool
    failure: str | None = None
    seconds: float = 0.0
    dropped: int = 0
    unlike: str | None = None

    @property
    def items(self) -> int:
        """How many, in all epochs."""
        return sum(map(len, self.epochs))


def read(
    pipeline: Pipeline,
    *,
    items: int,
    epochs: int,
    watcher: Watcher | None = None,
    until: Callable[[], bool] | None = None,
    **options: Any,
) -> Stream:
    """Run `pipeline` and return its stream.

    Args:
        pipeline: what to run.
        items: to read of every epoch, at most.
        epochs: to read.
        watcher: who looks at every stage; with ``executor="inline"``.
        until: called after every item; True ends it, and the epoch is not whole.
        options: of `Pipeline.loader`.

    Raises:
        GraphError: it cannot be run in this way.
    """
    with watching(watcher), pipeline.loader(epochs=epochs, **options) as loader:
        return collect(loader, items=items, until=until)


def collect(loader: Loader, *, items: int, until: Callable[[], bool] | None = None) -> Stream:
    """Read a loader and return its stream; see `read`."""
    began = time.perf_counter()
    epochs: list[list[bytes]] = []
    whole, failure, unlike = True, None, None
    try:
        for stream in loader.by_epoch():
            marks: list[bytes] = []
            epochs.append(marks)
            for item in islice(stream, items):
                mark, why = mark_of(item)
                marks.append(mark)
                unlike = unlike or why
                del item
                if until is not None and until():
                    items = len(marks)
                    break
            until = None  # the other epochs are read as far as the first one
            whole = whole and len(marks) < items
    except Exception as error:
        failure = _told(error)
    dropped = sum(task.dropped for task in loader.stats())
    seconds = time.perf_counter() - began
    return Stream(tuple(map(tuple, epochs)), whole, failure, seconds, dropped, unlike)


def difference(one: Stream, other: Stream, *, ordered: bool = True) -> str | None:
    """Return where `other` parts from `one`, in words; None where it does not."""
    for epoch, (left, right) in enumerate(zip(one.epochs, other.epochs)):
        if not ordered:
            missing, more = Counter(left) - Counter(right), Counter(right) - Counter(left)
            if missing or more:
                return f"epoch {epoch} lacks {missing.total()} items and has {more.total()} others"
            continue
        for ordinal, (mark, found) in enumerate(zip(left, right)):
            if mark != found:
                return f"item {ordinal} of epoch {epoch} is another one"
        if len(left) != len(right):
            return f"epoch {epoch} has {len(right)} items instead of {len(left)}"
    if len(one.epochs) != len(other.epochs):
        return f"there were {len(other.epochs)} epochs instead of {len(one.epochs)}"
    if one.failure != other.failure:
        return f"it ended with {other.failure or 'no error'} instead of {one.failure or 'none'}"
    return None


def mark_of(item: Any) -> tuple[bytes, str | None]:
    """Return the digest of an item; of one that has none its type alone, and why."""
    try:
        return digest(item), None
    except NotPicklable as error:
        return type(item).__qualname__.encode(), str(error)


def _told(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}"
