"""JSON Lines: every row of ``docs/formats.md`` about it, and random bytes."""

from __future__ import annotations

import json
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

ROWS = [{"id": n, "text": "ü" * (n % 7), "more": [n, None]} for n in range(500)]


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_bytes(jsonl(ROWS))
    return file


class TestGood:
    def test_a_file(self, path: Path) -> None:
        before = contents(path.parent)
        assert opened(path) == ROWS
        assert contents(path.parent) == before

    def test_cut_anywhere(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for size in (1, 7, 64, 1000):
            monkeypatch.setattr(build, "_JOB_NBYTES", size)
            assert opened(path, index_dir=path.parent / f"index{size}") == ROWS

    def test_a_folder_in_natural_order(self, tmp_path: Path) -> None:
        for name in ("b/f10.jsonl", "b/f2.ndjson", "a.JSONL", "b/.hidden.jsonl", ".h/x.jsonl"):
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(jsonl([name]))
        (tmp_path / "b" / "notes.md").write_text("not data")
        assert opened(tmp_path) == ["a.JSONL", "b/f2.ndjson", "b/f10.jsonl"]

    def test_a_list_of_files_as_given(self, tmp_path: Path) -> None:
        names = ["z.jsonl", "a.jsonl"]
        for name in names:
            (tmp_path / name).write_bytes(jsonl([name]))
        paths = [tmp_path / name for name in [*names, "z.jsonl"]]
        assert opened(paths) == ["z.jsonl", "a.jsonl", "z.jsonl"]

    def test_other_suffixes_when_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(jsonl([1]))
        assert opened(tmp_path, format="jsonl", suffixes=[".json"]) == [1]
        assert opened(tmp_path / "a.json", format="jsonl") == [1]

    @pytest.mark.parametrize(
        ("raw", "rows"),
        [
            (b'\xef\xbb\xbf{"a":1}\n', [{"a": 1}]),
            (b"1\r\n2\r\n", [1, 2]),
            (b"1\n2", [1, 2]),
            (b"1\n\n  \t\r\n\n2\n\n", [1, 2]),
            (b"", []),
            (b"\n \n", []),
            (b"\xef\xbb\xbf", []),
            (b" 1 \n\t[2]\n", [1, [2]]),
            (b"1\n1\n", [1, 1]),
            (b'{"a":1,"a":2}\n', [{"a": 2}]),
            (b"null\n", [None]),
            (b"123456789012345678901234567890\n", [123456789012345678901234567890]),
        ],
    )
    def test_what_else_may_be_in_it(self, tmp_path: Path, raw: bytes, rows: list[Any]) -> None:
        (tmp_path / "a.jsonl").write_bytes(raw)
        assert opened(tmp_path / "a.jsonl") == rows
        assert opened(tmp_path / "a.jsonl", validate=True) == rows

    def test_not_a_number(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b"NaN\n")
        assert str(opened(tmp_path / "a.jsonl")) == "[nan]"

    def test_empty_files_among_others(self, tmp_path: Path) -> None:
        for number, raw in enumerate([b"", b"1\n", b"", b"\n", b"2"]):
            (tmp_path / f"{number}.jsonl").write_bytes(raw)
        assert opened(tmp_path) == [1, 2]


class TestColumns:
    def test_as_they_stand(self, path: Path) -> None:
        assert opened(path, columns=["id"]) == [{"id": n} for n in range(500)]

    def test_with_types(self, path: Path) -> None:
        records = recognise(path, schema={"id": "int32", "text": "str"})
        batch = records.read(np.array([9, 3, 3]), ["id", "text"])
        assert isinstance(batch["id"], np.ndarray)
        assert batch["id"].dtype == np.int32
        assert batch["id"].tolist() == [9, 3, 3]
        assert batch["text"] == ["üü", "üüü", "üüü"]
        out = {"id": np.zeros(3, np.int32)}
        assert records.read(np.array([9, 3, 3]), ["id"], out)["id"] is out["id"]
        assert out["id"].tolist() == [9, 3, 3]
        records.close()

    def test_arrays(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"x":[1,2]}\n{"x":[3,4]}\n')
        records = recognise(tmp_path, schema={"x": sp.ndarray("float32", (2,))})
        assert records.read(np.array([1, 0]), ["x"])["x"].tolist() == [[3, 4], [1, 2]]  # type: ignore[union-attr]
        assert records.read(np.array([], np.int64), ["x"])["x"].shape == (0, 2)  # type: ignore[union-attr]
        records.close()

    def test_missing_values(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"n":1}\n{"n":null}\n{}\n')
        records = recognise(tmp_path, schema={"n": "int64"})
        assert everything(records) == [{"n": 1}, {"n": None}, {"n": None}]
        with pytest.raises(FormatError, match="record 2 is missing"):
            records.read(np.array([0, 2]), ["n"], {"n": np.zeros(2, np.int64)})
        records.close()

    @pytest.mark.parametrize(
        ("raw", "wrong"),
        [
            (b'{"n":300}\n', "300 is out of the range of uint8"),
            (b'{"n":"1"}\n', "field 'n'"),
            (b'{"n":1.5}\n', "field 'n'"),
            (b"[1]\n", "an object is needed"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path: Path, raw: bytes, wrong: str) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"n":1}\n' + raw)
        records = recognise(tmp_path, schema={"n": "uint8"})
        assert records.read(np.array([0]), ["n"])["n"][0] == 1
        with pytest.raises(CorruptRecord, match=wrong) as caught:
            records.read(np.array([1]), ["n"])
        assert "line 2 (byte 8)" in str(caught.value)
        records.close()
        skipping = recognise(tmp_path, schema={"n": "uint8"}, broken="skip")
        assert everything(skipping) == [{"n": 1}]
        assert skipping.skipped == 1  # type: ignore[attr-defined]
        skipping.close()

    def test_a_schema_that_cannot_be(self, path: Path) -> None:
        for schema in ("str", {"x": "bytes"}, {"x": "image"}):
            with pytest.raises(FormatError):
                recognise(path, schema=schema)
        with pytest.raises(FormatError, match="cannot name a column"):
            recognise(path, columns=["not a name"])


BROKEN = [
    (b"{\n", "not JSON: Expecting property name"),
    (b'{"a":1} {"b":2}\n', "not JSON: Extra data"),
    (b'"\xff"\n', "not UTF-8"),
    (b'"a\0b"\n', "not JSON: Invalid control character"),
    (b"\0\n", "not JSON"),
    (b"\x0c\n", "not JSON"),
    (b"[" * 100_000 + b"\n", "nested too deeply"),
    (b"1" * 5000 + b"\n", "digits"),
]


class TestBroken:
    @pytest.mark.parametrize(("raw", "wrong"), BROKEN)
    def test_is_found_and_named(self, tmp_path: Path, raw: bytes, wrong: str) -> None:
        file = tmp_path / "a.jsonl"
        file.write_bytes(b"1\n\n" + raw + b"2\n")
        place = rf"a\.jsonl, line 3 \(byte 3\): .*{wrong}"
        records = recognise(file)
        assert records.read(np.array([2, 0]), ["data"])["data"] == [2, 1]
        with pytest.raises(CorruptRecord, match=place):
            records.read(np.array([0, 1]), ["data"])
        records.close()
        with pytest.raises(CorruptRecord, match=place):
            recognise(file, validate=True)
        skipping = recognise(file, broken="skip")
        assert everything(skipping) == [1, 2]
        assert skipping.skipped == 1  # type: ignore[attr-defined]
        skipping.close()

    def test_a_line_that_is_too_long(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        for long in (b"1" * 101, b"1" * (3 << 20)):
            file.write_bytes(b"1\n" + long + b"\n2\n")
            with pytest.raises(CorruptRecord, match=r"line 2 \(byte 2\).*max_record=100"):
                recognise(file, max_record=100)
            records = recognise(file, max_record=100, broken="skip")
            assert everything(records) == [1, 2]
            assert records.skipped == 1  # type: ignore[attr-defined]
            records.close()
        file.write_bytes(b"1\n" + b"7" * 100 + b"\r\n" + b"2" * (2 << 20))
        records = recognise(file, max_record=100, broken="skip")
        assert everything(records) == [1, int(b"7" * 100)]
        records.close()

    @pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
    def test_utf16(self, tmp_path: Path, mark: bytes) -> None:
        (tmp_path / "a.jsonl").write_bytes(mark + "1\n".encode("utf-16-le"))
        with pytest.raises(FormatError, match=r"UTF-16.*iconv"):
            recognise(tmp_path)

    def test_a_folder_without_any(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="no file for format 'jsonl'"):
            recognise(tmp_path, format="jsonl")

    def test_what_to_do_that_is_neither(self, path: Path) -> None:
        with pytest.raises(FormatError, match="'raise' or 'skip'"):
            recognise(path, broken="ignore")


def reference(raw: bytes) -> list[Any]:
    """What ought to be read, said in the plainest way."""
    rows = []
    for line in raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if line.removesuffix(b"\r").strip(b" \t\r"):
            try:
                rows.append(json.loads(line.decode()))
            except (ValueError, RecursionError):
                rows.append(ValueError)
    return rows


PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b" ", b"1", b"{", b"}", b'"', b'"a":', b"\xef\xbb\xbf", b"\0", b"\xff"]
)
RAW = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=60).map(b"".join))


@settings(max_examples=300)
@given(raw=RAW, size=st.integers(1, 50))
def test_random_bytes(raw: bytes, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_JOB_NBYTES", size)
        file = Path(folder, "a.jsonl")
        file.write_bytes(raw)
        try:
            skipping = recognise(file, format="jsonl", broken="skip", workers=1)
        except FormatError:
            # Its first bytes say that it is something else.
            assert raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"))
            return
        rows = reference(raw)
        assert repr(everything(skipping)) == repr([row for row in rows if row is not ValueError])
        assert skipping.skipped == rows.count(ValueError)  # type: ignore[attr-defined]
        skipping.close()
        records = recognise(file, format="jsonl", workers=1)
        assert len(records) == len(rows)
        for row, expected in enumerate(rows):
            try:
                (found,) = records.read(np.array([row]), ["data"])["data"]
            except SplitpipeError:
                found = ValueError
            assert repr(found) == repr(expected)
        records.close()
