"""From where on a stream is wanted.

Responsible for: `Start`, what a merge knows of its region: which epoch it is in, and which
positions of it need not be made any more.

Rules:
- positions are the region's own: those of the source where it is read by position, the numbers of
  the values that its head sends where the head is a task. Neither depends on how they were cut into
  messages, nor on who made them;
- what a merge has taken never comes again, also if everybody before it is replaced: a source is
  asked for the rest, a task leaves out what it had sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from splitpipe.transport.message import NEVER

__all__ = ["BEGINNING", "Start"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a region begins.

    Attributes:
        epoch: the first one that is wanted; `NEVER` for none.
        position: everything before it, in that epoch, was taken.
        done: ranges behind it that were taken, too, in their order; only where messages may
            overtake one another.
        sequence: the number of the first message.
        drained: whether the epoch before was read to its end, and not left.

    Example:
        >>> list(Start(epoch=2, position=3, done=((5, 8), (9, 10))).left_out)
        [(0, 3), (5, 8), (9, 10)]
        >>> Start(epoch=2, position=3, done=((5, 8), (9, 10))).covered
        7
    """

    epoch: int = 0
    position: int = 0
    done: tuple[tuple[int, int], ...] = ()
    sequence: int = 0
    drained: bool = True

    @property
    def left_out(self) -> tuple[tuple[int, int], ...]:
        """Ranges of positions of `epoch` that nobody wants any more."""
        before = ((0, self.position),) if self.position else ()
        return (*before, *self.done)

    @property
    def covered(self) -> int:
        """How many positions of `epoch` were taken."""
        return sum(stop - start for start, stop in self.left_out)

    @property
    def wanted(self) -> bool:
        """Whether anything is."""
        return self.epoch != NEVER


BEGINNING = Start()
"""From where a run begins that has no past."""
