"""A dataset as a sequence: what an index may be, and who may read at the same time."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.dataset import BinDataset, Dataset, open_dataset
from splitpipe.errors import FormatError, StorageError
from splitpipe.order import Order, binwise_order, global_order, sequential_order
from splitpipe.schema import ndarray
from splitpipe.storage import DatasetWriter, bins
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.manifest import encode
from splitpipe.storage.snapshot import read_manifest
from tests.storage.making import numbered, write

RECORDS = numbered(1000)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ds") / "ds", RECORDS, bins=7)


@pytest.fixture
def ds(path: Path) -> Any:
    with open_dataset(path) as opened:
        yield opened


class TestIndexing:
    def test_every_integer_type(self, ds: Dataset) -> None:
        for kind in (int, np.int8, np.uint8, np.int64, np.uint64, np.intp):
            assert ds[kind(100)] == RECORDS[100]
        for kind in (int, np.int8, np.int64):
            assert ds[kind(-100)] == RECORDS[-100]
        assert ds[True] == RECORDS[1]

    @pytest.mark.parametrize("wrong", [1000, -1001, 10**30, -(10**30), np.int64(1000), 1 << 63])
    def test_past_the_ends(self, ds: Dataset, wrong: Any) -> None:
        with pytest.raises(IndexError, match="of a dataset of 1000 records"):
            ds[wrong]
        with pytest.raises(IndexError):
            ds.get_batch([0, wrong])

    @given(
        start=st.none() | st.integers(-1100, 1100),
        stop=st.none() | st.integers(-1100, 1100),
        step=st.none() | st.integers(-1100, 1100).filter(bool),
    )
    def test_slices_are_those_of_a_list(
        self, path: Path, start: int | None, stop: int | None, step: int | None
    ) -> None:
        with open_dataset(path) as ds:
            assert ds[start:stop:step] == RECORDS[start:stop:step]

    def test_a_slice_step_of_zero_is_an_error(self, ds: Dataset) -> None:
        with pytest.raises(ValueError, match="zero"):
            ds[::0]

    @given(rows=st.lists(st.integers(-1000, 999), max_size=50))
    def test_lists_and_arrays(self, path: Path, rows: list[int]) -> None:
        expected = [RECORDS[row] for row in rows]
        with open_dataset(path) as ds:
            assert ds[rows] == ds.get_batch(rows) == ds.get_batch(tuple(rows)) == expected
            assert ds[np.array(rows, dtype=np.int16)] == expected
            assert ds.lengths(rows).tolist() == [len(record) for record in expected]

    def test_a_mask_of_booleans_is_refused_with_advice(self, ds: Dataset) -> None:
        with pytest.raises(IndexError, match="flatnonzero"):
            ds[np.zeros(1000, dtype=bool)]
        with pytest.raises(IndexError, match="flatnonzero"):
            ds.get_batch([True, False])

    @pytest.mark.parametrize("wrong", ["a", 1.5, None, [1.5], [[1, 2]], b"x"])
    def test_what_is_no_index(self, ds: Dataset, wrong: Any) -> None:
        with pytest.raises(IndexError, match="indices must be"):
            ds[wrong]

    def test_it_is_a_sequence(self, ds: Dataset) -> None:
        assert isinstance(ds, Sequence)
        assert RECORDS[17] in ds
        assert ds.index(RECORDS[17]) == 17
        assert list(reversed(ds)) == RECORDS[::-1]
        assert b"not there" not in ds

    def test_what_it_tells(self, ds: Dataset, path: Path) -> None:
        assert repr(ds) == f"Dataset({str(path)!r}, 1000 records, generation 1)"
        assert ds.path == str(path)
        assert ds.nbytes == sum(map(len, RECORDS))


class TestIterating:
    @pytest.mark.parametrize(
        "bounds", [(0, 0), (0, 1000), (1, 999), (448, 896), (5, 6), (999, 1000)]
    )
    def test_rows(self, ds: Dataset, bounds: tuple[int, int]) -> None:
        assert list(ds.iterate_rows(*bounds)) == RECORDS[slice(*bounds)]

    @pytest.mark.parametrize("start", [0, 1, 143, 999, 1000])
    @pytest.mark.parametrize("window", [1, 3, 100])
    def test_orders(self, ds: Dataset, start: int, window: int) -> None:
        orders: list[Order] = [
            sequential_order(1000),
            global_order(1000, 1, 2),
            binwise_order(ds.bin_layout(), 1, 2, window),
            binwise_order(ds.bin_layout(), None, 0, window),
        ]
        for order in orders:
            rows = order.indices(start, 1000).tolist()
            assert list(ds.iterate(order, start)) == [RECORDS[row] for row in rows]
            assert list(ds.iterate(order, start // 2, start)) == [
                RECORDS[row] for row in order.indices(start // 2, start)
            ]

    def test_an_order_of_another_layout_still_works(self, ds: Dataset, tmp_path: Path) -> None:
        other = write(tmp_path / "other", RECORDS, bins=3)
        with open_dataset(other) as foreign:
            order = binwise_order(foreign.bin_layout(), 1, 0)
        assert list(ds.iterate(order)) == [RECORDS[row] for row in order]

    def test_bounds_are_checked(self, ds: Dataset) -> None:
        for bounds in ((-1, 5), (5, 4), (0, 1001)):
            with pytest.raises(IndexError):
                ds.iterate_rows(*bounds)
            with pytest.raises(IndexError):
                ds.iterate(sequential_order(1000), *bounds)

    @pytest.mark.parametrize("verify", [True, False])
    def test_large_records_in_any_order(self, tmp_path: Path, verify: bool) -> None:
        rng = random.Random(1)
        records = [rng.randbytes(rng.randrange(0, 60_000)) for _ in range(600)]
        with open_dataset(write(tmp_path / "ds", records, bins=5), verify=verify) as ds:
            assert list(ds) == records
            for order in (global_order(600, 3, 0), binwise_order(ds.bin_layout(), 3, 0, 2)):
                assert list(ds.iterate(order)) == [records[row] for row in order]


def test_fewer_open_bins_than_bins(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", RECORDS, bins=50)
    for limit in (1, 3, 49):
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        with open_dataset(path, max_open_bins=limit) as ds:
            assert list(ds) == RECORDS
            assert [ds[row] for row in range(1000)] == RECORDS
            assert ds.get_batch(range(999, -1, -1)) == RECORDS[::-1]
            if before:
                assert len(os.listdir("/proc/self/fd")) <= before + 2 * limit + 3


def test_opening_ten_million_records_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", numbered(64), bins=64)
    manifest = read_manifest(str(path))
    rows = 64 * 64 * 2442
    column = replace(manifest.columns[0], layout=BinLayout([Segment(0, rows, 0, 64)]))
    manifest = replace(manifest, rows=rows, columns=(column,))
    (path / "splitpipe.json").write_bytes(encode(manifest))
    os.truncate(path / "v0001-c000.index", 64 + 24 * rows)  # sparse: no disk space, no time
    best = float("inf")
    for _ in range(5):
        started = perf_counter()
        with open_dataset(path) as ds:
            best = min(best, perf_counter() - started)
            assert len(ds) == rows > 10_000_000
            assert ds[5] == numbered(64)[5]
    assert best < 0.5  # 2 ms; where each record costs something it is seconds
    tracemalloc.start()
    with open_dataset(path) as ds:
        assert ds[5] == numbered(64)[5]
        used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 5_000_000


class TestSharing:
    def test_threads(self, ds: Dataset) -> None:
        wrong: list[int] = []

        def read(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(300):
                row = rng.randrange(1000)
                rows = [rng.randrange(1000) for _ in range(20)]
                if ds[row] != RECORDS[row] or ds.get_batch(rows) != [RECORDS[r] for r in rows]:
                    wrong.append(row)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_threads_that_fight_for_one_open_bin(self, path: Path) -> None:
        with open_dataset(path, max_open_bins=1) as ds:
            self.test_threads(ds)

    def test_forked_children_read_through_the_same_object(self, ds: Dataset) -> None:
        pids = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                good = all(ds[row] == RECORDS[row] for row in range(child, 1000, 3))
                os._exit(0 if good and list(ds) == RECORDS else 1)
            pids.append(pid)
        assert [ds[row] for row in range(1000)] == RECORDS
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]

    def test_spawned_children_get_it_pickled(self, ds: Dataset) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            records = pool.apply(read_rows, (ds, list(range(0, 1000, 9))))
            pool.close()
            pool.join()
        assert records == RECORDS[::9]


def read_rows(ds: Dataset, rows: list[int]) -> list[bytes]:
    return [ds[row] for row in rows]


class TestPickling:
    def test_it_is_small_and_the_same(self, ds: Dataset) -> None:
        data = pickle.dumps(ds)
        assert len(data) < 500
        with pickle.loads(data) as again:
            assert list(again) == RECORDS
            assert repr(again) == repr(ds)

    def test_it_is_the_snapshot_also_after_appends(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", RECORDS[:500], bins=7)
        with open_dataset(path) as ds:
            data = pickle.dumps(ds)
            layout = ds.bin_layout()
            order = binwise_order(layout, 1, 0, 2)
        with DatasetWriter(path, append=True) as w:
            w.write_many(RECORDS[500:])
        with pickle.loads(data) as again:
            assert list(again) == RECORDS[:500]
            assert [again[row] for row in range(500)] == RECORDS[:500]
            assert list(again.iterate(order)) == [RECORDS[row] for row in order]
            assert sorted(binwise_order(again.bin_layout(), 1, 0, 2)) == list(range(500))
            assert again.nbytes == sum(map(len, RECORDS[:500]))
            assert again.generation == 1
            with pytest.raises(IndexError):
                again[500]

    def test_an_overwritten_dataset_is_not_mistaken_for_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", RECORDS)
        with open_dataset(path) as ds:
            data = pickle.dumps(ds)
        with DatasetWriter(path, overwrite=True) as w:
            w.write_many(RECORDS)
        with pytest.raises(FormatError, match="it was overwritten"):
            pickle.loads(data)

    def test_options_travel(self, path: Path) -> None:
        with (
            open_dataset(path, verify=False, max_open_bins=3) as ds,
            pickle.loads(pickle.dumps(ds)) as again,
        ):
            assert again.__reduce__() == ds.__reduce__()


def test_a_closed_dataset_says_so(path: Path) -> None:
    ds = open_dataset(path)
    kept = ds[5]
    ds.close()
    ds.close()
    assert kept == RECORDS[5]
    for read in (
        lambda: ds[5],
        lambda: ds[1:3],
        lambda: ds.get_batch([1]),
        lambda: list(ds),
        lambda: ds.lengths([1]),
        lambda: ds.nbytes,
    ):
        with pytest.raises(StorageError, match="the dataset is closed") as caught:
            read()
        assert caught.value.errno == errno.EBADF


def test_a_relative_path_outlives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "ds", RECORDS)
    monkeypatch.chdir(tmp_path)
    with open_dataset("ds") as ds:
        monkeypatch.chdir("/")
        assert list(ds) == RECORDS


# -- records of columns ---------------------------------------------------------------------------

TABLE = [
    {"id": n, "text": None if n % 5 == 0 else f"text {n}", "ids": [n, n + 1, n + 2]}
    for n in range(200)
]


def table(path: Path) -> Path:
    schema = {"id": "int64", "text": "str", "ids": ndarray("int16", (3,))}
    with DatasetWriter(path, bins=5, schema=schema, metadata={"length": "int64"}) as writer:
        for n, record in enumerate(TABLE):
            writer.write(record, key=f"k{n}", meta={"length": n % 10, "deep": {"n": n}})
    return path


def plain(record: Any) -> Any:
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in record.items()}


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("table") / "ds")


class TestColumns:
    @pytest.fixture
    def ds(self, table_path: Path) -> Any:
        with open_dataset(table_path) as opened:
            yield opened

    def test_records_by_every_way(self, ds: Dataset) -> None:
        assert len(ds) == 200
        assert [plain(record) for record in ds] == TABLE
        assert plain(ds[7]) == plain(ds[-193]) == plain(ds["k7"]) == TABLE[7]
        assert [plain(record) for record in ds[10:3:-2]] == TABLE[10:3:-2]
        assert [plain(record) for record in ds[[5, 5, -1]]] == [TABLE[5], TABLE[5], TABLE[-1]]
        order = binwise_order(ds.bin_layout(), 1, 0, 2)
        assert [plain(record) for record in ds.iterate(order)] == [TABLE[row] for row in order]

    def test_batches_of_columns(self, ds: Dataset) -> None:
        batch = ds.get_batch([3, 0, 3])
        assert list(batch) == ["id", "text", "ids"]
        assert batch["id"].tolist() == [3, 0, 3]
        assert batch["text"] == ["text 3", None, "text 3"]
        assert batch["ids"].shape == (3, 3)
        out = {"ids": np.zeros((2, 3), dtype=np.int16)}
        batch = ds.get_batch(range(2), columns=["ids", "id"], out=out)
        assert batch["ids"] is out["ids"]
        assert list(batch) == ["ids", "id"]
        assert out["ids"].tolist() == [TABLE[0]["ids"], TABLE[1]["ids"]]
        for wrong, message in (
            ({"columns": ["nope"]}, "no column 'nope'"),
            ({"columns": ["id"], "out": out}, "out must be a dict of arrays for some of id"),
            ({"out": {"ids": np.zeros((2, 3))}}, "dtype"),
            ({"out": {"text": np.zeros(2)}}, "no array to fill"),
            ({"out": np.zeros(2)}, "out must be a dict"),
        ):
            with pytest.raises(FormatError, match=message):
                ds.get_batch([0, 1], **wrong)

    def test_keys_and_metadata(self, ds: Dataset) -> None:
        assert ds.keys()[:2] == ["k0", "k1"]
        assert ds.keys([7, -1]) == ["k7", "k199"]
        assert ds.meta(13) == ds.meta("k13") == {"length": 3, "deep": {"n": 13}}
        assert ds.metas([-1, 0]) == [ds.meta(199), ds.meta(0)]
        assert "k5" in ds
        assert "k200" not in ds
        for ask in (lambda: ds["k200"], lambda: ds.meta("k200")):
            with pytest.raises(KeyError, match="k200"):
                ask()
        with pytest.raises(IndexError):
            ds.meta(200)

    def test_questions(self, ds: Dataset) -> None:
        found = ds.where("length > ? AND text IS NOT NULL", [7], limit=3)
        assert found.keys() == ["k8", "k9", "k18"]
        assert [plain(record) for record in found] == [TABLE[8], TABLE[9], TABLE[18]]
        assert found.where("json_extract(meta, '$.deep.n') = 9").keys() == ["k9"]
        with pytest.raises(FormatError, match="no such column: lengthy"):
            ds.where("lengthy = 1")

    def test_what_it_tells(self, ds: Dataset, table_path: Path) -> None:
        text = f"Dataset({str(table_path)!r}, 200 records of id, text, ids, generation 1)"
        assert repr(ds) == text
        assert list(ds.schema) == ["id", "text", "ids"]
        assert repr(ds.subset([1])).startswith("Dataset(1 of ")
        with pytest.raises(AttributeError, match="not one directory"):
            _ = ds.subset([1]).path

    def test_views_travel_as_the_snapshot_that_they_are_of(self, tmp_path: Path) -> None:
        path = table(tmp_path / "ds")
        with open_dataset(path) as ds:
            view = ds.where("length = 3").select(["id"])
            data, whole = pickle.dumps(view), pickle.dumps(ds)
            with DatasetWriter(path, append=True) as writer:
                writer.update("k3", {"id": -3})
                writer.delete(["k13"])
                writer.write({"id": 500, "text": "x", "ids": [1, 2, 3]}, key="late")
            expected = [{"id": n} for n in range(3, 200, 10)]
            assert list(view) == expected
            again = pickle.loads(data)
            assert list(again) == expected
            with pickle.loads(whole) as same:
                assert [plain(record) for record in same] == TABLE
                assert "late" not in same
            with open_dataset(path) as now:
                assert len(now) == 200
                assert now["k3"]["id"] == -3
                assert "k13" not in now
                assert now["late"]["id"] == now[199]["id"] == 500
                assert now.where("length = 3").keys() == [
                    f"k{n}" for n in range(3, 200, 10) if n != 13
                ]
                assert [r["id"] for r in now.where("length = 4")] == list(range(4, 200, 10))


def test_bytes_with_keys_keep_their_fast_lane(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds", keys="auto") as writer:
        writer.write_many(RECORDS)
    with open_dataset(tmp_path / "ds") as ds:
        assert type(ds) is BinDataset
        keys = ds.keys()
        assert len(set(keys)) == len(RECORDS)
        key = keys[5]
        assert key is not None
        assert ds[key] == RECORDS[5]
        assert key in ds
        assert ds.lengths([5]).tolist() == [len(RECORDS[5])]
        with pickle.loads(pickle.dumps(ds)) as again:
            assert type(again) is BinDataset
            assert again[key] == RECORDS[5]


def test_plain_values_that_are_no_bytes(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds", schema=ndarray("uint16", (4,))) as writer:
        writer.write_many([np.full(4, n, dtype=np.uint16) for n in range(50)])
    with open_dataset(tmp_path / "ds") as ds:
        assert ds[7].tolist() == [7] * 4
        assert ds.get_batch([7, 9])[:, 0].tolist() == [7, 9]
        out = np.zeros((2, 4), dtype=np.uint16)
        assert ds.get_batch([3, 1], out=out) is out
        assert out[:, 0].tolist() == [3, 1]
        assert ds.get_batch([3], columns=["data"])["data"].shape == (1, 4)
        assert not hasattr(ds, "lengths")
    with DatasetWriter(tmp_path / "text", schema="str") as writer:
        writer.write_many(["a", "b"])
    with open_dataset(tmp_path / "text") as ds:
        assert "a" in ds
        assert "c" not in ds
        assert ds.index("b") == 1


def test_bins_are_let_go_of_when_modules_are_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the interpreter, where it was said on stderr, once for every bin."""
    with open_dataset(path) as ds:
        assert list(ds) == RECORDS
        monkeypatch.setattr(bins, "files", None)


class TestOpening:
    def test_another_format_in_place(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
        with open_dataset(tmp_path / "a.jsonl", index_dir=tmp_path / "index") as ds:
            assert type(ds) is Dataset
            assert ds[-1] == {"n": 2}
            assert list(ds.subset([1, 0])) == [{"n": 2}, {"n": 1}]
            assert (tmp_path / "index").exists()
        with open_dataset([tmp_path / "a.jsonl"] * 2, format="jsonl", workers=1) as ds:
            assert len(ds) == 4
        with pytest.raises(TypeError, match="no option 'colour'"):
            open_dataset(tmp_path / "a.jsonl", colour="red")

    def test_what_is_no_dataset(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(FormatError, match="not a splitpipe dataset"):
            open_dataset(tmp_path / "empty")
        with pytest.raises(StorageError, match="no such dataset"):
            open_dataset(tmp_path / "nothing")
        write(tmp_path / "ds", RECORDS)
        with pytest.raises(TypeError, match="colour"):
            open_dataset(tmp_path / "ds", colour="red")
        open_dataset(tmp_path / "ds", index_dir=tmp_path, workers=2).close()
