"""``splitpipe quarantine``: what it says of a file, and of items that are made again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from splitpipe.cli.app import run
from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.runtime.quarantine import append
from tests.cli.command import environment, splitpipe

PROGRAM = """
import splitpipe as sp

WORDS = ["1", "two", "3", "", "[5]"]
NUMBERS = {NUMBERS!r}

def parse(text):
    return int(NUMBERS.get(text, text))

def pipe():
    return sp.Pipeline(WORDS).map(parse, workers=2, on_error=sp.quarantine("bad.jsonl"))

if __name__ == "__main__":
    with pipe().loader(start_method="fork") as loader:
        print(list(loader))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "words.py").write_text(PROGRAM.replace("{NUMBERS!r}", "{}"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_run_to_its_repair(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "words.py"], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[1, 3]\n"
    done = splitpipe("quarantine", "bad.jsonl", "--tracebacks", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "3 items of 1 runs" in done.stdout
    assert "ValueError" in done.stdout
    assert "item 1, record 1 of ['1', 'two', '3', '', '[5]']: invalid literal" in done.stdout
    assert "in parse" in done.stdout
    assert "[5]" in done.stdout  # no markup of a terminal's

    done = splitpipe("quarantine", "bad.jsonl", "--run", "words:pipe", cwd=folder)
    assert done.returncode == 1
    assert done.stdout.count("fails ") == 3
    assert "3 items made again: 0 passes, 3 fails, 0 absent" in done.stdout

    (folder / "mended.py").write_text(PROGRAM.replace("{NUMBERS!r}", "{'two': 2, '': 0, '[5]': 5}"))
    done = splitpipe("quarantine", "bad.jsonl", "--run", "mended.py:pipe", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["passes"], told["fails"], told["absent"]) == (3, 0, 0)
    assert sorted(one["item"]["position"] for one in told["items"]) == [1, 3, 4]
    assert len((folder / "bad.jsonl").read_text().splitlines()) == 3


def written(folder: Path) -> Path:
    path = folder / "some.jsonl"
    for n in range(7):
        error = "KeyError" if n % 3 else "OSError"
        item = FailedItem("load" if n < 6 else "save", 0, n, error=error, message=f"no. {n}")
        append(str(path), item)
    with path.open("ab") as file:
        file.write(b'{"quarantine":1,"sta')
    return path


def test_what_it_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(folder)
    assert run(["quarantine", str(path), "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "7 items of 1 runs, 1 torn lines" in out
    assert out.index("KeyError") < out.index("OSError")
    assert "epoch 0, item 1: no. 1" in out
    assert "no. 2" not in out
    assert run(["quarantine", str(path), "--stage", "save", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["position"] for item in told["items"]] == [6]
    assert (told["lines"], told["torn"]) == (7, 1)


def test_what_it_cannot_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(folder)
    assert run(["quarantine", str(folder / "none.jsonl")]) == 1
    assert "none.jsonl: No such file" in capsys.readouterr().err
    assert run(["quarantine", str(path), "--run", "json:dumps"]) == 1
    assert run(["quarantine", str(path), "--run", "words:WORDS"]) == 1
    assert "is a list; name a pipeline" in capsys.readouterr().err
    assert run(["quarantine", str(path), "--run", "words:pipe"]) == 1
    assert "no stage 'load'" in capsys.readouterr().err
