"""One position in the stream, with those who read by it.

Responsible for: `Cursor`: who of its sessions gets which batch next, and what each is sent.

Rules:
- sessions that have room take turns; with several, each gets a part of what is there;
- a session is told the end when nothing is left for it: what others hold may still come back;
- a batch that cannot be made is told to everyone whose turn it would be: the cursor stays there.
"""

from __future__ import annotations

from typing import Any

from splitpipe.server.feed.ledger import Ledger, Weight
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.ranges import Ranges, difference, intersection, numbers
from splitpipe.server.feed.sessions import Session
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.tape import Entry, Tape
from splitpipe.wire.carrying import Batch
from splitpipe.wire.messages import Delivery, End, Failed

__all__ = ["Cursor"]

_ALL: Ranges = ((0, 1 << 62),)


class Cursor:
    """A cursor and its sessions.

    Args:
        name: as the journal knows it.
        rank: whose it is.
        division: how the stream is divided.
        tape: where batches are.
        limits: bounds.
        state: what the journal has of it.
    """

    def __init__(
        self,
        name: str,
        rank: int,
        *,
        division: Division,
        tape: Tape,
        limits: FeedLimits,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.rank = rank
        self.group = division.group(rank)
        self.ledger = Ledger(state)
        self.sessions: dict[str, Session] = {}
        self.dirty = state is None
        """Whether the journal does not know all of it yet."""
        self.wants: int | None = None
        """The batch of the stream that somebody here waits for, and that is not on the tape."""
        self._division = division
        self._tape = tape
        self._limits = limits
        self._waiting: dict[str, Session] = {}
        self._resending: dict[str, Session] = {}

    # ---------------------------------------------------------------- sessions

    def join(self, session: Session, acknowledged: Ranges, held: Ranges) -> Ranges:
        """A session comes, perhaps back. Gives what it holds and is not its own any more."""
        said = self.ledger.reconcile(session.name, acknowledged, held)
        session.resend = said.resend
        session.sizes = {}
        session.held_nbytes = 0
        for number in numbers(difference(self.ledger.held(session.name), said.resend)):
            session.take(number, 0)
        self.sessions[session.name] = session
        if session.resend:
            self._resending[session.name] = session
        self.dirty = True
        self.look(session)
        return said.dropped

    def look(self, session: Session) -> None:
        """See whether it has room."""
        if session.room and not session.over:
            self._waiting.setdefault(session.name, session)
        else:
            self._waiting.pop(session.name, None)

    def detach(self, session: Session) -> None:
        """A session is not to be reached. It keeps what it holds."""
        self.sessions.pop(session.name, None)
        self._waiting.pop(session.name, None)
        self._resending.pop(session.name, None)

    def leave(self, session: Session) -> None:
        """A session is gone. What it holds goes back."""
        self.detach(session)
        self.give_back(session.name)

    def give_back(self, name: str) -> None:
        """Take all from a session, whether it is here or not."""
        if self.ledger.give_back(name):
            self.dirty = True
            self._reopen()

    def acknowledge(self, session: Session, ranges: Ranges) -> None:
        """It is done with these."""
        mine = intersection(self.ledger.held(session.name), ranges)
        if self.ledger.acknowledge(session.name, ranges):
            self.dirty = True
        session.drop(numbers(mine))
        session.resend = difference(session.resend, ranges)
        self.look(session)

    def push_back(self, session: Session, ranges: Ranges) -> None:
        """It does not want these."""
        mine = intersection(self.ledger.held(session.name), ranges)
        if self.ledger.give_back(session.name, mine):
            self.dirty = True
        session.drop(numbers(mine))
        session.resend = difference(session.resend, ranges)
        self._reopen()
        self.look(session)

    def _reopen(self) -> None:
        for session in self.sessions.values():
            session.over = False
            self.look(session)

    # ---------------------------------------------------------------- where it is

    @property
    def waiting(self) -> bool:
        """Whether somebody here has room."""
        return bool(self._waiting)

    @property
    def furthest(self) -> int:
        """The batch of the stream that has to be made next for it."""
        number, _ = self.ledger.place()
        return self._division.made_for(number, self.group) - 1

    @property
    def lowest(self) -> int:
        """No batch of the stream before this one is of use here."""
        return self._division.sequence(self.ledger.lowest(), self.group, total=None)

    @property
    def is_done(self) -> bool:
        """Whether all of it was acknowledged."""
        total = self.total
        return total is not None and self.ledger.has_ended and self.ledger.finished(total)

    @property
    def total(self) -> int | None:
        """How many batches there are for it, once the end of the stream was seen."""
        ended = self._tape.ended
        return None if ended is None else self._division.total(ended.batches, self.group)

    # ---------------------------------------------------------------- granting

    def serve(self) -> list[tuple[Session, Any]]:
        """Give what is there to who has room. Gives the messages that have to be sent."""
        self.wants = None
        self._count_the_end()
        sent: dict[Session, list[tuple[Batch, int]]] = {}
        for session in list(self._resending.values()):
            self._send_again(session, sent.setdefault(session, []))
            if not session.resend:
                del self._resending[session.name]
        while self._waiting:
            session = next(iter(self._waiting.values()))
            first, entries = self._collect(session)
            if not entries:
                break
            self.ledger.grant(session.name, first, [self._weight(*one) for one in entries])
            self.dirty = True
            batches = sent.setdefault(session, [])
            for number, entry in entries:
                session.take(number, entry.nbytes)
                batches.append((Batch(number, entry.weight[0], entry.frames), entry.nbytes))
            del self._waiting[session.name]
            self.look(session)
        out: list[tuple[Session, Any]] = []
        for session, batches in sent.items():
            out += [(session, Delivery(part)) for part in self._parts(batches)]
        return out + self._endings()

    def _collect(self, session: Session) -> tuple[int, list[tuple[int, Entry]]]:
        """What there is for it, as far as it has room."""
        first, stop = self.ledger.place()
        limit = self._limit(first, stop, session.room)
        get, sequence_of, group = self._tape.get, self._division.sequence, self.group
        total = None if self._tape.ended is None else self._tape.ended.batches
        room = session.nbytes - session.held_nbytes
        entries: list[tuple[int, Entry]] = []
        for number in range(first, limit):
            entry = get(sequence_of(number, group, total=total))
            if entry is None or room <= 0:
                break
            if entry.nbytes > session.frame_nbytes and _largest(entry) > session.frame_nbytes:
                break
            entries.append((number, entry))
            room -= entry.nbytes
        return first, entries

    def _limit(self, first: int, stop: int | None, room: int) -> int:
        ended = self._tape.ended
        made = self._tape.made
        total = None if ended is None else ended.batches
        there = self._division.available(made, self.group, total=total)
        limit = there if stop is None else min(stop, there)
        share = -(-(limit - first) // len(self._waiting))
        return min(limit, first + min(room, share))

    def _weight(self, number: int, entry: Entry) -> Weight:
        ended = self._tape.ended
        total = None if ended is None else ended.batches
        if self._division.padded(number, self.group, total=total):
            return (entry.weight[0], 0, 0)
        return entry.weight

    def _send_again(self, session: Session, batches: list[tuple[Batch, int]]) -> None:
        total = None if self._tape.ended is None else self._tape.ended.batches
        for number in list(numbers(session.resend)):
            sequence = self._division.sequence(number, self.group, total=total)
            entry = self._tape.get(sequence)
            if entry is None:
                self.wants = sequence
                break
            session.take(number, entry.nbytes)
            batches.append((Batch(number, entry.weight[0], entry.frames), entry.nbytes))
            session.resend = difference(session.resend, ((number, number + 1),))

    def _parts(self, batches: list[tuple[Batch, int]]) -> list[list[Batch]]:
        """Batches as messages of bounded size."""
        parts: list[list[Batch]] = []
        nbytes = 0
        for batch, size in batches:
            full = not parts or len(parts[-1]) >= self._limits.batches_together
            if full or nbytes + size > self._limits.nbytes_together:
                parts.append([])
                nbytes = 0
            parts[-1].append(batch)
            nbytes += size
        return parts

    # ---------------------------------------------------------------- endings

    def _endings(self) -> list[tuple[Session, Any]]:
        if not self._waiting:
            return []
        number, _ = self.ledger.place()
        total = self.total
        if total is not None and number >= total:
            return self._ends(total)
        broken = self._tape.broken
        needed = self.furthest
        if broken is not None and needed >= broken.sequence:
            return self._tell_all(Failed(number, broken.error.to_json()))
        if self.wants is None:
            self.wants = self._division.sequence(number, self.group, total=None)
        return self._too_large(number)

    def _ends(self, total: int) -> list[tuple[Session, Any]]:
        holders = self.ledger.sessions
        if not self.ledger.has_ended or len(holders) > 1:
            return []
        told = [
            session
            for session in self._waiting.values()
            if not holders or holders[0] == session.name
        ]
        for session in told:
            session.over = True
            self.look(session)
        return [(session, End(total)) for session in told]

    def _too_large(self, number: int) -> list[tuple[Session, Any]]:
        """A batch that is there and that the session whose turn it is cannot take."""
        total = None if self._tape.ended is None else self._tape.ended.batches
        entry = self._tape.get(self._division.sequence(number, self.group, total=total))
        if entry is None:
            return []
        told = []
        for session in list(self._waiting.values()):
            size = _largest(entry)
            if size > session.frame_nbytes:
                text = f"a frame of {size} bytes, and this client takes {session.frame_nbytes}"
                told.append((session, Failed(number, {"kind": "WireError", "message": text})))
                session.over = True
                self.look(session)
        return told

    def _tell_all(self, message: Any) -> list[tuple[Session, Any]]:
        told = list(self._waiting.values())
        for session in told:
            session.over = True
            self.look(session)
        return [(session, message) for session in told]

    def _count_the_end(self) -> None:
        ended = self._tape.ended
        if ended is None or self.ledger.has_ended:
            return
        groups = self._division.number_of_groups
        round_, rest = divmod(ended.batches, groups)
        filtered, failed = (ended.filtered, ended.failed) if self.group == rest else (0, 0)
        if self._division.ends == "drop" and self.group < rest:
            entry = self._tape.get(round_ * groups + self.group)
            if entry is not None:  # made, and nobody gets it
                filtered += entry.weight[0] + entry.weight[1]
                failed += entry.weight[2]
        self.ledger.ends(filtered, failed)
        self.dirty = True


def _largest(entry: Entry) -> int:
    return max((memoryview(frame).nbytes for frame in entry.frames), default=0)
