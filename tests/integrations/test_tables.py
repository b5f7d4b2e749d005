"""Tables of Arrow, pandas and Polars: the same values there and back, or a refusal by name."""

from __future__ import annotations

import datetime
import pickle
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema, ndarray
from splitpipe.storage.base import MemoryRecords

pa = pytest.importorskip("pyarrow", reason="tables need the extra [table]")
pd = pytest.importorskip("pandas", reason="needs the extra [pandas]")
pl = pytest.importorskip("polars", reason="needs the extra [polars]")

from splitpipe.integrations.tables import from_arrow, from_pandas, from_polars  # noqa: E402

NAN = float("nan")
DAY = np.datetime64("1969-12-31", "D")
# What a column is, and values of it.
COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "int8": ("int8", [-128, 127, 0]),
    "uint64": ("uint64", [0, 2**64 - 1, 5]),
    "float16": ("float16", [0.5, NAN, -0.0]),
    "float64": ("float64", [NAN, -0.0, 1e300]),
    "float_missing": ("float32", [NAN, None, 1.5]),
    "int_missing": ("int64", [2**63 - 1, None, -(2**63)]),
    "bool_missing": ("bool", [True, None, False]),
    "bool": ("bool", [True, False, True]),
    "str": ("str", ["", None, "é\0"]),
    "bytes": ("bytes", [b"", None, b"\0\xff"]),
    "day": ("datetime64[D]", [DAY, None, np.datetime64("2024-02-29", "D")]),
    "second": ("datetime64[s]", [np.datetime64(5, "s"), None, np.datetime64(-5, "s")]),
    "nano": ("datetime64[ns]", [np.datetime64(2**62, "ns"), np.datetime64(1, "ns"), None]),
    "span": ("timedelta64[us]", [np.timedelta64(5, "us"), np.timedelta64(-5, "us"), None]),
    "vector": (ndarray("float32", (2,)), [np.float32([1, NAN]), None, np.float32([0, 1])]),
    "matrix": (ndarray("int16", (2, 2)), [np.int16([[1, 2], [3, 4]])] * 3),
    "ragged": (ndarray("uint8", (None,)), [np.uint8([]), None, np.uint8([1, 2])]),
    "frames": (ndarray("bool", (None, 2)), [np.ones((3, 2), bool), None, np.zeros((0, 2), bool)]),
    "any_shape": (ndarray("int32"), [np.zeros((0, 4), "i4"), None, np.ones((2, 1, 3), "i4")]),
    "json": ("json", [{"a": [1, None]}, None, 5]),
    "image": ("image", [b"\x89PNG", None, b""]),
}


def everything() -> Dataset:
    schema = Schema({name: field for name, (field, _) in COLUMNS.items()})
    return dataset_of(MemoryRecords(schema, {name: held for name, (_, held) in COLUMNS.items()}))


def column(name: str) -> Dataset:
    return everything().select([name])


def same(one: Dataset, other: Dataset) -> None:
    """Records are equal to the bit, with their types."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert repr(mine) == repr(theirs)
        assert list(map(bits, mine.values())) == list(map(bits, theirs.values()))


def bits(value: Any) -> Any:
    return (value.dtype.str, value.shape, value.tobytes()) if hasattr(value, "dtype") else None


class TestArrow:
    def test_every_column_comes_back_as_what_it_was(self) -> None:
        before = everything()
        after = from_arrow(before.to_arrow())
        assert after.schema == before.schema
        same(before, after)
        assert repr(after[[2, 0, 2]]) == repr(before[[2, 0, 2]])

    def test_chunks_slices_and_travelling(self) -> None:
        table = everything().to_arrow()
        joined = pa.concat_tables([table.slice(0, 2), table.slice(2), table]).slice(1, 4)
        ds = from_arrow(joined)
        expected = everything()
        assert repr(list(ds)) == repr([expected[i] for i in (1, 2, 0, 1)])
        assert repr(list(pickle.loads(pickle.dumps(ds)))) == repr(list(ds))

    def test_numbers_are_read_where_they_lie(self) -> None:
        numbers = np.arange(1000.0)
        ds = from_arrow(pa.table({"x": numbers}))
        view = ds.records.read(np.arange(1000), ["x"])["x"]
        assert isinstance(view, np.ndarray)
        numbers[7] = -1
        assert ds.get_batch([7])["x"][0] == -1  # the table's memory is the array's

    def test_bare_records_and_readers(self) -> None:
        ds = dataset_of(MemoryRecords(Schema("json"), {"data": [[1], None]}))
        assert list(from_arrow(ds.to_arrow())) == [[1], None]
        table = pa.table({"n": [1, 2]})
        assert len(from_arrow(table.to_reader())) == len(from_arrow(table.to_batches()[0])) == 2

    def test_a_table_that_was_changed_is_read_by_its_types(self) -> None:
        table = column("json").to_arrow()
        changed = table.set_column(0, "json", pa.array([1, 2, 3]))
        assert from_arrow(changed.replace_schema_metadata(table.schema.metadata))[0] == {"json": 1}
        for note in (b"", b"[]", b'{"columns": 3}', b"{" * 5000):
            broken = table.replace_schema_metadata({b"splitpipe": note})
            assert from_arrow(broken).schema["json"] == Field("str")

    def test_dictionaries_give_their_values(self) -> None:
        words = pa.array(["b", None, "a"]).dictionary_encode()
        assert [r["w"] for r in from_arrow(pa.table({"w": words}))] == ["b", None, "a"]

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([0], pa.timestamp("s", "Europe/Berlin")),
            pa.array([Decimal("1.5")]),
            pa.array([datetime.time(1)]),
            pa.array([{"raw": b"1"}]),
            pa.array([[datetime.date(2020, 1, 1)]]),
            pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64())),
        ],
        ids=lambda values: str(values.type).replace(" ", ""),
    )
    def test_what_would_become_something_else_is_refused(self, values: Any) -> None:
        with pytest.raises(FormatError, match="column 'when' is of Arrow's type"):
            from_arrow(pa.table({"when": values}))

    def test_a_missing_number_in_a_list_is_refused(self) -> None:
        ds = from_arrow(pa.table({"x": [[1, None]]}))
        with pytest.raises(FormatError, match="number that is missing"):
            ds[0]

    def test_other_things_are_refused(self) -> None:
        for wrong in ([1], pa.table({}), pa.Table.from_arrays([[1], [2]], ["a", "a"])):
            with pytest.raises(FormatError):
                from_arrow(wrong)

    def test_written_into_bins(self, tmp_path: Path) -> None:
        sp.convert(from_arrow(everything().to_arrow()), tmp_path / "bins", workers=0)
        with sp.open_dataset(tmp_path / "bins") as ds:
            same(everything(), ds)


PANDAS_LACKS = {"float16": None, "image": "bytes"}


class TestPandas:
    @pytest.mark.parametrize("name", [n for n in COLUMNS if n not in ("image", "any_shape")])
    def test_there_and_back(self, name: str) -> None:
        before = column(name)
        after = from_pandas(before.to_pandas())
        if name == "day":  # pandas has no days: the same moments in seconds
            assert after.schema["day"] == Field.parse("datetime64[s]")
            assert [r["day"] for r in after] == [r["day"] for r in before]
            return
        assert repr(list(after)) == repr(list(before))
        if name != "frames":  # of which the second axis is seen, too
            assert after.schema == before.schema
        same(before, after)

    def test_numbers_are_not_copied(self) -> None:
        numbers = np.arange(1000.0)
        batch = {"x": numbers}
        ds = from_pandas(pd.DataFrame(batch, copy=False))
        numbers[3] = 7
        assert ds[3]["x"] == 7

    def test_what_pandas_has_of_its_own(self) -> None:
        frame = pd.DataFrame(
            {
                "c": pd.Categorical(["b", None, "a"], categories=["a", "b"], ordered=True),
                "masked": pd.arrays.FloatingArray(np.array([NAN, 1, 2]), np.array([0, 1, 0], bool)),
                "arrow": pd.array([1, None, 3], dtype=pd.ArrowDtype(pa.int8())),
                "strings": pd.array(["a", pd.NA, "c"], dtype="string"),
                "nan_is_missing": np.array(["a", NAN, None], dtype=object),
            }
        )
        assert repr(list(from_pandas(frame))[:2]) == repr(
            [
                {"c": "b", "masked": NAN, "arrow": 1, "strings": "a", "nan_is_missing": "a"},
                {"c": None, "masked": None, "arrow": None, "strings": None, "nan_is_missing": None},
            ]
        )

    @pytest.mark.parametrize(
        ("frame", "words"),
        [
            (pd.DataFrame({"a": [1]}, index=[5]), "reset_index"),
            (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}), "tz=UTC"),
            (pd.DataFrame({"a": pd.period_range("2020", periods=1)}), "period"),
            (pd.DataFrame({"a": pd.interval_range(0, 1)}), "interval"),
            (pd.DataFrame({"a": [1j]}), "complex"),
            (pd.DataFrame({"a": [1, "x"]}, dtype=object), "int, str"),
            (pd.DataFrame({"a": [{1: 2}]}), "something else of {1: 2}"),
            (pd.DataFrame({"a": [2**70]}, dtype=object), "column 'a'"),
            (pd.DataFrame({"a": [object()]}), "column 'a'"),
            (pd.DataFrame([[1, 2]], columns=["a", "a"]), "each its own"),
            (pd.DataFrame([[1, 2]]), "need names"),
        ],
        ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
    )
    def test_what_would_be_lost_is_refused(self, frame: Any, words: str) -> None:
        with pytest.raises(FormatError, match=words):
            from_pandas(frame)

    def test_arrays_that_make_no_column(self) -> None:
        for arrays in ([np.zeros(2), np.zeros(2, "i4")], [np.zeros(2), np.zeros((2, 2))]):
            with pytest.raises(FormatError, match="it holds arrays of several"):
                from_pandas(pd.DataFrame({"a": pd.Series(arrays)}))

    def test_what_pandas_has_no_type_for(self) -> None:
        half = dataset_of(MemoryRecords(Schema({"x": "float16"}), {"x": [0.5, None]}))
        old = np.datetime64(-(2**62), "D")
        days = dataset_of(MemoryRecords(Schema({"x": "datetime64[D]"}), {"x": [old]}))
        pico = dataset_of(MemoryRecords(Schema({"x": "datetime64[ps]"}), {"x": [None]}))
        for ds in (half, days, pico):
            with pytest.raises(FormatError, match="column 'x'"):
                ds.to_pandas()


class TestPolars:
    # JSON and media are text and bytes there, days and shapes have types of their own.
    @pytest.mark.parametrize("name", [n for n in COLUMNS if n not in ("json", "image")])
    def test_there_and_back(self, name: str) -> None:
        before = column(name)
        frame = before.to_polars()
        after = from_polars(frame)
        if name == "second":  # Polars' coarsest unit is the millisecond
            assert [r[name] for r in after] == [r[name] for r in before]
        elif name in ("frames", "any_shape"):  # ragged nested lists, as JSON can say them
            assert len(after) == 3
        else:
            same(before, after)

    def test_categories_and_refusals(self) -> None:
        frame = pl.DataFrame(
            {
                "c": pl.Series(["b", None], dtype=pl.Categorical),
                "e": pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"])),
            }
        )
        assert list(from_polars(frame)) == [{"c": "b", "e": "x"}, {"c": None, "e": "y"}]
        for wrong in (
            pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}),
            pl.DataFrame({"t": [datetime.time(1)]}),
            pl.DataFrame({"d": [Decimal("1.5")]}),
            frame.lazy(),
            {"a": [1]},
        ):
            with pytest.raises(FormatError):
                from_polars(wrong)


def test_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = column("int8")
    for package, ask in (("pandas", ds.to_pandas), ("polars", ds.to_polars)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"splitpipe\[{package}\]"):
            ask()
