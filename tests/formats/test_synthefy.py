"""synthefy's folders. The package is on no index, so that its writer is retold here, from
``sharded_dataset_writer.py`` of synthefy-dataset-utils: WAL, offsets that are none, shards that are
appended to and left without an end.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from splitpipe.errors import FormatError, SplitpipeError
from splitpipe.formats.base import Source
from splitpipe.formats.seeds.npy import read_header
from splitpipe.formats.seeds.synthefy import FORMAT
from tests.formats.damage import all_of, mutations, open_as, read_plainly, survives, truncations
from tests.formats.reading import contents

Array = npt.NDArray[Any]


class Writer:
    """What ShardedDatasetWriter does to a folder."""

    def __init__(self, root: Path, samples_per_shard: int = 4) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.samples_per_shard = samples_per_shard
        self.database = sqlite3.connect(root / "index.sqlite")
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.executescript(
            "CREATE TABLE IF NOT EXISTS samples (id TEXT PRIMARY KEY, meta_json TEXT);"
            "CREATE TABLE IF NOT EXISTS fields (name TEXT PRIMARY KEY, num_shards INTEGER,"
            " base_dir TEXT);"
        )
        self.counts: dict[str, int] = {}
        self.tars: dict[tuple[str, int], tuple[tarfile.TarFile, int]] = {}

    def add_field(self, name: str) -> None:
        base = self.root / f"{name}_shards"
        base.mkdir()
        for what in ("offset", "shard"):
            self.database.execute(f"ALTER TABLE samples ADD COLUMN {name}_{what} INTEGER")
        self.database.execute("INSERT INTO fields VALUES (?, 0, ?)", (name, str(base)))

    def add(self, key: str, arrays: dict[str, Array], meta: Any = None) -> None:
        text = json.dumps(meta) if meta else "{}"
        self.database.execute(
            "INSERT OR IGNORE INTO samples (id, meta_json) VALUES (?, ?)", (key, text)
        )
        for name, array in arrays.items():
            shard = self.counts.get(name, 0) // self.samples_per_shard
            self.counts[name] = self.counts.get(name, 0) + 1
            if (name, shard) not in self.tars:
                path = self.root / f"{name}_shards" / f"shard_{shard:04d}.tar"
                # The writer keeps its shards open, and so must this.
                self.tars[name, shard] = (tarfile.open(path, "a"), 0)  # noqa: SIM115
            archive, offset = self.tars[name, shard]
            data = io.BytesIO()
            np.save(data, array)
            info = tarfile.TarInfo(f"{key}.npy")
            info.size = len(data.getvalue())
            data.seek(0)
            archive.addfile(info, data)
            self.tars[name, shard] = (archive, offset + info.size)
            self.database.execute(
                f"UPDATE samples SET {name}_offset = ?, {name}_shard = ? WHERE id = ?",
                (offset, shard, key),
            )

    def close(self) -> None:
        for archive, _ in self.tars.values():
            archive.close()
        self.tars.clear()
        self.database.commit()
        self.database.close()

    def abandon(self) -> None:
        """As a process ends that never closes: no end marks, changes left in the WAL."""
        self.database.commit()
        wal = (self.root / "index.sqlite-wal").read_bytes()
        main = (self.root / "index.sqlite").read_bytes()
        for archive, _ in self.tars.values():
            assert archive.fileobj is not None
            archive.fileobj.close()
        self.database.close()
        (self.root / "index.sqlite").write_bytes(main)
        (self.root / "index.sqlite-wal").write_bytes(wal)


def history(n: int) -> Array:
    return np.arange(n, n + 6, dtype=np.float64)


def fill(writer: Writer, count: int = 11) -> None:
    for name in ("history", "target", "forecast"):
        writer.add_field(name)
    for n in range(count):
        arrays: dict[str, Array] = {
            "history": history(n),
            "target": np.arange(n % 4, dtype=np.float32),
        }
        if n % 3 == 0:
            arrays["forecast"] = np.full((2, 2), float(n), order="F")
        writer.add(f"sample_{n:012d}", arrays, {"length": 100 + n, "source": "é"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = Writer(tmp_path / "data")
    fill(writer)
    writer.close()
    return tmp_path / "data"


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be written to as its owner would."""
    connection = sqlite3.connect(folder / "index.sqlite")
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def expected(count: int = 11) -> list[dict[str, Any]]:
    return [
        {
            "history": history(n),
            "target": np.arange(n % 4, dtype=np.float32),
            "forecast": np.full((2, 2), float(n)) if n % 3 == 0 else None,
        }
        for n in range(count)
    ]


class TestGood:
    def test_every_array(self, folder: Path) -> None:
        before = contents(folder)
        assert repr(all_of(FORMAT, folder)) == repr(expected())
        assert contents(folder) == before

    def test_the_columns(self, folder: Path) -> None:
        schema = open_as(FORMAT, folder).schema
        assert schema["history"].shape == (6,)
        assert schema["target"].shape == (None,)
        assert schema["forecast"].shape == (2, 2)

    def test_a_batch_into_an_array(self, folder: Path) -> None:
        records = open_as(FORMAT, folder)
        out = np.empty((3, 6))
        assert records.read(np.array([10, 0, 4]), ["history"], {"history": out})["history"] is out
        assert out[:, 0].tolist() == [10, 0, 4]

    def test_keys_and_metadata(self, folder: Path) -> None:
        catalog = open_as(FORMAT, folder).catalog
        assert catalog is not None
        assert catalog.row("sample_000000000007") == 7
        assert catalog.keys(np.array([9, 0])) == ["sample_000000000009", "sample_000000000000"]
        assert catalog.meta(np.array([2])) == [{"length": 102, "source": "é"}]
        with pytest.raises(KeyError):
            catalog.row("another")

    def test_sql(self, folder: Path) -> None:
        catalog = open_as(FORMAT, folder).catalog
        assert catalog is not None
        clause = "json_extract(meta_json, '$.length') > ? AND forecast_offset IS NOT NULL"
        assert catalog.where(clause, [103]).tolist() == [6, 9]
        assert catalog.where(clause, [103], limit=1).tolist() == [6]
        assert catalog.where("id LIKE '%9'").tolist() == [9]

    def test_a_column_that_somebody_added(self, folder: Path) -> None:
        with changing(folder) as database:
            database.execute("ALTER TABLE samples ADD COLUMN length INTEGER")
            database.execute("UPDATE samples SET length = rowid")
        catalog = open_as(FORMAT, folder).catalog
        assert catalog is not None
        assert catalog.where("length >= 10").tolist() == [9, 10]

    def test_updated_and_deleted_samples(self, tmp_path: Path) -> None:
        writer = Writer(tmp_path / "data", samples_per_shard=100)
        fill(writer)
        writer.add("sample_000000000003", {"history": history(50)})
        writer.add("sample_000000000004", {"forecast": np.ones((2, 2))})
        writer.database.execute("DELETE FROM samples WHERE id = 'sample_000000000005'")
        writer.close()
        wanted = expected()
        wanted[3]["history"] = history(50)
        wanted[4]["forecast"] = np.ones((2, 2))
        del wanted[5]
        assert repr(all_of(FORMAT, tmp_path / "data")) == repr(wanted)
        catalog = open_as(FORMAT, tmp_path / "data").catalog
        assert catalog is not None
        assert catalog.row("sample_000000000006") == 5
        assert catalog.keys(np.array([4, 5])) == ["sample_000000000004", "sample_000000000006"]
        assert catalog.where("rowid >= 10").tolist() == [8, 9]

    def test_a_folder_that_was_moved(self, folder: Path) -> None:
        moved = folder.rename(folder.with_name("moved"))
        assert repr(all_of(FORMAT, moved)) == repr(expected())

    def test_a_writer_that_was_not_closed(self, tmp_path: Path) -> None:
        writer = Writer(tmp_path / "data")
        fill(writer)
        writer.abandon()
        before = contents(tmp_path)
        assert "data/index.sqlite-wal" in before
        assert repr(all_of(FORMAT, tmp_path / "data")) == repr(expected())
        catalog = open_as(FORMAT, tmp_path / "data").catalog
        assert catalog is not None
        assert len(catalog.where("meta_json IS NOT NULL")) == 11
        assert contents(tmp_path) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written_to(self, folder: Path) -> None:
        folder.chmod(0o555)
        try:
            assert repr(all_of(FORMAT, folder)) == repr(expected())
        finally:
            folder.chmod(0o755)

    def test_nothing_is_left_beside_the_database(self, folder: Path) -> None:
        names = sorted(os.listdir(folder))
        catalog = open_as(FORMAT, folder).catalog
        assert catalog is not None
        catalog.where("id IS NOT NULL")
        assert sorted(set(os.listdir(folder)) - {".splitpipe"}) == names

    def test_ids_of_any_kind(self, tmp_path: Path) -> None:
        writer = Writer(tmp_path / "data")
        writer.add_field("x")
        keys = ["a/b", "ü" * 80, "with space", "l" * 150]
        for n, key in enumerate(keys):
            writer.add(key, {"x": np.array(n)})
        writer.close()
        assert [int(one["x"]) for one in all_of(FORMAT, tmp_path / "data")] == [0, 1, 2, 3]

    def test_arrays_of_several_dtypes(self, tmp_path: Path) -> None:
        writer = Writer(tmp_path / "data")
        writer.add_field("x")
        writer.add_field("words")
        writer.add("a", {"x": np.arange(2, dtype=np.int16), "words": np.array(["a", "bc"])})
        writer.add("b", {"x": np.arange(2, dtype=">f8"), "words": np.array(["d"])})
        writer.close()
        records = open_as(FORMAT, tmp_path / "data")
        assert (records.schema["x"].dtype, records.schema["words"].kind) == ("float64", "json")
        found = all_of(FORMAT, tmp_path / "data")
        assert [one["words"] for one in found] == [["a", "bc"], ["d"]]
        assert [one["x"].dtype.str for one in found] == ["<f8", "<f8"]


class TestRefused:
    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        writer = Writer(tmp_path / "data")
        writer.add_field("x")
        writer.add("a", {"x": np.array([{"a": 1}], dtype=object)})
        writer.close()
        with pytest.raises(FormatError, match=r"a\.npy in .* would have to be unpickled: that is"):
            open_as(FORMAT, tmp_path / "data")

    def test_a_shard_that_is_missing(self, folder: Path) -> None:
        (folder / "target_shards" / "shard_0001.tar").unlink()
        with pytest.raises(FormatError, match=r"shard 1 of field 'target'.*shard_0001\.tar"):
            open_as(FORMAT, folder)

    def test_a_member_that_is_missing(self, folder: Path) -> None:
        with changing(folder) as database:
            database.execute("UPDATE samples SET history_shard = 0 WHERE id LIKE '%9'")
        with pytest.raises(FormatError, match=r"no member 'sample_000000000009\.npy'"):
            open_as(FORMAT, folder)

    def test_a_shard_that_changed_since(self, folder: Path) -> None:
        records = open_as(FORMAT, folder)
        path = folder / "history_shards" / "shard_0000.tar"
        path.write_bytes(path.read_bytes() + bytes(512))
        with pytest.raises(FormatError, match="not what was indexed"):
            records.read(np.array([0]), ["history"])

    @pytest.mark.parametrize(
        "clause",
        [
            "1) UNION SELECT (1",
            "id IN (SELECT name FROM sqlite_master)",
            "load_extension('x') IS NULL",
            "id = (SELECT writefile('x', 'y'))",
            "1; DROP TABLE samples",
            "nothing = 1",
            "",
        ],
    )
    def test_clauses_that_do_more_than_read(self, folder: Path, clause: str) -> None:
        before = contents(folder)
        catalog = open_as(FORMAT, folder).catalog
        assert catalog is not None
        with pytest.raises(FormatError, match="clause"):
            catalog.where(clause)
        assert contents(folder) == before

    @pytest.mark.parametrize(
        ("statement", "match"),
        [
            ("UPDATE fields SET base_dir = '..'", "the folder of field"),
            ("UPDATE fields SET base_dir = ''", "the folder of field"),
            ("UPDATE fields SET name = 'else' || name", "names no field"),
            ("UPDATE samples SET history_shard = 'x'", "in shard 'x'"),
            ("UPDATE samples SET history_shard = NULL", "in shard None"),
            ("DROP TABLE fields", "no such table"),
            ("ALTER TABLE samples RENAME TO other", "no table 'samples'"),
        ],
    )
    def test_a_database_that_lies(self, folder: Path, statement: str, match: str) -> None:
        with changing(folder) as database:
            database.execute(statement)
        with pytest.raises(FormatError, match=match):
            open_as(FORMAT, folder)

    def test_a_view_in_place_of_the_table(self, folder: Path) -> None:
        with changing(folder) as database:
            database.execute("ALTER TABLE samples RENAME TO other")
            database.execute("CREATE VIEW samples AS SELECT * FROM other")
        with pytest.raises(FormatError, match="no table 'samples'"):
            open_as(FORMAT, folder)

    def test_other_databases(self, tmp_path: Path) -> None:
        (tmp_path / "index.sqlite").write_bytes(b"not SQLite")
        assert not FORMAT.recognises(Source.at(tmp_path))


class TestDamage:
    def test_a_shard_cut_at_any_place(self, folder: Path) -> None:
        whole = repr(read_plainly(FORMAT, folder))
        for _ in truncations(folder / "history_shards" / "shard_0000.tar", step=97):
            found = survives(lambda: read_plainly(FORMAT, folder))
            # Only what pads the archive may be missing.
            assert found is None or repr(found) == whole

    def test_mutated_shards(self, folder: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, folder))
            for _ in mutations(folder / "target_shards" / "shard_0000.tar", 150, seed=12, stop=3000)
        ]

    def test_a_mutated_database(self, folder: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, folder))
            for _ in mutations(folder / "index.sqlite", 250, seed=13)
        ]

    def test_mutated_headers_of_arrays(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npy"
        np.save(path, np.arange(6.0).reshape(2, 3))

        def read() -> Any:
            data = path.read_bytes()
            header = read_header(data[:256], len(data), "a.npy")
            return header.array(data[header.nbytes :])

        assert None in [survives(read) for _ in mutations(path, 2500, seed=14, stop=128)]
        for size in truncations(path):
            with pytest.raises(SplitpipeError):
                read()
            assert size < 176
