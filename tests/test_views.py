"""Views: every one of them is what the same choice makes of a list."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.dataset import Dataset, concat, dataset_of
from splitpipe.errors import FormatError
from splitpipe.order import binwise_order, global_order, sequential_order
from splitpipe.schema import Schema, ndarray
from splitpipe.storage.base import MemoryRecords, records_of
from splitpipe.storage.catalog import SqliteCatalog
from splitpipe.storage.catalog_writer import CatalogWriter
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.views.selection import Selection, cut_layout, drawn
from splitpipe.views.split import sizes_of
from tests.storage.making import numbered, write

ROWS = 60
USERS = ["ann", "bob", None, "cleo", "dan"]


def table() -> list[dict[str, Any]]:
    """Records with everything in them: scalars, arrays, text, what is missing."""
    return [
        {
            "id": n,
            "user": USERS[n * 3 % 5],
            "score": None if n % 7 == 0 else n / 3,
            "ids": [n, n + 1],
        }
        for n in range(ROWS)
    ]


SCHEMA = Schema({"id": "int64", "user": "str", "score": "float64", "ids": ndarray("int16", (2,))})
LIST = table()


def in_memory(path: Path | None = None) -> Dataset:
    """The table in memory, with a catalog if there is a folder for it."""
    columns = {name: [record[name] for record in LIST] for name in SCHEMA}
    catalog = None
    if path is not None:
        with CatalogWriter(
            str(path), 1, None, metadata={"length": "int64"}, columns=list(SCHEMA)
        ) as writer:
            writer.add(
                0,
                [f"k{n}" for n in range(ROWS)],
                [{"length": n % 10, "group": n // 20} for n in range(ROWS)],
                {name: [v is not None for v in columns[name]] for name in SCHEMA},
            )
            catalog = SqliteCatalog(str(path), 1, writer.finish(1), rows=ROWS)
    columns["ids"] = [np.array(ids, dtype=np.int16) for ids in columns["ids"]]
    return dataset_of(MemoryRecords(SCHEMA, columns, catalog))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    ds = in_memory(tmp_path_factory.mktemp("views"))
    assert len(ds.where("0")) == 0  # opens the catalog, for all tests
    yield ds
    catalog = ds._records.catalog
    assert catalog is not None
    catalog.close()


def plain(record: Any) -> Any:
    """A record as it can be compared."""
    if not isinstance(record, dict):
        return record
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in record.items()}


def assert_is(ds: Dataset, expected: list[Any]) -> None:
    """The dataset is this list, by every way of reading."""
    count = len(expected)
    assert len(ds) == count
    assert [plain(r) for r in ds] == expected
    assert [plain(ds[n]) for n in range(count)] == expected
    assert [plain(r) for r in ds[::-1]] == expected[::-1]
    assert [plain(r) for r in ds[1:]] == expected[1:]
    with pytest.raises(IndexError):
        ds[count]
    rows = [n * 7 % count for n in range(count)] if count else []
    batch = ds.get_batch(rows)
    records = records_of(ds.schema, batch if not ds.schema.bare else {"data": batch})
    assert [plain(r) for r in records] == [expected[row] for row in rows]
    orders = [sequential_order(count), global_order(count, 3, 1)]
    orders += [binwise_order(ds.bin_layout(), seed, 0, 2) for seed in (None, 5)]
    for order in orders:
        wanted = [expected[row] for row in order]
        assert [plain(r) for r in ds.iterate(order)] == wanted
        assert [plain(r) for r in ds.iterate(order, count // 3)] == wanted[count // 3 :]
        assert len(wanted) == count
    assert sorted(orders[-1]) == list(range(count))


# -- any views of views --------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("rows"), st.lists(st.integers(0, 10**6), max_size=40)),
    st.tuples(
        st.just("slice"),
        st.slices(ROWS).map(lambda s: (s.start, s.stop, s.step)),
    ),
    st.tuples(st.just("sample"), st.integers(0, 100)),
    st.tuples(st.just("split"), st.integers(0, 2)),
    st.tuples(st.just("columns"), st.permutations(list(SCHEMA)).map(lambda p: p[:2])),
    st.tuples(st.just("double"), st.none()),
    st.tuples(st.just("where"), st.integers(0, 10)),
)


def step(ds: Dataset, model: list[Any], kind: str, value: Any) -> tuple[Dataset, list[Any]]:
    """One more view of a dataset, and the same of a list of (row of the table, record)."""
    count = len(model)
    if kind == "rows":
        rows = [row % count for row in value] if count else []
        return ds.subset(rows), [model[row] for row in rows]
    if kind == "slice":
        return ds.subset(slice(*value)), model[slice(*value)]
    if kind == "sample":
        amount = min(value, count)
        # Which rows are drawn follows from how many there are, and from nothing else.
        rows = list(numbers(count).sample(amount, seed=value))
        return ds.sample(amount, seed=value), [model[row] for row in rows]
    if kind == "split":
        fractions = {"a": 0.5, "b": 0.3, "c": 0.2}
        rows = list(numbers(count).split(fractions, seed=9)["abc"[value]])
        return ds.split(fractions, seed=9)["abc"[value]], [model[row] for row in rows]
    if kind == "columns":
        names = [name for name in value if name in ds.schema] or list(ds.schema)[:1]
        return ds.select(names), [(n, {k: r[k] for k in names}) for n, r in model]
    if kind == "double":
        return ds.concat(ds), model + model
    return ds.where("length < ?", [value]), [(n, r) for n, r in model if n % 10 < value]


def numbers(count: int) -> Dataset:
    return dataset_of(MemoryRecords(Schema("int64"), {"data": range(count)}))


@given(steps=st.lists(STEPS, max_size=5))
def test_views_of_views_are_what_they_are_of_lists(
    shared: Dataset, steps: list[tuple[str, Any]]
) -> None:
    ds, model = shared, list(enumerate(LIST))
    for kind, value in steps:
        ds, model = step(ds, model, kind, value)
        if len(model) > 500:
            break
    assert_is(ds, [record for _, record in model])
    rows = [row for row, _ in model]
    assert ds.keys() == [f"k{row}" for row in rows]
    assert [ds.meta(n)["length"] for n in range(len(rows))] == [row % 10 for row in rows]
    found = ds.where("length = 3", limit=2)
    assert found.keys() == [f"k{row}" for row in rows if row % 10 == 3][:2]
    with pytest.raises(KeyError):
        ds["k1000"]


@given(steps=st.lists(STEPS.filter(lambda s: s[0] != "double"), max_size=4))
def test_a_key_leads_to_the_first_position_that_has_it(
    shared: Dataset, steps: list[tuple[str, Any]]
) -> None:
    ds, model = shared, list(enumerate(LIST))
    for kind, value in steps:
        ds, model = step(ds, model, kind, value)
    rows = [row for row, _ in model]
    for row in range(0, ROWS, 7):
        assert (f"k{row}" in ds) == (row in rows)
        if row in rows:
            assert plain(ds[f"k{row}"]) == model[rows.index(row)][1]
            assert ds.meta(f"k{row}") == {"length": row % 10, "group": row // 20}


def test_views_do_not_pile_up(shared: Dataset) -> None:
    ds = shared
    for _ in range(50):
        ds = ds.subset(slice(0, -1)).select(["id", "user"])
    assert len(ds) == 10
    assert len(pickle.dumps(ds.subset([1]))) < len(pickle.dumps(shared)) + 800
    assert ds.select(["id"])._records.parent is not ds._records  # type: ignore[attr-defined]
    twice = shared.subset([5, 6, 9]).subset([2, 0])
    assert twice._records.parent is shared._records  # type: ignore[attr-defined]
    assert len(concat([shared, concat([shared, shared])])._records.parts) == 3  # type: ignore[attr-defined]


def test_a_pickled_view_is_the_same(tmp_path: Path) -> None:
    with open_bytes(tmp_path) as ds:
        views = {
            "range": ds.subset(range(10, 90, 3)),
            "rows": ds.subset([5, 3, 3]),
            "sample": ds.sample(50, seed=3),
            "part": ds.split({"a": 0.5, "b": 0.5})["b"],
            "end to end": ds.concat(ds.subset([1])),
            "columns": ds.select("data"),
            "beside": ds.select("data").join(ds.subset(slice(0, 40)).select("data"), on="data"),
        }
        sizes = {name: len(pickle.dumps(view)) for name, view in views.items()}
        for view in views.values():
            again = pickle.loads(pickle.dumps(view))
            assert list(again) == list(view)
            assert again.schema == view.schema
        # A draw of a million rows travels as what it was drawn with.
        assert max(sizes["range"], sizes["sample"], sizes["part"]) < 1500


def open_bytes(tmp_path: Path, records: int = 100) -> Dataset:
    if not (tmp_path / "bytes").exists():
        unique = [b"%d:" % n + r for n, r in enumerate(numbered(records))]
        write(tmp_path / "bytes", unique, bins=7)
    return sp.open_dataset(tmp_path / "bytes")


def test_views_of_bins_read_as_lists(tmp_path: Path) -> None:
    with open_bytes(tmp_path) as ds:
        records = list(ds)
        assert_is(ds.subset(slice(13, 77)), records[13:77])
        assert_is(ds.subset(range(90, 10, -3)), records[90:10:-3])
        assert_is(ds.concat(ds.subset(slice(50, 60)), ds), records + records[50:60] + records)
        assert_is(ds.select("data"), [{"data": record} for record in records])
        assert_is(ds.subset([]), [])
        assert_is(ds.subset([7]), [records[7]])
        view = ds.subset(slice(10, 20))
        view.close()
        assert view[0] == records[10]  # the dataset is not the view's to close
    with pytest.raises(sp.StorageError, match="closed"):
        view[0]


def test_what_is_given_is_not_kept(shared: Dataset) -> None:
    rows = np.array([5, 9, 2])
    view = shared.subset(rows)
    rows[:] = 0
    assert [record["id"] for record in view] == [5, 9, 2]
    for wrong in ([ROWS], [-ROWS - 1], [True], ["a"], range(ROWS - 1, ROWS + 1)):
        with pytest.raises(IndexError):
            shared.subset(wrong)


class TestBins:
    def test_consecutive_rows_keep_their_bins(self, tmp_path: Path) -> None:
        with open_bytes(tmp_path) as ds:
            bin_of = {row: n for n, rows in enumerate(ds.bin_layout().bins()) for row in rows}
            for start, stop in ((0, 100), (3, 50), (99, 100), (40, 41)):
                layout = ds.subset(slice(start, stop)).bin_layout()
                assert layout.rows == stop - start
                for rows in layout.bins():
                    assert len({bin_of[row + start] for row in rows}) == 1
            many = ds.concat(ds).bin_layout()
            assert len(many.bins()) == 14
            assert sorted(row for rows in many.bins() for row in rows) == list(range(200))
            scattered = ds.subset(range(0, 100, 2)).bin_layout()
            assert len(scattered.bins()) == 7

    @given(
        sessions=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=4),
        data=st.data(),
    )
    def test_a_cut_layout_is_a_piece_of_the_whole(
        self, sessions: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        segments: list[Segment] = []
        rows = bins = 0
        for count, size in sessions:
            dealing = data.draw(st.none() | st.permutations(range(count)).map(tuple))
            segments.append(Segment(rows, size, bins, count, dealing))
            rows, bins = rows + size, bins + count
        layout = BinLayout(segments)
        start, stop = sorted((data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))))
        cut = cut_layout(layout, start, stop)
        assert cut.rows == stop - start
        expected = [[r - start for r in bin if start <= r < stop] for bin in layout.bins()]
        assert [list(bin) for bin in cut.bins()] == [bin for bin in expected if bin]
        again = cut_layout(cut, 0, cut.rows)
        assert again.bins() == cut.bins()


class TestSelection:
    @given(
        rows=st.lists(st.integers(0, 50), max_size=60) | st.slices(50).map(lambda s: range(50)[s]),
        wanted=st.sets(st.integers(0, 50)),
        inner=st.data(),
    )
    def test_it_is_a_list(self, rows: Any, wanted: set[int], inner: st.DataObject) -> None:
        listed = list(rows)
        selection = Selection(rows if isinstance(rows, range) else np.array(rows, dtype=np.int64))
        assert selection.indices(0, len(listed)).tolist() == listed
        asked = np.array(sorted(wanted), dtype=np.int64)
        expected = [place for place, row in enumerate(listed) if row in wanted]
        assert selection.positions_of(asked).tolist() == expected
        again = pickle.loads(pickle.dumps(selection))
        assert again.rows is not None
        assert again.indices(0, len(listed)).tolist() == listed
        if listed:
            places = inner.draw(
                st.lists(st.integers(0, len(listed) - 1))
                | st.slices(len(listed)).map(lambda s: range(len(listed))[s])
            )
            second = Selection(
                places if isinstance(places, range) else np.array(places, dtype=np.int64)
            )
            both = selection.then(second)
            assert both.indices(0, len(both)).tolist() == [listed[place] for place in places]

    def test_large_ones_are_small_when_they_travel(self) -> None:
        selection = drawn(1_000_000, 7, 1000, 900_000)
        assert len(pickle.dumps(selection)) < 200
        again = pickle.loads(pickle.dumps(selection))
        assert (again.rows == selection.rows).all()
        assert len(pickle.dumps(Selection(np.sort(selection.rows)))) < 4 * 899_000 + 500


class TestSample:
    @given(count=st.integers(0, 3000), seed=st.integers(), data=st.data())
    def test_exactly_so_many_different_ones(
        self, count: int, seed: int, data: st.DataObject
    ) -> None:
        amount = data.draw(st.integers(0, count))
        rows = list(numbers(count).sample(amount, seed=seed))
        assert len(rows) == len(set(rows)) == amount
        assert rows == sorted(rows)
        assert rows == list(numbers(count).sample(amount, seed=seed))

    def test_fractions_and_seeds(self) -> None:
        ds = numbers(1000)
        assert len(ds.sample(0.1, seed=0)) == 100
        assert len(ds.sample(np.float32(0.5), seed=0)) == 500
        assert list(ds.sample(1.0, seed=0)) == list(ds)
        assert list(ds.sample(50, seed=0)) != list(ds.sample(50, seed=1))

    @pytest.mark.parametrize("wrong", [-1, 1001, 1.5, -0.1, float("nan"), "10", None, True])
    def test_what_cannot_be_drawn(self, wrong: Any) -> None:
        with pytest.raises(FormatError, match="sample"):
            numbers(1000).sample(wrong, seed=0)


FRACTIONS = st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any)


class TestSplit:
    @given(count=st.integers(0, 2000), weights=FRACTIONS, seed=st.integers())
    def test_parts_are_exact_disjoint_and_everything(
        self, count: int, weights: list[int], seed: int
    ) -> None:
        fractions = {f"part{n}": weight / sum(weights) for n, weight in enumerate(weights)}
        parts = numbers(count).split(fractions, seed=seed)
        assert list(parts) == list(fractions)
        for name, part in parts.items():
            assert abs(len(part) - count * fractions[name]) < 1
            rows = list(part)
            assert rows == sorted(rows)
        assert sorted(row for part in parts.values() for row in part) == list(range(count))
        again = numbers(count).split(fractions, seed=seed)
        assert {name: list(part) for name, part in again.items()} == {
            name: list(part) for name, part in parts.items()
        }

    @given(
        groups=st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=200),
        weights=FRACTIONS,
        seed=st.integers(0, 50),
    )
    def test_no_group_is_in_two_parts(
        self, groups: list[str | None], weights: list[int], seed: int
    ) -> None:
        fractions = {f"part{n}": weight / sum(weights) for n, weight in enumerate(weights)}
        schema = Schema({"n": "int64", "group": "str"})
        columns = {"n": list(range(len(groups))), "group": groups}
        parts = dataset_of(MemoryRecords(schema, columns)).split(fractions, by="group", seed=seed)
        owner: dict[str | None, str] = {}
        seen: list[int] = []
        largest = max(Counter(groups).values(), default=0)
        for name, part in parts.items():
            for record in part:
                assert owner.setdefault(record["group"], name) == name
                seen.append(record["n"])
            assert len(part) <= len(groups) * fractions[name] + 1 + largest
        assert sorted(seen) == list(range(len(groups)))

    def test_groups_by_numbers_metadata_and_keys(self, shared: Dataset) -> None:
        halves = {"a": 0.5, "b": 0.5}
        by_meta = shared.split(halves, by="group", seed=2)
        groups = [{part.meta(n)["group"] for n in range(len(part))} for part in by_meta.values()]
        assert groups[0] | groups[1] == {0, 1, 2}
        assert not groups[0] & groups[1]
        by_id = shared.split(halves, by="id")
        assert [len(part) for part in by_id.values()] == [30, 30]
        assert [len(part) for part in shared.split(halves, by="key").values()] == [30, 30]
        values = np.array([1.0, np.nan, 2.0, np.nan, 1.0, 2.0])
        floats = dataset_of(MemoryRecords(Schema({"x": "float64"}), {"x": values.tolist()}))
        parts = floats.split({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, by="x")
        assert sorted(len(part) for part in parts.values()) == [2, 2, 2]

    @given(
        times=st.lists(st.integers(0, 30), max_size=100),
        weights=FRACTIONS,
        as_dates=st.booleans(),
    )
    def test_time_is_cut_and_never_shuffled(
        self, times: list[int], weights: list[int], as_dates: bool
    ) -> None:
        fractions = {f"part{n}": weight / sum(weights) for n, weight in enumerate(weights)}
        values: list[Any] = [np.datetime64(t, "s") for t in times] if as_dates else list(times)
        schema = Schema({"t": "datetime64[s]" if as_dates else "int64"})
        ds = dataset_of(MemoryRecords(schema, {"t": values}))
        parts = ds.split(fractions, by="t") if as_dates else ds.split(fractions, by="t", how="time")
        before = None
        total = 0
        for name, part in parts.items():
            assert len(part) == sizes_of(len(times), fractions)[name]
            total += len(part)
            found = [record["t"] for record in part]
            if found and before is not None:
                assert min(found) >= before
            before = max(found) if found else before
        assert total == len(times)

    @pytest.mark.parametrize(
        ("fractions", "options", "message"),
        [
            ({"a": 0.5, "b": 0.4}, {}, r"add up to 0\.9"),
            ({"a": 0.5, "b": 0.6}, {}, r"add up to 1\.1"),
            ({"a": 1.5, "b": -0.5}, {}, "from 0 to 1"),
            ({"a": "x"}, {}, "part 'a' must be a number"),
            ({"a": True}, {}, "must be a number"),
            ({"a": float("nan")}, {}, "must be a number"),
            ({}, {}, "takes parts"),
            ([0.5, 0.5], {}, "takes parts"),
            ({"a": 1}, {"by": "nothing"}, "'nothing'.*no column"),
            ({"a": 1}, {"by": "ids"}, "column 'ids'"),
            ({"a": 1}, {"by": "user", "how": "time"}, "'user' of record 4 is missing"),
            ({"a": 1}, {"by": "id", "how": "stratified"}, "how must be"),
            ({"a": 1}, {"how": "time"}, "needs by="),
        ],
    )
    def test_what_cannot_be_split(
        self, shared: Dataset, fractions: Any, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(FormatError, match=message):
            shared.split(fractions, **options)


class TestConcat:
    def test_columns_have_to_fit(self, shared: Dataset, tmp_path: Path) -> None:
        def of(schema: dict[str, Any] | str) -> Dataset:
            made = Schema(schema)
            return dataset_of(MemoryRecords(made, {name: [] for name in made}))

        for first, second, message in (
            ({"a": "str"}, {"a": "str", "b": "str"}, "part 1 has a column 'b', part 0 has none"),
            ({"a": "str", "b": "str"}, {"a": "str"}, "part 0 has a column 'b', part 1 has none"),
            ({"a": "str"}, {"a": "bytes"}, "column 'a' is .* in part 0 and .* in part 1"),
            ({"a": "str"}, "str", "dicts of a, those of part 1 plain"),
        ):
            with pytest.raises(FormatError, match=message):
                of(first).concat(of(second))
        packed = Schema({"a": Schema({"a": "str"})["a"].compressed()})
        both = of({"a": "str"}).concat(dataset_of(MemoryRecords(packed, {"a": ["x"]})))
        assert list(both) == [{"a": "x"}]
        with pytest.raises(FormatError, match="at least one"):
            concat([])
        with pytest.raises(FormatError, match="made of datasets"):
            shared.concat([1, 2])  # type: ignore[arg-type]

    def test_arrays_are_filled_from_all_parts(self, shared: Dataset) -> None:
        both = shared.concat(shared.subset(slice(0, 10)))
        out = {"id": np.zeros(4, dtype=np.int64), "ids": np.zeros((4, 2), dtype=np.int16)}
        batch = both.get_batch([65, 3, 64, 59], columns=["ids", "user", "id"], out=out)
        assert batch["id"] is out["id"]
        assert out["id"].tolist() == [5, 3, 4, 59]
        assert out["ids"][0].tolist() == [5, 6]
        assert batch["user"] == [LIST[n]["user"] for n in (5, 3, 4, 59)]
        assert both.get_batch([1, 61], ["score"])["score"].tolist() == [1 / 3, 1 / 3]
        with pytest.raises(FormatError, match="record 60 is missing"):
            both.get_batch([1, 60], ["score"], {"score": np.zeros(2)})
        assert both.get_batch([1, 60], ["score"])["score"] == [1 / 3, None]
        empty = both.get_batch([])
        assert empty["ids"].shape == (0, 2)
        assert empty["user"] == []

    def test_a_key_of_two_parts_is_ambiguous(self, shared: Dataset) -> None:
        both = shared.subset(slice(0, 10)).concat(shared.subset(slice(5, 20)))
        assert plain(both["k3"]) == LIST[3]
        assert plain(both["k15"]) == LIST[15]
        with pytest.raises(FormatError, match="in part 0 and in part 1"):
            both["k7"]
        found = both.where("length = 7")
        assert found.keys() == ["k7", "k7", "k17"]
        assert both.where("length = 7", limit=2).keys() == ["k7", "k7"]
        assert in_memory().concat(shared)._records.catalog is None


class TestJoin:
    @given(
        left=st.lists(st.none() | st.integers(0, 12), max_size=20),
        right=st.lists(st.none() | st.integers(0, 12), max_size=20),
        how=st.sampled_from(["inner", "left"]),
        as_text=st.booleans(),
    )
    def test_it_is_a_lookup(
        self, left: list[Any], right: list[Any], how: str, as_text: bool
    ) -> None:
        if as_text:
            left = [None if value is None else str(value) for value in left]
            right = [None if value is None else str(value) for value in right]
        kind = "str" if as_text else "int64"
        schemas = [Schema({"id": kind, "n": "int64"}), Schema({"id": kind, "n": "int64"})]
        sides = [
            dataset_of(MemoryRecords(schema, {"id": ids, "n": range(start, start + len(ids))}))
            for schema, ids, start in zip(schemas, (left, right), (0, 100), strict=True)
        ]
        there = [value for value in right if value is not None]
        if len(set(there)) < len(there):
            with pytest.raises(FormatError, match="is there twice in the right dataset"):
                sides[0].join(sides[1], on="id", how=how)
            return
        partner = {value: 100 + n for n, value in enumerate(right) if value is not None}
        expected = [
            {"id": value, "n": n, "n_right": partner.get(value)}
            for n, value in enumerate(left)
            if how == "left" or value in partner
        ]
        assert_is(sides[0].join(sides[1], on="id", how=how), expected)

    def test_on_keys_that_a_catalog_has(self, shared: Dataset) -> None:
        scores = shared.select(["score"]).subset(range(ROWS - 1, -1, -2))
        joined = shared.select(["id", "user"]).join(scores)
        assert [plain(r) for r in joined] == [
            {"id": n, "user": LIST[n]["user"], "score": LIST[n]["score"]} for n in range(1, ROWS, 2)
        ]
        assert plain(joined["k7"]) == plain(joined[3])
        assert joined.where("length = 3").keys() == [f"k{n}" for n in range(3, ROWS, 10)]
        assert joined.bin_layout().rows == len(joined) == 30
        again = pickle.loads(pickle.dumps(joined.select(["score", "id"])))
        assert again[3] == {"score": 7 / 3 if 7 % 7 else None, "id": 7}
        again._records.parent._left.parent.catalog.close()
        again._records.parent._right.parent.parent.catalog.close()

    def test_who_has_no_partner_has_none_elsewhere(self) -> None:
        left = MemoryRecords(Schema({"id": "int64"}), {"id": [1, 2, 3]})
        right = MemoryRecords(Schema({"id": "int64", "x": "str"}), {"id": [3, 1], "x": ["c", "a"]})
        joined = dataset_of(left).join(dataset_of(right), on="id", how="left")
        again = pickle.loads(pickle.dumps(joined))
        assert list(again) == list(joined)
        assert [record["x"] for record in again] == ["a", None, "c"]

    def test_arrays_of_both_sides(self, shared: Dataset) -> None:
        joined = shared.select(["id", "user"]).join(
            shared.select(["id", "ids"]).subset(slice(0, 30)), on="id", how="left"
        )
        out = {"id": np.zeros(2, dtype=np.int64), "ids": np.zeros((2, 2), dtype=np.int16)}
        batch = joined.get_batch([29, 4], out=out)
        assert batch["ids"] is out["ids"]
        assert out["ids"].tolist() == [[29, 30], [4, 5]]
        batch = joined.get_batch([4, 30], ["ids", "id"])
        assert [plain({"x": value})["x"] for value in batch["ids"]] == [[4, 5], None]
        assert list(batch) == ["ids", "id"]
        with pytest.raises(FormatError, match="record 30 is missing"):
            joined.get_batch([4, 30], out=out)

    def test_what_cannot_be_joined(self, shared: Dataset) -> None:
        for arguments, message in (
            ({"on": "nothing"}, "'nothing'"),
            ({"on": "id", "how": "outer"}, "how must be"),
            ({"on": "id", "suffix": ""}, "say another suffix"),
            ({"on": "ids"}, "column 'ids'"),
            ({"on": "user"}, "is there twice in the right dataset"),
        ):
            with pytest.raises(FormatError, match=message):
                shared.join(shared, **arguments)
        with pytest.raises(FormatError, match="no catalog"):
            in_memory().join(in_memory())


def test_datasets_without_a_catalog_say_how_to_get_one() -> None:
    ds = in_memory()
    for ask in (lambda: ds.where("1"), lambda: ds.keys(), lambda: ds.meta(0)):
        with pytest.raises(FormatError, match=r"no catalog of keys and metadata.*DatasetWriter"):
            ask()
    with pytest.raises(IndexError, match="no keys"):
        ds["k1"]


def test_a_pipeline_reads_a_view(tmp_path: Path) -> None:
    with open_bytes(tmp_path) as ds:
        records = list(ds)
        train = ds.subset(slice(20, 80)).concat(ds.sample(10, seed=1))
        expected = records[20:80] + list(ds.sample(10, seed=1))
        for shuffle in (None, "global", "binwise"):
            pipe = sp.Pipeline(train, shuffle=shuffle, seed=4).map(len, workers=2)
            with pipe.loader() as loader:
                found = list(loader)
            assert sorted(found) == sorted(map(len, expected))
            if shuffle is None:
                assert found == list(map(len, expected))
