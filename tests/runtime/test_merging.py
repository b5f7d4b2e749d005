"""The reading end of a region, driven by hand: messages in, values and grants out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.grants import Claims, Credits, UnitSize
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.envelope import Packer
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import (
    NOWHERE,
    Claim,
    Credit,
    End,
    Failed,
    Item,
    Message,
    decode,
    encode,
)

RUN = 77


class Bench:
    """An inbox between two links in memory."""

    def __init__(self, *, ordered: bool = True, claims: dict[str, Any] | None = None) -> None:
        self.link, self.back = MemoryLink(), MemoryLink()
        self._sender = self.link.sender()
        grants: Any
        if claims is None:
            grants = Credits(self.back.sender(), run=RUN, window=4)
        else:
            grants = Claims(self.back.sender(), run=RUN, window=4, size=UnitSize(1), **claims)
        intake = Intake(self.link.receiver(), {}, run=RUN, meter=Meter())
        self.inbox = Inbox(intake, grants, ordered=ordered)

    def send(self, *messages: tuple[Message, bytes]) -> None:
        for message, body in messages:
            self._sender.send([encode(message), body])

    def granted(self) -> list[Any]:
        receiver, found = self.back.receiver(), []
        while (wire := receiver.receive(block=False)) is not None:
            found.append(decode(wire))
        return found

    def pool(self) -> None:
        """Answer claims until the run is shut; the first unit of every epoch fails."""
        receiver = self.back.receiver()
        with contextlib.suppress(sp.BrokenChannel):
            while (wire := receiver.receive()) is not None:
                claim = decode(wire)
                values = list(range(claim.start, claim.stop))
                answer = item(claim.sequence, values, claim.start)
                if claim.start == 0:
                    answer = failed(claim.sequence, KeyError("k"), start=0)
                self.send((replace(answer[0], epoch=claim.epoch, stop=claim.stop), answer[1]))

    def close(self) -> None:
        self.link.close()
        self.back.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def item(sequence: int, values: list[Any], start: int | None = None, **changes: Any) -> Any:
    packer = Packer(None)
    for value in values:
        packer.add(value)
    body = b"".join(packer.pack())
    begin = sequence if start is None else start
    made = Item(RUN, 0, 0, sequence, begin, begin + 1, len(values), 0, 0, b"")
    return replace(made, **changes), body


def end(sequence: int, stop: int, epoch: int = 0) -> Any:
    return End(RUN, 0, epoch, sequence, 0, stop, 0), b""


def failed(sequence: int, error: Exception, values: list[Any] = [], **changes: Any) -> Any:  # noqa: B006
    report = Failure.of(error, where=("in stage 'x'",)).encode()
    message, body = item(sequence, values)
    made = Failed(RUN, 0, 0, sequence, message.start, message.stop, len(values), nbytes=len(report))
    return replace(made, **changes), report + (body if values else b"")


class TestOrder:
    def test_messages_come_out_in_sequence(self, bench: Bench) -> None:
        bench.send(item(2, ["c"]), item(0, ["a", "b"]), end(3, 3), item(1, []))
        assert list(bench.inbox.epoch()) == ["a", "b", "c"]

    def test_epochs_do_not_mix(self, bench: Bench) -> None:
        bench.send(item(2, ["b"], 0, epoch=1), end(3, 1, epoch=1), item(0, ["a"]), end(1, 1))
        assert list(bench.inbox.epoch()) == ["a"]
        bench.inbox.end_epoch(last=False)
        assert list(bench.inbox.epoch()) == ["b"]

    def test_unordered_messages_come_as_they_arrive_but_not_across_an_end(self) -> None:
        bench = Bench(ordered=False)
        bench.send(
            item(1, ["b"]), item(4, ["d"], 0, epoch=1), item(2, ["c"]), item(0, ["a"]), end(3, 3)
        )
        bench.send(end(5, 1, epoch=1))
        assert list(bench.inbox.epoch()) == ["b", "c", "a"]
        bench.inbox.end_epoch(last=False)
        assert list(bench.inbox.epoch()) == ["d"]
        bench.close()


class TestFaults:
    """What must never be guessed at."""

    def assert_refused(self, bench: Bench, match: str) -> None:
        with pytest.raises(sp.PipelineError, match=match):
            list(bench.inbox.epoch())

    def test_a_gap_in_the_positions(self, bench: Bench) -> None:
        bench.send(item(0, ["a"]), item(1, ["b"], start=2))
        self.assert_refused(bench, "after position 1 of epoch 0 came position 2")

    def test_a_repeat(self, bench: Bench) -> None:
        bench.send(item(1, ["a"]), item(1, ["a"]))
        self.assert_refused(bench, "message 1 came twice")

    def test_a_repeat_of_what_was_delivered(self, bench: Bench) -> None:
        bench.send(item(0, ["a"]), item(0, ["a"]))
        self.assert_refused(bench, "message 0 came twice")

    def test_a_repeat_among_unordered(self) -> None:
        bench = Bench(ordered=False)
        bench.send(item(3, ["a"]), item(3, ["a"]))
        self.assert_refused(bench, "message 3 came twice")
        bench.close()

    def test_a_short_epoch(self, bench: Bench) -> None:
        bench.send(item(0, ["a"]), end(1, 2))
        self.assert_refused(bench, "ended at position 2, but 1 positions")

    def test_another_run(self, bench: Bench) -> None:
        bench.send(item(0, ["a"], run=78))
        self.assert_refused(bench, "run 4e came into run 4d")

    def test_another_number_of_values(self, bench: Bench) -> None:
        bench.send(item(0, ["a"], count=2))
        self.assert_refused(bench, "2 values held 1")

    def test_what_is_no_message(self, bench: Bench) -> None:
        bench.link.sender().send([b"short"])
        with pytest.raises(ValueError, match="shorter than its header"):
            next(bench.inbox.epoch())


class TestFailures:
    def test_at_its_place_after_what_came_before_it(self, bench: Bench) -> None:
        bench.send(failed(1, KeyError("k"), ["b"]), item(0, ["a"]))
        got: list[Any] = []
        with pytest.raises(KeyError) as caught:
            got.extend(bench.inbox.epoch())  # what came before stays in the list
        assert got == ["a", "b"]
        assert caught.value.__notes__[0] == "in stage 'x'"
        assert bench.inbox.failure is not None
        assert bench.inbox.failure[0] is caught.value

    def test_covers_its_positions_and_costs_its_credit(self) -> None:
        bench = Bench(claims={"positions": 6, "epochs": 40})
        pool = threading.Thread(target=bench.pool)
        pool.start()
        for number in range(40):
            with pytest.raises(KeyError):
                next(bench.inbox.epoch())
            bench.inbox.end_epoch(last=number == 39)
        bench.back.shut()
        pool.join()
        bench.close()

    def test_that_has_no_place_is_raised_at_once(self, bench: Bench) -> None:
        bench.send(item(3, ["d"]), failed(NOWHERE, OSError("no start"), start=0, stop=0))
        with pytest.raises(OSError, match="no start"):
            next(bench.inbox.epoch())


class TestCredits:
    def test_never_more_than_the_window_and_never_none(self, bench: Bench) -> None:
        bench.send(*(item(n, [n]) for n in range(20)))
        epoch, granted = bench.inbox.epoch(), 0
        for consumed in range(20):
            assert next(epoch) == consumed
            granted += sum(credit.count for credit in bench.granted())
            assert consumed < granted <= consumed + 4

    def test_small_values_may_run_further_ahead(self, bench: Bench) -> None:
        bench.send(*(item(n, [n, n]) for n in range(20)))
        epoch, granted = bench.inbox.epoch(), 0
        for consumed in range(20):
            assert (next(epoch), next(epoch)) == (consumed, consumed)
            granted += sum(credit.count for credit in bench.granted())
        assert 20 < granted <= 20 + 64

    def test_leaving_an_epoch_is_told_and_nothing_is_granted_until_its_end(
        self, bench: Bench
    ) -> None:
        bench.send(item(0, [0]), item(1, [1]), item(2, [2]), end(3, 3))
        bench.send(item(4, ["x"], 0, epoch=1), end(5, 1, epoch=1))
        assert next(bench.inbox.epoch()) == 0
        bench.granted()
        bench.inbox.end_epoch(last=False)
        credits = bench.granted()
        assert all(isinstance(c, Credit) for c in credits)
        assert [(c.epoch, c.stop) for c in credits if c.stop] == [(0, 1)]
        assert credits[0].stop
        assert list(bench.inbox.epoch()) == ["x"]

    def test_leaving_the_last_epoch_waits_for_nothing(self, bench: Bench) -> None:
        bench.send(item(0, [0]))
        assert next(bench.inbox.epoch()) == 0
        bench.inbox.end_epoch(last=True)
        assert [c.stop for c in bench.granted()][-1] == 1


class TestClaims:
    def claims(self, **options: Any) -> tuple[Claims, MemoryLink]:
        link = MemoryLink(capacity=10_000)
        defaults: dict[str, Any] = {"window": 3, "positions": 5, "epochs": 1, "size": UnitSize(1)}
        return Claims(link.sender(), run=RUN, **{**defaults, **options}), link

    def taken(self, link: MemoryLink) -> list[tuple[int, int, int, int]]:
        found, receiver = [], link.receiver()
        while (wire := receiver.receive(block=False)) is not None:
            claim = decode(wire)
            assert isinstance(claim, Claim)
            found.append((claim.epoch, claim.sequence, claim.start, claim.stop))
        return found

    def test_cover_every_position_once_and_end_with_an_end(self) -> None:
        claims, link = self.claims(epochs=2)
        claims.open()
        for _ in range(10):
            claims.consumed()
        taken = self.taken(link)
        ends = [(e.epoch, e.sequence, e.stop) for e in claims.ends()]
        assert [(epoch, start) for epoch, _, start, _ in taken] == [
            (e, p) for e in range(2) for p in range(5)
        ]
        assert sorted([s for _, s, _, _ in taken] + [s for _, s, _ in ends]) == list(range(12))
        assert [(epoch, stop) for epoch, _, stop in ends] == [(0, 5), (1, 5)]
        link.close()

    def test_never_more_than_the_window(self) -> None:
        claims, link = self.claims(positions=100)
        claims.open()
        claims.open()
        assert len(self.taken(link)) == 3
        claims.consumed()
        assert len(self.taken(link)) == 1
        link.close()

    def test_a_skipped_epoch_ends_where_it_was(self) -> None:
        claims, link = self.claims(positions=100, epochs=2)
        claims.open()
        assert len(self.taken(link)) == 3
        claims.skip(0)
        claims.skip(0)
        assert [(e.epoch, e.stop) for e in claims.ends()] == [(0, 3)]
        claims.consumed()
        assert self.taken(link)[0][0] == 1
        link.close()

    @pytest.mark.parametrize("positions", [0, 1])
    def test_any_number_of_small_epochs(self, positions: int) -> None:
        claims, link = self.claims(positions=positions, epochs=50)
        claims.open()
        ends = 0
        for _ in range(200):
            ends += len(list(claims.ends()))
            for _ in self.taken(link):
                claims.consumed()
        assert ends == 50
        link.close()


class TestUnitSize:
    def test_one_costly_item_says_little_of_those_behind_it(self) -> None:
        size = UnitSize(1)
        while size.positions < 8:
            size.learn(size.positions, 500_000 * size.positions, 8)
        size.learn(8, 40_000_000, 8)
        assert size.positions == 4
        size.learn(2, 40_000_000, 8)  # a smaller one, from before
        assert size.positions == 4
        size.learn(4, 500_000 * 4, 8)
        assert size.positions == 8

    def test_items_that_become_costly_are_believed_at_once(self) -> None:
        size = UnitSize(1)
        while size.positions < 4096:
            size.learn(size.positions, 100 * size.positions, 8)
        size.learn(4096, 5_000_000 * 4096, 8)
        assert size.positions == 1

    def test_grows_while_units_are_cheap(self) -> None:
        size = UnitSize(1)
        for _ in range(30):
            size.learn(size.positions, 1000, 10)
        assert size.positions > 500

    def test_is_cut_at_once_when_they_are_not(self) -> None:
        size = UnitSize(1)
        size.positions = 1024
        size.learn(1024, 10**10, 10)
        assert size.positions == 1
        size.positions = 1024
        size.learn(1024, 10, 1 << 30)
        assert size.positions == 1

    def test_keeps_whole_steps(self) -> None:
        size = UnitSize(12)
        for elapsed in (1, 10, 10**9, 500, 3, 10**6):
            size.learn(size.positions, elapsed, 1)
            assert size.positions % 12 == 0
            assert size.positions >= 12

    def test_old_news_of_smaller_units_does_not_count(self) -> None:
        size = UnitSize(1)
        size.positions = 64
        size.learn(2, 1, 1)
        assert size.positions == 64
        size.learn(0, 0, 0)
        assert size.positions == 64
