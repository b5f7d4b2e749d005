"""What a merge has taken.

Responsible for: `Taken`, which proves that the positions of an epoch join without a gap, whatever
messages they come in, and knows what is left of it.

Rules:
- in order, each message begins where the one before it ended; out of order, their sum has to be
  right at the end, and what was taken beyond the first gap is remembered as ranges;
- anything else is an error, not a short epoch.
"""

from __future__ import annotations

from splitpipe.errors import PipelineError
from splitpipe.runtime.start import Start
from splitpipe.transport.message import End, Failed, Item

__all__ = ["Taken"]


class Taken:
    """The positions that were taken of the current epoch.

    Args:
        ordered: whether they come in order.

    Example:
        >>> taken = Taken(ordered=False)
        >>> for start, stop in [(4, 6), (0, 2)]:
        ...     taken.cover(Item(1, 0, 0, 0, start, stop))
        >>> taken.start(sequence=2).left_out
        ((0, 2), (4, 6))
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._position = 0
        self._covered = 0
        self._prefix = 0  # out of order: everything before it was taken, ...
        self._beyond: dict[int, int] = {}  # ... and these ranges behind it
        self.epoch = 0
        """Which."""
        self.drained = True
        """Whether the one before was read to its end."""

    def begin(self, epoch: int, position: int) -> None:
        """Begin elsewhere, before anything is taken."""
        self.epoch = epoch
        self._position = self._covered = self._prefix = position

    def cover(self, item: Item | Failed) -> None:
        """Take what a message covers.

        Raises:
            PipelineError: it does not follow.
        """
        if item.epoch != self.epoch or (self._ordered and item.start != self._position):
            raise PipelineError(
                f"after position {self._position} of epoch {self.epoch} came position "
                f"{item.start} of epoch {item.epoch}: a fault of splitpipe"
            )
        self._position = item.stop
        self._covered += item.stop - item.start
        if not self._ordered and item.stop > item.start:
            self._beyond[item.start] = item.stop
            while self._prefix in self._beyond:
                self._prefix = self._beyond.pop(self._prefix)

    def finish(self, end: End) -> None:
        """Go on to the next epoch.

        Raises:
            PipelineError: `end` tells of more, or of less, than was taken.
        """
        if end.epoch != self.epoch or end.stop != self._covered:
            raise PipelineError(
                f"epoch {end.epoch} ended at position {end.stop}, but {self._covered} positions "
                f"of epoch {self.epoch} were delivered: a fault of splitpipe"
            )
        self.epoch += 1
        self.drained = True
        self._position = self._covered = self._prefix = 0
        self._beyond.clear()

    def start(self, sequence: int) -> Start:
        """Return from where on the rest is wanted, in messages from number `sequence` on."""
        prefix = self._position if self._ordered else self._prefix
        return Start(
            self.epoch, prefix, tuple(sorted(self._beyond.items())), sequence, self.drained
        )
