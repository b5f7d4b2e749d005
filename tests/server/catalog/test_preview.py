"""What people are shown of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import FormatError, InvalidRequest, NotFound
from splitpipe.schema import Field
from splitpipe.server.catalog import Datasets
from splitpipe.server.catalog.figures import EXACT, Distinct, figures
from splitpipe.server.catalog.media import PLAIN, sniffed
from splitpipe.server.catalog.preview import shown

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
BEGINNINGS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "image/gif": b"GIF89a" + bytes(20),
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "image/avif": b"\x00\x00\x00\x20ftypavif" + bytes(8),
    "image/bmp": b"BM" + bytes(12) + b"\x28\x00\x00\x00" + bytes(8),
    "audio/wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "audio/flac": b"fLaC" + bytes(8),
    "audio/ogg": b"OggS" + bytes(24) + b"\x01vorbis",
    "audio/mpeg": b"\xff\xfb\x90\x00" + bytes(8),
    "audio/mp4": b"\x00\x00\x00\x20ftypM4A " + bytes(8),
    "video/mp4": b"\x00\x00\x00\x20ftypisom" + bytes(8),
    "video/webm": b"\x1aE\xdf\xa3" + bytes(4) + b"\x42\x82\x84webm",
    "video/ogg": b"OggS" + bytes(24) + b"\x80theora",
}


class TestMedia:
    @pytest.mark.parametrize("mime", BEGINNINGS)
    def test_what_browsers_show(self, mime: str) -> None:
        assert sniffed(BEGINNINGS[mime]) == mime

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"<html><script>alert(1)</script>",
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            b"<?xml version='1.0'?><svg/>",
            b"%PDF-1.7",
            b"BM is how this text begins",
            b"\xff\xff\xff\xff",
            b"RIFF....XXXX",
            b"\x00\x00\x00\x20ftypqt  ",
            b"\x80\x04\x95" + bytes(20),
        ],
    )
    def test_what_is_plain_bytes(self, data: bytes) -> None:
        assert sniffed(data) == PLAIN

    def test_of_a_dataset(self, catalog: Datasets, data: Path) -> None:
        with sp.DatasetWriter(data / "m", {"i": "image", "n": "int64", "t": "str"}) as writer:
            writer.write_many([{"i": PNG, "n": 1, "t": "é"}, {"i": None, "n": 2, "t": "b"}])
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        assert catalog.media("d", 0, "i") == ("image/png", PNG)
        assert catalog.media("d", 0, "t") == (PLAIN, "é".encode())
        for row, column, error in (
            (1, "i", NotFound),
            (2, "i", NotFound),
            (-1, "i", NotFound),
            (0, "n", InvalidRequest),
            (0, "x", FormatError),
        ):
            with pytest.raises(error):
                catalog.media("d", row, column)


class TestPreview:
    @pytest.mark.parametrize(
        ("field", "value", "told"),
        [
            ("int64", 3, 3),
            ("int64", -(2**53) - 1, {"kind": "number", "text": "-9007199254740993"}),
            ("float64", 0.5, 0.5),
            ("float64", float("inf"), {"kind": "number", "text": "inf"}),
            ("bool", True, True),
            ("str", "<b>", "<b>"),
            ("str", "\ud800", "?"),
            ("datetime64[s]", np.datetime64(0, "s"), None),
            ("complex128", 1 + 2j, {"kind": "number", "text": "(1+2j)"}),
            ("bytes", b"abc", {"kind": "bytes", "mime": PLAIN, "nbytes": 3}),
            ("image", PNG, {"kind": "image", "mime": "image/png", "nbytes": len(PNG)}),
            ("json", {"a": [1]}, {"kind": "json", "text": '{"a": [1]}', "length": 10}),
            ("json", 7, 7),
            ("str", None, None),
        ],
    )
    def test_values(self, field: str, value: Any, told: Any) -> None:
        found = shown(Field.parse(field), value)
        json.dumps(found, allow_nan=False)
        if told is not None or value is None:
            assert found == told

    def test_long_ones_are_cut(self) -> None:
        text = shown(Field("str"), "x" * 10**6)
        assert (len(text["text"]), text["length"]) == (2000, 10**6)
        array = shown(sp.ndarray("float32", (None, None)), np.full((100, 100), np.nan, np.float32))
        assert (array["shape"], len(array["head"])) == ([100, 100], 16)
        assert array["head"][0] == {"kind": "number", "text": "nan"}
        value = shown(Field("json"), ["y" * 100] * 1000)
        assert len(value["text"]) == 2000

    def test_pages(self, catalog: Datasets, data: Path) -> None:
        with sp.DatasetWriter(data / "m") as writer:
            writer.write_many({"n": n, "t": str(n)} for n in range(10))
        catalog.create("d")
        catalog.add_column_set("d", "main", location="m", format="bins")
        told = catalog.preview("d", offset=8, limit=5, columns=["t"])
        assert told["total"] == 10
        assert told["rows"] == [{"row": n, "values": {"t": str(n)}} for n in (8, 9)]
        assert [column["name"] for column in told["columns"]] == ["t"]
        assert catalog.preview("d", offset=99)["rows"] == []
        for more in ({"offset": -1}, {"limit": 1001}, {"limit": -1}):
            with pytest.raises(InvalidRequest):
                catalog.preview("d", **more)
        with pytest.raises(FormatError):
            catalog.preview("d", columns=["x"])

    def test_one_that_cannot_be_read_hides_no_other(self, catalog: Datasets, data: Path) -> None:
        (data / "f").mkdir()
        (data / "f" / "a.csv").write_text("n\n1\n2\nthree\n4\n")
        catalog.create("d")
        catalog.add_column_set("d", "main", location="f", format="csv", columns={"n": "int64"})
        rows = catalog.preview("d")["rows"]
        assert [row.get("values") for row in rows] == [{"n": 1}, {"n": 2}, None, {"n": 4}]
        assert "a.csv" in rows[2]["error"]
        assert "'three'" in rows[2]["error"]


class TestFigures:
    def test_distinct_beyond_what_is_exact(self) -> None:
        seen = Distinct()
        for start in range(0, 300_000, 50_000):
            seen.add(Field.parse("int64"), np.arange(start, start + 50_000) // 2)
        assert not seen.exact
        assert abs(seen.count - 150_000) < 5_000
        few = Distinct()
        few.add(Field.parse("int64"), np.arange(EXACT))
        assert (few.count, few.exact) == (EXACT, True)

    def test_all_kinds(self, data: Path) -> None:
        schema = {
            "n": "int64",
            "x": "float32",
            "b": "bool",
            "t": "str",
            "j": "json",
            "v": sp.ndarray("float32", (None,)),
            "i": "image",
            "d": "datetime64[s]",
        }
        with sp.DatasetWriter(data / "m", schema) as writer:
            for n in range(50):
                writer.write(
                    {
                        "n": n if n % 2 else None,
                        "x": np.nan if n == 7 else n / 2,
                        "b": n % 2 == 0,
                        "t": f"t{n % 3}",
                        "j": {"a": n},
                        "v": np.arange(n % 4, dtype=np.float32),
                        "i": PNG,
                        "d": np.datetime64(n, "s"),
                    }
                )
        with sp.open_dataset(data / "m") as opened:
            told = figures(opened)
        json.dumps(told, allow_nan=False)
        by_name = {column["name"]: column for column in told["columns"]}
        assert (by_name["n"]["count"], by_name["n"]["missing"]) == (25, 25)
        assert by_name["x"]["not_finite"] == 1
        assert by_name["b"]["distinct"]["count"] == 2
        assert dict(map(tuple, by_name["t"]["common"])) == {"t0": 17, "t1": 17, "t2": 16}
        assert by_name["i"]["distinct"]["count"] == 1
        assert by_name["i"]["common"] == [["png", 50]]
        assert by_name["j"]["members"] == [["a", 50]]
        assert by_name["v"]["distinct"]["count"] == 4
        for column in told["columns"]:
            assert len(column["lengths"]["counts"]) <= 32
