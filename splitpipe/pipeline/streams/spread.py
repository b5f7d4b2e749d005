"""How many of each stream's samples are in a block of positions, for any block, at once.

Responsible for: `Spread`, which cuts an epoch into blocks of equal size and gives every block each
stream's share rounded down or up, so that all comes out even at the end.

The method is systematic sampling (Madow, "On the theory of systematic sampling, II", 1949): beside
the whole part of its share, which every block has, a stream has a fraction. The fractions lie end
to end on a line; a comb with teeth one apart is laid on it, and each tooth takes one more sample of
the stream that it meets: always equally many, and none or one of each. Block after block the comb
moves by a fixed step, near the golden ratio, which spreads evenly whatever the fractions are, over
as many places as there are blocks, each once: so the totals are exact. How many a stream had before
some block is a sum of floors along an arithmetic progression, which costs as much as Euclid's
algorithm.

Rules:
- integers only: the same on every machine;
- O(streams) memory and no state: any block is as cheap as the first, and a single place costs the
  logarithms of the numbers of streams and blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from math import gcd
from typing import Final

import numpy as np

from splitpipe.errors import GraphError
from splitpipe.order import Rows
from splitpipe.pipeline.streams.counts import apportioned

__all__ = ["MOST_BLOCKS", "Spread", "floor_sums", "step_of"]

MOST_BLOCKS: Final = 1 << 30
"""Blocks of an epoch: their numbers are multiplied in 64 bits."""

_GOLDEN: Final = 2654435769  # of 2**32
_NEIGHBOURS: Final = 40


class Spread:
    """The shares of streams in blocks.

    Args:
        counts: samples of each stream, in the whole epoch.
        block: positions of a block; what is left at the end is a last, shorter one.
        key: which of the equally good ways; 64 bits.

    Attributes:
        blocks: how many there are, with the last one.

    Example:
        >>> spread = Spread([6, 3, 1], block=4, key=0)
        >>> inside = spread.inside(np.arange(spread.blocks))
        >>> inside.sum(axis=1).tolist(), inside.sum(axis=0).tolist()
        ([4, 4, 2], [6, 3, 1])
    """

    def __init__(self, counts: Sequence[int], block: int, key: int) -> None:
        total = sum(counts)
        full = total // block
        if full >= MOST_BLOCKS:
            raise GraphError(
                f"an epoch of {total} samples in blocks of {block} is too long: at most "
                f"{MOST_BLOCKS} blocks; say a smaller epoch_size, and more epochs"
            )
        self.blocks = full + bool(total % block)
        self._full = full
        whole = apportioned(full * block, counts) if full else (0,) * len(counts)
        self._tail = np.array(counts, np.int64) - np.array(whole, np.int64)
        each, more = np.divmod(np.array(whole, np.int64), max(1, full))
        self._each: Rows = each
        # Where each stream's fraction begins on the line, and where the last one ends; in units
        # of one part in as many as there are full blocks.
        self._ends: Rows = np.concatenate(([0], np.cumsum(more)))
        self._offset = int(self._ends[-1]) + max(1, full)  # keeps what is divided positive
        self._step, self._phase = step_of(max(1, full)), key % max(1, full)

    def inside(self, blocks: Rows) -> Rows:
        """Return how many samples of each stream blocks have: shape (blocks, streams)."""
        full = self._full
        if not full:
            return np.broadcast_to(self._tail, (len(blocks), len(self._tail))).copy()
        at = (blocks * self._step + self._phase) % full
        floors = (at[:, None] + self._offset - self._ends) // full
        made: Rows = self._each + floors[:, :-1] - floors[:, 1:]
        made[blocks == full] = self._tail
        return made

    def before(self, blocks: Rows) -> Rows:
        """Return how many samples of each stream lie before blocks: shape (blocks, streams)."""
        if not self._full:
            return np.zeros((len(blocks), len(self._tail)), np.int64)
        offsets = np.broadcast_to(
            self._phase + self._offset - self._ends, (len(blocks), len(self._ends))
        )
        lengths = np.broadcast_to(blocks[:, None], offsets.shape)
        sums = floor_sums(lengths, self._full, self._step, offsets)
        made: Rows = blocks[:, None] * self._each + sums[:, :-1] - sums[:, 1:]
        return made

    def place(self, blocks: Rows, places: Rows) -> tuple[Rows, Rows]:
        """Return whose samples lie at places of blocks, and how many of it lie before them.

        For places far apart; a block at a time is cheaper with `both`.
        """
        ends, full = self._ends, self._full
        at = (blocks * self._step + self._phase) % max(1, full)
        last = blocks == full
        tail, each = np.cumsum(self._tail), np.cumsum(self._each)

        def end(streams: Rows) -> Rows:
            """Where a stream's samples end in each block."""
            floors = (at + self._offset) // max(1, full)
            floors = floors - (at + self._offset - ends[streams + 1]) // max(1, full)
            made: Rows = np.where(last, tail[streams], each[streams] + floors)
            return made

        low = np.zeros(len(blocks), np.int64)  # bisection, of all places at once
        high = np.full(len(blocks), len(tail) - 1, np.int64)
        while (low < high).any():
            middle = (low + high) // 2
            beyond = end(middle) <= places
            low, high = np.where(beyond, middle + 1, low), np.where(beyond, high, middle)
        starts = np.where(low > 0, end(np.maximum(low - 1, 0)), 0)
        before = np.zeros(len(blocks), np.int64)
        if full:
            lengths = np.stack([blocks, blocks])
            offsets = self._phase + self._offset - np.stack([ends[low], ends[low + 1]])
            upper, lower = floor_sums(lengths, full, self._step, offsets)
            before = blocks * self._each[low] + upper - lower
        return low, before + places - starts

    def both(self, blocks: Rows) -> tuple[Rows, Rows]:
        """Return `before` and `inside` of ascending blocks; cheap where they are consecutive."""
        inside = self.inside(blocks)
        if len(blocks) and int(blocks[-1]) - int(blocks[0]) + 1 == len(blocks):
            before = np.empty_like(inside)
            before[0] = self.before(blocks[:1])[0]
            np.cumsum(inside[:-1], axis=0, out=before[1:])
            before[1:] += before[0]
            return before, inside
        return self.before(blocks), inside


@lru_cache(64)
def step_of(blocks: int) -> int:
    """Return a step that visits each of `blocks` places once, evenly all the while.

    How even that is follows from the quotients of Euclid's algorithm: the smaller they are the
    better (Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992, chapter
    3). Near the golden ratio the first ones are 1; the best of its neighbours has small last ones,
    too.
    """
    ideal = blocks * _GOLDEN >> 32
    near = range(max(0, ideal - _NEIGHBOURS), min(blocks, ideal + _NEIGHBOURS) + 1)
    return min((step for step in near if gcd(step, blocks) == 1), key=partial(_quotients, blocks))


def _quotients(blocks: int, step: int) -> int:
    total = 0
    while step:
        quotient, rest = divmod(blocks, step)
        total += quotient
        blocks, step = step, rest
    return total


def floor_sums(counts: Rows, modulus: int, step: int, offsets: Rows) -> Rows:
    """Return, for each, the sum over i in range(count) of ``(step * i + offset) // modulus``.

    Args:
        counts: at least 0.
        modulus: above 0.
        step: at least 0.
        offsets: at least 0, of the same shape as `counts`.

    Example:
        >>> floor_sums(np.array([4]), 3, 2, np.array([1])).tolist()  # 0 + 1 + 1 + 2
        [4]
    """
    total: Rows = np.zeros(counts.shape, np.int64)
    number: Rows = counts.astype(np.int64)
    offset: Rows = offsets.astype(np.int64)
    while number.any():
        times, step = divmod(step, modulus)
        if times:
            total += number * (number - 1) // 2 * times
        over, offset = np.divmod(offset, modulus)
        total += number * over
        # The points below the line, counted by columns so far, are counted by rows now.
        number, offset = np.divmod(step * number + offset, modulus)
        modulus, step = step, modulus
    return total
