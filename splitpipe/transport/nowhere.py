"""An arena without memory: everything travels inside the message.

Responsible for: `NowhereLink` and `Nowhere`, for a worker that shares no memory with its readers.

Rules:
- it is asked like any other arena, and always says that there is no slot to be had.
"""

from __future__ import annotations

from splitpipe.errors import BrokenChannel
from splitpipe.transport.arena import Arena, ArenaLink, ArenaStatistics, ArenaView
from splitpipe.transport.base import Watcher
from splitpipe.transport.slot import Segment, Slot

__all__ = ["Nowhere", "NowhereLink"]


class Nowhere(Arena):
    """The producer's side.

    Example:
        >>> Nowhere().acquire(1 << 20) is None
        True
    """

    def __init__(self) -> None:
        """There is nothing to be made."""

    def watch(self, watcher: Watcher) -> None:
        """Nobody ever waits here."""

    def wake(self) -> None:
        """Nobody ever waits here."""

    def acquire(self, nbytes: int, *, wait: bool = True) -> Slot | None:
        return None

    def send(self, slot: Slot) -> Segment:
        raise BrokenChannel("there is no slot to be sent")

    def cancel(self, slot: Slot) -> None:
        """There is none."""

    def wait_for_shut(self) -> None:
        """What it sends needs nobody to stay."""

    def statistics(self) -> ArenaStatistics:
        return ArenaStatistics(0, 0, 0, 0)

    def close(self) -> None:
        """Nothing is held."""


class NowhereLink(ArenaLink):
    """The owner's side."""

    def __init__(self) -> None:
        """There is nothing to be made."""

    def writer(self) -> Nowhere:
        return Nowhere()

    def reader(self, *, warn: bool = False) -> ArenaView:
        raise BrokenChannel("what was sent without memory is not read from it")

    def shut(self) -> None:
        """Nobody ever waits here."""

    def close(self) -> None:
        """Nothing is held."""
