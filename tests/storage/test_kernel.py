"""The kernel in C and its twin in Python: the same meaning, by the same tests."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.dataset import open_dataset
from splitpipe.errors import CorruptRecord, StorageError
from splitpipe.order import GlobalOrder, binwise_order, global_order
from splitpipe.order import base as orders
from splitpipe.permutation import KeyedPermutation
from splitpipe.storage import reader, stream
from splitpipe.storage.format import ENTRY, place
from splitpipe.storage.native import twin
from splitpipe.storage.native.probe import would_wait
from tests.storage.kernels import (
    FIRST,
    KERNELS,
    SEEDS,
    Made,
    Rows,
    _kernel,
    needs_native,
    rows_of,
)
from tests.storage.making import assert_holds, numbered, write

WAYS = () if _kernel is None else _kernel.WAYS
MISSING = 0xFFFFFFFF


@pytest.fixture
def made() -> Made:
    return Made([*numbered(40), b"", os.urandom(200), os.urandom(5_000), os.urandom(70_001)])


@needs_native
class TestChecksums:
    @pytest.mark.parametrize("way", WAYS)
    def test_every_length_and_alignment_near_the_borders(self, way: str) -> None:
        data = os.urandom(20_000)
        lengths = [*range(1200), *range(6100, 6200), *range(12_250, 12_320), 16_384, 19_990]
        for at, length in enumerate(lengths):
            start = at % 9
            part = data[start : start + length]
            expected = google_crc32c.extend(at * 2654435761 % 2**32, part)
            begin = at * 2654435761 % 2**32
            assert _kernel.crc32c_by(way, part, begin) == expected, length
            out = bytearray(b"\xa5" * (length + 32))
            assert _kernel.copy_by(way, memoryview(out)[11:], part, begin) == expected, length
            assert out == b"\xa5" * 11 + part + b"\xa5" * 21

    @pytest.mark.parametrize("way", WAYS)
    @given(parts=st.lists(st.binary(max_size=3000), max_size=5))
    def test_it_continues(self, way: str, parts: list[bytes]) -> None:
        crc = 0
        for part in parts:
            crc = _kernel.crc32c_by(way, part, crc)
        assert crc == google_crc32c.value(b"".join(parts))

    @pytest.mark.parametrize("way", WAYS)
    def test_every_bit_counts(self, way: str) -> None:
        for length in (1, 8, 63, 130, 700):
            data = bytearray(os.urandom(length))
            good = _kernel.crc32c_by(way, data)
            for bit in range(8 * length):
                data[bit // 8] ^= 1 << bit % 8
                assert _kernel.crc32c_by(way, data) != good
                data[bit // 8] ^= 1 << bit % 8

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="no way abacus"):
            _kernel.crc32c_by("abacus", b"")
        with pytest.raises(ValueError, match="no room"):
            _kernel.copy_by(WAYS[-1], bytearray(3), b"four")
        with pytest.raises(TypeError):
            _kernel.crc32c("text")


@pytest.mark.parametrize("module", KERNELS)
class TestColumn:
    def test_checksums_are_those_of_the_library(self, module: Any) -> None:
        data = os.urandom(10_000)
        assert module.crc32c(data) == google_crc32c.value(data)
        assert module.crc32c(memoryview(data)[7:], 99) == google_crc32c.extend(99, data[7:])

    @pytest.mark.parametrize("verify", [True, False])
    def test_every_way_gives_the_records(self, module: Any, made: Made, verify: bool) -> None:
        column = made.open(module, verify=verify)
        count = len(made.records)
        assert [column.get(row) for row in range(count)] == made.records
        rows = np.random.default_rng(1).integers(0, count, 3 * count)
        expected = [made.records[row] for row in rows]
        assert column.gather(rows) == expected
        assert column.gather(rows_of()) == []
        for indices in (rows, rows.tolist(), tuple(rows.tolist()), rows - count):
            assert column.take(indices) in (expected, None)

    def test_more_rows_than_a_chunk(self, module: Any) -> None:
        records = numbered(9000)
        column = Made(records).open(module)
        rows = np.arange(8999, -1, -1)
        assert column.gather(rows) == records[::-1]

    @pytest.mark.parametrize("limit", [0, 1, 100, 5_100, 10**9])
    def test_a_limit_of_bytes(self, module: Any, made: Made, limit: int) -> None:
        column = made.open(module)
        rows = np.arange(len(made.records))[::-1].copy()
        found = column.gather(rows, limit)
        assert found == [made.records[row] for row in rows[: len(found)]]
        assert len(found) == 1 or sum(map(len, found)) <= limit
        if len(found) < len(rows):
            more = len(made.records[rows[len(found)]])
            assert sum(map(len, found)) + more > limit

    @pytest.mark.parametrize("row", [44, -45, 1 << 40, 1 << 63, -(1 << 63), 1 << 100])
    def test_rows_that_are_none(self, module: Any, made: Made, row: int) -> None:
        column = made.open(module)
        assert column.get(row) is None
        assert column.take([0, row]) is None
        if abs(row) < 1 << 63:
            assert isinstance(column.gather(rows_of(0, row)), int)
            assert not column.gather_into(rows_of(0, row), np.empty((2, 3), np.uint8))

    @pytest.mark.parametrize("index", [None, "1", 1.0, b"1", [1], object()])
    def test_what_is_no_row(self, module: Any, made: Made, index: Any) -> None:
        assert made.open(module).get(index) is None

    @pytest.mark.parametrize(
        "indices",
        [5, None, "12", [1.0], [True, False], [[1]], [None], {1: 2}, np.zeros(3), np.eye(2), b"12"],
    )
    def test_what_is_no_batch(self, module: Any, made: Made, indices: Any) -> None:
        assert made.open(module).take(indices) is None

    def test_counting_from_the_end(self, module: Any, made: Made) -> None:
        column = made.open(module)
        # The twin may leave it to the caller, but must not give another record.
        assert column.get(-1) in (made.records[-1], None)
        assert column.take([-1, 0]) in ([made.records[-1], made.records[0]], None)

    @pytest.mark.parametrize(
        "parts",
        [
            {"number": 3},
            {"number": MISSING},
            {"number": MISSING, "offset": 0, "length": 0, "crc": 0},
            {"offset": 0},
            {"offset": FIRST - 1},
            {"offset": (1 << 64) - 1},
            {"offset": (1 << 64) - 4, "length": 8},
            {"length": 1 << 20},
            {"length": 1 << 62},
            {"length": (1 << 64) - 1},
            {"crc": 1},
        ],
    )
    @pytest.mark.parametrize("verify", [True, False])
    def test_a_damaged_entry_is_one_to_look_closer_at(
        self, module: Any, made: Made, parts: dict[str, int], verify: bool
    ) -> None:
        column = made.damage(42, **parts).open(module, verify=verify)
        if not verify and parts == {"crc": 1}:
            return
        assert column.get(42) is None
        assert column.take([41, 42]) is None
        found = column.gather(rows_of(41, 42, 43))
        assert found == 1 if module is _kernel else isinstance(found, int)
        assert not column.gather_into(rows_of(42), np.empty((1, 5_000), np.uint8))
        assert column.get(41) == made.records[41]

    def test_every_flipped_bit_of_a_record_is_found(self, module: Any) -> None:
        made = Made([os.urandom(150) for _ in range(3)])
        offset = made.entries[1][0]
        for bit in range(8 * 150):
            made.bins[1][offset + bit // 8] ^= 1 << bit % 8
            column = made.open(module)
            assert column.get(1) is None
            assert not isinstance(column.gather(rows_of(0, 1, 2)), list)
            assert column.gather(rows_of(0, 2)) == [made.records[0], made.records[2]]
            made.bins[1][offset + bit // 8] ^= 1 << bit % 8

    def test_a_bin_that_is_not_attached(self, module: Any, made: Made) -> None:
        column = made.open(module)
        column.detach(1)
        assert column.get(1) is None
        assert isinstance(column.gather(rows_of(0, 1)), int)
        column.attach(1, bytes(made.bins[1]))
        assert column.gather(rows_of(0, 1)) == made.records[:2]

    def test_attaching_wrongly(self, module: Any, made: Made) -> None:
        column = made.open(module)
        with pytest.raises(ValueError, match="committed size"):
            column.attach(0, b"short")
        with pytest.raises(IndexError):
            column.attach(7, b"")
        with pytest.raises(IndexError):
            column.detach(7)
        assert column.get(0) == made.records[0]

    def test_closing(self, module: Any, made: Made) -> None:
        column = made.open(module)
        kept = column.gather(rows_of(3, 4))
        column.close()
        column.close()
        assert column.get(0) is None
        assert column.take([0]) is None
        assert isinstance(column.gather(rows_of(0)), int)
        assert kept == made.records[3:5]

    @given(raw=st.binary(min_size=24, max_size=24 * 20), data=st.data())
    def test_any_bytes_as_an_index(self, module: Any, raw: bytes, data: st.DataObject) -> None:
        raw = raw[: len(raw) // 24 * 24]
        held = bytes(range(256))
        column = module.Column(memoryview(raw), [256, 0, 256], SEEDS, verify=False)
        column.attach(0, held)
        column.attach(1, b"")
        column.attach(2, held)
        count = len(raw) // 24
        rows = data.draw(st.lists(st.integers(-3, count + 3), max_size=30))
        for row in rows:
            found = column.get(row)
            if found is not None:
                offset, length, _, _ = ENTRY.unpack_from(raw, 24 * (row % count))
                assert found == held[offset : offset + length]
        found = column.gather(rows_of(*rows))
        assert isinstance(found, int) or len(found) == len(rows)
        out = np.empty((len(rows), 8), np.uint8)
        assert column.gather_into(rows_of(*rows), out) in (True, False)

    @given(data=st.data())
    def test_plausible_entries_never_lead_outside(self, module: Any, data: st.DataObject) -> None:
        number = st.sampled_from([0, 1, 2, 3, MISSING])
        near = st.integers(60, 260) | st.integers((1 << 64) - 300, (1 << 64) - 1)
        entries = data.draw(st.lists(st.tuples(near, near, number, st.just(0)), min_size=1))
        raw = b"".join(ENTRY.pack(*entry) for entry in entries)
        held = bytes(range(256))
        column = module.Column(memoryview(raw), [256, 100, 78], SEEDS, verify=False)
        for bin_number, size in enumerate((256, 100, 78)):
            column.attach(bin_number, held[:size])
        for row, (offset, length, number_, _) in enumerate(entries):
            found = column.get(row)
            inside = number_ < 3 and offset >= FIRST and offset + length <= (256, 100, 78)[number_]
            assert found == (held[offset : offset + length] if inside else None)

    def test_a_record_beyond_4_gib(self, module: Any, tmp_path: Path) -> None:
        offset, row, record = (5 << 30) + 7, 1, os.urandom(10_000)
        path = tmp_path / "sparse"
        with open(path, "wb") as file:
            file.seek(offset)
            file.write(record)
        crc = google_crc32c.extend(place(SEEDS[0], offset, row), record)
        index = ENTRY.pack(FIRST, 0, 0, 0) + ENTRY.pack(offset, len(record), 0, crc)
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        column = module.Column(memoryview(index), [len(mapped)], SEEDS[:1], verify=True)
        column.attach(0, mapped)
        assert column.get(1) == record
        assert column.gather(rows_of(1, 1)) == [record, record]
        column.close()

    @pytest.mark.parametrize(
        "arguments", [(), (1,), ("x",), (np.zeros(2),), (np.eye(2, dtype=int),)]
    )
    def test_rows_of_another_kind(self, module: Any, made: Made, arguments: Any) -> None:
        column = made.open(module)
        with pytest.raises((TypeError, ValueError, AttributeError, IndexError)):
            column.gather(*arguments)
        assert column.get(0) == made.records[0]


@pytest.mark.parametrize("module", KERNELS)
class TestGatherInto:
    def test_fixed_lengths(self, module: Any) -> None:
        rng = np.random.default_rng(1)
        table = rng.integers(0, 1 << 16, (700, 33), dtype=np.uint16)
        column = Made([row.tobytes() for row in table]).open(module)
        for count in (0, 1, 5, 3000):
            rows = rng.integers(0, 700, count)
            out = np.full((count, 33), 7, np.uint16)
            assert column.gather_into(rows, out)
            assert (out == table[rows]).all()

    def test_what_does_not_fit(self, module: Any) -> None:
        column = Made([b"12345678", b"12345678", b"123"]).open(module)
        out = np.zeros((2, 8), np.uint8)
        assert column.gather_into(rows_of(0, 1), out)
        assert not column.gather_into(rows_of(0, 2), out)
        assert not column.gather_into(rows_of(0, 1), np.zeros((2, 7), np.uint8))
        assert not column.gather_into(rows_of(0, 1), np.zeros((3, 5), np.uint8))
        assert not column.gather_into(rows_of(), out)

    def test_empty_records(self, module: Any) -> None:
        column = Made([b"", b"", b"x"]).open(module)
        assert column.gather_into(rows_of(0, 1), np.empty((2, 0)))
        assert not column.gather_into(rows_of(0, 2), np.empty((2, 0)))


@pytest.mark.parametrize("module", KERNELS)
class TestThreads:
    """Reading in several threads, while others attach, detach and close."""

    def in_threads(self, *targets: Callable[[], None]) -> None:
        failed: list[BaseException] = []

        def guarded(target: Callable[[], None]) -> None:
            try:
                target()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed

    def test_all_read_the_truth(self, module: Any) -> None:
        records = [os.urandom(n % 700) for n in range(3000)]
        column = Made(records).open(module)

        def reading() -> None:
            rng = np.random.default_rng()
            for _ in range(30):
                rows = rng.integers(0, 3000, 300)
                assert column.gather(rows) == [records[row] for row in rows]

        self.in_threads(*[reading] * 4)

    def test_detaching_while_others_read(self, module: Any, tmp_path: Path) -> None:
        made = Made([os.urandom(n % 3000) for n in range(300)])
        paths = []
        for number, held in enumerate(made.bins):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(held)
        column = made.open(module, attached=False)
        over = threading.Event()

        def changing() -> None:
            for turn in range(300):
                with open(paths[turn % 3], "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                column.attach(turn % 3, mapped)
                del mapped
                column.detach((turn + 1) % 3)
            over.set()

        def reading() -> None:
            rng = np.random.default_rng()
            while not over.is_set():
                rows = rng.integers(0, 300, 50)
                found = column.gather(rows)
                assert isinstance(found, int) or found == [made.records[row] for row in rows]
                one = column.get(int(rows[0]))
                assert one in (None, made.records[rows[0]])

        self.in_threads(changing, reading, reading)
        self.in_threads(column.close, *[lambda: column.gather(np.arange(300))] * 3)

    def test_rows_of_one_array_from_several_threads(self, module: Any) -> None:
        table = np.random.default_rng(1).integers(0, 255, (900, 500), dtype=np.uint8)
        column = Made([row.tobytes() for row in table]).open(module)
        out = np.zeros_like(table)
        parts = [slice(start, start + 300) for start in (0, 300, 600)]
        rows = np.arange(900)
        self.in_threads(
            *[lambda part=part: column.gather_into(rows[part], out[part]) for part in parts]
        )
        assert (out == table).all()


@needs_native
class TestPermuted:
    @given(size=st.integers(1025, 1 << 48), key=st.integers(0, (1 << 64) - 1), data=st.data())
    def test_it_is_the_permutation_that_numpy_computes(
        self, size: int, key: int, data: st.DataObject
    ) -> None:
        start = data.draw(st.integers(0, size), label="start")
        count = data.draw(st.integers(0, min(300, size - start)), label="count")
        order = GlobalOrder(KeyedPermutation(size, key))
        expected = KeyedPermutation(size, key).between(start, start + count).tolist()
        for module in (twin, _kernel):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(orders, "kernel", module)
                assert order._between(start, start + count).tolist() == expected

    @pytest.mark.parametrize(
        ("start", "size", "bits", "keys"),
        [
            (0, 0, 10, (1,) * 6),
            (0, 5, 1, (1,) * 6),
            (0, 5, 63, (1,) * 6),
            (0, 1025, 10, (1,) * 6),
            (0, 1000, 10, (1,) * 5),
            (0, 1000, 10, (1 << 70,) * 6),
            (999, 1000, 10, (1,) * 6),
            (1001, 1000, 10, (1,) * 6),
        ],
    )
    def test_what_is_no_permutation_is_refused(
        self, start: int, size: int, bits: int, keys: tuple[int, ...]
    ) -> None:
        with pytest.raises((ValueError, OverflowError)):
            _kernel.permuted(np.empty(2, np.int64), start, size, bits, keys)


@needs_native
def test_the_gil_is_given_up() -> None:
    column = Made([os.urandom(4 << 20)] * 3).open(_kernel)
    rows = rows_of(*[0, 1, 2] * 4)
    turns, seen = 200, []
    progress = [0]
    started = threading.Event()

    def reading() -> None:
        started.set()
        for turn in range(turns):
            progress[0] = turn
            if seen:
                break
            column.gather(rows)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # nobody gives it up because somebody waits
    try:
        thread = threading.Thread(target=reading)
        thread.start()
        started.wait()
        seen.append(progress[0])
        thread.join()
    finally:
        sys.setswitchinterval(before)
    assert seen[0] < turns - 1


class ColdColumn:
    """A column of either kernel that says of every batch that the disk has to be asked."""

    def __init__(self, module: Any, *arguments: Any, **options: Any) -> None:
        self._column = module.Column(*arguments, **options)
        self.fetched = 0

    def gather(self, rows: Rows, nbytes: int = 0) -> int:
        return -1

    def take(self, indices: Any) -> None:
        return None

    def fetch(self, rows: Rows, helpers: int) -> Any:
        self.fetched += 1
        return self._column.fetch(rows, helpers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._column, name)


@pytest.mark.parametrize("module", KERNELS)
class TestDatasets:
    """Whole datasets through one kernel and through the other."""

    @pytest.fixture(autouse=True)
    def chosen(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reader, "kernel", module)

    def orders(self, ds: Any) -> Iterator[Any]:
        for window in (1, 3):
            yield binwise_order(ds.bin_layout(), 1, 0, window)
        yield global_order(len(ds), 1, 0)

    @pytest.mark.parametrize("size", [0, 3_000, 30_000])
    def test_it_holds(self, tmp_path: Path, size: int) -> None:
        records = [bytes(size) + record for record in numbered(700)]
        path = write(tmp_path / "ds", records, bins=7)
        assert_holds(path, records)
        with open_dataset(path, max_open_bins=3) as ds:
            for order in self.orders(ds):
                assert list(ds.iterate(order, 3)) == [records[row] for row in list(order)[3:]]

    def test_blocks_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "BLOCK_NBYTES", 5_000)
        records = [b"x" * (n % 50) if n % 90 else bytes(20_000) for n in range(900)]
        with open_dataset(write(tmp_path / "ds", records, bins=3), verify=False) as ds:
            assert list(ds) == records
            for order in self.orders(ds):
                assert list(ds.iterate(order)) == [records[row] for row in order]

    @pytest.mark.parametrize("size", [50, 30_000])
    def test_what_is_cold_is_announced_and_gives_the_same(
        self, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        records = [bytes([n % 251]) * (size + n) for n in range(300)]
        path = write(tmp_path / "ds", records, bins=3)
        made: list[ColdColumn] = []

        def column(*arguments: Any, **options: Any) -> ColdColumn:
            made.append(ColdColumn(module, *arguments, **options))
            return made[-1]

        monkeypatch.setattr(
            reader, "kernel", SimpleNamespace(COLD=module.COLD, BY_RUNS=False, Column=column)
        )
        with open_dataset(path) as ds:
            order = global_order(300, 1, 0)
            rows = order.indices(0, 300)
            assert ds.get_batch(rows) == [records[row] for row in rows]
            assert list(ds.iterate(order)) == [records[row] for row in rows]
            assert list(ds) == records
            assert made[0].fetched >= 1

    def test_cold_and_damaged_or_missing(self, module: Any, tmp_path: Path) -> None:
        records = [os.urandom(5_000) for _ in range(30)]
        path = write(tmp_path / "ds", records, bins=1)
        file = path / "v0001-c000-b00000.bin"
        raw = bytearray(file.read_bytes())
        raw[raw.index(records[7]) + 17] ^= 1
        file.write_bytes(raw)
        with open_dataset(path) as ds:
            assert ds[6] == records[6]
            inner = ds._reader
            assert inner._read_cold(np.arange(8, 30)) == records[8:]
            with pytest.raises(CorruptRecord, match="record 7"):
                inner._read_cold(np.arange(30))
        file.unlink()
        with open_dataset(path) as ds, pytest.raises(StorageError):
            ds._reader._read_cold(np.arange(30))

    def test_a_disk_that_was_never_asked(self, module: Any, tmp_path: Path) -> None:
        if not hasattr(os, "posix_fadvise"):
            pytest.skip("nothing can be dropped from memory here")
        records = [os.urandom(300_000) for _ in range(64)]
        path = write(tmp_path / "ds", records, bins=2)
        rows = np.arange(1, 64, 2)
        descriptor = os.open(path / "v0001-c000-b00001.bin", os.O_RDONLY)
        try:
            with open_dataset(path) as ds:
                assert ds[0] == records[0]
                ds._reader.bins.map(1)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                # Asking must not fetch what lies around.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                beside = [ds._reader.entry(int(rows[at])).offset + 100_000 for at in (7, 15, 23)]
                if not all(would_wait(descriptor, place) for place in beside):
                    pytest.skip("this file system keeps everything in memory, or cannot tell")
                assert ds._reader._kernel.gather(rows) == module.COLD
                assert ds.get_batch(rows) == records[1::2]
                assert ds._reader._kernel.gather(rows) == records[1::2]
                assert ds._reader._kernel.probes == 1
        finally:
            os.close(descriptor)

    def test_reading_into_an_array(self, tmp_path: Path) -> None:
        table = np.random.default_rng(1).integers(0, 1 << 16, (500, 64), dtype=np.uint16)
        path = write(tmp_path / "ds", [row.tobytes() for row in table], bins=5)
        rows = np.random.default_rng(2).integers(0, 500, 64)
        with open_dataset(path, max_open_bins=8) as ds:
            inner = ds._reader
            out = np.empty((64, 64), np.uint16)
            assert inner.read_into(rows, out)
            assert (out == table[rows]).all()
            assert not inner.read_into(rows, np.empty((64, 128), np.uint16)[:, ::2])
            assert not inner.read_into(rows, np.empty((64, 65), np.uint16))
            out.flags.writeable = False
            assert not inner.read_into(rows, out)
            times = np.empty((64, 16), "datetime64[s]")
            assert inner.read_into(rows[::-1], times)
            assert (times.view(np.uint16) == table[rows[::-1]]).all()
            assert inner.read_many(rows[::2]) == [table[row].tobytes() for row in rows[::2]]
