"""The format, byte for byte: ``docs/format.md`` read literally, against the golden dataset."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google_crc32c import extend, value
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError, UnsupportedVersion
from splitpipe.storage import DatasetWriter, describe, format, manifest
from tests.storage.make_golden import (
    CHANGES,
    DATASET,
    GOLDEN,
    PACKED,
    changed_records,
    first_session,
    make_changes,
    make_golden,
    packed_records,
    second_session,
)
from tests.storage.making import assert_holds, placed
from tests.storage.tables import assert_table

RECORDS = first_session() + second_session()
words = st.integers(0, 2**32 - 1)
offsets = st.integers(0, 2**63 - 1)
rows = st.integers(0, 2**48 - 1)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden"
    shutil.copytree(GOLDEN, path)
    return path


def test_the_golden_dataset_reads(golden: Path) -> None:
    assert_holds(golden, RECORDS)


def test_reading_adds_and_changes_nothing() -> None:
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in GOLDEN.iterdir()}
    assert_holds(GOLDEN, RECORDS)
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in GOLDEN.iterdir()}


def test_this_version_writes_the_same_bytes(tmp_path: Path) -> None:
    make_golden(tmp_path / "new")
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {
        p.name: p.read_bytes() for p in GOLDEN.iterdir()
    }


def test_it_can_be_appended_to(golden: Path) -> None:
    with DatasetWriter(golden, append=True) as writer:
        writer.write_many([b"more"] * 500)
    assert_holds(golden, RECORDS + [b"more"] * 500)
    assert describe(golden).segments == ((0, 140, 0, 2), (140, 505, 2, 3))


class TestByTheBook:
    """Nothing of the package is used here but the description."""

    def seed(self, domain: bytes, number: int) -> int:
        return int(value(domain + DATASET + struct.pack("<II", 0, number)))

    def test_manifest(self) -> None:
        raw = (GOLDEN / "splitpipe.json").read_bytes()
        head, tail = raw[:-28], raw[-28:]
        assert tail == b',\n "checksum": "%08x"\n}\n' % value(head)
        document = json.loads(raw)
        assert document["format"] == "splitpipe dataset"
        assert document["version"] == 1
        assert document["dataset"] == DATASET.hex()
        assert document["rows"] == 145
        (column,) = document["columns"]
        names = [f"v0001-c000-b{number:05d}.bin" for number in range(5)]
        assert column["bin_sizes"] == [(GOLDEN / name).stat().st_size for name in names]

    def test_file_headers(self) -> None:
        for name, kind, number in (
            ("v0001-c000-b00004.bin", 1, 4),
            ("v0001-c000.index", 2, 0),
            ("v0001-c000.sums", 3, 0),
        ):
            raw = (GOLDEN / name).read_bytes()[:64]
            head = struct.pack("<8sII16sIII16s", b"SPLITPIP", 1, kind, DATASET, 1, 0, number, b"")
            assert raw == head + struct.pack("<I", value(head))

    def test_records(self) -> None:
        index = (GOLDEN / "v0001-c000.index").read_bytes()
        assert len(index) == 64 + 24 * 145
        expected_bins = [n % 2 for n in range(140)] + [4, 2, 3, 4, 2]
        ends = [64] * 5
        for row, record in enumerate(RECORDS):
            offset, length, number, crc = struct.unpack_from("<QQII", index, 64 + 24 * row)
            assert number == expected_bins[row]
            raw = (GOLDEN / f"v0001-c000-b{number:05d}.bin").read_bytes()
            assert offset == ends[number] + 14
            ends[number] = offset + length
            assert raw[offset : offset + length] == record
            assert crc == extend(placed(self.seed(b"record", number), offset, row), record)
            assert struct.unpack_from("<IIIH", raw, offset - 14) == (crc, length, row, 0)

    def test_sums(self) -> None:
        index = (GOLDEN / "v0001-c000.index").read_bytes()[64:]
        sums = (GOLDEN / "v0001-c000.sums").read_bytes()
        document = json.loads((GOLDEN / "splitpipe.json").read_bytes())
        tails = [s["tail"] for s in document["columns"][0]["segments"]]
        assert len(sums) == 64 + 4 * 3
        self.assert_stripe(index, sums[64:], rows=range(128), bins=[0, 1])
        self.assert_stripe(index, bytes.fromhex(tails[0]), rows=range(128, 140), bins=[0, 1])
        self.assert_stripe(index, bytes.fromhex(tails[1]), rows=range(140, 145), bins=[4, 2, 3])

    def assert_stripe(self, index: bytes, sums: bytes, rows: range, bins: list[int]) -> None:
        page, *runs = struct.unpack(f"<{len(sums) // 4}I", sums)
        start = placed(self.seed(b"index", 0), 0, rows.start)
        assert page == extend(start, index[24 * rows.start : 24 * rows.stop])
        assert len(runs) == len(bins)
        for turn, (number, crc) in enumerate(zip(bins, runs, strict=True)):
            mine = range(rows.start + turn, rows.stop, len(bins))
            first, _, _, _ = struct.unpack_from("<QQII", index, 24 * mine[0])
            offset, length, _, _ = struct.unpack_from("<QQII", index, 24 * mine[-1])
            raw = (GOLDEN / f"v0001-c000-b{number:05d}.bin").read_bytes()
            run = raw[first - 14 : offset + length]
            start = placed(self.seed(b"run", number), first - 14, mine[0])
            assert crc == extend(start, run)


class TestPlaces:
    @given(seed=words, offset=offsets, row=rows, bit=st.integers(0, 63))
    def test_one_bit_always_changes_the_highest_byte(
        self, seed: int, offset: int, row: int, bit: int
    ) -> None:
        start = format.place(seed, offset, row)
        assert 0 <= start < 2**32
        assert (start ^ format.place(seed, offset ^ 1 << bit, row)) >> 24
        assert (start ^ format.place(seed, offset, row ^ 1 << bit)) >> 24

    @given(
        seed=words,
        offset=offsets,
        row=rows,
        bit=st.integers(0, 63),
        found=st.binary(max_size=3),
        data=st.data(),
    )
    def test_no_short_record_cancels_a_flipped_bit_of_its_offset(
        self, seed: int, offset: int, row: int, bit: int, found: bytes, data: st.DataObject
    ) -> None:
        true = data.draw(st.binary(min_size=len(found), max_size=len(found)))
        there = format.place(seed, offset ^ 1 << bit, row)
        assert extend(format.place(seed, offset, row), true) != extend(there, found)

    @given(dataset=st.binary(min_size=16, max_size=16), number=st.integers(0, 2**16 - 1))
    def test_nor_of_its_bin(self, dataset: bytes, number: int) -> None:
        seed = format.record_seed(dataset, 3, number)
        for bit in range(16):
            assert (seed ^ format.record_seed(dataset, 3, number ^ 1 << bit)) >> 24

    @given(st.lists(st.tuples(words, offsets, rows), min_size=1))
    def test_many_are_as_each(self, those: list[tuple[int, int, int]]) -> None:
        seeds, at, of = (np.array(column, dtype=np.uint64) for column in zip(*those, strict=True))
        for numbers in (of, of.view(np.int64)):
            found = seeds ^ format.places(at, numbers)
            assert found.tolist() == [format.place(*one) for one in those]
            assert found.tolist() == [placed(*one) for one in those]


class TestLargeNumbers:
    def test_a_place_is_told_apart_beyond_32_bits(self) -> None:
        places = {format.place(7, offset, 5) for offset in (1, 1 + 2**32, 1 + 2**33, 1 + 2**40)}
        assert len(places) == 4
        assert all(0 <= place < 2**32 for place in places)

    def test_a_record_header_with_a_long_length(self) -> None:
        row = 5 + (9 << 32)
        assert format.pack_record_header(1, 2**32 - 2, row) == struct.pack(
            "<IIIH", 1, 2**32 - 2, 5, 9
        )
        for length in (2**32 - 1, 2**40):
            assert format.pack_record_header(1, length, row) == struct.pack(
                "<IIIHQ", 1, 2**32 - 1, 5, 9, length
            )

    def test_the_manifest_keeps_64_bits(self, golden: Path) -> None:
        read = manifest.decode((golden / "splitpipe.json").read_bytes(), "here")
        assert manifest.decode(manifest.encode(read), "here") == read


class TestGoldenTables:
    @pytest.mark.parametrize(
        ("place", "records"), [(CHANGES, changed_records()), (PACKED, packed_records())]
    )
    def test_read_as_ever_and_are_left_as_they_are(self, place: Path, records: Any) -> None:
        before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in place.iterdir()}
        assert_table(place, records)
        assert before == {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in place.iterdir()}

    def test_this_version_writes_the_same_bytes(self, tmp_path: Path) -> None:
        make_changes(tmp_path / "new")
        assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {
            p.name: p.read_bytes() for p in CHANGES.iterdir()
        }

    def test_what_a_reader_must_know_is_said(self) -> None:
        for place, features in (
            (GOLDEN, []),
            (CHANGES, ["columns", "missing", "changes"]),
            (PACKED, ["columns", "missing", "zstd", "catalog"]),
        ):
            assert json.loads((place / "splitpipe.json").read_bytes())["requires"] == features

    def test_the_catalog_answers(self) -> None:
        with open_dataset(PACKED) as ds:
            assert ds["key 5"] == packed_records()[5]
            assert [r["n"] for r in ds.where("size = ? AND text IS NULL", [2])] == [
                9,
                72,
                135,
                198,
                261,
            ]

    def test_they_can_be_changed_further(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        shutil.copytree(CHANGES, path)
        records = changed_records()
        with DatasetWriter(path, append=True) as writer:
            writer.write_many(records[:100])
            writer.update(3, {"text": "and again"})
        records += records[:100]
        records[3] = {**records[3], "text": "and again"}
        assert_table(path, records)

    def test_a_feature_that_is_not_known_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "ds"
        shutil.copytree(CHANGES, path)
        raw = (path / "splitpipe.json").read_bytes()[:-28]
        raw = raw.replace(b'"changes"', b'"telepathy"')
        (path / "splitpipe.json").write_bytes(raw + b',\n "checksum": "%08x"\n}\n' % value(raw))
        with pytest.raises(UnsupportedVersion, match="telepathy"):
            open_dataset(path)


def test_a_lone_index_is_refused(golden: Path) -> None:
    (golden / "splitpipe.json").unlink()
    with pytest.raises(FormatError, match="is not a splitpipe dataset"):
        open_dataset(golden)
