"""A copy is its source: every kind of column, every format, views, and whatever the options say."""

from __future__ import annotations

import json
import sqlite3
import struct
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import splitdataloader

import splitpipe as sp
from splitpipe.conversion import blocks
from splitpipe.storage.snapshot import read_manifest
from tests.conversion.making import (
    METADATA,
    every_kind,
    record,
    small_commits,
    told,
    told_of,
    write_every_kind,
)
from tests.formats import test_mds, test_synthefy

COUNT = 120


def sizes(path: Path) -> list[Any]:
    return [(c.name, c.bin_sizes, c.missing) for c in read_manifest(str(path)).columns]


class TestOwnFormat:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_every_kind_of_column_with_keys_and_metadata(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        monkeypatch.setattr(blocks, "BLOCK_NBYTES", 4096)  # several blocks, also in workers' eyes
        report = sp.convert(source, tmp_path / "copy", workers=workers, bins=3)
        assert told(tmp_path / "copy") == told(source)
        assert (report.records, report.compared, report.resumed_at) == (COUNT, COUNT, 0)
        assert sizes(tmp_path / "copy") == sizes(source)
        assert sp.check_dataset(tmp_path / "copy").ok

    def test_declared_metadata_stays_declared(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        sp.convert(source, tmp_path / "copy", workers=0, bins=1)
        catalog = read_manifest(str(tmp_path / "copy")).catalog
        assert catalog is not None
        assert dict(catalog.metadata) == METADATA
        clause = "n BETWEEN 20 AND 30 AND raw IS NOT NULL"
        with sp.open_dataset(source) as mine, sp.open_dataset(tmp_path / "copy") as copy:
            assert copy["key 9"]["small"] == 9
            assert len(mine.where(clause))
            assert told_of(copy.where(clause)) == told_of(mine.where(clause))

    def test_pickled_columns_need_a_source_that_may_be_read(self, tmp_path: Path) -> None:
        values = [{"a": {1, 2}}, [np.arange(3), "x"], None, {"same": (v := "twice"), "too": v}]
        with sp.DatasetWriter(tmp_path / "source", {"any": "pickle"}) as writer:
            writer.write_many({"any": value} for value in values)
        with pytest.raises(sp.FormatError, match="allow_pickle"):
            sp.convert(tmp_path / "source", tmp_path / "copy", workers=0, bins=1)
        sp.convert(
            tmp_path / "source", tmp_path / "copy", workers=1, open_options={"allow_pickle": True}
        )
        with sp.open_dataset(tmp_path / "copy", allow_pickle=True) as copy:
            assert repr([each["any"] for each in copy]) == repr(values)

    def test_decoded_media_is_refused_and_named(self, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        buffer = BytesIO()
        image.new("RGB", (4, 4)).save(buffer, "PNG")
        with sp.DatasetWriter(tmp_path / "source", {"picture": sp.image()}) as writer:
            writer.write({"picture": buffer.getvalue()})
        with (
            sp.open_dataset(tmp_path / "source", decode=True) as source,
            pytest.raises(sp.FormatError, match=r"'picture' of record 0 .* without decode=True"),
        ):
            sp.convert(source, tmp_path / "copy", workers=0, bins=1)
        assert not (tmp_path / "copy").exists()

    def test_deleted_and_updated_records(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        with sp.DatasetWriter(source, append=True) as writer:
            writer.delete(range(0, COUNT, 3))
            writer.update(7, {"text": "something else", "raw": None})
            writer.add_column("late", "int64")
            writer.update(8, {"late": 5})
        report = sp.convert(source, tmp_path / "copy", workers=0, bins=1)
        assert report.records == COUNT - COUNT // 3
        assert told(tmp_path / "copy") == told(source)

    def test_an_empty_source_makes_an_empty_copy(self, tmp_path: Path) -> None:
        with sp.DatasetWriter(tmp_path / "source", every_kind(), metadata=METADATA):
            pass
        for _ in range(2):
            report = sp.convert(tmp_path / "source", tmp_path / "copy")
            assert (report.records, report.compared) == (0, 0)
            with sp.open_dataset(tmp_path / "copy") as copy:
                assert len(copy) == 0
                assert copy.schema == every_kind()

    def test_records_that_are_much_larger_than_the_first(self, tmp_path: Path) -> None:
        records = [b"x"] * 50 + [b"y" * 3_000_000] * 4
        with sp.DatasetWriter(tmp_path / "source") as writer:
            writer.write_many(records)
        with sp.open_dataset(tmp_path / "source") as source:
            assert blocks.block_records(source) < 30
            sp.convert(source, tmp_path / "copy", workers=1)
        with sp.open_dataset(tmp_path / "copy") as copy:
            assert copy[:] == records


class TestViews:
    def test_every_view_is_a_source(self, tmp_path: Path) -> None:
        path = write_every_kind(tmp_path / "source", COUNT)
        with sp.open_dataset(path) as source:
            other = sp.concat([source.subset(range(10)), source.subset(range(50, 70))])
            views = {
                "subset": source.subset([5, 3, 99]),
                "select": source.select(["text", "x"]),
                "where": source.where("n > ?", [60]),
                "sample": source.sample(17, seed=1).select(["free", "info"]),
                "concat": other,
                "join": source.select(["text"]).join(source.select(["raw"]), on="key", how="inner"),
            }
            for name, view in views.items():
                sp.convert(view, tmp_path / name, workers=0, bins=1)
                assert told(tmp_path / name) == told_of(view), name
                catalog = read_manifest(str(tmp_path / name)).catalog
                assert catalog is not None
                assert dict(catalog.metadata) == (METADATA if name != "join" else {}), name

    def test_parts_of_a_split_are_not_taken_for_each_other(self, tmp_path: Path) -> None:
        """They have the same number of records of the same source."""
        path = write_every_kind(tmp_path / "source", COUNT)
        with sp.open_dataset(path) as source:
            parts = source.split({"a": 0.5, "b": 0.5}, seed=1)
            sp.convert(parts["a"], tmp_path / "part", workers=0, bins=1)
            with pytest.raises(sp.CorruptRecord, match=r"is not a copy of .* as it is now"):
                sp.convert(parts["b"], tmp_path / "part", workers=0, bins=1)
            assert told(tmp_path / "part") == told_of(parts["a"])

    def test_a_record_that_a_view_has_twice(self, tmp_path: Path) -> None:
        path = write_every_kind(tmp_path / "source", 9)
        with sp.open_dataset(path) as source:
            with pytest.raises(sp.FormatError, match=r"record 3: key 'key 1' is there .*already"):
                sp.convert(source.subset([0, 1, 2, 1, 4]), tmp_path / "copy", workers=0, bins=1)
            twice = source.subset([3, 3, 0])  # of a record without a key
            sp.convert(twice, tmp_path / "other", workers=0, bins=1)
            assert told(tmp_path / "other") == told_of(twice)


class TestFormats:
    """A source of every format that is read in place."""

    def copied(self, source: Path, tmp_path: Path, **options: Any) -> sp.ConversionReport:
        index = {"index_dir": tmp_path / "indices"}
        report = sp.convert(source, tmp_path / "copy", bins=2, open_options={**index, **options})
        with sp.open_dataset(source, **index, **options) as dataset:
            assert len(dataset) == report.compared > 0
            assert told(tmp_path / "copy") == told_of(dataset)
        return report

    def test_jsonl(self, tmp_path: Path) -> None:
        lines = [json.dumps({"n": n, "x": [-0.0, float("nan"), None]}) for n in range(50)]
        lines.insert(20, "{broken")
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        report = self.copied(tmp_path / "a.jsonl", tmp_path, broken="skip", validate=True)
        assert (report.records, report.skipped) == (50, 1)

    def test_csv(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n1,x\n,\n3,é\n")
        self.copied(tmp_path / "a.csv", tmp_path, schema={"a": "int64", "b": "str"})

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one\n\nthree\n")
        self.copied(tmp_path / "a.txt", tmp_path)

    def test_tar(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name in ("one.txt", "one.json", "two.txt", "three.json"):
                info = tarfile.TarInfo(name)
                info.size = 2
                archive.addfile(info, BytesIO(b"17"))
        self.copied(tmp_path / "a.tar", tmp_path)

    def test_mds(self, tmp_path: Path) -> None:
        columns = {"n": "int", "text": "str", "v": "ndarray:float32", "info": "json"}
        samples = [
            {"n": n, "text": "é" * n, "v": np.arange(n + 1, dtype=np.float32), "info": {"n": n}}
            for n in range(20)
        ]
        test_mds.write(tmp_path / "mds", columns, samples, compression="zstd")
        self.copied(tmp_path / "mds", tmp_path)

    @pytest.mark.parametrize("form", ["parquet", "arrow"])
    def test_tables(self, tmp_path: Path, form: str) -> None:
        table = pa.table(
            {
                "n": pa.array([1, None, 3] * 20, pa.int64()),
                "text": ["a", None, "é"] * 20,
                "point": pa.array([[1.0, -0.0]] * 60, pa.list_(pa.float32(), 2)),
                "tokens": pa.array([[], [1], [1, 2]] * 20, pa.list_(pa.uint16())),
                "deep": [{"x": 1.5, "y": None}] * 60,
            }
        )
        path = tmp_path / f"a.{form}"
        if form == "parquet":
            pyarrow.parquet.write_table(table, path, row_group_size=7)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        self.copied(path, tmp_path)

    def test_splitdataloader(self, tmp_path: Path) -> None:
        records = [b"%d" % n * (n % 5) for n in range(100)]
        splitdataloader.write_split_data(str(tmp_path / "a"), records, splits=4)
        self.copied(tmp_path / "a", tmp_path)

    def test_data_forager(self, tmp_path: Path) -> None:
        rows = [json.dumps({"text": "w" * n}).encode() for n in range(30)]
        (tmp_path / "a" / "index").mkdir(parents=True)
        (tmp_path / "a" / "part.jsonl").write_bytes(b"\n".join(rows))
        places, at = [], 0
        for row in rows:
            places.append(struct.pack("<3Q", 0, at, len(row)))
            at += len(row) + 1
        (tmp_path / "a" / "index" / "sample_locations.bin").write_bytes(b"".join(places))
        (tmp_path / "a" / "index" / "file_location.txt").write_text("part.jsonl\n")
        self.copied(tmp_path / "a", tmp_path)

    def test_synthefy(self, tmp_path: Path) -> None:
        writer = test_synthefy.Writer(tmp_path / "a")
        test_synthefy.fill(writer)
        writer.close()
        self.copied(tmp_path / "a", tmp_path)
        with sp.open_dataset(tmp_path / "a") as source, sp.open_dataset(tmp_path / "copy") as copy:
            assert copy.keys() == source.keys()
            assert copy.metas() == source.metas()

    def test_files_of_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n")
        assert sp.convert(tmp_path / "a.csv", tmp_path / "copy").records == 0
        with sp.open_dataset(tmp_path / "copy") as copy:
            assert list(copy.schema) == ["a", "b"]


class TestCompression:
    def fields(self, path: Path) -> dict[str, str | None]:
        with sp.open_dataset(path) as dataset:
            return {name: field.compression for name, field in dataset.schema.items()}

    def write(self, path: Path, **options: Any) -> Path:
        with sp.DatasetWriter(path, {"text": "str", "n": "int64"}, bins=1, **options) as writer:
            writer.write_many(
                {"text": f"the same beginning of every text, then {n * n}", "n": n}
                for n in range(3000)
            )
        return path

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_dictionary_is_trained_from_the_source(self, tmp_path: Path, workers: int) -> None:
        source = self.write(tmp_path / "source")
        how = sp.Zstd(level=9, dictionary=True)
        sp.convert(source, tmp_path / "copy", workers=workers, compression={"text": how}, bins=1)
        sp.convert(
            source, tmp_path / "again", workers=2 - workers, compression={"text": how}, bins=1
        )
        assert self.fields(tmp_path / "copy") == {"text": "zstd", "n": None}
        before, after = (read_manifest(str(p)).columns[0] for p in (source, tmp_path / "copy"))
        assert after.dictionary is not None
        assert sum(after.bin_sizes) < 0.6 * sum(before.bin_sizes)
        assert sizes(tmp_path / "copy") == sizes(tmp_path / "again")
        assert told(tmp_path / "copy") == told(source)

    def test_compressed_columns_stay_so_with_their_dictionary(self, tmp_path: Path) -> None:
        source = self.write(tmp_path / "source", compression={"text": sp.Zstd(dictionary=True)})
        with sp.open_dataset(source) as dataset:
            sp.convert(
                dataset.subset(range(20)), tmp_path / "copy", workers=0
            )  # too few to train another
        mine, theirs = (read_manifest(str(p)).columns[0] for p in (source, tmp_path / "copy"))
        assert mine.dictionary is not None
        assert theirs.dictionary is not None
        assert mine.dictionary.crc == theirs.dictionary.crc
        assert told(tmp_path / "copy") == told(source)[:20]

    def test_none_takes_it_away(self, tmp_path: Path) -> None:
        source = self.write(tmp_path / "source", compression="zstd")
        sp.convert(source, tmp_path / "copy", compression="none", workers=0)
        assert self.fields(tmp_path / "copy") == {"text": None, "n": None}
        assert told(tmp_path / "copy") == told(source)

    def test_a_resumed_copy_is_compressed_alike(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.write(tmp_path / "source")
        how = {"text": sp.Zstd(level=12, dictionary=True)}
        small_commits(monkeypatch, nbytes=1 << 14)

        class Enough(Exception):
            pass

        def stop(what: str, done: int, total: int) -> None:
            if done > 1000:
                raise Enough

        sp.convert(source, tmp_path / "whole", workers=0, bins=1, compression=how)
        with pytest.raises(Enough):
            sp.convert(source, tmp_path / "copy", workers=0, bins=1, compression=how, progress=stop)
        report = sp.convert(source, tmp_path / "copy", workers=0)
        assert 0 < report.resumed_at < 3000
        assert sizes(tmp_path / "copy") == sizes(tmp_path / "whole")


class TestRefusals:
    def test_options_that_cannot_be(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", 3)
        with pytest.raises(TypeError, match="no option 'speed'"):
            sp.convert(source, tmp_path / "copy", speed=3)  # type: ignore[call-arg]
        for options in ({"bins": 0}, {"compression": "lz4"}, {"workers": -1}, {"workers": True}):
            with pytest.raises(sp.FormatError):
                sp.convert(source, tmp_path / "copy", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "copy").exists()

    def test_another_dataset_is_left_alone(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", 30)
        with sp.DatasetWriter(tmp_path / "other") as writer:
            writer.write(b"precious")
        with pytest.raises(sp.StorageError, match="not known to be a copy"):
            sp.convert(source, tmp_path / "other", workers=0, bins=1)
        assert sp.open_dataset(tmp_path / "other")[:] == [b"precious"]
        with sp.open_dataset(tmp_path / "other") as before:
            sp.convert(source, tmp_path / "other", workers=0, bins=1, overwrite=True)
            assert before[:] == [b"precious"]  # a reader keeps what it opened
        assert told(tmp_path / "other") == told(source)

    def test_a_folder_with_something_else_in_it(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", 3)
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").write_text("all of it")
        with pytest.raises(sp.StorageError, match=r"chapter\.txt"):
            sp.convert(source, tmp_path / "thesis", workers=0, bins=1)
        assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]

    def test_the_source_itself(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", 30)
        before = told(source)
        for options in ({}, {"overwrite": True}):
            with pytest.raises(sp.FormatError, match="over itself"):
                sp.convert(source, source, workers=0, bins=1, **options)  # type: ignore[arg-type]
        assert told(source) == before

    def test_metadata_that_a_catalog_cannot_hold(self, tmp_path: Path) -> None:
        writer = test_synthefy.Writer(tmp_path / "a")
        test_synthefy.fill(writer)
        writer.close()
        with sqlite3.connect(tmp_path / "a" / "index.sqlite") as database:
            database.execute("UPDATE samples SET meta_json = '{\"x\": NaN}' WHERE rowid = 4")
        database.close()
        with pytest.raises(sp.FormatError, match="record 3: metadata of row 3 is no JSON"):
            sp.convert(tmp_path / "a", tmp_path / "copy", workers=0, bins=1)


def test_record_says_what_it_should() -> None:
    """The source of these tests is as nasty as it claims."""
    records = [record(n) for n in range(COUNT)]
    for name in every_kind():
        assert any(each[name] is None for each in records), name
    assert any(each["free"] is not None and not each["free"].size for each in records)
