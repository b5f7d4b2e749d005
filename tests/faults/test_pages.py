"""The pages about failures and promises name tests and commands that exist, and all rows."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from splitpipe.testing import faults
from splitpipe.testing.faults import HOWS
from tests.faults.places import PLACES
from tests.faults.program import STATES

ROOT = Path(__file__).resolve().parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
FAILURES = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
PLAIN = FAILURES.replace("`", "")
TEST = re.compile(r"((?:tests|benchmarks)/[\w/]+(?:\.py)?)((?:::\w+)*)")
MODULE = re.compile(r"python -m ((?:benchmarks|splitpipe)[\w.]*)")


def rows() -> list[list[str]]:
    """The rows of all tables of promises, without their heads."""
    lines = [line for line in GUARANTEES.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "promise"]


def names(path: Path) -> set[str]:
    """Tests and classes of a module, as pytest calls them."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(f"::{node.name}")
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef):
                    found.add(f"::{node.name}::{inner.name}")
    return found


@pytest.mark.parametrize("text", [GUARANTEES, FAILURES], ids=["guarantees", "failures"])
def test_every_test_that_is_named_exists(text: str) -> None:
    found = TEST.findall(text)
    assert found
    for path, name in found:
        assert (ROOT / path).exists(), path
        assert not name or name in names(ROOT / path), f"{path}{name}"


@pytest.mark.parametrize("text", [GUARANTEES, FAILURES], ids=["guarantees", "failures"])
def test_every_module_that_is_run_exists(text: str) -> None:
    for module in MODULE.findall(text):
        assert importlib.util.find_spec(module) is not None, module


def test_every_promise_has_one_sentence_a_proof_and_a_command() -> None:
    assert len(rows()) >= 20
    for row in rows():
        promise, proof, command = row
        assert promise.endswith("."), promise
        assert promise.count(". ") == 0, f"more than one sentence: {promise}"
        assert TEST.search(proof), promise
        assert re.match(r"`.*python -m ", command), promise


def test_every_place_and_every_state_stands_in_the_tables() -> None:
    assert [name for name in PLACES if name not in PLAIN] == []
    words = {
        "waiting for a slot": "waiting for one",
        "holding a slot": "filling a slot",
        "in a pipeline of its own": "pipelines of their own",
        "in a loop": "an endless loop in Python",
        "in a loop in C": "an endless loop in C",
        "stopped": "stopped by SIGSTOP",
    }
    assert [name for name in STATES if words.get(name, name) not in PLAIN] == []


def test_every_way_and_every_name_is_documented() -> None:
    assert [how for how in HOWS if f'`"{how}"`' not in FAILURES] == []
    public = ("Fault", "FaultLog", "Estate", "Tap", "Strike", "Recorder", "PowerFailure", "Damaged")
    assert [name for name in public if name not in faults.__all__ or name not in FAILURES] == []
