"""What a plan says is what a server counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from splitpipe.remote import plan_reading
from splitpipe.testing.faults import FaultProxy
from tests.remote.making import Place
from tests.sampling import seldom

Opened = Callable[..., sp.Dataset]
ROWS, NBYTES, BINS = 700, 20_000, 24
LIMIT = 6_000_000


@pytest.fixture
def place(in_s3: Place, tmp_path: Path) -> Place:
    path = str(tmp_path / "local")
    rng = np.random.default_rng(0)
    sp.write_split_data(path, [rng.bytes(NBYTES) for _ in range(ROWS)], splits=BINS)
    in_s3.put(path, "data")
    return in_s3


EPOCHS: list[Any] = [
    ("global", None, "keep", None),
    ("global", None, "keep", 2),
    ("binwise", None, "keep", None),
    ("binwise", LIMIT, "pass", None),
    ("binwise", LIMIT, "pass", 2),
    (None, 13_500_000, "pass", None),
    ("global", LIMIT, "pick", None),
    ("global", LIMIT, "pick", 2),
]


@pytest.mark.deadline(120)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("shuffle", "limit", "how", "workers"),
    seldom(
        EPOCHS,
        keep=[
            ("global", None, "keep", 2),
            ("binwise", LIMIT, "pass", None),
            (None, 13_500_000, "pass", None),
            ("global", LIMIT, "pick", 2),
        ],
    ),
)
def test_one_epoch(
    place: Place,
    opened: Opened,
    s3_proxy: FaultProxy,
    shuffle: str | None,
    limit: int | None,
    how: str,
    workers: int | None,
) -> None:
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data", cache_limit=limit)
    plan = plan_reading(dataset.records.manifest, shuffle, cache_limit=limit)
    assert plan.how == how
    pipe = sp.Pipeline(dataset, shuffle=shuffle, seed=3)
    if workers:
        pipe = pipe.map(len, workers=workers)
    with pipe.loader(**({} if workers else {"executor": "inline"})) as loader:
        assert sum(1 for _ in loader) == plan.records
    requests = len(s3_proxy.log())
    # Every byte once, and the manifest, the list and some heads; but for what workers ask for a
    # second time where the machine is slow: one in ten at most.
    second = sum(asked_again(s3_proxy)[: requests // 10 if workers else 0])
    assert s3_proxy.statistics().nbytes_down - second < 1.05 * plan.egress_nbytes + 50_000
    assert plan.requests / 3 < requests < 2 * plan.requests
    assert dataset.records._cache.statistics().used_nbytes <= max(plan.cache_nbytes, limit or 0)


@pytest.mark.usefixtures("patient")
def test_a_slow_reader_has_nothing_fetched_twice(
    place: Place, opened: Opened, s3_proxy: FaultProxy
) -> None:
    """What is read goes after what was read before it, also where all came long ago."""
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data", cache_limit=13_500_000)
    cache = dataset.records._cache
    for _ in dataset:
        for asked in list(cache._ahead._under_way):
            assert asked.wait(60)
    assert cache.statistics().evicted_nbytes > 0
    assert not asked_again(s3_proxy)


def asked_again(proxy: FaultProxy) -> list[int]:
    """Bytes of each request for a range that had been asked for before, the largest first."""
    seen = Counter((one.target, one.range) for one in proxy.log() if one.range is not None)
    again = []
    for (_, asked), count in seen.items():
        first, last = asked.removeprefix("bytes=").split("-")
        again += [int(last) + 1 - int(first)] * (count - 1)
    return sorted(again, reverse=True)


def test_a_second_epoch_asks_for_nothing(
    place: Place, opened: Opened, s3_proxy: FaultProxy
) -> None:
    through = Place(place.root, place.server.options_at(s3_proxy.url))
    dataset = opened(through, "data")
    list(dataset)
    s3_proxy.forget()
    pipe = sp.Pipeline(dataset, shuffle="global", seed=3).map(len, workers=2)
    with pipe.loader() as loader:
        assert sum(1 for _ in loader) == ROWS
    assert s3_proxy.log() == []


def test_what_is_cheaper() -> None:
    # A thousand times the cache; no file of it is here.
    from splitpipe.storage.committed import Column, Manifest
    from splitpipe.storage.layout import BinLayout, Segment

    rows = 1_000_000
    layout = BinLayout([Segment(0, rows, 0, 64, None, b"\0" * 4 * 65)])
    column = Column("data", sp.Field("bytes"), 0, (64 + rows * 10_000 // 64,) * 64, layout)
    manifest = Manifest(bytes(16), 1, 1, rows, (column,))
    plan = plan_reading(manifest, "global", cache_limit=1_000_000_000)
    assert plan.how == "pick"
    assert plan.requests > rows
    found = re.search(r"window=(\d+)", plan.advice or "")
    assert found is not None
    better = plan_reading(manifest, "binwise", window=int(found[1]), cache_limit=1_000_000_000)
    assert better.how == "pass"
    assert better.requests < plan.requests / 100
    part = plan_reading(manifest, "global", cache_limit=10_000_000, machines=8, lanes=8)
    assert (part.how, part.data_nbytes) == ("pick", plan.data_nbytes)
    assert part.records == plan.records // 8
    half = plan_reading(manifest, "global", machines=10**6)
    assert half.egress_nbytes < 0.1 * plan.data_nbytes


def test_the_command(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = str(tmp_path / "local")
    assert run(["plan", local, "--shuffle", "global", "--cache-limit", "6MB"]) == 0
    assert "every record comes by itself" in capsys.readouterr().out
    assert run(["plan", f"file://{local}", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["how"] == "keep"
    assert run(["plan", local, "--shuffle", "sideways"]) == 1
    assert "sideways" in capsys.readouterr().err
    assert run(["plan", str(tmp_path / "nothing")]) == 1


MACHINES = 4


@pytest.mark.deadline(120)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("limit", "shuffle"), [(None, "global"), (9_000_000, "binwise"), (None, None)]
)
def test_machines_with_lanes_fetch_what_is_theirs(
    in_s3: Place,
    tmp_path: Path,
    s3_proxy: FaultProxy,
    limit: int | None,
    shuffle: str | None,
) -> None:
    rng = np.random.default_rng(0)
    records = [rng.bytes(NBYTES) for _ in range(704)]
    sp.write_split_data(str(tmp_path / "local"), records, splits=3)
    in_s3.put(str(tmp_path / "local"), "data")
    options = in_s3.server.options_at(s3_proxy.url)
    seen: list[bytes] = []
    for rank in range(MACHINES):
        cache = {"cache_dir": tmp_path / f"cache{rank}", "cache_limit": limit}
        with sp.open_dataset(f"{in_s3.root}/data", storage_options=options, **cache) as ds:
            plan = plan_reading(
                ds.records.manifest, shuffle, lanes=8, machines=MACHINES, cache_limit=limit
            )
            s3_proxy.forget()
            before = s3_proxy.statistics().nbytes_down
            pipe = sp.Pipeline(ds, shuffle=shuffle, window=2, seed=3, lanes=8)
            epochs = pipe.shard(rank, MACHINES).loader(executor="inline", epochs=2)
            with epochs as loader:
                found = [list(epoch) for epoch in loader.by_epoch()]
            assert sorted(found[0]) == sorted(found[1])
            assert len(found[0]) == plan.records == 704 // MACHINES
            seen += found[0]
            # Two epochs, of which the second one asks for nothing.
            asked = s3_proxy.statistics().nbytes_down - before
            assert plan.how == "keep"
            assert asked < 1.05 * plan.egress_nbytes + 50_000 < 0.5 * plan.data_nbytes
    assert sorted(seen) == sorted(records)


def test_machines_with_lanes_fetch_their_part_of_the_index(
    in_s3: Place, tmp_path: Path, s3_proxy: FaultProxy
) -> None:
    rows = 600_000
    sp.write_split_data(str(tmp_path / "local"), [b"x"] * rows, splits=3)
    in_s3.put(str(tmp_path / "local"), "data")
    options = in_s3.server.options_at(s3_proxy.url)
    with sp.open_dataset(
        f"{in_s3.root}/data", storage_options=options, cache_dir=tmp_path / "cache"
    ) as ds:
        pipe = sp.Pipeline(ds, shuffle="binwise", lanes=8).shard(3, 8)
        assert sum(1 for _ in pipe.loader(executor="inline")) == rows // 8
    spans = {one.range for one in s3_proxy.log() if ".index" in one.target and one.range}
    asked = [list(map(int, span.removeprefix("bytes=").split("-"))) for span in spans]
    # Three eighths on: entries of 24 bytes behind a head, and what comes with them in a request.
    first, last = min(start for start, _ in asked if start), max(stop for _, stop in asked)
    assert 24 * rows * 3 // 8 - (2 << 20) <= first
    assert last <= 24 * rows * 4 // 8 + (2 << 20)
    assert sum(stop + 1 - start for start, stop in asked) < 24 * rows / 2
