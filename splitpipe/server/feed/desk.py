"""The engine's side of the protocol.

Responsible for: `Desk`, which hears what clients say, keeps their sessions and leases, and says
what has to be written down and then sent.

Rules:
- it has no socket, no file and no clock: time and frames are given to it, messages taken from it;
- whoever drives it writes down what `changed` gives before he sends what `answers` gives;
- frames that mean nothing are counted, and answered a bounded number of times; they change nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splitpipe.errors import WireError
from splitpipe.server.feed.cursor import Cursor
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.ranges import NOTHING, Ranges, normal
from splitpipe.server.feed.sessions import Peer, Session
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.tape import Tape
from splitpipe.server.feed.tickets import Grant, Tickets
from splitpipe.wire.limits import Limits
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Hello,
    Ping,
    Pong,
    PushBack,
    Refused,
    Welcome,
    Window,
    read_from_client,
)

__all__ = ["Answer", "Desk"]

Answer = tuple[Peer, Any, Session | None]
"""To whom, what, and the session that must say `Hello` again if it cannot be sent."""

_PEERS = 4096
CURSORS = 16_384
LOOKS_BACK = 8
"""Turns from one look at what everybody has behind him to the next."""


class Desk:
    """Sessions of all cursors.

    Args:
        iteration: its id.
        division: who gets what.
        tape: where the batches are.
        lease_s: how long a session that is not heard of keeps what it holds.
        limits: bounds.
        states: what the journal has, by the names of cursors.
        now_s: the time.
        total: how many batches the stream has, if that is known beforehand.
    """

    def __init__(
        self,
        iteration: str,
        division: Division,
        tape: Tape,
        *,
        lease_s: float,
        limits: FeedLimits,
        states: Mapping[str, Any] | None = None,
        now_s: float = 0.0,
        total: int | None = None,
    ) -> None:
        self.cursors: dict[str, Cursor] = {}
        self.sessions: dict[str, tuple[Session, Cursor]] = {}
        self.tickets = Tickets()
        self.total = total
        self.rubbish = 0
        """Messages that meant nothing."""
        self._iteration = iteration
        self._division = division
        self._tape = tape
        self._lease_s = lease_s
        self._limits = limits
        self._wire = Limits(frames=2, nbytes=limits.message_nbytes, depth=8, elements=1 << 16)
        self._peers: dict[Peer, str] = {}
        self._strikes: OrderedDict[Peer, int] = OrderedDict()
        self._former: OrderedDict[Peer, tuple[str, Cursor]] = OrderedDict()
        self._revoked: set[str] = set()
        self._answers: list[Answer] = []
        self._turns = self._live = 0
        self._behind = (0, 0)
        self._away: dict[tuple[str, str], float] = {}
        for name, state in (states or {}).items():
            cursor = self._cursor(name, state)
            for session in cursor.ledger.sessions:
                self._away[session, name] = now_s + lease_s

    # ---------------------------------------------------------------- for who drives it

    def hear(self, peer: Peer, frames: Sequence[Any], now_s: float) -> None:
        """Take a message."""
        try:
            message = read_from_client(frames, limits=self._wire)
        except WireError as error:
            self._strike(peer, f"this is no message of a client: {error}", retry=False)
            return
        if type(message) is Hello:
            self._hello(peer, message, now_s)
            return
        known = self.sessions.get(self._peers.get(peer, ""))
        if known is not None:
            known[0].heard_s = now_s
            _HEARD[type(message)](self, known[0], known[1], message)
        elif type(message) is Bye and peer in self._former:
            self._late_bye(peer, message)
        else:
            self._strike(peer, "no such session here. Say hello again", retry=True)

    def serve(self) -> None:
        """Grant what can be granted, and tell the tape what is wanted."""
        for cursor in self.cursors.values():
            if cursor.sessions:
                self._answers += [(to.peer, said, to) for to, said in cursor.serve()]
        self._demand()

    def changed(self) -> list[Cursor]:
        """Cursors that the journal has to write down. Afterwards they count as written."""
        some = [cursor for cursor in self.cursors.values() if cursor.dirty]
        for cursor in some:
            cursor.dirty = False
        return some

    def answers(self) -> list[Answer]:
        """What is to be sent."""
        answers, self._answers = self._answers, []
        return answers

    def expire(self, now_s: float) -> None:
        """Take back what sessions hold that were not heard of for too long."""
        for session, cursor in list(self.sessions.values()):
            if now_s - session.heard_s > self._lease_s:
                self._forget(session, cursor)
        for (session_name, name), until_s in list(self._away.items()):
            if now_s > until_s:
                del self._away[session_name, name]
                self.cursors[name].give_back(session_name)

    def extend(self, seconds: float) -> None:
        """This process was away for so long: nobody could be heard meanwhile."""
        for session, _ in self.sessions.values():
            session.heard_s += seconds
        self._away = {key: until_s + seconds for key, until_s in self._away.items()}

    def push_back(self) -> int:
        """Take back everything from everybody. Gives how many batches."""
        taken = 0
        for cursor in self.cursors.values():
            taken += cursor.ledger.give_back_all()
            cursor.dirty = True
        self._away.clear()
        self._revoked.update(self.sessions)
        self.dismiss(Refused("everything in progress was pushed back", retry=True))
        return taken

    def dismiss(self, message: Refused) -> None:
        """Forget all sessions, which are told why. What they hold stays granted to them."""
        for session, cursor in list(self.sessions.values()):
            self._answers.append((session.peer, message, None))
            self._detach(session, cursor)

    def unreached(self, session: Session) -> None:
        """Something could not be sent to it: it has to say what it has."""
        known = self.sessions.get(session.name)
        if known is not None and known[0] is session:
            self._detach(session, known[1])

    # ---------------------------------------------------------------- messages

    def _hello(self, peer: Peer, hello: Hello, now_s: float) -> None:
        asked = Grant(hello.rank, hello.client, hello.session, now_s)
        if not self.tickets.good(hello.ticket, asked):
            self._strike(
                peer, "this ticket is not good here, or not any more", retry=True, ticket=True
            )
            return
        if len(hello.acks) + len(hello.held) > self._limits.message_ranges:
            self._strike(peer, "too many ranges in one message", retry=False)
            return
        name = self._division.cursor(hello.rank, hello.client)
        known = self.sessions.get(hello.session)
        full = len(self.sessions) >= self._limits.sessions and known is None
        if full or (name not in self.cursors and len(self.cursors) >= CURSORS):
            self._strike(peer, f"{len(self.sessions)} clients are here already", retry=True)
            return
        if known is not None:
            if known[1].name == name:
                self._detach(*known)
            else:
                self._forget(*known)
        cursor = self._cursor(name, None)
        self._away.pop((hello.session, name), None)
        if hello.rewind is not None and cursor.ledger.seek(hello.rewind, by=hello.session):
            self._moved(cursor, hello.session)
        self._welcome(peer, hello, cursor, now_s)

    def _welcome(self, peer: Peer, hello: Hello, cursor: Cursor, now_s: float) -> None:
        session = Session(hello.session, peer, hello.rank, hello.client, now_s, hello.frame_nbytes)
        session.limit(hello.window_batches, hello.window_nbytes, limits=self._limits)
        acks, held = normal(hello.acks), normal(hello.held)
        if hello.session in self._revoked:
            self._revoked.discard(hello.session)
            cursor.join(session, acks, NOTHING)
            dropped = held
        else:
            dropped = cursor.join(session, acks, held)
        self.sessions[hello.session] = (session, cursor)
        self._peers[peer] = hello.session
        self._strikes.pop(peer, None)
        total = cursor.total
        if total is None and self.total is not None:
            total = self._division.total(self.total, cursor.group)
        welcome = Welcome(
            self._iteration,
            total,
            self._lease_s,
            dropped=list(dropped),
            next=cursor.ledger.lowest(),
        )
        self._answers.append((peer, welcome, session))
        if acks:
            self._answers.append((peer, Acked(hello.acks), session))

    def _ack(self, session: Session, cursor: Cursor, message: Ack) -> None:
        cursor.acknowledge(session, self._ranges(message.ranges))
        self._answers.append((session.peer, Acked(message.ranges), session))

    def _push_back(self, session: Session, cursor: Cursor, message: PushBack) -> None:
        cursor.push_back(session, self._ranges(message.ranges))

    def _window(self, session: Session, cursor: Cursor, message: Window) -> None:
        session.limit(message.batches, message.nbytes, limits=self._limits)
        cursor.look(session)

    def _ping(self, session: Session, _cursor: Cursor, _message: Ping) -> None:
        self._answers.append((session.peer, Pong(), session))

    def _bye(self, session: Session, cursor: Cursor, message: Bye) -> None:
        cursor.acknowledge(session, self._ranges(message.acks))
        self._forget(session, cursor)
        self._answers.append((session.peer, Acked(message.acks), None))

    def _late_bye(self, peer: Peer, message: Bye) -> None:
        """Of a session that was forgotten meanwhile, or whose first bye was not answered."""
        name, cursor = self._former[peer]
        if name not in self.sessions and cursor.ledger.acknowledge(
            name, self._ranges(message.acks)
        ):
            cursor.dirty = True
        if name not in self.sessions:
            cursor.give_back(name)
        self._answers.append((peer, Acked(message.acks), None))

    def _ranges(self, told: Sequence[Sequence[int]]) -> Ranges:
        return normal(told[: self._limits.message_ranges])

    # ---------------------------------------------------------------- within

    def _cursor(self, name: str, state: Any) -> Cursor:
        cursor = self.cursors.get(name)
        if cursor is None:
            cursor = self.cursors[name] = Cursor(
                name,
                self._division.rank(name),
                division=self._division,
                tape=self._tape,
                limits=self._limits,
                state=state,
            )
        return cursor

    def _forget(self, session: Session, cursor: Cursor) -> None:
        self._strike_off(session, cursor)
        cursor.leave(session)

    def _strike_off(self, session: Session, cursor: Cursor) -> None:
        self.sessions.pop(session.name, None)
        self._peers.pop(session.peer, None)
        self._former[session.peer] = (session.name, cursor)
        if len(self._former) > _PEERS:
            self._former.popitem(last=False)

    def _detach(self, session: Session, cursor: Cursor) -> None:
        """A session is not served until it says hello, and keeps what it holds for a lease."""
        self._strike_off(session, cursor)
        cursor.detach(session)
        self._away[session.name, cursor.name] = session.heard_s + self._lease_s

    def _moved(self, cursor: Cursor, by: str) -> None:
        """Somebody moved a cursor: the others on it hold nothing any more."""
        cursor.dirty = True
        told = Refused("somebody moved the position of this rank", retry=True)
        for session in list(cursor.sessions.values()):
            if session.name != by:
                self._revoked.add(session.name)
                self._answers.append((session.peer, told, None))
                self._forget(session, cursor)

    def _demand(self) -> None:
        live = [cursor for cursor in self.cursors.values() if cursor.sessions]
        if not live:
            return
        # What is behind everybody only says what may be forgotten: that is looked at now and then.
        self._turns += 1
        if self._turns % LOOKS_BACK == 1 or len(live) != self._live:
            self._live = len(live)
            lowest = {cursor.name: cursor.lowest for cursor in live}
            self._behind = (min(lowest.values()), self._floor(lowest))
        self._tape.demand(
            max(cursor.furthest for cursor in live), lowest=self._behind[0], floor=self._behind[1]
        )
        base = self._tape.base
        self._tape.ask({c.name: c.wants for c in live if c.wants is not None and c.wants < base})

    def _floor(self, lowest: Mapping[str, int]) -> int:
        """No batch before it is of use to anybody, also not to who has not come yet.

        Args:
            lowest: the same of cursors that are read, by name.
        """
        if self._division.mode == "follow" or len(self.cursors) < self._division.world_size:
            return 0
        away = (c.lowest for c in self.cursors.values() if c.name not in lowest)
        return min([*lowest.values(), *away])

    def _strike(self, peer: Peer, reason: str, *, retry: bool, ticket: bool = False) -> None:
        self.rubbish += 1
        strikes = self._strikes[peer] = self._strikes.get(peer, 0) + 1
        self._strikes.move_to_end(peer)
        if len(self._strikes) > _PEERS:
            self._strikes.popitem(last=False)
        if strikes <= self._limits.strikes:
            self._answers.append((peer, Refused(reason, retry, ticket), None))


_HEARD: dict[type, Callable[[Desk, Session, Cursor, Any], None]] = {
    Ack: Desk._ack,
    PushBack: Desk._push_back,
    Window: Desk._window,
    Ping: Desk._ping,
    Bye: Desk._bye,
}
