"""Measuring a tree against another one: in turns, ratios round by round."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.against import BEFORE, NOW, measured, rows
from benchmarks.cases import CASES
from benchmarks.harness import ROOT

TINY = {"scale": "tiny", "seed": 0}


@pytest.mark.deadline(120)
@pytest.mark.parametrize("name", ["tiny", "first_batch"])
def test_two_trees_take_turns(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    roots = {NOW: ROOT, BEFORE: ROOT}
    found = measured(case, "splitpipe", roots, 2, tmp_path, TINY)
    assert [sorted(one) for one in found] == [[BEFORE, NOW]] * 2
    for one in found:
        assert all(one[NOW][metric.name] > 0 for metric in case.metrics)
    assert len(rows(case, "splitpipe", found)) == len(case.metrics)


def test_a_tree_that_fails_has_no_figure(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    roots = {NOW: ROOT, BEFORE: tmp_path / "none"}
    with pytest.raises(SystemExit, match="no figure"):
        measured(CASES["tiny"], "nobody", roots, 1, tmp_path / "work", TINY)


def test_a_ratio_is_that_of_a_round() -> None:
    case = CASES["first_batch"]  # less is better
    found = [
        {NOW: {"first_ms": 100.0}, BEFORE: {"first_ms": 200.0}},
        {NOW: {"first_ms": 300.0}, BEFORE: {"first_ms": 300.0}},  # a slow minute
        {NOW: {"first_ms": 100.0}, BEFORE: {"first_ms": 130.0}},
    ]
    (line,) = rows(case, "splitpipe", found)
    assert line.endswith("| first_ms [ms] | 200 | 100 | 1.300 (1.00..2.00) |")
