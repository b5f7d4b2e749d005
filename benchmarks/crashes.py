"""What happens in each system when something goes wrong: ``python -m benchmarks.crashes``.

Responsible for: which cells of the table are run, gathering what they did, and the table itself.

    python -m benchmarks.crashes --list
    python -m benchmarks.crashes --row kill --row "kill once" --system pool
    python -m benchmarks.crashes --markdown docs/failures.md

Rules:
- nothing is judged from its name or its documentation: a cell says what was seen, here, once;
- results are gathered in a file, so that a few cells may be run at a time; the table is made of all
  that it has;
- a loss is printed like a win.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.chaotic.cells import Outcome, run_cell
from benchmarks.chaotic.peers import SYSTEMS, missing
from benchmarks.chaotic.rows import AT, COUNT, ROWS, Row
from splitpipe.testing.faults import adopt_orphans

__all__ = ["main", "markdown", "words"]

RESULTS = Path(__file__).resolve().parent / "results" / "crashes.json"
BEGIN, END = "<!-- crashes: begin -->", "<!-- crashes: end -->"


def words(row: Row, outcome: Outcome) -> str:
    """What was seen, for a cell; what should not be is bold.

    >>> words(ROWS["kill"], Outcome(items=[0, 1], hangs=True, ctrl_c=True))
    '**hangs** after 2 items; Ctrl-C ends it'
    >>> words(ROWS["raise"], Outcome(items=list(range(60)), error="ValueError", seconds=0.002))
    '`ValueError` after 60 items, 2 ms'
    """
    return "; ".join([*_ending(row, outcome), *_remains(outcome)])


def _ending(row: Row, outcome: Outcome) -> list[str]:
    count = len(outcome.items)
    took = "" if outcome.seconds is None else f", {_duration(outcome.seconds)}"
    if outcome.error is not None or outcome.ended:
        told = f"`{outcome.error}` after {count} items{took}"
        if outcome.ended:
            told = (
                "all items" if outcome.whole else f"**ends quietly with {count} of {COUNT} items**"
            )
        parts = [told]
        if not outcome.in_order:
            lost = len(set(range(max(outcome.items) + 1)) - set(outcome.items))
            parts.append(f"**{lost} lost before others**")
        if outcome.hangs:
            parts.append("**then it hangs**" + _escape(outcome))
        return parts
    if outcome.hangs:
        return [f"**hangs** after {count} items" + _escape(outcome)]
    if row.act or row.leaves:
        return [f"ends{took}"]
    status = outcome.status or 0
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    return [f"**the whole program ends** ({how}) after {count} items"]


def _escape(outcome: Outcome) -> str:
    return "; Ctrl-C ends it" if outcome.ctrl_c else "; **not even Ctrl-C ends it**"


def _remains(outcome: Outcome) -> list[str]:
    kinds = [text.split()[0] for text in outcome.left]
    plural = {"process": "processes", "socket": "sockets", "file": "files"}
    return [
        f"**{kinds.count(kind)} {kind if kinds.count(kind) == 1 else plural[kind]} left**"
        for kind in plural
        if kind in kinds
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{1e3 * seconds:.0f} ms"


def markdown(results: Mapping[str, Mapping[str, Any]], head: str) -> str:
    """The table, to stand between the marks of ``docs/failures.md``."""
    systems = [name for name in SYSTEMS if any(name in cells for cells in results.values())]
    lines = ["```text", head, "```", ""]
    lines.append("| what goes wrong | " + " | ".join(SYSTEMS[name][0] for name in systems) + " |")
    lines.append("|---" * (len(systems) + 1) + "|")
    for name, row in ROWS.items():
        cells = results.get(name, {})
        if cells:
            texts = [words(row, Outcome(**cells[one])) if one in cells else "-" for one in systems]
            lines.append(f"| {row.title} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crashes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--row", action="append", default=[], metavar="NAME", help="only this row; repeatable")
    add("--system", action="append", default=[], metavar="NAME", help="only this system")
    add("--limit", type=float, default=10.0, help="seconds without a word that are a hang")
    add("--json", type=Path, default=RESULTS, help="where results are gathered")
    add("--markdown", type=Path, help="write the table here, between its marks")
    add("--list", action="store_true", help="list rows and systems, run nothing")
    add("--no-run", action="store_true", help="make the table of what was gathered, run nothing")
    return parser.parse_args(argv)


def _listing() -> str:
    lines = ["rows:", *(f"  {row.name:<16}{row.title}" for row in ROWS.values()), "systems:"]
    lines += [f"  {name:<16}{missing(name) or 'installed'}" for name in SYSTEMS]
    return "\n".join(lines)


def _head() -> str:
    facts = machine.describe(RESULTS.parent.parent)
    found = machine.versions(("splitpipe", "torch", "splitdataloader", "numpy"))
    kept = ("cpu", "cores", "kernel", "python", "revision", "started")
    lines = [f"{key}: {facts[key]}" for key in kept]
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    lines.append(f"{COUNT} items by two workers; the fault is in item {AT}")
    return "\n".join(lines)


def _paste(path: Path, text: str) -> None:
    """Write `text` between the marks of a page."""
    head, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not mark:
        raise SystemExit(f"{path} has no line {BEGIN}")
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{text}{END}{tail}", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit status."""
    arguments = _arguments(argv)
    unknown = [name for name in arguments.row if name not in ROWS]
    unknown += [name for name in arguments.system if name not in SYSTEMS]
    if unknown:
        raise SystemExit(f"not known: {', '.join(unknown)}; see --list")
    if arguments.list:
        print(_listing())
        return 0
    results: dict[str, dict[str, Any]] = {}
    if arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))
    if not arguments.no_run:
        adopt_orphans()
        for row in (ROWS[name] for name in arguments.row or ROWS):
            for system in arguments.system or SYSTEMS:
                if reason := missing(system):
                    print(f"{row.name:<16}{system:<14}- ({reason})", flush=True)
                    continue
                outcome = run_cell(system, row, arguments.limit)
                results.setdefault(row.name, {})[system] = asdict(outcome)
                print(f"{row.name:<16}{system:<14}{words(row, outcome)}", flush=True)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.markdown:
        _paste(arguments.markdown, markdown(results, _head()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
