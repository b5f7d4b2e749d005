"""CSV: every row of ``docs/formats.md`` about it, compared with Python's ``csv`` throughout."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitpipe.schema as sp
from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.formats import recognise
from splitpipe.formats.indexing import build
from tests.formats.reading import contents, everything, opened

TABLE = [
    ["id", "text", "more"],
    *([str(n), 'a "quoted", line\r\nand\nmore' * (n % 3), "x" * (n % 5)] for n in range(300)),
]


def written(rows: list[list[str]], **options: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue().encode()


def dicts(rows: list[list[str]]) -> list[dict[str, str]]:
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data.csv"
    file.write_bytes(written(TABLE))
    return file


class TestGood:
    def test_quoted_line_ends(self, path: Path) -> None:
        before = contents(path.parent)
        assert opened(path) == dicts(TABLE)
        assert opened(path, lenient=True) == dicts(TABLE)
        assert opened(path, validate=True) == dicts(TABLE)
        assert contents(path.parent) == before

    def test_cut_anywhere(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for size in (1, 7, 50, 1000):
            monkeypatch.setattr(build, "_JOB_NBYTES", size)
            assert opened(path, index_dir=path.parent / f"index{size}") == dicts(TABLE)

    def test_everything_quoted(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(written(TABLE, quoting=csv.QUOTE_ALL))
        assert opened(tmp_path) == dicts(TABLE)

    @pytest.mark.parametrize(
        ("raw", "rows"),
        [
            (b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
            (b"\xef\xbb\xbfa,b\r\n1,2\r\n", [{"a": "1", "b": "2"}]),
            (b"a,b\n1,2", [{"a": "1", "b": "2"}]),
            (b"a,b\n\n\r\n1,2\n\n", [{"a": "1", "b": "2"}]),
            (b"a\n x \n", [{"a": " x "}]),
            (b'a,b\n"",""""\n', [{"a": "", "b": '"'}]),
            (b'a,b\n"1","x\n', []),
            (b"a,b\n", []),
            (b"a,b", []),
        ],
    )
    def test_what_else_may_be_in_it(self, tmp_path: Path, raw: bytes, rows: list[Any]) -> None:
        (tmp_path / "a.csv").write_bytes(raw)
        if raw.count(b'"') % 2:
            with pytest.raises(CorruptRecord, match=r"line 2 .*not closed"):
                recognise(tmp_path)
        else:
            assert opened(tmp_path) == rows

    def test_tabs_and_other_delimiters(self, tmp_path: Path) -> None:
        (tmp_path / "a.tsv").write_bytes(b"a\tb\n1,5\t2\n")
        assert opened(tmp_path) == [{"a": "1,5", "b": "2"}]
        (tmp_path / "b.csv").write_bytes(b"a;b\n'1;\n';2\n")
        assert opened(tmp_path / "b.csv", delimiter=";", quote="'") == [{"a": "1;\n", "b": "2"}]

    def test_quotes_that_mean_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b'a,b\n5" disk,"\n')
        assert opened(tmp_path, quote=None) == [{"a": '5" disk', "b": '"'}]

    def test_encodings(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes("a\nü€\n".encode("cp1252"))
        assert opened(tmp_path, encoding="cp1252") == [{"a": "ü€"}]
        (tmp_path / "a.csv").write_bytes("a\nж\n".encode("koi8-r"))
        assert opened(tmp_path, encoding="koi8-r") == [{"a": "ж"}]
        for wide in ("utf-16", "utf-32", "shift_jis", "gbk", "utf-7", "cp037"):
            with pytest.raises(FormatError, match="iconv"):
                recognise(tmp_path, encoding=wide)
        with pytest.raises(FormatError, match="no encoding 'nope'"):
            recognise(tmp_path, encoding="nope")

    def test_several_files_with_the_same_header(self, tmp_path: Path) -> None:
        for number, raw in enumerate([b"", b"a\n1\n", b"a\n", b"\na\n2\n"]):
            (tmp_path / f"{number}.csv").write_bytes(raw)
        assert opened(tmp_path) == [{"a": "1"}, {"a": "2"}]

    def test_a_large_field(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"a\n" + b"x" * 300_000 + b"\n")
        assert opened(tmp_path) == [{"a": "x" * 300_000}]


class TestColumns:
    def test_types(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(
            b"n,x,ok,day,v,j,s,other\n"
            b'1,0.5,true,2026-01-02,"[1,2]","{""a"":1}",,z\n'
            b"-2,nan,0,2026-01-03,,,t,z\n"
        )
        schema = {
            "n": "int16",
            "x": "float32",
            "ok": "bool",
            "day": "datetime64[D]",
            "v": sp.ndarray("uint8", (2,)),
            "j": "json",
            "s": "str",
        }
        records = recognise(tmp_path, schema=schema)
        first, second = everything(records)
        assert (first["n"], first["x"], first["ok"], first["j"]) == (1, 0.5, True, {"a": 1})
        assert first["day"] == np.datetime64("2026-01-02")
        assert first["v"].tolist() == [1, 2]
        assert (second["n"], second["ok"], second["s"]) == (-2, False, "t")
        assert np.isnan(second["x"])
        assert second["v"] is None
        assert second["j"] is None
        assert first["s"] == ""
        records.close()

    def test_some_of_them(self, path: Path) -> None:
        assert opened(path, columns=["more", "id"])[7] == {"more": "xx", "id": "7"}
        with pytest.raises(FormatError, match="no column 'no'; columns: id, text, more"):
            recognise(path, columns=["no"])

    def test_names(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"First Name,2020\nx,1\n")
        with pytest.raises(FormatError, match=r"names=\['First_Name', '_2020'\]"):
            recognise(tmp_path)
        assert opened(tmp_path, names=["a", "b"]) == [{"a": "x", "b": "1"}]
        with pytest.raises(FormatError, match="names= has 1"):
            recognise(tmp_path, names=["a"])

    def test_without_a_header(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"1,2\n3,4\n")
        assert opened(tmp_path, header=False)[1] == {"column_1": "3", "column_2": "4"}
        assert opened(tmp_path, header=False, names=["a", "b"])[0] == {"a": "1", "b": "2"}

    def test_no_name_or_a_name_twice(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"")
        with pytest.raises(FormatError, match="names="):
            recognise(tmp_path)
        (tmp_path / "a.csv").write_bytes(b"a,a\n")
        with pytest.raises(FormatError, match="the same name"):
            recognise(tmp_path)


class TestBroken:
    @pytest.mark.parametrize("raw", [b'5" disk,2\n', b'"a"b,2\n', b'x,"a" \n', b'x"y"z,2\n'])
    def test_a_quote_inside_a_field(self, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "a.csv").write_bytes(b'a,b\n"1\n",2\n' + raw + b'"3","4"\n')
        with pytest.raises(CorruptRecord, match=r"a\.csv, line 4 .*quote"):
            recognise(tmp_path)
        text = (tmp_path / "a.csv").read_text()
        wanted = list(csv.reader(io.StringIO(text, newline="")))
        assert opened(tmp_path, lenient=True) == dicts(wanted)

    @pytest.mark.parametrize(
        ("raw", "wrong"),
        [
            (b"1\n", "a row of 1 fields, there are 2 columns"),
            (b"1,2,3\n", "a row of 3 fields"),
            (b"\xff,2\n", "not utf-8"),
            (b"x,2\n", "field 'a': 'x' is no int64"),
            (b"1_0,2\n", "is no int64"),
            (b"1\r2,3\n", "not CSV"),
        ],
    )
    def test_a_row(self, tmp_path: Path, raw: bytes, wrong: str) -> None:
        (tmp_path / "a.csv").write_bytes(b'a,b\n1,"\n"\n' + raw + b"5,6\n")
        schema = {"a": "int64", "b": "str"}
        records = recognise(tmp_path, schema=schema)
        assert len(records) == 3
        with pytest.raises(CorruptRecord, match=rf"line 4 .*{wrong}"):
            records.read(np.array([1]), ["a"])
        records.close()
        with pytest.raises(CorruptRecord, match=rf"line 4 .*{wrong}"):
            recognise(tmp_path, schema=schema, validate=True)
        skipping = recognise(tmp_path, schema=schema, broken="skip")
        assert everything(skipping) == [{"a": 1, "b": "\n"}, {"a": 5, "b": "6"}]
        assert skipping.skipped == 1  # type: ignore[attr-defined]
        skipping.close()

    def test_another_header(self, tmp_path: Path) -> None:
        (tmp_path / "1.csv").write_bytes(b"a,b\n1,2\n")
        (tmp_path / "2.csv").write_bytes(b"b,a\n1,2\n")
        with pytest.raises(FormatError, match=r"2\.csv, line 1 .*not that of the first file"):
            recognise(tmp_path)

    def test_a_row_that_is_too_long(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b'a\n"' + b"x\n" * 100 + b'"\n')
        with pytest.raises(CorruptRecord, match="max_record=100"):
            recognise(tmp_path, max_record=100)

    @pytest.mark.parametrize(
        "options",
        [{"delimiter": ";;"}, {"quote": "\n"}, {"delimiter": '"'}, {"delimiter": "ü"}],
    )
    def test_a_dialect_that_cannot_be(self, path: Path, options: dict[str, str]) -> None:
        with pytest.raises(FormatError):
            recognise(path, **options)


FIELD = st.text(st.sampled_from('ab",\n\r ü'), max_size=6)


@settings(max_examples=200)
@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=12), size=st.integers(1, 40))
def test_what_is_written_comes_back(rows: list[tuple[str, str]], size: int) -> None:
    table = [["a", "b"], *map(list, rows)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_JOB_NBYTES", size)
        Path(folder, "a.csv").write_bytes(written(table))
        for lenient in (False, True):
            records = recognise(folder, lenient=lenient, workers=1)
            assert everything(records) == dicts(table)
            records.close()


RAW = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\0", b"\xff"]), max_size=40).map(
        b"".join
    ),
)


@settings(max_examples=200)
@given(raw=RAW, size=st.integers(1, 50), lenient=st.booleans())
def test_random_bytes(raw: bytes, size: int, lenient: bool) -> None:
    """Either an error of ours, or what Python's ``csv`` reads."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_JOB_NBYTES", size)
        Path(folder, "a.csv").write_bytes(b"a,b\n" + raw)
        try:
            records = recognise(
                folder, format="csv", encoding="latin-1", workers=1, lenient=lenient
            )
            found = everything(records)
        except SplitpipeError:
            return
        records.close()
        rows = csv.reader(io.StringIO(raw.decode("latin-1"), newline=""))
        assert found == [dict(zip("ab", row, strict=True)) for row in rows if row]
