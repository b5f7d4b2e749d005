"""Looking at what flows: between the stages of this process, and into it.

Responsible for: `watching`, which lets a `Watcher` see every item that a source or a stage gives,
in loaders that are made meanwhile; and `Seen`, what a message says of the items that it brought.
What is done with either is said elsewhere (`splitpipe.verification`, `splitpipe.recording`).

Rules:
- a watcher hands on the very items that it is given, in their order, and nothing else;
- it sees what runs in this process alone: everything with ``executor="inline"``;
- the graph is planned, numbered and resumed as without it; without one nothing is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.stages import Context
from splitpipe.transport.message import Message

__all__ = ["Seen", "Watched", "Watcher", "current_watcher", "seen_of", "watching"]


class Seen(NamedTuple):
    """What a message says of the items that it brought; not the message, which holds them.

    Attributes:
        producer: number of the worker that sent it.
        start, stop: the positions of the region's head that it covers.
        values: how many items.
        elapsed_ns: time that the worker was busy with it.
        nbytes: of the items.
    """

    producer: int
    start: int
    stop: int
    values: int
    elapsed_ns: int
    nbytes: int


def seen_of(message: Message, stop: int | None = None) -> Seen:
    """Return what `message` says of what it brings; up to position `stop` where others follow."""
    return Seen(
        message.producer,
        message.start,
        message.stop if stop is None else stop,
        message.count,
        message.elapsed_ns,
        message.nbytes,
    )


class Watched(NamedTuple):
    """A part of a graph that is about to run.

    Attributes:
        number: of the part, in its body.
        part: a source or a stage.
        epoch: which pass over the graph.
        first: position of the first item, at a source.
        context: the stage's; None for a source.
    """

    number: int
    part: Part
    epoch: int
    first: int = 0
    context: Context | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        if self.part.stage is not None:
            return self.part.stage.name
        return self.part.source.name if self.part.source is not None else self.part.name


class Watcher(Protocol):
    """Sees what the parts of a graph give."""

    def watch(self, watched: Watched, items: Iterator[Any]) -> Iterator[Any]:
        """Return `items`, which have not begun, to be seen on their way."""


_CURRENT: ContextVar[Watcher | None] = ContextVar("splitpipe-watcher", default=None)


def current_watcher() -> Watcher | None:
    """Return who looks, or None."""
    return _CURRENT.get()


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Let `watcher` see what loaders make that are begun inside of the ``with`` block."""
    token = _CURRENT.set(watcher)
    try:
        yield
    finally:
        _CURRENT.reset(token)
