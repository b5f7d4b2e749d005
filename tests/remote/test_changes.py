"""Datasets in a store that are appended to, replaced and damaged while they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import splitpipe as sp
from tests.remote.making import Place

Opened = Callable[..., sp.Dataset]


def payload(number: int) -> bytes:
    return np.random.default_rng(number).bytes(2000)


def written(path: Path, numbers: range, **options: bool) -> str:
    with sp.DatasetWriter(path, bins=3, **options) as writer:
        writer.write_many([payload(n) for n in numbers])
    return str(path)


def test_an_older_commit_is_read_on(place: Place, opened: Opened, tmp_path: Path) -> None:
    local = written(tmp_path / "local", range(400))
    place.put(local, "data")
    dataset = opened(place, "data")
    assert dataset[0] == payload(0)
    written(tmp_path / "local", range(400, 700), append=True)
    place.put(local, "data")
    assert list(dataset) == [payload(n) for n in range(400)]
    newer = opened(place, "data")
    assert list(newer) == [payload(n) for n in range(700)]


@pytest.mark.parametrize("verify", [True, False])
def test_it_is_overwritten(place: Place, opened: Opened, tmp_path: Path, verify: bool) -> None:
    place.put(written(tmp_path / "one", range(2000)), "data")
    dataset = opened(place, "data", verify=verify)
    assert dataset[0] == payload(0)
    place.put(written(tmp_path / "two", range(5, 2005)), "data")
    with pytest.raises(sp.DatasetChanged, match="open it again"):
        list(dataset)
    assert opened(place, "data")[0] == payload(5)


def test_what_was_fetched_is_not_fetched_again(
    place: Place, opened: Opened, tmp_path: Path
) -> None:
    place.put(written(tmp_path / "local", range(300)), "data")
    dataset = opened(place, "data")
    assert list(dataset) == [payload(n) for n in range(300)]
    if place.folder is not None:
        place.remove("data")
    assert list(dataset) == [payload(n) for n in range(300)]


@pytest.mark.parametrize("limit", [None, "2MB"])
def test_damage_is_told_with_its_url(
    place: Place, opened: Opened, tmp_path: Path, limit: str | None
) -> None:
    local = Path(written(tmp_path / "local", range(1500)))
    name = "v0001-c000-b00001.bin"
    bad = bytearray((local / name).read_bytes())
    bad[5000] ^= 4
    (local / name).write_bytes(bad)
    place.put(local, "data")
    with sp.open_dataset(local) as truth:
        worse = [n for n in range(1500) if n % 3 == 1 and not readable(truth, n)]
    dataset = opened(place, "data", cache_limit=limit)
    assert len(worse) == 1
    with pytest.raises(sp.CorruptRecord, match=f"record {worse[0]}.*data/{name}"):
        dataset[worse[0]]
    with pytest.raises(sp.CorruptRecord, match=f"data/{name}"):
        list(dataset)
    pipe = sp.Pipeline(dataset, shuffle="global", seed=1, on_error="skip")
    with pipe.map(len, workers=1).loader() as loader:
        assert sum(1 for _ in loader) == 1499


def readable(dataset: sp.Dataset, number: int) -> bool:
    try:
        dataset[number]
    except sp.CorruptRecord:
        return False
    return True
