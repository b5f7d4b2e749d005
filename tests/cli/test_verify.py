"""``splitpipe verify`` and ``splitpipe replay``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from tests.cli.command import TIMEOUT_S, arguments, environment
from tests.cli.making import fails, printed, succeeds

PROGRAM = """
import numpy as np
import splitpipe as sp

COUNT = []

def numbered(x):
    COUNT.append(x)
    return x, len(COUNT)

def scaled(x):
    return np.float64(x) * 2

good = sp.Pipeline(range(40), shuffle="global", seed=2).map(scaled, workers=1).batch(4)
bad = sp.Pipeline(range(20)).map(scaled).map(numbered)
both = {"good": good, "bad": bad}
nothing = 3

def make():
    return good

if __name__ == "__main__":
    with good.loader(record=sp.Record("flight", digests=True), epochs=2) as loader:
        for batch in loader:
            pass
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the working directory, which no other test has."""
    name = f"train_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


CHEAP = ("-c", "repeat", "-c", "once", "-n", "50")


class TestVerify:
    def test_a_good_one(self, program: str, capsys: pytest.CaptureFixture[str]) -> None:
        text = succeeds(capsys, "verify", f"{program}:good", *CHEAP)
        assert "every promise that was checked is kept" in text

    def test_all_of_a_dict_and_the_stage_is_named(
        self, program: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["verify", f"{program}.py:both", *CHEAP, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] is False
        assert found["pipelines"]["good"]["ok"] is True
        assert found["pipelines"]["bad"]["stages"] == ["numbered"]
        assert found["pipelines"]["bad"]["checks"][0]["outcome"] == "broken"

    def test_the_table_names_stage_and_advice(
        self, program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "300")
        assert run(["verify", f"{program}:bad", *CHEAP, "--seed", "3"]) == 1
        text = capsys.readouterr().out
        for words in ("numbered", "broken", "keeps something", "seed 3", "1 of 2 promises"):
            assert words in text

    @pytest.mark.parametrize(
        ("target", "told"),
        [("{}:nothing", "not a pipeline"), ("{}:missing", "missing"), ("{}", "MODULE:NAME")],
    )
    def test_what_is_no_pipeline(
        self, program: str, capsys: pytest.CaptureFixture[str], target: str, told: str
    ) -> None:
        assert told in fails(capsys, "verify", target.format(program))


class TestReplay:
    @pytest.fixture
    def flight(self, program: str) -> str:
        sys.path.insert(0, "")
        good = importlib.import_module(program).good
        record = sp.Record("flight", digests=True)
        with good.loader(record=record, epochs=2, executor="inline") as loader:
            assert sum(1 for _ in loader) == 20
        return program

    def test_all_that_it_does(self, flight: str, capsys: pytest.CaptureFixture[str]) -> None:
        text = succeeds(capsys, "replay", "flight")
        assert "steps 0 to 19" in text
        assert f"loaded as {flight}:good" in text
        assert printed(capsys, "replay", "flight")["steps"] == [0, 19]

        text = succeeds(capsys, "replay", "flight", "--step", 13, "--save", "item.npz")
        assert "step 13: item 3 of epoch 1, seed 2" in text
        assert "the same as recorded" in text
        with np.load("item.npz") as saved:
            batch = saved["item"]
        assert batch.shape == (4,)

        found = printed(capsys, "replay", "flight", f"{flight}:make", "--step", 13)
        assert found["same"] is True
        assert found["origins"][0]["start"] == 12
        assert [2.0 * record for record in found["origins"][0]["records"]] == batch.tolist()

        both = ("replay", "flight", f"{flight}:both", "--step", 3)
        assert "--name" in fails(capsys, *both)
        assert "step 3" in succeeds(capsys, *both, "--name", "good")
        assert "step 99 is not among" in fails(capsys, "replay", "flight", "--step", 99)

    def test_another_item_than_the_recorded_one(
        self, flight: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = Path(f"{flight}.py").read_text(encoding="utf-8").replace("* 2", "* 3")
        Path(f"{flight}.py").write_text(text, encoding="utf-8")
        os.utime(f"{flight}.py", (1, 1))
        sys.modules.pop(flight)
        assert run(["replay", "flight", "--step", "5"]) == 1
        text = capsys.readouterr().out
        assert "NOT the one" in text
        assert "'scaled' has changed" in text

    @pytest.mark.long
    def test_the_debugger_stops_in_the_first_stage(self, program: str) -> None:
        command = [*arguments()[:3], f"{program}.py"]
        subprocess.run(
            command, env=environment(), check=True, timeout=TIMEOUT_S, capture_output=True
        )

        def debugged(words: str) -> str:
            done = subprocess.run(
                arguments("replay", "flight", "--step", "5", "--pdb"),
                env=environment(),
                input=words,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        text = debugged("p x\nc\n")
        assert "scaled()" in text
        assert "return np.float64(x) * 2" in text
        assert "the same as recorded" in text
        assert "digest" not in debugged("q\n")
