"""What a chain begins with: items of a source, and numbers that travel beside items.

Responsible for: `open_source`, `tag` and `untag`, and `one_to_one`, whether inputs can be counted
by outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.source import FactorySource
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Map
from splitpipe.pipeline.stages.base import Place

__all__ = ["one_to_one", "open_source", "tag", "untag"]


def tag(items: Iterator[Any], place: Place) -> Iterator[Any]:
    """Yield each item with its number."""
    for item in items:
        yield place.number, place.part, item
        del item


def untag(items: Iterator[Any], place: Place) -> Iterator[Any]:
    """The inverse of `tag`."""
    for place.number, place.part, item in items:
        yield item
        del item


def one_to_one(stages: Sequence[Stage]) -> bool:
    """Whether every stage gives one item for one, so that counting outputs counts inputs."""
    return all(isinstance(stage.operation, Map) for stage in stages)


def open_source(part: Part, epoch: int) -> Iterator[Any]:
    """Return the items of an epoch of a source: of its positions, or all that a factory has."""
    source = part.source
    assert source is not None
    if isinstance(source, FactorySource):
        return source.open()
    assert part.positions is not None
    stop = min(part.positions, source.span(epoch))
    first = part.start.first if part.start is not None else 0
    return source.items(source.order(epoch), first, stop)
