"""Views of one dataset: some of its rows, some of its columns.

Responsible for: `Subset` and `Columns`, and the functions `subset` and `columns` that make them,
without piling up: a subset of a subset is one subset.

Rules (of all views):
- a view copies nothing and opens nothing; it reads through its parents, which it does not close;
- a view pickles as its parents and what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.schema import Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Records,
    Rows,
    consecutive_layout,
    iterate_blocks,
    records_of,
)
from splitpipe.storage.layout import BinLayout
from splitpipe.views.catalogs import SelectedCatalog
from splitpipe.views.selection import Selection, Through, cut_layout

__all__ = ["Columns", "Subset", "columns", "iterate_rows", "one", "subset"]


def subset(parent: Records, selection: Selection) -> Subset:
    """Some rows of a dataset.

    Example:
        >>> import numpy as np
        >>> from splitpipe.storage.base import MemoryRecords
        >>> records = MemoryRecords(Schema("int64"), {"data": [10, 11, 12, 13]})
        >>> twice = subset(subset(records, Selection(range(1, 4))), Selection(range(2, 3)))
        >>> twice.read(np.array([0]), ["data"]), twice.parent is records
        ({'data': array([13])}, True)
    """
    if isinstance(parent, Subset):
        return Subset(parent.parent, parent.selection.then(selection))
    return Subset(parent, selection)


def columns(parent: Records, names: Sequence[str] | str) -> Columns | Subset:
    """Some columns of a dataset, in the order of ``names``.

    Rows are chosen above columns, so that any alternation of both is one of each.

    Raises:
        FormatError: there is no such column, or one is named twice.
    """
    if isinstance(parent, Subset):
        return Subset(columns(parent.parent, names), parent.selection)
    schema = parent.schema.select(names)
    return Columns(parent.parent if isinstance(parent, Columns) else parent, schema)


def iterate_rows(records: Records, start: int, stop: int) -> Iterator[Any]:
    """Records ``start`` to ``stop - 1`` in row order, by the fastest way there is."""
    straight = getattr(records, "iterate_rows", None)
    if straight is not None:
        found: Iterator[Any] = straight(start, stop)
        return found
    return records.iterate(Selection(range(len(records))), start, stop)


def one(records: Records, row: int) -> Any:
    """A single record, by the shortest way there is."""
    straight = getattr(records, "get", None)
    if straight is not None:
        return straight(row)
    batch = records.read(np.array([row], dtype=np.int64), tuple(records.schema))
    return records_of(records.schema, batch)[0]


class Subset:
    """Some rows of a dataset.

    Args:
        parent: the dataset.
        selection: the rows.
    """

    def __init__(self, parent: Records, selection: Selection) -> None:
        self.parent = parent
        self.selection = selection
        self.schema: Schema = parent.schema
        self.catalog: Catalog | None = None
        if parent.catalog is not None:
            self.catalog = SelectedCatalog(parent.catalog, selection)

    def __len__(self) -> int:
        return len(self.selection)

    def get(self, row: int) -> Any:
        """One record, which is faster than `read` for it alone."""
        return one(self.parent, int(self.selection.rows[row]))

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        return self.parent.read(self.selection.take(rows), columns, out)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`: the parent reads ahead."""
        return self.parent.iterate(Through(self.selection, order), start, stop)

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order."""
        rows = self.selection.rows
        if self.selection.consecutive and isinstance(rows, range):
            return iterate_rows(self.parent, rows.start + start, rows.start + stop)
        return self.parent.iterate(self.selection, start, stop)

    def layout(self) -> BinLayout:
        """See `Records.layout`: the parent's bins where rows follow each other."""
        rows = self.selection.rows
        layout = self.parent.layout()
        if self.selection.consecutive and isinstance(rows, range):
            return cut_layout(layout, rows.start, rows.stop)
        return consecutive_layout(len(self), bins=max(1, len(layout.bins())))

    def close(self) -> None:
        """See `Records.close`: the parent's files are the parent's."""

    def __reduce__(self) -> Any:
        return Subset, (self.parent, self.selection)

    def __repr__(self) -> str:
        return f"{len(self)} of {self.parent!r}"


class Columns:
    """Some columns of a dataset; its records are dicts.

    Args:
        parent: the dataset.
        schema: the columns that are kept.
    """

    def __init__(self, parent: Records, schema: Schema) -> None:
        self.parent = parent
        self.schema = schema
        self.catalog = parent.catalog

    def __len__(self) -> int:
        return len(self.parent)

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        return self.parent.read(rows, columns, out)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`: columns that were left out are not read."""
        straight = getattr(self.parent, "iterate_columns", None)
        if straight is not None:
            found: Iterator[Any] = straight(order, start, stop, self.schema)
            return found
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """See `Records.layout`."""
        return self.parent.layout()

    def close(self) -> None:
        """See `Records.close`: the parent's files are the parent's."""

    def __reduce__(self) -> Any:
        return Columns, (self.parent, self.schema)

    def __repr__(self) -> str:
        return f"{', '.join(self.schema)} of {self.parent!r}"
