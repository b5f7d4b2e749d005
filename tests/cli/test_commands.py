"""``splitpipe info``, ``head`` and ``check``, and what the command says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from tests.cli.command import environment
from tests.cli.making import fails, succeeds

FIRST = b"the first record"
RECORDS = [FIRST, b"", "größer".encode(), b"\xff\x00\x1b[31mred", b"two\nlines", b"x" * 1000]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    with sp.DatasetWriter(path, bins=4) as writer:
        writer.write_many(RECORDS)
    return path


class TestInfo:
    def test_json_tells_the_facts(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found: dict[str, Any] = json.loads(succeeds(capsys, "info", "--json", dataset))
        assert found["path"] == str(dataset)
        assert found["rows"] == len(RECORDS)
        assert found["record_nbytes"] == sum(map(len, RECORDS))
        assert found["bins"] == 4
        assert found["disk_nbytes"] == sum(f.stat().st_size for f in dataset.iterdir())

    def test_text_is_for_people(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = succeeds(capsys, "info", dataset).splitlines()
        told = {line[:12].strip(): line[12:] for line in lines}
        assert told["path"] == str(dataset)
        assert told["records"] == "6"
        assert told["bins"] == "4"

    def test_an_empty_dataset(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with sp.DatasetWriter(tmp_path / "empty"):
            pass
        assert json.loads(succeeds(capsys, "info", "--json", tmp_path / "empty"))["rows"] == 0
        assert "records     0" in succeeds(capsys, "info", tmp_path / "empty")
        assert succeeds(capsys, "head", tmp_path / "empty") == ""
        assert "everything is right" in succeeds(capsys, "check", tmp_path / "empty")


class TestHead:
    def test_json_loses_nothing(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = succeeds(capsys, "head", "--json", dataset)
        shown = [json.loads(line) for line in text.splitlines()]
        assert [item["index"] for item in shown] == list(range(len(RECORDS)))
        back = [
            item["text"].encode() if "text" in item else b64decode(item["base64"]) for item in shown
        ]
        assert back == RECORDS

    def test_a_terminal_survives_every_record(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = succeeds(capsys, "head", dataset).splitlines()
        assert len(lines) == len(RECORDS)
        assert all(line.isprintable() for line in lines)
        assert lines[1] == "1  0 bytes"
        assert lines[2].endswith("größer")
        assert max(map(len, lines)) < 130

    @pytest.mark.parametrize("option", ["-n", "--count"])
    def test_count(self, dataset: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
        assert len(succeeds(capsys, "head", option, "2", dataset).splitlines()) == 2


class TestCheck:
    def test_a_sound_dataset(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "6 of 6 records read, everything is right" in succeeds(capsys, "check", dataset)
        report = json.loads(succeeds(capsys, "check", "--json", dataset))
        assert report["ok"] is True
        assert report["checked"] == 6

    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
    def test_a_flipped_bit_is_found_and_named(
        self, dataset: Path, capsys: pytest.CaptureFixture[str], as_json: bool
    ) -> None:
        victim = next(f for f in sorted(dataset.iterdir()) if FIRST in f.read_bytes())
        content = bytearray(victim.read_bytes())
        content[content.index(FIRST)] ^= 1
        victim.write_bytes(content)
        code = run(["check", *(["--json"] if as_json else []), str(dataset)])
        text, problems = capsys.readouterr()
        assert (code, problems) == (1, "")
        if as_json:
            report = json.loads(text)
            assert report["ok"] is False
            assert report["findings"][0]["row"] == 0
            text = report["findings"][0]["message"]
        else:
            assert re.search(r"[1-9]\d* things? (is|are) wrong\n$", text)
        assert victim.name in text

    def test_head_says_what_is_damaged(
        self, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for file in dataset.iterdir():
            file.write_bytes(file.read_bytes().replace(FIRST, FIRST.upper()))
        code = run(["head", str(dataset)])
        text, problems = capsys.readouterr()
        assert code == 1
        assert text == ""
        assert problems.startswith("splitpipe: ")
        assert "Traceback" not in problems


class TestErrors:
    @pytest.mark.parametrize("command", ["info", "head", "check"])
    def test_what_is_not_there(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        missing = tmp_path / "missing"
        assert str(missing) in fails(capsys, command, missing)

    @pytest.mark.parametrize("command", ["info", "head", "check"])
    def test_what_is_not_a_dataset(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        (tmp_path / "thesis.odt").write_text("all of it")
        assert str(tmp_path) in fails(capsys, command, tmp_path)

    def test_a_wrong_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["head"]) == 2
        assert run(["no-such-command"]) == 2
        assert "Traceback" not in capsys.readouterr().err

    def test_help_and_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert succeeds(capsys, "--version").strip() == sp.__version__
        assert "demo" in succeeds(capsys, "--help")

    @pytest.mark.parametrize("absent", ["typer", "rich"])
    def test_without_the_extra_it_says_what_to_install(self, absent: str) -> None:
        code = (
            f"import sys; sys.modules[{absent!r}] = None; "
            "from splitpipe.cli import main; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "pip install 'splitpipe[cli]'" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_reader_that_leaves_early_is_no_error(self, dataset: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as gone:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-m", "splitpipe", "head", str(dataset)],
                env=environment(),
                stdout=gone,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")
