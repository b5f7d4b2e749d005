"""Damaged, missing, foreign and newer files: an error that says which, never a wrong record."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import (
    CorruptRecord,
    FormatError,
    SplitpipeError,
    StorageError,
    UnsupportedVersion,
)
from splitpipe.order import binwise_order, global_order
from splitpipe.storage import DatasetWriter, check_dataset, manifest
from tests.storage.making import assert_holds, numbered, write

RECORDS = [b"%d" % n for n in range(70)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One complete stripe of 64 rows in one bin, and 6 rows of the next."""
    return write(tmp_path / "ds", RECORDS, bins=1)


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.name != "writer.lock")


def never_wrong(path: Path, records: list[bytes]) -> bool:
    """Read in every way; each way gives the truth or an error of ours. Whether all gave it."""
    ways: list[Callable[[Dataset], bool]] = [
        lambda ds: list(ds) == records,
        lambda ds: [ds[row] for row in range(len(ds))] == records,
        lambda ds: ds.get_batch(range(len(ds))) == records,
        lambda ds: ds.lengths(range(len(ds))).tolist() == [len(r) for r in records],
        lambda ds: sorted(ds.iterate(binwise_order(ds.bin_layout(), 1, 0))) == sorted(records),
    ]
    fine = True
    for way in ways:
        try:
            with open_dataset(path) as ds:
                assert way(ds)
        except SplitpipeError:
            fine = False
    return fine


def is_reported(path: Path) -> bool:
    try:
        return not check_dataset(path).ok
    except SplitpipeError:
        return True


@pytest.mark.long
@pytest.mark.deadline(150)
def test_a_flipped_bit_in_any_byte_is_found(path: Path) -> None:
    for file in files_of(path):
        good = file.read_bytes()
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= 1 << (at % 8)
            file.write_bytes(bad)
            never_wrong(path, RECORDS)
            assert is_reported(path), f"{file.name}, byte {at}"
        file.write_bytes(good)
    assert_holds(path, RECORDS)


@pytest.mark.long
@pytest.mark.deadline(150)
def test_a_file_cut_anywhere_is_found(path: Path) -> None:
    for file in files_of(path):
        good = file.read_bytes()
        for size in range(len(good)):
            file.write_bytes(good[:size])
            never_wrong(path, RECORDS)
            assert is_reported(path), f"{file.name}, {size} bytes"
        file.write_bytes(good)
    assert_holds(path, RECORDS)


@given(data=st.data())
def test_any_damage_in_any_place_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    records = numbered(300)
    path = write(tmp_path_factory.mktemp("any") / "ds", records, bins=2)
    file = data.draw(st.sampled_from(files_of(path)), label="file")
    good = file.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1), label="at")
    junk = data.draw(st.binary(min_size=1, max_size=30), label="junk")
    bad = good[:at] + junk + good[at + len(junk) :]
    file.write_bytes(bad)
    never_wrong(path, records)
    if bad != good:
        assert is_reported(path)


@given(raw=st.binary(max_size=300))
def test_any_bytes_as_a_manifest_end_in_an_error_of_ours(raw: bytes) -> None:
    with pytest.raises(FormatError):
        manifest.decode(raw, "here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def sealed(document: object) -> bytes:
    """A manifest whose checksum is right, whatever it says."""
    head = json.dumps(document, indent=1).removesuffix("\n}").encode()
    return head + b',\n "checksum": "%08x"\n}\n' % google_crc32c.value(head)


@given(data=st.data())
def test_a_manifest_with_a_right_checksum_and_wrong_content_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write(tmp_path_factory.mktemp("any") / "ds", RECORDS, bins=3)
    file = path / "splitpipe.json"
    document = json.loads(file.read_bytes())
    del document["checksum"]
    assert sealed(document) == file.read_bytes()
    place = data.draw(
        st.sampled_from([document, document["columns"][0], document["columns"][0]["segments"][0]])
    )
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    file.write_bytes(sealed(document))
    never_wrong(path, RECORDS[: document["rows"]] if type(document["rows"]) is int else RECORDS)


class TestMessages:
    def test_a_damaged_record_names_file_bin_record_offset_and_what_to_try(
        self, path: Path
    ) -> None:
        file = path / "v0001-c000-b00000.bin"
        raw = bytearray(file.read_bytes())
        offset = raw.index(b"33", 64)
        raw[offset] ^= 1
        file.write_bytes(raw)
        for read in (
            lambda ds: ds[33],
            lambda ds: ds.get_batch([1, 33]),
            lambda ds: list(ds),
            lambda ds: ds[30:40],
            lambda ds: list(ds.iterate(binwise_order(ds.bin_layout(), 0, 0))),
            lambda ds: list(ds.iterate(global_order(len(ds), 0, 0))),
        ):
            with open_dataset(path) as ds, pytest.raises(CorruptRecord) as caught:
                read(ds)
            text = str(caught.value)
            for part in ("record 33", f"offset {offset}", "bin 0", str(file), "splitpipe check"):
                assert part in text
        report = check_dataset(path)
        assert [finding.row for finding in report.findings] == [0, 33]
        assert report.checked == 70
        with open_dataset(path, verify=False) as ds:
            assert ds[33] == b"23"

    def test_the_records_around_it_are_read(self, path: Path) -> None:
        file = path / "v0001-c000-b00000.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(b"33", 64)] ^= 1
        file.write_bytes(raw)
        with open_dataset(path) as ds:
            assert [ds[row] for row in range(70) if row != 33] == RECORDS[:33] + RECORDS[34:]

    def test_a_damaged_index_is_named_as_the_culprit(self, path: Path) -> None:
        file = path / "v0001-c000.index"
        raw = bytearray(file.read_bytes())
        raw[64 + 24 * 20] ^= 4
        file.write_bytes(raw)
        with open_dataset(path) as ds:
            with pytest.raises(CorruptRecord, match=r"record 20: .*index is at fault.*\.index"):
                ds[20]
            with pytest.raises(FormatError, match=r"rows 0 to 63 of .*\.index does not fit"):
                ds.lengths([3])
            assert ds[21] == b"21"

    def test_a_length_beyond_the_file_allocates_nothing(self, path: Path) -> None:
        file = path / "v0001-c000.index"
        raw = bytearray(file.read_bytes())
        raw[64 + 24 * 5 + 8 : 64 + 24 * 5 + 16] = (1 << 62).to_bytes(8, "little")
        file.write_bytes(raw)
        with open_dataset(path) as ds:
            for read in (lambda: ds[5], lambda: ds.get_batch([4, 5]), lambda: list(ds)):
                with pytest.raises(CorruptRecord, match="record 5"):
                    read()

    def test_a_missing_bin_is_named(self, path: Path) -> None:
        file = path / "v0001-c000-b00000.bin"
        file.unlink()
        with open_dataset(path) as ds:
            for read in (lambda: ds[0], lambda: ds.get_batch([0, 1]), lambda: list(ds)):
                with pytest.raises(StorageError) as caught:
                    read()
                assert caught.value.filename == str(file)
        assert not check_dataset(path).ok

    def test_a_cut_bin_is_named(self, path: Path) -> None:
        file = path / "v0001-c000-b00000.bin"
        file.write_bytes(file.read_bytes()[:-1])
        with open_dataset(path) as ds, pytest.raises(CorruptRecord, match=re.escape(str(file))):
            ds[0]

    def test_a_newer_version_is_unsupported(self, path: Path) -> None:
        file = path / "splitpipe.json"
        document = json.loads(file.read_bytes())
        del document["checksum"]
        for change in ({"version": 2}, {"requires": ["time travel"]}):
            file.write_bytes(sealed(document | change))
            for action in (open_dataset, check_dataset, DatasetWriter):
                with pytest.raises(UnsupportedVersion, match="update"):
                    action(path)

    def test_what_is_not_a_dataset_is_said_to_be_none(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="is not a splitpipe dataset"):
            open_dataset(tmp_path)
        with pytest.raises(StorageError, match="there is no such dataset"):
            open_dataset(tmp_path / "nowhere")
        (tmp_path / "file").write_text("x")
        with pytest.raises(FormatError, match="is not a splitpipe dataset"):
            open_dataset(tmp_path / "file")
        (tmp_path / "index.dat").write_bytes(bytes(12))
        with pytest.raises(FormatError, match="package splitdataloader, which open_dataset reads"):
            check_dataset(tmp_path)


class TestMisplaced:
    """Good bytes in the wrong place."""

    def test_two_bins_that_changed_places(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", [b"same"] * 256, bins=2)
        one, two = path / "v0001-c000-b00000.bin", path / "v0001-c000-b00001.bin"
        one.rename(path / "x")
        two.rename(one)
        (path / "x").rename(two)
        assert not never_wrong(path, [b"same"] * 256)
        with open_dataset(path) as ds, pytest.raises(CorruptRecord, match="another place"):
            ds[0]

    def test_a_bin_of_another_dataset_with_the_same_records(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", RECORDS, bins=2)
        other = write(tmp_path / "other", RECORDS, bins=2)
        name = "v0001-c000-b00001.bin"
        header = (path / name).read_bytes()[:64]
        shutil.copy(other / name, path / name)
        with open_dataset(path) as ds, pytest.raises(CorruptRecord, match="another dataset"):
            ds[1]
        # Behind the right header the payloads are the same, but the records are not ours.
        (path / name).write_bytes(header + (other / name).read_bytes()[64:])
        with open_dataset(path) as ds:
            assert list(ds) == RECORDS
        assert is_reported(path)

    def test_index_entries_that_changed_places(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", [b"same"] * 300, bins=1)
        file = path / "v0001-c000.index"
        raw = file.read_bytes()
        table = np.frombuffer(raw, dtype="V24", offset=64).copy()
        table[[10, 20]] = table[[20, 10]]
        file.write_bytes(raw[:64] + table.tobytes())
        with open_dataset(path) as ds:
            for row in (10, 20):
                with pytest.raises(CorruptRecord, match=f"record {row}"):
                    ds[row]
            with pytest.raises(CorruptRecord):
                ds.get_batch([9, 10])

    def test_index_pages_that_changed_places(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", [b"same"] * 256, bins=1)
        file = path / "v0001-c000.index"
        raw = file.read_bytes()
        page = 64 * 24
        body = raw[64:]
        file.write_bytes(raw[:64] + body[page : 2 * page] + body[:page] + body[2 * page :])
        assert not never_wrong(path, [b"same"] * 256)
        with open_dataset(path) as ds:
            for row in range(128):
                with pytest.raises(CorruptRecord):
                    ds[row]
            with pytest.raises(FormatError):
                ds.lengths([0])
