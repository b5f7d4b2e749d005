"""This tree against an earlier revision of itself: ``python -m benchmarks.against REVISION``.

Responsible for: a checkout of that revision beside this one, its kernel built as this one's is, and
cases of both trees in turns. What was added since costs what the ratio is short of one.

    python -m benchmarks.against REVISION --case tiny --case chain --rounds 9

Rules:
- both trees run under the same interpreter and the same libraries, each with its own code, cases
  and kernel; that a case does the same work in both is for the reader to know;
- trees take turns, and who begins changes from round to round. A ratio is taken within each round,
  and the median of those is the figure: a slow minute falls on both;
- each round's figure of a tree is that of one process that stays (a new one for cases of starts).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import Case
from benchmarks.cases import CASES
from benchmarks.harness import PREPARE_TIMEOUT_S, ROOT, ROUND_TIMEOUT_S, Child
from benchmarks.report import number

__all__ = ["main"]

CASES_OF_PIPELINES = ("batch_9.6MB", "batch_1MB", "tiny", "chain", "ordered_map", "overlap")
NOW, BEFORE = "now", "before"


def checked_out(revision: str, place: Path) -> Path:
    """Clone this repository at `revision` to `place`, and build what is compiled there."""
    for command in (
        ["git", "clone", "--quiet", str(ROOT), str(place)],
        ["git", "-C", str(place), "checkout", "--quiet", "--detach", revision],
        [sys.executable, str(place / "setup.py"), "--quiet", "build_ext", "--inplace"],
    ):
        cwd = place if place.exists() else None
        subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)
    return place


class Side:
    """One of the trees, in one case.

    Args:
        root: the tree.
        job: for its child.
        log: what that prints.
    """

    def __init__(self, root: Path, job: dict[str, Any], log: Path) -> None:
        self._make = lambda: Child(job, log, root=root)
        self._child: Child | None = None

    def open(self) -> None:
        """Let it prepare, and check that it does what it is to do."""
        self._child = self._make()
        self._said(PREPARE_TIMEOUT_S)

    def round(self) -> dict[str, float]:
        """Take a figure of each kind."""
        if self._child is None:
            self.open()
        return self._said(ROUND_TIMEOUT_S)

    def close(self) -> None:
        """End its process. Safe to call twice."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _said(self, timeout_s: float) -> dict[str, float]:
        assert self._child is not None
        answer = self._child.ask(timeout_s)
        if "metrics" not in answer:
            raise SystemExit(f"no figure: {answer}")
        figures: dict[str, float] = answer["metrics"]
        return figures


def measured(
    case: Case,
    system: str,
    roots: dict[str, Path],
    rounds: int,
    place: Path,
    options: dict[str, Any],
) -> list[dict[str, dict[str, float]]]:
    """The figures of both trees, round by round."""
    sides = {}
    for name, root in roots.items():
        directory = place / name / case.name / system
        directory.mkdir(parents=True)
        job = {"case": case.name, "system": system, "directory": str(directory), **options}
        sides[name] = Side(root, job, place / f"{name}.log")
    found: list[dict[str, dict[str, float]]] = []
    try:
        for side in sides.values():
            side.open()
        for number_of_round in range(rounds):
            found.append({})
            for name in sorted(sides, reverse=bool(number_of_round % 2)):
                found[-1][name] = sides[name].round()
                if case.fresh:
                    sides[name].close()
    finally:
        for side in sides.values():
            side.close()
    return found


def rows(case: Case, system: str, found: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """What was measured, a line a figure: a ratio of more than one is in favour of this tree."""
    lines = []
    for metric in case.metrics:
        name = metric.name
        both = [one for one in found if min(one[NOW].get(name, 0), one[BEFORE].get(name, 0)) > 0]
        if not both:
            continue
        ratios = sorted(
            one[NOW][name] / one[BEFORE][name]
            if metric.higher_is_better
            else one[BEFORE][name] / one[NOW][name]
            for one in both
        )
        before, now = (statistics.median(one[side][name] for one in both) for side in (BEFORE, NOW))
        lines.append(
            f"| {case.name} | {system} | {name} [{metric.unit}] | {number(before)} | {number(now)} "
            f"| {statistics.median(ratios):.3f} ({ratios[0]:.2f}..{ratios[-1]:.2f}) |"
        )
    return lines


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("revision", help="of this repository: what to measure against")
    add("--case", action="append", default=[], choices=list(CASES), help="repeatable")
    add("--system", default="splitpipe")
    add("--rounds", type=int, default=7)
    add("--scale", choices=("full", "quick", "tiny"), default="quick")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Measure; returns the exit status."""
    arguments = _arguments(argv)
    options = {"scale": arguments.scale, "seed": arguments.seed}
    with tempfile.TemporaryDirectory(prefix="splitpipe-against-") as folder:
        roots = {NOW: ROOT, BEFORE: checked_out(arguments.revision, Path(folder, "tree"))}
        print("| case | system | figure | before | now | now over before, median of rounds |")
        print("|---|---|---|---|---|---|", flush=True)
        for name in arguments.case or CASES_OF_PIPELINES:
            case = CASES[name]
            place = Path(folder, "work")
            found = measured(case, arguments.system, roots, arguments.rounds, place, options)
            print("\n".join(rows(case, arguments.system, found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
