"""Which rows of another dataset a view has, and in which order.

Responsible for: `Selection`, a sequence of rows that is as small as it can be: a range, a draw that
can be drawn again, or an array; `Through`, an order of a view as its parent sees it; and the bins
of consecutive rows of a layout.

Rules:
- a selection is a value: it is never changed, and pickles to a few numbers where it is no array;
- a selection of a selection is one selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.permutation import KeyedPermutation
from splitpipe.storage.base import Order, Rows
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Selection", "Through", "cut_layout", "drawn"]


class Selection:
    """Rows by position.

    Args:
        rows: a range, or an int64 array of shape (n,) that nobody changes any more.
        again: makes it anew, where that takes less room than the rows.

    Example:
        >>> evens = Selection(range(0, 100, 2))
        >>> evens.take(np.array([0, 3])).tolist(), len(evens.then(Selection(range(10))))
        ([0, 6], 10)
        >>> Selection(np.array([5, 7, 9])).rows
        range(5, 11, 2)
    """

    __slots__ = ("_again", "_ascending", "rows")

    def __init__(
        self,
        rows: range | Rows,
        again: tuple[Callable[..., Selection], tuple[Any, ...]] | None = None,
    ) -> None:
        self.rows: range | Rows = rows if isinstance(rows, range) else _as_range(rows)
        self._again = again
        self._ascending: bool | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Rows) -> Rows:
        """The rows at some positions."""
        rows = self.rows
        if isinstance(rows, range):
            if rows.step == 1:
                return positions + rows.start if rows.start else positions
            return rows.start + rows.step * positions
        return rows.take(positions)

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``: a selection is an order of rows."""
        rows = self.rows[start:stop]
        if isinstance(rows, range):
            return np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
        return rows

    def then(self, inner: Selection) -> Selection:
        """The selection of a selection."""
        if isinstance(self.rows, range) and isinstance(inner.rows, range):
            # A range knows how to take a range of itself.
            first = inner.rows
            if not len(first):
                return Selection(range(0))
            start, step = self.rows[first[0]], self.rows.step * first.step
            return Selection(range(start, start + step * len(first), step))
        return Selection(self.take(inner.indices(0, len(inner))))

    @property
    def consecutive(self) -> bool:
        """Whether its rows follow each other."""
        return isinstance(self.rows, range) and self.rows.step == 1

    def positions_of(self, rows: Rows) -> Rows:
        """All positions, ascending, at which one of these rows is.

        Args:
            rows: ascending, each once.
        """
        own = self.rows
        if isinstance(own, range):
            if not len(own) or not len(rows):
                return np.empty(0, dtype=np.int64)
            low, high = min(own[0], own[-1]), max(own[0], own[-1])
            inside = rows[np.searchsorted(rows, low) : np.searchsorted(rows, high, side="right")]
            offsets = inside - own.start
            positions: Rows = offsets[offsets % own.step == 0] // own.step
            return positions if own.step > 0 else positions[::-1].copy()
        if not len(rows):
            return np.empty(0, dtype=np.int64)
        if self._is_ascending() and len(rows) < len(own) // 8:
            places = np.minimum(np.searchsorted(own, rows), len(own) - 1)
            found: Rows = places[own[places] == rows]
            return found
        nearest = rows[np.minimum(np.searchsorted(rows, own), len(rows) - 1)]
        return np.flatnonzero(nearest == own).astype(np.int64)

    def _is_ascending(self) -> bool:
        if self._ascending is None:
            own = np.asarray(self.rows)
            self._ascending = bool((own[1:] > own[:-1]).all())
        return self._ascending

    def __reduce__(self) -> Any:
        if self._again is not None:
            return self._again
        if isinstance(self.rows, range):
            return Selection, (self.rows,)
        small = len(self.rows) and int(self.rows.max()) < 1 << 32
        return _unpacked, (self.rows.astype("<u4") if small else self.rows,)

    def __repr__(self) -> str:
        return f"Selection({len(self)} rows)"


def _unpacked(rows: npt.NDArray[Any]) -> Selection:
    return Selection(rows.astype(np.int64))


def _as_range(rows: Rows) -> range | Rows:
    """The range that has the same rows, if there is one."""
    if len(rows) < 2:
        return range(int(rows[0]), int(rows[0]) + 1) if len(rows) else range(0)
    first, step = int(rows[0]), int(rows[1]) - int(rows[0])
    # Looking at the last one first spares looking at all, nearly always.
    if step and int(rows[-1]) == first + step * (len(rows) - 1) and (np.diff(rows) == step).all():
        return range(first, first + step * len(rows), step)
    return rows


def drawn(size: int, key: int, start: int, stop: int) -> Selection:
    """The rows at positions of a keyed shuffle of ``size`` rows, ascending.

    Example:
        >>> half, rest = drawn(10, 7, 0, 5), drawn(10, 7, 5, 10)
        >>> sorted([*half.indices(0, 5).tolist(), *rest.indices(0, 5).tolist()])
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    rows = np.sort(KeyedPermutation(size, key).between(start, stop))
    return Selection(rows, (drawn, (size, key, start, stop)))


class Through:
    """An order of a view's positions, as rows of its parent."""

    __slots__ = ("_order", "_selection")

    def __init__(self, selection: Selection, order: Order) -> None:
        self._selection = selection
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def indices(self, start: int, stop: int) -> Rows:
        """The parent's rows at positions ``start`` to ``stop - 1``."""
        return self._selection.take(self._order.indices(start, stop))


def cut_layout(layout: BinLayout, start: int, stop: int) -> BinLayout:
    """The bins of the rows ``start`` to ``stop - 1``, which are numbered from 0 then.

    Example:
        >>> layout = BinLayout([Segment(first_row=0, rows=7, first_bin=0, bins=3)])
        >>> [list(rows) for rows in cut_layout(layout, 2, 6).bins()]
        [[1], [2], [0, 3]]
    """
    kept: list[Segment] = []
    bins = 0
    for segment in layout.segments:
        first = max(start, segment.first_row)
        last = min(stop, segment.first_row + segment.rows)
        if first >= last:
            continue
        turned = (first - segment.first_row) % segment.bins
        dealing = segment.dealing or tuple(range(segment.bins))
        kept.append(
            Segment(
                first - start,
                last - first,
                bins,
                segment.bins,
                dealing[turned:] + dealing[:turned],
            )
        )
        bins += segment.bins
    return BinLayout(kept)
