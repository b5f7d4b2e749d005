"""Parts and places of training workers, without a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.errors import GraphError, ResumeError
from splitpipe.integrations.ray_train import restored, save_state, sharded


def even(n: int) -> bool:
    return n % 2 == 0


@pytest.mark.parametrize("ends", ["drop", "pad"])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("counted", [True, False])
def test_everybody_has_equally_many_steps(ends: str, world: int, counted: bool) -> None:
    pipe = sp.Pipeline(range(50), shuffle="global", seed=1)
    pipe = (pipe if counted else pipe.filter(even)).batch(3, collate=list)
    steps = [list(sharded(pipe, rank, world, ends=ends)) for rank in range(world)]
    assert len({len(one) for one in steps}) == 1
    had = [tuple(batch) for one in steps for batch in one]
    assert set(had) <= {tuple(batch) for batch in pipe}
    assert ends == "pad" or len(set(had)) == len(had)


def test_a_shard_of_its_own_is_kept() -> None:
    pipe = sp.Pipeline(range(12)).shard(1, 2).batch(2, collate=list)
    assert list(sharded(pipe, 1, 2)) == [[1, 3], [5, 7], [9, 11]]
    with pytest.raises(GraphError, match="this is worker 0 of 2"):
        sharded(pipe, 0, 2)


@pytest.mark.parametrize(
    "pipe",
    [
        sp.Pipeline(range(9)).shard(0, 2, ends="uneven"),
        sp.Pipeline(range(9)).shard(0, 2).filter(even),
        sp.Pipeline(range(9)).shard(0, 2).map(abs).flat_map(lambda n: [n] * n).batch(2),
    ],
)
def test_workers_that_would_wait_for_each_other_are_refused(pipe: sp.Pipeline) -> None:
    with pytest.raises(GraphError, match=r"uneven|equally many steps"):
        sharded(pipe, 0, 2)
    with pytest.raises(GraphError, match="uneven"):
        sharded(sp.Pipeline(range(9)), 0, 2, ends="uneven")


def had_until(pipe: sp.Pipeline, world: int, steps: int, folder: Path) -> list[Any]:
    """Run some steps on every worker and save their places."""
    had = []
    for rank in range(world):
        with sharded(pipe, rank, world).loader(executor="inline") as loader:
            had += [next(loader) for _ in range(steps)]
            save_state(loader.state_dict(), folder, rank, world)
    return had


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_another_number_of_workers_goes_on(tmp_path: Path, world: int) -> None:
    pipe = sp.Pipeline(range(60), shuffle="global", seed=2).map(lambda n: n * 2)
    had = had_until(pipe, 3, 4, tmp_path)
    for rank in range(world):
        state = restored(tmp_path, rank, world)
        with sharded(pipe, rank, world).loader(executor="inline", state=state) as loader:
            had += list(loader)
    assert len(set(had)) == len(had)
    # What is left of a last round that is not full is nobody's.
    assert len(had) == 12 + 48 // world * world


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    assert restored(tmp_path, 0, 2) is None
    pipe = sp.Pipeline(range(60))
    had_until(pipe, 3, 1, tmp_path)
    assert restored(tmp_path, 0, 3, name="other") is None
    lost = tmp_path / "splitpipe-00001-of-00003.json"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ResumeError, match=r"no place of workers \[1\] of 3"):
        restored(tmp_path, 0, 3)
    lost.write_bytes(kept)
    os.rename(lost, tmp_path / "splitpipe-00000-of-00001.json")
    with pytest.raises(ResumeError, match="several runs"):
        restored(tmp_path, 0, 3)
