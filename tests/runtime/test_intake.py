"""Who is told that a message is waited for, and who is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from splitpipe.errors import BrokenChannel, WorkerDied
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.transport.base import Buffer, ChannelStatistics, Receiver
from splitpipe.transport.message import Item, encode

RUN = 7
BRIEFLY, LONG = 16, 64


class Scripted(Receiver):
    """Messages of a kind that come at once, soon, or late: when somebody has waited for them."""

    def __init__(self) -> None:
        self.comes = "late"
        self.asked: list[str] = []
        self.shut = False
        self._there = False

    def _message(self, there: bool) -> Buffer | None:
        if self.shut:
            raise BrokenChannel("the channel was shut")
        self._there = False
        return encode(Item(RUN, 0, 0, 0, 0, 0)) if there else None

    def receive(self, *, block: bool = True) -> Buffer | None:
        self.asked.append("blocking" if block else "now")
        return self._message(block or self._there or self.comes == "now")

    def receive_soon(self) -> Buffer | None:
        self.asked.append("soon")
        return self._message(self._there or self.comes in ("now", "soon"))

    def wait(self, watch: Sequence[int] = ()) -> bool:
        self.asked.append("wait")
        return True

    def waited(self) -> None:
        self.asked.append("told")
        self._there = True

    def close(self) -> None:
        """Nothing is open."""

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(0, 0)


def intake(receiver: Scripted, wait: Callable[[], None] | None = None, **options: Any) -> Intake:
    options = {"alone": True, **options}
    return Intake(receiver, {}, run=RUN, meter=Meter(), wait=wait or receiver.waited, **options)


def told(receiver: Scripted, made: Intake, number: int) -> list[bool]:
    """For each of the next messages, whether anybody was told that it is waited for."""
    found = []
    for _ in range(number):
        receiver.asked.clear()
        made.receive()
        found.append("told" in receiver.asked)
    return found


def test_those_that_come_soon_are_told_of_now_and_then() -> None:
    receiver = Scripted()
    receiver.comes = "soon"
    period = [True] + [False] * BRIEFLY
    assert told(receiver, intake(receiver), 3 * len(period)) == 3 * period


def test_a_late_one_lets_the_next_be_told_of_at_once() -> None:
    receiver = Scripted()
    made = intake(receiver)
    assert told(receiver, made, 2) == [True, True]
    assert receiver.asked == ["soon", "told", "now"]
    for _ in range(LONG - 1):
        made.receive()
    receiver.asked.clear()
    made.receive()
    assert receiver.asked == ["now", "told", "now"]
    made.receive()
    assert receiver.asked[3:] == ["soon", "told", "now"]


def test_those_that_are_there_are_taken() -> None:
    receiver = Scripted()
    receiver.comes = "now"
    assert told(receiver, intake(receiver), 5) == [False] * 5
    assert receiver.asked == ["now"]


def test_brief_waits_count() -> None:
    receiver = Scripted()
    receiver.comes = "soon"
    made = intake(receiver)
    made.receive()
    before = made.meter.wait_input_s
    made.receive()
    assert made.meter.wait_input_s > before


@pytest.mark.parametrize("why", ["others wait too", "a branch has to know", "it is drawn"])
def test_who_has_to_be_told_is(why: str) -> None:
    receiver = Scripted()
    receiver.comes = "soon"
    made = intake(receiver, alone=why != "others wait too")
    if why == "a branch has to know":
        made.on_wait = lambda: None
    if why == "it is drawn":
        made.meter.recorder = type("Recorder", (), {"span": lambda *_: None})()
    assert told(receiver, made, 5) == [True] * 5
    assert "soon" not in receiver.asked


def test_who_knows_why_it_ended_is_asked() -> None:
    receiver = Scripted()
    receiver.comes = "soon"
    calls = []

    def wait() -> None:
        calls.append(1)
        if receiver.shut:
            raise WorkerDied("it was killed")
        receiver.waited()

    made = intake(receiver, wait)
    made.receive()
    receiver.shut = True
    with pytest.raises(WorkerDied):
        made.receive()
    assert receiver.asked[-1] == "soon"
