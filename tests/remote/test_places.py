"""A dataset in a store is the local one, byte for byte, in whatever way it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.order import global_order
from tests.remote.making import Place
from tests.sampling import sampled

Opened = Callable[..., sp.Dataset]


def payload(number: int) -> bytes:
    return np.random.default_rng(number).bytes(300 + number * 97 % 15000)


@pytest.fixture
def local(tmp_path: Path) -> str:
    path = str(tmp_path / "local")
    sp.write_split_data(path, [payload(n) for n in range(600)], splits=4)
    return path


def numbers(record: bytes) -> int:
    return len(record)


@pytest.mark.deadline(120)
def test_every_place(place: Place, opened: Opened, local: str) -> None:
    place.put(local, "data")
    remote = opened(place, "data")
    with sp.open_dataset(local) as truth:
        assert len(remote) == 600
        assert remote[17] == truth[17]
        assert remote.get_batch([5, -1, 5]) == truth.get_batch([5, -1, 5])
        order = global_order(600, seed=2, epoch=1)
        assert list(remote.iterate(order, 5, 590)) == list(truth.iterate(order, 5, 590))
        assert list(remote) == list(truth)
        assert remote.lengths([3, 4]).tolist() == [len(truth[3]), len(truth[4])]
        assert remote.nbytes == truth.nbytes
        assert remote.path == place.url("data")


@pytest.mark.deadline(120)
@pytest.mark.parametrize(
    *sampled(
        1,
        shuffle=["global", "binwise", None],
        options=[{}, {"cache_limit": "2MB"}, {"verify": False}],
    )
)
def test_a_pipeline_in_workers(
    in_s3: Place, opened: Opened, local: str, shuffle: str, options: dict[str, Any]
) -> None:
    in_s3.put(local, "data")
    remote = opened(in_s3, "data", **options)
    with sp.open_dataset(local) as truth:
        expected = sp.Pipeline(truth, shuffle=shuffle, seed=4).batch(32)
        with expected.loader(executor="inline", epochs=2) as loader:
            wanted = [list(map(bytes, batch)) for batch in loader]
    pipe = sp.Pipeline(remote, shuffle=shuffle, seed=4).map(bytes, workers=2).batch(32)
    with pipe.loader(epochs=2) as loader:
        assert [list(map(bytes, batch)) for batch in loader] == wanted


@pytest.mark.deadline(120)
def test_views(in_s3: Place, opened: Opened, tmp_path: Path) -> None:
    path = str(tmp_path / "columns")
    schema = sp.Schema({"n": "int64", "text": "str"})
    with sp.DatasetWriter(path, bins=3, schema=schema, metadata={"number": "int64"}) as writer:
        for n in range(200):
            record = {"n": n, "text": None if n % 5 == 0 else f"text {n}"}
            writer.write(record, key=f"key {n}", meta={"number": n})
    with sp.DatasetWriter(path, append=True) as writer:
        writer.delete([3, 50, 199])
    in_s3.put(path, "columns")
    remote = opened(in_s3, "columns")
    with sp.open_dataset(path) as truth:
        assert list(remote) == list(truth)
        assert remote["key 7"] == truth["key 7"]
        assert list(remote.where("number > 100 AND text IS NULL")) == list(
            truth.where("number > 100 AND text IS NULL")
        )
        assert list(remote.select(["text"])) == list(truth.select(["text"]))
        order = global_order(197, seed=1, epoch=2)
        ours, theirs = (ds.select(["n"]).subset(range(197)) for ds in (remote, truth))
        assert list(ours.iterate(order)) == list(theirs.iterate(order))
        assert list(remote.subset(range(5, 50, 3))) == list(truth.subset(range(5, 50, 3)))
        ours = remote.split({"a": 0.5, "b": 0.5}, seed=1)
        theirs = truth.split({"a": 0.5, "b": 0.5}, seed=1)
        assert list(ours["a"]) == list(theirs["a"])
        assert list(remote.concat(truth)) == list(truth.concat(truth))
        assert remote.meta("key 7") == truth.meta("key 7")


@pytest.mark.deadline(120)
def test_copies_in_two_places(in_s3: Place, opened: Opened, local: str, tmp_path: Path) -> None:
    other = Place(f"file://{tmp_path}/store", folder=tmp_path / "store")
    for place, name in ((in_s3, "data"), (in_s3, "copy"), (other, "data")):
        place.put(local, name)
    datasets = [opened(in_s3, "data"), opened(in_s3, "copy"), opened(other, "data")]
    with sp.open_dataset(local) as truth:
        order = global_order(600, seed=2, epoch=1)
        rows = zip(truth.iterate(order), *(ds.iterate(order) for ds in datasets), strict=True)
        assert all(len(set(found)) == 1 for found in rows)


@pytest.mark.deadline(120)
def test_it_goes_on_where_a_state_says(in_s3: Place, opened: Opened, local: str) -> None:
    in_s3.put(local, "data")
    remote = opened(in_s3, "data", cache_limit="2MB")
    pipe = sp.Pipeline(remote, shuffle="binwise", seed=4).map(numbers, workers=2).batch(20)
    with pipe.loader() as loader:
        everything = []
        states = []
        for batch in loader:
            everything.append(np.array(batch).tolist())
            states.append(loader.state_dict())
    assert "secret" not in str(states)
    for at in (0, 7, 29):
        with pipe.loader(state=states[at]) as loader:
            assert [np.array(batch).tolist() for batch in loader] == everything[at + 1 :]


@pytest.mark.deadline(120)
@pytest.mark.parametrize("shuffle", ["global", "binwise"])
def test_ranks_share_one_cache(in_s3: Place, opened: Opened, local: str, shuffle: str) -> None:
    in_s3.put(local, "data")
    whole = []
    for rank in range(3):
        pipe = sp.Pipeline(opened(in_s3, "data"), shuffle=shuffle, seed=4).shard(rank, 3)
        with pipe.map(bytes, workers=1).loader(epochs=2) as loader:
            whole.append([list(map(bytes, epoch)) for epoch in loader.by_epoch()])
    with (
        sp.open_dataset(local) as truth,
        sp.Pipeline(truth, shuffle=shuffle, seed=4).loader(executor="inline", epochs=2) as loader,
    ):
        expected = [list(map(bytes, epoch)) for epoch in loader.by_epoch()]
    for epoch in range(2):
        assert [whole[at % 3][epoch][at // 3] for at in range(600)] == expected[epoch]


def dying(record: bytes, folder: str) -> int:
    """Ends its worker twice, at different records."""
    for number in range(2):
        path = os.path.join(folder, f"died {number}")
        if len(record) % (53 + number) == 0:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.kill(os.getpid(), 9)
    return len(record)


@pytest.mark.deadline(120)
def test_killed_workers(in_s3: Place, opened: Opened, local: str, tmp_path: Path) -> None:
    in_s3.put(local, "data")
    remote = opened(in_s3, "data", cache_limit="2MB")
    folder = tmp_path / "deaths"
    folder.mkdir()
    deaths = partial(dying, folder=str(folder))
    pipe = sp.Pipeline(remote, shuffle="global", seed=4).map(deaths, workers=2)
    with sp.open_dataset(local) as truth:
        expected = [len(record) for record in truth.iterate(global_order(600, seed=4, epoch=0))]
    with pipe.loader(restarts=None) as loader:
        assert list(loader) == expected
    assert len(list(folder.iterdir())) == 2
