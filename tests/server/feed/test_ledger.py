"""The books of a cursor: each batch is one session's, and they add up, whatever is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitpipe.server.feed.ledger import Counts, Ledger
from splitpipe.server.feed.ranges import (
    count,
    difference,
    intersection,
    normal,
    numbers,
    of_numbers,
    union,
)

SESSIONS = ["a", "b", "c"]


def weight(number: int) -> tuple[int, int, int]:
    return (number % 3 + 1, number % 5 == 0, number % 7 == 0)


class Books(RuleBasedStateMachine):
    """A ledger beside the plainest thing that says the same: the place of every number."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.places: dict[int, str] = {}  # "done", "back", "skipped", or the session that holds it
        self.wanted: set[int] = set()
        self.next = 0

    @rule(session=st.sampled_from(SESSIONS), most=st.integers(1, 9))
    def grant(self, session: str, most: int) -> None:
        start, stop = self.ledger.place()
        if self.wanted:
            assert start == min(self.wanted)
        else:
            assert (start, stop) == (self.next, None)
        stop = start + most if stop is None else min(stop, start + most)
        self.ledger.grant(session, start, [weight(number) for number in range(start, stop)])
        for number in range(start, stop):
            assert self.places.get(number, "done") in ("done", "back", "skipped")
            self.places[number] = session
            self.wanted.discard(number)
        self.next = max(self.next, stop)

    @rule(session=st.sampled_from(SESSIONS), start=st.integers(0, 60), size=st.integers(0, 20))
    def acknowledge(self, session: str, start: int, size: int) -> None:
        self.ledger.acknowledge(session, normal([(start, start + size)]))
        self.acknowledged(session, range(start, start + size))

    def acknowledged(self, session: str, some: Any) -> None:
        for number in some:
            if self.places.get(number) in (session, "back"):
                self.places[number] = "done"
                self.wanted.discard(number)

    @rule(session=st.sampled_from(SESSIONS), start=st.integers(0, 60), size=st.integers(0, 20))
    def give_back(self, session: str, start: int, size: int) -> None:
        self.ledger.give_back(session, normal([(start, start + size)]))
        self.returned(session, range(start, start + size))

    @rule(session=st.sampled_from(SESSIONS))
    def leave(self, session: str) -> None:
        self.ledger.give_back(session)
        self.returned(session, self.places)

    def returned(self, session: str, some: Any) -> None:
        for number in list(some):
            if self.places.get(number) == session:
                self.places[number] = "back"
                self.wanted.add(number)

    @rule(number=st.integers(0, 70))
    def seek(self, number: int) -> None:
        self.ledger.seek(number)
        for one, place in list(self.places.items()):
            if one < number and place != "skipped":
                self.places[one] = "done"
            elif one >= number and place in SESSIONS:
                self.places[one] = "back"
        for one in range(self.next, number):
            self.places[one] = "skipped"
        self.next = max(self.next, number)
        self.wanted = set(range(number, self.next))

    @rule(
        session=st.sampled_from(SESSIONS),
        acknowledged=st.sets(st.integers(0, 40), max_size=8),
        held=st.sets(st.integers(0, 40), max_size=8),
    )
    def come_back(self, session: str, acknowledged: set[int], held: set[int]) -> None:
        said = self.ledger.reconcile(session, of_numbers(acknowledged), of_numbers(held))
        self.acknowledged(session, acknowledged)
        mine = {number for number, place in self.places.items() if place == session}
        assert set(numbers(said.resend)) == mine - held
        dropped = set()
        for number in held - mine:
            if self.places.get(number) == "back":
                self.places[number] = session
                self.wanted.discard(number)
            else:
                dropped.add(number)
        assert set(numbers(said.dropped)) == dropped

    @rule()
    def die(self) -> None:
        self.ledger = Ledger(json.loads(self.ledger.text))

    @precondition(lambda self: self.next > 0)
    @rule()
    def push_back(self) -> None:
        self.ledger.give_back_all()
        for session in SESSIONS:
            self.returned(session, self.places)
        assert self.ledger.counts.in_progress == 0

    @invariant()
    def says_the_same(self) -> None:
        self.ledger.check()
        assert self.ledger.next == self.next
        assert set(numbers(self.ledger.todo)) == self.wanted
        for session in SESSIONS:
            assert set(numbers(self.ledger.held(session))) == {
                number for number, place in self.places.items() if place == session
            }

    @invariant()
    def adds_up(self) -> None:
        seen = [number for number in range(self.next) if self.places[number] != "skipped"]
        counts = self.ledger.counts
        assert counts.read == sum(sum(weight(number)) for number in seen)
        done = [number for number in seen if self.places[number] == "done"]
        assert counts.completed == sum(weight(number)[0] for number in done)
        assert self.ledger.batches_completed == len(done)
        back = [number for number in seen if self.places[number] == "back"]
        assert counts.returned == sum(weight(number)[0] for number in back)


Books.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestBooks = Books.TestCase


@pytest.mark.parametrize("seed", range(5))
def test_ranges_are_sets(seed: int) -> None:
    import random

    chance = random.Random(seed)
    for _ in range(200):
        one = {chance.randrange(30) for _ in range(chance.randrange(20))}
        other = {chance.randrange(30) for _ in range(chance.randrange(20))}
        first, second = of_numbers(one), of_numbers(other)
        assert set(numbers(union(first, second))) == one | other
        assert set(numbers(intersection(first, second))) == one & other
        assert set(numbers(difference(first, second))) == one - other
        for found in (union(first, second), intersection(first, second), difference(first, second)):
            assert found == of_numbers(numbers(found))
            assert count(found) == len(list(numbers(found)))


def test_what_was_given_back_comes_first_and_in_order() -> None:
    ledger = Ledger()
    ledger.grant("a", 0, [(1, 0, 0)] * 6)
    ledger.acknowledge("a", ((1, 2),))
    ledger.give_back("a")
    assert ledger.place() == (0, 1)
    ledger.grant("b", 0, [(1, 0, 0)])
    assert ledger.place() == (2, 6)
    with pytest.raises(AssertionError, match="are not next"):
        ledger.grant("b", 6, [(1, 0, 0)])


def test_a_late_acknowledgement_counts_unless_somebody_else_was_given_the_batch() -> None:
    ledger = Ledger()
    ledger.grant("a", 0, [(1, 0, 0)] * 2)
    ledger.give_back("a")
    ledger.grant("b", 0, [(1, 0, 0)])
    assert ledger.acknowledge("a", ((0, 2),)) == 1
    assert ledger.held("b") == ((0, 1),)
    assert ledger.counts == Counts(1, 1, 0, 0, 0)


def test_what_is_left_out_behind_the_last_batch_is_counted_once() -> None:
    ledger = Ledger()
    ledger.grant("a", 0, [(4, 1, 0)])
    for _ in range(3):
        ledger.ends(5, 2)
    ledger = Ledger(json.loads(ledger.text))
    assert ledger.counts == Counts(0, 4, 0, 6, 2)
    assert ledger.finished(1, session="a")
    assert not ledger.finished(1)
    assert not ledger.finished(1, session="b")


def test_delivered_again_is_not_counted_twice() -> None:
    ledger = Ledger()
    ledger.grant("a", 0, [(4, 1, 0), (3, 0, 1)])
    ledger.acknowledge("a", ((0, 2),))
    ledger.seek(1)
    assert ledger.place() == (1, 2)
    assert ledger.counts.completed == 7
    ledger.grant("b", 1, [(3, 0, 1)])
    assert ledger.counts == Counts(4, 3, 0, 1, 1)
