"""The command line: which cases, which systems, where to.

Responsible for: arguments and the order of things. Measuring is the harness's, words the report's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, report
from benchmarks.bars import judge
from benchmarks.base import Case
from benchmarks.cases import CASES
from benchmarks.harness import CaseResult, run_case
from benchmarks.systems import SYSTEMS, missing, parse

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--suite", choices=("bars", "full"), default="bars", help="bars: what the bars name")
    add("--case", action="append", default=[], metavar="NAME", help="only this case; repeatable")
    add("--system", action="append", default=[], metavar="NAME", help="only this system, or name@2")
    add("--quick", action="store_true", help="small sizes, three rounds: a look, not a figure")
    add("--tiny", action="store_true", help="smallest sizes: does everything run?")
    add("--rounds", type=int, help="rounds a system, instead of each case's own number")
    add("--seed", type=int, default=0)
    add("--dir", type=Path, help="where datasets are written (default: a temporary folder)")
    add("--json", type=Path, help="results file (default: benchmarks/results/<time>.json)")
    add("--markdown", type=Path, help="write the tables here, or between its markers")
    add("--check-bars", action="store_true", help="exit with 1 unless all bars are met")
    add("--list", action="store_true", help="list cases and systems, run nothing")
    return parser.parse_args(argv)


def _listing() -> str:
    lines = ["cases:"]
    for case in CASES.values():
        lines += [f"  {case.name:<14}{case.title}"]
        lines += [f"    bars: {', '.join(case.bars) or '-'}", f"    full: {', '.join(case.others)}"]
    lines.append("systems (name@2 for two workers):")
    for name, system in SYSTEMS.items():
        absent = missing(name)
        state = f"missing {', '.join(absent)}" if absent else "installed"
        lines.append(f"  {name:<20}{state:<24}{system.note}")
    return "\n".join(lines)


def _selection(arguments: argparse.Namespace) -> list[tuple[Case, tuple[str, ...]]]:
    """The cases to run, each with its systems.

    Raises:
        SystemExit: A name is not known.
    """
    unknown = [name for name in arguments.case if name not in CASES]
    unknown += [name for name in arguments.system if parse(name)[0] not in SYSTEMS]
    if unknown:
        raise SystemExit(f"not known: {', '.join(unknown)}; see --list")
    chosen = []
    for case in CASES.values():
        if arguments.case and case.name not in arguments.case:
            continue
        systems = case.bars if arguments.suite == "bars" else (*case.bars, *case.others)
        if arguments.system:
            every = (*case.bars, *case.others)
            one = len(arguments.case) == 1  # then its systems need not be those that are listed
            systems = tuple(s for s in arguments.system if one or s in every)
        if systems:
            chosen.append((case, systems))
    return chosen


def _paste(path: Path, text: str) -> None:
    """Write `text` to `path`, between the markers where the file has them."""
    if path.exists() and BEGIN in (old := path.read_text()):
        head, _, rest = old.partition(BEGIN)
        _, _, tail = rest.partition(END)
        text = f"{head}{BEGIN}\n{text}{END}{tail}"
    path.write_text(text)


def main(argv: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit status."""
    arguments = _arguments(argv)
    if arguments.list:
        print(_listing())
        return 0
    scale = "tiny" if arguments.tiny else "quick" if arguments.quick else "full"
    chosen = _selection(arguments)
    directory = Path(tempfile.mkdtemp(prefix="splitpipe-bench-", dir=arguments.dir))
    names = {parse(system)[0] for _, systems in chosen for system in systems}
    facts = machine.describe(directory)
    found = machine.versions(d for name in names for d in SYSTEMS[name].distributions)
    command = " ".join(["python -m benchmarks", *argv])
    head = report.head_lines({**facts, "command": command, "scale": scale}, found, arguments.seed)
    print(head, flush=True)
    begin = time.perf_counter()
    results: dict[str, CaseResult] = {}

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begin:6.1f} s] {text}", flush=True)

    try:
        for case, systems in chosen:
            results[case.name] = run_case(
                case,
                systems,
                scale=scale,
                seed=arguments.seed,
                directory=directory,
                rounds=arguments.rounds,
                say=say,
            )
            print(report.table(case, results[case.name]), flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    verdicts = judge(results)
    print(report.verdict_lines(verdicts))
    path = arguments.json or RESULTS / f"{facts['started'].replace(':', '')}.json"
    document = {
        "machine": facts,
        "versions": found,
        "command": command,
        "scale": scale,
        "seed": arguments.seed,
        "wall_s": round(time.perf_counter() - begin, 1),
        "cases": {
            name: {"title": r.title, "systems": {s: v.summary() for s, v in r.systems.items()}}
            for name, r in results.items()
        },
        "bars": [
            {"text": v.bar.text, "case": v.bar.case, "met": v.met, "figures": v.figures}
            for v in verdicts
        ],
    }
    report.write_json(path, document)
    print(f"\nresults: {os.path.relpath(path)}   ({document['wall_s']} s)")
    if arguments.markdown:
        cases = [case for case, _ in chosen]
        _paste(arguments.markdown, report.markdown(cases, results, verdicts, head))
    broken = any(s.failed for r in results.values() for s in r.systems.values())
    missed = any(v.met is not True for v in verdicts)
    return 1 if broken or (arguments.check_bars and missed) else 0
