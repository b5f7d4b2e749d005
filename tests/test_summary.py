"""A summary against numpy's own answers, and the values that figures are easily wrong about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import splitpipe as sp
from splitpipe.dataset import dataset_of
from splitpipe.storage.base import MemoryRecords
from splitpipe.summary import ColumnSummary, Histogram, numbers, summarise

NAN = float("nan")


def column_of(kind: Any, values: Any) -> ColumnSummary:
    """The summary of one column in memory; all of it can be written as JSON."""
    records = MemoryRecords(sp.Schema({"it": kind}), {"it": values})
    found = summarise(dataset_of(records), sample=None)
    json.dumps(found.to_json(), allow_nan=False)
    (column,) = found.columns
    return column


class TestNumbers:
    @given(
        st.lists(arrays(np.float64, st.integers(0, 30), elements=st.floats(-1e6, 1e6)), max_size=5)
    )
    def test_come_in_parts_and_are_what_they_are_together(self, parts: list[Any]) -> None:
        seen = numbers.Numbers()
        for part in parts:
            seen.add(part)
        found, whole = seen.histogram(), np.concatenate([*parts, np.empty(0)])
        assert found.count == len(whole)
        if not len(whole):
            assert found.least is None
            assert found.counts == ()
            return
        assert (found.least, found.most) == (whole.min(), whole.max())
        assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert found.deviation == pytest.approx(whole.std(), rel=1e-6, abs=1e-4)
        assert found.quantiles == pytest.approx(np.quantile(whole, numbers.QUANTILES))
        assert sum(found.counts) == len(whole)
        assert found.exact

    def test_memory_is_bounded_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(numbers, "MOST_VALUES", 1000)
        seen = numbers.Numbers()
        for start in range(0, 100_000, 777):
            seen.add(np.arange(start, min(start + 777, 100_000)))
        found = seen.histogram()
        assert not found.exact
        assert 250 <= sum(found.counts) <= 1000
        assert (found.count, found.least, found.most, found.mean) == (100_000, 0, 99_999, 49_999.5)
        assert found.quantiles[2] == pytest.approx(50_000, rel=0.01)
        assert max(found.counts) - min(found.counts) <= 2

    @pytest.mark.parametrize(
        ("array", "least", "most"),
        [
            (np.array([2**63 + 1, 2**64 - 1], np.uint64), 2**63 + 1, 2**64 - 1),
            (np.array([-(2**63), 2**63 - 1]), -(2**63), 2**63 - 1),
            (np.array([1e16, 1e16 + 2]), 1e16, 1e16 + 2),
            (np.array([-1.7e308, 1.7e308]), -1.7e308, 1.7e308),
            (np.array([5e-324, 0]), 0, 5e-324),
            (np.array([7]), 7, 7),
            (np.array([True, False, True]), 0, 1),
            (np.array([3 + 4j, NAN]), 5, 5),
            (np.array([65504, 1], np.float16), 1, 65504),
        ],
    )
    def test_extremes(self, array: Any, least: float, most: float) -> None:
        found = Histogram.of(array)
        assert (found.least, found.most) == (least, most)
        assert sum(found.counts) == found.count - found.not_finite
        assert len(found.edges) == len(found.counts) + 1
        assert all(np.isfinite(found.edges))

    def test_what_is_not_finite_is_counted_apart(self) -> None:
        found = Histogram.of(np.array([np.inf, -np.inf, NAN, 2.0]))
        assert (found.count, found.not_finite, found.mean) == (4, 3, 2.0)
        found = Histogram.of(np.array([NAN]))
        assert (found.count, found.not_finite, found.mean, found.quantiles) == (1, 1, None, ())


class TestColumns:
    def test_scalars_with_and_without_missing_values(self) -> None:
        whole, some = column_of("int16", list(range(9))), column_of("int16", [None, *range(9)])
        assert whole.numbers == some.numbers
        assert (some.values, some.missing) == (9, 1)
        assert some.nbytes.most == 2

    def test_all_values_missing(self) -> None:
        for kind in ("float64", "str", "json", "bytes", sp.ndarray("int8"), sp.image()):
            column = column_of(kind, [None, None])
            assert (column.values, column.missing, column.nbytes.count) == (0, 2, 0)

    def test_arrays_of_any_shape(self) -> None:
        values = [np.ones((2, n), np.float32) for n in (1, 3, 3)]
        column = column_of(sp.ndarray("float32"), values)
        assert column.shapes == (((2, 3), 2), ((2, 1), 1))
        assert column.numbers is not None
        assert (column.numbers.count, column.nbytes.most) == (14, 24)

    def test_arrays_of_one_shape_and_of_no_elements(self) -> None:
        column = column_of(sp.ndarray("int32", (4,)), [np.arange(4, dtype=np.int32)] * 5)
        assert column.shapes == (((4,), 5),)
        assert column.numbers is not None
        assert column.numbers.mean == 1.5
        empty = column_of(sp.ndarray("int32", (0,)), [np.zeros(0, np.int32)] * 5)
        assert empty.numbers is not None
        assert (empty.values, empty.numbers.count, empty.nbytes.most) == (5, 0, 0)

    def test_times(self) -> None:
        times = [np.datetime64(n, "s") for n in (10, 20)] + [np.datetime64("NaT", "s"), None]
        column = column_of("datetime64[s]", times)
        assert column.unit == "s"
        assert column.numbers is not None
        assert (column.numbers.least, column.numbers.most) == (10, 20)
        assert (column.missing, column.numbers.not_finite) == (1, 1)

    def test_texts(self) -> None:
        column = column_of("str", ["é", "é", "x" * 500, None, ""])
        assert (column.nbytes.least, column.nbytes.most) == (0, 500)
        assert column.common[0] == ("é", 2)
        assert column_of("str", ["a", "b"]).common == ()
        assert column_of("str", [str(n) for n in range(10_001)] + ["1"]).common == ()

    def test_json(self) -> None:
        values = [{"a": 1, "b": 2}, {"a": [1]}, [1], "x", True, 1.5, {"é": "é"}]
        column = column_of("json", values)
        assert dict(column.common)["object"] == 3
        assert dict(column.members) == {"a": 2, "b": 1, "é": 1}
        assert column.nbytes.least == 3

    def test_members_that_are_data(self) -> None:
        values = [{"id": 0, str(n): n} for n in range(30_000)]
        assert column_of("json", values).members[0] == ("id", 30_000)

    def test_media(self) -> None:
        column = column_of(sp.image(), [b"\x89PNG....", b"\xff\xd8\xff\xe0", b"\x89PNG", b"?"])
        assert column.common == (("png", 2), ("jpeg", 1), ("other", 1))
        assert column.nbytes.most == 8
        assert column_of(sp.audio(), [b"RIFF....WAVE"]).common == (("wav", 1),)


class TestDatasets:
    def test_an_empty_one(self, tmp_path: Path) -> None:
        with sp.DatasetWriter(tmp_path, {"n": "int64", "text": "str"}):
            pass
        with sp.open_dataset(tmp_path) as dataset:
            found = sp.summarise(dataset)
        assert (found.records, found.looked_at) == (0, 0)
        assert [column.values for column in found.columns] == [0, 0]
        json.dumps(found.to_json(), allow_nan=False)

    def test_a_sample_is_fair_and_the_same_for_a_seed(self, tmp_path: Path) -> None:
        sp.write_split_data(tmp_path, [b"x" * n for n in range(1000)])
        with sp.open_dataset(tmp_path) as dataset:
            one, two, other = (sp.summarise(dataset, sample=100, seed=s) for s in (1, 1, 2))
            whole = sp.summarise(dataset, sample=None)
        assert one == two != other
        assert (one.records, one.looked_at) == (1000, 100)
        assert one.columns[0].nbytes.mean == pytest.approx(499.5, rel=0.3)
        assert whole.columns[0].nbytes.mean == 499.5

    def test_blocks_shrink_for_large_records(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitpipe.summary.scan._BLOCK_NBYTES", 1000)
        sizes = [1] * 300 + [400] * 1000
        sp.write_split_data(tmp_path, [b"x" * n for n in sizes], splits=1)
        told: list[int] = []
        with sp.open_dataset(tmp_path) as dataset:
            found = sp.summarise(
                dataset, sample=None, progress=lambda done, total: told.append(done)
            )
        steps = np.diff([0, *told])
        assert found.columns[0].nbytes.mean == np.mean(sizes)
        assert told[-1] == 1300
        assert steps.max() <= 1000
        assert set(steps[-5:]) <= {1, 2}
