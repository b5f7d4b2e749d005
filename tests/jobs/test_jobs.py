"""Jobs: what is written, that it is the same however it came about, and that counts add up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.jobs import Counts, JobProgress
from splitpipe.jobs.shape import Ranges
from tests.jobs import making
from tests.jobs.making import COUNT, JOBS, assert_same_files, files, place, source


def stop_at(made: int) -> Any:
    """Be interrupted when that many records came."""

    def tell(progress: JobProgress) -> None:
        if progress.made >= made:
            raise KeyboardInterrupt

    return tell


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return source(tmp_path / "source")


class TestDataset:
    def test_is_what_the_pipeline_gives(self, data: Path, tmp_path: Path) -> None:
        job = making.plain(data, tmp_path / "out")
        summary = job.run(workers=0)
        with sp.open_dataset(data) as records, sp.open_dataset(tmp_path / "out") as found:
            wanted = [making.counted(r) for r in records if making.not_third(r)]
            assert list(found) == wanted
        kept = len(wanted)
        assert summary.counts == Counts(COUNT, kept, COUNT - kept, 0, kept)
        assert summary.total == summary.counts
        assert (summary.finished, summary.done, summary.records) == (True, COUNT, COUNT)
        assert summary.tasks == -(-COUNT // 30)
        assert sp.check_dataset(tmp_path / "out").ok

    @pytest.mark.parametrize("kind", sorted(JOBS))
    def test_the_same_files_for_any_number_of_workers(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, wanted = place(kind, tmp_path, "wanted")
        JOBS[kind](data, wanted).run(workers=0)
        monkeypatch.setattr("splitpipe.jobs.running._MOST_UNIT", 7)
        for workers in (0, 1, 3):
            _, out = place(kind, tmp_path, f"out-{workers}")
            summary = JOBS[kind](data, out).run(workers=workers)
            assert summary.finished
            assert_same_files(out, wanted)

    @pytest.mark.parametrize("kind", sorted(JOBS))
    def test_the_same_files_for_any_number_of_interruptions(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, wanted = place(kind, tmp_path, "wanted")
        whole = JOBS[kind](data, wanted).run(workers=0)
        monkeypatch.setattr("splitpipe.jobs.running._MOST_UNIT", 11)
        _, out = place(kind, tmp_path, "out")
        for made in (5, 30, 31, 95, 96, 185):
            with pytest.raises(KeyboardInterrupt) as caught:
                JOBS[kind](data, out).run(workers=0, progress=stop_at(made))
            assert f"of {COUNT} records of the job are done and kept" in caught.value.__notes__[-1]
        summary = JOBS[kind](data, out).run(workers=0)
        assert summary.resumed_at == 180
        assert summary.total == whole.total
        assert_same_files(out, wanted)

    def test_done_already(self, data: Path, tmp_path: Path) -> None:
        making.plain(data, tmp_path / "out").run(workers=0)
        before = files(tmp_path / "out")
        summary = making.plain(data, tmp_path / "out").run(workers=0)
        assert (summary.tasks, summary.counts, summary.finished) == (0, Counts(), True)
        assert summary.total.read == COUNT
        assert files(tmp_path / "out") == before

    def test_limits_follow_one_another(self, data: Path, tmp_path: Path) -> None:
        making.plain(data, tmp_path / "wanted").run(workers=0)
        for limit, done in ((0, 0), (1, 1), (45, 45), (20, 45), (60, 60), (None, COUNT)):
            summary = making.plain(data, tmp_path / "out").run(workers=0, limit=limit)
            assert summary.done == done
            assert summary.finished is (limit is None)
        with sp.open_dataset(tmp_path / "out") as one, sp.open_dataset(tmp_path / "wanted") as two:
            assert list(one) == list(two)

    def test_limits_at_the_ends_of_tasks_leave_no_trace(self, data: Path, tmp_path: Path) -> None:
        making.plain(data, tmp_path / "wanted").run(workers=0)
        for limit in (30, 90, None):
            making.plain(data, tmp_path / "out").run(workers=0, limit=limit)
        assert_same_files(tmp_path / "out", tmp_path / "wanted")

    def test_nothing_is_an_output_too(self, data: Path, tmp_path: Path) -> None:
        for name, pipe in (
            ("empty", sp.Pipeline([])),
            ("filtered", sp.Pipeline(sp.open_dataset(data)).filter(lambda record: False)),
        ):
            summary = sp.Job(pipe, tmp_path / name, version="1").run(workers=0)
            assert summary.finished
            assert summary.counts.read == summary.counts.filtered == summary.records
            assert len(sp.open_dataset(tmp_path / name)) == 0
            assert sp.Job(pipe, tmp_path / name, version="1").run(workers=0).tasks == 0

    def test_compression_and_schema(self, data: Path, tmp_path: Path) -> None:
        pytest.importorskip("zstandard")
        schema = {"n": "int32", "length": "uint8", "text": "str"}
        for name, workers in (("one", 0), ("two", 2)):
            job = making.plain(data, tmp_path / name, schema=schema, compression={"text": "zstd"})
            job.run(workers=workers)
        assert_same_files(tmp_path / "one", tmp_path / "two")
        with sp.open_dataset(tmp_path / "one") as found:
            assert found.schema["n"] == sp.Field("scalar", "int32")
            assert found.schema["text"].compression == "zstd"
            assert found[0] == {"n": 1, "length": 7, "text": "TEXT 1 "}

    def test_a_dictionary_has_to_be_given(self, data: Path, tmp_path: Path) -> None:
        pytest.importorskip("zstandard")
        trained = sp.Zstd(dictionary=True)
        with pytest.raises(sp.FormatError, match="cannot train a dictionary together"):
            making.plain(data, tmp_path / "out", compression=trained).run(workers=0)
        ready = {"text": sp.Zstd(dictionary=b"text of a dictionary that is long enough" * 9)}
        for limit in (30, None):
            making.plain(data, tmp_path / "out", compression=ready).run(workers=0, limit=limit)
        assert sp.open_dataset(tmp_path / "out")[0]["text"] == "TEXT 1 "

    def test_a_dataset_that_was_there_empty(self, data: Path, tmp_path: Path) -> None:
        making.plain(data, tmp_path / "wanted").run(workers=0)
        sp.DatasetWriter(tmp_path / "out", {"n": "int64"}, bins=5).close()
        making.plain(data, tmp_path / "out").run(workers=0)
        with sp.open_dataset(tmp_path / "out") as one, sp.open_dataset(tmp_path / "wanted") as two:
            assert list(one) == list(two)


class TestCounts:
    @pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (29, 31), (7, 100), (0, 90)])
    @pytest.mark.parametrize("unit", [1, 7, 30])
    def test_ranges_cover_every_position_once(self, start: int, stop: int, unit: int) -> None:
        found = list(Ranges(start, stop, task=30, unit=unit))
        assert [n for first, last in found for n in range(first, last)] == list(range(start, stop))
        assert all(first // 30 == (last - 1) // 30 for first, last in found)
        assert all(last - first <= unit for first, last in found)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        count=st.integers(0, 60),
        task=st.integers(1, 25),
        unit=st.integers(1, 12),
        limits=st.lists(st.integers(1, 70), max_size=4),
        makes=st.lists(st.integers(0, 3), min_size=1, max_size=7),
        bad=st.sets(st.integers(0, 60), max_size=6),
    )
    def test_add_up_for_any_job(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        count: int,
        task: int,
        unit: int,
        limits: list[int],
        makes: list[int],
        bad: set[int],
    ) -> None:
        folder = tmp_path_factory.mktemp("job")

        def several(n: int) -> Any:
            for part in range(makes[n % len(makes)]):
                yield n * 10 + part
                if n in bad:
                    raise ValueError("in the middle")
            if n in bad:
                raise ValueError("at the end")

        pipe = sp.Pipeline(range(count)).flat_map(several)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("splitpipe.jobs.running._MOST_UNIT", unit)
            for limit in [*limits, None]:
                job = sp.Job(
                    pipe, folder / "out", task=task, bins=2, schema="int64", on_error="skip"
                )
                summary = job.run(workers=0, limit=limit)
                with sp.open_dataset(folder / "out") as found:
                    done = list(found)
                assert done == [
                    n * 10 + part
                    for n in range(summary.done)
                    if n not in bad
                    for part in range(makes[n % len(makes)])
                ]
                total = summary.total
                assert total.read == summary.done == total.used + total.filtered + total.skipped
                assert total.skipped == len([n for n in bad if n < summary.done])
                assert total.written == len(done)
        assert summary.finished

    def test_that_do_not_add_up_are_an_error(self) -> None:
        Counts(3, 1, 1, 1, 9).check(read=3, written=9)
        for wrong in (Counts(3, 1, 1, 0, 9), Counts(2, 1, 1, 0, 9), Counts(3, 1, 1, 1, 8)):
            with pytest.raises(AssertionError):
                wrong.check(read=3, written=9)


class TestErrors:
    def failing(self, data: Path, out: Path, **options: Any) -> sp.Job:
        pipe = sp.Pipeline(sp.open_dataset(data)).map(making.fails_at_seventh).map(making.square)
        return sp.Job(pipe, out, **{"task": 30, "bins": 2, "schema": "int64", **options})

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_first_ends_it_and_says_where(
        self, data: Path, tmp_path: Path, workers: int
    ) -> None:
        with pytest.raises(KeyError, match="no use for 3") as caught:
            self.failing(data, tmp_path / "out").run(workers=workers)
        notes = "\n".join(caught.value.__notes__)
        assert "in stage 'fails_at_seventh'" in notes
        assert "record 3 of the job" in notes
        assert f"0 of {COUNT} records of the job are done" in notes
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_skipped_ones_are_counted_and_told(
        self, data: Path, tmp_path: Path, workers: int
    ) -> None:
        summary = self.failing(data, tmp_path / "out", on_error="skip").run(workers=workers)
        bad = [n for n in range(COUNT) if n % 7 == 3]
        assert summary.counts.skipped == len(bad)
        assert list(sp.open_dataset(tmp_path / "out")) == [
            n * n for n in range(COUNT) if n not in bad
        ]
        assert len(summary.faults) == 10
        assert "record 3 of" in summary.faults[0]
        assert "in stage 'fails_at_seventh': KeyError" in summary.faults[0]

    def test_what_failed_goes_on_when_it_may_skip(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).map(fails_at_hundred)
        job = sp.Job(pipe, tmp_path / "out", task=30, bins=2)
        with pytest.raises(ValueError, match="a hundred"):
            job.run(workers=0)
        summary = job.run(workers=0, on_error="skip")
        assert (summary.resumed_at, summary.total.skipped, summary.finished) == (90, 1, True)

    def test_a_value_that_does_not_fit(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).map(making.square)
        job = sp.Job(pipe, tmp_path / "out", schema="uint8", task=30)
        with pytest.raises(sp.FormatError, match="256 is out of the range of uint8") as caught:
            job.run(workers=0)
        assert "record 16 of the job" in "\n".join(caught.value.__notes__)
        summary = job.run(workers=0, on_error="skip")
        assert summary.counts.written == 16

    def test_a_record_that_cannot_be_read(self, data: Path, tmp_path: Path) -> None:
        victim = next(p for p in sorted(data.iterdir()) if p.name.endswith("c001-b00001.bin"))
        raw = bytearray(victim.read_bytes())
        raw[-1] ^= 1
        victim.write_bytes(raw)
        job = making.plain(data, tmp_path / "out")
        with pytest.raises(sp.CorruptRecord) as caught:
            job.run(workers=0)
        assert "while reading the source" in "\n".join(caught.value.__notes__)
        summary = job.run(workers=0, on_error="skip")
        assert (summary.total.skipped, summary.total.read) == (1, COUNT)

    def test_memory_is_not_the_fault_of_a_record(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).map(out_of_memory)
        with pytest.raises(MemoryError):
            sp.Job(pipe, tmp_path / "out", on_error="skip", schema="int64").run(workers=0)


def fails_at_hundred(record: dict[str, Any]) -> dict[str, Any]:
    if record["n"] == 100:
        raise ValueError("a hundred")
    return record


def out_of_memory(record: dict[str, Any]) -> int:
    raise MemoryError


async def slow_square(record: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    if record["n"] % 50 == 20:
        raise ValueError(record["n"])
    return {"n": record["n"] ** 2}


def running_sum(items: Any) -> Any:
    total = 0
    for item in items:
        total += item["n"]
        yield total


class TestShapes:
    """Which graphs can be a job, and what they mean."""

    def test_batches_are_those_of_the_whole(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitpipe.jobs.running._MOST_UNIT", 10)
        pipe = sp.Pipeline(sp.open_dataset(data)).map(only_n).batch(8).map(making.doubled).unbatch()
        job = sp.Job(pipe, tmp_path / "out", task=30, bins=2)
        for limit in (17, None):
            summary = job.run(workers=0, limit=limit)
            assert summary.done == (24 if limit else COUNT)
        assert [int(r["n"]) for r in sp.open_dataset(tmp_path / "out")] == [
            2 * n for n in range(COUNT)
        ]

    def test_a_batch_fails_as_a_whole(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).map(only_n).batch(8).map(bad_batch).unbatch()
        job = sp.Job(pipe, tmp_path / "out", task=30, on_error="skip")
        summary = job.run(workers=0)
        assert summary.counts == Counts(COUNT, COUNT - 8, 0, 8, COUNT - 8)
        assert [int(r["n"]) for r in sp.open_dataset(tmp_path / "out")] == [
            n for n in range(COUNT) if not 40 <= n < 48
        ]
        assert "and 7 with it" in summary.faults[0]

    @pytest.mark.parametrize("before", [False, True])
    def test_calls_under_way(self, data: Path, tmp_path: Path, before: bool) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data))
        if before:
            pipe = pipe.filter(making.not_third)
        pipe = pipe.async_map(slow_square, concurrency=4).filter(even)
        job = sp.Job(pipe, tmp_path / "out", task=50, on_error="skip")
        summary = job.run(workers=0)
        bad = [n for n in range(COUNT) if n % 50 == 20 and not (before and n % 3 == 0)]
        wanted = [n * n for n in range(0, COUNT, 2) if n not in bad and not (before and n % 3 == 0)]
        assert [r["n"] for r in sp.open_dataset(tmp_path / "out")] == wanted
        assert summary.counts.skipped == len(bad)
        assert f"record {bad[0]} of" in summary.faults[0]

    def test_whole_streams_are_refused_unless_asked_for(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).through(running_sum)
        with pytest.raises(sp.GraphError, match=r"'running_sum' need whole streams.*by_task=True"):
            sp.Job(pipe, tmp_path / "out").run(workers=0)
        with pytest.raises(sp.GraphError, match="on_error must be 'raise'"):
            sp.Job(pipe, tmp_path / "out", by_task=True, on_error="skip").run(workers=0)
        for workers in (0, 2):
            job = sp.Job(pipe, tmp_path / f"out-{workers}", by_task=True, task=50, bins=2)
            assert job.run(workers=workers, limit=60).done == 100
            job.run(workers=workers)
        found = list(sp.open_dataset(tmp_path / "out-0"))
        assert found == [sum(range(n // 50 * 50, n + 1)) for n in range(COUNT)]
        assert_same_files(tmp_path / "out-0", tmp_path / "out-2")

    def test_several_readers_of_one_source(self, data: Path, tmp_path: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data))
        both = sp.zip(pipe.map(making.square), pipe.map(making.counted))
        job = sp.Job(both, tmp_path / "out", by_task=True, task=50, schema="json")
        job.run(workers=0)
        assert sp.open_dataset(tmp_path / "out")[199][0] == 199**2

    def test_other_sources_are_refused(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(sp.GraphError, match=r"no len\(\) and no \[i\]"):
            sp.Job(sp.Pipeline(lambda: iter([1])), tmp_path / "out").run(workers=0)
        two = sp.concat(sp.Pipeline(range(3)), sp.Pipeline(range(5)))
        with pytest.raises(sp.GraphError, match="this pipeline has 2"):
            sp.Job(two, tmp_path / "out", by_task=True).run(workers=0)
        with pytest.raises(sp.GraphError, match="needs a Pipeline"):
            sp.Job([1, 2], tmp_path / "out")  # type: ignore[arg-type]
        with pytest.raises(sp.GraphError, match="made no Pipeline"):
            sp.Job(lambda: 3, tmp_path / "out").run()  # type: ignore[arg-type, return-value]

    def test_its_own_source_is_no_output(self, data: Path) -> None:
        with pytest.raises(sp.FormatError, match="over its own source"):
            making.plain(data, data).run(workers=0, restart=True)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"on_error": "ignore"}, "'raise', 'skip' or 'quarantine:PATH'"),
            ({"missing": True}, "for jobs that make a column"),
            ({"task": 0}, "task must be a whole number"),
            ({"bins": 0}, "bins must be"),
        ],
    )
    def test_options_that_cannot_be(
        self, data: Path, tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            making.plain(data, tmp_path / "out", **options).run(workers=0)
        with pytest.raises(TypeError, match="no option 'speed'"):
            making.plain(data, tmp_path / "out", speed=9)
        with pytest.raises(TypeError, match="without an option 'speed'"):
            making.plain(data, tmp_path / "out").run(speed=9)  # type: ignore[call-arg]
        with pytest.raises(sp.FormatError, match="limit must be"):
            making.plain(data, tmp_path / "out").run(limit=-1)


def only_n(record: dict[str, Any]) -> dict[str, Any]:
    return {"n": record["n"]}


def bad_batch(batch: dict[str, Any]) -> dict[str, Any]:
    if 44 in batch["n"]:
        raise ValueError("a bad batch")
    return batch


def even(record: dict[str, Any]) -> bool:
    return bool(np.asarray(record["n"]) % 2 == 0)


class TestPreview:
    def test_writes_nothing_and_says_what_is_there(self, data: Path, tmp_path: Path) -> None:
        job = making.plain(data, tmp_path / "out")
        told = job.preview(2)
        assert (told.state, told.tasks, told.task) == ("nothing is there yet", 7, 30)
        assert told.items[0] == repr(making.counted({"n": 1, "text": "text 1 "}))
        assert told.schema == sp.Schema({"n": "int64", "length": "int64", "text": "str"})
        assert told.counts == Counts(3, 2, 1, 0, 2)
        assert job.run(dry_run=True).tasks == 0
        assert not (tmp_path / "out").exists()
        job.run(workers=0, limit=45)
        told = job.preview(limit=100)
        assert (told.start, told.stop, told.tasks) == (45, 100, 3)
        assert told.state == f"goes on at record 45 of {COUNT} records"
        job.run(workers=0)
        assert job.preview().state == f"done already: all of {COUNT} records"
        assert job.preview(restart=True).state == "replaces a dataset of 133 records"
