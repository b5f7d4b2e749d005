"""Sequences end to end, whatever they are.

Responsible for: `chained`, which puts the records of all streams into one sequence: one dataset,
where all are datasets of the same columns, else a `Chain`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from splitpipe.dataset import Dataset, OrderLike, concat
from splitpipe.distinct import distinct
from splitpipe.errors import FormatError
from splitpipe.views.following import follow, followers
from splitpipe.views.outcomes import Plain, offers, outcomes, raised

__all__ = ["Chain", "chained"]

_BLOCK = 256
"""Records that are read together, of datasets of different columns."""


def chained(parts: Sequence[Any]) -> Any:
    """Return all records of `parts` as one sequence.

    Example:
        >>> list(chained([range(2), "ab"]))
        [0, 1, 'a', 'b']
    """
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Dataset) for part in parts):
        try:
            return concat(parts)
        except FormatError:
            pass  # of other columns: their records are read by each of them
    datasets = [part.records for part in parts if isinstance(part, Dataset)]
    if any(map(offers, datasets)):
        return OnwardChain(parts)
    return ChainOfDatasets(parts) if datasets else Chain(parts)


class Chain(Sequence[Any]):
    """Sequences end to end.

    Args:
        parts: each with ``len()`` and ``[i]``.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)
        self._starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect_right(self._starts, row) - 1
        return self.parts[number][row - self._starts[number]]

    def __repr__(self) -> str:
        shown = ", ".join(f"{part!r:.40}" for part in self.parts[:3])
        more = f", and {len(self.parts) - 3} more" if len(self.parts) > 3 else ""
        return f"[{shown}{more}]"


class ChainOfDatasets(Chain):
    """Sequences end to end, some of them datasets, which read several records at once faster."""

    def iterate(self, order: OrderLike, start: int, stop: int) -> Iterator[Any]:
        """Yield the records at positions of an order; each part reads those of a block together."""
        starts = np.array(self._starts)
        records = [part.records if isinstance(part, Dataset) else None for part in self.parts]
        told = followers(records, self._starts, order)
        for first in range(start, stop, _BLOCK):
            end = min(first + _BLOCK, stop)
            rows = order.indices(first, end)
            owner = np.searchsorted(starts, rows, side="right") - 1
            found: list[Any] = [None] * len(rows)
            for number in distinct(owner).tolist():
                places, part = np.flatnonzero(owner == number), self.parts[number]
                local = rows[places] - self._starts[number]
                if isinstance(part, Dataset):
                    own = part[local]
                else:
                    own = [part[row] for row in local.tolist()]
                for place, record in zip(places.tolist(), own, strict=True):
                    found[place] = record
            follow(told, end)
            yield from found


class OnwardChain(Chain):
    """Sequences end to end, some of them datasets that go on past a record that cannot be read."""

    def iterate(self, order: OrderLike, start: int, stop: int) -> Iterator[Any]:
        """Yield the records at positions of an order; the parts read ahead side by side."""
        return raised(self.outcomes(order, start, stop))

    def outcomes(self, order: OrderLike, start: int, stop: int) -> Iterator[Any]:
        """As `iterate`, with an ``Unreadable`` in the place of a record that cannot be read."""
        return outcomes([_part(part) for part in self.parts], self._starts, order, start, stop)


def _part(part: Any) -> Any:
    if not isinstance(part, Dataset):
        return Plain(None, part.__getitem__)
    return part.records if offers(part.records) else Plain(part.__getitem__, part.__getitem__)
