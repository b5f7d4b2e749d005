"""Catalogs of views: the parents' answers, in the view's positions.

Responsible for: `SelectedCatalog` (some rows of one parent) and `ChainedCatalog` (the rows of
several, end to end).

Rules:
- a clause means what it means for the dataset that is stored: ``row`` in it is the row there;
- nothing is copied out of a catalog before somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.errors import FormatError
from splitpipe.storage.base import Catalog, Rows
from splitpipe.views.selection import Selection

__all__ = ["ChainedCatalog", "SelectedCatalog"]


class SelectedCatalog:
    """The catalog of a selection of rows.

    Args:
        parent: the catalog of all rows.
        selection: the rows of the view.
    """

    def __init__(self, parent: Catalog, selection: Selection) -> None:
        self._parent = parent
        self._selection = selection

    def row(self, key: str) -> int:
        """See `Catalog.row`; the first position, where a record is there several times."""
        row = self._parent.row(key)
        positions = self._selection.positions_of(np.array([row], dtype=np.int64))
        if not len(positions):
            raise KeyError(key)
        return int(positions[0])

    def keys(self, rows: Rows) -> list[str | None]:
        """See `Catalog.keys`."""
        return self._parent.keys(self._selection.take(rows))

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """See `Catalog.meta`."""
        return self._parent.meta(self._selection.take(rows))

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """See `Catalog.where`."""
        # The parent's first rows need not be the first ones here.
        positions = self._selection.positions_of(self._parent.where(clause, parameters))
        return positions if limit is None else positions[: max(0, limit)]

    def close(self) -> None:
        """See `Catalog.close`: the parent's are the parent's."""


class ChainedCatalog:
    """The catalog of several datasets' rows, end to end.

    Args:
        parts: their catalogs.
        starts: the first row of each part, and the number of all rows.
    """

    def __init__(self, parts: Sequence[Catalog], starts: Sequence[int]) -> None:
        self._parts = tuple(parts)
        self._starts = np.array(starts, dtype=np.int64)

    def row(self, key: str) -> int:
        """See `Catalog.row`.

        Raises:
            FormatError: two parts have it.
        """
        found: list[tuple[int, int]] = []
        for number, part in enumerate(self._parts):
            try:
                found.append((number, part.row(key)))
            except KeyError:
                continue
        if not found:
            raise KeyError(key)
        if len(found) > 1:
            raise FormatError(
                f"key {key!r} is in part {found[0][0]} and in part {found[1][0]} of what was put "
                "end to end: ask the part that is meant, or say the position"
            )
        number, row = found[0]
        return int(self._starts[number]) + row

    def keys(self, rows: Rows) -> list[str | None]:
        """See `Catalog.keys`."""
        found: list[str | None] = [None] * len(rows)
        for number, places, local in self.divided(rows):
            for place, key in zip(places, self._parts[number].keys(local), strict=True):
                found[place] = key
        return found

    def meta(self, rows: Rows) -> list[dict[str, Any]]:
        """See `Catalog.meta`."""
        found: list[dict[str, Any]] = [{}] * len(rows)
        for number, places, local in self.divided(rows):
            for place, meta in zip(places, self._parts[number].meta(local), strict=True):
                found[place] = meta
        return found

    def divided(self, rows: Rows) -> list[tuple[int, list[int], Rows]]:
        """By part: its number, the places in ``rows``, its own rows."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        parts: list[tuple[int, list[int], Rows]] = []
        for number in distinct(owner).tolist():
            places = np.flatnonzero(owner == number)
            parts.append((number, places.tolist(), rows[places] - self._starts[number]))
        return parts

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Rows:
        """See `Catalog.where`: every part is asked, until ``limit`` rows are found."""
        found: list[Rows] = []
        left = limit
        for start, part in zip(self._starts.tolist(), self._parts, strict=False):
            rows = part.where(clause, parameters, limit=left)
            found.append(rows + start)
            if left is not None:
                left -= len(rows)
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def close(self) -> None:
        """See `Catalog.close`: the parts' are the parts'."""
