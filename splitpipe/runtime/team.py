"""The workers of one pool that are to be more or fewer while it runs.

Responsible for: `Team`, which starts workers one by one and tells those that are too many to wait;
`Leash`, with which a worker learns of it.

Rules:
- a worker that waits takes no units, holds none, and costs nothing: it sleeps on its leash until
  it is told to go on, or the run is shut. It keeps its process: waking it is quick;
- what it was told it heeds between two units: the one that it is at, or has just taken, it
  finishes;
- the first worker always works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from splitpipe.runtime.board import WAITS_FOR_INPUT
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.base import Link, Receiver, Sender
from splitpipe.transport.message import Credit, decode, encode

__all__ = ["Leash", "Team"]


class Team:
    """The workers of one pool, as their owner sees them.

    Args:
        start: each starts one worker; the first has been started.
        leashes: one for each.
        run: number of the run.
    """

    def __init__(
        self, start: Sequence[Callable[[], None]], leashes: Sequence[Link], *, run: int
    ) -> None:
        self._start = start
        self._senders: list[Sender] = [link.sender() for link in leashes]
        self._run = run
        self._goes = [True]  # of those that were started

    @property
    def working(self) -> int:
        """How many are not told to wait."""
        return sum(self._goes)

    def work(self, count: int) -> None:
        """Let the first `count` workers work, and no others."""
        count = max(1, min(count, len(self._start)))
        for index, goes in enumerate(self._goes):
            if goes != (index < count):
                self._tell(index, go=not goes)
        while len(self._goes) < count:
            self._start[len(self._goes)]()
            self._goes.append(True)

    def renew(self, other: Team, count: int) -> None:
        """Be the workers of `other`, of which one was started, and let `count` of them work."""
        self._start, self._senders, self._run = other._start, other._senders, other._run
        self._goes = [True]
        self.work(count)

    def _tell(self, index: int, *, go: bool) -> None:
        self._goes[index] = go
        word = Credit(self._run, 0, 0, 0, 0, 0, count=int(go))
        self._senders[index].send([encode(word)])


class Leash:
    """A worker's end of it."""

    def __init__(self, receiver: Receiver, meter: Meter) -> None:
        self._receiver = receiver
        self._meter = meter

    def heed(self) -> None:
        """Do what was said last: go on, or wait for another word.

        Raises:
            BrokenChannel: the run was shut meanwhile.
        """
        wire = self._receiver.receive(block=False)
        while wire is not None:
            if decode(wire).count:
                wire = self._receiver.receive(block=False)
                continue
            self._meter.wait(WAITS_FOR_INPUT)
            wire = self._receiver.receive()
            self._meter.resume()
