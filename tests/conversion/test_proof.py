"""The proof finds every difference, and names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.conversion.proof import differs
from splitpipe.schema import Field
from tests.conversion.making import write_every_kind

COUNT = 40


def between(action: Callable[[], object]) -> Callable[[str, int, int], None]:
    """Progress that does something between the copy and the proof."""

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("compare", 0):
            action()

    return progress


class TestAChangeInBetween:
    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("x", 0.5),
            ("raw", b"other"),
            ("info", {"tags": []}),
            ("free", np.zeros((0, 5), np.uint16)),
            ("small", None),
        ],
    )
    def test_of_the_copy(self, tmp_path: Path, workers: int, name: str, value: Any) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        copy = tmp_path / "copy"

        def change() -> None:
            with sp.DatasetWriter(copy, append=True) as writer:
                writer.update(17, {name: value})

        with pytest.raises(sp.CorruptRecord, match=rf"column '{name}' of record 17 of .*copy is"):
            sp.convert(source, copy, workers=workers, bins=1, progress=between(change))

    def test_of_metadata(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        copy = tmp_path / "copy"

        def change() -> None:
            with sp.DatasetWriter(copy, append=True) as writer:
                writer.update(20, meta={"lang": "de"})

        with pytest.raises(sp.CorruptRecord, match=r"the metadata of record 20 of .*'de'"):
            sp.convert(source, copy, workers=0, bins=1, progress=between(change))

    def test_of_the_number_of_records(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        copy = tmp_path / "copy"

        def change() -> None:
            with sp.DatasetWriter(copy, append=True) as writer:
                writer.delete(3)

        with pytest.raises(sp.FormatError, match=f"has {COUNT - 1} records of {COUNT}"):
            sp.convert(source, copy, workers=0, bins=1, progress=between(change))

    def test_of_the_source(self, tmp_path: Path) -> None:
        """In place, and so that neither size nor time tells."""
        source = tmp_path / "a.jsonl"
        source.write_text("".join(f'{{"n": {n}}}\n' for n in range(10, 60)))
        before = source.stat()

        def change() -> None:
            source.write_text(source.read_text().replace("31", "99"))
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

        with pytest.raises(sp.CorruptRecord, match=r"'data' of record 21 of .*31}, in .*99}"):
            sp.convert(source, tmp_path / "copy", workers=0, bins=1, progress=between(change))

    def test_of_a_byte_on_the_disk(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        copy = tmp_path / "copy"

        def change() -> None:
            victim = copy / "v0001-c001-b00000.bin"
            data = bytearray(victim.read_bytes())
            data[-1] ^= 1
            victim.write_bytes(data)

        with pytest.raises(sp.CorruptRecord, match=r"record \d+ of .*copy: .*b00000"):
            sp.convert(source, copy, workers=0, bins=1, progress=between(change))


SAME: list[tuple[str, Any, Any]] = [
    ("float64", float("nan"), float("nan")),
    ("float64", 1.5, np.float64(1.5)),
    ("bool", True, np.True_),
    ("datetime64[s]", np.datetime64(3, "s"), np.datetime64(3, "s")),
    ("json", (1, {2: (None,)}), [1, {"2": [None]}]),
    ("json", float("nan"), float("nan")),
    ("bytes", b"a", bytearray(b"a")),
    ("image", b"a", memoryview(b"a")),
    ("pickle", {"a": np.arange(3)}, {"a": np.arange(3)}),
    ("str", "é", "é"),
]
OTHER: list[tuple[str, Any, Any]] = [
    ("float64", 0.0, -0.0),
    ("float64", 0.0, None),
    ("int64", 1, 2),
    ("complex128", 0j, complex(0, -0.0)),
    ("datetime64[s]", np.datetime64(3, "s"), np.datetime64("NaT", "s")),
    ("json", 1, 1.0),
    ("json", [0.0], [-0.0]),
    ("json", 1, True),
    ("json", {"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ("json", None, []),
    ("bytes", b"a", b"b"),
    ("bytes", b"", None),
    ("str", "\u00e9", "e\u0301"),
    ("pickle", {"a": 1}, {"a": 1.0}),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_the_same(kind: str, one: Any, other: Any) -> None:
    assert differs(Field.parse(kind), [None, one], [None, other]) is None
    assert differs(Field.parse(kind), [one], [other]) is None


@pytest.mark.parametrize(("kind", "one", "other"), OTHER)
def test_not_the_same(kind: str, one: Any, other: Any) -> None:
    field = Field.parse(kind)
    assert differs(field, [one, one], [one, other]) == 1
    assert differs(field, [other, None], [one, None]) == 0


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3), np.float64),
        np.full((2, 3), -0.0, np.float32),
        np.zeros((0, 3), np.float32),
    ],
    ids=["shape", "dtype", "sign", "empty"],
)
def test_arrays_that_are_not_the_same(other: np.ndarray[Any, Any]) -> None:
    array = np.zeros((2, 3), np.float32)
    assert differs(sp.ndarray("float32"), [array, array], [array.copy(), other]) == 1
    assert differs(sp.ndarray("float32"), [array], [np.asfortranarray(array)]) is None


def test_blocks_of_arrays_differ_where_their_rows_do() -> None:
    rows = np.arange(12.0).reshape(4, 3)
    other = rows.copy()
    other[2, 1] = np.nan
    field = sp.ndarray("float64", (3,))
    assert differs(field, rows, other) == 2
    assert differs(field, rows, list(rows)) is None
    assert differs(field, list(rows), [rows[0], None, rows[2], rows[3]]) == 1
