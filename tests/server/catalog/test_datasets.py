"""Datasets and column sets: made, joined, pinned, opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import splitpipe as sp
from splitpipe.errors import Conflict, DatasetChanged, FormatError, InvalidRequest, NotFound
from splitpipe.server.catalog import Datasets, blamed, open_snapshot


def bins(path: Path, rows: list[dict[str, Any]]) -> None:
    with sp.DatasetWriter(path) as writer:
        writer.write_many(rows)


def csv(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows_of(catalog: Datasets, dataset: str, columns: list[str] | None = None) -> list[Any]:
    # By way of JSON, as an iteration has it.
    with open_snapshot(json.loads(json.dumps(catalog.pin(dataset))), columns) as opened:
        return list(opened)


class TestDatasets:
    def test_made_listed_found_and_forgotten(self, catalog: Datasets) -> None:
        made = catalog.create("news", uid_column="id", join="inner")
        catalog.create("art")
        assert [one["name"] for one in catalog.list()] == ["art", "news"]
        assert catalog.get(made["id"]) == catalog.get("news") == made
        assert (made["uid_column"], made["join"], made["column_sets"]) == ("id", "inner", [])
        catalog.delete("news")
        with pytest.raises(NotFound, match="'news'"):
            catalog.get("news")

    def test_a_name_comes_once(self, catalog: Datasets) -> None:
        catalog.create("news")
        assert catalog.create("news") == catalog.get("news")
        with pytest.raises(Conflict, match="already"):
            catalog.create("news", uid_column="id")

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 101, "x\0y", "é", "-o"])
    def test_names_that_cannot_be(self, catalog: Datasets, name: str) -> None:
        with pytest.raises(InvalidRequest):
            catalog.create(name)

    def test_what_else_cannot_be(self, catalog: Datasets) -> None:
        with pytest.raises(InvalidRequest, match="join"):
            catalog.create("news", join="outer")
        with pytest.raises(InvalidRequest, match="name"):
            catalog.create("news", uid_column="a b")
        with pytest.raises(InvalidRequest, match="id"):
            catalog.create("0123456789abcdef")

    def test_without_column_sets_there_is_nothing_to_pin(self, catalog: Datasets) -> None:
        catalog.create("news")
        with pytest.raises(FormatError, match="no column set"):
            catalog.pin("news")
        assert catalog.describe("news")["records"] is None


class TestColumnSets:
    def test_types_of_csv_are_those_of_the_first_file(self, catalog: Datasets, data: Path) -> None:
        csv(data / "c" / "1.csv", "id,x,ok,text,code\n1,0.5,true,a,007\n2,,false,,1\n")
        csv(data / "c" / "2.csv", 'id,x,ok,text,code\n3,2,true,"b,\n c",2\n')
        catalog.create("d")
        made = catalog.add_column_set("d", "main", location="c", format="csv")
        assert {c["name"]: c["description"] for c in made["columns"]} == {
            "id": "int64",
            "x": "float64",
            "ok": "bool",
            "text": "str",
            "code": "str",
        }
        assert rows_of(catalog, "d") == [
            {"id": 1, "x": 0.5, "ok": True, "text": "a", "code": "007"},
            {"id": 2, "x": None, "ok": False, "text": "", "code": "1"},
            {"id": 3, "x": 2.0, "ok": True, "text": "b,\n c", "code": "2"},
        ]
        assert not (data / "c" / ".splitpipe").exists()

    def test_declared_columns_go_before_what_is_found(self, catalog: Datasets, data: Path) -> None:
        csv(data / "1.csv", "id,x,other\n1,2,3\n")
        catalog.create("d")
        declared = {"x": "str", "id": "float32"}
        catalog.add_column_set("d", "main", location="1.csv", format="csv", columns=declared)
        assert rows_of(catalog, "d") == [{"x": "2", "id": 1.0}]

    def test_names_that_no_column_has_are_mended(self, catalog: Datasets, data: Path) -> None:
        csv(data / "1.csv", "my id,2x,my-id\n1,2,3\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="1.csv", format="csv")
        assert rows_of(catalog, "d") == [{"my_id": 1, "_2x": 2, "my_id_2": 3}]

    def test_parquet_and_jsonl(self, catalog: Datasets, data: Path) -> None:
        (data / "p").mkdir()
        for part in range(3):
            table = pa.table({"id": [part], "v": [[0.5, part]]})
            pq.write_table(table, data / "p" / f"part{part}.parquet")
        csv(data / "j" / "a.jsonl", '{"id": 2, "tags": ["x"]}\n{"id": 0, "tags": null}\n')
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="p", format="parquet")
        catalog.add_column_set("d", "tags", location="j", format="jsonl")
        found = rows_of(catalog, "d")
        assert [row["tags"] for row in found] == [None, None, ["x"]]
        assert [row["v"].tolist() for row in found] == [[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]

    def test_names_of_jsonl_are_not_mended(self, catalog: Datasets, data: Path) -> None:
        csv(data / "a.jsonl", '{"my id": 2, "x": 1}\n')
        catalog.create("d")
        with pytest.raises(FormatError, match=r"a\.jsonl: 'my id' is no name"):
            catalog.add_column_set("d", "main", location="a.jsonl", format="jsonl")
        columns = {"x": "int64"}
        catalog.add_column_set("d", "main", location="a.jsonl", format="jsonl", columns=columns)
        assert rows_of(catalog, "d") == [{"x": 1}]

    def test_questions_in_sql(self, catalog: Datasets, data: Path) -> None:
        csv(data / "m.csv", "id,t\n1,a\n2,b\n3,c\n")
        csv(data / "x.csv", "id,x\n3,30\n1,10\n")
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="m.csv", format="csv")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")
        with open_snapshot(catalog.pin("d")) as opened:
            assert [row["id"] for row in opened.where("x > 10 or t = 'b'")] == [2, 3]
            with pytest.raises(FormatError):
                opened.where("nothere = 1")

    def test_plain_values_get_a_column(self, catalog: Datasets, data: Path) -> None:
        sp.write_split_data(data / "plain", [b"a", b"b"])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="plain", format="bins")
        assert rows_of(catalog, "d") == [{"data": b"a"}, {"data": b"b"}]

    def test_a_pattern_stands_for_files(self, catalog: Datasets, data: Path) -> None:
        for name in ("a/x1.csv", "a/x2.csv", "b/y.csv"):
            csv(data / name, "n\n1\n")
        for dataset, location, count in (("d", "a/x*.csv", 2), ("e", "**/*.csv", 3)):
            catalog.create(dataset)
            made = catalog.add_column_set(dataset, "main", location=location, format="csv")
            assert (made["files"], made["rows"]) == (count, count)
        with pytest.raises(FormatError, match="at most once"):
            catalog.add_column_set("d", "more", location="**/**/*.csv", format="csv")

    @pytest.mark.parametrize(
        "columns",
        [
            [1],
            [{}],
            [{"name": "n"}],
            {"n": 5},
            {"n": {"type": "ndarray", "dtype": "float32", "shape": [-1]}},
            {"n": {"type": "scalar", "dtype": "O"}},
            {"a b": "str"},
            {},
            [{"name": "n", "type": "str"}, {"name": "n", "type": "str"}],
            7,
            "str",
        ],
    )
    def test_columns_that_cannot_be(self, catalog: Datasets, data: Path, columns: Any) -> None:
        csv(data / "1.csv", "n\n1\n")
        catalog.create("d")
        with pytest.raises(InvalidRequest):
            catalog.add_column_set("d", "x", location="1.csv", format="csv", columns=columns)

    @pytest.mark.parametrize("location", ["x" * 5000, "a/" * 3000, "[", "**", "[!", "*" * 300])
    @pytest.mark.parametrize("format", ["csv", "bins"])
    def test_locations_that_are_nothing(
        self, catalog: Datasets, location: str, format: str
    ) -> None:
        catalog.create("d")
        with pytest.raises(sp.SplitpipeError):
            catalog.add_column_set("d", "x", location=location, format=format)

    def test_added_again_it_is_the_one_that_is_there(self, catalog: Datasets, data: Path) -> None:
        csv(data / "1.csv", "n\n1\n")
        catalog.create("d")
        made = catalog.add_column_set("d", "main", location="1.csv", format="csv")
        assert catalog.add_column_set("d", "main", location="1.csv", format="csv") == made
        with pytest.raises(Conflict):
            catalog.add_column_set(
                "d", "main", location="1.csv", format="csv", columns={"n": "str"}
            )

    def test_adding_one_changes_no_other(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1}])
        bins(data / "n", [{"id": 1, "x": 2}])
        catalog.create("d", uid_column="id")
        first = catalog.add_column_set("d", "main", location="m", format="bins")
        before = {p: p.read_bytes() for p in (data / "m").iterdir() if p.is_file()}
        catalog.add_column_set("d", "more", location="n", format="bins")
        assert catalog.column_set("d", "main") == first
        assert before == {p: p.read_bytes() for p in (data / "m").iterdir() if p.is_file()}

    def test_what_is_refused(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1, "x": 1}])
        csv(data / "1.csv", "id,x\n1,2\n")
        csv(data / "2.csv", "key\n1\n")
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="m", format="bins")

        def add(location: str, format: str = "csv", **more: Any) -> None:
            catalog.add_column_set("d", "new", location=location, format=format, **more)

        with pytest.raises(FormatError, match="'x' of column set 'new' is in column set 'main'"):
            add("1.csv")
        with pytest.raises(FormatError, match="no column 'id'"):
            add("2.csv")
        with pytest.raises(FormatError, match="no format"):
            add("2.csv", format="tar")
        with pytest.raises(OSError, match="nothere"):
            add("nothere")
        with pytest.raises(FormatError, match="declared"):
            catalog.add_column_set(
                "d", "new", location="m", format="bins", columns={"y": "int64", "id": "int64"}
            )
        with pytest.raises(InvalidRequest, match="pickled"):
            add("1.csv", columns={"x": "pickle"})
        with pytest.raises(Conflict, match="already"):
            catalog.add_column_set("d", "main", location="1.csv", format="csv")
        assert [one["name"] for one in catalog.get("d")["column_sets"]] == ["main"]

    def test_the_main_set_goes_last(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1}])
        csv(data / "1.csv", "id,x\n1,2\n")
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="m", format="bins")
        catalog.add_column_set("d", "x", location="1.csv", format="csv")
        with pytest.raises(Conflict, match="main one"):
            catalog.remove_column_set("d", "main")
        catalog.remove_column_set("d", "x", remove_data=True)
        catalog.remove_column_set("d", "main", remove_data=True)
        assert (data / "1.csv").exists(), "what was not uploaded is not removed"

    def test_a_later_file_that_does_not_fit_is_named(self, catalog: Datasets, data: Path) -> None:
        (data / "p").mkdir()
        pq.write_table(pa.table({"n": [1]}), data / "p" / "1.parquet")
        pq.write_table(pa.table({"n": ["x"]}), data / "p" / "2.parquet")
        catalog.create("d")
        with pytest.raises(FormatError, match=r"2\.parquet.*'main'.*'n' of type str, not int64"):
            catalog.add_column_set("d", "main", location="p", format="parquet")
        csv(data / "c" / "1.csv", "n\n1\n")
        csv(data / "c" / "2.csv", "m\n1\n")
        with pytest.raises(FormatError, match=r"2\.csv.*'main'.*no column 'n'"):
            catalog.add_column_set("d", "main", location="c", format="csv")
        csv(data / "c" / "2.csv", "m,n\n1,2\n")
        with pytest.raises(FormatError, match=r"2\.csv.*'main'.*'m', which the first file has not"):
            catalog.add_column_set("d", "main", location="c", format="csv")
        catalog.add_column_set("d", "main", location="c", format="csv", columns={"n": "int64"})
        assert rows_of(catalog, "d") == [{"n": 1}, {"n": 2}]

    def test_columns_are_found_by_name(self, catalog: Datasets, data: Path) -> None:
        csv(data / "c" / "1.csv", "my id,x\n1,a\n")
        csv(data / "c" / "2.csv", "x,my id\nb,2\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="c", format="csv")
        assert rows_of(catalog, "d") == [{"my_id": 1, "x": "a"}, {"my_id": 2, "x": "b"}]


class TestJoins:
    def two(self, catalog: Datasets, data: Path, join: str) -> None:
        bins(data / "m", [{"id": n, "t": str(n)} for n in (5, 1, 1, 7)])
        csv(data / "x.csv", "id,x\n1,10\n9,90\n5,50\n1,11\n")
        catalog.create("d", uid_column="id", join=join)
        catalog.add_column_set("d", "main", location="m", format="bins")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")

    def test_left_keeps_every_record(self, catalog: Datasets, data: Path) -> None:
        self.two(catalog, data, "left")
        assert [(row["id"], row["x"]) for row in rows_of(catalog, "d")] == [
            (5, 50),
            (1, 10),
            (1, 10),
            (7, None),
        ]

    def test_inner_leaves_out_what_has_no_partner(self, catalog: Datasets, data: Path) -> None:
        self.two(catalog, data, "inner")
        assert [(row["id"], row["x"]) for row in rows_of(catalog, "d")] == [
            (5, 50),
            (1, 10),
            (1, 10),
        ]
        assert catalog.pin("d")["rows"] == 3

    def test_strict_refuses_and_counts(self, catalog: Datasets, data: Path) -> None:
        self.two(catalog, data, "strict")
        with pytest.raises(FormatError, match=r"'main' does not fit.*1 have a uid that an earlier"):
            catalog.pin("d")
        told = catalog.describe("d")
        assert told["records"] is None
        assert "strictly" in told["problem"]
        assert told["join_counts"][1] == {
            "column_set": "x",
            "rows": 4,
            "no_uid": 0,
            "duplicates": 1,
            "missing": 1,
            "extra": 1,
        }

    def test_strict_takes_what_fits(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": n} for n in (2, 1)])
        csv(data / "x.csv", "id,x\n1,10\n2,20\n")
        catalog.create("d", uid_column="id", join="strict")
        catalog.add_column_set("d", "main", location="m", format="bins")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")
        assert [row["x"] for row in rows_of(catalog, "d")] == [20, 10]

    def test_missing_uids_have_no_partner(self, catalog: Datasets, data: Path) -> None:
        csv(data / "m.csv", "id,t\n1,a\n,b\n3,c\n")
        csv(data / "x.csv", "id,x\n,7\n3,8\n")
        for join, wanted in (("left", [("a", None), ("b", None), ("c", 8)]), ("inner", [("c", 8)])):
            catalog.create(join, uid_column="id", join=join)
            catalog.add_column_set(join, "main", location="m.csv", format="csv")
            catalog.add_column_set(join, "x", location="x.csv", format="csv")
            assert [(row["t"], row["x"]) for row in rows_of(catalog, join)] == wanted
        assert [side["no_uid"] for side in catalog.describe("left")["join_counts"]] == [1, 1]

    def test_uids_of_other_types_are_refused(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": "1"}])
        csv(data / "x.csv", "id,x\n1,10\n")
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="m", format="bins")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")
        with pytest.raises(FormatError, match="'id' is str in column set 'main' and int64 in 'x'"):
            catalog.pin("d")
        assert "is str" in catalog.describe("d")["problem"]

    @pytest.mark.parametrize(
        ("join", "wanted"), [("left", [1, 2, None]), ("inner", [1, 2]), ("strict", None)]
    )
    def test_by_row(
        self, catalog: Datasets, data: Path, join: str, wanted: list[int | None] | None
    ) -> None:
        csv(data / "m.csv", "t\na\nb\nc\n")
        csv(data / "x.csv", "x\n1\n2\n")
        catalog.create("d", join=join)
        catalog.add_column_set("d", "main", location="m.csv", format="csv")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")
        if wanted is None:
            with pytest.raises(FormatError, match="by row"):
                catalog.pin("d")
        else:
            assert [row["x"] for row in rows_of(catalog, "d")] == wanted

    def test_unsigned_numbers_that_no_int64_holds(self, catalog: Datasets, data: Path) -> None:
        (data / "p").mkdir()
        ids = [2**63 + 1, 2**63 + 2, 5]
        table = pa.table({"id": pa.array(ids, pa.uint64()), "t": ["a", "b", "c"]})
        pq.write_table(table, data / "p" / "1.parquet")
        bins(data / "x", [{"id": 5, "x": 1}])
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="p", format="parquet")
        catalog.add_column_set("d", "x", location="x", format="bins")
        assert [row["x"] for row in rows_of(catalog, "d")] == [None, None, 1]


class TestSnapshots:
    def test_some_columns(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1, "a": 2, "b": 3}])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        assert rows_of(catalog, "d", ["b", "id"]) == [{"b": 3, "id": 1}]
        with pytest.raises(FormatError, match="'c'"):
            catalog.pin("d", columns=["c"])
        with pytest.raises(FormatError, match="'c'"):
            open_snapshot(catalog.pin("d"), ["c"])

    def test_bins_stay_those_of_their_generation(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1}])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        before = catalog.pin("d")
        with sp.DatasetWriter(data / "m", append=True) as writer:
            writer.write({"id": 2})
        assert rows_of(catalog, "d") == [{"id": 1}, {"id": 2}]
        with open_snapshot(before) as opened:
            assert list(opened) == [{"id": 1}]

    def test_overwritten_bins_are_refused(self, catalog: Datasets, data: Path) -> None:
        bins(data / "m", [{"id": 1}])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        before = catalog.pin("d")
        catalog.close()
        with sp.DatasetWriter(data / "m", overwrite=True) as writer:
            writer.write({"id": 2})
        with pytest.raises(DatasetChanged, match="'main' were overwritten"):
            open_snapshot(before)

    @pytest.mark.parametrize("format", ["csv", "parquet"])
    @pytest.mark.parametrize("how", ["removed", "changed", "unreadable"])
    def test_a_file_that_goes_bad_is_an_error_at_its_rows(
        self, catalog: Datasets, data: Path, format: str, how: str
    ) -> None:
        (data / "f").mkdir()
        for part in range(3):
            if format == "csv":
                csv(data / "f" / f"{part}.csv", f"n\n{2 * part}\n{2 * part + 1}\n")
            else:
                path = data / "f" / f"{part}.parquet"
                pq.write_table(pa.table({"n": [2 * part, 2 * part + 1]}), path)
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format=format)
        snapshot = catalog.pin("d")
        bad = data / "f" / f"1.{format}"
        for again in range(2):  # opened before it goes bad, and after
            with open_snapshot(snapshot) as opened:
                assert len(opened) == 6
                if not again:
                    assert opened[2] == {"n": 2}
                    self.spoil(bad, how)
                assert opened[1] == {"n": 1}
                for row in (2, 3):
                    with pytest.raises(sp.SplitpipeError) as caught:
                        opened[row]
                    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
                    assert str(bad) in told
                    assert "column set 'main'" in told
                    assert blamed(caught.value, snapshot) == "main"
                assert opened[4:] == [{"n": 4}, {"n": 5}]
        with pytest.raises(DatasetChanged, match="since the last sync"):
            catalog.pin("d")

    @staticmethod
    def spoil(path: Path, how: str) -> None:
        if how == "removed":
            path.unlink()
        elif how == "changed":
            path.write_bytes(path.read_bytes() + b"\n7\n")
        else:
            path.unlink()
            path.mkdir()

    def test_a_shuffle_is_the_same_with_and_without_a_file(
        self, catalog: Datasets, data: Path
    ) -> None:
        for part in range(4):
            csv(data / "f" / f"{part}.csv", "n\n" + "".join(f"{5 * part + n}\n" for n in range(5)))
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format="csv")
        snapshot = catalog.pin("d")

        def order() -> list[Any]:
            with open_snapshot(snapshot) as opened:
                pipe = sp.Pipeline(opened, shuffle="binwise", seed=1, on_error=sp.skip(10))
                with pipe.loader(executor="inline") as loader:
                    return [row["n"] for row in loader]

        whole = order()
        (data / "f" / "2.csv").unlink()
        assert order() == [n for n in whole if n not in range(10, 15)]
        assert sorted(whole) == list(range(20))

    def test_it_travels(self, catalog: Datasets, data: Path) -> None:
        csv(data / "m.csv", "id,t\n1,a\n2,b\n3,c\n4,d\n")
        with sp.DatasetWriter(data / "x", {"id": "int64", "v": sp.ndarray("int64", (None,))}) as w:
            w.write_many({"id": n, "v": np.arange(n)} for n in (2, 4))
        catalog.create("d", uid_column="id")
        catalog.add_column_set("d", "main", location="m.csv", format="csv")
        catalog.add_column_set("d", "x", location="x", format="bins")
        with open_snapshot(catalog.pin("d"), ["t", "v"]) as opened:
            pipe = sp.Pipeline(opened).map(_length, workers=2)
            with pipe.loader() as loader:
                assert list(loader) == [("a", None), ("b", 2), ("c", None), ("d", 4)]

    def test_rows_are_those_that_were_pinned(self, catalog: Datasets, data: Path) -> None:
        snapshot_keys = {
            "version",
            "dataset",
            "locations",
            "indices",
            "column_sets",
            "rows",
            "join",
            "matched",
        }
        bins(data / "m", [{"id": 1}])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        snapshot = catalog.pin("d")
        assert set(snapshot) == snapshot_keys
        with pytest.raises(sp.UnsupportedVersion):
            open_snapshot({**snapshot, "version": 2})
        with pytest.raises(DatasetChanged, match="had 2"):
            open_snapshot({**snapshot, "rows": 2})

    def test_a_join_is_kept(self, catalog: Datasets, data: Path) -> None:
        csv(data / "m.csv", "id,t\n1,a\n2,b\n3,c\n")
        csv(data / "x.csv", "id,x\n3,30\n1,10\n")
        catalog.create("d", uid_column="id", join="inner")
        catalog.add_column_set("d", "main", location="m.csv", format="csv")
        catalog.add_column_set("d", "x", location="x.csv", format="csv")
        snapshot = catalog.pin("d")
        wanted = [{"id": 1, "t": "a", "x": 10}, {"id": 3, "t": "c", "x": 30}]
        (kept,) = (Path(catalog.indices) / "matched").glob("*.rows")
        for spoil in (kept.touch, lambda: kept.write_bytes(b"damaged"), kept.unlink):
            spoil()
            with open_snapshot(snapshot) as opened:
                assert list(opened) == wanted
        for _ in range(2):  # made anew, and found
            catalog.close()
            assert catalog.pin("d") == snapshot
        csv(data / "x.csv", "id,x\n3,31\n2,20\n1,10\n")
        catalog.sync("d", "x")
        assert catalog.pin("d")["rows"] == 3

    def test_with_a_join_a_lost_file_is_an_error_at_its_rows(
        self, catalog: Datasets, data: Path
    ) -> None:
        for part in range(2):
            csv(data / "m" / f"{part}.csv", f"id,t\n{part},a\n")
            csv(data / "x" / f"{part}.csv", f"id,x\n{part},b\n")
        catalog.create("d", uid_column="id", join="inner")
        catalog.add_column_set("d", "main", location="m", format="csv")
        catalog.add_column_set("d", "x", location="x", format="csv")
        snapshot = catalog.pin("d")
        catalog.close()
        (data / "x" / "1.csv").unlink()
        with open_snapshot(snapshot) as opened:
            assert opened[0] == {"id": 0, "t": "a", "x": "b"}
            with pytest.raises(sp.SplitpipeError) as caught:
                opened[1]
            assert blamed(caught.value, snapshot) == "x"
        with open_snapshot(snapshot, ["t"]) as opened:
            assert [row["t"] for row in opened] == ["a", "a"]


def _length(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["t"], None if row["v"] is None else len(row["v"])


class TestSync:
    def test_new_changed_and_removed_files(self, catalog: Datasets, data: Path) -> None:
        for name in ("a", "b", "c"):
            csv(data / "f" / f"{name}.csv", "n\n1\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format="csv")
        (data / "f" / "a.csv").unlink()
        csv(data / "f" / "b.csv", "n\n1\n2\n")
        csv(data / "f" / "d.csv", "n\n4\n")
        csv(data / "f" / ".e.csv", "n\n4\n")
        told = catalog.sync("d", "main")
        assert (told["new"], told["changed"], told["removed"]) == (["d.csv"], ["b.csv"], ["a.csv"])
        assert told["column_set"]["rows"] == 4
        assert [row["n"] for row in rows_of(catalog, "d")] == [1, 2, 1, 4]
        assert catalog.sync("d", "main")["new"] == []

    def test_what_does_not_fit_leaves_what_was_known(self, catalog: Datasets, data: Path) -> None:
        csv(data / "f" / "a.csv", "n\n1\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format="csv")
        csv(data / "f" / "b.csv", "m\n1\n")
        with pytest.raises(FormatError, match=r"b\.csv"):
            catalog.sync("d", "main")
        told = catalog.column_set("d", "main")
        assert (told["status"], told["rows"]) == ("ready", 1)
        assert "b.csv" in told["error"]
        assert rows_of(catalog, "d") == [{"n": 1}]
        (data / "f" / "b.csv").unlink()
        assert catalog.sync("d", "main")["column_set"]["error"] is None

    def test_only_new_files_are_read(self, catalog: Datasets, data: Path) -> None:
        csv(data / "f" / "a.csv", "n\n1\n")
        csv(data / "f" / "b.csv", "n\n2\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format="csv")
        indices = Path(catalog.indices)
        for path in indices.iterdir():
            os.unlink(path)
        csv(data / "f" / "c.csv", "n\n3\n")
        catalog.sync("d", "main")
        assert sorted(p.name[0] for p in indices.glob("*.index")) == ["c"]
