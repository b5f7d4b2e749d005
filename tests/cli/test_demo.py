"""``splitpipe demo`` trains on real data, says what happened, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

import splitpipe as sp
from splitpipe.cli.model import NextByteModel
from splitpipe.cli.text import END, decode, encode, pack, source_files
from tests.cli.command import arguments, environment, splitpipe

LOSS = re.compile(r"Loss over [\d,]+ steps: (\d+\.\d+) -> (\d+\.\d+) bits a byte; (.*)\.")
QUICK_NBYTES = 4_000_000


@dataclass(frozen=True)
class Runs:
    """The demo twice over one folder, with different numbers of workers."""

    home: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    home = tmp_path_factory.mktemp("demo") / "kept"
    first = splitpipe("demo", "--quick", "--workers", "1", "--dir", home)
    second = splitpipe("demo", "--quick", "--workers", "3", "--dir", home)
    return Runs(home, first, second)


class TestRun:
    def test_loss_falls_and_every_stage_is_accounted_for(self, runs: Runs) -> None:
        assert runs.first.returncode == 0, runs.first.stderr
        assert runs.first.stderr == ""
        match = LOSS.search(runs.first.stdout)
        assert match, runs.first.stdout
        first, last = float(match[1]), float(match[2])
        assert 5 < first < 8
        assert last < first - 1
        assert match[3] == "it fell"
        headings = ("items/s", "busy", "waiting for", "input", "output")
        for word in ("decode > encode", "pack > batch", *headings):
            assert word in runs.first.stdout

    def test_without_a_terminal_progress_is_plain_lines(self, runs: Runs) -> None:
        lines = [line for line in runs.first.stdout.splitlines() if "bits a byte  " in line]
        assert 8 <= len(lines) <= 11
        assert all(re.match(r" *\d+%  epoch [12]  loss \d\.\d\d bits a byte", x) for x in lines)
        assert "\x1b" not in runs.first.stdout

    def test_the_result_does_not_depend_on_the_number_of_workers(self, runs: Runs) -> None:
        assert runs.second.returncode == 0, runs.second.stderr
        first, second = (LOSS.search(run.stdout) for run in (runs.first, runs.second))
        assert first
        assert second
        assert first[0] == second[0]

    def test_a_folder_that_was_asked_for_is_kept_and_used_again(self, runs: Runs) -> None:
        assert f"splitpipe info {runs.home}" in runs.first.stdout
        wanted = sorted(path.read_bytes() for path in source_files(at_most_nbytes=QUICK_NBYTES))
        with sp.open_dataset(runs.home) as dataset:
            assert sorted(dataset) == wanted
        assert f"Found {len(wanted):,} records" in runs.second.stdout

    @pytest.mark.long
    def test_a_folder_of_its_own_is_removed(self, tmp_path: Path) -> None:
        done = splitpipe("demo", "--quick", TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert str(tmp_path) in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_something_else_in_it_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("all of it")
        done = splitpipe("demo", "--quick", "--dir", tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("splitpipe: ")
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


class TestEndings:
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
    )
    def test_a_signal_leaves_nothing(self, tmp_path: Path, number: int, code: int) -> None:
        process = subprocess.Popen(
            arguments("demo"),
            env=environment(TMPDIR=str(tmp_path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        seen = ""
        while "epoch 1" not in seen:  # it trains: workers and shared memory are in use
            line = process.stdout.readline()
            assert line, f"ended before it trained: {seen}"
            seen += line
        family = psutil.Process(process.pid).children(recursive=True)
        assert family, "no worker process was running"
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal sends it to all of them
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == code
        assert "Traceback" not in stderr
        _, alive = psutil.wait_procs(family, timeout=5)
        assert alive == []
        assert list(tmp_path.iterdir()) == []


class TestText:
    def test_every_source_file_survives_its_stages(self) -> None:
        for path in source_files(at_most_nbytes=QUICK_NBYTES):
            tokens = encode(decode(path.read_bytes()))
            assert tokens[-1] == END
            assert len(tokens) > 0

    def test_broken_encodings_are_read_as_latin_1(self) -> None:
        assert decode(b"# coding: no-such-thing\nx = '\xe9'") == "# coding: no-such-thing\nx = 'é'"
        assert decode(b"\xff\xfe") == "ÿþ"

    def test_pack_drops_only_the_rest(self) -> None:
        files = [encode("a" * n) for n in (1, 5, 0, 17)]
        packed = list(pack(files, length=4))
        assert all(len(sequence) == 4 for sequence in packed)
        stream = np.concatenate(files)
        assert np.array_equal(np.concatenate(packed), stream[: len(stream) // 4 * 4])

    def test_a_limit_is_kept(self) -> None:
        chosen = source_files(at_most_nbytes=100_000)
        assert 0 < sum(path.stat().st_size for path in chosen) <= 100_000


class TestModel:
    def test_a_step_goes_down_the_gradient(self) -> None:
        """A small step of rate r moves the weights by -r g, so the loss must fall by r |g|^2."""
        rate = 0.05
        batch = np.random.default_rng(0).integers(97, 123, (8, 64)).astype(np.uint8)
        model = NextByteModel(rate=rate, seed=1, guesses=512)
        weights = ("_embedding", "_inner", "_inner_bias", "_outer", "_outer_bias")
        start = {name: getattr(model, name).copy() for name in weights}
        losses = []
        for _ in range(2):
            model._rng = np.random.default_rng(4)  # the same positions of the batch again
            losses.append(model.step(batch))
            if len(losses) == 1:
                moved = sum(float(((getattr(model, n) - start[n]) ** 2).sum()) for n in weights)
        fell_nats = (losses[0] - losses[1]) * np.log(2)
        assert fell_nats == pytest.approx(moved / rate, rel=0.05)

    def test_is_reproducible(self) -> None:
        batch = np.arange(1024, dtype=np.uint8).reshape(4, 256)
        first, second = NextByteModel(seed=3), NextByteModel(seed=3)
        assert [first.step(batch) for _ in range(3)] == [second.step(batch) for _ in range(3)]
        assert first.write(20) == second.write(20)


def test_workers_import_neither_typer_nor_rich() -> None:
    code = "import sys, splitpipe.cli.text; print(sorted({'typer', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
