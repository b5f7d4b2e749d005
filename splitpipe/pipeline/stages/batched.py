"""Choosing inputs for whole batches.

Responsible for: two choosers that look at batches: `Stratified`, which gives every batch each
input's share, and `PerInput`, which fills every batch from one input.

Where inputs have random access `splitpipe.pipeline.streams` does both by arithmetic; here inputs
may end at any item.

Rules:
- a batch in which an input ends is filled by those that are left, by the same rule.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from splitpipe.pipeline.stages.weights import Chooser, Random, Weights

__all__ = ["PerInput", "Stratified"]

_ROUNDING = 1e-9
"""How far a share that should be a whole number may be below it."""


class Stratified(Chooser):
    """Every batch has each input's share, rounded down or up: by error diffusion.

    What a batch's share has beyond a whole number is owed to its input; the places of a batch that
    are left when all have had their whole numbers go to those to which most is owed, one each.
    Inputs follow each other in a batch.

    Args:
        weights: of the inputs.
        batch: items of a batch.
    """

    asks = True

    def __init__(self, weights: Weights, batch: int) -> None:
        super().__init__(weights)
        self._batch = batch
        self._owed: list[float] = []
        self._places: list[int] = []
        self._free = 0  # places of an input that has left in the middle of a batch

    def choose(self, step: int) -> int:
        if self._free or not any(self._places):
            places, self._free = self._free or self._batch, 0
            self._share_out(step, places)
        return next(number for number, places in enumerate(self._places) if places)

    def leave(self, chosen: int) -> None:
        super().leave(chosen)
        self._free, self._places[chosen] = self._places[chosen], 0
        self._owed[chosen] = 0.0

    def took(self, chosen: int) -> None:
        self._places[chosen] -= 1

    def _share_out(self, step: int, places: int) -> None:
        shares = self.shares(step)
        if not self._owed:
            self._owed = [0.0] * len(shares)
            self._places = [0] * len(shares)
        left = places
        for number, share in enumerate(shares):
            each = math.floor(places * share + _ROUNDING)
            self._owed[number] += places * share - each
            self._places[number] += each
            left -= each
        wanted = [number for number, share in enumerate(shares) if share]
        wanted.sort(key=lambda number: (-round(self._owed[number], 9), number))
        for number in wanted[:left]:
            self._owed[number] -= 1
            self._places[number] += 1

    def tell(self) -> dict[str, Any]:
        return {**super().tell(), "owed": list(self._owed), "places": list(self._places)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._owed, self._places = list(state["owed"]), list(state["places"])


class PerInput(Random):
    """Every batch is of one input, chosen with the probability of its share.

    Args:
        weights: of the inputs.
        batch: items of a batch.
        rng: of the choices.
    """

    asks = True

    def __init__(self, weights: Weights, batch: int, rng: np.random.Generator) -> None:
        super().__init__(weights, rng)
        self._batch = batch
        self._current: int | None = None
        self._had = 0

    def choose(self, step: int) -> int:
        if self._current is None:
            self._current = super().choose(step)
        return self._current

    def leave(self, chosen: int) -> None:
        super().leave(chosen)
        self._current = None

    def took(self, chosen: int) -> None:
        self._had = (self._had + 1) % self._batch
        if not self._had:
            self._current = None

    def tell(self) -> dict[str, Any]:
        return {**super().tell(), "current": self._current, "had": self._had}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._current, self._had = state["current"], state["had"]
