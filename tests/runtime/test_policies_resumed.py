"""Runs that leave items out, gone on with in mid-epoch, and after a worker has died."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.runtime.comparing import all_frozen
from tests.runtime.test_policies import FORK, STAGES, cut, failing, read, sequence

ASKED = ("map", "flat_map", "filter", "batch", "batch, collated", "async_map", "route", "shuffled")


@pytest.mark.long
@pytest.mark.deadline(120)
@pytest.mark.parametrize("name", ASKED)
def test_going_on_leaves_out_the_same(name: str) -> None:
    pipe = cut(sequence, STAGES[name], None, None)
    pool = cut(sequence, STAGES[name], 2, None)
    truth = all_frozen(pipe.loader(executor="inline", epochs=2))
    for at in range(0, len(truth), max(1, len(truth) // 3)):
        with pipe.loader(executor="inline", epochs=2) as loader:
            for _ in range(at):
                next(loader)
            state = loader.state_dict()
        with pipe.loader(executor="inline", epochs=2, state=state) as loader:
            assert all_frozen(loader) == truth[at:], at
        with pool.loader(epochs=2, state=state, **FORK) as loader:
            assert all_frozen(loader) == truth[at:], at


def killing(path: str, at: int, bad: set[int]) -> Any:
    decode = failing(bad)

    def decode_once(x: int) -> int:
        if x == at and not os.path.exists(path):
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(x)

    return decode_once


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("budget", [None, 20])
def test_a_worker_that_dies_changes_nothing(
    tmp_path: Path, workers: int, budget: int | None
) -> None:
    bad = set(range(0, 2000, 50))
    died = str(tmp_path / "died")
    quarantine = sp.quarantine(tmp_path / "bad.jsonl", budget=budget)
    pipe = sp.Pipeline(range(2000)).map(
        killing(died, 777, bad), workers=workers, on_error=quarantine
    )
    got, error = read(pipe.loader(**FORK))
    assert os.path.exists(died)
    good = [x for x in range(2000) if x not in bad]
    positions = [item.position for item in sp.read_quarantine(tmp_path / "bad.jsonl")]
    if budget is None:
        assert error is None
        assert got == good
        assert sorted(positions) == sorted(bad)
    elif workers == 2:
        assert type(error) is sp.BudgetExceeded
        assert got == [x for x in good if x < 1000]
    else:
        # One process judges what it has seen itself: its successor begins anew.
        assert got == good[: len(got)]
        assert len(got) >= 950
