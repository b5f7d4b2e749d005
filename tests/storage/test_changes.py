"""Changing what is there: updates, deletions, columns; giving back the room; repairing an index."""

from __future__ import annotations

import gc
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google_crc32c import extend, value

from splitpipe.codecs import Zstd
from splitpipe.errors import CorruptRecord, FormatError, LockedError, StorageError
from splitpipe.schema import Schema
from splitpipe.storage import DatasetWriter, check_dataset, describe
from splitpipe.storage.compact import compact
from splitpipe.storage.repair import repair
from splitpipe.storage.table import open_table
from tests.storage.making import placed
from tests.storage.tables import SCHEMA, Record, assert_reads, assert_table, made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DatasetWriter(tmp_path / "ds", SCHEMA, bins=3) as w:
        w.write_many(made(400))
    return tmp_path / "ds"


def change(path: Path) -> DatasetWriter:
    return DatasetWriter(path, append=True)


class TestUpdates:
    def test_of_some_fields(self, path: Path) -> None:
        records = made(400)
        for row, fields in (
            (0, {"text": "new"}),
            (399, {"n": -5, "score": None}),
            (-2, {"text": None, "any": np.ones(5)}),
            (2, {"score": 8.0, "text": ""}),
            (7, {}),
        ):
            with change(path) as w:
                w.update(row, fields)
            records[row] = {**records[row], **fields}
            assert_table(path, records)

    def test_the_last_of_several_counts(self, path: Path) -> None:
        records = made(400)
        with change(path) as w:
            for n in (1, 2, 3):
                w.update(5, {"n": n})
            w.commit()
            w.update(5, {"n": 4})
            w.update(5, {"n": 5})
        records[5]["n"] = 5
        assert_table(path, records)
        assert describe(path).dead_nbytes == 5 * (14 + 8)

    def test_of_records_that_were_just_added(self, path: Path) -> None:
        records = made(402)
        with change(path) as w:
            w.write_many(made(2, 400))
            w.update(400, {"n": 1})
            w.update(-1, {"n": 2})
        records[400]["n"], records[401]["n"] = 1, 2
        assert_table(path, records)

    def test_many(self, path: Path) -> None:
        records = made(400)
        with change(path) as w:
            w.update_many((row, {"n": 2 * row}) for row in range(0, 400, 3))
        for row in range(0, 400, 3):
            records[row]["n"] = 2 * row
        assert_table(path, records)

    def test_and_appending_take_turns(self, path: Path) -> None:
        """Updates do not tear the runs of records that come after them."""
        records = made(400)
        rng = random.Random(1)
        for turn in range(6):
            with change(path) as w:
                for row in rng.sample(range(len(records)), 5):
                    w.update(row, {"text": f"turn {turn}"})
                    records[row] = {**records[row], "text": f"turn {turn}"}
                more = made(rng.choice([1, 50, 200]), start=1000 * turn)
                w.write_many(more)
                records += more
            assert_table(path, records)
        with DatasetWriter(path, append=True, bins=5) as w:
            w.write_many(made(80))
            w.update(3, {"text": "in other bins"})
        records += made(80)
        records[3]["text"] = "in other bins"
        assert_table(path, records)

    def test_of_plain_values(self, tmp_path: Path) -> None:
        path = tmp_path / "plain"
        with DatasetWriter(path, bins=2) as w:
            w.write_many([b"a", b"b", b"c"])
        with change(path) as w:
            w.update(1, b"longer than before")
            w.update(2, None)
        assert_table(path, [b"a", b"longer than before", None])

    def test_of_compressed_values_use_the_dictionary(self, tmp_path: Path) -> None:
        path = tmp_path / "packed"
        texts = [f"{n}: words that come again and again" for n in range(500)]
        with DatasetWriter(path, "str", compression=Zstd(dictionary=True)) as w:
            w.write_many(texts)
        with change(path) as w:
            w.update(3, texts[4])
            w.write(texts[5])
        assert_table(path, [*texts[:3], texts[4], *texts[4:], texts[5]])

    def test_that_do_not_fit_change_nothing(self, path: Path) -> None:
        with change(path) as w:
            for row, fields, kind, message in (
                (1, {"text": "x", "n": "y"}, FormatError, "record 1: field 'n'"),
                (1, {"other": 1}, FormatError, "field 'other'"),
                (400, {"n": 1}, IndexError, "record 400 of a dataset of 400"),
                (-401, {"n": 1}, IndexError, "record -401"),
                ("key", {"n": 1}, KeyError, "key"),
            ):
                with pytest.raises(kind, match=message):
                    w.update(row, fields)
        assert_table(path, made(400))
        assert describe(path).generation == 1

    def test_by_key_and_with_metadata(self, tmp_path: Path) -> None:
        path = tmp_path / "keyed"
        with DatasetWriter(path, {"a": "int64"}, metadata={"size": "int64"}) as w:
            w.write_many([{"a": n} for n in range(5)], keys="abcde", metas=[{"size": 7}] * 5)
        with change(path) as w:
            w.update("c", {"a": None}, meta={"size": 9})
            w.update("d", meta={"note": "x"})
        table = open_table(path)
        assert table.catalog is not None
        assert table.get(table.catalog.row("c")) == {"a": None}
        assert table.catalog.where("a IS NULL").tolist() == [2]
        assert table.catalog.where("size = ?", [9]).tolist() == [2]
        assert table.catalog.meta(np.array([3])) == [{"note": "x"}]
        table.close()
        assert check_dataset(path).ok


class TestDeletions:
    def test_of_records_by_position(self, path: Path) -> None:
        records = made(400)
        with change(path) as w:
            w.delete(0)
            w.delete([399, -2, 7])
            # Positions do not move before the commit.
            w.update(8, {"n": -8})
            with pytest.raises(IndexError, match="deleted in this session"):
                w.update(7, {"n": 0})
        records[8]["n"] = -8
        kept = [r for row, r in enumerate(records) if row not in (0, 7, 398, 399)]
        assert_table(path, kept)
        with change(path) as w:
            w.delete(np.arange(0, 396, 2))
            w.write_many(made(3))
        assert_table(path, kept[1::2] + made(3))
        assert describe(path).deleted == 4 + 198

    def test_of_all(self, path: Path) -> None:
        with change(path) as w:
            w.delete(range(400))
        assert_table(path, [])
        with change(path) as w:
            w.write_many(made(2))
        assert_table(path, made(2))

    def test_of_what_is_not_there_delete_nothing(self, path: Path) -> None:
        with change(path) as w:
            for wrong in ([1, 400], ["key"], -401):
                with pytest.raises((IndexError, KeyError)):
                    w.delete(wrong)
        assert_table(path, made(400))

    def test_free_their_keys(self, tmp_path: Path) -> None:
        path = tmp_path / "keyed"
        with DatasetWriter(path) as w:
            w.write_many([b"0", b"1", b"2"], keys=["a", "b", "c"])
        with change(path) as w:
            w.delete("b")
            w.write(b"3", key="b")
            with pytest.raises(FormatError, match="'b' is there already"):
                w.write(b"4", key="b")
        assert_table(path, [b"0", b"2", b"3"])
        table = open_table(path)
        assert table.catalog is not None
        assert [table.catalog.row(key) for key in "acb"] == [0, 1, 2]
        assert table.catalog.keys(np.array([2, 0])) == ["b", "a"]
        table.close()

    def test_damage_of_their_file_is_found(self, path: Path) -> None:
        with change(path) as w:
            w.delete([1, 2])
        file = path / "v0001-deleted-00002.rows"
        whole = file.read_bytes()
        for place in (3, 64, 79):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(FormatError, match="deleted"):
                open_table(path)
            assert not check_dataset(path).ok


class TestColumns:
    def test_are_added_for_some_records(self, path: Path) -> None:
        records = [{**record, "extra": None} for record in made(400)]
        with change(path) as w:
            w.add_column("extra", "str")
            w.update(7, {"extra": "seven"})
            w.write({**made(1)[0], "extra": "new"})
        records[7]["extra"] = "seven"
        records.append({**made(1)[0], "extra": "new"})
        assert_table(path, records)
        with change(path) as w:
            w.write_many(made(100))
        assert_table(path, records + [{**record, "extra": None} for record in made(100)])

    def test_are_added_for_all_records(self, path: Path) -> None:
        with change(path) as w:
            w.add_column("double", "float64")
            w.update_column("double", (2.0 * n for n in range(400)))
        assert_table(path, [{**record, "double": 2.0 * record["n"]} for record in made(400)])
        assert describe(path).details[-1].missing == 0
        assert describe(path).dead_nbytes == 0

    def test_are_replaced_as_a_whole(self, path: Path) -> None:
        before = open_table(path)
        records = made(400)
        with change(path) as w:
            w.update(3, {"n": 1})
            w.delete(5)
            w.update_column("n", [None if row == 9 else -row for row in range(400) if row != 5])
            w.update(4, {"n": 44})
        for row, record in enumerate(records):
            record["n"] = None if row == 9 else 44 if row == 4 else -row
        del records[5]
        assert_table(path, records)
        assert_reads(before, made(400))
        before.close()
        with change(path) as w:
            w.update(0, {"n": 7})
        records[0]["n"] = 7
        assert_table(path, records)
        assert not list(path.glob("v0001-c002*")), "the old column's files were left"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (range(399), "no value for row 399"),
            (range(401), "more values than records"),
            ([*range(10), "x"], "the value of row 10"),
        ],
    )
    def test_with_wrong_values_stay_as_they_were(
        self, path: Path, values: Any, message: str
    ) -> None:
        before = set(os.listdir(path))
        with change(path) as w:
            with pytest.raises(FormatError, match=message):
                w.update_column("n", values)
            assert set(os.listdir(path)) == before
            w.update(1, {"n": 5})
        records = made(400)
        records[1]["n"] = 5
        assert_table(path, records)

    def test_names_are_checked(self, path: Path) -> None:
        with change(path) as w:
            for name, message in (("n", "already"), ("a b", "cannot name")):
                with pytest.raises(FormatError, match=message):
                    w.add_column(name, "str")
            with pytest.raises(FormatError, match="no column 'other'"):
                w.update_column("other", [])
        assert_table(path, made(400))

    def test_plain_values_have_no_further_columns(self, tmp_path: Path) -> None:
        with DatasetWriter(tmp_path / "plain") as w:
            w.write(b"x")
            with pytest.raises(FormatError, match="no further columns"):
                w.add_column("more", "str")

    def test_the_catalog_knows_them(self, tmp_path: Path) -> None:
        path = tmp_path / "keyed"
        with DatasetWriter(path) as w:
            w.write_many([{"a": n} for n in range(4)], keys="abcd")
        with change(path) as w:
            w.add_column("b", "str")
            w.update("c", {"b": "x"})
            w.add_column("d", "int64")
            w.update_column("d", [1, None, 3, None])
        table = open_table(path)
        assert table.catalog is not None
        assert table.catalog.where("b IS NOT NULL").tolist() == [2]
        assert table.catalog.where("d IS NULL").tolist() == [1, 3]
        table.close()

    def test_a_catalog_that_comes_late_knows_what_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "late"
        with DatasetWriter(path, {"a": "int64"}) as w:
            w.write_many([{"a": 1}, {"a": None}, {"a": 3}])
        with change(path) as w:
            w.delete(0)
            w.write({"a": None}, key="k")
        table = open_table(path)
        assert table.catalog is not None
        assert table.catalog.where("a IS NULL").tolist() == [0, 2]
        assert table.catalog.row("k") == 2
        table.close()


class TestSnapshots:
    def all_changes(self, path: Path) -> None:
        with change(path) as w:
            w.update(1, {"text": "other"})
            w.delete(0)
            w.write_many(made(200))
        with change(path) as w:
            w.update_column("n", [0] * 599)
            w.add_column("late", "str")
            w.delete(5)
        compact(path)
        with DatasetWriter(path, overwrite=True) as w:
            w.write(b"something else")

    def test_an_open_reader_keeps_its_own(self, path: Path) -> None:
        table = open_table(path)
        packed = pickle.dumps(table)
        self.all_changes(path)
        assert_reads(table, made(400))
        again = pickle.loads(packed)
        assert_reads(again, made(400))
        table.close()
        again.close()
        with DatasetWriter(path, append=True) as w:
            w.write(b"more")
        with pytest.raises(FormatError, match="was changed since generation 1"):
            pickle.loads(packed)

    def test_what_nobody_holds_is_removed(self, path: Path) -> None:
        table = open_table(path)
        with change(path) as w:
            w.update(1, {"text": "other"})
            w.delete(0)
        held = open_table(path)
        with change(path) as w:
            w.update(1, {"text": "another"})
            w.delete(0)
        names = set(os.listdir(path))
        assert {"v0001-c000.index", "v0001-c000-g00002.index", "v0001-c000-g00003.index"} <= names
        assert {"v0001-deleted-00002.rows", "v0001-deleted-00003.rows"} <= names
        table.close()
        held.close()
        del table, held
        gc.collect()
        with change(path) as w:
            w.write_many(made(1))
        names = set(os.listdir(path))
        assert "v0001-c000-g00003.index" in names
        gone = {"v0001-c000.index", "v0001-c000.sums", "v0001-c000-g00002.index"}
        assert not names & (gone | {"v0001-c000-g00002.sums", "v0001-deleted-00002.rows"})


class TestCompacting:
    def test_gives_back_the_room_and_keeps_the_rest(self, path: Path) -> None:
        records = made(400)
        with change(path) as w:
            w.update_many((row, {"text": "x" * 500}) for row in range(400))
            w.delete(range(100, 400))
        records = [{**record, "text": "x" * 500} for record in records[:100]]
        before = describe(path)
        told: list[tuple[int, int]] = []
        done = compact(path, progress=lambda *at: told.append(at))
        assert_table(path, records)
        after = describe(path)
        assert (done.rows, done.nbytes_before, done.nbytes_after) == (
            100,
            before.disk_nbytes,
            after.disk_nbytes,
        )
        assert after.dead_nbytes == after.deleted == 0
        assert before.disk_nbytes - after.disk_nbytes > before.dead_nbytes > 0
        assert told[-1] == (100, 100)
        assert after.segments == ((0, 100, 0, 3),)
        with change(path) as w:
            w.write_many(made(2))
        assert_table(path, records + made(2))

    def test_keeps_keys_metadata_and_dictionaries(self, tmp_path: Path) -> None:
        path = tmp_path / "keyed"
        texts = [f"{n}: words that come again and again" for n in range(500)]
        zstd = Zstd(dictionary=True)
        with DatasetWriter(path, "str", metadata={"n": "int64"}, compression=zstd) as w:
            keys = [f"k{n}" if n % 2 else None for n in range(500)]
            w.write_many(texts, keys=keys, metas=[{"n": n} for n in range(500)])
        dictionary = (path / "v0001-c000.dictionary").read_bytes()[64:]
        with change(path) as w:
            w.delete([0, 499])
        compact(path, bins=2)
        assert_table(path, texts[1:499])
        assert (path / "v0002-c000.dictionary").read_bytes()[64:] == dictionary
        table = open_table(path)
        assert table.catalog is not None
        assert table.catalog.row("k1") == 0
        assert table.catalog.keys(np.array([1])) == [None]
        assert table.catalog.where("n >= ?", [498]).tolist() == [497]
        table.close()

    def test_of_a_damaged_dataset_changes_nothing(self, path: Path) -> None:
        file = path / "v0001-c000-b00000.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(b"33,")] ^= 1
        file.write_bytes(raw)
        before = {p.name: p.read_bytes() for p in path.iterdir()}
        with pytest.raises(CorruptRecord, match="record 33"):
            compact(path)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before

    def test_waits_for_no_writer(self, path: Path) -> None:
        with change(path), pytest.raises(LockedError):
            compact(path)
        assert_table(path, made(400))


class TestRepairing:
    def changed(self, path: Path) -> list[Record]:
        records = made(450)
        with change(path) as w:
            w.write_many(records[400:])
            for row in (3, 70, 410, 3):
                w.update(row, {"text": f"new {row}", "n": None})
                records[row] = {**records[row], "text": f"new {row}", "n": None}
            w.delete(5)
            w.add_column("extra", "str")
            w.update(9, {"extra": "x"})
        records = [{**record, "extra": None} for record in records]
        records[9]["extra"] = "x"
        del records[5]
        assert_table(path, records)
        return records

    def test_does_nothing_where_all_is_well(self, path: Path) -> None:
        records = self.changed(path)
        before = {p.name: p.read_bytes() for p in path.iterdir() if p.name != "writer.lock"}
        report = repair(path)
        assert (report.columns, report.lost, report.blank, report.doubtful) == ((), (), 0, False)
        after = {p.name: p.read_bytes() for p in path.iterdir() if p.name != "writer.lock"}
        assert after == before
        assert_table(path, records)

    @pytest.mark.parametrize("kinds", [(".index",), (".sums",), (".index", ".sums")])
    @pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "empty"])
    def test_an_index_is_made_again(self, path: Path, kinds: tuple[str, ...], harm: str) -> None:
        records = self.changed(path)
        for file in list(path.iterdir()):
            if file.suffix in kinds:
                whole = file.read_bytes()
                match harm:
                    case "lost":
                        file.unlink()
                    case "cut":
                        file.write_bytes(whole[: len(whole) // 2])
                    case "flipped":
                        at = 64 + (len(whole) - 64) // 2
                        file.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
                    case "empty":
                        file.write_bytes(b"")
        assert not check_dataset(path).ok
        report = repair(path)
        assert len(report.columns) == 7
        assert (report.lost, report.blank, report.doubtful) == ((), 0, False)
        assert report.generation == 3
        assert_table(path, records)
        with change(path) as w:
            w.write_many(made(200))
        assert_table(path, records + [{**record, "extra": None} for record in made(200)])

    def test_records_that_are_gone_are_told_and_have_no_value(self, path: Path) -> None:
        file = path / "v0001-c000-b00001.bin"
        raw = bytearray(file.read_bytes())
        at = raw.index(b"34,34,34,34,")
        raw[at - 14 : at + 20] = bytes(34)
        file.write_bytes(raw)
        (path / "v0001-c000.index").unlink()
        report = repair(path)
        lost = [row for _, row in report.lost]
        assert report.columns == ("text",)
        assert report.lost == tuple(("text", row) for row in lost)
        assert report.blank == len(lost) >= 1
        assert 34 in lost
        records = made(400)
        for row in lost:
            records[row]["text"] = None
        assert_table(path, records)

    def test_an_intact_index_goes_on_to_say_what_is_damaged(self, path: Path) -> None:
        file = path / "v0001-c000-b00001.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(b"34,34,34,34,")] ^= 1
        file.write_bytes(raw)
        for _ in range(2):
            report = repair(path)
            assert (report.columns, report.lost, report.blank) == ((), (("text", 34),), 0)
            table = open_table(path)
            with pytest.raises(CorruptRecord, match="record 34"):
                table.get(34)
            with pytest.raises(CorruptRecord, match="record 34"):
                list(table.iterate_rows(0, 400))
            table.close()
        # Without the sums nothing proves the index any more.
        (path / "v0001-c000.sums").unlink()
        report = repair(path)
        assert (report.columns, report.lost, report.blank) == (("text",), (("text", 34),), 1)
        records = made(400)
        records[34]["text"] = None
        assert_table(path, records)

    def test_a_damaged_update_makes_older_values_doubtful(self, path: Path) -> None:
        with change(path) as w:
            w.update(3, {"text": "a new text"})
        file = path / "v0001-c000-b00003.bin"
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
        report = repair(path)
        assert (report.columns, report.lost, report.doubtful) == ((), (("text", 3),), False)
        (path / "v0001-c000-g00002.index").unlink()
        report = repair(path)
        assert report.doubtful
        assert_table(path, made(400))

    def test_what_looks_like_a_record_inside_another_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "nested"
        with DatasetWriter(path, bins=1) as w:
            w.write_many([b"first", b"second"])
        raw = (path / "v0001-c000-b00000.bin").read_bytes()
        with DatasetWriter(path, overwrite=True, bins=1) as w:
            w.write_many([raw[64:], b"x" * 10])
        (path / "v0002-c000.index").unlink()
        inner = bytearray((path / "v0002-c000-b00000.bin").read_bytes())
        inner[64] ^= 1
        (path / "v0002-c000-b00000.bin").write_bytes(inner)
        report = repair(path)
        assert report.lost == (("data", 0),)
        assert_table(path, [None, b"x" * 10])

    def test_needs_a_manifest_and_the_lock(self, path: Path) -> None:
        with change(path), pytest.raises(LockedError):
            repair(path)
        (path / "splitpipe.json").unlink()
        with pytest.raises(FormatError, match="not a splitpipe dataset"):
            repair(path)
        with pytest.raises(StorageError):
            repair(path / "nowhere")


class TestByTheBook:
    """Nothing of the package is used here but the description."""

    def test_updates_and_missing_values(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        with DatasetWriter(path, {"a": "bytes"}, bins=2) as w:
            w.write_many([{"a": b"%d" % n} for n in range(4)])
        with change(path) as w:
            w.update(2, {"a": b"new"})
            w.update(1, {"a": None})
        dataset = bytes.fromhex(describe(path).dataset)

        def seed(domain: bytes, number: int) -> int:
            return int(value(domain + dataset + struct.pack("<II", 0, number)))

        index = (path / "v0001-c000-g00002.index").read_bytes()[64:]
        entries = [struct.unpack_from("<QQII", index, 24 * row) for row in range(4)]
        assert [number for *_, number, _ in entries] == [0, 2, 2, 1]
        raw = (path / "v0001-c000-b00002.bin").read_bytes()
        assert entries[2] == (78, 3, 2, extend(placed(seed(b"record", 2), 78, 2), b"new"))
        assert entries[1] == (95, 0, 2, extend(placed(seed(b"record", 2), 95, 1), b"missing"))
        assert raw[64:78] == struct.pack("<IIIH", entries[2][3], 3, 2, 0)
        assert raw[78:] == b"new" + struct.pack("<IIIH", entries[1][3], 0, 1, 0)
        tail = open_table(path).manifest.columns[0].layout.segments[0].tail
        page, *runs = struct.unpack("<3I", tail)
        assert page == extend(seed(b"index", 0) ^ 0, index)
        assert runs == [0, 0], "neither run is together any more"

    def test_deleted_rows(self, path: Path) -> None:
        with change(path) as w:
            w.delete([300, 7])
        raw = (path / "v0001-deleted-00002.rows").read_bytes()
        assert raw[64:] == struct.pack("<2q", 7, 300)
        assert raw[:8] == b"SPLITPIP"
        assert struct.unpack_from("<II", raw, 8) == (1, 4)
        assert struct.unpack_from("<III", raw, 32) == (1, 0, 2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_changes(tmp_path: Path, seed: int) -> None:
    """Beside a list of dicts, with commits, failures and reopenings in any order."""
    rng = random.Random(seed)
    path = tmp_path / "ds"
    schema = Schema({"a": "str", "b": "int64"})
    records: list[Record] = []
    with DatasetWriter(path, schema, bins=rng.choice([1, 2, 5])):
        pass
    for _ in range(25):
        with change(path) as w:
            names = list(w.schema or ())
            for _ in range(rng.randrange(4)):
                work(rng, w, records, names)
            if rng.random() < 0.2:
                w.commit()
        kept = [record for record in records if record is not None]
        records = kept
        if rng.random() < 0.1:
            compact(path)
        assert_table(path, records)


def work(rng: random.Random, w: DatasetWriter, records: list[Any], names: list[str]) -> None:
    """One change, in the dataset and in the list; a deleted record leaves ``None``."""

    def record() -> Record:
        return {
            name: "t" * rng.randrange(9) if name == "a" else rng.choice([None, rng.randrange(9)])
            for name in names
        }

    live = [at for at, found in enumerate(records) if found is not None]
    match rng.randrange(5):
        case 0 | 1:
            more = [record() for _ in range(rng.choice([1, 10, 150]))]
            w.write_many(more)
            records.extend(more)
        case 2 if live:
            for at in rng.choices(live, k=5):
                fields = dict(list(record().items())[: rng.randrange(1, 3)])
                w.update(at, fields)
                records[at] = {**records[at], **fields}
        case 3 if live:
            gone = rng.sample(live, min(3, len(live)))
            w.delete(gone)
            for at in gone:
                records[at] = None
        case 4 if len(names) < 5:
            name = f"c{len(names)}"
            w.add_column(name, "int64")
            names.append(name)
            values = [rng.randrange(99) for _ in live]
            w.update_column(name, values)
            for at, number in zip(live, values, strict=True):
                records[at] = {**records[at], name: number}


SESSIONS: dict[str, Callable[[DatasetWriter], object]] = {
    "update": lambda w: w.update_many([(3, {"text": "x"}), (70, {"n": 1}), (3, {"n": None})]),
    "delete": lambda w: w.delete([0, 399, 7]),
    "add column": lambda w: (w.add_column("extra", "str"), w.update(5, {"extra": "y"})),
    "replace column": lambda w: w.update_column("n", range(400)),
    "all": lambda w: (
        w.write_many(made(100), keys=[f"k{n}" for n in range(100)]),
        w.update("k3", {"n": 5}, meta={"m": 1}),
        w.delete([1, 2]),
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_failed_commit_can_be_tried_again(
    path: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tmp_path / "expected"
    shutil.copytree(path, expected)
    with change(expected) as w:
        SESSIONS[name](w)
    for call in ("replace", "fdatasync", "fsync"):
        place = tmp_path / call
        shutil.copytree(path, place)
        with change(place) as w:
            SESSIONS[name](w)
            with monkeypatch.context() as patch:
                patch.setattr(os, call, _fails)
                with pytest.raises(StorageError):
                    w.commit()
            if call != "fsync":
                assert_table(place, made(400))
            w.commit()
        theirs = open_table(expected)
        assert_table(place, list(theirs.iterate_rows(0, len(theirs))))
        theirs.close()
        assert set(os.listdir(place)) == set(os.listdir(expected))


def _fails(*_: Any, **__: Any) -> None:
    raise OSError(28, os.strerror(28))


def test_an_aborted_session_leaves_nothing(path: Path) -> None:
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    for name in SESSIONS:
        w = change(path)
        SESSIONS[name](w)
        w.flush()
        w.abort()
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before, name
