"""Weights over inputs, and choosing by them.

Responsible for: `Weights` (fixed or over steps, checked, with a temperature), and the two choosers:
`Random` draws, `Even` spreads.

Rules:
- weights are finite, not negative, and not all 0: what was written down is checked when it is
  described, what a function returns when it is used;
- once inputs have left, the others share what is left in proportion to their weights; where all of
  these are 0 at that step, equally: an input that is wanted at some step is never left unread.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import numpy as np

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.checks import number, whole
from splitpipe.pipeline.stages.told import Draws

__all__ = ["Chooser", "Even", "Random", "Weights"]

_BLOCK = 1024
"""Random numbers that are drawn at once."""


class Weights:
    """The shares of inputs at every step.

    Args:
        given: as for `Mix`.
        inputs: how many there are.
        temperature: above 0.

    Example:
        >>> Weights([(0, (1, 0)), (10, (1, 3))], 2).at(12)
        (0.25, 0.75)
        >>> Weights((1, 4), 2, temperature=2).at(0)
        (0.3333333333333333, 0.6666666666666666)
    """

    def __init__(self, given: Any, inputs: int, temperature: float = 1.0) -> None:
        self._inputs = inputs
        self._power = 1 / temperature
        self._function: Callable[[int], Any] | None = None
        self._steps: list[int] = [0]
        self._shares: list[tuple[float, ...]] = []
        settled = self.settled(given, inputs)
        if callable(settled):
            self._function = settled
        elif _is_schedule(settled):
            self._steps = [step for step, _ in settled]
            self._shares = [self._normal(weights, f" at step {step}") for step, weights in settled]
        else:
            self._shares = [self._normal((1.0,) * inputs if settled is None else settled, "")]

    @staticmethod
    def settled(given: Any, inputs: int) -> Any:
        """Return `given` as nested tuples of floats, checked as far as can be; or the function.

        Raises:
            GraphError: a weight is negative, not finite or no number, there are too few or too
                many, all are 0, or the steps do not grow from 0.
        """
        if given is None or callable(given):
            return given
        if not _is_schedule(given):
            return _checked(given, inputs, "")
        schedule = tuple(
            (whole("a step", step, least=0), _checked(weights, inputs, f" at step {step}"))
            for step, weights in given
        )
        steps = [step for step, _ in schedule]
        if steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
            raise GraphError(f"the steps of a schedule must begin with 0 and grow, not {steps}")
        return schedule

    @property
    def fixed(self) -> bool:
        """Whether they are the same at every step."""
        return self._function is None and len(self._shares) == 1

    @property
    def always(self) -> bool:
        """Whether every input surely is read, at some step."""
        return self._function is None and all(map(self.wanted, range(self._inputs)))

    def wanted(self, chosen: int) -> bool:
        """Whether an input may have a weight at some step."""
        return self._function is not None or any(shares[chosen] for shares in self._shares)

    def at(self, step: int) -> tuple[float, ...]:
        """Return the shares at `step`; their sum is 1.

        Raises:
            GraphError: a function returned what cannot be weights.
        """
        if self._function is None:
            return self._shares[bisect_right(self._steps, step) - 1]
        where = f" at step {step}"
        return self._normal(_checked(self._function(step), self._inputs, where), where)

    def _normal(self, weights: Sequence[float], where: str) -> tuple[float, ...]:
        largest = max(weights)  # scaled by it first: no power of a ratio overflows
        powers = [(weight / largest) ** self._power if weight else 0.0 for weight in weights]
        total = math.fsum(powers)
        if not all(power > 0 for power, weight in zip(powers, weights, strict=True) if weight):
            raise GraphError(f"weights{where} are too uneven for this temperature: {weights}")
        return tuple(power / total for power in powers)


def _is_schedule(given: Any) -> bool:
    """Whether `given` is pairs (step, weights) instead of weights."""
    if isinstance(given, np.ndarray) or not isinstance(given, Sequence) or not given:
        return False
    return all(
        isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[1], Iterable)
        for pair in given
    )


def _checked(weights: Any, inputs: int, where: str) -> tuple[float, ...]:
    if not isinstance(weights, Iterable) or isinstance(weights, str | bytes):
        raise GraphError(f"weights{where} must be numbers, one for each input, not {weights!r}")
    made = tuple(number(f"a weight{where}", weight, least=0.0) for weight in weights)
    if len(made) != inputs:
        raise GraphError(f"there are {len(made)} weights{where} for {inputs} inputs")
    if not any(made):
        raise GraphError(f"the weights{where} are all 0: one input at least must be chosen")
    return made


class Chooser(ABC):
    """Chooses among the inputs that have not left.

    Args:
        weights: of the inputs.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._gone: set[int] = set()
        self._known: tuple[float, ...] | None = None

    def shares(self, step: int) -> tuple[float, ...]:
        """Return the shares at `step` of those that are left, in proportion, 0 for the others."""
        if self._known is not None:
            return self._known
        shares = self._weights.at(step)
        if self._gone:
            left = [0.0 if i in self._gone else share for i, share in enumerate(shares)]
            total = math.fsum(left)
            if not total:
                left = [float(self._stays(i)) for i in range(len(left))]
                total = math.fsum(left)
            shares = tuple(share / total for share in left)
        if self._weights.fixed:
            self._known = shares
        return shares

    def leave(self, chosen: int) -> None:
        """Never choose this input again."""
        self._gone.add(chosen)
        self._known = None

    def _stays(self, i: int) -> bool:
        return i not in self._gone and self._weights.wanted(i)

    @abstractmethod
    def choose(self, step: int) -> int:
        """Return the input for `step`; asking again, before `took`, may give another."""

    asks: ClassVar[bool] = False
    """Whether it has to know what came out: see `took`."""

    def took(self, chosen: int) -> None:  # noqa: B027 - not every chooser has to know
        """An item of this input comes out at this step."""

    def tell(self) -> dict[str, Any]:
        """Return what `restore` needs to go on from here, in values of JSON."""
        return {"gone": sorted(self._gone)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `tell` was called."""
        self._gone = set(state["gone"])


class Random(Chooser):
    """Each input with the probability of its share, independently of what came before.

    Where weights are the same at every step a block of random numbers is turned into choices at
    once; what is left of it is turned anew when an input leaves.
    """

    def __init__(self, weights: Weights, rng: np.random.Generator) -> None:
        super().__init__(weights)
        self._draws = Draws(rng, lambda rng: rng.random(_BLOCK).tolist()[::-1])
        self._numbers: list[float] = []
        self._choices: list[int] = []  # those that the numbers mean, where that is known
        self._bounds: tuple[tuple[float, ...], list[float]] | None = None

    def choose(self, step: int) -> int:
        if self._choices:
            self._numbers.pop()
            return self._choices.pop()
        bounds = self._bounds_at(step)
        if not self._numbers:
            self._numbers = self._draws.more()
        if self._weights.fixed:
            self._choices = np.searchsorted(bounds, self._numbers, side="right").tolist()
            self._choices.pop()
        return bisect_right(bounds, self._numbers.pop())

    def leave(self, chosen: int) -> None:
        super().leave(chosen)
        self._choices = []

    def tell(self) -> dict[str, Any]:
        return {**super().tell(), **self._draws.tell()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._draws.restore(state)
        self._numbers, self._choices = self._draws.left, []

    def _bounds_at(self, step: int) -> list[float]:
        shares = self.shares(step)
        if self._bounds is None or self._bounds[0] is not shares:
            last = max(i for i, share in enumerate(shares) if share)
            bounds = list(accumulate(shares[:last]))  # the last one gets what rounding leaves
            self._bounds = shares, bounds
        return self._bounds[1]


class Even(Chooser):
    """The input that lags its share most.

    Each step adds to every input's credit its share, and takes 1 from the one with the largest: a
    credit is always above -1, so that no input is a whole item ahead of its share. How far one can
    lag grows with the logarithm of the number of inputs (the greedy strategy for emptying cups:
    Adler et al., "A proportionate fair scheduling rule with good worst-case performance", SPAA
    2003); with two inputs it is less than one item.
    """

    asks = True

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._credit: list[float] = []
        self._step = -1

    def choose(self, step: int) -> int:
        shares = self.shares(step)
        if not self._credit:
            self._credit = [0.0] * len(shares)
        if step != self._step:
            self._step = step
            self._credit = [c + share for c, share in zip(self._credit, shares, strict=True)]
        best, chosen = -math.inf, 0
        for i, credit in enumerate(self._credit):
            if credit > best + 1e-9 and shares[i]:  # sums of shares that should tie, tie
                best, chosen = credit, i
        return chosen

    def leave(self, chosen: int) -> None:
        super().leave(chosen)
        owed, self._credit[chosen] = self._credit[chosen], 0.0
        for i, share in enumerate(self.shares(self._step)):
            self._credit[i] += owed * share  # the sum of all credits stays what it was

    def took(self, chosen: int) -> None:
        self._credit[chosen] -= 1

    def tell(self) -> dict[str, Any]:
        return {**super().tell(), "credit": list(self._credit), "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._credit, self._step = list(state["credit"]), state["step"]
