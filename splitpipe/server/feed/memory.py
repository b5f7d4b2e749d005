"""A stream of batches that lie in memory.

Responsible for: `MemoryStream`, what `open_stream` gives, made of a list: the real twin by which
the feed is tested, and what shows what it asks of a stream.

Rules:
- events come in order, one `Made` a number, then for ever the same `Ended` or `Broken`;
- a stream that is opened at `start` gives the very same events from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from splitpipe.server.iterations.made import Broken, Ended, Event, Failure, Made

__all__ = ["BatchStream", "MemoryStream"]


class BatchStream(Protocol):
    """What the feed needs of a stream."""

    def __next__(self) -> Event:
        """Return the next event; at the end the same one again and again."""
        ...

    def checkpoint(self) -> Any:
        """Return the place right behind the last `Made`, as JSON."""
        ...

    def stats(self) -> Any:
        """Return what its stages do, as JSON."""
        ...

    def close(self) -> None:
        """End it. Safe to call twice."""
        ...


class MemoryStream:
    """Batches of a list.

    Args:
        batches: of each: its frames, and its samples, filtered and failed records.
        start: the number of the first one that is given.
        tail: filtered and failed records behind the last.
        broken: the number that cannot be made; None: all can.

    Example:
        >>> stream = MemoryStream([([b"a"], (1, 0, 0)), ([b"b"], (2, 1, 0))], start=1)
        >>> next(stream)[:4], next(stream)
        ((1, [b'b'], 2, 1), Ended(batches=2, samples=3, filtered=0, failed=0, failures=()))
    """

    def __init__(
        self,
        batches: Sequence[tuple[Sequence[Any], tuple[int, int, int]]],
        *,
        start: int = 0,
        tail: tuple[int, int] = (0, 0),
        broken: int | None = None,
    ) -> None:
        self._batches = batches
        self._next = start
        self._tail = tail
        self._broken = broken

    def __iter__(self) -> MemoryStream:
        return self

    def __next__(self) -> Event:
        """Return the next event."""
        number = self._next
        if self._broken is not None and number >= self._broken:
            return Broken(self._broken, Failure("read", -1, "OSError", "it is not there"))
        if number >= len(self._batches):
            samples = sum(weight[0] for _, weight in self._batches)
            return Ended(len(self._batches), samples, *self._tail)
        self._next += 1
        frames, weight = self._batches[number]
        return Made(number, frames, *weight)

    def checkpoint(self) -> dict[str, int]:
        """Return its place."""
        return {"next": self._next}

    def stats(self) -> dict[str, Any]:
        """Return that there is nothing to say."""
        return {}

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
