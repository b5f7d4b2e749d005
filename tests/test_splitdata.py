"""The names of the package splitdataloader, beside that package where it is installed."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from splitpipe.errors import FormatError, StorageError
from splitpipe.splitdata import SplitDataLoader, write_split_data
from splitpipe.storage import describe
from tests.storage.making import assert_holds, numbered

RECORDS = numbered(1000)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_split_data(tmp_path / "ds", iter(RECORDS), splits=10)
    loader = SplitDataLoader(str(tmp_path / "ds"))
    assert len(loader) == 1000
    assert [loader[row] for row in range(1000)] == RECORDS
    assert list(loader) == RECORDS
    assert repr(loader) == f"SplitDataLoader({str(tmp_path / 'ds')!r}, 1000 records)"
    assert describe(tmp_path / "ds").bins == 10


def test_bin_by_bin_as_the_package_does(tmp_path: Path) -> None:
    theirs = pytest.importorskip("splitdataloader")
    write_split_data(tmp_path / "ours", RECORDS, splits=7)
    theirs.write_split_data(str(tmp_path / "theirs"), RECORDS, splits=7)
    other = theirs.SplitDataLoader(str(tmp_path / "theirs"))
    mine = SplitDataLoader(tmp_path / "ours")
    assert list(mine.iterate_binwise()) == list(other.iterate_binwise())
    assert sorted(mine.iterate_binwise(shuffle=True)) == sorted(other.iterate_binwise(shuffle=True))


def test_writing_with_shuffle_deals_as_the_package_does(tmp_path: Path) -> None:
    theirs = pytest.importorskip("splitdataloader")
    random.seed(5)
    write_split_data(tmp_path / "ours", RECORDS, splits=7, shuffle=True)
    random.seed(5)
    theirs.write_split_data(str(tmp_path / "theirs"), RECORDS, splits=7, shuffle=True)
    mine = list(SplitDataLoader(tmp_path / "ours").iterate_binwise())
    assert mine == list(theirs.SplitDataLoader(str(tmp_path / "theirs")).iterate_binwise())
    assert mine != [record for start in range(7) for record in RECORDS[start::7]]
    assert_holds(tmp_path / "ours", RECORDS)


def test_a_shuffled_iteration_goes_bin_by_bin_and_can_be_repeated(tmp_path: Path) -> None:
    records = [b"%d" % n for n in range(700)]
    write_split_data(tmp_path / "ds", records, splits=7)
    loader = SplitDataLoader(tmp_path / "ds")
    one = list(loader.iterate_binwise(shuffle=True, seed=1))
    assert one == list(loader.iterate_binwise(shuffle=True, seed=1))
    assert one != list(loader.iterate_binwise(shuffle=True, seed=2))
    assert one != list(loader.iterate_binwise(shuffle=True, seed=1, epoch=1))
    assert list(loader.iterate_binwise(shuffle=True)) != list(loader.iterate_binwise(shuffle=True))
    assert sorted(one) == sorted(records)
    parts = defaultdict(set)
    for position, record in enumerate(one):
        parts[position // 100].add(int(record) % 7)
    assert all(len(bins) == 1 for bins in parts.values())
    assert list(loader.iterate_binwise(seed=5)) == list(loader.iterate_binwise())


def test_running_twice_is_refused_unless_it_starts_clean(tmp_path: Path) -> None:
    write_split_data(tmp_path / "ds", RECORDS)
    with pytest.raises(StorageError, match="a dataset of 1000 records is here already"):
        write_split_data(tmp_path / "ds", RECORDS)
    write_split_data(tmp_path / "ds", RECORDS[:10], start_clean=True)
    assert_holds(tmp_path / "ds", RECORDS[:10])


def test_starting_clean_removes_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        write_split_data(tmp_path, RECORDS, start_clean=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("splits", [0, -3])
def test_a_wrong_number_of_splits(tmp_path: Path, splits: int) -> None:
    with pytest.raises(FormatError, match="splits must be an integer from 1"):
        write_split_data(tmp_path / "ds", RECORDS, splits=splits)
    assert not (tmp_path / "ds").exists()


def test_nothing_counts_when_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="record 1: bytes are needed, not a str"):
        write_split_data(tmp_path / "ds", [b"a", "b"])  # type: ignore[list-item]
    assert not (tmp_path / "ds").exists()


def test_what_the_package_wrote_is_read_and_never_written_over(tmp_path: Path) -> None:
    theirs = pytest.importorskip("splitdataloader")
    theirs.write_split_data(str(tmp_path), RECORDS, splits=3)
    with SplitDataLoader(tmp_path).dataset as dataset:
        assert list(dataset) == RECORDS
    loader = SplitDataLoader(tmp_path)
    assert [loader[i] for i in range(len(loader))] == RECORDS
    shuffled = list(loader.iterate_binwise(shuffle=True, seed=3))
    assert sorted(shuffled) == sorted(RECORDS)
    assert shuffled != RECORDS
    loader.dataset.close()
    with pytest.raises(StorageError):
        write_split_data(tmp_path, RECORDS, start_clean=True)
