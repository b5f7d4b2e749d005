"""What would be published; `tests/release.py` does the work."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

import pytest

from tests.release import EXTRAS, lowest, main, requirements

ROOT = Path(__file__).resolve().parents[1]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_what_is_cited_is_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    found = re.search(r"^version: (\S+)$", text, re.MULTILINE)
    assert found
    assert found[1] == setup_cfg()["metadata"]["version"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_core_dependency_has_a_lowest_version(python: str) -> None:
    pinned = lowest(requirements(), python)
    assert len(pinned) == len({one.name for one in requirements()})
    assert all("==" in one for one in pinned)


def test_extras_that_are_tried_are_there() -> None:
    extras = setup_cfg()["options.extras_require"]
    for name in EXTRAS:
        assert name in extras
        assert all("==" in one for one in lowest(requirements(name), "3.11")), name


@pytest.mark.long
@pytest.mark.deadline(1800)
@pytest.mark.leaks("subprocesses of pip end when they like")
def test_it_installs_and_runs_everywhere() -> None:
    """``python -m tests.release``, for this Python: environments, and all that they download."""
    pytest.importorskip("build", reason="the package that makes sdists")
    assert main(["--python", f"{sys.version_info[0]}.{sys.version_info[1]}"]) == 0
