"""Samples by index, by batch and in order."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.order import global_order
from splitpipe.stores import MemoryStore, ObjectStat

COUNT = 40


class Counting(MemoryStore):
    """A store that notes what is read, and how many reads are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.most = 0
        self._busy = 0
        self._guard = threading.Lock()

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        with self._guard:
            self.reads.append(key)
            self._busy += 1
            self.most = max(self.most, self._busy)
        try:
            return super().read(key, start, stop, tag=tag)
        finally:
            with self._guard:
                self._busy -= 1


@pytest.fixture
def store() -> Counting:
    made = Counting()
    for number in range(COUNT):
        made.write(f"set/{number}.bin", f"content {number}".encode())
    return made


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    return [{"file": f"{n}.bin", "other": f"{n}.bin", "n": n} for n in range(count)]


@pytest.fixture
def ds(store: Counting) -> Iterator[sp.RawDataset]:
    with sp.open_raw(
        rows(), fetch=["file", "other"], base="memory://x/set", stores={"memory://x": store}
    ) as made:
        yield made


def test_a_sample_is_what_its_row_says(ds: sp.RawDataset) -> None:
    assert len(ds) == COUNT
    assert ds[7] == {"file": b"content 7", "other": b"content 7", "n": 7}
    assert ds[-1]["n"] == COUNT - 1
    with pytest.raises(IndexError):
        ds[COUNT]


def test_one_sample_costs_its_own_files(ds: sp.RawDataset, store: Counting) -> None:
    ds[3]
    assert sorted(store.reads) == ["set/3.bin", "set/3.bin"]


def test_only_columns_that_are_asked_for_are_fetched(ds: sp.RawDataset, store: Counting) -> None:
    batch = ds.get_batch([5, 2], columns=["n", "file"])
    assert list(batch) == ["n", "file"]
    assert batch["n"].tolist() == [5, 2]
    assert batch["file"] == [b"content 5", b"content 2"]
    assert sorted(store.reads) == ["set/2.bin", "set/5.bin"]
    store.reads.clear()
    assert ds.get_batch(range(COUNT), columns=["n"])["n"].tolist() == list(range(COUNT))
    assert [r["n"] for r in ds.select(["n"])] == list(range(COUNT))
    assert store.reads == []
    assert ds.select(["other"])[4] == {"other": b"content 4"}
    assert store.reads == ["set/4.bin"]


def test_a_batch_is_fetched_at_once(store: Counting) -> None:
    gate = threading.Barrier(4, timeout=120)

    class Waiting(Counting):
        def read(self, *args: Any, **more: Any) -> bytes:
            gate.wait()
            return super().read(*args, **more)

    waiting = Waiting()
    for number in range(COUNT):
        waiting.write(f"{number}.bin", b"%d" % number)
    given = {"base": "memory://x/", "stores": {"memory://x": waiting}, "concurrency": 4}
    with sp.open_raw(rows(), fetch="file", **given) as ds:
        assert ds.get_batch(range(8), columns=["file"])["file"] == [b"%d" % n for n in range(8)]
        assert [sample["file"] for sample in ds] == [b"%d" % n for n in range(COUNT)]


def test_orders_and_views_give_what_indices_give(ds: sp.RawDataset) -> None:
    whole = [ds[n] for n in range(COUNT)]
    assert list(ds) == whole
    order = global_order(COUNT, seed=3, epoch=1)
    assert list(ds.iterate(order, 5, 31)) == [whole[int(order[p])] for p in range(5, 31)]
    part = ds.subset([30, 3, 3, 17])
    assert isinstance(part, sp.RawDataset)
    assert list(part) == [whole[n] for n in (30, 3, 3, 17)]
    assert list(part.subset(slice(1, 3)).select(["n"])) == [{"n": 3}, {"n": 3}]
    assert list(ds.where("n >= 38")) == whole[38:]
    parts = ds.split({"train": 0.75, "val": 0.25}, seed=1)
    assert sorted(s["n"] for part in parts.values() for s in part) == list(range(COUNT))
    both = ds.concat(part)
    assert both[COUNT] == whole[30]


def test_what_is_read_ahead_is_bounded_and_given_up(store: Counting) -> None:
    given = {"base": "memory://x/set", "stores": {"memory://x": store}, "ahead": 8}
    with sp.open_raw(rows(), fetch="file", concurrency=2, **given) as ds:
        coming = iter(ds)
        assert next(coming)["n"] == 0
        coming.close()  # type: ignore[attr-defined]
        assert len(store.reads) <= 12
        assert store.most <= 2


def test_a_cell_without_a_name_is_missing(store: Counting) -> None:
    table = [{"file": None, "n": 0}, {"file": "", "n": 1}, {"file": "2.bin", "n": 2}]
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    with sp.open_raw(table, fetch="file", **given) as ds:
        assert [sample["file"] for sample in ds] == [None, None, b"content 2"]


def test_a_file_that_is_not_there_says_which(store: Counting) -> None:
    table = rows(3)
    table[1]["file"] = "missing.bin"
    given = {"base": "memory://x/set", "stores": {"memory://x": store}, "key": "n"}
    with sp.open_raw(table, fetch="file", **given) as ds:
        for read in (lambda: ds[1], lambda: ds.get_batch([0, 1]), lambda: list(ds)):
            with pytest.raises(sp.StorageError) as caught:
                read()
            text = str(caught.value)
            for part in ("sample 1", "row 1", "key '1'", "column 'file'", "missing.bin"):
                assert part in text
        assert ds[0]["file"] == b"content 0"
        view = ds.subset([2, 1])
        with pytest.raises(sp.StorageError, match=r"sample 1 \(row 1"):
            view[1]


def test_sizes_and_sums_are_compared(store: Counting) -> None:
    def row(number: int) -> dict[str, Any]:
        data = f"content {number}".encode()
        return {
            "file": f"{number}.bin",
            "nbytes": len(data),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "sha": hashlib.sha256(data).hexdigest().upper(),
        }

    table = [row(n) for n in range(5)]
    table[1]["nbytes"] = 3
    table[2]["md5"] = table[3]["md5"]
    table[3]["sha"] = "0" * 64
    table[4].update(nbytes=None, md5=None, sha="")
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    sums = {"size": "nbytes", "md5": {"file": "md5"}, "sha256": "sha"}
    with sp.open_raw(table, fetch="file", **given, **sums) as ds:
        assert ds[0]["file"] == b"content 0"
        assert ds[4]["file"] == b"content 4"
        for number, what in ((1, "3 bytes"), (2, "md5"), (3, "sha256")):
            with pytest.raises(sp.CorruptRecord, match=what):
                ds[number]


def test_decoders_make_columns(store: Counting) -> None:
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    decode = {"file": sp.media.text(), "other": len}
    with sp.open_raw(rows(), fetch=["file", "other"], decode=decode, **given) as ds:
        assert ds[3] == {"file": "content 3", "other": 9, "n": 3}
        assert ds.schema["file"].kind == "str"


def test_what_a_decoder_raises_is_its_own_with_a_note(store: Counting) -> None:
    def broken(data: bytes) -> Any:
        raise ValueError("not today")

    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    with sp.open_raw(rows(), fetch="file", decode={"file": broken}, **given) as ds:
        with pytest.raises(ValueError, match="not today") as caught:
            ds[2]
        assert "column 'file'" in caught.value.__notes__[0]


def test_a_fetched_column_may_have_a_name_of_its_own(store: Counting) -> None:
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    with sp.open_raw(rows(), fetch={"image": "file"}, columns=["image", "n"], **given) as ds:
        assert ds[1] == {"image": b"content 1", "n": 1}
        assert list(ds.schema) == ["image", "n"]


def test_it_travels(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(3)))
    with sp.open_raw(tmp_path / "table.jsonl", fetch="file", on_error="skip") as ds:
        with pickle.loads(pickle.dumps(ds)) as again:
            assert list(again) == list(ds)
            assert again.on_error == "skip"
            assert again.records.identity == ds.records.identity
        with pickle.loads(pickle.dumps(ds.subset([2, 0]))) as again:
            assert [sample["n"] for sample in again] == [2, 0]


def test_a_plan_says_what_reading_takes(ds: sp.RawDataset, store: Counting) -> None:
    plan = ds.plan()
    assert plan.samples == COUNT
    assert plan.requests == 2 * COUNT
    assert store.reads == []
    text = str(ds)
    for part in ("40 of the list of rows", "file", "memory://x/", "without a cache"):
        assert part in text
    assert ds.select(["n"]).plan().requests == 0  # type: ignore[attr-defined]
    assert "\n" not in repr(ds)


def test_closing_ends_threads_and_reading_begins_anew(ds: sp.RawDataset) -> None:
    ds[0]
    ds.close()
    ds.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("splitpipe-fetch")]
    assert ds[1]["file"] == b"content 1"


def test_threads_read_side_by_side(ds: sp.RawDataset) -> None:
    wrong: list[Any] = []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        some = generator.integers(COUNT, size=30).tolist()
        wrong.extend(n for n in some if ds[n]["file"] != f"content {n}".encode())

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_stat_is_not_needed(store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(key: str) -> ObjectStat:
        raise AssertionError(key)

    monkeypatch.setattr(store, "stat", refused)
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    with sp.open_raw(rows(), fetch="file", **given) as ds:
        assert ds[0]["file"] == b"content 0"


def test_a_dataset_that_is_a_table_stays_open(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "ours") as writer:
        writer.write_many([{"file": "1.bin"}])
    (tmp_path / "1.bin").write_bytes(b"1")
    with sp.open_dataset(tmp_path / "ours") as table:
        with sp.open_raw(table, fetch="file", base=tmp_path) as ds:
            assert ds[0] == {"file": b"1"}
        assert table[0] == {"file": "1.bin"}


def test_closing_while_others_read_loses_nothing(store: Counting) -> None:
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    ds = sp.open_raw(rows(), fetch="file", concurrency=3, **given)
    wrong: list[Any] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            batch = ds.get_batch([3, 9], columns=["file"])["file"]
            if batch != [b"content 3", b"content 9"]:
                wrong.append(batch)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(50):
        ds.close()
    ended.set()
    for reader in readers:
        reader.join(20)
        assert not reader.is_alive()
    ds.close()
    assert wrong == []


def test_what_is_no_column_is_not_fetched(store: Counting) -> None:
    given = {"base": "memory://x/set", "stores": {"memory://x": store}}
    with sp.open_raw(rows(), fetch=["file", "other"], columns=["n", "other"], **given) as ds:
        assert [sample["n"] for sample in ds] == list(range(COUNT))
        assert len(store.reads) == COUNT
        assert ds.plan().requests == COUNT
        assert list(ds[0]) == ["n", "other"]


def test_large_files_are_read_ahead_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpipe.raw.records._HELD_NBYTES", 10_000)
    large = Counting()
    for number in range(COUNT):
        large.write(f"{number}.bin", bytes(5000))
    given = {"base": "memory://x", "stores": {"memory://x": large}, "ahead": 32}
    with sp.open_raw(rows(), fetch="file", **given) as ds:
        coming = iter(ds)
        next(coming)
        assert len(large.reads) <= 9  # before anything was known
        for number in range(1, 30):
            next(coming)
            assert len(large.reads) <= max(9, number + 3)
        coming.close()  # type: ignore[attr-defined]
