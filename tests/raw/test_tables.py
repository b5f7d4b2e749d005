"""What may say which samples there are."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.raw.sources import _pattern
from splitpipe.stores import LocalStore, MemoryStore, Store

ROWS = [
    {"file": f"{n}.bin", "n": n, "text": f"t{n}" if n % 2 else None, "x": n / 4} for n in range(20)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    return tmp_path


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS, name: str = "table") -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [",".join(rows[0])]
        lines += [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_kind_of_table_gives_its_rows(folder: Path, kind: str) -> None:
    with sp.open_raw(write(folder, kind), fetch="file") as ds:
        assert list(ds) == [{**row, "file": b"%d" % row["n"]} for row in ROWS]
        assert [s["n"] for s in ds.where("n > 15 AND text IS NOT NULL")] == [17, 19]
    with sp.open_raw(write(folder, kind), fetch="file", where="x < ?", parameters=[1]) as ds:
        assert [sample["n"] for sample in ds] == [0, 1, 2, 3]


def test_csv_gives_text(folder: Path) -> None:
    path = write(folder, "csv")
    with sp.open_raw(path, fetch="file") as ds:
        assert ds[3] == {"file": b"3", "n": "3", "text": "t3", "x": "0.75"}
    schema = {"file": "str", "n": "int64"}
    with sp.open_raw(path, fetch="file", table_options={"schema": schema}) as ds:
        assert ds[3] == {"file": b"3", "n": 3}


@pytest.mark.parametrize(
    ("clause", "found"),
    [
        ("n > 9", [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        ("n >= 2 AND n < 4", [2, 3]),
        ("x = 0.5", [2]),
        ("row = 5 OR n = 7", [5, 7]),
        ("text = 't9'", [9]),
        ("text LIKE 't1_' AND n BETWEEN 12 AND 16", [13, 15]),
        ("n IN (3, 4)", [3, 4]),
        ("n = (SELECT max(n) FROM records)", [19]),
    ],
)
def test_numbers_of_csv_are_compared_as_numbers(
    folder: Path, clause: str, found: list[int]
) -> None:
    with sp.open_raw(write(folder, "csv"), fetch="file", where=clause) as ds:
        assert [int(sample["n"]) for sample in ds] == found
        assert [sample["file"] for sample in ds] == [b"%d" % n for n in found]


@pytest.mark.parametrize("clause", ["w > 5", "5 < w", "w >= 5.5 OR n = 1", '"w" IN (3)', "w=-1"])
def test_text_is_not_compared_with_numbers_by_mistake(folder: Path, clause: str) -> None:
    rows = [{"file": "1.bin", "w": "12"}, {"file": "2.bin", "w": "n/a"}]
    with sp.open_raw(write(folder, "csv", rows), fetch="file") as ds:
        with pytest.raises(sp.FormatError, match="n/a"):
            ds.where(clause.replace("n = 1", "file = 'x'"))
        assert len(ds.where("CAST(w AS INTEGER) > 5")) == 1
        assert len(ds.where("w = '12'")) == 1


@pytest.mark.parametrize(
    "clause",
    [
        "missing > 1",
        "n > 1; DROP TABLE records",
        "SELECT 1",
        "load_extension('x')",
        "n >",
        "1) OR (",
    ],
)
def test_a_clause_that_is_none_is_refused(folder: Path, clause: str) -> None:
    with pytest.raises(sp.FormatError):
        sp.open_raw(write(folder, "parquet"), fetch="file", where=clause)


def test_at_most_so_many(folder: Path) -> None:
    path = write(folder, "parquet")
    with sp.open_raw(path, fetch="file", max_size=7) as ds:
        assert [sample["n"] for sample in ds] == list(range(7))
    with sp.open_raw(path, fetch="file", max_size=2, where="n > 4") as ds:
        assert [sample["n"] for sample in ds] == [5, 6]
        assert ds[0]["file"] == b"5"
    with sp.open_raw(path, fetch="file", max_size=100) as ds:
        assert len(ds) == 20
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(sp.FormatError, match="max_size"):
            sp.open_raw(path, fetch="file", max_size=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "json"])
def test_a_pattern_of_tables_is_one_in_natural_order(folder: Path, kind: str) -> None:
    for part in (10, 2, 1):
        write(folder, kind, [{"file": f"{part}.bin", "n": part}], name=f"part{part}")
    with sp.open_raw(str(folder / f"part*.{kind}"), fetch="file") as ds:
        assert [sample["file"] for sample in ds] == [b"1", b"2", b"10"]
    paths = [folder / f"part{part}.{kind}" for part in (10, 1)]
    with sp.open_raw(paths, kind="table", fetch="file") as ds:
        assert [sample["file"] for sample in ds] == [b"10", b"1"]
    with pytest.raises(sp.StorageError, match="no file"):
        sp.open_raw(str(folder / f"nothing*.{kind}"), fetch="file")


def test_a_folder_is_grouped_by_stem(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.jpg").write_bytes(b"hidden")
    for number in (10, 9):
        (tmp_path / "sub" / f"img{number}.jpg").write_bytes(b"jpg%d" % number)
        (tmp_path / "sub" / f"img{number}.seg.PNG").write_bytes(b"png%d" % number)
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "README").write_text("no sample")
    with sp.open_raw(f"{tmp_path}/", decode={"txt": sp.media.text()}) as ds:
        assert list(ds) == [
            {"__key__": "a", "jpg": None, "seg_png": None, "txt": "hello"},
            {"__key__": "sub/img9", "jpg": b"jpg9", "seg_png": b"png9", "txt": None},
            {"__key__": "sub/img10", "jpg": b"jpg10", "seg_png": b"png10", "txt": None},
        ]
        assert ds["sub/img10"] == ds[2]
        assert ds.keys() == ["a", "sub/img9", "sub/img10"]
        assert [s["__key__"] for s in ds.where("jpg IS NOT NULL")] == ["sub/img9", "sub/img10"]
        with pytest.raises(KeyError):
            ds["nothing"]
        assert ds.select(["jpg"])[1] == {"jpg": b"jpg9"}
    (tmp_path / "sub" / "img9.JPG").write_bytes(b"twice")
    with pytest.raises(sp.FormatError, match="img9"):
        sp.open_raw(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sp.FormatError, match="no files"):
        sp.open_raw(tmp_path)


def test_a_list_of_files(folder: Path) -> None:
    (folder / "files.txt").write_text("3.bin\n\n1.bin\r\n")
    with sp.open_raw(folder / "files.txt") as ds:
        assert list(ds) == [{"path": b"3"}, {"path": b"1"}]
    names = [str(folder / "5.bin"), str(folder / "4.bin")]
    with sp.open_raw(names, fetch={"data": "path"}, base=folder) as ds:
        assert list(ds) == [{"path": names[0], "data": b"5"}, {"path": names[1], "data": b"4"}]


def test_a_dataset_is_a_table(folder: Path) -> None:
    with sp.DatasetWriter(folder / "ours") as writer:
        writer.write_many([{"file": f"{n}.bin", "n": n} for n in range(20)])
    table = sp.open_dataset(folder / "ours")
    with table, sp.open_raw(table, fetch="file", base=folder) as ds:
        assert ds[7] == {"file": b"7", "n": 7}


def test_what_is_not_said_is_asked_for(folder: Path) -> None:
    path = write(folder, "parquet")
    (folder / "thing").write_bytes(b"?")
    with pytest.raises(sp.FormatError, match="fetch="):
        sp.open_raw(path)
    with pytest.raises(sp.FormatError, match="kind="):
        sp.open_raw(folder / "thing")
    with pytest.raises(sp.StorageError, match="no such"):
        sp.open_raw(folder / "nothing")
    with pytest.raises(sp.StorageError):
        sp.open_raw(folder / "nothing.csv", fetch="file")
    with pytest.raises(sp.FormatError, match="no column 'files'"):
        sp.open_raw(path, fetch="files")
    with pytest.raises(sp.FormatError, match="no column"):
        sp.open_raw(path, fetch="file", columns=["nothing"])
    with pytest.raises(sp.FormatError, match="no column"):
        sp.open_raw(path, fetch="file", size="nothing")
    with pytest.raises(sp.FormatError, match="key="):
        sp.open_raw(path, fetch="file", key="nothing")
    with pytest.raises(sp.FormatError, match="decode="):
        sp.open_raw(path, fetch="file", decode={"n": len})
    with pytest.raises(sp.FormatError, match="dicts"):
        sp.open_raw([1, 2], fetch="file")
    with pytest.raises(sp.FormatError, match="must say"):
        sp.open_raw(path, fetch=["file", "text"], size="n")


@pytest.mark.parametrize("text", ["", "{", "3", '[{"a": 1}, 2]', '{"a": [1], "b": []}', "[]"])
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(sp.FormatError):
        sp.open_raw(tmp_path / "table.json", fetch="a")


def test_json_by_columns(folder: Path) -> None:
    (folder / "table.json").write_text('{"file": ["1.bin", "2.bin"], "my n": [1, null]}')
    with sp.open_raw(folder / "table.json", fetch="file") as ds:
        assert list(ds) == [{"file": b"1", "my_n": 1}, {"file": b"2", "my_n": None}]


def test_keys_name_samples(folder: Path) -> None:
    with sp.open_raw(write(folder, "parquet"), fetch="file", key="text") as ds:
        assert ds["t5"]["n"] == 5
        assert "t5" in ds
        assert "t4" not in ds
        assert ds.keys([1, 2]) == ["t1", None]
    rows = [{"file": "1.bin", "k": "same"}, {"file": "2.bin", "k": "same"}]
    ds = sp.open_raw(rows, fetch="file", key="k", base=folder)
    with ds, pytest.raises(sp.FormatError, match="several"):
        ds["same"]


def test_the_identity_is_that_of_the_rows(folder: Path) -> None:
    def identity(**more: Any) -> str:
        with sp.open_raw(path, fetch="file", **more) as ds:
            return str(ds.records.identity)  # type: ignore[attr-defined]

    path = write(folder, "csv")
    first = identity()
    assert identity() == first
    os.utime(path, (1, 1))
    assert identity() == first
    assert identity(max_size=5) != first
    assert identity(where="n > 3") != identity(where="n > 4")
    path.write_text(path.read_text().replace("t1", "t2", 1))
    assert identity() != first


@pytest.fixture
def stores(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """A store that is remote as far as urls tell."""
    made = LocalStore(tmp_path_factory.mktemp("remote"))
    for path in folder.iterdir():
        made.write(f"set/{path.name}", path.read_bytes())
    for part in (2, 10):
        path = write(folder, "parquet", [{"file": f"{part}.bin", "n": part}], name="x")
        made.write(f"set/part{part}.parquet", path.read_bytes())
        made.write(f"set/deep/part{part}.parquet", path.read_bytes())
    made.write("set/table.csv", write(folder, "csv").read_bytes())
    made.write("set/files.txt", b"3.bin\nremote://x/set/4.bin\n")
    return {"remote://x": made}


def test_remote_tables_are_read_here(stores: dict[str, Store]) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    with sp.open_raw("remote://x/set/table.csv", fetch="file", stores=stores) as ds:
        assert ds[3]["file"] == b"3"
        assert ds.records.table.base == "remote://x/set/"  # type: ignore[attr-defined]
        with pickle.loads(pickle.dumps(ds)) as again:
            assert again[4]["file"] == b"4"
        copies = [n for n in set(os.listdir(tempfile.gettempdir())) - before if "table" in n]
        assert copies
        assert ds[5]["file"] == b"5"
    assert not set(copies) & set(os.listdir(tempfile.gettempdir()))
    with sp.open_raw("remote://x/set/*.parquet", fetch="file", stores=stores) as ds:
        assert [sample["file"] for sample in ds] == [b"2", b"10"]
    with sp.open_raw("remote://x/set/files.txt", stores=stores) as ds:
        assert [sample["path"] for sample in ds] == [b"3", b"4"]
    with sp.open_raw("remote://x/set/", columns=["bin"], stores=stores) as ds:
        assert ds["12"] == {"bin": b"12"}


def test_a_remote_table_travels_to_where_its_copy_is_not(stores: dict[str, Store]) -> None:
    with sp.open_raw("remote://x/set/table.csv", fetch="file", stores=stores) as ds:
        data = pickle.dumps(ds)
    with pickle.loads(data) as again:
        assert again[4]["file"] == b"4"
    stores["remote://x"].write("set/table.csv", b"file,n\n1.bin,1\n")
    with pytest.raises(sp.DatasetChanged, match="open it again"):
        pickle.loads(data)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/*.csv", ["a/b.csv"]),
        ("a/**/*.csv", ["a/b.csv", "a/c/b.csv"]),
        ("a/?.csv", ["a/b.csv"]),
        ("**/b.csv", ["a/b.csv", "a/c/b.csv", "b.csv"]),
        ("[ab].csv", ["b.csv"]),
        ("[!a].csv", ["b.csv"]),
    ],
)
def test_patterns_of_keys(pattern: str, found: list[str]) -> None:
    import re

    keys = ["a/b.csv", "a/c/b.csv", "b.csv"]
    assert [key for key in keys if re.fullmatch(_pattern(pattern), key)] == found


VALUES = st.one_of(st.none(), st.integers(-9, 9), st.text('ab,"\n é', max_size=5), st.booleans())


@given(
    rows=st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1, max_size=8),
    chosen=st.lists(st.integers(0, 7), max_size=6),
)
@settings(max_examples=40)
def test_any_rows_in_memory_come_back(rows: list[dict[str, Any]], chosen: list[int]) -> None:
    full = [{**row, "file": f"{n}.bin"} for n, row in enumerate(rows)]
    store = MemoryStore()
    for number in range(len(rows)):
        store.write(f"{number}.bin", b"%d" % number)
    given_ = {"base": "memory://x/", "stores": {"memory://x": store}}
    with sp.open_raw(full, fetch="file", **given_) as ds:
        assert list(ds) == [{**row, "file": b"%d" % n} for n, row in enumerate(full)]
        places = [n % len(rows) for n in chosen]
        assert list(ds.subset(places)) == [ds[n] for n in places]


@given(
    texts=st.lists(st.sampled_from(["", "1", "2.5", "007", "x", "-3", "1e3"]), max_size=12),
    early=st.integers(0, 3),
)
@settings(max_examples=60)
def test_a_column_is_of_numbers_as_a_whole_or_of_text(texts: list[str], early: int) -> None:
    from splitpipe.raw import catalog
    from splitpipe.schema import Schema
    from splitpipe.storage.base import MemoryRecords

    values = ["5"] * early + [*texts, "5"]
    table = MemoryRecords(Schema({"w": "str"}), {"w": values})
    asked = catalog.TableCatalog(table)
    known = {"": None, "1": 1, "2.5": 2.5, "-3": -3, "5": 5}
    before, catalog._BLOCK = catalog._BLOCK, 2
    try:
        if all(text in known for text in values):
            expected = [n for n, t in enumerate(values) if known[t] is not None and known[t] > 1]
            assert asked.where("w > 1").tolist() == expected
            assert asked.where("w IS NULL").tolist() == [n for n, t in enumerate(values) if not t]
        else:
            with pytest.raises(sp.FormatError, match="compares"):
                asked.where("w > 1")
            for text in ("", "5", "007"):
                found = asked.where("w = ?", [text]).tolist()
                assert found == [n for n, t in enumerate(values) if t == text]
    finally:
        catalog._BLOCK = before


def test_names_that_sql_does_not_tell_apart(folder: Path) -> None:
    rows = [{"file": "1.bin", "Row": 7, "n": 1}, {"file": "2.bin", "Row": 8, "n": 2}]
    with sp.open_raw(rows, fetch="file", base=folder) as ds:
        assert [sample["n"] for sample in ds.where("row = 1 OR n = 1")] == [1, 2]
        assert len(ds.where("row = 7")) == 0
    rows = [{"file": "1.bin", "Size": 7, "size": 1}]
    with (
        sp.open_raw(rows, fetch="file", base=folder) as ds,
        pytest.raises(sp.FormatError, match="duplicate column"),
    ):
        ds.where("size = 1")


def test_a_url_of_this_machine_is_a_path(folder: Path) -> None:
    write(folder, "csv")
    with sp.open_raw((folder / "table.csv").as_uri(), fetch="file", max_size=2) as ds:
        assert [sample["file"] for sample in ds] == [b"0", b"1"]
    with sp.open_raw(folder.as_uri() + "/", columns=["bin"]) as ds:
        assert ds["3"] == {"bin": b"3"}
