"""Records that end the workers of a job: named, and left out where that is said."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from tests.jobs import making
from tests.jobs.making import source

COUNT = 60
BAD = (40,)


class Deadly:
    """A stage that ends its process at some records, or raises."""

    def __init__(self, *, kills: bool, at: tuple[int, ...] = BAD) -> None:
        self.kills, self.at = kills, at

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] in self.at:
            if not self.kills:
                raise ValueError(record["n"])
            os.kill(os.getpid(), signal.SIGKILL)
        return record


def same(record: Any) -> Any:
    return record


def summed(rows: list[Any]) -> dict[str, Any]:
    return {"n": sum(row["n"] for row in rows)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return source(tmp_path / "source", COUNT)


Shape = Callable[[sp.Pipeline, Any, Any], sp.Pipeline]

SHAPES: dict[str, Shape] = {
    "map": lambda p, f, on_error: p.map(f, on_error=on_error).map(making.square),
    "behind": lambda p, f, on_error: p.map(same, on_error="skip").map(f, on_error=on_error),
    "group": lambda p, f, on_error: p.map(f).batch(5, collate=summed),
    "stream": lambda p, f, on_error: p.map(f, on_error=on_error).shuffle(8),
}


@pytest.mark.deadline(180)
@pytest.mark.parametrize(
    ("shape", "by", "workers"),
    [
        ("map", "job", 3),
        pytest.param("map", "stage", 1, marks=pytest.mark.long),
        pytest.param("behind", "job", 1, marks=pytest.mark.long),
        ("behind", "stage", 2),
        ("group", "job", 2),
        pytest.param("stream", "stage", 1, marks=pytest.mark.long),
    ],
)
def test_are_left_out_like_those_that_fail(
    data: Path, tmp_path: Path, shape: str, by: str, workers: int
) -> None:
    summaries = []
    for name, kills in (("raised", False), ("died", True)):
        policy = sp.quarantine(tmp_path / f"{name}.jsonl")
        pipe = SHAPES[shape](
            sp.Pipeline(sp.open_dataset(data)),
            Deadly(kills=kills),
            policy if by == "stage" else None,
        )
        job = sp.Job(
            pipe,
            tmp_path / name,
            task=30,
            on_error=policy if by == "job" else None,
            by_task=shape == "stream",
        )
        summaries.append(job.run(workers=workers if kills else 0))
    one, other = summaries
    assert one.counts == other.counts
    assert one.counts.written < COUNT
    assert len(one.faults) == len(other.faults) == 1
    raised = [repr(row) for row in sp.open_dataset(tmp_path / "raised")]
    assert raised == [repr(row) for row in sp.open_dataset(tmp_path / "died")]
    found = {name: sp.read_quarantine(tmp_path / f"{name}.jsonl") for name in ("raised", "died")}
    assert [one.record for one in found["died"]] == [one.record for one in found["raised"]]
    for item in found["died"]:
        assert item.error == "splitpipe.errors.PoisonRecord"
        assert "has ended 3 workers" in item.message
        assert "SIGKILL" in item.message


@pytest.mark.deadline(180)
def test_are_named_where_nobody_leaves_them_out(data: Path, tmp_path: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).map(Deadly(kills=True)).map(making.square)
    job = sp.Job(pipe, tmp_path / "out", task=30)
    with pytest.raises(
        sp.PoisonRecord, match=r"record 40 of .*number 40 of the job. has ended 3 workers"
    ) as error:
        job.run(workers=2)
    assert "SIGKILL" in str(error.value)
    assert any("records of the job are done" in note for note in error.value.__notes__)


@pytest.mark.deadline(180)
def test_a_budget_ends_the_job_at_its_place(data: Path, tmp_path: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).map(Deadly(kills=True, at=(7, 8)))
    job = sp.Job(pipe, tmp_path / "out", task=30, on_error=sp.skip(budget=1))
    with pytest.raises(sp.BudgetExceeded, match="left out 2 of the first 9 items"):
        job.run(workers=2)
