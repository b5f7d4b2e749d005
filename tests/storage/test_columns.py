"""Datasets of columns: what is written is read, by every way, and nothing else is written."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from splitpipe.codecs import Zstd
from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.schema import Field, Schema, image, ndarray
from splitpipe.storage import DatasetWriter, base, check_dataset, describe, intake
from splitpipe.storage.table import OpenOptions, open_table
from tests.storage.tables import SCHEMA, assert_table, made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records = made(700)
    with DatasetWriter(tmp_path / "ds", SCHEMA, bins=3) as w:
        for record in records[:50]:
            w.write(record)
        w.write_many(records[50:300])
        w.commit()
        w.write_many(iter(records[300:]))
        assert w.rows == 700
    assert_table(tmp_path / "ds", records)


def test_the_first_record_says_what_records_are(tmp_path: Path) -> None:
    for many in (False, True):
        path = tmp_path / str(many)
        with DatasetWriter(path) as w:
            assert w.schema is None
            records = [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]
            if many:
                w.write_many(iter(records))
            else:
                for record in records:
                    w.write(record)
            assert w.schema == Schema({"a": "int64", "b": "str"})
        assert_table(path, records)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "", None, "ü"],
        [1, -1, None],
        [b"x", None, b""],
        [[1, {"a": None}], {}],
        [np.arange(3.0), None],
        [True, False],
    ],
)
def test_records_may_be_plain_values(tmp_path: Path, values: list[Any]) -> None:
    with DatasetWriter(tmp_path / "ds", bins=2) as w:
        w.write_many(values)
    assert_table(tmp_path / "ds", values)
    assert open_table(tmp_path / "ds").schema.bare


def test_absent_fields_are_missing(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds", {"a": "int8", "b": "str"}) as w:
        w.write_many([{"b": "x"}, {}, {"a": 3, "b": None}])
    assert_table(
        tmp_path / "ds", [{"a": None, "b": "x"}, {"a": None, "b": None}, {"a": 3, "b": None}]
    )


def test_an_empty_dataset_knows_its_schema(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds", SCHEMA):
        pass
    assert_table(tmp_path / "ds", [])
    assert open_table(tmp_path / "ds").schema == SCHEMA
    with DatasetWriter(tmp_path / "ds") as w:
        w.write_many(made(5))
    assert_table(tmp_path / "ds", made(5))


def test_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ds"
    with DatasetWriter(path, SCHEMA, bins=2) as w:
        w.write_many(made(150))
    with DatasetWriter(path, append=True) as w:
        w.write_many(made(150, 150))
    with DatasetWriter(path, SCHEMA, append=True, bins=3) as w:
        w.write_many(made(50, 300))
    assert_table(path, made(350))
    assert len(describe(path).segments) == 2
    with pytest.raises(FormatError, match="has records of"):
        DatasetWriter(path, {"text": "str"}, append=True)
    with DatasetWriter(path, overwrite=True) as w:
        w.write(b"plain")
    assert_table(path, [b"plain"])


class TestRefusing:
    WRONG = (
        ({"n": "x"}, "record 3: field 'n'"),
        ({"trio": [1, 2]}, r"record 3: field 'trio': its shape is \(2,\)"),
        ({"text": 1}, "record 3: field 'text': a str is needed"),
        ({"other": 1}, "record 3: field 'other': there is no such column"),
        (b"bytes", "record 3: a record must be a dict"),
    )

    @pytest.mark.parametrize(("wrong", "message"), WRONG)
    def test_a_record_that_does_not_fit_leaves_nothing(
        self, tmp_path: Path, wrong: Any, message: str
    ) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, SCHEMA, bins=2) as w:
            w.write_many(made(3))
            for write in (w.write, lambda record: w.write_many([record])):
                with pytest.raises(FormatError, match=message):
                    write(wrong)
                assert w.rows == 3
            w.write_many(made(2, 3))
        assert_table(path, made(5))

    def test_what_came_before_it_in_a_list_is_added(self, tmp_path: Path) -> None:
        with DatasetWriter(tmp_path / "ds", SCHEMA) as w:
            with pytest.raises(FormatError, match="record 2"):
                w.write_many([*made(2), {"n": "x"}, *made(5)])
            assert w.rows == 2
        assert_table(tmp_path / "ds", made(2))

    def test_an_iterator_that_fails_keeps_what_it_gave(self, tmp_path: Path) -> None:
        def broken() -> Iterator[Any]:
            yield from made(4)
            raise ZeroDivisionError

        with DatasetWriter(tmp_path / "ds", SCHEMA) as w:
            with pytest.raises(ZeroDivisionError):
                w.write_many(broken())
            assert w.rows == 4
        assert_table(tmp_path / "ds", made(4))

    def test_options_are_checked(self, tmp_path: Path) -> None:
        for options, kind in (
            ({"keys": "some"}, FormatError),
            ({"compression": "lz4"}, FormatError),
            ({"compression": {"other": "zstd"}}, FormatError),
            ({"metadata": {"a": "text"}}, FormatError),
            ({"colour": "red"}, TypeError),
        ):
            with pytest.raises(kind):
                DatasetWriter(tmp_path / "ds", {"a": "str"}, **options)
            assert not (tmp_path / "ds" / "v0001-c000-b00000.bin").exists()


class TestReading:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with DatasetWriter(tmp_path / "ds", SCHEMA, bins=3) as w:
            w.write_many(made(200))
        return tmp_path / "ds"

    def test_fills_the_array_that_is_given(self, path: Path) -> None:
        table = open_table(path)
        out = np.zeros((4, 3), dtype=np.int16)
        batch = table.read(np.array([5, 1, 5, 199]), ["n", "trio"], {"trio": out})
        assert list(batch) == ["n", "trio"]
        assert batch["trio"] is out
        assert out[:, 0].tolist() == [5, 1, 5, 199]
        table.close()

    @pytest.mark.parametrize(
        ("name", "out", "message"),
        [
            ("trio", np.zeros((2, 3), dtype=np.int32), "of dtype int16"),
            ("trio", np.zeros((3, 2), dtype=np.int16), r"of shape \(2, 3\)"),
            ("trio", np.zeros((3, 2), dtype=np.int16).T, "C-contiguous"),
            ("trio", [1], "must be a numpy array"),
            ("text", np.zeros(2), "gives a list"),
            ("score", np.zeros(2, dtype=np.float32), "field 'score' of record 2 is missing"),
        ],
    )
    def test_refuses_an_array_that_does_not_fit(
        self, path: Path, name: str, out: Any, message: str
    ) -> None:
        table = open_table(path)
        with pytest.raises(FormatError, match=message):
            table.read(np.array([1, 2]), [name], {name: out})
        table.close()

    def test_touches_only_the_columns_that_are_asked_for(self, path: Path) -> None:
        for name in os.listdir(path):
            if "-c002-" not in name and name.endswith(".bin"):
                (path / name).write_bytes(b"")
        table = open_table(path)
        rows = np.arange(200, dtype=np.int64)
        assert table.read(rows, ["n"])["n"].tolist() == list(range(200))
        with pytest.raises(FormatError):
            table.read(rows, ["text"])
        table.close()

    def test_says_which_field_of_which_record_is_damaged(self, path: Path) -> None:
        file = path / "v0001-c000-b00000.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(b"33,")] ^= 1
        file.write_bytes(raw)
        table = open_table(path)
        rows = np.arange(200, dtype=np.int64)
        for read in (
            lambda: table.get(33),
            lambda: table.read(rows, ["text"]),
            lambda: list(table.iterate_rows(0, 200)),
        ):
            with pytest.raises(CorruptRecord, match="record 33"):
                read()
        assert [f.row for f in check_dataset(path).findings] == [0, 33]
        table.close()
        trusting = open_table(path, OpenOptions(verify=False))
        assert trusting.get(33)["text"] != made(200)[33]["text"]
        assert trusting.get(14)["text"] is None
        trusting.close()

    def test_closed_says_so(self, path: Path) -> None:
        table = open_table(path)
        table.close()
        table.close()
        with pytest.raises(StorageError, match="closed"):
            table.get(0)

    def test_needs_every_file_that_the_manifest_names(self, path: Path) -> None:
        (path / "v0001-c003.index").unlink()
        with pytest.raises(StorageError, match="splitpipe repair"):
            open_table(path)
        report = check_dataset(path)
        assert not report.ok
        assert "v0001-c003.index" in report.findings[0].message

    def test_large_values_are_read_in_bounded_blocks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "BLOCK_NBYTES", 100_000)
        with DatasetWriter(tmp_path / "large", {"a": "bytes", "b": "str"}) as w:
            w.write_many({"a": bytes(10_000), "b": None} for _ in range(100))
        table = open_table(tmp_path / "large")
        sizes: list[int] = []
        real = table.read

        def read(rows: Any, *rest: Any) -> Any:
            sizes.append(len(rows))
            return real(rows, *rest)

        with mock.patch.object(table, "read", read):
            assert len(list(table.iterate_rows(0, 100))) == 100
        assert max(sizes) <= 16
        table.close()


class TestCompression:
    def test_of_all_columns_that_gain(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, SCHEMA, bins=2, compression="zstd") as w:
            w.write_many(made(300))
        table = open_table(path)
        compressed = [name for name, field in table.schema.items() if field.compression]
        assert compressed == ["text", "trio", "any", "more"]
        table.close()
        assert_table(path, made(300))
        with DatasetWriter(path, append=True) as w:
            w.write_many(made(10, 300))
        assert_table(path, made(310))

    def test_of_some_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, SCHEMA, compression={"text": Zstd(level=9)}) as w:
            w.write_many(made(20))
        assert [c.type for c in describe(path).details][:2] == ["str zstd", "ndarray int16 (3)"]
        assert_table(path, made(20))

    @pytest.mark.parametrize("said", [True, False])
    def test_a_dictionary_is_trained_from_the_first_records(
        self, tmp_path: Path, said: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake, "TRAINING_NBYTES", 30_000)
        monkeypatch.setattr("splitpipe.storage.buffer.TRAINING_NBYTES", 30_000)
        texts = [f"{n}: some words that come again and again, {n % 3} times" for n in range(3000)]
        path = tmp_path / "ds"
        zstd = Zstd(dictionary=True)
        with DatasetWriter(path, "str" if said else None, bins=4, compression=zstd) as w:
            w.write_many(texts[:100])
            w.write_many(iter(texts[100:]))
        assert (path / "v0001-c000.dictionary").stat().st_size > 1000
        assert_table(path, texts)
        raw = sum(len(text) for text in texts)
        assert describe(path).record_nbytes < 0.45 * raw
        with DatasetWriter(path, append=True) as w:
            w.write_many(texts[:10])
        assert_table(path, texts + texts[:10])
        assert describe(path).record_nbytes < 0.45 * raw * 1.01

    def test_a_dictionary_of_ones_own(self, tmp_path: Path) -> None:
        from splitpipe.codecs import train

        texts = [b"%d: some words that come again" % n for n in range(500)]
        own = train(texts)
        with DatasetWriter(tmp_path / "ds", compression=Zstd(dictionary=own)) as w:
            w.write_many(texts[:5])
        assert own in (tmp_path / "ds" / "v0001-c000.dictionary").read_bytes()
        assert_table(tmp_path / "ds", texts[:5])

    def test_too_few_records_for_a_dictionary(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, compression=Zstd(dictionary=True)) as w:
            w.write_many([b"a", b"b"])
            w.commit()
            w.write_many([b"c"] * 100)
        assert not (path / "v0001-c000.dictionary").exists()
        assert_table(path, [b"a", b"b"] + [b"c"] * 100)

    def test_a_damaged_dictionary_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, compression=Zstd(dictionary=True)) as w:
            w.write_many(b"%d: some words that come again" % n for n in range(500))
        file = path / "v0001-c000.dictionary"
        whole = file.read_bytes()
        for place in (3, 70, len(whole) - 1):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(FormatError, match="dictionary"):
                open_table(path)
            assert not check_dataset(path).ok
        file.write_bytes(whole[:-1])
        with pytest.raises(FormatError, match="were committed"):
            open_table(path)
        file.unlink()
        with pytest.raises(StorageError):
            open_table(path)


class TestSpecialColumns:
    def test_pickles_are_read_only_when_the_reader_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, {"any": "pickle"}) as w:
            w.write_many([{"any": {1, 2}}, {"any": None}])
        table = open_table(path)
        with pytest.raises(FormatError, match=r"field 'any' of record 0: .*allow_pickle=True"):
            table.get(0)
        assert table.get(1) == {"any": None}
        table.close()
        table = open_table(path, OpenOptions(allow_pickle=True))
        assert table.get(0) == {"any": {1, 2}}
        table.close()
        assert check_dataset(path).ok

    def test_images_are_bytes_until_they_are_decoded(self, tmp_path: Path) -> None:
        pytest.importorskip("PIL.Image")
        path = tmp_path / "ds"
        pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
        with DatasetWriter(path, image()) as w:
            w.write(pixels)
        table = open_table(path)
        assert table.get(0).startswith(b"\x89PNG")
        table.close()
        table = open_table(path, OpenOptions(decode=True))
        assert np.array_equal(np.asarray(table.get(0)), pixels)
        table.close()

    def test_arrays_without_elements(self, tmp_path: Path) -> None:
        records = [{"a": np.zeros((0, 3), dtype=np.int8), "b": np.zeros((2, 0))} for _ in range(70)]
        schema = {"a": ndarray("int8", (None, 3)), "b": ndarray("float64", (2, 0))}
        with DatasetWriter(tmp_path / "ds", schema, bins=1) as w:
            w.write_many(records)
        assert_table(tmp_path / "ds", records)

    def test_a_hundred_columns(self, tmp_path: Path) -> None:
        schema = {f"c{n}": Field.parse("int32") for n in range(100)}
        records = [{f"c{n}": n * row for n in range(100)} for row in range(40)]
        with DatasetWriter(tmp_path / "ds", schema, bins=16) as w:
            w.write_many(records)
        assert_table(tmp_path / "ds", records)


def test_values_of_every_length_in_any_chunks(tmp_path: Path) -> None:
    rng = random.Random(0)
    records = [
        {"a": rng.randbytes(rng.choice([0, 1, 10, 1000])), "b": rng.choice([None, 1.5])}
        for _ in range(2000)
    ]
    with DatasetWriter(tmp_path / "ds", {"a": "bytes", "b": "float64"}, bins=7) as w:
        at = 0
        while at < len(records):
            step = rng.choice([1, 2, 100, 700])
            w.write_many(records[at : at + step])
            at += step
            if rng.random() < 0.3:
                w.commit()
    assert_table(tmp_path / "ds", records)
