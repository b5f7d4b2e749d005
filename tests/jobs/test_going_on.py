"""A job goes on only while it is the same job, and alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.jobs.identity import Note
from splitpipe.storage.snapshot import read_manifest
from tests.jobs import making
from tests.jobs.making import COUNT, files, source


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return source(tmp_path / "source")


@pytest.fixture
def begun(data: Path, tmp_path: Path) -> Path:
    """The output of a job that did 60 records of 200."""
    making.plain(data, tmp_path / "out").run(workers=0, limit=60)
    return tmp_path / "out"


def other_length(record: dict[str, Any]) -> dict[str, Any]:
    return {"n": record["n"], "length": 0, "text": ""}


def refuses(job: sp.Job, message: str, **options: Any) -> None:
    before = files(Path(job.output))
    with pytest.raises(sp.ResumeError, match=message) as caught:
        job.run(workers=0, **options)
    assert "say restart to begin anew" in str(caught.value)
    assert files(Path(job.output)) == before


class TestAnotherJob:
    def test_another_stage(self, data: Path, begun: Path) -> None:
        pipe = sp.Pipeline(sp.open_dataset(data)).filter(making.not_third)
        for stages, message in (
            (pipe.map(other_length), r"'other_length' is new; stage 'counted' is gone"),
            (pipe.map(other_length, name="counted"), r"stage 'counted' changed \(its code"),
            (pipe.map(making.counted).map(making.fails_at_seventh), "is new"),
            (pipe, "stage 'counted' is gone"),
        ):
            refuses(sp.Job(stages, begun, task=30, bins=2), message)

    def test_other_data(self, data: Path, begun: Path) -> None:
        with sp.DatasetWriter(data, append=True) as writer:
            writer.write({"n": COUNT, "text": ""})
        refuses(making.plain(data, begun), "the source changed: generation 2, it was generation 1")
        refuses(making.plain(data, begun), "records of the source: 201, was 200")

    def test_another_source_and_order(self, data: Path, begun: Path, tmp_path: Path) -> None:
        refuses(making.plain(source(tmp_path / "b"), begun), "the source is another one")
        records = sp.open_dataset(data)
        pipe = sp.Pipeline(records, shuffle="global").filter(making.not_third).map(making.counted)
        refuses(sp.Job(pipe, begun, task=30, bins=2), "shuffle of the source: 'global', was None")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"task": 31}, "task is 31, was 30"),
            ({"bins": 3}, "bins is 3, was 2"),
            ({"compression": "zstd"}, "compression is 'zstd 3', was None"),
            ({"schema": {"n": "int8", "length": "int8", "text": "str"}}, "schema is"),
            ({"version": "2"}, "stage 'counted' changed"),
        ],
    )
    def test_other_options(
        self, data: Path, begun: Path, options: dict[str, Any], message: str
    ) -> None:
        refuses(making.plain(data, begun, **options), message)

    def test_the_same_after_the_data_moved(self, data: Path, begun: Path, tmp_path: Path) -> None:
        data.rename(tmp_path / "elsewhere")
        summary = making.plain(tmp_path / "elsewhere", begun).run(workers=0)
        assert (summary.resumed_at, summary.finished) == (60, True)

    def test_a_task_need_not_be_said_again(self, data: Path, begun: Path) -> None:
        assert making.plain(data, begun, task=None).run(workers=0).resumed_at == 60

    def test_what_became_of_failures_is_no_difference(self, data: Path, begun: Path) -> None:
        assert making.plain(data, begun, on_error="skip").run(workers=0).resumed_at == 60

    def test_a_version_stands_for_the_code(self, data: Path, tmp_path: Path) -> None:
        def job(stage: Callable[..., Any], version: str) -> sp.Job:
            pipe = sp.Pipeline(sp.open_dataset(data)).map(stage, name="stage")
            return sp.Job(pipe, tmp_path / "out", task=30, version=version)

        job(making.counted, "1").run(workers=0, limit=60)
        refuses(job(other_length, "2"), "'stage' changed")
        assert job(other_length, "1").run(workers=0).resumed_at == 60

    def test_what_cannot_be_identified_needs_one(self, data: Path, tmp_path: Path) -> None:
        file = (tmp_path / "a").open("w")
        with file:
            pipe = sp.Pipeline(range(3)).map(lambda n: file.name + str(n))
            with pytest.raises(sp.GraphError, match="give the job a version="):
                sp.Job(pipe, tmp_path / "out").run(workers=0)
            sp.Job(pipe, tmp_path / "out", version="1").run(workers=0)


class TestWhatIsThere:
    def test_restart_begins_anew(self, data: Path, begun: Path, tmp_path: Path) -> None:
        with sp.open_dataset(begun) as reader:
            there = list(reader)
            summary = making.plain(data, begun, task=50).run(workers=0, restart=True)
            assert list(reader) == there  # an open reader keeps what it opened
        assert (summary.resumed_at, summary.done, summary.finished) == (0, COUNT, True)
        making.plain(data, tmp_path / "wanted", task=50).run(workers=0)
        assert list(sp.open_dataset(begun)) == list(sp.open_dataset(tmp_path / "wanted"))

    def test_restarted_in_vain_keeps_what_was_there(self, data: Path, begun: Path) -> None:
        there = list(sp.open_dataset(begun))
        pipe = sp.Pipeline(sp.open_dataset(data)).map(making.fails_at_seventh)
        with pytest.raises(KeyError):
            sp.Job(pipe, begun).run(workers=0, restart=True)
        assert list(sp.open_dataset(begun)) == there
        assert making.plain(data, begun).run(workers=0).resumed_at == 60

    def test_a_dataset_of_somebody_else(self, data: Path, tmp_path: Path) -> None:
        sp.write_split_data(tmp_path / "out", [b"precious"], splits=1)
        with pytest.raises(sp.StorageError, match="1 records is here that no job left"):
            making.plain(data, tmp_path / "out").run(workers=0)
        assert sp.open_dataset(tmp_path / "out")[0] == b"precious"
        making.plain(data, tmp_path / "out").run(workers=0, restart=True)
        assert sp.open_dataset(tmp_path / "out")[0]["n"] == 1

    def test_an_output_that_was_added_to(self, data: Path, begun: Path) -> None:
        with sp.DatasetWriter(begun, append=True) as writer:
            writer.write({"n": 0, "length": 0, "text": ""})
        with pytest.raises(sp.StorageError, match="no job left like this"):
            making.plain(data, begun).run(workers=0)

    def test_a_note_of_a_newer_version(self, data: Path, begun: Path) -> None:
        note = dict(read_manifest(str(begun)).note or {})
        assert Note.from_json(note) is not None
        for changes, message in (({"job": 2}, "newer splitpipe"), ({"total": 3}, "cannot be read")):
            with pytest.raises(sp.FormatError, match=message):
                Note.from_json({**note, **changes})
        assert Note.from_json({"mine": 1}) is None

    def test_something_that_is_no_dataset(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "letter.txt").write_text("dear")
        with pytest.raises(sp.StorageError, match="is not empty"):
            making.plain(data, tmp_path / "out").run(workers=0)


class TestAlone:
    def test_two_at_once(self, data: Path, begun: Path) -> None:
        tried = []

        def second(progress: Any) -> None:
            if progress.done < COUNT:  # else there is nothing left to do, and nothing to lock
                tried.append(progress.done)
                with pytest.raises(sp.LockedError):
                    making.plain(data, begun).run(workers=0)

        making.plain(data, begun).run(workers=0, progress=second)
        assert tried

    def test_a_writer_is_at_work(self, data: Path, begun: Path) -> None:
        with sp.DatasetWriter(begun, append=True), pytest.raises(sp.LockedError):
            making.plain(data, begun).run(workers=0)

    def test_another_run_went_on_just_now(
        self, data: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look at what is there and the lock."""
        from splitpipe.jobs import running

        opened = running._opened

        def late(looked: Any) -> Any:
            monkeypatch.setattr("splitpipe.jobs.running._opened", opened)
            making.plain(data, begun).run(workers=0, limit=90)
            return opened(looked)

        monkeypatch.setattr("splitpipe.jobs.running._opened", late)
        with pytest.raises(sp.ResumeError, match="changed by another run just now"):
            making.plain(data, begun).run(workers=0)
        assert making.plain(data, begun).run(workers=0).resumed_at == 90
