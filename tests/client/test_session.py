"""What client and engine agree on, whatever is lost on the way and whenever."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitpipe.client.feed.ranges import RangeSet, compact, without
from splitpipe.client.feed.session import Asked, Hand, Session
from splitpipe.errors import ServiceError
from splitpipe.wire.carrying import Batch
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Delivery,
    End,
    Failed,
    FromClient,
    FromEngine,
    Hello,
    Ping,
    Pong,
    PushBack,
    Ranges,
    Refused,
    Welcome,
    Window,
)

TOTAL = 30


def members(ranges: Ranges) -> set[int]:
    return {one for start, stop in ranges for one in range(start, stop)}


class Engine:
    """The other side, for sessions that share the numbers up to `TOTAL`."""

    def __init__(self) -> None:
        self.free = set(range(TOTAL))
        self.granted: dict[str, set[int]] = {}
        self.windows: dict[str, int] = {}
        self.completed: set[int] = set()
        self.sent: dict[str, set[int]] = {}

    def hear(self, name: str, message: FromClient) -> list[FromEngine]:
        if isinstance(message, Hello):
            return self.welcome(name, message)
        if name not in self.granted:
            return [Refused("unknown session", True)]
        answer: list[FromEngine] = []
        if isinstance(message, Ack | Bye):
            acks = message.ranges if isinstance(message, Ack) else message.acks
            self.complete(name, members(acks))
            answer.append(Acked(acks))
        if isinstance(message, PushBack):
            self.give_back(name, members(message.ranges))
        if isinstance(message, Window):
            self.windows[name] = message.batches
        if isinstance(message, Ping):
            answer.append(Pong())
        if isinstance(message, Bye):
            self.expire(name)
            return answer
        return answer + self.grant(name)

    def welcome(self, name: str, hello: Hello) -> list[FromEngine]:
        own = self.granted.setdefault(name, set())
        acks, held = members(hello.acks), members(hello.held)
        own |= (acks | held) & self.free  # it comes back in time
        self.free -= own
        self.complete(name, acks)
        dropped = held - own
        self.windows[name] = hello.window_batches
        self.sent[name] = own & held
        told: list[FromEngine] = [
            Welcome("id", TOTAL, 30.0, compact(dropped), self.below()),
            Acked(hello.acks),
        ]
        return told + self.grant(name)

    def below(self) -> int:
        return next(one for one in range(TOTAL + 1) if one not in self.completed)

    def complete(self, name: str, acks: set[int]) -> None:
        self.completed |= acks & self.granted[name]
        self.granted[name] -= acks

    def give_back(self, name: str, back: set[int]) -> None:
        back &= self.granted[name]
        self.granted[name] -= back
        self.sent[name] -= back
        self.free |= back

    def expire(self, name: str) -> None:
        self.free |= self.granted.pop(name, set())
        self.sent.pop(name, None)

    def grant(self, name: str) -> list[FromEngine]:
        own, sent = self.granted[name], self.sent[name]
        while self.free and len(own) < self.windows[name]:
            one = min(self.free)
            self.free.discard(one)
            own.add(one)
        sent &= own
        new = sorted(own - sent)
        sent |= own
        told: list[FromEngine] = [
            Delivery([Batch(one, 1, [str(one).encode()]) for one in part])
            for part in (new[:3], new[3:])
            if part
        ]
        if len(self.completed) == TOTAL:
            told.append(End(TOTAL))
        return told


class Side:
    """One client, and the messages under way between it and the engine."""

    def __init__(self, asked: Asked, name: str) -> None:
        self.session = Session(asked, name)
        self.up: deque[FromClient] = deque()
        self.down: deque[FromEngine] = deque()
        self.got: list[int] = []
        self.linked = False


class Sharing(RuleBasedStateMachine):
    """Two clients share; anything may be lost, come twice, or take long."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.engine = Engine()
        self.sides = [
            Side(Asked(batches=4), "a" * 20),
            Side(Asked(), "b" * 20),
        ]
        self.late: set[int] = set()  # given to a user whose lease was over

    who = st.integers(0, 1)

    @rule(who=who)
    def link(self, who: int) -> None:
        """A connection, with nothing left of the one before."""
        side = self.sides[who]
        side.up.clear()
        side.down.clear()
        side.linked = True
        side.up += side.session.begin("ticket", self.now_s)

    @rule(who=who)
    def lose(self, who: int) -> None:
        side = self.sides[who]
        side.linked = side.session.connected = False
        side.up.clear()
        side.down.clear()

    @rule(who=who)
    def hear(self, who: int) -> None:
        side = self.sides[who]
        if side.up:
            side.down += self.engine.hear(side.session.name, side.up.popleft())

    @rule(who=who, twice=st.booleans())
    def receive(self, who: int, twice: bool) -> None:
        side = self.sides[who]
        if side.down:
            message = side.down.popleft()
            for _ in range(1 + (twice and not isinstance(message, Refused))):
                side.session.receive(message, self.now_s)

    @rule(who=who)
    def say(self, who: int) -> None:
        side = self.sides[who]
        if side.linked:
            side.up += side.session.say(self.now_s)

    @rule(who=who)
    def take(self, who: int) -> None:
        side = self.sides[who]
        batch = side.session.take()
        if batch is not None:
            assert bytes(batch.frames[0]) == str(batch.sequence).encode()
            side.got.append(batch.sequence)
            if batch.sequence not in self.engine.granted.get(side.session.name, ()):
                self.late.add(batch.sequence)

    @rule(who=who)
    def interrupt(self, who: int) -> None:
        """A batch is taken and does not reach its user."""
        session = self.sides[who].session
        before = session.counts.batches, session.next_position(), session.queued
        hand: Hand = []
        session.take(hand)
        for batch, last in hand:
            session.put_back(batch, last)
        if hand:
            assert (session.counts.batches, session.next_position(), session.queued) == before

    @rule(who=who)
    def push_back(self, who: int) -> None:
        self.sides[who].session.push_back()

    @rule(seconds=st.sampled_from([0.01, 0.5, 15.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: any(side.got for side in self.sides))
    @rule(who=who)
    def expire(self, who: int) -> None:
        """The lease of a client that has nothing in use is over, and it hears of it only later."""
        side = self.sides[who]
        if not members(side.session.held) & set(side.got):
            self.engine.expire(side.session.name)
            self.lose(who)

    @invariant()
    def nothing_twice(self) -> None:
        for side in self.sides:
            assert len(side.got) == len(set(side.got))
        both = set(self.sides[0].got) & set(self.sides[1].got)
        assert both <= self.late

    @invariant()
    def what_is_completed_was_given(self) -> None:
        assert self.engine.completed <= {one for side in self.sides for one in side.got}

    def teardown(self) -> None:
        """Without more losses everything comes, and ends."""
        for who in (0, 1):
            self.link(who)
        for _ in range(40 * TOTAL):
            self.now_s += 0.5
            for who, side in enumerate(self.sides):
                self.say(who)
                while side.up:
                    self.hear(who)
                while side.down:
                    self.receive(who, False)
                self.take(who)
                self.nothing_twice()
            if all(side.session.ended for side in self.sides):
                break
        assert self.engine.completed == set(range(TOTAL))
        assert {one for side in self.sides for one in side.got} == set(range(TOTAL))
        assert not any(side.session.unconfirmed for side in self.sides)


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=150, stateful_step_count=60)


def welcomed(asked: Asked = Asked()) -> Session:  # noqa: B008  a frozen value
    session = Session(asked, "s" * 20)
    session.begin("ticket", 0.0)
    session.receive(Welcome("id", 100, 30.0), 0.0)
    return session


def batches(*sequences: int) -> Delivery:
    return Delivery([Batch(one, 2, [b"x" * 100]) for one in sequences])


class TestSession:
    def test_a_position_is_what_comes_next(self) -> None:
        session = welcomed()
        assert session.next_position() == 0
        session.receive(batches(0, 1, 2), 0.0)
        session.take()
        session.take()
        assert session.next_position() == 2

    def test_one_of_a_shared_rank_has_none(self) -> None:
        session = welcomed()
        session.receive(batches(0, 2), 0.0)
        session.take()
        session.take()
        assert session.next_position() is None

    def test_it_goes_on_behind_what_was_done_before(self) -> None:
        session = Session(Asked(), "s" * 20)
        session.begin("ticket", 0.0)
        session.receive(Welcome("id", 100, 30.0, [], 7), 0.0)
        assert session.next_position() == 7
        session.receive(batches(7), 0.0)
        session.take()
        assert session.next_position() == 8

    def test_rewind_is_said_until_it_was_heard(self) -> None:
        session = Session(Asked(rewind=5), "s" * 20)
        (first,) = session.begin("one", 0.0)
        (again,) = session.begin("two", 1.0)
        assert isinstance(first, Hello)
        assert isinstance(again, Hello)
        assert first.rewind == again.rewind == 5
        session.receive(Welcome("id", 100, 30.0, [], 5), 1.0)
        (later,) = session.begin("three", 2.0)
        assert isinstance(later, Hello)
        assert later.rewind is None

    def test_hello_says_what_is_held_and_done_with(self) -> None:
        session = welcomed()
        session.receive(batches(0, 1, 2, 3), 0.0)
        session.take()
        session.take()
        (hello,) = session.begin("ticket", 1.0)
        assert isinstance(hello, Hello)
        assert (hello.acks, hello.held) == ([(0, 1)], [(1, 4)])

    def test_by_hand(self) -> None:
        session = welcomed(Asked(manual=True))
        session.receive(batches(0, 1, 2), 0.0)
        for _ in range(3):
            session.take()
        assert session.unconfirmed == 0
        assert session.ack(1)
        assert not session.ack(1)
        assert session.say(1.0) == [Ack([(1, 2)])]
        assert session.farewell() == Bye([(1, 2)])

    def test_few_acknowledgements_say_much(self) -> None:
        session = welcomed(Asked(batches=100))
        session.receive(batches(*range(90)), 0.0)
        said = []
        for _ in range(80):
            session.take()
            said += session.say(0.001)
        assert [type(one) for one in said] == [Ack] * 4

    def test_the_window_grows_for_who_waits(self) -> None:
        session = welcomed()
        assert session.window == 8
        session.receive(batches(*range(8)), 0.0)
        for _ in range(8):
            session.take()
        assert session.window == 8
        assert session.take() is None
        assert session.window == 16
        assert Window(16, 64 << 20) in session.say(0.1)

    def test_what_was_pushed_back_may_come_again(self) -> None:
        session = welcomed()
        session.receive(batches(0, 1, 2), 0.0)
        session.take()
        assert session.push_back() == 2
        assert session.say(0.1)[:2] == [Window(0, 0), PushBack([(1, 3)])]
        session.receive(batches(3), 0.1)  # it was under way
        assert session.say(0.2) == [PushBack([(3, 4)])]
        assert session.take() is None
        assert Window(8, 64 << 20) in session.say(0.3)
        session.receive(batches(1), 0.4)
        batch = session.take()
        assert batch is not None
        assert batch.sequence == 1

    def test_what_is_dropped_is_not_given(self) -> None:
        session = welcomed()
        session.receive(batches(0, 1, 2), 0.0)
        session.begin("ticket", 1.0)
        session.receive(Welcome("id", 100, 30.0, [(0, 2)]), 1.0)
        batch = session.take()
        assert batch is not None
        assert batch.sequence == 2
        assert session.counts.dropped == 2

    def test_a_failure_comes_at_its_place(self) -> None:
        session = welcomed()
        session.receive(batches(0), 0.0)
        session.receive(Failed(1, {"kind": "ValueError", "message": "no"}), 0.0)
        assert session.failure() is None
        session.take()
        assert session.take() is None
        failure = session.failure()
        assert failure is not None
        assert failure.sequence == 1

    def test_a_refusal_is_final_where_it_says_so(self) -> None:
        session = welcomed()
        session.receive(Refused("stopped", False), 0.0)
        with pytest.raises(ServiceError, match="stopped"):
            session.take()

    def test_pings_and_silence(self) -> None:
        session = welcomed()
        assert session.say(5.0) == []
        assert session.say(10.0) == [Ping()]
        assert session.say(11.0) == []
        assert not session.silent(19.0)
        assert session.silent(21.0)
        session.receive(Pong(), 21.0)
        assert not session.silent(22.0)


class TestRanges:
    def test_a_set_grows_from_anywhere(self) -> None:
        seen, plain = RangeSet(), set()
        for one in (5, 1, 2, 9, 3, 4, 0, 5, 8, 7, 6, 20):
            seen.add(one)
            plain.add(one)
            assert seen.ranges == compact(plain)
            assert [n in seen for n in range(22)] == [n in plain for n in range(22)]
        seen.add_range(8, 30)
        assert seen.ranges == [(0, 30)]

    def test_any_can_be_taken_out(self) -> None:
        for out in range(-1, 11):
            some, plain = RangeSet(), {0, 1, 2, 3, 5, 7, 8, 9}
            for one in plain:
                some.add(one)
            some.discard(out)
            plain.discard(out)
            assert some.ranges == compact(plain)

    def test_claims_of_length_cost_nothing(self) -> None:
        assert without({1, 5, 9}, [(2, 2**61)]) == {1}
