"""The tuner at models of pipelines, with a clock of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import hypothesis
import hypothesis.strategies as st
import pytest

from splitpipe.runtime.tuner import Decision, Knob, Sample, Tuner

Rate = Callable[[tuple[int, ...]], float]


class Model:
    """A pipeline whose workers make `rate(values)` items a second, and a consumer.

    Args:
        own_s: what an item costs the consumer.
        noise: how much single items differ in cost.
        ahead: items that may lie ready.
        late_s: how long a change takes until it shows.
        pauses: (every so many items, for so long): a checkpoint, an evaluation.
    """

    def __init__(
        self,
        tuner: Tuner,
        rate: Rate,
        *,
        own_s: float = 0.0,
        noise: float = 0.0,
        ahead: int = 6,
        late_s: float = 0.15,
        pauses: tuple[int, float] = (10**9, 0.0),
        nbytes: Callable[[tuple[int, ...]], int] = lambda values: 0,
        seed: int = 0,
    ) -> None:
        self.tuner, self.rate = tuner, rate
        self.own_s, self.noise, self.ahead, self.late_s = own_s, noise, ahead, late_s
        self.pauses, self.nbytes = pauses, nbytes
        self.draw = random.Random(seed)
        self.at = self.waited = self.ready_at = 0.0
        self.delivered = 0
        self.seen: list[tuple[float, Decision]] = [(0.0, tuner.decision)]
        self._working = tuner.decision.values
        self._change_at = 0.0
        self._ready: list[float] = []

    def run(self, seconds: float) -> Model:
        end = self.at + seconds
        while self.at < end:
            self._item()
        return self

    def _item(self) -> None:
        decision = self.tuner.decision
        if decision.values != self._working and self.at >= self._change_at:
            self._working = decision.values
        # Workers go on until so many items lie ready; each is made behind the last one.
        cost = 1.0 / self.rate(self._working)
        cost *= self.draw.lognormvariate(0.0, self.noise) if self.noise else 1.0
        room_at = self._ready[-self.ahead] if len(self._ready) >= self.ahead else 0.0
        self.ready_at = max(self.ready_at, room_at) + cost
        wait = max(0.0, self.ready_at - self.at)
        self.at += wait
        self.waited += wait
        self._ready = [*self._ready[-self.ahead :], self.at]
        self.delivered += 1
        before = self.tuner.decision
        sample = Sample(self.at, self.delivered, self.waited, self.nbytes(before.values))
        now = self.tuner.observe(sample)
        if now is not before:
            self.seen.append((self.at, now))
            self._change_at = self.at + self.late_s
        self.at += self.own_s
        every, pause = self.pauses
        if self.delivered % every == 0:
            self.at += pause

    @property
    def values(self) -> tuple[int, ...]:
        return self.tuner.decision.values

    def settled_at(self) -> float:
        """When it settled for good."""
        assert self.tuner.decision.settled, self.seen[-3:]
        return next(at for at, one in reversed(self.seen) if one.settled)


def workers(most: int, value: int = 1) -> Tuner:
    return Tuner([Knob("workers", value, most)])


def scaling(each: float, until: int = 10**6) -> Rate:
    """`each` items a second for every worker, as far as it scales."""
    return lambda values: each * min(values[0], until)


def test_a_heavy_map_gets_all_that_is_allowed() -> None:
    model = Model(workers(8), scaling(20.0)).run(30)
    assert model.values == (8,)
    assert model.settled_at() < 15


def test_a_decode_that_stops_scaling_gets_no_more_than_pays() -> None:
    model = Model(workers(16), scaling(100.0, until=2)).run(30)
    assert model.values == (2,)
    assert model.settled_at() < 10


def test_many_workers_are_reached_in_time() -> None:
    model = Model(workers(64), scaling(10.0)).run(15)
    assert model.values[0] >= 58


def test_a_consumer_that_hardly_waits_is_left_alone() -> None:
    model = Model(workers(8), scaling(200.0), own_s=0.02).run(20)
    assert model.values == (1,)
    assert model.settled_at() < 3
    assert [decision.values for _, decision in model.seen] == [(1,), (1,)]


def test_workers_are_added_until_the_consumer_is_what_takes_longest() -> None:
    model = Model(workers(16), scaling(30.0), own_s=0.01).run(30)
    assert 4 <= model.values[0] <= 6


@pytest.mark.parametrize("seed", range(12))
def test_noise_deceives_it_neither_upwards_nor_downwards(seed: int) -> None:
    flat = Model(workers(8), scaling(60.0, until=1), noise=0.5, seed=seed).run(40)
    assert flat.values[0] <= 2
    steep = Model(workers(4), scaling(60.0), noise=0.5, seed=seed).run(40)
    assert steep.values == (4,)


@pytest.mark.parametrize("seed", range(6))
def test_pauses_of_the_consumer_say_nothing_of_the_workers(seed: int) -> None:
    model = Model(
        workers(4), scaling(50.0), own_s=0.001, noise=0.2, pauses=(70, 1.5), seed=seed
    ).run(60)
    assert model.values == (4,)


def test_it_settles_and_stays_while_nothing_changes_for_long() -> None:
    model = Model(workers(4), scaling(50.0, until=3), noise=0.4, seed=3).run(20)
    changes = len(model.seen)
    values = model.values
    model.run(600)
    assert len(model.seen) == changes
    assert model.values == values


def test_it_looks_again_when_the_rate_has_fallen_for_long_and_not_before() -> None:
    speed = [100.0]
    model = Model(workers(8), lambda values: speed[0] * values[0], own_s=0.011).run(10)
    assert model.values == (1,)
    speed[0] = 20.0
    model.run(5)
    assert model.values == (1,)
    model.run(40)
    assert model.values[0] >= 4
    assert model.tuner.decision.settled


def test_making_more_ahead_is_tried_when_workers_do_not_help() -> None:
    """Costs that differ much, and a consumer that takes as long as they do on average."""

    def rate(values: tuple[int, ...]) -> float:
        return 100.0 * min(1.0, 0.5 + 0.25 * values[1] / 4)

    tuner = Tuner([Knob("workers", 1, 2), Knob("prefetch", 2, 32, doubles=True)])
    model = Model(tuner, rate).run(30)
    assert model.values == (1, 8)


def test_several_tasks_share_the_processors() -> None:
    """The slower of two tasks is the one that is worth something."""
    knobs = [Knob("a", 1, 6, shares="cpus"), Knob("b", 1, 6, shares="cpus")]
    tuner = Tuner(knobs, budgets={"cpus": 6})
    model = Model(tuner, lambda values: min(90.0 * values[0], 30.0 * values[1])).run(40)
    first, second = model.values
    assert first + second <= 6
    assert min(90 * first, 30 * second) >= 0.9 * 120


def test_memory_bounds_it() -> None:
    tuner = Tuner([Knob("workers", 1, 16)], memory_nbytes=1000)
    model = Model(tuner, scaling(20.0), nbytes=lambda values: 200 * values[0]).run(30)
    assert 200 * model.values[0] <= 1000
    assert model.values[0] >= 3
    assert model.tuner.decision.settled


def test_memory_that_grows_later_is_given_back_at_once() -> None:
    each = [100]
    tuner = Tuner([Knob("workers", 1, 8)], memory_nbytes=1000)
    model = Model(tuner, scaling(20.0), nbytes=lambda values: each[0] * values[0]).run(30)
    assert model.values == (8,)
    each[0] = 240
    model.run(20)
    assert model.values == (4,)
    model.run(200)
    assert model.values == (4,)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    each=st.floats(2.0, 50.0),
    until=st.integers(1, 12),
    most=st.integers(1, 12),
    own=st.floats(0.0, 0.05),
    noise=st.floats(0.0, 0.3),
    seed=st.integers(0, 1000),
)
def test_it_always_settles_within_bounds_near_the_best(
    each: float, until: int, most: int, own: float, noise: float, seed: int
) -> None:
    model = Model(workers(most), scaling(each, until), own_s=own, noise=noise, seed=seed)
    for _, decision in model.run(90).seen:
        assert 1 <= decision.values[0] <= most
    assert model.tuner.decision.settled

    def rate(n: int) -> float:
        return min(each * min(n, until), 1 / own if own else float("inf"))

    assert rate(model.values[0]) >= 0.8 * rate(most)


def test_the_same_samples_lead_to_the_same_decisions() -> None:
    def decisions() -> Iterator[Decision]:
        model = Model(workers(8), scaling(33.0, until=5), noise=0.4, seed=8).run(60)
        return iter([decision for _, decision in model.seen])

    assert list(decisions()) == list(decisions())
