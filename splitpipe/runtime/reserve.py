"""Processes that can take a worker's place without being started.

Responsible for: `Hand`, a worker process as its owner holds it; `Reserve`, which keeps those that
were called back from a set of workers of which one has died, and a *spare*, which was started
beforehand.

Rules:
- a hand goes back to the very work that it had, done again: it has loaded what that needs. A spare
  does whatever nobody is there for;
- a run has one spare, which is started while its reader waits anyway, when the run has given
  something and gone on for a while, and again some time after it was needed. A short run never has
  one, and where workers are slow to start nobody is started beside them;
- spares that are missing when workers have died are started while the others leave: that takes as
  long;
- a spare that dies is replaced later, the next one after twice as long, and nobody hears of it. One
  that cannot be started (no process, no descriptor is left), or leaves by itself, was the last;
- who is in reserve waits and holds nothing. With the run it leaves, and is killed if it does not;
  where others wait for it, at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from splitpipe.pipeline.plan import RunOptions
from splitpipe.runtime.forking import starting_context
from splitpipe.runtime.owner import Owner
from splitpipe.runtime.seat import Seat
from splitpipe.runtime.standby import Line
from splitpipe.runtime.worker import WorkerSpec, stand_by

if TYPE_CHECKING:
    from splitpipe.runtime.onray.crew import Crew

__all__ = ["SPARE_AFTER_S", "SPARE_AGAIN_S", "UNKNOWN", "Hand", "Reserve"]

SPARE_AFTER_S = 3.0
"""How long a run has gone on, since its first message, before there is a spare."""

SPARE_AGAIN_S = 0.15
"""How long after a death there is another one: those that were started have something to do."""


LEAVE_S = 0.4
"""How long who is on standby may take to leave: a spare may be importing still."""

UNKNOWN = 255
"""How multiprocessing says that nobody knows how a process ended."""


class Hand:
    """A worker process.

    Args:
        process: of multiprocessing, started.
        line: to it; None: it cannot be called back.
    """

    def __init__(self, process: Any, line: Line | None) -> None:
        self.process = process
        self.line = line

    def give(self, spec: WorkerSpec) -> bool:
        """Let it do something else; False: it is dead, or as good as that."""
        assert self.line is not None
        if self.process.exitcode is None:
            try:
                # It knows its owner already.
                self.line.give(replace(spec, owner=None))
            except OSError:
                pass
            else:
                return True
        return False

    def dismiss(self) -> None:
        """Let it leave, if it is on standby."""
        if self.line is not None:
            self.line.close()

    def kill(self) -> None:
        """End it, and do not wait for that."""
        if self.process.exitcode is None:
            self.process.kill()

    def close(self) -> None:
        """Wait for its end and let go of it."""
        self.dismiss()
        self.process.join()
        self.process.close()


class Reserve:
    """The hands of a run that have nothing to do.

    Args:
        options: of the run.
        owner: whom they do not outlive.
    """

    def __init__(self, options: RunOptions, owner: Owner) -> None:
        self._method = options.start_method
        self._owner = owner
        self._seat: Seat | None = None
        self._hands: dict[int, Hand] = {}
        self._spares: list[Hand] = []
        # What is forked has work that cannot travel, and is forked quickly.
        self._wanted = options.restarts != 0 and self._method != "fork"
        self._due: float | None = None
        self._pause_s = SPARE_AGAIN_S
        self._crew: Crew | None = None

    @property
    def watched(self) -> Sequence[int]:
        """What can be read when a spare has ended."""
        return [spare.process.sentinel for spare in self._spares]

    def keep(self, row: int, hand: Hand) -> None:
        """Keep the hand that had the work of `row`."""
        self._hands[row] = hand

    def give(self, spec: WorkerSpec, *, spares: bool = True) -> Hand | None:
        """Let somebody do the work of `spec`, a spare only with `spares`; return who does; None:
        nobody is there.
        """
        if spares:
            self._seat = Seat(threads=spec.seat.threads)
        hand = self._hands.pop(spec.row, None)
        if hand is not None and self._give(hand, spec):
            return hand
        while spares and self._spares:
            spare = self._spares.pop()
            if self._give(spare, spec):
                self._pause_s = SPARE_AGAIN_S
                return spare
        return None

    def _give(self, hand: Hand, spec: WorkerSpec) -> bool:
        given = hand.give(spec)
        if not given:
            _end([hand])
        return given

    def crew(self) -> Crew:
        """Return who starts actors; made when it is first wanted."""
        if self._crew is None:
            from splitpipe.runtime.onray.crew import Crew

            self._crew = Crew(self._method, self._owner)
        return self._crew

    def arrived(self) -> None:
        """A message has come: the workers are there."""
        if self._due is None:
            self._due = time.monotonic() + SPARE_AFTER_S

    def look(self) -> None:
        """See that there is a spare, if it is time for that; for who waits now."""
        if not self._wanted or self._spares or self._due is None:
            return
        if time.monotonic() >= self._due:
            self._start()

    def look_after(self) -> None:
        """See whether a spare is dead."""
        dead = [spare for spare in self._spares if spare.process.exitcode is not None]
        if dead:
            if any(0 <= spare.process.exitcode < UNKNOWN for spare in dead):
                self._wanted = False  # it left by itself: the program cannot be imported any more
            self._spares = [spare for spare in self._spares if spare not in dead]
            self._pause_s *= 2
            self._due = time.monotonic() + self._pause_s
            _end(dead)

    def prepare(self, count: int) -> None:
        """So many have died: begin to start those that take their places, while others leave."""
        self.look_after()
        self._due = max(self._due or 0.0, time.monotonic() + SPARE_AGAIN_S)
        while self._wanted and len(self._spares) < count:
            self._start()

    def settle(self) -> None:
        """All have been given their work: end who is left, but for one spare."""
        left = [*self._hands.values(), *self._spares[1:]]
        self._hands, self._spares = {}, self._spares[:1]
        _end(left)

    def dismiss(self) -> None:
        """Let all leave; `close` has to follow."""
        self._wanted = False
        for hand in (*self._hands.values(), *self._spares):
            hand.dismiss()

    def close(self) -> None:
        """End all. Safe to call twice."""
        self.dismiss()
        left = [*self._hands.values(), *self._spares]
        self._hands, self._spares = {}, []
        _end(left, grace_s=LEAVE_S)
        if self._crew is not None:
            self._crew.close()

    def _start(self) -> None:
        if self._seat is None:
            self._wanted = False  # nobody is a process here
            return
        line = Line()
        context: Any = starting_context(self._method)
        arguments = (self._owner, self._seat, line)
        process = context.Process(target=stand_by, args=arguments, name="splitpipe spare")
        try:
            process.start()
        except (OSError, EOFError):
            self._wanted = False
            line.close()
            return
        line.started()
        self._spares.append(Hand(process, line))


def _end(hands: Sequence[Hand], *, grace_s: float = 0.0) -> None:
    """End processes, those that are still there after `grace_s` by SIGKILL."""
    deadline = time.monotonic() + grace_s
    waiting = {hand.process.sentinel for hand in hands} if grace_s else set()
    while waiting:
        ready = connection.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        waiting.difference_update(ready)
    for hand in hands:
        hand.kill()
    for hand in hands:
        hand.close()
