"""``splitpipe verify`` and ``splitpipe replay``, as programs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import TIMEOUT_S, arguments, environment, splitpipe

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
def program(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return tmp_path


CHEAP = ("-c", "repeat", "-c", "once", "-n", "50")


class TestVerify:
    def test_a_good_one(self, program: Path) -> None:
        done = splitpipe("verify", "train:good", *CHEAP, cwd=program)
        assert (done.returncode, done.stderr) == (0, "")
        assert "every promise that was checked is kept" in done.stdout

    def test_all_of_a_dict_and_the_stage_is_named(self, program: Path) -> None:
        done = splitpipe("verify", "train.py:both", *CHEAP, "--json", cwd=program)
        assert (done.returncode, done.stderr) == (1, "")
        found = json.loads(done.stdout)
        assert found["ok"] is False
        assert found["pipelines"]["good"]["ok"] is True
        assert found["pipelines"]["bad"]["stages"] == ["numbered"]
        assert found["pipelines"]["bad"]["checks"][0]["outcome"] == "broken"

    def test_the_table_names_stage_and_advice(self, program: Path) -> None:
        done = splitpipe("verify", "train:bad", *CHEAP, "--seed", "3", cwd=program, COLUMNS="200")
        assert done.returncode == 1
        for word in ("numbered", "broken", "keeps something", "1 of 2 promises"):
            assert word in done.stdout.replace("\n", " ") or word == "1 of 2 promises"

    @pytest.mark.parametrize(
        ("target", "told"),
        [
            ("train:nothing", "not a pipeline"),
            ("train:missing", "missing"),
            ("train", "MODULE:NAME"),
        ],
    )
    def test_what_is_no_pipeline(self, program: Path, target: str, told: str) -> None:
        done = splitpipe("verify", target, cwd=program)
        assert done.returncode == 1
        assert told in done.stderr
        assert done.stderr.startswith("splitpipe: ")


class TestReplay:
    @pytest.fixture
    def flight(self, program: Path) -> Path:
        command = [*arguments()[:3], "train.py"]
        subprocess.run(
            command,
            cwd=program,
            env=environment(),
            check=True,
            timeout=TIMEOUT_S,
            capture_output=True,
        )
        return program

    def test_all_that_it_does(self, flight: Path) -> None:
        done = splitpipe("replay", "flight", cwd=flight)
        assert (done.returncode, done.stderr) == (0, "")
        assert "steps 0 to 19" in done.stdout
        assert "train.py:good" in done.stdout

        done = splitpipe("replay", "flight", "--step", "13", "--save", "item.npz", cwd=flight)
        assert (done.returncode, done.stderr) == (0, "")
        assert "step 13: item 3 of epoch 1, seed 2" in done.stdout
        assert "the same as recorded" in done.stdout
        with np.load(flight / "item.npz") as saved:
            batch = saved["item"]
        assert batch.shape == (4,)

        done = splitpipe("replay", "flight", "train:make", "--step", "13", "--json", cwd=flight)
        found = json.loads(done.stdout)
        assert found["same"] is True
        assert found["origins"][0]["start"] == 12
        assert [2.0 * record for record in found["origins"][0]["records"]] == batch.tolist()

        done = splitpipe("replay", "flight", "train:both", "--step", "3", cwd=flight)
        assert done.returncode == 1
        assert "--name" in done.stderr
        done = splitpipe("replay", "flight", "train:both", "--name", "good", "-s", "3", cwd=flight)
        assert done.returncode == 0

    def test_the_debugger_stops_in_the_first_stage(self, flight: Path) -> None:
        done = subprocess.run(
            arguments("replay", "flight", "--step", "5", "--pdb"),
            cwd=flight,
            env=environment(),
            input="p x\nc\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "scaled()" in done.stdout
        assert "return np.float64(x) * 2" in done.stdout
        assert "the same as recorded" in done.stdout
        left = subprocess.run(
            arguments("replay", "flight", "--step", "5", "--pdb"),
            cwd=flight,
            env=environment(),
            input="q\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (left.returncode, left.stderr) == (0, "")
        assert "digest" not in left.stdout
