"""``splitpipe run`` as a program: jobs by name, their progress, their end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from tests.cli.command import TIMEOUT_S, arguments, environment, splitpipe

PROGRAM = """
import os
import threading

import splitpipe as sp
import splitpipe.jobs.work

splitpipe.jobs.work.PROBE_S = 0.0  # try one record, not all of them


@sp.job("out", task=20, bins=2)
def squares():
    return sp.Pipeline(range(100)).filter(odd).map(square)


def odd(n):
    return n % 2


def square(n):
    return n * n


def failing(n):
    return 1 // (n % 10)


def waits_at_fifty(n):
    if n == 50:
        with open("reached", "w") as reader:  # a pipe: its reader knows now
            reader.write("x")
        threading.Event().wait()
    return n


def made():
    return bad


bad = sp.Job(sp.Pipeline(range(30)).map(failing), "bad", bins=2)
waiting = sp.Job(sp.Pipeline(range(100)).map(waits_at_fifty), "waiting", task=20, bins=2)
number = 3
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(PROGRAM)
    return tmp_path


def test_it_runs_and_goes_on(home: Path) -> None:
    first = splitpipe("run", "jobs:squares", "--limit", 30, "-w", 0, cwd=home)
    assert first.returncode == 0, first.stderr
    assert "30 of 100 records done, not finished" in first.stdout
    again = splitpipe("run", "jobs.py:squares", "--workers", 2, "--json", cwd=home)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["resumed_at"], told["done"], told["finished"]) == (30, 100, True)
    assert told["total"] == {"read": 100, "used": 50, "filtered": 50, "skipped": 0, "written": 50}
    assert list(sp.open_dataset(home / "out")) == [n * n for n in range(1, 100, 2)]
    done = splitpipe("run", "jobs:squares", cwd=home)
    assert "100 of 100 records done, finished" in done.stdout
    assert "this one began at record 100" in done.stdout


def test_dry_run_writes_nothing(home: Path) -> None:
    told = splitpipe("run", "jobs:squares", "--dry-run", cwd=home)
    assert told.returncode == 0, told.stderr
    assert "nothing is there yet" in told.stdout
    assert "to do: records 0 to 100 of 100, in 5 tasks of 20" in told.stdout
    assert "  1\n  9\n  25\nnothing was written" in told.stdout
    words = json.loads(splitpipe("run", "jobs:squares", "--dry-run", "--json", cwd=home).stdout)
    assert (words["tasks"], words["items"]) == (5, ["1", "9", "25"])
    assert not (home / "out").exists()


def test_failures(home: Path) -> None:
    ended = splitpipe("run", "jobs:bad", "-w", 0, cwd=home)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
    assert "0 of 30 records of the job are done" in ended.stderr
    skipped = splitpipe("run", "jobs:made", "-w", 0, "--on-error", "skip", cwd=home)
    assert skipped.returncode == 0, skipped.stderr
    assert "30 read = 27 used + 0 filtered + 3 skipped; 27 written" in skipped.stdout
    assert "skipped: record 10 of" in skipped.stdout
    again = splitpipe(
        "run", "jobs:bad", "-w", 0, "--restart", "--on-error", "quarantine:b.jsonl", cwd=home
    )
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in (home / "b.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == [0, 10, 20]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:job", "there is no module 'nowhere' here"),
        ("nowhere.py:job", "there is no file nowhere.py"),
        ("jobs:nothing", "jobs has no 'nothing'; it has bad, failing, made"),
        ("jobs:number", "is a int, not a job"),
        ("jobs", "does not name a job: say MODULE:NAME"),
    ],
)
def test_names_that_lead_nowhere(home: Path, name: str, message: str) -> None:
    ended = splitpipe("run", name, cwd=home)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_ended_early_it_says_how_to_go_on(
    home: Path, workers: int, number: signal.Signals, code: int
) -> None:
    os.mkfifo(home / "reached")
    with subprocess.Popen(
        arguments("run", "jobs:waiting", "-w", workers),
        cwd=home,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        (home / "reached").read_text()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code, errors
    assert output == ""
    assert "of 100 records of the job are done and kept in" in errors
    assert "run it again to go on" in errors
    assert "Traceback" not in errors


class TestProgress:
    """On a terminal a bar, elsewhere lines, both on stderr."""

    def test_lines(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "told.py").write_text(PROGRAM)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("splitpipe.cli.run.LINE_S", 0.0)
        monkeypatch.setattr("sys.path", [*sys.path])
        assert run(["run", "told:squares", "-w", "0", "--limit", "40"]) == 0
        assert run(["run", "told:squares", "-w", "0"]) == 0
        text, lines = capsys.readouterr()
        pattern = r"^ 60%  60 of 100 records, 60 committed, [0-9,]+ records/s, 0:\d\d:\d\d left$"
        assert re.search(pattern, lines, re.MULTILINE)
        assert "60 read = 30 used" in text

    def test_a_bar(self, home: Path) -> None:
        terminal, end = pty.openpty()
        try:
            subprocess.run(
                arguments("run", "jobs:squares", "-w", "0"),
                cwd=home,
                env=environment(TERM="xterm", COLUMNS="120"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=end,
                timeout=TIMEOUT_S,
                check=True,
            )
            shown = os.read(terminal, 1 << 16).decode()
        finally:
            os.close(end)
            os.close(terminal)
        assert "committed" in shown
        assert "records/s" in shown
