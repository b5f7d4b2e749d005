"""The engine's side of the protocol, by hand: frames in, messages out, a clock of our own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from splitpipe.server.feed.desk import Desk
from splitpipe.server.feed.limits import FeedLimits
from splitpipe.server.feed.memory import MemoryStream
from splitpipe.server.feed.sessions import Session
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.tape import Tape
from splitpipe.server.feed.tickets import Grant, hash_of
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Delivery,
    End,
    Failed,
    Hello,
    Ping,
    Pong,
    PushBack,
    Refused,
    Welcome,
    Window,
    write,
)

from .making import wait_for

BATCHES = [([b"%d" % number], (2, 1, 0)) for number in range(20)]


class Talk:
    """A desk, and what it says to whom."""

    def __init__(self, division: Division | None = None, **options: Any) -> None:
        self.limits = FeedLimits(strikes=5, sessions=3)
        self.division = division or Division()
        self.tape = Tape(
            lambda start, _state: MemoryStream(BATCHES, start=start, **options),
            limits=self.limits,
            wake=lambda: None,
        )
        self.now_s = 100.0
        self.desk = self.open({})

    def open(self, states: dict[str, Any]) -> Desk:
        return Desk(
            "it",
            self.division,
            self.tape,
            lease_s=10.0,
            limits=self.limits,
            states=states,
            now_s=self.now_s,
        )

    def hello(self, name: str, *, window: int = 4, **fields: Any) -> list[Any]:
        session = name.ljust(16, "_")
        rank, client = fields.pop("rank", 0), fields.pop("client", "")
        self.desk.tickets.add(hash_of(name), Grant(rank, client, session, self.now_s + 100))
        fields = {"acks": [], "held": [], **fields}
        hello = Hello(
            name,
            session,
            rank,
            client,
            window_batches=window,
            window_nbytes=1 << 20,
            **fields,
        )
        return self.say(name, hello)

    def say(self, name: str, message: Any) -> list[Any]:
        """What is answered to it, and to nobody else."""
        self.desk.hear((0, name.encode()), write(message), self.now_s)
        return self.turn().get(name, [])

    def turn(self) -> dict[str, list[Any]]:
        self.desk.serve()
        self.desk.changed()
        said: dict[str, list[Any]] = {}
        for (_, name), message, _ in self.desk.answers():
            said.setdefault(name.decode(), []).append(message)
        return said

    def made(self, count: int) -> None:
        wait_for(lambda: self.tape.made >= count or self.tape.broken)

    def granted(self, name: str) -> list[int]:
        """What it is sent now."""
        said = self.turn().get(name, [])
        return [b.sequence for m in said if isinstance(m, Delivery) for b in m.batches]


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    assert talk.tape.close()


def test_a_conversation(talk: Talk) -> None:
    welcome = talk.hello("a")[0]
    assert welcome == Welcome("it", None, 10.0, [], 0)
    talk.made(20)
    assert talk.granted("a") == [0, 1, 2, 3]
    assert talk.granted("a") == []
    assert talk.say("a", Ping()) == [Pong()]
    acked, delivery = talk.say("a", Ack([(0, 2)]))
    assert acked == Acked([(0, 2)])
    assert [batch.sequence for batch in delivery.batches] == [4, 5]
    assert talk.say("a", Window(0, 0)) == []
    assert talk.say("a", PushBack([(5, 6)])) == []
    assert talk.desk.cursors["0"].ledger.counts.returned == 2
    (again,) = talk.say("a", Window(4, 1 << 20))
    assert [batch.sequence for batch in again.batches] == [5]
    assert talk.say("a", Bye([(2, 4)])) == [Acked([(2, 4)])]
    assert talk.desk.cursors["0"].ledger.todo == ((4, 6),)
    assert talk.say("a", Bye([(2, 4)])) == [Acked([(2, 4)])], "a bye whose answer was lost"
    assert not talk.desk.sessions


def test_a_bye_after_everything_was_pushed_back_is_heard(talk: Talk) -> None:
    talk.hello("a")
    talk.made(20)
    assert talk.granted("a") == [0, 1, 2, 3]
    assert talk.desk.push_back() == 4
    assert [type(one) for one in talk.turn()["a"]] == [Refused]
    assert talk.say("a", Bye([(0, 1)])) == [Acked([(0, 1)])]
    assert talk.desk.cursors["0"].ledger.counts.completed == 2
    assert talk.desk.cursors["0"].ledger.todo == ((1, 4),)
    assert talk.desk.rubbish == 0


def test_the_end_comes_when_others_are_done_too(talk: Talk) -> None:
    talk.hello("a", window=10)
    talk.hello("b", window=10)
    talk.made(20)
    wait_for(lambda: talk.tape.ended)
    said = talk.turn()
    assert sorted(said) == ["a", "b"]
    mine = [(b.sequence, b.sequence + 1) for b in said["a"][0].batches]
    others = [(b.sequence, b.sequence + 1) for b in said["b"][0].batches]
    assert talk.say("a", Ack(mine)) == [Acked(mine)]
    talk.desk.hear((0, b"b"), write(Ack(others)), talk.now_s)
    said = talk.turn()
    assert said == {"b": [Acked(others), End(20)], "a": [End(20)]}
    assert talk.turn() == {}


def test_what_is_lost_at_the_end_comes_back_to_who_waits(talk: Talk) -> None:
    talk.hello("a", window=20)
    talk.made(20)
    wait_for(lambda: talk.tape.ended)
    assert len(talk.granted("a")) == 20
    talk.hello("b", window=20)
    assert talk.granted("b") == []
    talk.now_s += 5
    talk.say("b", Ping())
    talk.now_s += 6
    talk.desk.expire(talk.now_s)
    assert talk.granted("b") == list(range(20))
    assert talk.say("a", Ping())[0].retry
    dropped = talk.hello("a", held=[(0, 20)])[0].dropped
    assert dropped == [(0, 20)]


def test_a_restart_keeps_what_is_held_for_a_lease(talk: Talk) -> None:
    talk.hello("a")
    talk.made(20)
    assert talk.granted("a") == [0, 1, 2, 3]
    states = {
        name: msgspec.json.decode(cursor.ledger.text) for name, cursor in talk.desk.cursors.items()
    }
    talk.desk = talk.open(states)
    talk.hello("b")
    assert talk.desk.cursors["0"].ledger.held("b".ljust(16, "_")) == ((4, 8),)
    welcome, acked, *rest = talk.hello("a", acks=[(0, 1)], held=[(2, 4)])
    assert (welcome.dropped, acked) == ([], Acked([(0, 1)]))
    (sent,) = rest
    assert [batch.sequence for batch in sent.batches][:1] == [1], "what did not arrive, first"
    talk.desk = talk.open(states)
    talk.now_s += 10.5
    talk.desk.expire(talk.now_s)
    assert talk.desk.cursors["0"].ledger.todo == ((0, 4),)


def test_nobody_is_let_in_without_a_ticket(talk: Talk) -> None:
    talk.hello("a")
    hello = Hello("a", "b" * 16, 0, "", 1, 1, [], [])
    for wrong in (
        hello,
        msgspec.structs.replace(hello, session="a".ljust(16, "_"), rank=1),
        msgspec.structs.replace(hello, session="a".ljust(16, "_"), client="x"),
        msgspec.structs.replace(hello, session="a".ljust(16, "_"), ticket="other"),
    ):
        (refused,) = talk.say("stranger", wrong)
        assert (refused.retry, refused.ticket) == (True, True)
        assert hello.ticket not in refused.reason or len(hello.ticket) == 1
    talk.now_s += 1000
    (refused,) = talk.say("a2", msgspec.structs.replace(hello, session="a".ljust(16, "_")))
    assert refused.ticket


def test_rubbish_is_answered_a_few_times_only(talk: Talk) -> None:
    for time in range(20):
        talk.desk.hear((0, b"x"), [b"\x80\x04\x95rubbish"], talk.now_s)
        said = talk.turn()
        assert ("x" in said) == (time < 5)
    assert talk.desk.rubbish == 20
    assert talk.desk.sessions == {}


def test_more_clients_than_allowed_are_refused(talk: Talk) -> None:
    for name in "abc":
        assert isinstance(talk.hello(name)[0], Welcome)
    (refused,) = talk.hello("d")
    assert isinstance(refused, Refused)
    assert refused.retry


def test_a_session_that_cannot_be_reached_says_hello_again(talk: Talk) -> None:
    talk.hello("a")
    talk.made(20)
    talk.desk.serve()
    lost = [session for _, message, session in talk.desk.answers() if isinstance(message, Delivery)]
    assert isinstance(lost[0], Session)
    talk.desk.unreached(lost[0])
    assert isinstance(talk.say("a", Ping())[0], Refused)
    _, sent = talk.hello("a")
    assert [batch.sequence for batch in sent.batches] == [0, 1, 2, 3]


def test_a_frame_that_a_client_cannot_take_is_its_error(talk: Talk) -> None:
    talk.hello("a", frame_nbytes=1)
    talk.made(20)
    said = talk.turn()["a"]
    assert [len(m.batches) for m in said if isinstance(m, Delivery)] == [4]
    said = talk.say("a", Ack([(0, 4)]))
    said += talk.say("a", Ack([(4, 8)]))
    said += talk.say("a", Ack([(8, 10)]))
    failed = [message for message in said if isinstance(message, Failed)]
    assert [(one.sequence, one.error["kind"]) for one in failed] == [(10, "WireError")]


def test_moving_takes_everything_from_the_others(talk: Talk) -> None:
    talk.hello("a")
    talk.made(20)
    assert talk.granted("a") == [0, 1, 2, 3]
    talk.desk.tickets.add(hash_of("b"), Grant(0, "", "b" * 16, 1000.0))
    hello = Hello("b", "b" * 16, 0, "", 4, 1 << 20, [], [], rewind=2)
    said = talk.say("b", hello)
    assert [batch.sequence for batch in said[1].batches] == [2, 3, 4, 5]
    said = talk.say("b", hello)
    assert talk.desk.cursors["0"].ledger.held("b" * 16) == ((2, 6),), "said twice, done once"
    assert talk.hello("a", held=[(0, 4)])[0].dropped == [(0, 4)]


def test_what_is_said_at_random_never_breaks_the_books() -> None:
    talk = Talk(Division(world_size=2, mode="follow"))
    chance = random.Random(3)
    try:
        talk.hello("a")
        talk.made(20)
        for _ in range(3000):
            talk.now_s += chance.random()
            name = chance.choice("abc")
            some = [
                (start, start + chance.randrange(9))
                for start in (chance.randrange(25) for _ in range(chance.randrange(3)))
            ]
            what = chance.randrange(9)
            if what == 0:
                talk.hello(
                    name,
                    rank=chance.randrange(2),
                    client=chance.choice("xy"),
                    acks=some,
                    held=some[:1],
                    rewind=chance.choice([None, None, None, chance.randrange(25)]),
                )
            elif what == 1:
                talk.desk.expire(talk.now_s)
            elif what == 2 and chance.random() < 0.1:
                talk.desk.push_back()
            else:
                kinds = [Ack(some), PushBack(some), Bye(some), Ping(), Window(3, 100)]
                talk.say(name, chance.choice(kinds))
            for cursor in talk.desk.cursors.values():
                cursor.ledger.check()
                for session in cursor.sessions.values():
                    held = cursor.ledger.held(session.name)
                    assert sorted(session.sizes) == sorted(
                        {n for a, b in held for n in range(a, b)}
                        - {n for a, b in session.resend for n in range(a, b)}
                    )
    finally:
        assert talk.tape.close()
