"""One request for neighbouring blocks of one object, from the claim to the marks.

Responsible for: `Flight`: taking room, asking the store, writing, marking, letting go; and who
waits for it; `give_up`, for whoever claimed some.

Rules:
- the blocks are claimed before: nobody else, in any process, fetches or throws out one of them
  until the flight has landed;
- it lands once, whatever happened, and has let go of its blocks and its room by then;
- the bytes are written before the mark: the system call between the two keeps the order for every
  reader.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from splitpipe.cache.account import Slot
from splitpipe.errors import CacheFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splitpipe.cache.opened import Opened

__all__ = ["Flight", "give_up"]


class Flight:
    """A request on its way.

    Args:
        opened: the object.
        first: block.
        count: of blocks.
        keep: whether the bytes are wanted by whoever waits, even where there is no room.
        ahead: how far in the future of the cache's clock it will be wanted.

    Attributes:
        data: the bytes, if they were to be kept.
        error: what went wrong.
        landed: set when all is done.
    """

    __slots__ = (
        "_ahead",
        "_interrupted",
        "_keep",
        "_taken",
        "count",
        "data",
        "error",
        "first",
        "landed",
        "opened",
    )

    def __init__(
        self, opened: Opened, first: int, count: int, *, keep: bool = False, ahead: int = 0
    ) -> None:
        self.opened = opened
        self.first = first
        self.count = count
        self.data: bytes | None = None
        self.error: BaseException | None = None
        self.landed = threading.Event()
        self._keep = keep
        self._ahead = ahead
        self._taken = threading.RLock()
        self._interrupted = False

    def run(self) -> None:
        """Do it, unless somebody does already; what goes wrong is kept in `error`."""
        try:
            if self._is_mine():
                self._fly()
        except Exception as error:
            self.error = error
        except BaseException as error:
            self.error, self._interrupted = error, True
            raise
        finally:
            self._land()

    def cancel(self) -> None:
        """Let go of the blocks, unless another thread has begun; what this one has begun and was
        interrupted in ends here.
        """
        if self._is_mine():
            self.error = self.error or CacheFull(
                errno.ECANCELED, "it was given up", self.opened.path
            )
            self._land()

    def _is_mine(self) -> bool:
        """Take it, once and for ever; whether there is something to do for this thread."""
        return self._taken.acquire(blocking=False) and not self.landed.is_set()

    def _land(self) -> None:
        # Ctrl-C may come at any call: what it interrupts here, `cancel` does.
        if self._taken._is_owned() and not self.landed.is_set():  # type: ignore[attr-defined]
            if self._interrupted:
                opened = self.opened
                opened.space.reclaim(opened.identity.digest, first=self.first, count=self.count)
            self.opened.let_go(self)
            self.landed.set()

    def _fly(self) -> None:
        opened = self.opened
        try:
            slot = opened.space.take(
                opened.identity.digest,
                first=self.first,
                count=self.count,
                nbytes=opened.identity.cost(self.first, self.count),
                patient=not (self._keep or self._ahead),
            )
        except CacheFull:
            if not self._keep:
                raise
            self.data = opened.fetch(self.first, self.count, streamed=True)
            return
        self._fill(slot)

    def _fill(self, slot: Slot) -> None:
        opened, used = self.opened, 0
        try:
            data = opened.fetch(self.first, self.count)
            if self._keep:
                self.data = data
            try:
                opened.write(self.first, data)
            except CacheFull as error:
                if not self._keep:
                    raise
                opened.space.tell_full(error)
                return
            opened.mark(slot, ahead=self._ahead)
            used = slot.nbytes
        finally:
            if not used:
                opened.punch(self.first, self.count)
            opened.space.settle(slot, used=used)
        opened.fresh = True
        opened.space.note_fresh(used)


def give_up(flights: Sequence[Flight]) -> None:
    """Have done with flights, whether they have begun or not: an interrupt may come at any line."""
    for flight in flights:
        flight.cancel()
