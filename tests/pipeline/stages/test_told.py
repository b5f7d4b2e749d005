"""What stages tell of themselves: random numbers that are gone on with."""

from __future__ import annotations

import json

import numpy as np
import pytest

from splitpipe.pipeline.stages.told import Draws

BLOCK = 4


def draws() -> Draws:
    rng = np.random.Generator(np.random.Philox(3))
    return Draws(rng, lambda rng: rng.integers(1000, size=BLOCK).tolist())


def used(one: Draws, count: int) -> list[int]:
    """The next numbers."""
    made = []
    for _ in range(count):
        if not one.left:
            one.more()
        made.append(one.left.pop())
    return made


class TestDraws:
    @pytest.mark.parametrize("before", range(3 * BLOCK + 1))
    def test_goes_on_wherever_it_was_told(self, before: int) -> None:
        one, other = draws(), draws()
        used(one, before)
        other.restore(json.loads(json.dumps(one.tell())))
        assert used(other, 3 * BLOCK) == used(one, 3 * BLOCK)

    @pytest.mark.parametrize("before", range(3 * BLOCK + 1))
    def test_asking_changes_nothing(self, before: int) -> None:
        one, other = draws(), draws()
        used(one, before)
        used(other, before)
        assert one.tell() == one.tell()
        assert used(other, 3 * BLOCK) == used(one, 3 * BLOCK)

    def test_goes_on_twice(self) -> None:
        one, other, third = draws(), draws(), draws()
        used(one, BLOCK)
        other.restore(one.tell())
        third.restore(other.tell())
        assert used(third, BLOCK) == used(one, BLOCK)
