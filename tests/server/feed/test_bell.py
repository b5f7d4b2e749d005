"""The bell of an engine: at once after silence, together soon after, never not at all."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.server.feed.bell import PAUSE_S, TOGETHER, Bell


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bell(clock: Clock) -> Iterator[Bell]:
    made = Bell(clock)
    yield made
    made.close()


def sounds(bell: Bell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_the_first_one_is_heard_at_once(bell: Bell) -> None:
    assert not sounds(bell)
    bell.ring()
    assert sounds(bell)
    bell.hear()
    assert not sounds(bell)


def test_what_comes_soon_after_waits_for_the_end_of_the_pause(bell: Bell, clock: Clock) -> None:
    bell.ring()
    bell.hear()
    assert bell.due_s == clock.now_s + PAUSE_S
    bell.ring()
    assert not sounds(bell)
    clock.now_s = bell.due_s
    bell.hear()  # who waits looks then
    assert bell.due_s == clock.now_s + PAUSE_S


def test_many_do_not_wait(bell: Bell) -> None:
    bell.ring()
    bell.hear()
    for _ in range(TOGETHER):
        assert not sounds(bell)
        bell.ring()
    assert sounds(bell)


def test_after_a_pause_without_any_the_next_one_is_heard_at_once(bell: Bell, clock: Clock) -> None:
    bell.ring()
    bell.hear()
    clock.now_s += PAUSE_S
    bell.hear()
    assert bell.due_s == clock.now_s  # no further pause, since nothing was there
    bell.ring()
    assert sounds(bell)


@given(st.lists(st.sampled_from(["ring", "turn", "wait"]), max_size=40))
def test_nothing_is_missed(steps: list[str]) -> None:
    """What was rung and not heard sounds, or was to come when the engine last looked at the clock:
    it sleeps no longer than that.
    """
    clock = Clock()
    woke_s, rung = clock.now_s, False
    with contextlib.closing(Bell(clock)) as bell:
        for step in steps:
            if step == "ring":
                bell.ring()
                rung = True
            elif step == "turn":
                woke_s, rung = clock.now_s, False
                bell.hear()
            else:
                clock.now_s += PAUSE_S / 3
            assert not rung or sounds(bell) or bell.due_s > woke_s
