"""Steps that cost every rank about the same.

Responsible for: `balance_plan`, which rank gets which samples of a window of steps; `Balancing`,
how a source is to be balanced; `Balanced`, its sequence of positions in the order in which ranks
are dealt them; and `told`, how even that comes out.

A *window* is the samples of so many steps. First its samples are divided into steps, by a rule that
does not look at the number of ranks: which samples a step has is the same for any of them, so that
a run may go on with another number behind any step. Then the samples of each step are divided among
the ranks, equally many for each (`splitpipe.pipeline.partition`).

Rules:
- a plan is a pure function of costs, seed, epoch and the place of the window: each rank makes it
  for itself and comes to the same;
- nothing is left out and nothing comes twice: it is another order of the same positions, inside of
  a window;
- samples behind the last full step are a step of their own, with as many for each rank as there
  are; what does not come out even stays where it is, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import GraphError
from splitpipe.order import Order, Rows
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.pipeline.costs import Cost, costs_of
from splitpipe.pipeline.partition import METHODS, divided, imbalance
from splitpipe.pipeline.stages.checks import choice, whole

__all__ = ["STEPS", "Balanced", "Balancing", "balance_plan", "balancing_key", "told"]

STEPS = ("similar", "even")

_STEPS_KEY = 0x5354455053
"""What the key is for that orders the steps of a window."""

_PLANS = 4
"""Windows whose plans are kept: of one that is read, and of what is read ahead."""

_LOOKED_AT = 64
"""Windows of an epoch that `told` looks at."""


def balance_plan(
    costs: Any,
    ranks: int,
    *,
    size: int,
    steps: str = "similar",
    method: str = "largest-first",
    key: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return which samples each rank has in each step of a window.

    Args:
        costs: of the samples of the window: as many as ``ranks * size`` divides.
        ranks: how many.
        size: samples of a rank in a step.
        steps: ``"similar"``: most samples of a step cost about the same, which is even among ranks
            however long the tail of the costs is; ``"even"``: steps cost about the same.
        method: how those of a step are divided among ranks; see `splitpipe.pipeline.partition`.
        key: orders the steps at random; None leaves them as they were made.

    Returns:
        Places of samples, ascending for each rank: shape (steps, ranks, size).

    Raises:
        GraphError: the samples are not those of whole steps.

    Example:
        >>> import splitpipe as sp
        >>> costs = [90, 10, 50, 50, 70, 30, 20, 80]
        >>> plan = sp.balance_plan(costs, ranks=2, size=2, steps="even")
        >>> np.array(costs)[plan].tolist()
        [[[90, 10], [50, 50]], [[70, 30], [20, 80]]]
        >>> sp.imbalance(np.array(costs)[plan].sum(axis=2)).tolist()
        [1.0, 1.0]
    """
    numbers = np.asarray(costs)
    together = ranks * size
    if numbers.ndim != 1 or not together or len(numbers) % together:
        raise GraphError(
            f"{numbers.size} costs are not those of whole steps of {ranks} ranks with {size} "
            "samples each"
        )
    count = len(numbers) // together
    table = _steps(numbers, count, choice("steps", steps, STEPS), method)
    if key is not None:
        table = table[KeyedPermutation(count, key).between(0, count)]
    plan = np.empty((count, ranks, size), np.int64)
    for number, members in enumerate(table):
        plan[number] = members[divided(numbers[members], ranks, method)]
    return plan


def _steps(costs: npt.NDArray[Any], count: int, steps: str, method: str) -> npt.NDArray[np.int64]:
    """Return the samples of each step, ascending: shape (steps, samples)."""
    if steps == "even":
        return divided(costs, count, method)
    # Three quarters of a step are of similar cost; with the cheapest beside them ranks that have
    # one of the dearest are filled up with little. Measured best among fractions of eighths, on
    # lognormal and real lengths, with 4 and with 16 samples a rank.
    ranked = np.argsort(-costs, kind="stable").astype(np.int64)
    dear = max(1, 3 * len(costs) // count // 4) if len(costs) else 0
    heads = ranked[: dear * count].reshape(count, dear)
    tails = ranked[dear * count :][::-1].reshape(count, -1)
    table = np.concatenate([heads, tails], axis=1)
    table.sort(axis=1)
    return table


@dataclass(frozen=True, eq=False, slots=True)  # an array of costs has no one equality
class Balancing:
    """How the samples of a source are spread over ranks.

    Attributes:
        cost: of a record: see `splitpipe.pipeline.costs`.
        size: samples of all ranks together in a step.
        window: steps that are planned together.
        steps: see `balance_plan`.
        method: see `balance_plan`.
    """

    cost: Cost
    size: int
    window: int = 1
    steps: str = "similar"
    method: str = "largest-first"

    def __post_init__(self) -> None:
        whole("size", self.size, least=1)
        whole("window", self.window, least=1)
        choice("steps", self.steps, STEPS)
        choice("method", self.method, METHODS)


class Balanced:
    """Positions of an order in the order in which ranks are dealt them, round-robin.

    Args:
        balancing: how.
        sequence: what the order is of; it knows what records cost.
        order: position -> row.
        size: positions.
        ranks: how many.
        key: of the order of steps in their windows: of the seed and the epoch.
    """

    def __init__(
        self, balancing: Balancing, sequence: Any, order: Order, *, size: int, ranks: int, key: int
    ) -> None:
        self._balancing = balancing
        self._sequence = sequence
        self._order = order
        self._size = size
        self._ranks = ranks
        self._key = key
        self._span = balancing.window * balancing.size
        self.plan = lru_cache(_PLANS)(self._plan)

    @property
    def windows(self) -> int:
        """How many there are; the last may be shorter."""
        return -(-self._size // self._span)

    def at(self, numbers: Rows) -> Rows:
        """Return the positions that come at some places of the sequence."""
        windows, places = np.divmod(numbers, self._span)
        made = np.empty(len(numbers), np.int64)
        for window in distinct(windows).tolist():
            mine = np.flatnonzero(windows == window)
            made[mine] = self.plan(window)[places[mine]] + window * self._span
        return made

    def costs(self, window: int) -> npt.NDArray[Any]:
        """Return what the samples of a window cost, by their positions in it."""
        first = window * self._span
        rows = self._order.indices(first, min(first + self._span, self._size))
        return costs_of(self._sequence, self._balancing.cost, rows)

    def _plan(self, window: int) -> Rows:
        """Return the places of a window's samples in the order in which they are dealt."""
        made, ranks, kind = self.costs(window), self._ranks, self._balancing
        full = len(made) // kind.size * kind.size
        parts = []
        if full:
            key = derive_key(self._key, window) if full > kind.size else None
            plan = balance_plan(
                made[:full],
                ranks,
                size=kind.size // ranks,
                steps=kind.steps,
                method=kind.method,
                key=key,
            )
            parts.append(plan.transpose(0, 2, 1).reshape(-1))  # round-robin: rank after rank
        each = (len(made) - full) // ranks
        if each:
            plan = full + divided(made[full : full + each * ranks], ranks, kind.method)
            parts.append(plan.T.reshape(-1))
        parts.append(np.arange(full + each * ranks, len(made), dtype=np.int64))
        return np.concatenate(parts)

    def steps(self, window: int, *, plain: bool = False) -> npt.NDArray[np.float64]:
        """Return what the full steps of a window cost each rank: shape (steps, ranks).

        Args:
            window: its number.
            plain: as if nothing had been balanced.
        """
        costs = self.costs(window)
        full = len(costs) // self._balancing.size * self._balancing.size
        places = np.arange(full) if plain else self.plan(window)[:full]
        each = self._balancing.size // self._ranks
        table: npt.NDArray[np.float64] = costs[places].astype(np.float64)
        sums: npt.NDArray[np.float64] = table.reshape(-1, each, self._ranks).sum(axis=1)
        return sums


def balancing_key(seed: int, epoch: int) -> int:
    """Return the key of an epoch's plans."""
    return derive_key(seed, epoch, _STEPS_KEY)


def told(balanced: Balanced) -> tuple[float, float, float]:
    """Return the mean and the largest imbalance of an epoch's steps, and the mean without balance.

    Of a long epoch, 64 windows are looked at, the same ones every time, the last one among them.
    """
    count = balanced.windows
    looked = min(count, _LOOKED_AT)
    chosen = sorted({number * (count - 1) // max(1, looked - 1) for number in range(looked)})
    made = [imbalance(balanced.steps(window)) for window in chosen]
    plain = [imbalance(balanced.steps(window, plain=True)) for window in chosen]
    every = np.concatenate([np.atleast_1d(one) for one in made] or [np.empty(0)])
    if not len(every):
        return 1.0, 1.0, 1.0
    return float(every.mean()), float(every.max()), float(np.concatenate(plain).mean())
