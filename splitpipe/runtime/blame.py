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
from typing import NamedTuple, TypeAlias

from splitpipe.errors import PoisonRecord
from splitpipe.runtime import board as b
from splitpipe.runtime.notes import Accused, Notes

__all__ = ["Accusation", "Accusations", "Blame", "Nested", "mark_of"]


class Accusation(NamedTuple):
    """What is known of an item that has ended too many workers.

    Attributes:
        item: which it is, in words.
        how: how often it did, where, and how the last of them ended.
    """

    item: str
    how: str

    def __str__(self) -> str:
        return f"{self.item} {self.how}"


Accusations: TypeAlias = "Mapping[Accused, Accusation]"
"""What is known of items that are not to be treated any more."""


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
        >>> item = Accused(mark_of("decode"), 0, 7, 0)
        >>> accused = {item: Accusation("record 7", "has ended 3 workers")}
        >>> blame = Blame("decode", 0, None, accused)
        >>> blame.begin((6, 0)), blame.begin((7, 0))
        (None, PoisonRecord('record 7 has ended 3 workers'))
    """

    __slots__ = ("_accused", "_epoch", "_mark", "_notes")

    def __init__(self, stage: str, epoch: int, notes: Notes | None, accused: Accusations) -> None:
        self._mark = mark_of(stage)
        self._epoch = epoch
        self._notes = notes
        self._accused = accused

    def nested(self) -> Nested | None:
        """Return where stages that run inside of this one note what they do."""
        return None if self._notes is None else Nested(self._notes)

    def within(self, stage: str, epoch: int, notes: Nested | None) -> Blame:
        """Return the same for a stage that runs inside of this one."""
        return Blame(stage, epoch, notes, self._accused)

    def begin(self, place: tuple[int, int], *, called: str | None = None) -> PoisonRecord | None:
        """The item at `place` is about to be treated: return why it is not to be; None: it is.

        Args:
            place: its number, and which part.
            called: what it is called, where whoever asks knows better.
        """
        item = Accused(self._mark, self._epoch, *place)
        known = self._accused.get(item)
        if known is not None:
            return PoisonRecord(str(known if called is None else known._replace(item=called)))
        if self._notes is not None:
            self._notes.accuse(item)
        return None

    def end(self) -> None:
        """It was treated."""
        if self._notes is not None:
            self._notes.acquit(self._mark)


class Nested(Notes):
    """The notes of stages that run inside of another one, which stands on the row.

    An item of one of them is named there while that very one runs; else the item of the outer.

    Args:
        outer: the notes of that stage.
    """

    __slots__ = ("_outer",)

    def __init__(self, outer: Notes) -> None:
        super().__init__(memoryview(bytearray(8 * b.FIELDS)).cast("d"), stages=True)
        self._outer = outer

    def pause(self) -> float:
        stage = super().pause()
        self._show()
        return stage

    def resume(self, stage: float) -> None:
        super().resume(stage)
        self._show()

    def accuse(self, item: Accused) -> None:
        super().accuse(item)
        self._show()

    def acquit(self, mark: int) -> None:
        super().acquit(mark)
        self._show()

    def _show(self) -> None:
        running = self._row[b.AT_STAGE]
        own = [item for item, stage in self._accused.values() if running and stage == running]
        self._outer.show(own[-1] if own else None)
