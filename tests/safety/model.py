"""What a dataset holds, as a list of dicts, and whether one does."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from splitpipe.dataset import Dataset
from splitpipe.order import binwise_order, global_order
from splitpipe.schema import ndarray

__all__ = ["BARE", "FIRST", "VALUES", "Model", "Row", "compare", "plain", "value_of"]

BARE = "data"

VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "number": ("int64", st.integers(-5, 5)),
    "text": ("str", st.text(max_size=4)),
    "blob": ("bytes", st.binary(max_size=200)),
    "tree": ("json", st.lists(st.integers(0, 3), max_size=3)),
    "pair": (ndarray("float32", (2,)), st.just(None) | st.integers(0, 9)),
}
FIRST = ("number", "text")


def value_of(name: str, drawn: Any) -> Any:
    if name == "pair" and drawn is not None:
        return np.array([drawn, -drawn], dtype=np.float32)
    return drawn


@dataclass
class Row:
    """A record of the model."""

    values: dict[str, Any]
    key: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Model:
    """What a dataset holds.

    Attributes:
        columns: their names; ``data`` alone for plain bytes.
        rows: the records, as positions are in a session: as committed, then what was added.
        dead: positions that were deleted since the last commit.
        catalog: whether keys or metadata were ever given.
    """

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    catalog: bool = False

    @property
    def bare(self) -> bool:
        return self.columns == [BARE]

    def live(self) -> list[int]:
        return [at for at in range(len(self.rows)) if at not in self.dead]

    def committed(self) -> Model:
        rows = [self.rows[at] for at in self.live()]
        return Model(list(self.columns), copy.deepcopy(rows), set(), self.catalog)

    def records(self) -> list[Any]:
        return [self.record(row) for row in self.rows]

    def record(self, row: Row) -> Any:
        if self.bare:
            return row.values[BARE]
        return {name: plain(row.values.get(name)) for name in self.columns}


def plain(value: Any) -> Any:
    """A value that can be compared."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def compare(ds: Dataset, model: Model) -> None:
    """The dataset is what the model says, in every way of reading."""
    expected = model.records()
    count = len(expected)
    assert len(ds) == count
    assert [plain(record) for record in ds] == expected
    assert [plain(ds[at]) for at in range(count)] == expected
    backwards = list(range(count - 1, -1, -1))
    assert [plain(record) for record in ds[backwards]] == expected[::-1]
    for order in (binwise_order(ds.bin_layout(), 3, 0), global_order(count, 3, 0)):
        rows = order.indices(0, count).tolist()
        assert [plain(record) for record in ds.iterate(order)] == [expected[row] for row in rows]
    batch = ds.get_batch(backwards, columns=list(ds.schema))
    for name in ds.schema:
        found = [plain(value) for value in batch[name]]
        assert found == [plain(row.values.get(name)) for row in model.rows[::-1]], name
    if model.catalog:
        assert ds.keys() == [row.key for row in model.rows]
        assert ds.metas() == [row.meta for row in model.rows]
        for at, row in enumerate(model.rows):
            if row.key is not None:
                assert plain(ds[row.key]) == expected[at]
        if not model.bare:
            for name in model.columns:
                there = ds.where(f"{name} IS NULL")
                assert len(there) == sum(row.values.get(name) is None for row in model.rows), name
