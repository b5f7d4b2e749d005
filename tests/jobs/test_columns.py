"""A new column of a dataset: one value a record, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.jobs import Counts
from splitpipe.jobs.column import gathered_at
from tests.jobs import making
from tests.jobs.making import COUNT, source
from tests.jobs.test_jobs import stop_at


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return source(tmp_path / "data")


def column(data: Path, *stages: Any, **options: Any) -> sp.Job:
    pipe = sp.Pipeline(sp.open_dataset(data))
    for stage in stages:
        pipe = pipe.filter(stage) if stage is making.not_third else pipe.map(stage)
    return sp.Job(pipe, data, **{"column": "square", "task": 30, **options})


def test_is_there_all_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpipe.jobs.running._MOST_UNIT", 7)
    before = sp.open_dataset(data)
    with pytest.raises(KeyboardInterrupt):
        column(data, making.square).run(workers=0, progress=stop_at(100))
    assert list(sp.open_dataset(data).schema) == ["n", "text"]
    assert Path(gathered_at(str(data), "square")).exists()
    summary = column(data, making.square).run(workers=0)
    assert (summary.resumed_at, summary.finished, summary.column) == (90, True, "square")
    assert summary.total == Counts(COUNT, COUNT, 0, 0, COUNT)
    after = sp.open_dataset(data)
    assert [record["square"] for record in after] == [n * n for n in range(COUNT)]
    assert [record["text"] for record in after] == [record["text"] for record in before]
    assert list(before.schema) == ["n", "text"]
    assert not Path(gathered_at(str(data), "square")).exists()
    assert sp.check_dataset(data).ok


def test_done_already_though_the_dataset_is_another_generation_now(data: Path) -> None:
    column(data, making.square).run(workers=0)
    summary = column(data, making.square).run(workers=0)
    assert (summary.finished, summary.tasks) == (True, 0)
    other = sp.Pipeline(sp.open_dataset(data)).map(making.square, name="num")
    with pytest.raises(sp.ResumeError, match="'num' is new"):
        sp.Job(other, data, column="square", task=30).run(workers=0)


def test_also_of_some_columns_only(data: Path) -> None:
    for _ in range(2):
        pipe = sp.Pipeline(sp.open_dataset(data).select(["n"])).map(making.square)
        assert sp.Job(pipe, data, column="square", schema="float32").run(workers=0).finished
    assert sp.open_dataset(data).get_batch([3], columns=["square"])["square"].dtype == np.float32


def test_two_columns_one_after_the_other(data: Path) -> None:
    column(data, making.square).run(workers=0)
    column(data, making.square, column="again").run(workers=0)
    assert sp.open_dataset(data)[7]["again"] == 49
    with pytest.raises(sp.FormatError, match="has a column 'square' already"):
        column(data, making.square).run(workers=0)


def test_values_are_replaced_where_that_is_asked_for(data: Path) -> None:
    column(data, making.square).run(workers=0)
    column(data, making.square, column="n").run(workers=0, restart=True)
    column(data, making.square).run(workers=0, restart=True)
    record = sp.open_dataset(data)[3]
    assert (record["n"], record["square"], list(record)) == (9, 81, ["n", "text", "square"])
    assert sp.check_dataset(data).ok


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_filtered_is_missing_where_that_is_said(data: Path, workers: int) -> None:
    with pytest.raises(sp.FormatError, match=r"gave 0 values for record 0 of .*missing=True"):
        column(data, making.not_third, making.square).run(workers=workers)
    summary = column(data, making.not_third, making.square, missing=True).run(workers=workers)
    found = [record["square"] for record in sp.open_dataset(data)]
    assert found == [n * n if n % 3 else None for n in range(COUNT)]
    assert summary.counts.filtered == 67
    assert sp.check_dataset(data).ok


def test_what_failed_is_missing(data: Path) -> None:
    job = column(data, making.fails_at_seventh, making.square, on_error="skip")
    assert job.run(workers=0).counts.skipped == 29
    found = [record["square"] for record in sp.open_dataset(data)]
    assert found == [None if n % 7 == 3 else n * n for n in range(COUNT)]


def test_several_values_for_one_are_refused(data: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).flat_map(making.halves).map(making.square)
    with pytest.raises(sp.FormatError, match=r"gave 2 values for record 2 of"):
        sp.Job(pipe, data, column="square", missing=True).run(workers=0)


def test_batches_keep_the_order(data: Path) -> None:
    pipe = sp.Pipeline(sp.open_dataset(data)).map(lambda r: r["n"]).batch(16)
    pipe = pipe.map(lambda batch: batch * 2).unbatch().map(int)
    sp.Job(pipe, data, column="double", task=40).run(workers=0)
    assert [record["double"] for record in sp.open_dataset(data)] == [2 * n for n in range(COUNT)]
    uneven = sp.Pipeline(sp.open_dataset(data)).batch(16).map(lambda batch: batch["n"][1:])
    with pytest.raises(sp.FormatError, match="gave 15 values for 16 records treated together"):
        sp.Job(uneven.unbatch().map(int), data, column="less").run(workers=0)


def test_deleted_records_and_keys(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with sp.DatasetWriter(data, {"n": "int64", "text": "str"}, bins=2) as writer:
        for n in range(50):
            writer.write({"n": n, "text": "x"}, key=f"k{n}", meta={"weight": n})
    with sp.DatasetWriter(data, append=True) as writer:
        writer.delete([0, 7, 8, 49])
    column(data, making.not_third, making.square, missing=True).run(workers=0)
    found = sp.open_dataset(data)
    assert len(found) == 46
    assert all(r["square"] == (r["n"] ** 2 if r["n"] % 3 else None) for r in found)
    assert found["k5"]["square"] == 25
    assert len(found.where("square IS NOT NULL")) == len([r for r in found if r["n"] % 3])
    assert sp.check_dataset(data).ok


def test_compressed(data: Path) -> None:
    pytest.importorskip("zstandard")
    ready = sp.Zstd(dictionary=b"the text of a dictionary, text 1, text 2, text 3" * 9)
    for name, how in (("a", "zstd"), ("b", ready)):
        pipe = sp.Pipeline(sp.open_dataset(data)).map(lambda r: r["text"] + "!")
        sp.Job(pipe, data, column=name, compression=how, task=30).run(workers=0, limit=60)
        sp.Job(pipe, data, column=name, compression=how, task=30).run(workers=0)
    for record in sp.open_dataset(data):
        assert record["a"] == record["b"] == record["text"] + "!"
    assert sp.check_dataset(data).ok


def test_a_dataset_that_changed_meanwhile(data: Path) -> None:
    column(data, making.square).run(workers=0, limit=60)
    with sp.DatasetWriter(data, append=True) as writer:
        writer.update(0, {"n": 100})
    with pytest.raises(sp.ResumeError, match="that the column is for changed: it is generation 2"):
        column(data, making.square).run(workers=0)
    column(data, making.square).run(workers=0, restart=True)
    assert sp.open_dataset(data)[0]["square"] == 100**2


def test_nobody_else_writes_meanwhile(data: Path) -> None:
    def second(progress: Any) -> None:
        for other in (column(data, making.square), column(data, making.square, column="b")):
            with pytest.raises(sp.LockedError):
                other.run(workers=0)
        with pytest.raises(sp.LockedError):
            sp.DatasetWriter(data, append=True)

    column(data, making.square).run(workers=0, progress=second)


def test_datasets_that_can_have_none(data: Path, tmp_path: Path) -> None:
    sp.write_split_data(tmp_path / "bare", [b"a"], splits=1)
    with pytest.raises(sp.FormatError, match="plain values as records"):
        sp.Job(sp.Pipeline(range(1)), tmp_path / "bare", column="x").run(workers=0)
    with pytest.raises(sp.FormatError, match="has 200 records, and the pipeline reads 3"):
        sp.Job(sp.Pipeline(range(3)), data, column="x").run(workers=0)
    shuffled = sp.Pipeline(sp.open_dataset(data), shuffle="global").map(making.square)
    with pytest.raises(sp.GraphError, match="without shuffle="):
        sp.Job(shuffled, data, column="x").run(workers=0)
    with pytest.raises(sp.FormatError, match="cannot name a column"):
        column(data, making.square, column="a b").run(workers=0)
    with pytest.raises(sp.FormatError, match="a column has one type"):
        column(data, making.square, schema={"a": "int64"}).run(workers=0)
    with pytest.raises(sp.FormatError, match="leave bins out"):
        column(data, making.square, bins=3)
    with pytest.raises(sp.StorageError):
        sp.Job(sp.Pipeline(range(3)), tmp_path / "nothing", column="x").run(workers=0)
    assert not (tmp_path / "nothing").exists()
