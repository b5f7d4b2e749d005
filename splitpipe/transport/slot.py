"""Slots: the pieces of shared memory that an arena hands out.

Responsible for: `Slot`, which its producer fills from front to back; `Segment`, its name in a
message; `Bounds`, how many slots of which size there may be and how many of them a reader may keep;
how large a slot is made and how it is mapped.

Rules:
- both sides compute the same bounds from the size of a slot: what a reader may keep is never all
  that the producer may have.
"""

from __future__ import annotations

import mmap
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitpipe.transport.anonymous import HUGE, map_huge, map_shared
from splitpipe.transport.native.kernel import address

__all__ = ["CACHE_LINE", "PHASE", "Bounds", "Segment", "Slot", "map_slot", "slot_nbytes"]

CACHE_LINE = 64
PHASE = 16
"""Where in a cache line an array begins unless its maker knows better: where numpy's large arrays
do. A copy between places of different phase takes up to half as long again (``rep movsb``)."""
_PAGE = mmap.ALLOCATIONGRANULARITY
_REMOVE = getattr(mmap, "MADV_REMOVE", None)
_FEW = 4
"""Slots that a producer may have however large they are: one is written, one is on its way, two are
kept by the reader."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the arena of one producer may become.

    Attributes:
        limit: bytes of all slots together.
        slots: how many slots.
        lease_limit: how many of them one reader may keep.
        warm: bytes beyond which only a few slots are made, for producers that may wait for one:
            more would only be colder ones. None for those that must not be made to wait.
    """

    limit: int
    slots: int
    lease_limit: int
    warm: int | None = None

    def most(self, nbytes: int) -> int:
        """How many slots of `nbytes` there may be.

        Example:
            >>> Bounds(limit=1 << 30, slots=67, lease_limit=65, warm=32 << 20).most(10 << 20)
            4
        """
        if self.warm is None:
            return self.slots
        return min(self.slots, max(_FEW, self.warm // max(1, nbytes)))

    def leases(self, nbytes: int) -> int:
        """How many slots of `nbytes` a reader may keep."""
        most = self.most(nbytes)
        return self.lease_limit if most == self.slots else min(self.lease_limit, most - 2)


class Segment(NamedTuple):
    """Slot ``number`` as a message names it: its place in the producer's arena file."""

    number: int
    offset: int
    nbytes: int


class Slot:
    """A piece of the arena that its producer is filling, front to back."""

    __slots__ = (
        "_memory",
        "_view",
        "address",
        "array",
        "free",
        "index",
        "nbytes",
        "segment",
        "top",
    )

    def __init__(self, index: int, offset: int, nbytes: int, memory: mmap.mmap) -> None:
        self.index = index
        self.nbytes = nbytes
        self.segment = Segment(index, offset, nbytes)
        self.free = False
        self.top = 0
        self._memory = memory
        self._view: weakref.ref[NDArray[np.uint8]] | None = None
        self.array: NDArray[np.uint8] | None = None  # None: sealed; it is the readers'
        self.address = address(np.frombuffer(memory, np.uint8, nbytes))

    def open(self) -> None:
        """Start filling it. Everything handed out is a view of `array`, whose life tells who still
        uses it.
        """
        self.free = False
        self.top = 0
        self.array = np.frombuffer(self._memory, np.uint8, self.nbytes)
        self._view = weakref.ref(self.array)

    def take(self, nbytes: int, phase: int = PHASE) -> int | None:
        """Return where in `array` the next `nbytes` begin, or None when they are not left.

        That is `phase` bytes behind the beginning of a cache line.
        """
        start = self.top + (phase - self.top) % CACHE_LINE
        if self.array is None or start + nbytes > self.nbytes:
            return None
        self.top = start + nbytes
        return start

    def place(self, raw: NDArray[np.uint8]) -> int | None:
        """Return where in this slot the bytes of `raw` lie, or None when they lie elsewhere."""
        if self.array is None:
            return None
        offset = address(raw) - self.address
        return offset if offset >= 0 and offset + raw.nbytes <= self.nbytes else None

    @property
    def pinned(self) -> bool:
        """Whether the producer's own code still holds an array of its last use."""
        return self._view is not None and self._view() is not None

    def retire(self) -> None:
        """Give its pages back to the system; its place in the file stays a hole."""
        self._view = None
        if _REMOVE is not None:
            self._memory.madvise(_REMOVE, 0, self.nbytes)
        self._memory.close()


def slot_nbytes(nbytes: int) -> int:
    """Return the size of a slot for `nbytes`: whole pages, huge ones from half of one."""
    page = HUGE if nbytes >= HUGE // 2 else _PAGE
    return -(-nbytes // page) * page


def map_slot(fd: int, offset: int, nbytes: int) -> mmap.mmap:
    """Map a slot of the file `fd`, in huge pages where it is made of them."""
    if nbytes % HUGE == 0 and offset % HUGE == 0:
        return map_huge(fd, offset, nbytes)
    return map_shared(fd, offset, nbytes)
