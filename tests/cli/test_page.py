"""docs/cli.md and the program say the same: every command, every option, every member of JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import splitpipe as sp
from splitpipe.cli.app import app
from tests.cli.making import printed, word_level

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(
    re.findall(r"^## splitpipe (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
)


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def options(command: Any) -> set[str]:
    """Of a command, or of all commands of a group."""
    below = getattr(command, "commands", None)
    if below is not None:
        return set().union(*map(options, below.values()))
    kinds = {each: each.param_type_name for each in command.params}
    return {name for each, kind in kinds.items() if kind == "option" for name in each.opts}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(SECTIONS) == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_stands_in_its_section_and_no_other(name: str) -> None:
    told = set()
    for row in re.findall(r"^\| (`-.*?) \|", SECTIONS[name], re.MULTILINE):
        told |= set(re.findall(r"`(-[-\w]+)`", row))
    assert told == options(commands()[name]) - {"--help"}


@pytest.mark.parametrize("name", sorted(commands()))
def test_arguments_stand_in_the_first_line(name: str) -> None:
    first = SECTIONS[name].strip().splitlines()[0]
    wanted = [
        each.name.upper() for each in commands()[name].params if each.param_type_name == "argument"
    ]
    assert first.startswith(f"`{' '.join(['splitpipe', name, *wanted])}")


def members(document: Any) -> set[str]:
    """Names of members at any depth, except those that are data."""
    if isinstance(document, list):
        return set().union(*map(members, document))
    if not isinstance(document, dict):
        return set()
    below = (
        v for k, v in document.items() if k not in ("schema", "metadata", "parts", "record", "meta")
    )
    return set(document).union(*map(members, below))


def told_by(name: str) -> set[str]:
    _, _, text = SECTIONS[name].partition("\nJSON")
    return set(re.findall(r"`(\w+)`", text))


class TestJson:
    """Every member that is printed stands on the page, and every one on the page is printed."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        path = tmp_path / "data"
        with sp.DatasetWriter(path, bins=2, metadata={"weight": "int64"}) as writer:
            for n in range(20):
                writer.write({"text": "a b", "n": n}, key=str(n), meta={"weight": n})
        return path

    @pytest.mark.parametrize("name", ["stats", "index", "check", "repair", "compact"])
    def test_of_one_dataset(
        self, dataset: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        found = printed(capsys, name, dataset)
        if name == "check":  # which has nothing to tell of what is wrong
            found |= printed(capsys, "check", dataset.as_uri())
            found["findings"] = [{"row": None, "message": ""}]
        assert members(found) == told_by(name)

    def test_of_info(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.jsonl").write_text("{}\n")
        ours = printed(capsys, "info", dataset)
        theirs = printed(capsys, "info", tmp_path / "a.jsonl")
        assert theirs.pop("columns") == {"data": "json"}
        assert members(ours) | set(theirs) | {"splitpipe"} == told_by("info") | {"splitpipe"}

    def test_of_head(self, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = printed(capsys, "head", "-n1", dataset)
        assert line == {
            "index": 0,
            "key": "0",
            "meta": {"weight": 0},
            "record": {"text": "a b", "n": 0},
        }
        assert set(line) <= told_by("head")

    def test_of_what_writes(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = printed(capsys, "convert", dataset, tmp_path / "copy", "-w0", "--bins=1")
        assert set(found) == told_by("convert")
        parts = printed(capsys, "split", dataset, tmp_path / "parts", "-w0", "--bins=1")
        assert {name: set(part) for name, part in parts.items()} == dict.fromkeys(
            ("train", "val", "test"), told_by("convert")
        )
        words = ("--tokenizer", word_level(tmp_path), "--length", 4, "-w0")
        found = printed(capsys, "tokenize", dataset, tmp_path / "tokens", "--text=text", *words)
        assert set(found) == told_by("tokenize")
