"""Items that end the workers that treat them, left out as their stage says.

Responsible for: `Blame`, with which a stage that may leave items out notes which one it is at, and
asks whether that one is to be treated at all; and `Accused`, the name of such an item.

Rules:
- an item is named by numbers that do not depend on who treats it (stage, epoch, number, part): what
  is known of it after three deaths is true for every worker that comes to it later;
- it is left out where it would have been treated, by the same policy, ledger and budget as one that
  fails: who reads the stream sees no difference;
- a worker notes items only after one has died: until then this costs nothing. One whose outputs are
  served by several threads does not note them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TypeAlias

from splitpipe.errors import PoisonRecord
from splitpipe.runtime.notes import Accused, Notes

__all__ = ["Accusations", "Blame", "mark_of"]

Accusations: TypeAlias = "Mapping[Accused, str]"
"""What is known of items that have ended too many workers: how they did."""


def mark_of(stage: str) -> int:
    """Return the number by which a stage is named in notes; not 0."""
    return zlib.crc32(stage.encode()) + 1


class Blame:
    """The items of one stage in one pass.

    Args:
        stage: its name.
        epoch: which pass, with that of a `repeat` in its upper bits.
        notes: where to note items; None: nowhere.
        accused: items that are not to be treated.

    Example:
        >>> blame = Blame("decode", 0, None, {Accused(mark_of("decode"), 0, 7, 0): "it was killed"})
        >>> blame.begin((6, 0)), blame.begin((7, 0))
        (None, PoisonRecord('it was killed'))
    """

    __slots__ = ("_accused", "_epoch", "_mark", "_notes")

    def __init__(self, stage: str, epoch: int, notes: Notes | None, accused: Accusations) -> None:
        self._mark = mark_of(stage)
        self._epoch = epoch
        self._notes = notes
        self._accused = accused

    def begin(self, place: tuple[int, int]) -> PoisonRecord | None:
        """The item at `place` is about to be treated: return why it is not to be; None: it is."""
        item = Accused(self._mark, self._epoch, *place)
        reason = self._accused.get(item)
        if reason is not None:
            return PoisonRecord(reason)
        if self._notes is not None:
            self._notes.accuse(item)
        return None

    def end(self) -> None:
        """It was treated."""
        if self._notes is not None:
            self._notes.acquit(self._mark)
