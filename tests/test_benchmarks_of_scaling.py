"""10^12 records among 1,000 ranks, for real where that is arithmetic; and what models say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import splitpipe as sp
from benchmarks.ray_batches import told
from benchmarks.scaling import (
    BATCH,
    WORLD,
    Numbers,
    index_nbytes,
    lockstep,
    pipeline,
    table,
)

MANY = 10**12


@pytest.mark.parametrize("shuffle", ["global", "binwise"])
def test_a_rank_of_many_goes_on_exactly(shuffle: str) -> None:
    pipe = pipeline(MANY, shuffle)
    assert len(pipe) == MANY // WORLD // BATCH
    with pipe.loader(executor="inline") as loader:
        loader.seek(len(pipe) - 3)
        before = next(loader)
        state = loader.state_dict()
        rest = [batch.tolist() for batch in loader]
    assert len(rest) == 2
    assert len(json.dumps(state)) < 1000
    with pipe.loader(executor="inline", state=state) as loader:
        assert [batch.tolist() for batch in loader] == rest
    assert 0 <= min(before) <= max(before) < MANY


def test_no_two_ranks_have_a_record_in_common() -> None:
    for shuffle in ("global", "binwise"):
        had: set[int] = set()
        for rank in (0, 1, 499, WORLD - 1):
            pipe = sp.Pipeline(Numbers(MANY, 64), shuffle=shuffle, seed=3).shard(rank, WORLD)
            with pipe.loader(executor="inline") as loader:
                loader.seek(10**8)
                mine = {next(loader) for _ in range(200)}
            assert len(mine) == 200
            assert not mine & had
            had |= mine


def test_many_ranks_become_fewer_at_any_size() -> None:
    pipe = sp.Pipeline(range(MANY), shuffle="global", seed=1)
    states, had = [], set()
    for rank in range(30):
        with pipe.shard(rank, 30).loader(executor="inline") as loader:
            had |= {next(loader) for _ in range(rank % 3)}
            states.append(loader.state_dict())
    left = MANY - len(had)
    parts = sp.redistribute(states, 20)
    for rank in (0, 19):
        with pipe.shard(rank, 20).loader(executor="inline", state=parts[rank]) as loader:
            mine = {next(loader) for _ in range(50)}
        assert not mine & had
        had |= mine
    assert left == MANY - 30


def test_the_slowest_of_many_ranks_sets_the_pace() -> None:
    rng = np.random.default_rng(0)
    times = rng.lognormal(0.0, 0.5, 1000)
    times /= times.mean()
    run = {
        (ranks, prefetch): lockstep(
            times, ranks=ranks, load=0.8, prefetch=prefetch, steps=200, seed=1
        )
        for ranks in (1, 100)
        for prefetch in (1, 8)
    }
    assert run[100, 1] < run[1, 1] < 1
    assert run[100, 1] < run[100, 8] < 1
    # Batches that all take as long cost nothing but the first.
    assert lockstep(np.ones(1), ranks=5, load=0.5, prefetch=2, steps=10, seed=0) == 10 / 10.5


def test_an_index_has_24_bytes_a_record(tmp_path: Path) -> None:
    each, manifest = index_nbytes(tmp_path, rows=1 << 14)
    assert 24 <= each < 24.1
    assert manifest < 100


def test_tables_tell_what_was_measured() -> None:
    assert table("a | b", [[1000, 0.5], ["x", 2]]).splitlines()[2:] == [
        "| 1,000 | 0.5 |",
        "| x | 2 |",
    ]
    text = told({"ours": [(20.0, 0.1, 1.0)], "ray.data, a": [(10.0, 1.0, 4.0), (10.0, 1.0, 4.0)]})
    assert "| ours | 20 | 2.00 | 0.10 | 1.00 | 4.00 |" in text
