"""Parts of a whole that fetch what they give are told what comes next in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import concat, dataset_of
from splitpipe.order import global_order
from splitpipe.schema import Schema
from splitpipe.storage.base import MemoryRecords
from splitpipe.views.following import PartOf


class Far(MemoryRecords):
    """Records that note what they are told."""

    def __init__(self, first: int, rows: int, name: str = "n") -> None:
        super().__init__(Schema({name: "int64"}), {name: list(range(first, first + rows))})
        self.told: list[tuple[Any, int]] = []

    def ahead(self, order: Any, position: int) -> None:
        self.told.append((order, position))


@pytest.mark.parametrize("name", ["n", "m"], ids=["same columns", "other columns"])
def test_every_part_hears_of_its_own_rows(name: str) -> None:
    far, near = Far(0, 3000), MemoryRecords(Schema({"n": "int64"}), {"n": [-1] * 500})
    other = Far(5000, 2000, name)
    streams = sp.Streams([dataset_of(far), dataset_of(near), dataset_of(other)])
    pipe = sp.Pipeline(streams, shuffle="global", seed=1)
    items = [next(iter(item.values())) for item in pipe]
    assert len(items) == 5500
    for part, first, last in ((far, 0, 3000), (other, 5000, 7000)):
        positions = [position for _, position in part.told]
        assert positions == sorted(positions)
        assert positions[-1] == 5500
        assert len(positions) > 2
        order, position = part.told[0]
        coming = order.indices(position, position + 200)
        assert (coming + first).tolist() == [
            item for item in items[position : position + 200] if first <= item < last
        ]


def test_in_any_order_of_a_whole() -> None:
    parts = [Far(0, 100), Far(100, 50)]
    whole = concat([dataset_of(part) for part in parts])
    order = global_order(150, 3, 0)
    records = list(whole.iterate(order, 20, 120))
    assert [record["n"] for record in records] == order.indices(20, 120).tolist()
    told, position = parts[1].told[0]
    rows = order.indices(position, 150)
    assert told.indices(position, 150).tolist() == [row - 100 for row in rows if row >= 100]
    assert len(told) == 150


def test_what_is_the_same_order() -> None:
    order = PartOf(global_order(9, 0, 0), 0, 5)
    assert order == PartOf(global_order(9, 0, 0), 0, 5)
    assert hash(order) == hash(PartOf(global_order(9, 1, 0), 0, 5))
    assert order != PartOf(global_order(9, 1, 0), 0, 5)
    assert order != PartOf(global_order(9, 0, 0), 0, 6)
    assert order != np.int64(3)
