"""Many streams, some of them in a store: the same items as of local ones, however it is run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.streams.schedules import SCHEDULES, WITH_BATCH
from splitpipe.testing.faults import FaultProxy, chaos
from tests.server_fixtures import Bucket, bucket, s3_proxy, s3_server

__all__ = ["bucket", "s3_proxy", "s3_server"]

pytestmark = pytest.mark.usefixtures("s3_server")

SIZES = {"web": 150, "books": 60, "notes": 20}


def records(name: str) -> list[dict[str, Any]]:
    return [{"name": name, "n": n, "text": f"{name} {n} " * 20} for n in range(SIZES[name])]


@pytest.fixture
def remote(bucket: Bucket, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Two datasets in a bucket, and one that lies here."""
    where = {name: f"{bucket.url}/{name}" for name in ("web", "books")}
    where["notes"] = str(tmp_path / "notes")
    opened: dict[str, Any] = {}
    for name, url in where.items():
        options: dict[str, Any] = {"bins": 3}
        if "://" in url:
            spool = {"bin_nbytes": 4096, "spool_dir": tmp_path / "spool"}
            options |= {"storage_options": bucket.options, **spool}
        with sp.DatasetWriter(url, **options) as writer:
            for at in range(0, SIZES[name], 30):
                writer.write_many(records(name)[at : at + 30])
                writer.flush()
        cache = {"cache_dir": tmp_path / "cache", "storage_options": bucket.options}
        opened[name] = sp.open_dataset(url, **(cache if "://" in url else {}))
    yield opened
    for dataset in opened.values():
        dataset.close()


def streams_of(sources: dict[str, Any], schedule: str) -> sp.Streams:
    batch = 10 if schedule in WITH_BATCH else None
    shares = {"web": 5, "books": 4, "notes": 1}
    parts = {name: sp.Stream(sources[name], proportion=share) for name, share in shares.items()}
    return sp.Streams(parts, schedule=schedule, batch=batch, epoch_size=200)


def truth_of(schedule: str) -> sp.Pipeline:
    lists = {name: records(name) for name in SIZES}
    return sp.Pipeline(streams_of(lists, schedule), shuffle="global", seed=4)


def die_once(record: dict[str, Any], *, at: dict[str, Any], flag: str) -> dict[str, Any]:
    if record == at and not os.path.exists(flag):
        with open(flag, "w", encoding="utf-8"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return record


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_same_items(remote: dict[str, Any], schedule: str) -> None:
    truth = list(truth_of(schedule))
    pipe = sp.Pipeline(streams_of(remote, schedule), shuffle="global", seed=4)
    assert list(pipe) == truth
    for workers in (1, 3):
        with pipe.map(dict, workers=workers).loader(start_method="fork") as loader:
            assert list(loader) == truth
    with pipe.map(dict, workers=2).loader(executor="thread") as loader:
        assert list(loader) == truth


def test_going_on_anywhere_and_with_other_ranks(remote: dict[str, Any]) -> None:
    truth = list(truth_of("stratified"))
    pipe = sp.Pipeline(streams_of(remote, "stratified"), shuffle="global", seed=4)
    with pipe.map(dict, workers=2).loader(start_method="fork") as loader:
        states = [loader.state_dict(), *(loader.state_dict() for _ in loader)]
    for at in (0, 1, 64, 137, 199, 200):
        with pipe.map(dict, workers=2).loader(start_method="fork", state=states[at]) as loader:
            assert list(loader) == truth[at:]
    of_ranks = []
    for rank in range(3):
        with pipe.shard(rank, 3).loader(executor="inline") as loader:
            had = [next(loader) for _ in range(20)]
            of_ranks.append(loader.state_dict())
        assert had == truth[rank:60:3]
    for rank, state in enumerate(sp.redistribute(of_ranks, 2)):
        with pipe.shard(rank, 2).loader(executor="inline", state=state) as loader:
            assert list(loader) == truth[60 + rank :: 2]


def test_workers_that_die(remote: dict[str, Any], tmp_path: Path) -> None:
    truth = list(truth_of("random"))
    pipe = sp.Pipeline(streams_of(remote, "random"), shuffle="global", seed=4)
    dying = partial(die_once, at=truth[90], flag=str(tmp_path / "died"))
    with pipe.map(dying, workers=2).loader(start_method="fork") as loader:
        assert list(loader) == truth
    assert (tmp_path / "died").exists()


def test_a_network_that_fails(
    remote: dict[str, Any], bucket: Bucket, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    options = {
        "cache_dir": tmp_path / "other",
        "storage_options": bucket.server.options_at(s3_proxy.url),
    }
    sources = {**remote}
    for name in ("web", "books"):
        sources[name] = sp.open_dataset(f"{bucket.url}/{name}", **options)
    # What stalls is waited for until a request's time is over, which tests of stores do.
    slow = ("stall", "stall_midway", "trickle")
    quick = [fault for fault in chaos(0.2) if fault.kind not in slow]
    s3_proxy.inject(*quick, seed=5)
    pipe = sp.Pipeline(streams_of(sources, "random"), shuffle="global", seed=4)
    assert list(pipe) == list(truth_of("random"))
    s3_proxy.forget()
    for name in ("web", "books"):
        sources[name].close()


@pytest.mark.usefixtures("patient")
def test_what_comes_is_fetched_meanwhile(
    remote: dict[str, Any], bucket: Bucket, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Each block is asked for once, by whoever comes first: the mixture or what is read ahead."""
    options = {
        "cache_dir": tmp_path / "other",
        "storage_options": bucket.server.options_at(s3_proxy.url),
    }
    with (
        sp.open_dataset(f"{bucket.url}/web", **options) as web,
        sp.open_dataset(f"{bucket.url}/books", **options) as books,
    ):
        pipe = sp.Pipeline(sp.Streams([web, books]), shuffle="global")
        assert len(list(pipe)) == 210
    ranged = [request for request in s3_proxy.log() if request.range is not None]
    assert len({(one.target.partition("?")[0], one.range) for one in ranged}) == len(ranged)
