"""That nothing is missing of what is made again.

Responsible for: `proven`, which refuses an end before the place up to which a stream had come when
its state was taken, or when its worker died; and `shorter`, the error that says so.

Rules:
- an epoch that goes on has all the items that it had: a source that has become shorter, a stage
  that gives others than before, is an error that names it, never a short epoch;
- only what lies before that place is counted: behind it nothing is paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from splitpipe.errors import PipelineError, ResumeError, SplitpipeError
from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.stages.told import Ticks

__all__ = ["proven", "shorter"]


def proven(
    items: Iterator[Any], first: int, least: int, error: Callable[[int], Exception]
) -> Iterator[Any]:
    """Yield `items`, of which there have to be some.

    Args:
        items: what is made again.
        first: the number of the first of them.
        least: the number before which they must not end.
        error: returns what is raised where they end after so many.

    Example:
        >>> list(proven(iter("cd"), 2, 4, IndexError))
        ['c', 'd']
        >>> list(proven(iter("c"), 2, 4, IndexError))
        Traceback (most recent call last):
        IndexError: 3
    """
    if least <= first:
        return items
    return chain.from_iterable(_counted(items, first, least, error))


def _counted(
    items: Iterator[Any], first: int, least: int, error: Callable[[int], Exception]
) -> Iterator[Iterator[Any]]:
    ticks = Ticks(first)
    yield ticks.over(islice(items, least - first))
    if ticks.count < least:
        raise error(ticks.count)
    yield items


def shorter(part: Part, epoch: int, count: int, *, recovers: bool) -> SplitpipeError:
    """Return the error that says that `part` ended after `count` items.

    Args:
        part: what was made again.
        epoch: in which.
        count: how many items there were.
        recovers: whether it was made again for one that died.
    """
    if recovers:
        return PipelineError(
            f"{part.name!r} was made once more and ended epoch {epoch} after {count} items; "
            f"{part.least} had come of it before. It does not give the same items each time: it "
            "must depend on its input, its epoch and `rng` alone"
        )
    if part.source is not None:
        return ResumeError(
            f"the source {part.name!r} ended epoch {epoch} after {count} items; {part.least} of "
            "them were read when the state was taken: it has become shorter. Give it back what it "
            "had, or begin the epoch anew"
        )
    return ResumeError(
        f"{part.name!r} ended epoch {epoch} after {count} items; {part.least} had come of it when "
        "the state was taken: what it reads has become shorter, or it makes fewer items of it. "
        "Give it back what it had, or begin the epoch anew"
    )
