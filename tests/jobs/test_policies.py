"""Policies for records that fail: of the job and of its stages, counted and judged in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.jobs import Counts
from tests.jobs import making
from tests.jobs.making import COUNT, assert_same_files, source
from tests.jobs.test_jobs import stop_at

BAD = [n for n in range(COUNT) if n % 7 == 3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return source(tmp_path / "source")


def job(data: Path, out: Path, *, stage: Any = None, **options: Any) -> sp.Job:
    """A job whose first stage fails for some, with a policy of the stage or of the job."""
    pipe = sp.Pipeline(sp.open_dataset(data)).map(making.fails_at_seventh, on_error=stage)
    return sp.Job(pipe.map(making.square), out, **{"task": 30, "bins": 2, **options})


def parts(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in range(3):
        yield {"n": record["n"], "part": part}


def not_the_second(record: dict[str, Any]) -> int:
    if record["part"] == 1 and record["n"] % 10 == 0:
        raise ValueError(f"no second part of {record['n']}")
    if record["n"] == 55:
        raise ValueError("nothing of it")
    return int(record["n"])


async def answered(record: dict[str, Any]) -> int:
    if record["n"] % 7 == 3:
        raise KeyError(record["n"])
    return int(record["n"]) ** 2


@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_stage_counts_like_that_of_the_job(data: Path, tmp_path: Path, workers: int) -> None:
    one = job(data, tmp_path / "one", stage="skip").run(workers=workers)
    two = job(data, tmp_path / "two", on_error="skip").run(workers=workers)
    left = COUNT - len(BAD)
    assert one.counts == two.counts == Counts(COUNT, left, 0, len(BAD), left)
    assert list(sp.open_dataset(tmp_path / "one")) == list(sp.open_dataset(tmp_path / "two"))
    assert one.faults == two.faults


def test_a_part_of_a_record_does_not_make_it_skipped(data: Path, tmp_path: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).flat_map(parts).map(not_the_second, on_error="skip")
    summary = sp.Job(pipe, tmp_path / "out", task=30).run(workers=0)
    assert summary.counts == Counts(COUNT, COUNT - 1, 0, 1, 3 * COUNT - 20 - 3)
    assert len(summary.faults) == 10


def test_calls_under_way(data: Path, tmp_path: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).async_map(answered, concurrency=4, on_error="skip")
    summary = sp.Job(pipe, tmp_path / "out", task=30).run(workers=0)
    assert list(sp.open_dataset(tmp_path / "out")) == [n * n for n in range(COUNT) if n not in BAD]
    assert summary.counts.skipped == len(BAD)
    assert "record 3 of" in summary.faults[0]


def test_of_reading(data: Path, tmp_path: Path) -> None:
    victim = next(p for p in sorted(data.iterdir()) if p.name.endswith("c001-b00001.bin"))
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(raw)
    pipe = sp.Pipeline(sp.open_dataset(data), on_error="skip").map(making.square)
    summary = sp.Job(pipe, tmp_path / "out", task=30).run(workers=0)
    assert summary.counts == Counts(COUNT, COUNT - 1, 0, 1, COUNT - 1)
    assert "record 199 of" in summary.faults[0]


@pytest.mark.parametrize("by", ["stage", "job"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_budget_is_one_of_all_runs(data: Path, tmp_path: Path, by: str, workers: int) -> None:
    allowed = sp.skip(10)
    options: Any = {"stage": allowed} if by == "stage" else {"on_error": allowed}
    job(data, tmp_path / "out", **options).run(workers=workers, limit=40)
    with pytest.raises(sp.BudgetExceeded, match=r"left out 11 of the first 74 items") as caught:
        job(data, tmp_path / "out", **options).run(workers=workers)
    assert "record 45 of" in str(caught.value)
    with sp.open_dataset(tmp_path / "out") as found:
        assert max(found) == 58**2  # 59 is a bad one


def test_a_share(data: Path, tmp_path: Path) -> None:
    enough = sp.skip(0.2, after=30)
    assert job(data, tmp_path / "one", on_error=enough).run(workers=0).finished
    with pytest.raises(sp.BudgetExceeded, match="left out 29 of the first 200"):
        job(data, tmp_path / "two", on_error=sp.skip(0.1)).run(workers=0)


def test_only_some_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        job(data, tmp_path / "one", on_error=sp.skip(errors=ValueError)).run(workers=0)
    assert job(data, tmp_path / "two", on_error=sp.skip(errors=KeyError)).run(workers=0).finished


@pytest.mark.parametrize("by", ["stage", "job"])
def test_trying_again(data: Path, tmp_path: Path, by: str) -> None:
    failures = {3: 1, 50: 2, 70: 99}

    def flaky(record: dict[str, Any]) -> dict[str, Any]:
        if failures.get(record["n"], 0) > 0:
            failures[record["n"]] -= 1
            raise OSError("busy")
        return record

    policy = sp.retry(3, delay_s=0, then="skip")
    stage, whole = (policy, None) if by == "stage" else (None, policy)
    pipe = sp.Pipeline(sp.open_dataset(data)).map(flaky, on_error=stage).map(making.square)
    made = sp.Job(pipe, tmp_path / "out", task=30, version="1", schema="int64", on_error=whole)
    summary = made.run(workers=0)
    assert list(sp.open_dataset(tmp_path / "out")) == [n * n for n in range(COUNT) if n != 70]
    assert summary.counts.skipped == 1


@pytest.mark.parametrize("by", ["stage", "job"])
def test_quarantined_ones_are_there_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr("splitpipe.jobs.running._MOST_UNIT", 11)
    kept = sp.quarantine(tmp_path / "bad.jsonl")
    options: Any = {"stage": kept} if by == "stage" else {"on_error": kept}
    for made in (20, 64, 150):
        with pytest.raises(KeyboardInterrupt):
            job(data, tmp_path / "out", **options).run(workers=0, progress=stop_at(made))
    job(data, tmp_path / "out", **options).run(workers=0)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    found = sp.read_quarantine(tmp_path / "bad.jsonl")
    assert len(lines) == len(found)
    assert [one.position for one in found] == [one.record for one in found] == BAD
    assert {(one.stage, one.error, one.action) for one in found} == {
        ("fails_at_seventh", "KeyError", "quarantined")
    }
    job(data, tmp_path / "wanted", **options).run(workers=0)
    assert_same_files(tmp_path / "out", tmp_path / "wanted")
    assert (tmp_path / "bad.jsonl").read_text().splitlines() == lines  # of the same job


def test_a_column_has_no_value_where_its_stage_failed(data: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).map(making.fails_at_seventh, on_error="skip")
    summary = sp.Job(pipe.map(making.square), data, column="square", task=30).run(workers=0)
    found = [record["square"] for record in sp.open_dataset(data)]
    assert found == [None if n in BAD else n * n for n in range(COUNT)]
    assert summary.counts.skipped == len(BAD)
