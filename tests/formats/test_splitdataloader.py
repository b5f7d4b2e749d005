"""split-data-loader's folders, written by the original package."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import splitdataloader

from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.formats.base import Source
from splitpipe.formats.seeds.splitdataloader import FORMAT
from splitpipe.order import binwise_order
from splitpipe.schema import Schema
from tests.formats.damage import (
    all_of,
    mutations,
    open_as,
    read_plainly,
    survives,
    truncations,
)
from tests.formats.reading import contents

RECORDS = [b"%d" % n * (n % 23) for n in range(500)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splitdataloader.write_split_data(str(tmp_path / "data"), RECORDS, splits=7, shuffle=True)
    return tmp_path / "data"


class TestGood:
    def test_what_the_original_wrote(self, folder: Path) -> None:
        before = contents(folder)
        assert all_of(FORMAT, folder) == RECORDS
        assert contents(folder) == before
        original = splitdataloader.SplitDataLoader(str(folder))
        assert [original[row] for row in range(len(original))] == RECORDS

    def test_records_are_bytes(self, folder: Path) -> None:
        assert open_as(FORMAT, folder).schema == Schema("bytes")

    def test_several_sessions(self, folder: Path) -> None:
        splitdataloader.write_split_data(str(folder), [b"more", b""], splits=3)
        assert all_of(FORMAT, folder) == [*RECORDS, b"more", b""]

    def test_none(self, tmp_path: Path) -> None:
        splitdataloader.write_split_data(str(tmp_path), [])
        assert read_plainly(FORMAT, tmp_path) == []

    def test_a_dataset_that_was_written_to_since(self, folder: Path) -> None:
        records = open_as(FORMAT, folder)
        splitdataloader.write_split_data(str(folder), [b"new"], splits=7)
        assert len(records) == len(RECORDS)
        copy = records.__reduce__()
        assert isinstance(copy, tuple)
        with pytest.raises(FormatError, match=r"index\.dat is not what it was"):
            copy[0](*copy[1])

    def test_only_such_folders_are_recognised(self, folder: Path, tmp_path: Path) -> None:
        assert FORMAT.recognises(Source.at(folder))
        assert not FORMAT.recognises(Source.at(tmp_path))
        (tmp_path / "index.dat").write_bytes(b"something else")
        assert not FORMAT.recognises(Source.at(tmp_path))


class TestBins:
    def test_are_as_the_writer_dealt_them(self, folder: Path) -> None:
        table = np.fromfile(folder / "index.dat", dtype="<u4").reshape(-1, 3)
        bins = open_as(FORMAT, folder).layout().bins()
        assert len(bins) == 7
        for rows in bins:
            assert len(set(table[list(rows), 0].tolist())) == 1

    def test_of_several_sessions(self, folder: Path) -> None:
        splitdataloader.write_split_data(str(folder), RECORDS[:20], splits=4)
        layout = open_as(FORMAT, folder).layout()
        first, *rest = (segment.rows for segment in layout.segments)
        # That writer deals at random: what comes after may go on by chance as before.
        assert first >= 500
        assert sum(rest, first) == 520
        assert sorted(row for rows in layout.bins() for row in rows) == list(range(520))

    def test_binwise_order(self, folder: Path) -> None:
        records = open_as(FORMAT, folder)
        order = binwise_order(records.layout(), seed=1, epoch=0)
        assert sorted(records.iterate(order, 0, len(order))) == sorted(RECORDS)

    def test_of_an_index_that_nobody_dealt(self, folder: Path) -> None:
        table = np.fromfile(folder / "index.dat", dtype="<u4").reshape(-1, 3)
        np.random.default_rng(0).shuffle(table)
        table.tofile(folder / "index.dat")
        layout = open_as(FORMAT, folder).layout()
        assert sorted(row for rows in layout.bins() for row in rows) == list(range(500))


class TestDamage:
    def test_an_index_cut_inside_of_an_entry(self, folder: Path) -> None:
        index = folder / "index.dat"
        index.write_bytes(index.read_bytes()[:-5])
        with pytest.raises(FormatError, match=r"index\.dat ends inside of an entry \(499 records"):
            open_as(FORMAT, folder)
        assert all_of(FORMAT, folder, incomplete="ignore") == RECORDS[:-1]

    def test_a_length_that_disagrees(self, folder: Path) -> None:
        number, position, length = struct.unpack_from(
            "<III", (folder / "index.dat").read_bytes(), 60
        )
        file = folder / f"bin{number:08d}.dat"
        data = bytearray(file.read_bytes())
        data[position] ^= 1
        file.write_bytes(data)
        with pytest.raises(CorruptRecord, match=f"record 5 of .*{length} bytes at position"):
            open_as(FORMAT, folder).read(np.array([4, 5]), ["data"])

    def test_a_bin_that_was_cut(self, folder: Path) -> None:
        file = folder / "bin00000003.dat"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(CorruptRecord, match=r"bin00000003\.dat"):
            read_plainly(FORMAT, folder)

    def test_a_bin_that_is_missing(self, folder: Path) -> None:
        (folder / "bin00000003.dat").unlink()
        with pytest.raises(StorageError, match=r"restore it from a copy.*bin00000003\.dat"):
            read_plainly(FORMAT, folder)

    def test_what_is_neither_raise_nor_ignore(self, folder: Path) -> None:
        with pytest.raises(FormatError, match="'raise' or 'ignore'"):
            open_as(FORMAT, folder, incomplete="skip")

    def test_a_file_of_it(self, folder: Path) -> None:
        with pytest.raises(FormatError, match="open the folder"):
            open_as(FORMAT, folder / "index.dat")

    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        splitdataloader.write_split_data(str(tmp_path / "small"), RECORDS[1:13], splits=2)
        return tmp_path / "small"

    def test_cut_at_every_byte(self, small: Path) -> None:
        for name in ("index.dat", "bin00000000.dat", "bin00000001.dat"):
            for size in truncations(small / name):
                found = survives(lambda: read_plainly(FORMAT, small))
                # An index that is cut between two entries is a shorter one.
                assert found is None or (
                    name == "index.dat" and found == RECORDS[1 : 1 + size // 12]
                )

    def test_every_bit_of_the_index(self, small: Path) -> None:
        index = small / "index.dat"
        whole = index.read_bytes()
        for bit in range(8 * len(whole)):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            index.write_bytes(data)
            assert survives(lambda: read_plainly(FORMAT, small)) is None

    @pytest.mark.parametrize("name", ["index.dat", "bin00000000.dat"])
    def test_mutated(self, small: Path, name: str) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small))
            for _ in mutations(small / name, 400, seed=1)
        ]
