"""How many workers, and how much ahead: found out while a pipeline runs.

Responsible for: `Tuner`, which is told what was delivered and how long the consumer waited for it,
and says what to set its `Knob`s to. It is pure: it reads no clock, starts nothing, and decides the
same for the same samples.

Rules:
- nothing is to be gained where the consumer hardly waits: then nothing is tried;
- one knob is turned at a time, upwards (all of a kind together where none alone helps), and stays
  there only if that paid by more than chance explains: the noisier the rate, the longer it is
  measured, and the more a change must bring;
- what counts is the rate at the consumer's own usual pace: a pause of his (a checkpoint, an
  evaluation) says nothing of the workers, a burst nothing either;
- it settles, and then changes nothing, unless the rate falls for long; then it looks again, each
  time after twice as long. Memory beyond the budget is given back at once, settled or not;
- what it decides never shows in the stream, only in its speed.

Method: coordinate-wise hill climbing with steps that grow with the value, as tf.data's AUTOTUNE has
it, by measured rates instead of a model.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev

__all__ = ["Decision", "Knob", "Sample", "Tuner"]

WINDOW_S = 0.3
"""The shortest stretch over which a rate is taken."""

WINDOW_ITEMS = 4
"""What has to be delivered in one, or it grows: up to `WINDOW_MOST_S`."""

WINDOW_MOST_S = 1.5

WINDOWS = 3
MOST_WINDOWS = 12
"""Stretches in a measurement, whose median counts: as many as make it exact to `EXACT`."""

EXACT = 0.04

SETTLING_S = 0.25
"""After a change: time for a process to come to life and for what was ready to be used up."""

WAITING = 0.05
"""The share of its time that a consumer must wait before anything is tried."""

GAIN = 0.05
"""What a change must bring."""

FALL = 0.7
"""The share of the settled rate below which it is looked at again, after `FALLEN_S`."""

FALLEN_S = 10.0

MEMORY_SHARE = 0.9
"""Of the budget: beyond that, nothing is added."""


@dataclass(frozen=True, slots=True)
class Knob:
    """Something that can be set: workers of a task, units that may be made ahead.

    Attributes:
        name: how it is called in reasons.
        value: where it begins.
        most: how far it may go.
        shares: the budget it draws on, together with all knobs of that name: CPUs. None: its own.
        doubles: each step is twice the last one, not half as much again.
    """

    name: str
    value: int = 1
    most: int = 1
    shares: str | None = None
    doubles: bool = False

    def step(self) -> int:
        """Return the next value to try."""
        more = self.value if self.doubles else max(1, self.value // 2)
        return min(self.most, self.value + more)


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened up to a moment, since the run began.

    Attributes:
        at: seconds of any clock that goes on.
        delivered: values that the consumer was given.
        waited_s: how long it has waited for them.
        nbytes: memory of all workers now, what they share counted once; 0: not looked at.
    """

    at: float
    delivered: int
    waited_s: float
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the knobs are to be set to.

    Attributes:
        values: of the knobs, in their order.
        settled: whether this is meant to stay.
        reason: why, in words.
    """

    values: tuple[int, ...]
    settled: bool = False
    reason: str = "measuring"


@dataclass(slots=True)
class _Window:
    """A stretch of a run: the consumer's own time and its waiting, for each value."""

    own_s: float
    waiting_s: float


class Tuner:
    """Finds the best setting of some knobs.

    Args:
        knobs: in the order in which they are tried.
        budgets: how much the knobs that share a name may have together.
        memory_nbytes: what all workers may take; None: no limit.

    Example:
        >>> tuner = Tuner([Knob("workers", most=4)])
        >>> at = waited = 0.0
        >>> for n in range(2000):  # every value takes 10 ms of work, shared by all workers
        ...     took = 0.010 / tuner.decision.values[0]
        ...     at, waited = at + took, waited + took
        ...     decision = tuner.observe(Sample(at, n, waited))
        >>> decision.values, decision.settled
        ((4,), True)
    """

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        budgets: dict[str, int] | None = None,
        memory_nbytes: int | None = None,
    ) -> None:
        self._knobs = list(knobs)
        self._budgets = budgets or {}
        self._memory = memory_nbytes
        self._nbytes = 0
        self._begin: Sample | None = None  # of the window that is being filled
        self._quiet_until: float | None = None
        self._windows: list[_Window] = []
        self._own: deque[float] = deque(maxlen=15)
        self._base: tuple[float, float] | None = None  # rate of what stands, and its error
        self._trial: dict[int, int] = {}  # the knobs that were turned, and their values before
        self._tried: set[tuple[int, ...]] = set()
        self._fallen: float | None = None
        self._patience_s = FALLEN_S
        self.decision = Decision(tuple(knob.value for knob in knobs))

    def observe(self, sample: Sample) -> Decision:
        """Take note of `sample` and return what to do now.

        Cheap as long as no window ends: call it with every message.
        """
        if sample.nbytes:
            self._nbytes = sample.nbytes
            if self._memory is not None and sample.nbytes > self._memory:
                self._give_back(sample)
                return self.decision
        begin = self._begin
        if begin is None or (self._quiet_until is not None and sample.at < self._quiet_until):
            self._begin = begin or sample
            return self.decision
        if self._quiet_until is not None:
            self._quiet_until, self._begin = None, sample
            return self.decision
        elapsed, items = sample.at - begin.at, sample.delivered - begin.delivered
        if elapsed < WINDOW_S or (items < WINDOW_ITEMS and elapsed < WINDOW_MOST_S) or items < 1:
            return self.decision
        waiting = min(elapsed, sample.waited_s - begin.waited_s)
        window = _Window((elapsed - waiting) / items, waiting / items)
        self._begin = sample
        self._own.append(window.own_s)
        if self.decision.settled:
            self._watch(window, sample.at)
        else:
            self._windows.append(window)
            if len(self._windows) >= WINDOWS:
                self._measured(sample.at)
        return self.decision

    # -- measuring

    def _rate(self, window: _Window) -> float:
        """Values a second, if the consumer went on at its usual pace."""
        return 1.0 / max(1e-9, median(self._own) + window.waiting_s)

    def _measured(self, now: float) -> None:
        """Go on, go back, or settle, unless more windows are wanted."""
        windows = self._windows
        rates = [self._rate(window) for window in windows]
        rate = median(rates)
        error = stdev(rates) / rate / math.sqrt(len(rates))
        if error > EXACT and len(windows) < MOST_WINDOWS:
            return
        waiting = median(window.waiting_s for window in windows) * rate
        self._windows = []
        if self._trial:
            assert self._base is not None
            gain = rate / self._base[0] - 1.0
            if gain < max(GAIN, 2 * math.hypot(error, self._base[1])):
                self._take_back(now)
                self._go_on(waiting, now, again=True)
                return
            self._trial, self._tried = {}, set()
        self._base = rate, error
        self._go_on(waiting, now)

    def _take_back(self, now: float) -> None:
        """What was tried brought nothing: set what stood before, and try less or never again."""
        trial, self._trial = self._trial, {}
        for index, before in trial.items():
            tried = self._knobs[index].value
            self._set(index, before, now)
            if len(trial) == 1 and tried - before > 1 and not self._knobs[index].doubles:
                self._knobs[index] = replace(self._knobs[index], most=tried - 1)
                return
        self._tried.add(tuple(trial))

    def _go_on(self, waiting: float, now: float, *, again: bool = False) -> None:
        """Try the next knob, or settle."""
        if waiting < WAITING:
            self._settle("the consumer hardly waits")
            return
        for indices in self._candidates():
            values = {index: self._knobs[index].step() for index in indices}
            values = {
                index: min(value, self._room(index, values)) for index, value in values.items()
            }
            if indices in self._tried or any(
                value <= self._knobs[index].value for index, value in values.items()
            ):
                continue
            self._trial = {index: self._knobs[index].value for index in indices}
            for index, value in values.items():
                self._set(index, value, now)
            return
        self._settle("more would bring nothing" if again else "nothing more is allowed")

    def _candidates(self) -> Iterator[tuple[int, ...]]:
        """Yield what may be turned: each knob alone, then those that share a budget together."""
        for index in range(len(self._knobs)):
            yield (index,)
        for name in self._budgets:
            sharing = tuple(n for n, knob in enumerate(self._knobs) if knob.shares == name)
            if len(sharing) > 1:
                yield sharing

    def _room(self, index: int, wanted: dict[int, int]) -> int:
        """How far a knob may go within the budgets, when others go as far as they are wanted to."""
        knob = self._knobs[index]
        fitting = knob.most
        if self._memory is not None and self._nbytes > 0:
            # As if all of the memory were its own: each step then grows it in proportion.
            fitting = int(knob.value * MEMORY_SHARE * self._memory / self._nbytes)
        if knob.shares is None or knob.shares not in self._budgets:
            return fitting
        others = sum(
            wanted.get(number, other.value)
            for number, other in enumerate(self._knobs)
            if other.shares == knob.shares and number != index
        )
        return min(fitting, self._budgets[knob.shares] - others)

    # -- deciding

    def _set(self, index: int, value: int, now: float) -> None:
        knob = replace(self._knobs[index], value=value)
        self._knobs[index] = knob
        self._windows = []
        self._quiet_until = now + SETTLING_S
        values = tuple(knob.value for knob in self._knobs)
        self.decision = Decision(values, False, f"{knob.name} = {value}")

    def _settle(self, reason: str) -> None:
        self._trial, self._tried, self._windows, self._fallen = {}, set(), [], None
        self.decision = replace(self.decision, settled=True, reason=reason)

    def _watch(self, window: _Window, now: float) -> None:
        """Look again where the rate has fallen for long."""
        assert self._base is not None
        rate = self._rate(window)
        if rate >= FALL * self._base[0] or window.waiting_s * rate < WAITING:
            self._fallen = None
        elif self._fallen is None:
            self._fallen = now
        elif now - self._fallen >= self._patience_s:
            self._fallen = None
            self._patience_s *= 2
            self.decision = replace(self.decision, settled=False, reason="the rate has fallen")

    def _give_back(self, sample: Sample) -> None:
        """Turn the largest knob down by one: there is not enough memory for what is set."""
        index = max(range(len(self._knobs)), key=lambda number: self._knobs[number].value)
        knob = self._knobs[index]
        if knob.value == 1 or (self._quiet_until is not None and sample.at < self._quiet_until):
            return
        self._knobs[index] = replace(knob, most=knob.value - 1)
        self._trial = {}
        self._set(index, knob.value - 1, sample.at)
        self._begin = sample
