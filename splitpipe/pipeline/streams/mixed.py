"""The order of many streams: position -> row of all their records end to end.

Responsible for: `MixedOrder`, which asks a schedule whose turn a position is, and that stream which
record it gives then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from splitpipe.order import Order, Rows
from splitpipe.pipeline.streams.schedules import Schedule

__all__ = ["MixedOrder"]

_BLOCK: Final = 1 << 14
"""Positions that are looked at together: what lies beside them is bounded by it."""


class MixedOrder(Order):
    """Streams in turn; no bijection: a row comes as often as its stream gives it.

    Args:
        schedule: whose turn a position is.
        draws: of each stream, which row of its own it gives when.
        starts: the first row of each stream, where all are end to end.

    Example:
        >>> from splitpipe.order import sequential_order
        >>> from splitpipe.pipeline.streams.schedules import RoundRobin
        >>> draws = [sequential_order(3), sequential_order(1)]
        >>> list(MixedOrder(RoundRobin([3, 1]), draws, [0, 3]))
        [0, 3, 1, 2]
    """

    __slots__ = ("_draws", "_schedule", "_size", "_starts")

    def __init__(self, schedule: Schedule, draws: Sequence[Order], starts: Sequence[int]) -> None:
        super().__init__()
        self._schedule = schedule
        self._draws = tuple(draws)
        self._starts = tuple(starts)
        self._size = sum(map(len, draws))

    def __len__(self) -> int:
        return self._size

    @property
    def draws(self) -> tuple[Order, ...]:
        """Of each stream, which row of its own it gives when."""
        return self._draws

    def turns(self, positions: Rows) -> Rows:
        """Return which stream the samples at positions, in ascending order, are of."""
        return self._schedule.find(positions)[0].astype(np.int64)

    def at(self, positions: Rows) -> Rows:
        if len(positions) > 1 and (positions[1:] < positions[:-1]).any():
            order = np.argsort(positions, kind="stable")
            made = np.empty(len(positions), np.int64)
            made[order] = self.at(positions[order])
            return made
        parts = [
            self._rows(positions[first : first + _BLOCK], together=False)
            for first in range(0, len(positions), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _between(self, start: int, stop: int) -> Rows:
        parts = [
            self._rows(np.arange(at, min(at + _BLOCK, stop), dtype=np.int64), together=True)
            for at in range(start, stop, _BLOCK)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _rows(self, positions: Rows, *, together: bool) -> Rows:
        """Return the rows at ascending positions; `together`: without one left out between."""
        streams, draws = self._schedule.find(positions)
        sorted_by_stream = np.argsort(streams, kind="stable")
        counts = np.bincount(streams, minlength=len(self._draws))
        made = np.empty(len(positions), np.int64)
        first = 0
        for stream in np.flatnonzero(counts).tolist():
            mine = sorted_by_stream[first : first + int(counts[stream])]
            first += len(mine)
            wanted = draws[mine]
            if together:  # a stream's samples follow each other
                begin = int(wanted[0])
                rows = self._draws[stream]._between(begin, begin + len(mine))
            else:
                rows = self._draws[stream].at(wanted)
            made[mine] = rows + self._starts[stream]
        return made

    def _row(self, position: int) -> int:
        return int(self._rows(np.array([position], dtype=np.int64), together=True)[0])

    def __reduce__(self) -> Any:
        return MixedOrder, (self._schedule, self._draws, self._starts)

    def __repr__(self) -> str:
        return f"MixedOrder({self._size} of {len(self._draws)} streams)"
