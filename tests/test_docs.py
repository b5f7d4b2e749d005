"""The documentation does what it says: programs run, commands exist, names show an example."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

import splitpipe
from splitpipe.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT_S = 30
FENCE = re.compile(r"^```python runnable\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match["code"]))
    return found


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def options() -> list[tuple[str, str]]:
    return [
        (name, option)
        for name, command in sorted(commands().items())
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
        if option.startswith("--")
    ]


def everything_written() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_readme_has_programs() -> None:
    assert sum(block.page.name == "README.md" for block in blocks()) >= 4


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_block_runs(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # this tree, whatever is installed
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_are_commands() -> None:
    assert {"check", "convert", "demo", "head", "info", "tokenize"} <= set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_command_is_documented(name: str) -> None:
    assert f"splitpipe {name}" in everything_written()
    assert commands()[name].help


@pytest.mark.parametrize(("name", "option"), options())
def test_option_is_documented(name: str, option: str) -> None:
    assert option in everything_written(), f"splitpipe {name} {option} stands in no page"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = match["target"]
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", sorted(splitpipe.__all__))
def test_public_name_shows_an_example(name: str) -> None:
    value = getattr(splitpipe, name)
    if isinstance(value, str) or (isinstance(value, type) and issubclass(value, Exception)):
        assert value.__doc__
        return
    examples = doctest.DocTestFinder(recurse=False).find(value, name)
    assert any(test.examples for test in examples), f"splitpipe.{name} shows no example"
