"""Parquet files, written by pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Source
from splitpipe.formats.columnar import parquet
from splitpipe.formats.columnar.parquet import FORMAT
from tests.formats.damage import all_of, mutations, open_as, read_plainly, survives, truncations
from tests.formats.reading import contents
from tests.formats.tables import ROWS, expected, table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    if int(pa.__version__.partition(".")[0]) < 26:
        pytest.skip("before version 26 pyarrow does not write missing arrays of one shape")
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=13, write_page_checksum=True)
    return tmp_path / "a.parquet"


class TestGood:
    def test_every_type(self, path: Path) -> None:
        before = contents(path.parent)
        assert repr(all_of(FORMAT, path)) == repr(expected())
        assert contents(path.parent) == before

    def test_the_columns(self, path: Path) -> None:
        schema = open_as(FORMAT, path).schema
        assert {name: repr(field) for name, field in schema.items()} == {
            "int32": "Field('int32')",
            "some": "Field('int64')",
            "flag": "Field('bool')",
            "half": "Field('float16')",
            "text": "Field('str')",
            "large_text": "Field('str')",
            "raw": "Field('bytes')",
            "digest": "Field('bytes')",
            "point": "Field('ndarray', 'float32', (3,))",
            "grid": "Field('ndarray', 'int16', (2, 2))",
            "tokens": "Field('ndarray', 'uint16', (None,))",
            "words": "Field('json')",
            "ragged": "Field('json')",
            "info": "Field('json')",
            "pairs": "Field('json')",
            "moment": "Field('str')",
            "day": "Field('str')",
            "price": "Field('str')",
            "took": "Field('int64')",
            "nothing": "Field('json')",
            "a_b_c": "Field('int64')",
        }

    def test_a_folder_in_natural_order(self, tmp_path: Path) -> None:
        for number in (10, 9, 1):
            pq.write_table(pa.table({"n": [number]}), tmp_path / f"part{number}.parquet")
        assert [one["n"] for one in all_of(FORMAT, tmp_path)] == [1, 9, 10]

    def test_a_row_group_is_a_bin(self, path: Path) -> None:
        bins = open_as(FORMAT, path).layout().bins()
        assert [len(rows) for rows in bins] == [13, 13, 13, 13, 8]

    def test_arrays_of_stackable_columns(self, path: Path) -> None:
        records = open_as(FORMAT, path)
        rows = np.array([58, 0, 30, 0])
        out = np.empty((4, 3), np.float32)
        batch: Any = records.read(rows, ["point", "int32", "some", "flag"], {"point": out})
        assert batch["point"] is out
        assert out[:, 0].tolist() == [58, 0, 30, 0]
        assert batch["int32"].tolist() == [58, 0, 30, 0]
        assert batch["flag"].tolist() == [True, True, True, True]
        assert batch["some"].tolist() == [58, 0, 30, 0]
        assert records.read(np.array([3, 4]), ["some"])["some"] == [None, 4]
        with pytest.raises(FormatError, match="'some' of record 3 is missing"):
            records.read(np.array([4, 3]), ["some"], {"some": np.empty(2, np.int64)})

    def test_only_the_columns_that_are_read_are_decoded(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[tuple[int, str]] = []
        decode = parquet.ParquetRecords._decode

        def told(self: Any, chunk: int, name: str) -> Any:
            decoded.append((chunk, name))
            return decode(self, chunk, name)

        monkeypatch.setattr(parquet.ParquetRecords, "_decode", told)
        records = open_as(FORMAT, path)
        records.read(np.array([14, 2, 15]), ["int32", "text"])
        records.read(np.array([1]), ["text"])
        assert sorted(decoded) == [(0, "int32"), (0, "text"), (1, "int32"), (1, "text")]

    def test_a_cache_that_holds_nothing(self, path: Path) -> None:
        assert repr(all_of(FORMAT, path, cache_nbytes=0)) == repr(expected())

    def test_a_file_under_another_name(self, path: Path) -> None:
        path.rename(path.with_name("data"))
        assert len(all_of(FORMAT, path.with_name("data"))) == ROWS

    def test_no_rows(self, tmp_path: Path) -> None:
        pq.write_table(table().slice(0, 0), tmp_path / "a.parquet")
        assert all_of(FORMAT, tmp_path) == []


class TestRefused:
    def test_files_with_other_columns(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"n": ["1"]}), tmp_path / "b.parquet")
        with pytest.raises(FormatError, match=r"b\.parquet has other columns than .*a\.parquet"):
            open_as(FORMAT, tmp_path)

    def test_a_number_missing_inside_of_a_list(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"n": [[1], [1, None]]}), tmp_path / "a.parquet")
        records = open_as(FORMAT, tmp_path)
        assert records.read(np.array([0]), ["n"])["n"][0].tolist() == [1]
        with pytest.raises(FormatError, match="a number that is missing"):
            records.read(np.array([1]), ["n"])

    def test_a_file_that_changed_since(self, path: Path) -> None:
        records = open_as(FORMAT, path)
        again, arguments = records.__reduce__()[:2]  # type: ignore[misc]
        pq.write_table(table().slice(0, 5), path)
        with pytest.raises(FormatError, match="not what it was"):
            again(*arguments)  # type: ignore[operator]

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=r"no file that ends in \.parquet"):
            open_as(FORMAT, tmp_path)
        assert not FORMAT.recognises(Source.at(tmp_path))


class TestDamage:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        few = table().select(["int32", "some", "text", "point", "tokens", "info"]).slice(0, 5)
        pq.write_table(few, tmp_path / "a.parquet", row_group_size=3, write_page_checksum=True)
        return tmp_path / "a.parquet"

    def test_a_page_with_a_flipped_bit(self, small: Path) -> None:
        whole = small.read_bytes()
        first = pq.ParquetFile(small).metadata.row_group(0).column(0)
        data = bytearray(whole)
        data[first.data_page_offset + first.total_compressed_size - 1] ^= 1
        small.write_bytes(data)
        with pytest.raises(CorruptRecord, match=r"row group 0 of .*a\.parquet"):
            read_plainly(FORMAT, small)

    def test_cut(self, small: Path) -> None:
        for _ in truncations(small, step=29):
            assert survives(lambda: read_plainly(FORMAT, small)) is None

    def test_mutated_pages(self, small: Path) -> None:
        whole = read_plainly(FORMAT, small)
        size = small.stat().st_size
        footer = int.from_bytes(small.read_bytes()[-8:-4], "little")
        for _ in mutations(small, 300, seed=7, stop=size - footer - 8):
            found = survives(lambda: read_plainly(FORMAT, small))
            # Pages have checksums; what is between them may be anything.
            assert found is None or repr(found) == repr(whole) or len(found) == len(whole)

    def test_mutated(self, small: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small)) for _ in mutations(small, 500, seed=8)
        ]
