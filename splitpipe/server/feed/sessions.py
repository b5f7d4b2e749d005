"""One client, as the engine sees it.

Responsible for: `Session`: who it is, how much it may hold, what it holds in bytes, when it was
heard of last.

Rules:
- what it holds by number is the ledger's business; here are only the bytes of it, which a journal
  need not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.ranges import NOTHING, Ranges

__all__ = ["Peer", "Session"]

Peer = tuple[int, bytes]
"""Whom a message is from: which of the engine's sockets, and the name that the socket gave it."""


@dataclass(slots=True, eq=False)
class Session:
    """A client that was welcome.

    Attributes:
        name: as the client calls itself.
        peer: where it is reached.
        rank: whose batches it reads.
        client: the name under which it follows.
        heard_s: when it was heard of last, on the engine's clock.
        frame_nbytes: the largest frame that it takes.
        batches: how many batches it may hold.
        nbytes: how many bytes of them.
        sizes: bytes of each batch that it holds.
        held_nbytes: bytes of all of them.
        resend: batches that are its own and have to be sent again.
        over: whether it was told that nothing more comes.
    """

    name: str
    peer: Peer
    rank: int
    client: str
    heard_s: float
    frame_nbytes: int
    batches: int = 0
    nbytes: int = 0
    sizes: dict[int, int] = field(default_factory=dict)
    held_nbytes: int = 0
    resend: Ranges = NOTHING
    over: bool = False

    def limit(self, batches: int, nbytes: int, *, limits: FeedLimits) -> None:
        """Say how much it may hold."""
        self.batches = min(batches, limits.session_batches)
        self.nbytes = min(nbytes, limits.session_nbytes)

    @property
    def room(self) -> int:
        """How many batches more it may hold; the last one may be of any size."""
        if not self.batches or (self.sizes and self.held_nbytes >= self.nbytes):
            return 0
        return max(0, self.batches - len(self.sizes))

    def take(self, number: int, nbytes: int) -> None:
        """It holds this batch now."""
        self.held_nbytes += nbytes - self.sizes.get(number, 0)
        self.sizes[number] = nbytes

    def drop(self, some: Iterable[int]) -> None:
        """It does not hold these any more."""
        sizes = self.sizes
        self.held_nbytes -= sum([sizes.pop(number, 0) for number in some])
