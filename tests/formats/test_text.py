"""Text: every row of ``docs/formats.md`` about it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.formats import recognise
from splitpipe.formats.indexing import build
from tests.formats.reading import contents, everything, opened


class TestLines:
    @pytest.mark.parametrize(
        ("raw", "rows"),
        [
            (b"one\ntwo\n", ["one", "two"]),
            (b"one\r\ntwo", ["one", "two"]),
            (b"\xef\xbb\xbfone\n", ["one"]),
            (b"\xef\xbb\xbf", []),
            (b"", []),
            (b"\n\n", ["", ""]),
            (b" one \n\t\n", [" one ", "\t"]),
            (b"a\rb\n", ["a\rb"]),
            (b"a\0b\n", ["a\0b"]),
            (b"a\x0bb\x0cc\xe2\x80\xa8d\n", ["a\x0bb\x0cc\u2028d"]),
        ],
    )
    def test_what_a_line_is(self, tmp_path: Path, raw: bytes, rows: list[str]) -> None:
        (tmp_path / "a.txt").write_bytes(raw)
        before = contents(tmp_path)
        assert opened(tmp_path / "a.txt") == rows
        kept = [row for row in rows if row.strip(" \t\r")]
        assert opened(tmp_path / "a.txt", blank="skip") == kept
        assert contents(tmp_path) == before

    def test_of_a_folder(self, tmp_path: Path) -> None:
        for name in ("a10.txt", "a9.txt"):
            (tmp_path / name).write_text(f"{name}\nx\n")
        assert opened(tmp_path, by="line") == ["a9.txt", "x", "a10.txt", "x"]

    def test_encoding(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes("ä\nß\n".encode("latin-1"))
        assert opened(tmp_path / "a.txt", encoding="latin-1") == ["ä", "ß"]
        records = recognise(tmp_path / "a.txt")
        with pytest.raises(CorruptRecord, match=r"a\.txt, line 2 \(byte 2\): not utf-8"):
            records.read(np.array([1]), ["data"])
        records.close()
        with pytest.raises(CorruptRecord, match="line 1 "):
            recognise(tmp_path / "a.txt", validate=True)
        assert opened(tmp_path / "a.txt", broken="skip") == []


class TestParagraphs:
    @pytest.mark.parametrize(
        ("raw", "rows"),
        [
            (b"one\nmore\n\ntwo\n", ["one\nmore", "two"]),
            (b"\n\n \none\r\nmore\r\n\t\r\n\r\ntwo", ["one\r\nmore", "two"]),
            (b"\n", []),
            (b"", []),
            (b" indented\n", [" indented"]),
        ],
    )
    def test_what_a_paragraph_is(self, tmp_path: Path, raw: bytes, rows: list[str]) -> None:
        (tmp_path / "a.txt").write_bytes(raw)
        assert opened(tmp_path / "a.txt", by="paragraph") == rows

    def test_one_that_is_longer_than_a_buffer(self, tmp_path: Path) -> None:
        long = "\n".join(["x" * 1000] * 3000)
        (tmp_path / "a.txt").write_text(f"a\n\n{long}\n\nb\n")
        assert opened(tmp_path / "a.txt", by="paragraph") == ["a", long, "b"]
        with pytest.raises(CorruptRecord, match="line 3 "):
            recognise(tmp_path / "a.txt", by="paragraph", max_record=100)


class TestFiles:
    def test_a_folder_gives_its_files(self, tmp_path: Path) -> None:
        raws = [b"", b"a\r\n\n", b"\xef\xbb\xbfb", "ü".encode() * 1_000_000]
        for number, raw in enumerate(raws):
            (tmp_path / f"f{number}.txt").write_bytes(raw)
        assert opened(tmp_path) == ["", "a\r\n\n", "b", "ü" * 1_000_000]

    def test_one_that_is_too_long(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"x" * 101)
        with pytest.raises(CorruptRecord, match="max_record=100"):
            recognise(tmp_path, max_record=100)
        assert opened(tmp_path, max_record=100, broken="skip") == []

    def test_options_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x")
        for options in ({"by": "word"}, {"blank": "no"}, {"broken": "no"}):
            with pytest.raises(FormatError):
                recognise(tmp_path, **options)


RAW = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\n", b"\r", b" ", b"a", b"\xef\xbb\xbf"]), max_size=40).map(
        b"".join
    ),
)


@settings(max_examples=200)
@given(raw=RAW, size=st.integers(1, 50), by=st.sampled_from(["line", "paragraph", "file"]))
def test_random_bytes(raw: bytes, size: int, by: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_JOB_NBYTES", size)
        Path(folder, "a.txt").write_bytes(raw)
        try:
            records = recognise(folder, format="text", by=by, encoding="latin-1", workers=1)
        except SplitpipeError:
            # Its first bytes say that it is something else.
            assert raw[:2] in (b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"\x28\xb5")
            return
        found = everything(records)
        records.close()
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = lines if text and not text.endswith("\n") else lines[:-1]
    if by == "line":
        assert found == lines
    elif by == "file":
        assert found == [text]
    else:
        parts = re.split(r"(?:^|\n)(?:[ \t\r]*(?:\n|$))+", text)
        assert found == [part.removesuffix("\r") for part in parts if part.strip(" \t\r\n")]
