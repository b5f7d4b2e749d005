"""A conversion that ended early goes on: killed or failed anywhere, its source broken or mended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.conversion.target import NAME
from splitpipe.testing.faults import Call, Strike, Tap, die, fail, run_in_child
from tests.cli.command import environment
from tests.conversion.making import small_commits, told, write_every_kind

COUNT = 60
PROGRAM = """
import sys
import splitpipe as sp
from splitpipe.conversion import blocks, target

def tell(what, done, total):
    print(what, done, flush=True)

if __name__ == "__main__":
    target.COMMIT_NBYTES, blocks.BLOCK_NBYTES = 1, 2048
    source, copy, workers = sys.argv[1:]
    report = sp.convert(source, copy, workers=int(workers), bins=2, progress=tell)
    print("resumed at", report.resumed_at, flush=True)
"""


def killed_at(source: Path, copy: Path, workers: int, line: int) -> list[str]:
    """Run a conversion as a program, kill it at a line of what it tells; the lines."""
    script = copy.parent / "program.py"
    script.write_text(PROGRAM)
    program = [sys.executable, str(script), str(source), str(copy), str(workers)]
    lines: list[str] = []
    with subprocess.Popen(program, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            lines.append(text.strip())
            if len(lines) == line:
                process.kill()
                break
        process.stdout.read()  # until nobody writes any more: its workers have left too
    return lines


class TestKilled:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
    def test_again_and_again_as_a_program(self, tmp_path: Path, workers: int) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        copy = tmp_path / "copy"
        before = 0
        for line in (1, 3, 2, 4):
            lines = killed_at(source, copy, workers, line)
            assert len(lines) == line
            with sp.open_dataset(copy) as partial:
                assert before <= len(partial) <= COUNT
                before = len(partial)
            assert told(copy) == told(source)[:before]
        lines = killed_at(source, copy, workers, -1)
        assert lines[-1] == f"resumed at {before}"
        assert before > 0
        assert told(copy) == told(source)
        assert json.loads((copy / NAME).read_text())["proven"] is not None

    @pytest.mark.long
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_at_every_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
    ) -> None:
        """After each, the same call goes on, and what was there before is there or replaced."""
        small_commits(monkeypatch, nbytes=50)
        source = tmp_path / "source"
        columns = {"text": "str", "n": "int64"}
        with sp.DatasetWriter(source, columns, bins=1, metadata={"weight": "int64"}) as writer:
            for n in range(24):
                writer.write({"text": "x" * n, "n": n}, key=str(n), meta={"weight": n})
        wanted, resumed, at = told(source), set(), 0
        while True:
            at += 1
            copy = tmp_path / f"copy {at}"
            if overwrite:
                sp.write_split_data(copy, [b"old"], splits=1)
            strike = Strike(at, die, chosen=_change)
            options: Any = {"workers": 0, "bins": 1, "overwrite": overwrite}

            def work(copy: Path = copy, strike: Strike = strike, options: Any = options) -> None:
                with Tap(copy, strike):
                    sp.convert(source, copy, **options)

            if run_in_child(work) == 0:
                break
            if overwrite and told(copy) == ["b'old'"]:
                sp.convert(source, copy, workers=0, overwrite=True)
            else:
                resumed.add(sp.convert(source, copy, workers=0).resumed_at)
            assert told(copy) == wanted, at
        assert at > 30
        assert len(resumed) >= (2 if overwrite else 3)


def _change(call: Call) -> bool:
    return call.changes


class TestFailingDisk:
    @pytest.mark.parametrize(
        "number",
        [
            pytest.param(errno.ENOSPC, id="full"),
            pytest.param(errno.EIO, id="broken", marks=pytest.mark.long),
        ],
    )
    def test_at_every_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        small_commits(monkeypatch, nbytes=50)
        source = tmp_path / "source"
        with sp.DatasetWriter(source, {"text": "str"}, bins=1, metadata={"n": "int64"}) as writer:
            for n in range(26):
                writer.write({"text": "x" * n}, key=str(n), meta={"n": n})
        at, resumed = 0, set()
        while True:
            at += 1
            copy = tmp_path / f"copy {at}"
            strike = Strike(at, fail(number), chosen=_change, forever=True)
            with contextlib.suppress(sp.StorageError), Tap(copy, strike):
                sp.convert(source, copy, workers=0, bins=1)
            if strike.struck is None:
                break
            resumed.add(sp.convert(source, copy, workers=0, bins=1).resumed_at)
            assert told(copy) == told(source), strike.struck
        assert at > 30
        assert len(resumed) >= 3, resumed


class TestBrokenSource:
    def lines(self, path: Path, *, broken: bool) -> None:
        lines = [json.dumps({"n": n, "text": "x" * 50}) for n in range(100)]
        if broken:
            lines[70] = "!" + lines[70][1:]
        path.write_text("\n".join(lines))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_mended_it_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        monkeypatch.setattr("splitpipe.conversion.blocks.BLOCK_NBYTES", 1000)
        source = tmp_path / "a.jsonl"
        self.lines(source, broken=True)
        with pytest.raises(sp.CorruptRecord, match=r"record 70 of .*a\.jsonl.*line 71"):
            sp.convert(source, tmp_path / "copy", workers=workers, bins=1)
        with sp.open_dataset(tmp_path / "copy") as copy:
            kept = len(copy)
        assert 0 < kept <= 70
        self.lines(source, broken=False)
        report = sp.convert(source, tmp_path / "copy", workers=workers)
        assert report.resumed_at == kept
        assert told(tmp_path / "copy") == told(source)

    def test_the_very_first_record_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text("{\n{}\n")
        with pytest.raises(sp.CorruptRecord, match="record 0 of"):
            sp.convert(tmp_path / "a.jsonl", tmp_path / "copy", workers=0)
        assert not (tmp_path / "copy").exists()

    def test_a_damaged_record_of_our_own(self, tmp_path: Path) -> None:
        source = write_every_kind(tmp_path / "source", COUNT)
        victim = next(p for p in sorted(source.iterdir()) if p.name.endswith("c001-b00001.bin"))
        data = bytearray(victim.read_bytes())
        data[-3] ^= 1
        victim.write_bytes(data)
        with pytest.raises(sp.CorruptRecord, match=r"record \d+ of .*source: .*b00001"):
            sp.convert(source, tmp_path / "copy", workers=0, bins=1)


class TestChangedSource:
    def begin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        small_commits(monkeypatch)
        source = tmp_path / "a.jsonl"
        source.write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
        stop_after(source, tmp_path / "copy", 50)
        return source

    def test_another_number_of_records(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.begin(tmp_path, monkeypatch)
        with source.open("a") as file:
            file.write("{}\n")
        with pytest.raises(sp.FormatError, match=r"choose another directory, or say overwrite"):
            sp.convert(source, tmp_path / "copy", workers=0)

    def test_other_records(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = self.begin(tmp_path, monkeypatch)
        source.write_text(source.read_text().replace("1", "2"))
        with pytest.raises(sp.CorruptRecord, match=r"'data' of record 1 of .*copy is"):
            sp.convert(source, tmp_path / "copy", workers=0)
        sp.convert(source, tmp_path / "copy", workers=0, bins=1, overwrite=True)
        assert told(tmp_path / "copy") == told(source)

    def test_a_copy_that_was_added_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.begin(tmp_path, monkeypatch)
        sp.convert(source, tmp_path / "copy", workers=0)
        with sp.DatasetWriter(tmp_path / "copy", append=True) as writer:
            writer.write({"mine": 1})
        with pytest.raises(sp.FormatError, match="was changed since"):
            sp.convert(source, tmp_path / "copy", workers=0)

    def test_other_options_than_it_was_begun_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.begin(tmp_path, monkeypatch)
        for options in ({"bins": 7}, {"compression": "zstd"}):
            with pytest.raises(sp.FormatError, match=f"was begun with {next(iter(options))}="):
                sp.convert(source, tmp_path / "copy", workers=0, **options)  # type: ignore[arg-type]
        assert sp.convert(source, tmp_path / "copy", workers=0, bins=1).resumed_at > 0

    def test_what_is_done_is_compared_again_and_written_to_no_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.begin(tmp_path, monkeypatch)
        sp.convert(source, tmp_path / "copy", workers=0)
        before = {p: p.read_bytes() for p in (tmp_path / "copy").iterdir()}
        report = sp.convert(source, tmp_path / "copy", workers=0)
        assert (report.resumed_at, report.compared, report.nbytes) == (100, 100, 0)
        assert {p: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == before


def stop_after(source: Path, copy: Path, records: int) -> None:
    """Copy that many records and some, and be interrupted."""

    def stop(what: str, done: int, total: int) -> None:
        if done >= records:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sp.convert(source, copy, workers=0, bins=1, progress=stop)


def test_an_empty_dataset_that_is_there_is_begun_in(tmp_path: Path) -> None:
    """Also with other bins than it was made with."""
    source = write_every_kind(tmp_path / "source", 5)
    sp.DatasetWriter(tmp_path / "copy", "bytes", bins=5).close()
    sp.convert(source, tmp_path / "copy", workers=0, bins=2)
    assert told(tmp_path / "copy") == told(source)


def test_records_that_came_in_between_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is there and the lock."""
    source = write_every_kind(tmp_path / "source", 5)
    copy = tmp_path / "copy"

    def late(directory: str) -> None:
        sp.write_split_data(copy, [b"precious"], splits=1)

    monkeypatch.setattr("splitpipe.conversion.job.begun", late)
    with pytest.raises(sp.StorageError, match="a dataset of 1 records is here already"):
        sp.convert(source, copy, workers=0, bins=1)
    assert told(copy) == ["b'precious'"]


def test_another_writer_is_at_work(tmp_path: Path) -> None:
    source = write_every_kind(tmp_path / "source", 5)
    with sp.DatasetWriter(tmp_path / "copy"), pytest.raises(sp.LockedError):
        sp.convert(source, tmp_path / "copy", workers=0)


def test_what_fails_when_replacing_keeps_the_old_dataset_and_its_note(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("[1]\n[2]\n")
    copy = tmp_path / "copy"
    sp.convert(source, copy, workers=0, bins=1)
    (tmp_path / "b.jsonl").write_text("{\n{}\n")
    with pytest.raises(sp.CorruptRecord, match="record 0 of"):
        sp.convert(tmp_path / "b.jsonl", copy, workers=0, bins=1, overwrite=True)
    assert told(copy) == ["[1]", "[2]"]
    assert sp.convert(source, copy, workers=0).nbytes == 0


def test_the_working_directory_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text("[1]\n")
    monkeypatch.chdir(tmp_path)
    sp.convert("a.jsonl", "copy", workers=0, bins=1)
    monkeypatch.chdir(os.sep)
    assert sp.convert(tmp_path / "a.jsonl", tmp_path / "copy", workers=0).resumed_at == 1
