"""The seam under datasets: the twin in memory beside the records on disk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe.errors import FormatError
from splitpipe.schema import Schema
from splitpipe.storage import DatasetWriter
from splitpipe.storage.base import MemoryRecords, Records, consecutive_layout
from splitpipe.storage.table import open_table
from tests.storage.tables import SCHEMA, Backwards, assert_same, made


def in_memory(records: list[Any]) -> MemoryRecords:
    return MemoryRecords(SCHEMA, {name: [r[name] for r in records] for name in SCHEMA})


def on_disk(path: Path, records: list[Any]) -> Records:
    with DatasetWriter(path, SCHEMA, bins=2) as w:
        w.write_many(records)
    return open_table(path)


class TestTwins:
    @pytest.fixture(params=["memory", "disk"])
    def records(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        twin = in_memory(made(60)) if request.param == "memory" else on_disk(tmp_path, made(60))
        yield twin
        twin.close()

    def test_give_the_same_columns(self, records: Records) -> None:
        rows = np.array([5, 5, 0, 59, 3])
        batch = records.read(rows, ["n", "text", "trio"])
        assert list(batch) == ["n", "text", "trio"]
        assert batch["n"].tolist() == [5, 5, 0, 59, 3]  # type: ignore[union-attr]
        assert batch["text"] == [made(60)[row]["text"] for row in rows]
        assert np.asarray(batch["trio"]).dtype == np.int16

    def test_give_lists_where_a_value_is_missing_and_arrays_elsewhere(
        self, records: Records
    ) -> None:
        assert records.read(np.array([1, 2]), ["score"])["score"] == [0.25, None]
        there = records.read(np.array([1, 3]), ["score"])["score"]
        assert isinstance(there, np.ndarray)
        assert there.dtype == np.float32

    def test_fill_what_is_given(self, records: Records) -> None:
        out = np.zeros(2, dtype=np.float32)
        assert records.read(np.array([1, 3]), ["score"], {"score": out})["score"] is out
        assert out.tolist() == [0.25, 0.75]
        with pytest.raises(FormatError, match="record 2 is missing"):
            records.read(np.array([1, 2]), ["score"], {"score": out})

    def test_iterate_in_any_order(self, records: Records) -> None:
        found = list(records.iterate(Backwards(60), 3, 60))
        assert_same(found, made(60)[56::-1])

    def test_travel(self, records: Records) -> None:
        again = pickle.loads(pickle.dumps(records))
        assert len(again) == 60
        assert_same(list(again.iterate(Backwards(60), 0, 60)), made(60)[::-1])
        again.close()

    def test_say_which_rows_lie_together(self, records: Records) -> None:
        bins = records.layout().bins()
        assert sorted(row for rows in bins for row in rows) == list(range(60))


class TestMemory:
    def test_values_are_checked(self) -> None:
        for columns, message in (
            ({"a": [1, "x"]}, "record 1: field 'a'"),
            ({"b": [1]}, "are not those of"),
        ):
            with pytest.raises(FormatError, match=message):
                MemoryRecords(Schema({"a": "int8"}), columns)
        with pytest.raises(FormatError, match="equally many"):
            MemoryRecords(Schema({"a": "int8", "b": "int8"}), {"a": [1], "b": []})

    def test_plain_values(self) -> None:
        records = MemoryRecords(Schema("str"), {"data": ["a", None]})
        assert list(records.iterate(Backwards(2), 0, 2)) == [None, "a"]
        assert repr(records) == "MemoryRecords(2 of str)"


@pytest.mark.parametrize(("rows", "bins"), [(0, 5), (1, 5), (7, 3), (1000, 64)])
def test_consecutive_rows_make_bins(rows: int, bins: int) -> None:
    layout = consecutive_layout(rows, bins)
    assert [row for rows in layout.bins() for row in rows] == list(range(rows))
    assert len(layout.bins()) == min(rows, bins)
