"""The flight recorder: every delivered item has its entry, whatever becomes of the program."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.recording import Recording
from splitpipe.recording.description import changes, describe, found_as
from splitpipe.recording.lineage import origins
from splitpipe.recording.lines import decode, encode
from splitpipe.recording.recorder import Recorder
from splitpipe.recording.segments import segment_paths
from splitpipe.runtime.digest import digest
from splitpipe.runtime.watching import Seen
from tests.runtime.running import running

FORK = {"start_method": "fork"}


def record_of(x: int) -> np.ndarray[Any, Any]:
    return np.full(40, x)


def noisy(x: Any, rng: np.random.Generator) -> Any:
    return x, float(rng.random())


def odd(x: Any) -> bool:
    return bool(x % 2)


def read(loader: sp.Loader) -> list[Any]:
    with loader:
        return [(loader.epoch, np.copy(item)) for item in loader]


def batches(workers: int | None = None) -> sp.Pipeline:
    return (
        sp.Pipeline(range(103), shuffle="global", seed=3).map(record_of, workers=workers).batch(10)
    )


named = batches()


class TestEntries:
    @pytest.mark.parametrize("workers", [None, 0, 1, 2])
    def test_every_batch_has_one(self, tmp_path: Path, workers: int | None) -> None:
        record = sp.Record(tmp_path, digests=True)
        got = read(batches(workers).loader(epochs=2, record=record, **FORK))
        entries = list(Recording(tmp_path).entries())
        assert len(got) == 22
        assert [(e.step, e.epoch, e.ordinal) for e in entries] == [
            (step, step // 11, step % 11) for step in range(22)
        ]
        for entry, (epoch, batch) in zip(entries, got, strict=True):
            assert entry.epoch == epoch
            assert entry.digest == digest(batch).hex()
            (origin,) = origins(batches(workers), epoch, entry.ordinal)
            assert list(origin.records) == batch[:, 0].tolist()
            if workers == 2:
                assert entry.positions is not None
                first, behind = entry.positions  # of its message, which may have brought more
                assert first <= origin.start < origin.stop <= behind
                assert entry.worker is not None
                assert entry.busy_ms is not None

    @pytest.mark.parametrize(
        "options", [{"executor": "inline"}, {"executor": "process", **FORK}, {"executor": "thread"}]
    )
    @pytest.mark.parametrize("digests", [False, True])
    def test_small_items_share_entries(
        self, tmp_path: Path, options: dict[str, Any], digests: bool
    ) -> None:
        pipe = sp.Pipeline(range(5000)).map(str, workers=1)
        record = sp.Record(tmp_path, digests=digests)
        assert len(read(pipe.loader(epochs=2, record=record, **options))) == 10_000
        found = Recording(tmp_path)
        assert found.steps == (0, 9999)
        for step in (0, 1, 4999, 5000, 7777, 9999):
            entry = found.entry(step)
            assert (entry.step, entry.epoch, entry.ordinal) == (step, step // 5000, step % 5000)
        lines = sum(len(path.read_bytes().splitlines()) for path in segment_paths(tmp_path))
        assert lines < 4000 or digests

    def test_by_epoch_and_leaving_an_epoch(self, tmp_path: Path) -> None:
        with batches(2).loader(epochs=3, record=tmp_path, **FORK) as loader:
            for stream in loader.by_epoch():
                for number, _ in enumerate(stream):
                    if number == loader.epoch + 1:
                        break
        places = [(e.step, e.epoch, e.ordinal) for e in Recording(tmp_path).entries()]
        expected = [(epoch, ordinal) for epoch in range(3) for ordinal in range(epoch + 2)]
        assert places == [(step, *place) for step, place in enumerate(expected)]

    def test_several_outputs_have_a_folder_each(self, tmp_path: Path) -> None:
        shared = sp.Pipeline(range(30)).map(record_of)
        outputs = {"a": shared.batch(5), "b": shared.batch(10)}
        loaders = sp.run(outputs, record=tmp_path, executor="inline")
        for number in range(6):
            next(loaders["a"])
            if number % 2:
                next(loaders["b"])
        for loader in loaders.values():
            loader.close()
        assert Recording(tmp_path / "a").steps == (0, 5)
        assert Recording(tmp_path / "b").steps == (0, 2)

    def test_an_error_is_noted_with_its_place(self, tmp_path: Path) -> None:
        def failing(x: int) -> int:
            if x == 7:
                raise ValueError("seven")
            return x

        pipe = sp.Pipeline(range(20)).map(failing, workers=2)
        with pytest.raises(ValueError, match="seven"):
            read(pipe.loader(record=tmp_path, **FORK))
        (run,) = Recording(tmp_path).runs()
        assert run["end"]["failed"] == "ValueError"
        assert run["end"]["step"] == 7
        assert any("failing" in note for note in run["end"]["notes"])
        assert Recording(tmp_path).steps == (0, 6)

    def test_the_heading_tells_the_run(self, tmp_path: Path) -> None:
        read(named.loader(record=tmp_path, executor="inline"))
        (run,) = Recording(tmp_path).runs()
        assert run["load"] == f"{__name__}:named"
        assert run["program"]["pid"] == os.getpid()
        assert run["options"]["executor"] == "inline"
        assert [node["name"] for node in run["pipeline"]] == ["source", "record_of", "batch(10)"]
        assert run["end"]["closed"] is True

    def test_where_the_time_of_tasks_went_is_noted(self, tmp_path: Path) -> None:
        record = sp.Record(tmp_path, every_s=1e-6)
        read(batches(2).loader(record=record, **FORK))
        documents = [decode(line) for line in lines_of(tmp_path)]
        states = [document for document in documents if document and "state" in document]
        assert len(states) > 5
        assert [task["name"] for task in states[-1]["tasks"]][-1] == "consumer"


def lines_of(folder: Path) -> list[bytes]:
    return [line for path in segment_paths(folder) for line in path.read_bytes().splitlines(True)]


class TestFiles:
    def test_lines_are_json_with_a_checksum(self, tmp_path: Path) -> None:
        read(batches().loader(record=tmp_path, executor="inline"))
        for line in lines_of(tmp_path):
            assert len(json.loads(line)["crc"]) == 8
            assert decode(line) is not None

    @hypothesis.given(st.data())
    def test_a_changed_line_is_never_believed(self, data: st.DataObject) -> None:
        line = encode({"step": 12, "n": 1, "epoch": 0, "at": 12})
        place = data.draw(st.integers(0, len(line) - 1))
        bit = data.draw(st.integers(0, 7))
        changed = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
        assert decode(changed) is None
        assert decode(line[:place]) is None

    def test_damage_costs_its_line_alone(self, tmp_path: Path) -> None:
        read(batches().loader(record=sp.Record(tmp_path, digests=True), executor="inline"))
        (path,) = segment_paths(tmp_path)
        content = path.read_bytes().replace(b'"step":4,', b'"step":3,')
        path.write_bytes(content[:-9])
        found = Recording(tmp_path)
        assert found.damaged == 2
        assert found.entry(5).step == 5
        with pytest.raises(sp.StorageError, match="step 4 is not among"):
            found.entry(4)

    def test_old_files_make_room_for_new_ones(self, tmp_path: Path) -> None:
        (tmp_path / "00000000.jsonl").write_text("not ours\n")
        (tmp_path / "notes.txt").write_text("mine\n")
        record = sp.Record(tmp_path, max_bytes=64 << 10, digests=True)
        pipe = sp.Pipeline(range(3000))
        assert len(read(pipe.loader(record=record, executor="inline"))) == 3000
        ours = [path for path in segment_paths(tmp_path) if path.stem != "00000000"]
        assert sum(path.stat().st_size for path in ours) < 80 << 10
        assert (tmp_path / "notes.txt").read_text() == "mine\n"
        assert (tmp_path / "00000000.jsonl").read_text() == "not ours\n"
        found = Recording(tmp_path)
        first, last = found.steps
        assert 0 < first < last == 2999
        assert found.entry(first).heading["digests"] is True
        with pytest.raises(sp.StorageError, match=f"still has: {first} to 2999"):
            found.entry(first - 1)

    def test_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "00000001.jsonl").write_bytes(encode({"splitpipe_recording": 99}))
        with pytest.raises(sp.UnsupportedVersion, match="99"):
            Recording(tmp_path).entry(0)

    def test_nothing_recorded(self, tmp_path: Path) -> None:
        with pytest.raises(sp.StorageError, match="nothing was recorded"):
            Recording(tmp_path)
        with pytest.raises(sp.StorageError):
            Recording(tmp_path / "missing")

    def test_a_folder_that_cannot_be_written_is_an_error_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(sp.StorageError, match="cannot record"):
            batches(1).loader(record=tmp_path / "file")

    def test_a_full_disk_ends_the_recording_alone(self, tmp_path: Path) -> None:
        with batches(1).loader(record=tmp_path, **FORK) as loader:
            next(loader)
            recorder = loader._recorder
            assert recorder is not None
            assert recorder._segments is not None
            os.close(recorder._segments._descriptor)  # as if it could take no more
            recorder._segments._descriptor = os.open("/dev/full", os.O_WRONLY)
            with pytest.warns(RuntimeWarning, match="ended at step"):
                assert sum(1 for _ in loader) == 10

    @pytest.mark.parametrize("options", [{"max_bytes": 10}, {"every_s": 0.0}, {"load": "no colon"}])
    def test_options_that_mean_nothing(self, tmp_path: Path, options: dict[str, Any]) -> None:
        with pytest.raises(sp.GraphError):
            sp.Record(tmp_path, **options)


class TestKilled:
    def test_what_was_given_is_known_after_a_kill(self, tmp_path: Path) -> None:
        body = f"""
            import splitpipe as sp

            def main():
                pipe = sp.Pipeline(range(10**6)).map(float, workers=2).batch(4)
                with pipe.loader(record={str(tmp_path / "flight")!r}) as loader:
                    for number, batch in enumerate(loader):
                        if number == 41:
                            print("there", flush=True)
                            import threading
                            threading.Event().wait()

            if __name__ == "__main__":
                main()
        """
        with running(tmp_path, body) as program:
            assert program.first_line() == "there"
            program.kill(signal.SIGKILL)
            program.process.wait()
        found = Recording(tmp_path / "flight")
        first, last = found.steps
        assert first == 0
        assert last >= 41  # what came in the same message was there as well
        assert origins(sp.Pipeline(range(10**6)).batch(4), 0, 41)[0].records == (164, 165, 166, 167)
        assert found.entry(41).worker is not None
        assert found.runs()[0].get("end") is None


class Fake:
    """What a recorder asks of a loader, by hand."""

    def __init__(self) -> None:
        self.said: Seen | None = None
        self.begins = 0

    def first(self, epoch: int) -> int:
        return self.begins

    def seen(self) -> Seen | None:
        return self.said

    def state(self) -> dict[str, Any] | None:
        return {"here": 1, "graph": ["large"]}

    def tasks(self) -> list[dict[str, Any]]:
        return []


class TestResumed:
    def recorder(self, folder: Path, begins: tuple[int, int]) -> Recorder:
        options = RunOptions.of(executor="inline")
        made = plan({"": named.node}, options)
        return Recorder(sp.Record(folder), named, options={}, plan=made, begins=begins)

    def drive(self, recorder: Recorder, epoch: int, first: int, count: int) -> None:
        fake = Fake()
        fake.begins = first

        def chunks() -> Iterator[Iterator[Any]]:
            for number in range(count):
                fake.said = Seen(number, number, number + 1, 1, 1000, 8)
                yield iter([number])

        for chunk in recorder.epoch(epoch, chunks(), fake):
            assert len(list(chunk)) == 1

    def test_steps_go_on_and_the_later_entry_counts(self, tmp_path: Path) -> None:
        one = self.recorder(tmp_path, (0, 0))
        self.drive(one, 0, 0, 11)
        self.drive(one, 1, 0, 5)
        one.close()
        assert one.step == 16
        two = self.recorder(tmp_path, (1, 3))  # a checkpoint before the end
        assert two.step == 14
        self.drive(two, 1, 3, 8)
        two.close()
        found = Recording(tmp_path)
        assert found.steps == (0, 21)
        places = [(entry.epoch, entry.ordinal) for entry in found.entries()]
        assert places == [(0, n) for n in range(11)] + [(1, n) for n in range(11)]
        runs = {entry.heading["run"] for entry in found.entries()}
        assert len(runs) == 2
        assert found.entry(15).worker == 1  # of the later run

    @pytest.mark.parametrize("workers", [None, 2])
    def test_a_run_that_goes_on_from_a_checkpoint(
        self, tmp_path: Path, workers: int | None
    ) -> None:
        pipe, marks = batches(workers), dict[int, bytes]()
        record = sp.Record(tmp_path, digests=True)
        with pipe.loader(epochs=2, record=record, **FORK) as loader:
            for step, batch in enumerate(loader):
                marks[step] = digest(batch)
                if step == 12:
                    state = loader.state_dict()
                if step == 16:
                    break
        with pipe.loader(epochs=2, record=record, state=state, executor="inline") as loader:
            for step, batch in enumerate(loader, 13):
                assert marks.setdefault(step, digest(batch)) == digest(batch)
        found = list(Recording(tmp_path).entries())
        assert [entry.step for entry in found] == list(range(22))
        assert [entry.digest for entry in found] == [marks[n].hex() for n in range(22)]
        assert [entry.ordinal for entry in found] == [*range(11), *range(11)]
        begins = [run["begins"]["step"] for run in Recording(tmp_path).runs()]
        assert begins == [0, 13]

    def test_seeking_and_leaving_items_out(self, tmp_path: Path) -> None:
        with batches(2).loader(record=tmp_path, **FORK) as loader:
            first = [next(loader)[0, 0] for _ in range(5)]
            loader.seek(2)
            assert next(loader)[0, 0] == first[2]
            loader.skip_steps(4, 8)
            assert sum(1 for _ in loader) == 4
        places = [(entry.step, entry.ordinal) for entry in Recording(tmp_path).entries()]
        assert places == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 8), (5, 9), (6, 10)]

    def test_a_place_that_nobody_knows_is_counted_from_the_beginning(self, tmp_path: Path) -> None:
        recorder = self.recorder(tmp_path, (2, 5))
        assert recorder.step == 2 * len(named) + 5
        recorder.close()

    def test_a_loader_that_moves(self, tmp_path: Path) -> None:
        recorder = self.recorder(tmp_path, (0, 0))
        self.drive(recorder, 0, 0, 8)
        self.drive(recorder, 0, 3, 2)
        recorder.close()
        found = Recording(tmp_path)
        assert found.entry(4).worker == 1
        assert found.entry(2).worker == 2
        assert found.entry(7).worker == 7

    def test_the_nearest_state_before_a_step(self, tmp_path: Path) -> None:
        recorder = self.recorder(tmp_path, (0, 0))
        for first in range(0, 15, 5):
            recorder._noted = -1e9  # as if it were long ago
            self.drive(recorder, 0, first, 5)
        recorder.close()
        state = {"here": 1, "graph": ["large"]}
        for step, ordinal in ((0, 0), (5, 0), (6, 5), (14, 10)):
            assert Recording(tmp_path).entry(step).state == (ordinal, state)
        assert sum(b"large" in line for line in lines_of(tmp_path)) == 1


class TestOrigins:
    CHAINS: ClassVar[dict[str, Any]] = {
        "map": lambda p: p.map(str),
        "batch": lambda p: p.batch(7),
        "batches of batches": lambda p: p.batch(3).batch(2, collate=list),
        "window": lambda p: p.window(4, 3, collate=list),
        "skip": lambda p: p.skip(5).batch(4),
        "take": lambda p: p.take(20).batch(3),
        "repeat": lambda p: p.repeat(2).batch(9),
        "zip": lambda p: sp.zip(p.map(str), p).batch(4, collate=list),
        "cache": lambda p: p.cache().batch(5),
    }

    @pytest.mark.parametrize("name", CHAINS)
    def test_are_the_records_that_went_in(self, name: str) -> None:
        pipe = self.CHAINS[name](sp.Pipeline(range(60), shuffle="global", seed=2))
        for epoch, stream in enumerate(pipe.loader(executor="inline", epochs=2).by_epoch()):
            for ordinal, item in enumerate(stream):
                for origin in origins(pipe, epoch, ordinal):
                    assert set(origin.records) == set(numbers_in(item)), (epoch, ordinal)

    def test_what_only_running_tells_is_left_out(self) -> None:
        pipe = sp.Pipeline(range(60))
        for unknown in (pipe.filter(odd), pipe.shuffle(5), pipe.flat_map(range)):
            assert origins(unknown.batch(2), 0, 1) == ()

    def test_of_a_factory_the_ordinals_are_known(self) -> None:
        (origin,) = origins(sp.Pipeline(lambda: iter("abcdef")).batch(2), 0, 1)
        assert (origin.start, origin.stop, origin.records) == (2, 4, ())


def numbers_in(item: Any) -> list[int]:
    if isinstance(item, (list, tuple, np.ndarray)):
        return [number for part in item for number in numbers_in(part)]
    return [int(item)]


class TestDescription:
    def test_a_changed_stage_is_named(self) -> None:
        one = describe(sp.Pipeline(range(9)).map(lambda x: x + 1, name="shift").batch(2))
        same = describe(sp.Pipeline(range(9)).map(lambda x: x + 1, name="shift").batch(2))
        other = describe(sp.Pipeline(range(8)).map(lambda x: x + 2, name="shift").batch(2))
        assert changes(one, same) == []
        told = changes(one, other)
        assert told == [
            "'source' has changed: length",
            "'shift' has changed: its code or options",
        ]
        assert "2 nodes where 3" in changes(one, one[:2])[-1]

    def test_is_json_and_small_whatever_the_source_holds(self) -> None:
        pipe = sp.Pipeline([bytes(10_000)] * 1000).map(noisy)
        assert len(json.dumps(describe(pipe))) < 600

    def test_a_pipeline_of_a_function_has_no_name(self) -> None:
        assert found_as(batches()) is None
        assert found_as(named) == f"{__name__}:named"


def test_a_message_of_many_items_is_one_line(tmp_path: Path) -> None:
    pipe = sp.Pipeline(range(20_000)).map(float, workers=1)
    assert len(read(pipe.loader(record=tmp_path, **FORK))) == 20_000
    entries = sum(b'"n":' in line for line in lines_of(tmp_path))
    assert 20 <= entries < 20_000 / 5
