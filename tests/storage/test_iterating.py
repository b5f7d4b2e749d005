"""Iterating over records: by the kernel in C, and by its twin in Python."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.dataset import open_dataset
from splitpipe.errors import CorruptRecord, StorageError
from splitpipe.order import binwise_order, global_order
from splitpipe.storage import reader
from tests.storage.kernels import KERNELS, Made, Rows, needs_native, rows_of
from tests.storage.making import numbered, write


def refuse(rows: Rows) -> list[bytes]:
    raise AssertionError(f"rows {rows.tolist()} were plainly right")


class Closer:
    """Who looks closer: reads some of the rows in his own way, and remembers which were asked."""

    def __init__(self, made: Made, most: int = 3) -> None:
        self.made = made
        self.most = most
        self.asked: list[int] = []

    def __call__(self, rows: Rows) -> list[bytes]:
        self.asked.append(int(rows[0]))
        return [self.made.records[row] for row in rows[: self.most]]


@pytest.fixture
def made() -> Made:
    return Made([*numbered(40), b"", b"1", os.urandom(200), os.urandom(5_000), os.urandom(70_001)])


@pytest.mark.parametrize("module", KERNELS)
class TestColumns:
    @pytest.mark.parametrize("verify", [True, False])
    def test_records_come_in_order(self, module: Any, made: Made, verify: bool) -> None:
        column = made.open(module, verify=verify)
        count = len(made.records)
        blocks = [np.arange(count), rows_of(), np.arange(count)[::-1].copy(), rows_of(5), rows_of()]
        wanted = [*made.records, *made.records[::-1], made.records[5]]
        found = column.iterate(iter(blocks), refuse)
        assert iter(found) is found
        assert list(found) == wanted
        assert list(found) == []
        assert list(column.iterate([], refuse)) == []

    @given(data=st.data())
    def test_what_is_kept_stays_what_it_was(self, module: Any, data: st.DataObject) -> None:
        lengths = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=60))
        records = [bytes([n % 256]) * length for n, length in enumerate(lengths)]
        keep = data.draw(st.lists(st.booleans(), min_size=len(records), max_size=len(records)))
        column = Made(records).open(module)
        kept, hashes = [], []
        for record, kind in zip(
            column.iterate([np.arange(len(records))], refuse), keep, strict=True
        ):
            hashes.append(hash(record))
            if kind:
                kept.append(record)
        assert kept == [record for record, kind in zip(records, keep, strict=True) if kind]
        assert hashes == list(map(hash, records))
        assert [hash(record) for record in kept] == [hash(bytes(bytearray(r))) for r in kept]

    def test_views_of_records_stay_what_they_were(self, module: Any) -> None:
        records = [os.urandom(100 + n % 7) for n in range(500)]
        column = Made(records).open(module)
        views = [memoryview(record)[1:] for record in column.iterate([np.arange(500)], refuse)]
        assert views == [record[1:] for record in records]

    def test_what_is_damaged_is_left_to_the_caller_from_its_place_on(
        self, module: Any, made: Made
    ) -> None:
        made.damage(7, crc=1).damage(8, length=3).damage(30, number=9)
        closer = Closer(made, most=2)
        found = made.open(module).iterate([np.arange(20), np.arange(20, 45)], closer)
        assert list(found) == made.records
        assert {7, 30} & set(closer.asked) or closer.asked[0] == 0

    def test_an_error_ends_it(self, module: Any, made: Made) -> None:
        def read_some(rows: Rows) -> list[bytes]:
            if rows[0] == 7:
                raise CorruptRecord("record 7")
            return [made.records[row] for row in rows.tolist() if row < 7]

        found = made.damage(7, crc=1).open(module).iterate([np.arange(20)], read_some)
        assert list(islice(found, 7)) == made.records[:7]
        with pytest.raises(CorruptRecord, match="record 7"):
            next(found)
        assert list(found) == []

    @pytest.mark.parametrize("wrong", [[], None, [b""] * 50, (b"",)])
    def test_who_looks_closer_must_give_some(self, module: Any, made: Made, wrong: Any) -> None:
        column = made.open(module, attached=False)
        with pytest.raises(ValueError, match="one record or more"):
            next(column.iterate([np.arange(20)], lambda rows: wrong))

    def test_bins_that_come_and_go(self, module: Any, made: Made) -> None:
        column = made.open(module, attached=False)
        closer = Closer(made, most=1)
        found = column.iterate([np.arange(20), np.arange(20, 40)], closer)
        assert next(found) == made.records[0]
        for number, held in enumerate(made.bins):
            column.attach(number, bytes(held))
        assert list(islice(found, 10)) == made.records[1:11]
        column.detach(1)
        assert list(islice(found, 10)) == made.records[11:21]
        column.close()
        assert list(found) == made.records[21:40]
        assert closer.asked[0] == 0
        assert closer.asked[-1] == 39

    def test_blocks_that_are_none(self, module: Any, made: Made) -> None:
        column = made.open(module)
        for wrong in (np.arange(3.0), np.zeros((2, 2), dtype=np.int64)):
            with pytest.raises(TypeError):
                next(column.iterate([wrong], refuse))
        with pytest.raises(TypeError):
            next(iter(column.iterate(5, refuse)))

    def test_an_error_of_the_blocks_is_the_callers(self, module: Any, made: Made) -> None:
        def blocks() -> Iterator[Rows]:
            yield np.arange(3)
            raise KeyError("blocks")

        found = made.open(module).iterate(blocks(), refuse)
        assert list(islice(found, 3)) == made.records[:3]
        with pytest.raises(KeyError, match="blocks"):
            next(found)

    def test_it_is_for_one_at_a_time(self, module: Any, made: Made) -> None:
        def read_some(rows: Rows) -> list[bytes]:
            return [next(found)]

        found = made.open(module, attached=False).iterate([np.arange(20)], read_some)
        with pytest.raises(ValueError, match="already"):
            next(found)

    def test_what_goes_round_in_a_circle_is_found(self, module: Any, made: Made) -> None:
        class Blocks:
            def __iter__(self) -> Iterator[Rows]:
                return self

            def __next__(self) -> Rows:
                return np.arange(5)

        blocks: Any = Blocks()
        blocks.found = made.open(module).iterate(blocks, refuse)
        assert next(blocks.found) == made.records[0]
        gone = weakref.ref(blocks)
        del blocks
        gc.collect()
        assert gone() is None


@needs_native
def test_records_that_nobody_keeps_are_one_object_or_two() -> None:
    """Else there is nothing gained, and what the tests of kept records try is never tried."""
    module = KERNELS[1].values[0]
    column = Made([bytes(100 + n * 37 % 100) for n in range(1000)]).open(module)
    places = {id(record) for record in column.iterate([np.arange(1000)], refuse)}
    assert len(places) <= 8
    kept = list(column.iterate([np.arange(1000)], refuse))
    assert len(set(map(id, kept))) == 1000


@pytest.mark.parametrize("module", KERNELS)
class TestDatasets:
    @pytest.fixture(autouse=True)
    def chosen(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "kernel", module)

    @pytest.mark.parametrize("size", [20, 12_000])
    def test_a_damaged_record_is_told_in_its_place(self, tmp_path: Path, size: int) -> None:
        records = [os.urandom(size) for _ in range(900)]
        path = write(tmp_path / "ds", records, bins=2)
        file = path / "v0001-c000-b00001.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(records[601]) + 17] ^= 1
        file.write_bytes(raw)
        with open_dataset(path) as ds:
            for order in (None, binwise_order(ds.bin_layout(), 1, 0, 2), global_order(900, 1, 0)):
                rows = list(range(900)) if order is None else list(order)
                found = iter(ds) if order is None else ds.iterate(order)
                before = rows.index(601)
                assert list(islice(found, before)) == [records[row] for row in rows[:before]]
                with pytest.raises(CorruptRecord, match="record 601"):
                    next(found)
                assert list(found) == []

    def test_a_missing_bin_is_told_in_its_place(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(900), bins=3)
        (path / "v0001-c000-b00002.bin").unlink()
        with open_dataset(path) as ds:
            found = iter(ds)
            assert list(islice(found, 2)) == numbered(2)
            with pytest.raises(StorageError, match="b00002"):
                next(found)

    def test_a_dataset_that_was_closed_meanwhile(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(9_000), bins=3)
        with open_dataset(path) as ds:
            found = iter(ds)
            assert next(found) == numbered(1)[0]
        with pytest.raises(StorageError, match="closed"):
            list(found)

    def test_few_open_bins(self, tmp_path: Path) -> None:
        records = numbered(2_000)
        path = write(tmp_path / "ds", records, bins=9)
        with open_dataset(path, max_open_bins=2) as ds:
            order = global_order(2_000, 3, 1)
            assert list(ds) == records
            assert list(ds.iterate(order)) == [records[row] for row in order]
