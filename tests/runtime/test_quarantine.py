"""The file of what failed: many writers, some of them killed; and its items made again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime import board
from splitpipe.runtime.board import Heading, StageHead, TaskHead, row_of
from splitpipe.runtime.book import Book, ErrorLog, waiting
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.notes import Notes
from splitpipe.runtime.quarantine import Quarantine, append, check_writable
from tests.runtime.running import ROOT

FORK = {"start_method": "fork"}


def failed(position: int, **more: Any) -> sp.FailedItem:
    return sp.FailedItem("decode", 0, position, error="ValueError", **more)


class TestTheFile:
    def test_items_come_back(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        items = [failed(n, message=f'\n{n} {{"quarantine":1,', traceback="x\ny") for n in range(5)]
        for item in items:
            append(str(path), item, sync=item.position == 3)
        assert sp.read_quarantine(path) == items
        lines = path.read_text().splitlines()
        assert len(lines) == 5
        assert json.loads(lines[2])["quarantine"] == 1

    def test_an_item_of_a_run_comes_once(self, tmp_path: Path) -> None:
        path = str(tmp_path / "bad.jsonl")
        for item in (failed(1, run="a"), failed(1, run="a", tries=2), failed(1, run="b")):
            append(path, item)
        found = Quarantine.read(path)
        assert [(item.run, item.tries) for item in found.items] == [("a", 1), ("b", 1)]
        assert found.lines == 3

    @pytest.mark.parametrize("kept", range(0, 180, 7))
    def test_a_torn_line_takes_none_with_it(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "bad.jsonl"
        append(str(path), failed(0))
        whole = path.read_bytes()
        path.write_bytes(whole + whole[: min(kept, len(whole) - 1)])
        found = Quarantine.read(path)
        assert [item.position for item in found.items] == [0]
        assert found.torn == bool(kept)
        append(str(path), failed(1))  # another writer goes on behind it
        found = Quarantine.read(path)
        assert [item.position for item in found.items] == [0, 1]
        assert found.torn == bool(kept)

    def test_what_is_no_quarantine(self, tmp_path: Path) -> None:
        other = tmp_path / "other.jsonl"
        other.write_text('{"text": "a line of something else"}\n' * 3)
        with pytest.raises(sp.FormatError, match="is no quarantine file"):
            sp.read_quarantine(other)
        other.write_bytes(b"")
        assert sp.read_quarantine(other) == []
        with pytest.raises(sp.StorageError) as caught:
            sp.read_quarantine(tmp_path / "none")
        assert caught.value.errno == errno.ENOENT

    def test_that_it_can_be_written_is_looked_at_first(self, tmp_path: Path) -> None:
        check_writable(str(tmp_path / "new.jsonl"))
        assert not list(tmp_path.iterdir())
        made: list[int] = []
        for path in (tmp_path, tmp_path / "none" / "bad.jsonl"):
            pipe = sp.Pipeline(range(3)).map(made.append, on_error=sp.quarantine(path))
            with pytest.raises(sp.StorageError, match="cannot be written"):
                pipe.loader(executor="inline")
        assert not made

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_full_disk_ends_the_run(self) -> None:
        pipe = sp.Pipeline([4, 0, 2]).map(lambda x: 4 // x, on_error=sp.quarantine("/dev/full"))
        for options in ({"executor": "inline"}, FORK):
            with (
                pipe.loader(**options) as loader,  # type: ignore[arg-type]
                pytest.raises(sp.StorageError, match="the quarantine cannot be written"),
            ):
                list(loader)


WRITER = """
import sys
from splitpipe.runtime.quarantine import append
from splitpipe.pipeline.stages.failed import FailedItem

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
position = 0
while position < count or count < 0:
    append(path, FailedItem("decode", 0, position, run=name, message="m" * (position * 37 % 9000)))
    position += 1
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_many_writers_of_which_some_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    killed = [writer(path, f"killed {n}", -1) for n in range(2)]
    others = [writer(path, f"writer {n}", 300) for n in range(3)]
    for program in (*killed, *others):
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    for program in others:
        assert program.wait() == 0
        program.stdout.close()  # type: ignore[union-attr]
    for program in killed:
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdout.close()  # type: ignore[union-attr]
    append(str(path), failed(0, run="after"))
    found = Quarantine.read(path)
    assert found.torn <= len(killed)
    by_run: dict[str, list[int]] = {}
    for item in found.items:
        assert item.message == "m" * (item.position * 37 % 9000) or item.run == "after"
        by_run.setdefault(item.run, []).append(item.position)
    for n in range(3):
        assert by_run[f"writer {n}"] == list(range(300))
    for n in range(2):
        written = by_run.get(f"killed {n}", [])
        assert written == list(range(len(written)))
    assert by_run["after"] == [0]


def test_all_workers_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"

    def decode(x: int) -> int:
        return 1 // (x % 5)

    pipe = sp.Pipeline(range(1000), shuffle="global", seed=1).map(
        decode, workers=3, on_error=sp.quarantine(path)
    )
    with pipe.loader(epochs=2, **FORK) as loader:
        delivered = len(list(loader))
        decoding = [s for task in loader.stats() for s in task.stages if s.name == "decode"]
        assert [(s.skipped, s.quarantined) for s in decoding] == [(400, 400)]
    items = sp.read_quarantine(path)
    assert delivered + len(items) == 2000
    for epoch in (0, 1):
        records = [item.record for item in items if item.epoch == epoch]
        assert sorted(n for n in records if n is not None) == list(range(0, 1000, 5))
    assert {item.action for item in items} == {"quarantined"}
    with pipe.loader(executor="inline", epochs=2) as loader:
        list(loader)
    places = {item.run: [] for item in sp.read_quarantine(path)}  # type: ignore[var-annotated]
    for item in sp.read_quarantine(path):
        places[item.run].append(item.identity)
    one, other = places.values()
    assert sorted(one) == sorted(other)  # which items they are does not depend on who found them


class TestTheLog:
    def test_it_gives_the_first_of_each_stage(self) -> None:
        for shared in (False, True):
            log = ErrorLog(shared=shared, run=7)
            books = [Book(log, worker=f"worker {n}") for n in range(2)]
            for position in range(40):
                item = replace(failed(position), stage="ab"[position % 3 == 0])
                books[position % 2].enter(item, sp.skip())
            for _ in range(2):
                told = {(one.stage, one.position) for one in log.read()}
                assert {n for stage, n in told if stage == "b"} == {0, 3, 6, 9, 12, 15, 18, 21}
                assert len(told) == 16
                log.close()
            assert log.read()[0].run == f"{7:016x}"

    def test_a_line_that_is_being_written_is_not_read(self) -> None:
        log = ErrorLog(shared=True)
        log.write(failed(1))
        assert log._memory is not None
        os.write(log._memory.fd, b'{"stage":"dec')
        assert [one.position for one in log.read()] == [1]
        log.close()


def test_who_waits_for_another_try_waits_for_its_input() -> None:
    row = row_of(Heading((TaskHead("read", 1, (StageHead("read"),)),)))
    meter = Meter(row)
    meter.notes = Notes(row, stages=True)
    meter.notes.resume(3)
    seen = []

    def pause(seconds: float) -> None:
        seen.append((seconds, row[board.STATE], row[board.AT_STAGE]))

    waiting(meter, pause)(2.0)
    assert seen == [(2.0, board.WAITS_FOR_INPUT, 0)]
    assert (row[board.STATE], row[board.AT_STAGE]) == (board.BUSY, 3)


# -- again


def noisy(x: int, rng: np.random.Generator) -> float:
    number = float(rng.random())
    if number < 0.3:
        raise ValueError(f"{x}: {number}")
    return x + number


def parts(x: int) -> list[int]:
    return [x] * (x % 4)


def waited(items: Iterator[Any]) -> Iterator[Any]:
    yield from items


async def slowly(x: int, rng: np.random.Generator) -> float:
    return noisy(x, rng)


GRAPHS: dict[str, Any] = {
    "per item": lambda p: p.map(noisy, on_error="skip"),
    "with parts": lambda p: p.flat_map(parts).map(noisy, on_error="skip"),
    "behind a stream": lambda p: p.shuffle(9).map(noisy, on_error="skip"),
    "repeated": lambda p: p.through(waited).map(noisy, on_error="skip").repeat(2),
    "async": lambda p: p.async_map(slowly, on_error="skip"),
    "async, behind a stream": lambda p: p.through(waited).async_map(slowly, on_error="skip"),
    "before a cache": lambda p: p.map(noisy, on_error="skip").cache().map(noisy, on_error="skip"),
    "in a route": lambda p: p.route(
        lambda x: x % 2, {0: lambda b: b.map(noisy, on_error="skip"), 1: None}
    ),
    "two": lambda p: p.map(noisy, on_error="skip").map(int).map(noisy, on_error="skip"),
    "batch": lambda p: p.through(waited).batch(4, collate=whole, on_error="skip"),
}


def whole(rows: list[int]) -> int:
    if sum(rows) % 3 == 0:
        raise ValueError(f"{rows}")
    return sum(rows)


class TestAgain:
    @pytest.mark.parametrize("name", GRAPHS)
    @pytest.mark.parametrize("factory", [False, True])
    def test_exactly_these_fail_again(self, name: str, factory: bool) -> None:
        source: Any = (lambda: iter(range(60))) if factory else range(60)
        pipe = GRAPHS[name](sp.Pipeline(source, seed=5))
        with pipe.loader(executor="inline", epochs=2) as loader:
            assert list(loader)
            items = loader.errors()
        assert len(items) >= 8
        outcomes = list(sp.rerun(items, pipe))
        assert sorted(one.item.identity for one in outcomes) == sorted(i.identity for i in items)
        for one in outcomes:
            assert one.outcome == "fails", one
            assert one.error is not None
            assert one.error.message == one.item.message

    def test_which_pass_now(self) -> None:
        pipe = sp.Pipeline(range(20), shuffle="global").map(lambda x: 20 // (x % 4), name="f")
        with pipe.loader(executor="inline", on_error="skip") as loader:
            assert len(list(loader)) == 15
            items = loader.errors()
        mended = sp.Pipeline(range(20), shuffle="global").map(
            lambda x: 20 // (x % 4 or x % 3), name="f"
        )
        outcomes = {one.item.record: one.outcome for one in sp.rerun(items, mended)}
        assert outcomes == {0: "fails", 12: "fails", 4: "passes", 8: "passes", 16: "passes"}

    def test_which_do_not_come_any_more(self) -> None:
        def pipe(records: Any, keep: Any) -> sp.Pipeline:
            return sp.Pipeline(records).filter(keep).map(lambda x: 1 // (x % 5), name="f")

        with pipe(range(12), lambda x: True).loader(executor="inline", on_error="skip") as loader:
            list(loader)
            items = loader.errors()
        assert [item.position for item in items] == [0, 5, 10]
        now = sp.rerun(items, pipe(range(10), lambda x: x != 5))
        assert [one.outcome for one in now] == ["fails", "absent", "absent"]

    def test_records_that_could_not_be_read(self) -> None:
        class Records(list[int]):
            broken = True

            def __getitem__(self, index: Any) -> Any:
                if self.broken and index == 7:
                    raise OSError("unplugged")
                return index

        records = Records(range(9))
        pipe = sp.Pipeline(records).map(float)
        with pipe.loader(executor="inline", on_error="skip") as loader:
            list(loader)
            items = loader.errors()
        assert [one.outcome for one in sp.rerun(items, pipe)] == ["fails"]
        records.broken = False
        assert [one.outcome for one in sp.rerun(items, pipe)] == ["passes"]

    def test_it_reads_no_more_than_it_must(self) -> None:
        class Records(list[int]):
            read: list[int] = []  # noqa: RUF012

            def __getitem__(self, index: Any) -> Any:
                self.read.append(index)
                return index

        pipe = sp.Pipeline(Records(range(1000))).map(lambda x: 1 // (x - 700), name="f")
        item = sp.FailedItem("f", 0, 700)
        assert [one.outcome for one in sp.rerun([item], pipe)] == ["fails"]
        assert Records.read == [700]
        Records.read.clear()
        behind = (
            sp.Pipeline(Records(range(1000)))
            .through(waited)
            .map(lambda x: 1 // (x - 700), name="f")
        )
        assert [one.outcome for one in sp.rerun([item], behind)] == ["fails"]
        assert Records.read == list(range(702))

    def test_other_pipelines(self) -> None:
        pipe = sp.Pipeline(range(3)).map(str, name="other")
        with pytest.raises(sp.GraphError, match="no stage 'f', in which items failed"):
            list(sp.rerun([sp.FailedItem("f", 0, 0)], pipe))

    def test_a_graph_with_several_outputs(self) -> None:
        numbers = sp.Pipeline(range(6))
        outputs = {
            "a": numbers.map(lambda x: 1 // x, name="f"),
            "b": numbers.map(lambda x: 1 // (x - 1), name="f"),
        }
        loaders = sp.run(outputs, executor="inline", on_error="skip")
        for loader in loaders.values():
            list(loader)
        items = loaders["a"].errors()
        assert {(item.stage, item.position) for item in items} == {("f", 0), ("f-2", 1)}
        assert {one.outcome for one in sp.rerun(items, outputs)} == {"fails"}
