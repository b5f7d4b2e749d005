"""Raw samples beside other data: end to end, and mixed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.order import global_order
from splitpipe.stores import LocalStore

COUNT = 60
GONE = {3, 17, 18, 59}


class Counting(LocalStore):
    """Notes what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[str] = []

    def read(self, key: str, *arguments: Any, **more: Any) -> bytes:
        self.reads.append(key)
        return super().read(key, *arguments, **more)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    for number in range(COUNT):
        if number not in GONE:
            (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    return Counting(tmp_path)


def raw(store: Counting, name: str, *, gone: bool = True) -> sp.RawDataset:
    names = [n for n in range(COUNT) if gone or n not in GONE]
    rows = [{"data": f"{n}.bin", "name": f"{name}{n}"} for n in names]
    return sp.open_raw(rows, fetch="data", base="counted://x/", stores={"counted://x": store})


def packed(folder: Path) -> sp.Dataset:
    with sp.DatasetWriter(folder / "packed") as writer:
        writer.write_many([{"data": b"%d" % n, "name": f"p{n}"} for n in range(COUNT)])
    return sp.open_dataset(folder / "packed")


def names_of(samples: Any) -> list[str]:
    return [sample["name"] for sample in samples]


def test_end_to_end_it_is_each_in_its_place(store: Counting, tmp_path: Path) -> None:
    with raw(store, "a", gone=False) as one, packed(tmp_path) as two:
        both = one.concat(two, one)
        whole = [*one, *two, *one]
        assert list(both) == whole
        assert [both[n] for n in range(len(both))] == whole
        order = global_order(len(both), seed=3, epoch=0)
        assert list(both.iterate(order, 5, 90)) == [whole[int(order[p])] for p in range(5, 90)]
        again = pickle.loads(pickle.dumps(both))
        assert list(again.iterate(order, 5, 20)) == list(both.iterate(order, 5, 20))
        again.records.parts[0].close()


@pytest.mark.parametrize("others", ["same columns", "other columns", "a list"])
def test_what_is_gone_is_left_out_of_a_mixture(
    store: Counting, tmp_path: Path, others: str
) -> None:
    with raw(store, "a") as one, packed(tmp_path) as two:
        second: Any = two
        if others == "other columns":
            second = two.select(["name"])
        elif others == "a list":
            second = [{"name": f"p{n}"} for n in range(COUNT)]
        streams = sp.Streams({"one": sp.Stream(one), "two": sp.Stream(second)}, schedule="random")
        pipe = sp.Pipeline(streams, seed=5, on_error="skip").map(_name)
        with pipe.loader(executor="inline") as loader:
            found = list(loader)
            skipped = sum(s.skipped for task in loader.stats() for s in task.stages)
        assert skipped == len(GONE)
        expected = {f"a{n}" for n in range(COUNT) if n not in GONE}
        assert sorted(found) == sorted(expected | {f"p{n}" for n in range(COUNT)})
        assert len(store.reads) == COUNT  # each once, whatever failed beside it
        with pipe.map(_itself, workers=2).loader() as loader:
            assert list(loader) == found
        with pytest.raises(sp.StorageError, match="sample"):
            list(sp.Pipeline(streams, seed=5).map(_name))


def test_a_part_that_knows_no_better_is_read_past_what_fails(
    store: Counting, tmp_path: Path
) -> None:
    (tmp_path / "lines.jsonl").write_text(
        "".join(
            json.dumps({"data": "x", "name": f"j{n}"}) + "\n" if n % 9 else "{broken\n"
            for n in range(40)
        )
    )
    with raw(store, "a", gone=False) as one:
        lines = sp.open_dataset(tmp_path / "lines.jsonl", columns=["data", "name"])
        streams = sp.Streams([one, lines], schedule="sequential")
        pipe = sp.Pipeline(streams, on_error="skip").map(_name)
        found = list(pipe)
        assert found == [*names_of(one), *(f"j{n}" for n in range(40) if n % 9)]
        lines.close()


def _name(sample: dict[str, Any]) -> str:
    return str(sample["name"])


def _itself(name: str) -> str:
    return name
